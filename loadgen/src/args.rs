//! The command line.

use crate::output::ReportArgs;
use crate::scenario::{ConnArgs, FaninArgs, FanoutArgs, PairArgs, TopicsArgs};
use clap::{Parser, Subcommand, ValueEnum};

/// Drives an MQTT broker, judges every message, and says honestly what it measured.
///
/// Exit code 0: every promise was kept. 1: one was broken, or clients could not connect, or lost their connection. 2: the
/// request makes no sense.
#[derive(Parser, Clone, Debug)]
#[command(name = "quelea-loadgen", version, args_override_self = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand, Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one")]
pub enum Command {
    /// Connect clients at a rate, hold them, and see who is alive at the end
    Conn(ConnArgs),
    /// Half of the clients publish, each to a subscriber of its own
    Pair(PairArgs),
    /// Many publish, one subscribes to all of it
    Fanin(FaninArgs),
    /// One publishes, many subscribe
    Fanout(FanoutArgs),
    /// Many filters, some with wildcards; messages go to random topics
    Topics(TopicsArgs),
    /// Persistent sessions: nothing acknowledged is lost, also if the broker is killed
    Durable(crate::durable::DurableArgs),
    /// Run a suite against several brokers in alternation and compare
    Compare(crate::compare::CompareArgs),
    /// A million clients: held with keep alive, some written to, then all dropped at once
    Million(crate::million::MillionArgs),
    /// What this machine takes to receive 64 bytes and send them back: the floor under every message
    Echo(crate::echo::EchoArgs),
}

/// What all scenarios take.
#[derive(clap::Args, Clone, Debug)]
pub struct Common {
    /// The broker's name or address
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// The broker's port
    #[arg(long, default_value_t = 1883)]
    pub port: u16,
    /// All clients of the run, publishers and subscribers together
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16_000_000))]
    pub clients: u32,
    /// QoS of publishes
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// QoS of subscriptions [default: that of publishes]
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub sub_qos: Option<u8>,
    /// Bytes of a payload, at least 28
    #[arg(long, default_value_t = 64, value_name = "BYTES")]
    pub size: usize,
    /// Protocol version
    #[arg(long, default_value = "3.1.1")]
    pub protocol: Protocol,
    /// Clean Start (before MQTT 5: Clean Session)
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub clean_start: bool,
    /// MQTT 5: Session Expiry Interval
    #[arg(long, value_name = "SECS")]
    pub session_expiry: Option<u32>,
    /// Keep alive; 0 is none
    #[arg(long, default_value_t = 60, value_name = "SECS")]
    pub keep_alive: u16,
    #[arg(long)]
    pub username: Option<String>,
    #[arg(long)]
    pub password: Option<String>,
    /// How long to measure (or, idle clients, to hold)
    #[arg(long, default_value_t = 5.0)]
    pub secs: f64,
    /// How long to run before measuring; what is sent is judged all the same
    #[arg(long, default_value_t = 1.0, value_name = "SECS")]
    pub warmup: f64,
    /// Open loop: messages a second, of all publishers together; latency counts from the intended send time.
    /// Without it the loop is closed
    #[arg(long, value_name = "PER_SEC")]
    pub rate: Option<f64>,
    /// Closed loop: messages of one publisher ahead of its subscribers [default: 64 at QoS 0, 256 above]
    #[arg(long, value_name = "N")]
    pub inflight: Option<u64>,
    /// QoS 1 and 2: publishes of one publisher not acknowledged
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub unacknowledged: u16,
    /// Connections a second; without it as fast as the broker goes
    #[arg(long, value_name = "PER_SEC")]
    pub connect_rate: Option<f64>,
    /// Clients between connect and CONNACK (or SUBACK) at any time
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub connecting: u32,
    /// How long a client waits for its connection, CONNACK and SUBACK
    #[arg(long, default_value_t = 10.0, value_name = "SECS")]
    pub timeout: f64,
    /// At the end, how long to wait for what is missing after the last arrival
    #[arg(long, default_value_t = 2.0, value_name = "SECS")]
    pub drain: f64,
    /// Source addresses, such as 127.0.0.1-127.0.0.64 (several with commas)
    #[arg(long, value_name = "LIST")]
    pub source: Option<String>,
    /// Threads [default: one for each core, but no more than one for every 16 clients]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// Cores to pin the threads to, such as 2-3 or 1,3
    #[arg(long, value_name = "LIST")]
    pub cpus: Option<String>,
    /// A process of the broker whose CPU and memory are measured (repeatable)
    #[arg(long, value_name = "PID")]
    pub broker_pid: Vec<u32>,
    /// Count the descendants of --broker-pid too
    #[arg(long)]
    pub broker_tree: bool,
    /// Take every loss, every duplicate and every acknowledgement out of order for a broken promise
    #[arg(long)]
    pub strict: bool,
    /// Topics begin with this [default: one of the run's own]
    #[arg(long)]
    pub prefix: Option<String>,
    #[command(flatten)]
    pub report: ReportArgs,
}

/// Protocol versions, as users write them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Protocol {
    #[value(name = "3.1")]
    V310,
    #[value(name = "3.1.1")]
    V311,
    #[value(name = "5.0", alias = "5")]
    V5,
}
