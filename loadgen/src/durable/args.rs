//! Arguments of `durable`.

use crate::args::Protocol;
use crate::output::ReportArgs;
use std::path::PathBuf;

/// Arguments of `durable`.
#[derive(clap::Args, Clone, Debug)]
pub struct DurableArgs {
    /// The broker's name or address
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// The broker's port
    #[arg(long, default_value_t = 1883)]
    pub port: u16,
    /// Persistent sessions, each with one subscription
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=16_000_000))]
    pub sessions: u32,
    /// Sessions that subscribe to one topic: what is published there goes to each of them
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub fan: u32,
    /// Of the sessions, how many are connected while messages are published
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub online: u32,
    /// Publishers, with persistent sessions
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub publishers: u32,
    /// Publishes of one publisher without acknowledgement
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub window: u16,
    /// Publishers begin with a clean session: what is in flight when a connection ends stays uncertain
    #[arg(long)]
    pub clean_publishers: bool,
    /// QoS of publishes
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub qos: u8,
    /// QoS of subscriptions [default: that of publishes]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub sub_qos: Option<u8>,
    /// Bytes of a payload, at least 28
    #[arg(long, default_value_t = 64, value_name = "BYTES")]
    pub size: usize,
    /// Topics with a retained message, kept changing by the publishers
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub retained: u32,
    /// Sessions that subscribe and unsubscribe all the time
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub changing: u32,
    /// Sessions that come or go, a second, while messages are published
    #[arg(long, default_value_t = 0.0, value_name = "PER_SEC")]
    pub churn: f64,
    /// How long to publish (with --kill: at most so long before each)
    #[arg(long, default_value_t = 5.0)]
    pub secs: f64,
    /// How long to publish before measuring; what is sent is judged all the same
    #[arg(long, default_value_t = 0.5, value_name = "SECS")]
    pub warmup: f64,
    /// Publish so many messages to each topic instead of for --secs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub queued: Option<u64>,
    /// A command (for sh -c) that kills the broker; it is run at a random moment under load
    #[arg(long, value_name = "CMD")]
    pub kill: Option<String>,
    /// A command (for sh -c) that starts it again; it may end at once or run as long as the broker
    #[arg(long, value_name = "CMD", requires = "kill")]
    pub start: Option<String>,
    /// How often to kill and start
    #[arg(long, default_value_t = 1, value_name = "N", requires = "kill", value_parser = clap::value_parser!(u32).range(1..))]
    pub cycles: u32,
    /// How long the broker may take until it answers CONNECT again
    #[arg(long, default_value_t = 60.0, value_name = "SECS")]
    pub restart_timeout: f64,
    /// Stop when everything is published and acknowledged, leave the sessions, and write down there what is due
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kill", "resume", "retained", "changing"])]
    pub leave: Option<PathBuf>,
    /// Resume the sessions that a run with --leave left, and judge what they get
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kill", "queued"])]
    pub resume: Option<PathBuf>,
    /// Do not take sessions and retained messages away from the broker in the end
    #[arg(long)]
    pub no_cleanup: bool,
    /// Protocol version
    #[arg(long, default_value = "3.1.1")]
    pub protocol: Protocol,
    /// MQTT 5: Session Expiry Interval
    #[arg(long, default_value_t = 86_400, value_name = "SECS")]
    pub session_expiry: u32,
    /// Keep alive; 0 is none
    #[arg(long, default_value_t = 60, value_name = "SECS")]
    pub keep_alive: u16,
    #[arg(long)]
    pub username: Option<String>,
    #[arg(long)]
    pub password: Option<String>,
    /// Clients between connect and SUBACK, or DISCONNECT and the end, at any time
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub connecting: u32,
    /// Sessions connected at the same time when all are resumed
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub at_once: u32,
    /// How long a client waits for its connection, CONNACK and SUBACK
    #[arg(long, default_value_t = 10.0, value_name = "SECS")]
    pub timeout: f64,
    /// How long to wait for what is missing after the last arrival
    #[arg(long, default_value_t = 5.0, value_name = "SECS")]
    pub drain: f64,
    /// Source addresses, such as 127.0.0.1-127.0.0.64 (several with commas)
    #[arg(long, value_name = "LIST")]
    pub source: Option<String>,
    /// A process of the broker whose CPU, memory and disk writes are measured (repeatable)
    #[arg(long, visible_alias = "pid", value_name = "PID")]
    pub broker_pid: Vec<u32>,
    /// Count the descendants of --broker-pid too
    #[arg(long)]
    pub broker_tree: bool,
    #[command(flatten)]
    pub report: ReportArgs,
}
