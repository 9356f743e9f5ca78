//! The `codec` target under libFuzzer; what it does is in `../codec.rs`.

#![no_main]

#[path = "../codec.rs"]
mod codec;
#[path = "../input.rs"]
mod input;

libfuzzer_sys::fuzz_target!(|data: &[u8]| codec::run(data));
