//! What a seed draws before anything runs: how many shards and clients, limits, and the mix of faults and features.
//!
//! Each option is drawn apart, so that the seeds together cover corners that no single mix would reach.

use crate::clients::rude::Manner;
use crate::disk::DiskFaults;
use crate::rng::Rng;
use quelea::queue::Overflow;
use quelea::route::options::Strategy;
use quelea::shard::Options;
use quelea::shard::options::Budgets;

/// The options of one run.
#[derive(Clone, Debug)]
pub(crate) struct Swarm {
    pub(crate) shards: u16,
    /// Well-behaved clients, besides the observer.
    pub(crate) polite: usize,
    pub(crate) rude: usize,
    /// What its rude clients may be like.
    pub(crate) manners: Vec<Manner>,
    /// How long clients act before faults stop, in milliseconds.
    pub(crate) busy_ms: u64,
    pub(crate) options: Options,
    pub(crate) network: NetworkFaults,
    pub(crate) mailbox: MailboxFaults,
    pub(crate) load: Load,
    /// What sessions and messages are kept on; without, they live in memory.
    pub(crate) disk: Option<DiskFaults>,
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
    /// Up to this many filters in one SUBSCRIBE or UNSUBSCRIBE.
    pub(crate) filters_max: u64,
    /// Messages carry properties.
    pub(crate) properties: bool,
    /// Takeovers come many at a time.
    pub(crate) storms: bool,
    /// Only sessions that are kept join shared subscriptions; now and then one of them ends.
    pub(crate) kept_groups: bool,
    /// Members of shared subscriptions come and go all the time.
    pub(crate) churn: bool,
    /// Who gets a retained message live subscribes again at once.
    pub(crate) replay_races: bool,
    /// How often clients do what, relative to each other.
    pub(crate) weights: Weights,
}

/// Of the actions of a client that is connected.
#[derive(Clone, Debug)]
pub(crate) struct Weights {
    pub(crate) publish: u64,
    pub(crate) subscribe: u64,
    pub(crate) unsubscribe: u64,
    pub(crate) disconnect: u64,
    pub(crate) takeover: u64,
    pub(crate) nothing: u64,
}

impl Weights {
    fn draw(rng: &mut Rng) -> Self {
        let mut around = |usual: u64| usual * *rng.pick(&[1, 2, 2, 2, 5]);
        Self {
            publish: around(22),
            subscribe: around(10),
            unsubscribe: around(5),
            disconnect: around(2),
            takeover: around(1),
            nothing: around(8),
        }
    }
}

impl Swarm {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut rng = Rng::stream(seed, "swarm");
        let rng = &mut rng;
        let quiet = rng.chance(150);
        let mut options = options(rng);
        // Streams of their own, so that the older draws stay what they were.
        options.budgets = budgets(&mut Rng::stream(seed, "budgets"));
        let more = &mut Rng::stream(seed, "features");
        let disk = DiskFaults::draw(seed, &mut options.log);
        let disk_is_there = disk.is_some();
        Self {
            disk,
            shards: rng.short(1, 5),
            polite: rng.size(2, 8),
            rude: if rng.chance(500) { rng.size(1, 3) } else { 0 },
            manners: manners(&mut Rng::stream(seed, "manners")),
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
                filters_max: *more.pick(&[1, 3, 6]),
                properties: more.chance(500),
                storms: more.chance(250),
                churn: more.chance(300),
                kept_groups: disk_is_there && more.chance(500),
                replay_races: more.chance(400),
                weights: Weights::draw(more),
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
        self.disk = None;
        self.rude = 0;
        self.pressure = false;
        self
    }

    /// Whether a full queue refuses what is published. MQTT 3 has no way to say so: such a publisher is closed, and one that
    /// sends it all again at once never gets through. Those seeds have only MQTT 5.
    pub(crate) fn refuses(&self) -> bool {
        self.has_queue_limits() && self.options.queue.overflow == Overflow::RejectPublish
    }

    /// Whether the disk may refuse for a while what is to be kept.
    pub(crate) fn disk_refuses(&self) -> bool {
        self.disk.as_ref().is_some_and(DiskFaults::refuses)
    }

    /// Whether the process may die.
    pub(crate) fn may_crash(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| !disk.crashes.is_empty())
    }

    /// Whether an operator's limit may drop or refuse messages: what must arrive cannot be told then.
    pub(crate) fn has_queue_limits(&self) -> bool {
        let queue = &self.options.queue;
        queue.session_messages_max.is_some() || queue.session_bytes_max.is_some()
    }
}

/// Small ones, in half of the seeds: wide fan-outs, full batches, paced replays and paused publishers with few clients.
fn budgets(rng: &mut Rng) -> Budgets {
    if rng.chance(500) {
        return Budgets::default();
    }
    let usual = Budgets::default();
    Budgets {
        fan_out_step: *rng.pick(&[1, 2, 5, usual.fan_out_step]),
        turn_deliveries: *rng.pick(&[0, 5, usual.turn_deliveries]),
        narrow: *rng.pick(&[0, 1, usual.narrow]),
        fan_outs_max: *rng.pick(&[0, 2, usual.fan_outs_max]),
        batch_bytes: *rng.pick(&[1, 64, 1000, usual.batch_bytes]),
        batch_messages: *rng.pick(&[1, 3, usual.batch_messages]),
        backlog_batches_max: *rng.pick(&[0, 2, usual.backlog_batches_max]),
        replay_batch: *rng.pick(&[1, 2, usual.replay_batch]),
        replay_noted_max: *rng.pick(&[0, 1, usual.replay_noted_max]),
        replay_queue_high: *rng.pick(&[1, 3, usual.replay_queue_high]),
        out_bytes_high: *rng.pick(&[1, 200, usual.out_bytes_high]),
        out_bytes_pause: *rng.pick(&[1, 500, usual.out_bytes_pause]),
        disk_backlog_bytes_max: usual.disk_backlog_bytes_max,
    }
}

/// At least one.
fn manners(rng: &mut Rng) -> Vec<Manner> {
    let mut manners: Vec<Manner> = Manner::ALL.into_iter().filter(|_| rng.chance(500)).collect();
    if manners.is_empty() {
        manners.push(Manner::Garbage);
    }
    manners
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
