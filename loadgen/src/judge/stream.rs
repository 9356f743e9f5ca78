//! What one subscriber got from one publisher: which sequence numbers came, which are missing, what came twice or late.
//!
//! Cost: one comparison while everything comes in order; a gap costs 16 bytes while it is open.

/// One publisher's messages at one subscriber. Sequence numbers are counted from 0.
#[derive(Default, Debug)]
pub struct Stream {
    /// One more than the largest number that came.
    next: u64,
    /// Numbers below `next` that did not come: ranges without their end, ascending, not touching.
    missing: Vec<(u64, u64)>,
    received: u64,
    duplicated: u64,
    out_of_order: u64,
}

/// How a message came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// For the first time, and nothing later came before.
    InOrder,
    /// For the first time, but after a later one.
    Late,
    /// Again.
    Again,
}

impl Stream {
    /// The message with this number came.
    pub fn take(&mut self, sequence: u64) -> Arrival {
        if sequence >= self.next {
            if sequence > self.next {
                self.missing.push((self.next, sequence));
            }
            self.next = sequence + 1;
            self.received += 1;
            return Arrival::InOrder;
        }
        let after = self.missing.partition_point(|&(from, _)| from <= sequence);
        let gap = after.checked_sub(1).map(|index| (index, self.missing[index]));
        let Some((index, (from, to))) = gap.filter(|&(_, (_, to))| sequence < to) else {
            self.duplicated += 1;
            return Arrival::Again;
        };
        let left = (from < sequence).then_some((from, sequence));
        let right = (sequence + 1 < to).then_some((sequence + 1, to));
        self.missing.splice(index..=index, left.into_iter().chain(right));
        self.received += 1;
        self.out_of_order += 1;
        Arrival::Late
    }

    /// Different messages that came.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Messages that came again, each time counted.
    pub fn duplicated(&self) -> u64 {
        self.duplicated
    }

    /// Messages that came after a later one.
    pub fn out_of_order(&self) -> u64 {
        self.out_of_order
    }

    /// Ranges of numbers below `published` that did not come.
    pub fn missing(&self, published: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let tail = (self.next < published).then_some((self.next, published));
        self.missing.iter().copied().chain(tail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(sequences: &[u64]) -> Stream {
        let mut stream = Stream::default();
        for &sequence in sequences {
            stream.take(sequence);
        }
        stream
    }

    #[test]
    fn what_comes_is_counted() {
        for (sequences, received, duplicated, out_of_order, missing) in [
            (&[0, 1, 2][..], 3, 0, 0, &[][..]),
            (&[0, 2], 2, 0, 0, &[(1, 2)]),
            (&[0, 2, 1], 3, 0, 1, &[]),
            (&[0, 0, 1, 0], 2, 2, 0, &[(2, 3)]),
            (&[2, 0], 2, 0, 1, &[(1, 2)]),
            (&[2, 1, 1], 2, 1, 1, &[(0, 1)]),
            (&[], 0, 0, 0, &[(0, 3)]),
        ] {
            let stream = stream(sequences);
            let counts = (stream.received(), stream.duplicated(), stream.out_of_order());
            assert_eq!(counts, (received, duplicated, out_of_order), "{sequences:?}");
            assert_eq!(stream.missing(3).collect::<Vec<_>>(), missing, "{sequences:?}");
        }
    }

    /// Against a set that knows everything.
    #[test]
    fn agrees_with_a_naive_judge() {
        let mut state = 12_345_u64;
        for _ in 0..300 {
            let mut came = Vec::new();
            for _ in 0..40 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                came.push(state >> 59);
            }
            let stream = stream(&came);
            let mut seen = std::collections::BTreeSet::new();
            let (mut again, mut late) = (0, 0);
            for &sequence in &came {
                let largest = seen.last().copied();
                if !seen.insert(sequence) {
                    again += 1;
                } else if largest.is_some_and(|largest| largest > sequence) {
                    late += 1;
                }
            }
            assert_eq!(stream.received(), seen.len() as u64);
            assert_eq!((stream.duplicated(), stream.out_of_order()), (again, late));
            let missing: Vec<u64> = stream.missing(32).flat_map(|(from, to)| from..to).collect();
            let expected: Vec<u64> = (0..32).filter(|sequence| !seen.contains(sequence)).collect();
            assert_eq!(missing, expected);
        }
    }
}
