//! Where reports go: the arguments that say so, and the writing.

use anyhow::{Context, Result};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What every command with a report takes.
#[derive(clap::Args, Clone, Debug)]
pub struct ReportArgs {
    /// Write the report there as JSON (- is standard output)
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// No progress and no table
    #[arg(long, short)]
    pub quiet: bool,
}

/// What commands take that are made of runs of others.
#[derive(clap::Args, Clone, Debug)]
pub struct SummaryArgs {
    /// Passed on to the clients of every run, such as --args "--sub-qos 1 --cpus 2-3"
    #[arg(long, default_value = "", allow_hyphen_values = true, value_name = "ARGS")]
    pub args: String,
    /// Write the table there
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    #[command(flatten)]
    pub report: ReportArgs,
}

impl ReportArgs {
    /// Prints a report as a table, and writes it where it is wanted as JSON.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn print(&self, report: &Value, table: impl FnOnce(&Value) -> String) -> Result<()> {
        if !self.quiet && !self.is_standard_output() {
            write!(std::io::stdout(), "{}", table(report))?;
        }
        if self.is_standard_output() {
            std::io::stdout().write_all(text(report)?.as_bytes())?;
        }
        self.save(report)
    }

    /// Writes what there is of a report so far, if a file is wanted.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, report: &Value) -> Result<()> {
        match &self.json {
            Some(path) if !self.is_standard_output() => write_file(path, &text(report)?),
            _ => Ok(()),
        }
    }

    fn is_standard_output(&self) -> bool {
        self.json.as_deref() == Some(Path::new("-"))
    }
}

impl SummaryArgs {
    /// What is passed on.
    pub fn words(&self) -> impl Iterator<Item = String> + '_ {
        self.args.split_whitespace().map(str::to_owned)
    }

    /// Writes the table, if a file is wanted.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save_table(&self, table: &str) -> Result<()> {
        self.markdown.as_deref().map_or(Ok(()), |path| write_file(path, table))
    }
}

fn text(report: &Value) -> Result<String> {
    Ok(serde_json::to_string_pretty(report)? + "\n")
}

/// Writes a file anew.
///
/// # Errors
/// If that fails, with its name.
pub fn write_file(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
