//! The `config` target under libFuzzer; what it does is in `../config.rs`.

#![no_main]

#[path = "../config.rs"]
mod config;

libfuzzer_sys::fuzz_target!(|data: &[u8]| config::run(data));
