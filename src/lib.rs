//! Quelea: an MQTT broker for one big machine. This page is its architecture: a map, the invariants, a glossary.
//!
//! # Bird's view
//!
//! A process is a handful of **shards**, one pinned thread each. A shard is a whole broker for its share of the sessions: it
//! decodes, routes, queues and encodes for them, and nobody else touches them. Shards share nothing; they send each other
//! batches of messages through bounded mailboxes. A client may connect anywhere: the shard that accepted the socket reads
//! CONNECT, and hands the socket to the home of the session, a keyed hash of (virtual host, client identifier).
//!
//! # Map
//!
//! An arrow points only down; siblings of a layer do not import each other (`tests/tidy` checks it).
//!
//! ```text
//!  4 shell   main -> runtime                        sockets, files, clocks, threads
//!  3 edge    config   admin                         pure
//!  2 whole   shard                                  pure; the unit of simulation
//!  1 parts   session  route  queue  log  auth  client    pure; each testable alone
//!  0 ground  codec -> base
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`base`] | ids, time, neutral messages, topics, keyed hashes, slab, timer wheel, out-buffers |
//! | [`codec`] | MQTT bytes to packets and back; one file a packet, versions side by side |
//! | [`session`] | one client's MQTT state: terms, windows, QoS 1 and 2 tables, aliases, will |
//! | [`route`] | topic tries, interest index, shared groups, retained store |
//! | [`queue`] | queue types `qos0` and `session`: bounds, drop policy, expiry |
//! | [`log`] | the durable log: records, segments, group commit, index, recovery, compaction |
//! | [`auth`] | who may connect |
//! | [`client`] | an MQTT client machine, for tests, simulation and load |
//! | [`shard`] | one core's whole broker: `handle_*` in, `poll_*` out |
//! | [`config`] | the `rabbitmq.conf` dialect to one validated configuration |
//! | [`admin`] | queries and replies: queues, metrics text, JSON views |
//! | `runtime` | the only place with glommio, io_uring, sockets, files, clocks and threads (feature `runtime`) |
//!
//! # The way of a message
//!
//! `runtime` reads bytes from a ring and gives them to [`Shard::handle_bytes`](shard::Shard::handle_bytes). `shard/read` cuts
//! packets (`shard/run` takes QoS 0 packets behind each other that begin alike in one piece), `shard/publish` checks a PUBLISH against its
//! session, `shard/routing` finds the filters that match in the trie of
//! this shard's own subscribers and, by the interest index, the other shards that have one; `shard/deliver` encodes into the
//! out-buffers of the subscribers' connections, or queues. At the end of the turn the driver takes each dirty connection's buffer
//! ([`poll_send`](shard::Shard::poll_send)) and each mailbox batch ([`poll_peer`](shard::Shard::poll_peer)). Nothing on the way
//! allocates for QoS 0.
//!
//! # Invariants
//!
//! Mostly about what is absent.
//!
//! - **Below `runtime` there is no I/O, clock, lock, thread, `async` or OS randomness.** Time and keys are arguments. Why: every
//!   behaviour can be simulated from a seed, and `cargo test --no-default-features` tests the broker without the runtime crates.
//! - **A shard never reads another's memory.** What it knows of another it was told in a batch, in order. The one exception is
//!   [`base::Message`]: immutable, counted references.
//! - **A session lives on one shard for its life.** Takeover, resume, windows and will are local: there is no registry to lock
//!   and no race to lose.
//! - **A session's connection and a connection's session name each other, or nobody.** Every late completion carries slot and
//!   generation, and finds nothing.
//! - **SUBACK leaves when every shard sends matching messages here.** A publish after it is never missed.
//! - **Acknowledgements leave in the order the publishes came**, each after all its targets have the message.
//! - **What is said to be kept is on disk.** PUBACK, PUBREC, SUBACK and CONNACK of what outlives a connection wait for the commit of
//!   every shard concerned ([`shard::durable`]); deliveries to such sessions wait for it too. Nothing else touches the disk.
//! - **A publisher never waits for a slow subscriber.** Each connection's and session's backlog has a bound and a policy; over the
//!   process's memory bound whoever publishes is not read from, or slowly while it has something to acknowledge, and nobody is killed.
//! - **Bad input ends one connection**, with the reason code its version has; memory for a packet grows with the bytes that
//!   arrived, not with the length it announced.
//! - **One table from violation to reason code**: [`session::Violation`]. Versions are a value, not a copy of the code.
//! - **Nobody waits for who watches.** Counting is plain additions in the shard's own memory; sums over sessions are made when the
//!   control thread asks, in steps between other work; questions and answers pass through rings of a fixed size.
//! - **Everything over what peers choose is hashed under a key** drawn by the runtime.
//!
//! # Where this differs from the first design
//!
//! - Messages between shards travel in batches that are recycled, with small messages' bytes in the batch, instead of one ring slot a
//!   message: one doorbell and one cache-line hand-off for a turn's worth, and no fixed slot size.
//! - The log's writes, syncs and reads go through the shard's network ring, not through glommio's files: a shard waits in one place, and
//!   a lone commit takes half the time and half of the CPU or less (`runtime/disk` has the numbers). New files are made by a thread.
//! - Memory pressure is the process's resident memory, read by the runtime and told to the shards
//!   ([`handle_pressure`](shard::Shard::handle_pressure)): sums of what many queues share would count one message many times.
//! - A replay of retained messages is ordered against live ones by counts of retained messages sent between each pair of shards;
//!   `shard/replay` has the argument.
//! - A shared subscription has no stream of its own in the log: its home picks the member, and the message is kept in that member's
//!   stream, once. When the member's session ends, its stream stays, marked as over, until other members have what it held.
//! - A PUBREC that has come is a mark on the message in the log, not a state of its own: marks are taken on a full disk too.
//! - What a publisher waits for outlives its connection: a QoS 2 publish that is repeated waits for the first copy's targets.
//! - A shard leaves in two steps on shutdown: wills first, then, when every shard has said so, the connections; so wills still reach
//!   who is connected.
//!
//! # Glossary
//!
//! | word | means |
//! |---|---|
//! | client | the remote program |
//! | connection | bytes between a client and the broker, in one shard's slab |
//! | session | MQTT state that may outlive the connection |
//! | shard | one core's whole broker |
//! | home | the shard of a session, a shared subscription or a retained topic, by keyed hash |
//! | subscription | one session on one filter |
//! | delivery | one message to one subscriber |
//! | window | the deliveries a client has not settled |
//! | interest | which other shards have subscribers to a filter |
//! | replay | retained messages on their way to a new subscription |
//! | fan-out | a message on its way to very many subscribers, worked off in steps |
//! | durable | of a session: it outlives its connection |

pub mod admin;
pub mod auth;
pub mod base;
pub mod client;
pub mod codec;
pub mod config;
pub mod log;
pub mod queue;
pub mod route;
#[cfg(feature = "runtime")]
pub mod runtime;
pub mod session;
pub mod shard;
