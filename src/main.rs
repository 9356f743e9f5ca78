//! Arguments to configuration to runtime; nothing else.

fn main() {}
