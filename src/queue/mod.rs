//! Queue types: qos0 and session; bounds, drop policy, expiry.

pub mod options;

pub use options::Options;
pub use options::Overflow;
