//! Arguments to configuration to runtime; nothing else.
//!
//! A bad start is one line on standard error for each thing that is wrong, and exit status 1.

use quelea::config::{Config, File, LogLevel, args};
use quelea::runtime::{self, RunConfig, machine};
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    let Config { listeners, http, shards, data_dir, shard: options, .. } = config;
    match runtime::run(RunConfig { listeners, http, shards, data_dir, options }) {
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
