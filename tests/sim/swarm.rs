//! What a seed draws before anything runs: how many shards and clients, limits, and the mix of faults and features.
//!
//! Each option is drawn apart, so that the seeds together cover corners that no single mix would reach.

use crate::rng::Rng;
use quelea::queue::Overflow;
use quelea::route::options::Strategy;
use quelea::shard::Options;

/// The options of one run.
#[derive(Clone, Debug)]
pub(crate) struct Swarm {
    pub(crate) shards: u16,
    /// Well-behaved clients, besides the observer.
    pub(crate) polite: usize,
    pub(crate) rude: usize,
    /// How long clients act before faults stop, in milliseconds.
    pub(crate) busy_ms: u64,
    pub(crate) options: Options,
    pub(crate) network: NetworkFaults,
    pub(crate) mailbox: MailboxFaults,
    pub(crate) load: Load,
    /// The shards are told to be over their memory watermark now and then.
    pub(crate) pressure: bool,
    /// The run ends with `handle_shutdown` instead of sessions that expire.
    pub(crate) ends_by_shutdown: bool,
}

/// What the network does; per mille where not said otherwise.
#[derive(Clone, Debug)]
pub(crate) struct NetworkFaults {
    /// Bytes arrive in pieces of any size.
    pub(crate) splits: bool,
    pub(crate) delay_ms_max: u64,
    /// Sockets that are reset at some time.
    pub(crate) resets: u64,
    /// Of those: one side hears of it much later.
    pub(crate) half_open: u64,
    /// Sockets whose client stops reading for a while.
    pub(crate) stalls: u64,
    pub(crate) hand_over_failures: u64,
}

/// What happens between shards.
#[derive(Clone, Debug)]
pub(crate) struct MailboxFaults {
    /// Batches that fit between two shards.
    pub(crate) capacity: usize,
    pub(crate) delay_ms_max: u64,
    pub(crate) return_delay_ms_max: u64,
}

/// What clients do.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// Longest time between two actions of one client.
    pub(crate) pause_ms_max: u64,
    pub(crate) burst_max: u64,
    pub(crate) retained: bool,
    pub(crate) wills: bool,
    pub(crate) shared: bool,
    /// Members of shared subscriptions leave them, or end their sessions.
    pub(crate) members_leave: bool,
    pub(crate) unsubscribes: bool,
    pub(crate) disconnects: bool,
    pub(crate) takeovers: bool,
    pub(crate) expiry: bool,
    pub(crate) lazy_acks: bool,
    pub(crate) large_payloads: bool,
    pub(crate) small_windows: bool,
    pub(crate) clean_starts: bool,
    /// Sessions with an expiry so short that they run out while their client is away.
    pub(crate) short_sessions: bool,
    /// Clients connect with another session expiry each time.
    pub(crate) changing_sessions: bool,
    /// Some clients have a small Maximum Packet Size.
    pub(crate) small_packets: bool,
    /// Some clients refuse deliveries.
    pub(crate) refusals: bool,
}

impl Swarm {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut rng = Rng::stream(seed, "swarm");
        let rng = &mut rng;
        let quiet = rng.chance(150);
        let options = options(rng);
        Self {
            shards: rng.short(1, 5),
            polite: rng.size(2, 8),
            rude: if rng.chance(500) { rng.size(1, 3) } else { 0 },
            busy_ms: rng.between(5_000, 40_000),
            options,
            network: NetworkFaults {
                splits: rng.chance(700),
                delay_ms_max: *rng.pick(&[0, 1, 5, 50, 400]),
                resets: if quiet { 0 } else { *rng.pick(&[0, 100, 400, 800]) },
                half_open: *rng.pick(&[0, 300, 900]),
                stalls: if quiet { 0 } else { *rng.pick(&[0, 200, 600]) },
                hand_over_failures: *rng.pick(&[0, 0, 50, 300]),
            },
            mailbox: MailboxFaults {
                capacity: 2,
                delay_ms_max: *rng.pick(&[0, 1, 3, 40, 500]),
                return_delay_ms_max: *rng.pick(&[0, 2, 100]),
            },
            load: Load {
                pause_ms_max: *rng.pick(&[40, 300, 1500]),
                burst_max: *rng.pick(&[1, 4, 30]),
                retained: rng.chance(600),
                wills: rng.chance(500),
                shared: rng.chance(600),
                members_leave: rng.chance(500),
                unsubscribes: rng.chance(600),
                disconnects: rng.chance(600),
                takeovers: rng.chance(400),
                expiry: rng.chance(300),
                lazy_acks: rng.chance(500),
                large_payloads: rng.chance(300),
                small_windows: rng.chance(500),
                clean_starts: rng.chance(300),
                short_sessions: rng.chance(300),
                changing_sessions: rng.chance(200),
                small_packets: rng.chance(200),
                refusals: rng.chance(200),
            },
            pressure: rng.chance(150),
            ends_by_shutdown: rng.chance(200),
        }
    }

    /// The same workload for a run in which the network and the mailboxes are perfect.
    pub(crate) fn without_faults(mut self) -> Self {
        self.network = NetworkFaults {
            splits: false,
            delay_ms_max: 1,
            resets: 0,
            half_open: 0,
            stalls: 0,
            hand_over_failures: 0,
        };
        self.mailbox = MailboxFaults { capacity: 2, delay_ms_max: 1, return_delay_ms_max: 1 };
        self.rude = 0;
        self.pressure = false;
        self
    }

    /// Whether a full queue refuses what is published. MQTT 3 has no way to say so: such a publisher is closed, and one that
    /// sends it all again at once never gets through. Those seeds have only MQTT 5.
    pub(crate) fn refuses(&self) -> bool {
        self.has_queue_limits() && self.options.queue.overflow == Overflow::RejectPublish
    }

    /// Whether an operator's limit may drop or refuse messages: what must arrive cannot be told then.
    pub(crate) fn has_queue_limits(&self) -> bool {
        let queue = &self.options.queue;
        queue.session_messages_max.is_some() || queue.session_bytes_max.is_some()
    }
}

fn options(rng: &mut Rng) -> Options {
    let mut options = Options::default();
    options.session.receive_maximum = *rng.pick(&[256, 256, 16, 3]);
    options.session.prefetch = *rng.pick(&[256, 256, 10, 2]);
    options.session.topic_alias_maximum = *rng.pick(&[16, 16, 3, 0]);
    options.route.strategy = *rng.pick(&[
        Strategy::RoundRobin,
        Strategy::LeastInFlight,
        Strategy::Sticky,
        Strategy::HashClientId,
        Strategy::HashTopic,
    ]);
    if rng.chance(120) {
        options.queue.session_messages_max = Some(u32::from(rng.short(1, 20)));
        options.queue.overflow = *rng.pick(&[Overflow::DropHead, Overflow::RejectPublish]);
    }
    if rng.chance(100) {
        options.queue.qos0_messages_max = 2;
        options.queue.qos0_bytes_max = 100;
    }
    options.queue.queue_qos0_offline = rng.chance(200);
    options
}
