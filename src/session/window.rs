//! The outgoing in-flight window of a session: deliveries with QoS 1 and 2 that the client has not settled.
//!
//! ```text
//!            QoS 1: PUBLISH ──> Published ──PUBACK──> (gone)
//!            QoS 2: PUBLISH ──> Published ──PUBREC──> Released ──PUBCOMP──> (gone)
//!                               a PUBREC with an error: Published ──> (gone)
//! ```
//!
//! Entries are in the order of their first sending; acknowledgements mostly come in that order too, so finding one is O(1)
//! then, and otherwise O(log entries) while identifiers rise. Identifiers are given out in turn: which of them are in flight
//! is looked at once for each run of free ones, mostly after 65535 deliveries. `T` is what has to be kept to send the delivery
//! again: nothing for a session that ends with its connection.

use super::violation::Violation;
use crate::base::{PacketId, QoS};
use std::collections::VecDeque;

/// How far a delivery has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// PUBLISH was sent.
    Published,
    /// PUBREC arrived, PUBREL was sent.
    Released,
}

/// One unsettled delivery.
#[derive(Debug)]
pub struct Entry<T> {
    /// Its packet identifier.
    pub packet_id: PacketId,
    /// Its QoS, 1 or 2.
    pub qos: QoS,
    /// How far it has come.
    pub stage: Stage,
    /// What is kept of it, to send it again.
    pub item: Option<T>,
}

/// All unsettled deliveries of a session.
#[derive(Debug)]
pub struct Window<T> {
    entries: VecDeque<Entry<T>>,
    /// The identifier tried next.
    next_id: PacketId,
    /// Entries before this one have been sent on this connection.
    sent: usize,
    /// From `next_id` on, so many identifiers are not in flight. More may be.
    free: u16,
}

impl<T> Default for Window<T> {
    fn default() -> Self {
        Self { entries: VecDeque::new(), next_id: PacketId::FIRST, sent: 0, free: u16::MAX }
    }
}

impl<T> Window<T> {
    /// Unsettled deliveries sent on this connection: what the client's Receive Maximum bounds.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.sent
    }

    /// All unsettled deliveries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether everything is settled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A new connection: identifiers count from 1 again, and everything unsettled waits to be sent again. [MQTT-4.4.0-1]
    pub fn resume(&mut self) {
        self.next_id = PacketId::FIRST;
        self.sent = 0;
        self.free = if self.entries.is_empty() { u16::MAX } else { 0 };
    }

    /// The next delivery to send on this connection, in the original order: it counts as sent. [MQTT-4.6.0-1]
    pub fn next_resend(&mut self) -> Option<&mut Entry<T>> {
        let entry = self.entries.get_mut(self.sent)?;
        self.sent += 1;
        Some(entry)
    }

    /// Whether something still waits to be sent again.
    #[must_use]
    pub fn has_resends(&self) -> bool {
        self.sent < self.entries.len()
    }

    /// Takes the entry out that was sent last, new or again: it could not be sent after all (too large for the client).
    pub fn forget_last(&mut self) -> Option<Entry<T>> {
        self.sent = self.sent.checked_sub(1)?;
        self.entries.remove(self.sent)
    }

    /// The next delivery that waits to be sent on this connection, again or for the first time.
    #[must_use]
    pub fn peek_unsent(&self) -> Option<&Entry<T>> {
        self.entries.get(self.sent)
    }

    /// The next delivery that waits to be sent is lost. One of QoS 2 that `was_sent` before is released, so that the client does not
    /// take the next message with its identifier for it; any other is taken out of the window.
    pub fn lose_unsent(&mut self, was_sent: bool) {
        match self.entries.get_mut(self.sent) {
            Some(entry) if was_sent && entry.qos == QoS::ExactlyOnce => entry.stage = Stage::Released,
            _ => drop(self.entries.remove(self.sent)),
        }
    }

    /// A delivery that is to be sent after those that wait; [`next_resend`](Self::next_resend) gives it in its turn.
    ///
    /// # Panics
    /// If 65535 deliveries are unsettled: the caller's window is smaller.
    pub fn reserve(&mut self, qos: QoS, item: Option<T>) -> PacketId {
        let packet_id = self.free_id();
        self.entries.push_back(Entry { packet_id, qos, stage: Stage::Published, item });
        packet_id
    }

    /// A delivery of an earlier life of the process, kept elsewhere; to be followed by [`resume`](Self::resume).
    pub fn restore(&mut self, entry: Entry<T>) {
        self.entries.push_back(entry);
    }

    /// A new delivery is sent. All resends have been made, so it goes last.
    ///
    /// # Panics
    /// If resends wait, or 65535 deliveries are unsettled: the caller's window is smaller.
    pub fn begin(&mut self, qos: QoS, item: Option<T>) -> PacketId {
        assert!(!self.has_resends(), "a new delivery would overtake one that is sent again");
        let packet_id = self.reserve(qos, item);
        self.sent += 1;
        packet_id
    }

    fn free_id(&mut self) -> PacketId {
        assert!(self.entries.len() < usize::from(u16::MAX), "no packet identifier is free");
        // [MQTT-2.2.1-4]
        if self.free == 0 {
            self.skip_taken();
        }
        let packet_id = self.next_id;
        self.next_id = packet_id.next();
        self.free -= 1;
        packet_id
    }

    /// Goes on to the next run of identifiers that are free. O(entries), and 8 KiB of the stack.
    fn skip_taken(&mut self) {
        let mut taken = [0_u64; 1024];
        for entry in &self.entries {
            let id = entry.packet_id.value();
            taken[usize::from(id / 64)] |= 1 << (id % 64);
        }
        let is_taken = |id: PacketId| taken[usize::from(id.value() / 64)] & 1 << (id.value() % 64) != 0;
        while is_taken(self.next_id) {
            self.next_id = self.next_id.next();
        }
        let mut end = self.next_id.next();
        self.free = 1;
        while self.free < u16::MAX && !is_taken(end) {
            end = end.next();
            self.free += 1;
        }
    }

    /// The unsettled delivery with this identifier, sent or not.
    pub fn get_mut(&mut self, packet_id: PacketId) -> Option<&mut Entry<T>> {
        let index = self.position(packet_id)?;
        self.entries.get_mut(index)
    }

    /// PUBACK: settles a QoS 1 delivery, whatever its reason code says. `None`: not in flight.
    ///
    /// # Errors
    /// [`Violation::AckOfWrongQos`] if the delivery is QoS 2.
    pub fn puback(&mut self, packet_id: PacketId) -> Result<Option<Entry<T>>, Violation> {
        let Some(index) = self.position_sent(packet_id) else { return Ok(None) };
        if self.entries[index].qos != QoS::AtLeastOnce {
            return Err(Violation::AckOfWrongQos);
        }
        Ok(self.take(index))
    }

    /// PUBREC without an error: PUBREL is due. Gives what is kept, which the caller may drop. `None`: not in flight.
    ///
    /// # Errors
    /// [`Violation::AckOfWrongQos`] if the delivery is QoS 1.
    pub fn pubrec(&mut self, packet_id: PacketId) -> Result<Option<&mut Option<T>>, Violation> {
        let Some(index) = self.position_sent(packet_id) else { return Ok(None) };
        let entry = &mut self.entries[index];
        if entry.qos != QoS::ExactlyOnce {
            return Err(Violation::AckOfWrongQos);
        }
        // [MQTT-4.3.3-4]
        entry.stage = Stage::Released;
        Ok(Some(&mut entry.item))
    }

    /// PUBREC with an error: settles the delivery. [MQTT-4.3.3-4]
    ///
    /// # Errors
    /// [`Violation::AckOfWrongQos`] if the delivery is QoS 1.
    pub fn pubrec_refused(&mut self, packet_id: PacketId) -> Result<Option<Entry<T>>, Violation> {
        let Some(index) = self.position_sent(packet_id) else { return Ok(None) };
        if self.entries[index].qos != QoS::ExactlyOnce {
            return Err(Violation::AckOfWrongQos);
        }
        Ok(self.take(index))
    }

    /// PUBCOMP: settles a released delivery. `None`: there is none.
    ///
    /// # Errors
    /// [`Violation::AckOfWrongQos`] if the delivery is QoS 1.
    pub fn pubcomp(&mut self, packet_id: PacketId) -> Result<Option<Entry<T>>, Violation> {
        let Some(index) = self.position_sent(packet_id) else { return Ok(None) };
        if self.entries[index].qos != QoS::ExactlyOnce {
            return Err(Violation::AckOfWrongQos);
        }
        if self.entries[index].stage != Stage::Released {
            return Ok(None);
        }
        Ok(self.take(index))
    }

    /// All entries, in order, to be changed.
    pub fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut Entry<T>> {
        self.entries.iter_mut()
    }

    /// All entries, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry<T>> {
        self.entries.iter()
    }

    /// Takes every entry out, in order: the session ends.
    pub fn drain(&mut self) -> impl Iterator<Item = Entry<T>> {
        self.sent = 0;
        self.entries.drain(..)
    }

    /// Memory held, in bytes, without what the items own.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.entries.capacity() * size_of::<Entry<T>>()
    }

    fn take(&mut self, index: usize) -> Option<Entry<T>> {
        self.sent -= 1;
        let entry = if index == 0 { self.entries.pop_front() } else { self.entries.remove(index) };
        // A burst does not keep its memory once the client has caught up.
        if self.entries.is_empty() {
            self.free = u16::MAX;
            if self.entries.capacity() > 64 {
                self.entries = VecDeque::new();
            }
        }
        entry
    }

    fn position_sent(&self, packet_id: PacketId) -> Option<usize> {
        self.position(packet_id).filter(|index| *index < self.sent)
    }

    fn position(&self, packet_id: PacketId) -> Option<usize> {
        let first = self.entries.front()?.packet_id.value();
        // Where it is if no entry between was settled out of order: identifiers are consecutive, skipping 0.
        let value = packet_id.value();
        let guess = if value >= first { value - first } else { value.wrapping_sub(first).wrapping_sub(1) };
        let guess = usize::from(guess);
        if self.entries.get(guess).is_some_and(|entry| entry.packet_id == packet_id) {
            return Some(guess);
        }
        let last = self.entries.len() - 1;
        if self.entries[last].packet_id == packet_id {
            return Some(last);
        }
        // Rising, unless some are of an earlier connection or life.
        let rank = |id: PacketId| id.value().wrapping_sub(first);
        let found = self.entries.binary_search_by_key(&rank(packet_id), |entry| rank(entry.packet_id));
        found.ok().or_else(|| self.entries.iter().position(|entry| entry.packet_id == packet_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u16) -> PacketId {
        PacketId::new(n).unwrap()
    }

    #[test]
    fn a_delivery_is_found_by_its_identifier_wherever_it_is() {
        let mut window = Window::default();
        let ids: Vec<PacketId> = (0..5).map(|n| window.begin(QoS::AtLeastOnce, Some(n))).collect();
        window.puback(ids[1]).unwrap();
        let mut item = |packet_id| window.get_mut(packet_id).map(|entry| entry.item);
        assert_eq!(ids.into_iter().filter_map(&mut item).flatten().collect::<Vec<_>>(), [0, 2, 3, 4]);
        assert_eq!(item(id(2)), None);
    }

    #[test]
    fn identifiers_count_from_one_and_skip_what_is_in_flight() {
        let mut window = Window::default();
        for n in 1..=3 {
            assert_eq!(window.begin(QoS::AtLeastOnce, Some(n)), id(n));
        }
        assert_eq!(window.puback(id(2)).unwrap().unwrap().item, Some(2));
        window.resume();
        assert_eq!((window.in_flight(), window.len()), (0, 2));
        assert_eq!(window.next_resend().unwrap().packet_id, id(1));
        assert_eq!(window.next_resend().unwrap().packet_id, id(3));
        assert!(!window.has_resends());
        assert_eq!(window.begin(QoS::AtLeastOnce, Some(4)), id(2));
        assert_eq!(window.begin(QoS::AtLeastOnce, Some(5)), id(4));
        assert_eq!(window.in_flight(), 4);
    }

    #[test]
    fn qos_2_goes_through_released() {
        let mut window = Window::default();
        let a = window.begin(QoS::ExactlyOnce, Some('a'));
        assert!(matches!(window.pubcomp(a), Ok(None)), "PUBCOMP before PUBREC settles nothing");
        assert_eq!(window.pubrec(a).unwrap().unwrap().take(), Some('a'));
        assert_eq!(window.pubrec(a), Ok(Some(&mut None)));
        assert_eq!(window.in_flight(), 1);
        assert!(matches!(window.pubcomp(a), Ok(Some(_))));
        assert_eq!(window.in_flight(), 0);
        assert_eq!(window.pubrec(a), Ok(None));
    }

    #[test]
    fn acknowledgements_must_fit() {
        let mut window = Window::default();
        let one = window.begin(QoS::AtLeastOnce, Some(()));
        let two = window.begin(QoS::ExactlyOnce, Some(()));
        assert_eq!(window.pubrec(one), Err(Violation::AckOfWrongQos));
        assert!(matches!(window.puback(two), Err(Violation::AckOfWrongQos)));
        assert!(matches!(window.pubcomp(one), Err(Violation::AckOfWrongQos)));
        assert!(window.pubrec_refused(two).unwrap().is_some());
        assert_eq!(window.in_flight(), 1);
    }

    #[test]
    fn an_acknowledgement_of_what_was_not_sent_again_is_none() {
        let mut window = Window::default();
        let one = window.begin(QoS::AtLeastOnce, Some(()));
        window.resume();
        assert!(window.puback(one).unwrap().is_none());
        assert_eq!(window.len(), 1);
    }

    #[test]
    fn identifiers_are_not_those_in_flight_whatever_was_settled() {
        let mut window = Window::default();
        let mut in_flight = std::collections::BTreeSet::new();
        let mut random = 1_u64;
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            random >> 33
        };
        for _ in 0..300_000 {
            let choice = next() % 100;
            if choice == 0 && next() % 100 == 0 {
                window.resume();
                while window.next_resend().is_some() {}
            } else if in_flight.len() < 10 || (choice < 50 && in_flight.len() < 1_000) {
                assert!(
                    in_flight.insert(window.begin(QoS::AtLeastOnce, Some(())).value()),
                    "in flight already"
                );
            } else {
                let nth = usize::try_from(next()).unwrap() % in_flight.len();
                let settled = *in_flight.iter().nth(nth).unwrap();
                in_flight.remove(&settled);
                assert!(window.puback(id(settled)).unwrap().is_some());
            }
        }
        let mut window = Window::default();
        let all: std::collections::BTreeSet<u16> =
            (0..u16::MAX).map(|_| window.begin(QoS::AtLeastOnce, Some(())).value()).collect();
        assert_eq!(all.len(), usize::from(u16::MAX));
        for last in [7, u16::MAX, 1] {
            assert!(window.puback(id(last)).unwrap().is_some());
            assert_eq!(window.begin(QoS::AtLeastOnce, Some(())), id(last), "the only one that is free");
        }
    }

    #[test]
    fn identifiers_go_round() {
        let mut window = Window::default();
        let stuck = window.begin(QoS::AtLeastOnce, Some(()));
        for _ in 0..70_000u32 {
            let next = window.begin(QoS::AtLeastOnce, None);
            assert_ne!(next, stuck);
            assert!(window.puback(next).unwrap().is_some());
        }
        assert_eq!(window.in_flight(), 1);
    }
}
