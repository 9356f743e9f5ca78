//! One client's MQTT state: connect, keep alive, windows, QoS 1 and 2 tables, aliases, will.

pub mod options;

pub use options::Options;
