//! Identity and permissions; never blocks.

pub mod options;

pub use options::Options;
