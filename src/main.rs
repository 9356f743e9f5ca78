//! Arguments to configuration to runtime; nothing else.
//!
//! With `log`, a look at the durable log instead of a broker. A bad start is one line on standard error for each thing that is wrong, and exit status 1.

use quelea::config::{Config, File, LogLevel, args};
use quelea::runtime::log_tool::{self, Verdict};
use quelea::runtime::{self, RunConfig, machine};
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `quelea log` has found something that should be there and cannot be read.
const LOG_DAMAGED: u8 = 2;

fn main() -> ExitCode {
    let args = match args::parse(std::env::args_os()) {
        Ok(args) => args,
        Err(stop) => return print_and_stop(&stop),
    };
    let text = match args.config_file.as_ref().map(std::fs::read_to_string).transpose() {
        Ok(text) => text,
        Err(error) => {
            let name = args.config_file.unwrap_or_default();
            return refuse(&[format!("{}: cannot be read: {error}", name.display())]);
        }
    };
    let name = args.config_file.as_ref().map(|name| name.display().to_string()).unwrap_or_default();
    let file = text.as_ref().map(|text| File { name: &name, text });
    let config = match Config::parse(machine::probe(), file, &args.sets) {
        Ok(config) => config,
        Err(errors) => return refuse(&errors),
    };
    log_to_stderr(config.log_level);
    if let Some(request) = &args.log {
        return match log_tool::run(&config.data_dir, request, &mut io::stdout().lock()) {
            Ok(Verdict::Sound) => ExitCode::SUCCESS,
            Ok(Verdict::Damaged) => ExitCode::from(LOG_DAMAGED),
            Err(error) => refuse(&[error]),
        };
    }
    let Config { listeners, http, shards, data_dir, free_bytes_min, shard: options, .. } = config;
    match runtime::run(RunConfig { listeners, http, shards, data_dir, free_bytes_min, options }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&[format!("{error:#}")]),
    }
}

/// What `--help` and `--version` print is no failure.
fn print_and_stop(stop: &clap::Error) -> ExitCode {
    // There is nobody to tell when even this cannot be written.
    let _ = stop.print();
    ExitCode::from(u8::from(stop.use_stderr()))
}

fn refuse(errors: &[impl Display]) -> ExitCode {
    let mut stderr = io::stderr().lock();
    for error in errors {
        // There is nobody to tell when even this cannot be written.
        let _ = writeln!(stderr, "{error}");
    }
    ExitCode::FAILURE
}

fn log_to_stderr(level: LogLevel) {
    tracing_subscriber::fmt().with_max_level(level.filter()).with_writer(io::stderr).init();
}
