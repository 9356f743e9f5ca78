//! The `session` target under libFuzzer; what it does is in `../session.rs`.

#![no_main]

#[path = "../input.rs"]
mod input;
#[path = "../peer.rs"]
mod peer;
#[path = "../session.rs"]
mod session;
#[path = "../world.rs"]
mod world;

libfuzzer_sys::fuzz_target!(|data: &[u8]| session::run(data));
