//! Topic tries, interest index, shared groups, retained store, matching.

pub mod options;

pub use options::Options;
pub use options::Strategy;
