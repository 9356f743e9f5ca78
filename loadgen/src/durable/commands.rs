//! The commands that kill and start the broker: run beside the load, each by `sh -c` in a process group of its own.

use anyhow::{Context, Result, ensure};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};

/// Commands that were started.
#[derive(Default)]
pub struct Commands {
    running: Vec<(String, Child)>,
}

impl Commands {
    /// Starts one. Its standard output is thrown away, its errors are ours.
    ///
    /// # Errors
    /// If there is no `sh`.
    pub fn run(&mut self, command: &str) -> Result<()> {
        let child = Command::new("sh")
            .args(["-c", command])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // What ends this process by the terminal does not end the broker.
            .process_group(0)
            .spawn()
            .with_context(|| format!("`{command}` cannot be run"))?;
        self.running.push((command.to_owned(), child));
        Ok(())
    }

    /// Takes note of those that have ended, so that nobody waits for their zombies.
    ///
    /// # Errors
    /// If one has failed by itself.
    pub fn look(&mut self) -> Result<()> {
        let mut failed = None;
        self.running.retain_mut(|(command, child)| match child.try_wait() {
            Ok(Some(status)) => {
                if !is_fine(status) {
                    failed = Some(format!("`{command}` has failed: {status}"));
                }
                false
            }
            Ok(None) => true,
            Err(error) => {
                failed = Some(format!("`{command}`: {error}"));
                false
            }
        });
        ensure!(failed.is_none(), "{}", failed.unwrap_or_default());
        Ok(())
    }

    /// Whether a command like this runs.
    pub fn is_running(&self, command: &str) -> bool {
        self.running.iter().any(|(other, _)| other == command)
    }
}

/// A command that was the broker itself is ended by the kill, not by itself.
fn is_fine(status: ExitStatus) -> bool {
    status.success() || status.code().is_none_or(|code| code > 128)
}
