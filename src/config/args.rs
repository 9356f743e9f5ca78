//! The command line: `quelea [--config FILE] [--set key=value]… [--help] [--version]`, and `quelea log COMMAND`.
//!
//! Pure: reads nothing and prints nothing.

use super::help;
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::ffi::OsString;
use std::path::PathBuf;

/// What the command line asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Args {
    /// `--config`: the file to read; none is read without it.
    pub config_file: Option<PathBuf>,
    /// `--set`, in order, and what `--data-dir` stands for.
    pub sets: Vec<String>,
    /// `log`: no broker, but this.
    pub log: Option<LogRequest>,
}

/// What is asked of the durable log while no broker is started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogRequest {
    /// What to do.
    pub command: LogCommand,
    /// `--json`: for machines.
    pub json: bool,
}

/// What to do with the durable log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogCommand {
    /// Say what is in it.
    Inspect,
    /// Read all of it, and say whether it is sound.
    Verify,
    /// Copy together what lives, and give back the rest.
    Compact,
    /// Show what it holds of one client.
    Dump {
        /// Which.
        client_id: String,
    },
}

/// Parses the arguments, the program's name first.
///
/// # Errors
///
/// What to print instead of starting: a mistake, or the text `--help` and `--version` ask for.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Args, clap::Error> {
    let mut matches = command().try_get_matches_from(args)?;
    let mut parsed = Args {
        config_file: matches.remove_one("config"),
        sets: matches.remove_many("set").map(Iterator::collect).unwrap_or_default(),
        log: None,
    };
    if let Some((_, mut log)) = matches.remove_subcommand() {
        let folder: Option<String> = log.remove_one("data-dir");
        parsed.sets.extend(folder.map(|folder| format!("quelea.data_dir={folder}")));
        parsed.log = log_request(log);
    }
    Ok(parsed)
}

fn log_request(mut matches: ArgMatches) -> Option<LogRequest> {
    let json = matches.get_flag("json");
    let (name, mut rest) = matches.remove_subcommand()?;
    let command = match name.as_str() {
        "verify" => LogCommand::Verify,
        "compact" => LogCommand::Compact,
        "dump" => LogCommand::Dump { client_id: rest.remove_one("client-id")? },
        _ => LogCommand::Inspect,
    };
    Some(LogRequest { command, json })
}

fn command() -> Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .global(true)
        .help("Read settings from FILE, in the dialect of rabbitmq.conf");
    let set = Arg::new("set")
        .long("set")
        .value_name("KEY=VALUE")
        .action(ArgAction::Append)
        .global(true)
        .help("Set one key; may be given many times and beats FILE");
    Command::new("quelea")
        .version(env!("CARGO_PKG_VERSION"))
        .about("An MQTT broker for one big machine: MQTT 3.1, 3.1.1 and 5.0, one thread per core")
        .args([config, set])
        .subcommand(log_command())
        .after_help(help::keys_text())
}

fn log_command() -> Command {
    let folder = Arg::new("data-dir")
        .long("data-dir")
        .value_name("DIR")
        .global(true)
        .help("The broker's data directory, as quelea.data_dir says it");
    let json = Arg::new("json").long("json").action(ArgAction::SetTrue).global(true).help("Write JSON");
    let client_id =
        Arg::new("client-id").long("client-id").value_name("ID").required(true).help("The client identifier");
    Command::new("log")
        .about("Look at the durable log, or compact it, without a broker")
        .args([folder, json])
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(Command::new("inspect").about("Say what it holds; may run beside a broker"))
        .subcommand(
            Command::new("verify")
                .about("Read all of it, and say whether it is sound; may run beside a broker"),
        )
        .subcommand(
            Command::new("compact")
                .about("Copy together what lives, and give back the rest; no broker may run"),
        )
        .subcommand(Command::new("dump").about("Show one session; may run beside a broker").arg(client_id))
        .after_help("Exit status: 0 sound, 1 not done, 2 something that should be there cannot be read")
}
