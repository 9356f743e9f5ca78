//! The `trie` target under libFuzzer; what it does is in `../trie.rs`.

#![no_main]

#[path = "../trie.rs"]
mod trie;
#[path = "../input.rs"]
mod input;

libfuzzer_sys::fuzz_target!(|data: &[u8]| trie::run(data));
