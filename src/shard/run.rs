//! Runs: QoS 0 packets behind each other that differ in their payload only.
//!
//! What a v3 client sends with QoS 0 a v3 subscriber gets byte for byte. So when a publisher has sent to one topic again and again,
//! everything that arrived together is matched once, and appended once a subscriber. Whatever needs more than that (another
//! version, an acknowledgement, a queue, a socket behind its bound, many subscribers) goes packet by packet, with the same result.
//!
//! Cost: a comparison of its first bytes a packet, a copy of the run a subscriber and a shard; nothing is allocated.

use super::Shard;
use super::connection::{Links, Phase};
use super::fan_out::publisher_of;
use super::groups::GROUP_TAG;
use super::peer::RUN_PACKET_SIZE_MAX;
use super::routing::Target;
use crate::base::buffer::SHARE_MIN;
use crate::base::{MessageHead, MessageRef, QoS, ShardId, Wall};
use crate::queue::qos0;

/// PUBLISH with QoS 0, neither DUP nor RETAIN.
const FIRST_BYTE: u8 = 0x30;
/// A longer run is several: it has to fit into a batch between shards, and what is behind it should not wait.
const RUN_SIZE_MAX: usize = 16 << 10;

/// Packets of one size that begin alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run<'a> {
    /// Whole packets.
    pub(super) bytes: &'a [u8],
    pub(super) packet_size: usize,
    /// Fixed header, topic length and topic: where they are alike.
    pub(super) head_size: usize,
    /// Fixed header and topic length.
    pub(super) topic_at: usize,
}

/// What became of the packets behind one.
pub(super) enum Behind {
    /// So many bytes were packets, and are done.
    Done(usize),
    /// So many bytes have to be read packet by packet.
    Single(usize),
}

/// What a subscriber makes of a run.
enum Receiver {
    Link(u32),
    /// It is not connected: nothing is kept for it.
    Offline,
    /// Its session ended, or it does not want its own messages.
    Nobody,
    /// It has to be looked at packet by packet.
    Single,
}

impl<'a> Run<'a> {
    /// The packets at the front of `rest` that begin as `first` does: a PUBLISH of version 3 that was decoded, with a fixed header of
    /// `fixed_size` bytes.
    fn behind(first: &[u8], fixed_size: usize, rest: &'a [u8]) -> Option<Self> {
        let packet_size = first.len();
        if first[0] != FIRST_BYTE || rest.len() < packet_size {
            return None;
        }
        let topic_at = fixed_size + 2;
        let topic_size =
            usize::from(u16::from_be_bytes([*first.get(fixed_size)?, *first.get(fixed_size + 1)?]));
        let head_size = topic_at + topic_size;
        let head = first.get(..head_size)?;
        let mut end = 0;
        while end < RUN_SIZE_MAX
            && let Some(packet) = rest.get(end..end + packet_size)
            && packet.starts_with(head)
        {
            end += packet_size;
        }
        (end > 0).then(|| Self { bytes: &rest[..end], packet_size, head_size, topic_at })
    }

    pub(super) fn count(&self) -> usize {
        self.bytes.len() / self.packet_size
    }

    /// # Panics
    /// If it is no UTF-8: it was looked at where the first packet was decoded.
    pub(super) fn topic(&self) -> &'a str {
        std::str::from_utf8(&self.bytes[self.topic_at..self.head_size]).expect("decoded before")
    }

    /// The run as messages.
    pub(super) fn messages(self, head: MessageHead) -> impl Iterator<Item = MessageRef<'a>> {
        let topic = self.topic();
        self.bytes.chunks_exact(self.packet_size).map(move |packet| MessageRef {
            head,
            topic,
            properties: &[],
            payload: &packet[self.head_size..],
        })
    }
}

impl Shard {
    /// Takes what is behind `first`, a packet of this connection that was just handled, as far as it is more of the same.
    pub(super) fn read_run(&mut self, slot: u32, first: &[u8], fixed_size: usize, rest: &[u8]) -> Behind {
        let Some(run) = Run::behind(first, fixed_size, rest) else { return Behind::Done(0) };
        let single = Behind::Single(run.bytes.len());
        let Some(connection) = self.links.at(slot) else { return single };
        let Phase::Established { session } = connection.phase else { return single };
        let version = connection.version;
        if version.is_v5() || self.pressure || connection.slow {
            return single;
        }
        let head = self.head_of(session, QoS::AtMostOnce, false, Wall::NEVER);
        if !self.route_run(head, run) {
            return single;
        }
        self.counters.packets_in += run.count() as u64;
        self.counters.received.count_all(version, QoS::AtMostOnce, run.count(), run.bytes.len());
        self.pause_if_flooded(slot);
        Behind::Done(run.bytes.len())
    }

    /// Routes a run published here; `false` if nothing was done because it has to go packet by packet.
    fn route_run(&mut self, head: MessageHead, run: Run<'_>) -> bool {
        let message = MessageRef { head, topic: run.topic(), properties: &[], payload: &[] };
        let topic_hash = self.match_topic(head.vhost, message.topic);
        let masks = if self.shards > 1 { self.interested(&message, topic_hash) } else { Default::default() };
        if !masks.any.is_empty() && run.packet_size > RUN_PACKET_SIZE_MAX {
            return false;
        }
        let Some(mut matched) = self.deliver_run(&message, run) else { return false };
        for shard in masks.any.iter() {
            matched = true;
            self.mesh.to(shard).push_run(head, topic_hash, run);
        }
        if !matched {
            self.counters.unroutable += run.count() as u64;
        }
        true
    }

    /// Routes a run that another shard published to the subscribers here.
    pub(super) fn route_run_from(&mut self, from: ShardId, head: MessageHead, topic_hash: u64, run: Run<'_>) {
        let message = MessageRef { head, topic: run.topic(), properties: &[], payload: &[] };
        let hash = self.match_topic(head.vhost, message.topic);
        debug_assert_eq!(hash, topic_hash, "all shards hash topics alike");
        if self.deliver_run(&message, run).is_none() {
            for message in run.messages(head) {
                self.route_from(from, &message, topic_hash, None, None);
            }
        }
    }

    /// Delivers a run to the subscribers here, whose filter was matched last; says whether there are any, or `None` if nothing was done
    /// because it has to go packet by packet.
    fn deliver_run(&mut self, message: &MessageRef<'_>, run: Run<'_>) -> Option<bool> {
        let filter = match self.scratch.filters[..] {
            [] => return Some(false),
            [filter] => filter,
            _ => return None,
        };
        let subscriptions = self.trie.subscriptions(filter);
        if self.fan_outs.len_of(publisher_of(message)) > 0
            || subscriptions.len() > self.options.budgets.narrow
        {
            return None;
        }
        let mut links = std::mem::take(&mut self.scratch.links);
        links.clear();
        let (mut offline, mut single) = (0, false);
        for subscription in subscriptions {
            let target = self.target(*subscription, message);
            match target.map_or(Receiver::Nobody, |target| self.receiver(&target, run)) {
                Receiver::Link(link) => links.push(link),
                Receiver::Offline => offline += 1,
                Receiver::Nobody => {}
                Receiver::Single => single = true,
            }
        }
        if !single {
            self.append_run(&links, offline, run);
        }
        let matched = offline > 0 || !links.is_empty();
        self.scratch.links = links;
        (!single).then_some(matched)
    }

    fn append_run(&mut self, links: &[u32], offline: u64, run: Run<'_>) {
        let count = run.count();
        for &link in links {
            let Some(connection) = self.links.at_mut(link) else { continue };
            connection.qos0_waiting =
                connection.qos0_waiting.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
            let version = connection.version;
            self.counters.delivered.count_all(version, QoS::AtMostOnce, count, run.bytes.len());
            self.links.out(link).bytes_for(run.bytes.len()).extend_from_slice(run.bytes);
        }
        self.counters.dropped_offline += offline * count as u64;
    }

    /// As `deliver_to_session` and what follows it decide for each packet.
    fn receiver(&self, target: &Target, run: Run<'_>) -> Receiver {
        if target.subscriber.0 & GROUP_TAG != 0 || self.options.queue.queue_qos0_offline {
            return Receiver::Single;
        }
        let Some(entry) = self.sessions.at(target.subscriber.0).filter(|entry| !entry.ended) else {
            return Receiver::Nobody;
        };
        if entry.extra.as_ref().is_some_and(|extra| !extra.replays.is_empty()) {
            return Receiver::Single;
        }
        let Some(link) = entry.connection() else { return Receiver::Offline };
        let Some(connection) = self.links.at(link) else { return Receiver::Single };
        let payload_size = run.packet_size - run.head_size;
        if connection.version.is_v5()
            || run.packet_size > connection.packet_size_max as usize
            || payload_size >= SHARE_MIN
        {
            return Receiver::Single;
        }
        let mut backlog = Links::backlog(connection);
        backlog.bytes += run.bytes.len();
        backlog.messages = backlog.messages.saturating_add(u32::try_from(run.count()).unwrap_or(u32::MAX));
        if qos0::admits(backlog, &self.options.queue) { Receiver::Link(link) } else { Receiver::Single }
    }
}
