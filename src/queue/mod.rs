//! Queue types: qos0 and session; bounds, drop policy, expiry.

pub mod options;
pub mod qos0;
pub mod session;

pub use options::{Options, Overflow};
pub use session::{GroupRef, Identifiers, Item, Pushed, SessionQueue};
