//! The `trie` target under libFuzzer; what it does is in `../trie.rs`.

#![no_main]

#[path = "../input.rs"]
mod input;
#[path = "../trie.rs"]
mod trie;

libfuzzer_sys::fuzz_target!(|data: &[u8]| trie::run(data));
