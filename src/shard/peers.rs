//! What other shards say.

use super::Shard;
use super::peer::{PeerBatch, PeerMessage, borrow};
use super::run::Run;
use crate::base::ShardId;

impl Shard {
    pub(super) fn on_batch(&mut self, from: ShardId, mut batch: Box<PeerBatch>) -> Box<PeerBatch> {
        let mut settled = None;
        let mut messages = std::mem::take(&mut batch.messages);
        for message in messages.drain(..) {
            self.on_message(from, message, &batch.data, &mut settled);
        }
        batch.messages = messages;
        batch.data.clear();
        if let Some(sequence) = settled {
            // One answer for all deltas of the batch.
            let retained_sent = self.mesh.retained_sent.clone().into_boxed_slice();
            self.mesh.to(from).push(PeerMessage::InterestSettled { sequence, retained_sent });
        }
        batch
    }

    fn on_message(&mut self, from: ShardId, message: PeerMessage, data: &[u8], settled: &mut Option<u64>) {
        match message {
            PeerMessage::Publish { head, topic_hash, body, commit, origin, retained_sequence } => {
                let message = borrow(head, &body, data);
                if retained_sequence > 0 {
                    self.mesh.see_retained(from, self.retained_home(topic_hash), retained_sequence);
                }
                let (outcome, asked) = self.route_from(from, &message, topic_hash, commit, origin);
                if let Some(commit) = commit.filter(|_| asked.missing == 0) {
                    self.report(from, commit, outcome);
                }
            }
            PeerMessage::Run { head, topic_hash, at, size, packet_size, head_size, topic_at } => {
                let run = Run {
                    bytes: &data[at as usize..][..size as usize],
                    packet_size: packet_size.into(),
                    head_size: head_size.into(),
                    topic_at: topic_at.into(),
                };
                self.route_run_from(from, head, topic_hash, run);
            }
            PeerMessage::Committed { commit, outcome } => self.committed(commit, outcome),
            PeerMessage::Interest { delta, sequence } => {
                self.interest.apply(from, &delta);
                self.mesh.deltas_heard += 1;
                *settled = Some(sequence);
            }
            PeerMessage::InterestSettled { sequence, retained_sent } => {
                self.mesh.settle(from, sequence, &retained_sent);
                self.check_settled();
            }
            PeerMessage::Join { join, token, online } => self.on_join(from, &join, token, online),
            PeerMessage::Joined { token } => self.subscribe_step_done(token),
            PeerMessage::Leave { join } => self.on_leave(&join),
            PeerMessage::MemberOnline { member, vhost, group, filter, online } => {
                self.on_member_online(member, vhost, &group, &filter, online);
            }
            PeerMessage::Assign { head, body, group, options, gather } => {
                let message = borrow(head, &body, data);
                self.on_assign(group, options, &message, gather);
            }
            PeerMessage::Settled { group } => self.on_settled(group),
            PeerMessage::Return { group, message, gather } => self.on_return(group, message, gather),
            PeerMessage::Gathered { gather, outcome } => self.gathered(gather, outcome),
            PeerMessage::Forget { origin, token } => self.on_forget(from, origin, token),
            PeerMessage::Unclaimed { shard, origins } => self.on_unclaimed(shard, origins),
            PeerMessage::Forgotten { token } => self.complete_step_done(token),
            PeerMessage::Retain { message, commit } => {
                let appended = self.set_retained(message);
                self.mesh.retained_applied[from.index()] += 1;
                if let Some(commit) = commit {
                    self.report_after(from, commit, appended);
                }
                self.retry_held_scans();
            }
            PeerMessage::Scan(scan) => self.on_scan(from, scan),
            PeerMessage::Scanned { replay, messages, cursor, finished } => {
                self.on_scanned(replay, messages, cursor, finished);
            }
            PeerMessage::Hold { publisher } => self.on_hold(from, publisher),
            PeerMessage::Release { publisher } => self.on_release(from, publisher),
            PeerMessage::Leaving => {
                self.finish_fan_outs();
                self.mesh.left[from.index()] = true;
                self.close_all_if_left();
            }
        }
    }
}
