//! The command line: `quelea [--config FILE] [--set key=value]… [--help] [--version]`.
//!
//! Pure: reads nothing and prints nothing.

use super::help;
use clap::{Arg, ArgAction, Command};
use std::ffi::OsString;
use std::path::PathBuf;

/// What the command line asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Args {
    /// `--config`: the file to read; none is read without it.
    pub config_file: Option<PathBuf>,
    /// `--set`, in order.
    pub sets: Vec<String>,
}

/// Parses the arguments, the program's name first.
///
/// # Errors
///
/// What to print instead of starting: a mistake, or the text `--help` and `--version` ask for.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Args, clap::Error> {
    let mut matches = command().try_get_matches_from(args)?;
    Ok(Args {
        config_file: matches.remove_one("config"),
        sets: matches.remove_many("set").map(Iterator::collect).unwrap_or_default(),
    })
}

fn command() -> Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help("Read settings from FILE, in the dialect of rabbitmq.conf");
    let set = Arg::new("set")
        .long("set")
        .value_name("KEY=VALUE")
        .action(ArgAction::Append)
        .help("Set one key; may be given many times and beats FILE");
    Command::new("quelea")
        .version(env!("CARGO_PKG_VERSION"))
        .about("An MQTT broker for one big machine: MQTT 3.1, 3.1.1 and 5.0, one thread per core")
        .args([config, set])
        .after_help(help::keys_text())
}
