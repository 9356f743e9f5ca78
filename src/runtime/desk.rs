//! The desk: where the control thread leaves questions for shards, and shards their answers.
//!
//! Invariants: neither side waits for the other: both push to rings of a fixed size, and wake by a write that does not block. A
//! ring that is full loses the question (the shard does not answer anyway) or the answer (nobody reads them). Cost for a shard
//! that was not asked: one relaxed load a turn.

use crate::admin::overview::LogState;
use crate::base::ShardId;
use crate::log::Health;
use crate::shard::Report;
use crossbeam_queue::ArrayQueue;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// More than the control thread asks at once: it serves a bounded number of connections.
const CAPACITY: usize = 256;

/// What a shard is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Question {
    /// Counts up; answers name it.
    pub number: u64,
    /// Whether a report is wanted, or only a sign of life.
    pub wants_report: bool,
}

/// What a shard answers: that it has taken the question up, at once, and the report when it is ready.
#[derive(PartialEq, Eq, Debug)]
pub enum Answer {
    /// It is there.
    Taken {
        /// The question.
        number: u64,
        /// How its log is.
        log_health: Option<Health>,
    },
    /// The report it was asked for.
    Report(Box<Reply>),
}

/// A report, and what the shard's driver knows besides.
#[derive(PartialEq, Eq, Debug)]
pub struct Reply {
    /// The last question it answers.
    pub number: u64,
    /// The shard's part.
    pub report: Report,
    /// Receive buffers of the shard's rings, in bytes.
    pub receive_buffer_bytes: u64,
    /// How many rings it has.
    pub rings: u64,
    /// Its log.
    pub log: Option<LogState>,
}

/// The questions and answers of all shards.
#[derive(Debug)]
pub struct Desk {
    seats: Box<[Seat]>,
    /// A byte for every answer; the other end is the control thread's.
    answered: UnixStream,
}

/// One shard's. A cache line of its own: `asked` is read every turn.
#[derive(Debug)]
#[repr(align(128))]
struct Seat {
    asked: AtomicBool,
    questions: ArrayQueue<Question>,
    answers: ArrayQueue<Answer>,
    /// Wakes the shard.
    event: Arc<OwnedFd>,
}

impl Desk {
    /// A desk for the shards that these events wake, and what becomes readable when there are answers.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn new(events: impl IntoIterator<Item = Arc<OwnedFd>>) -> io::Result<(Self, UnixStream)> {
        let seat = |event| Seat {
            asked: AtomicBool::new(false),
            questions: ArrayQueue::new(CAPACITY),
            answers: ArrayQueue::new(CAPACITY),
            event,
        };
        let (answered, heard) = UnixStream::pair()?;
        answered.set_nonblocking(true)?;
        heard.set_nonblocking(true)?;
        Ok((Self { seats: events.into_iter().map(seat).collect(), answered }, heard))
    }

    /// How many shards there are.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        self.seats.len()
    }

    /// Asks a shard; `false` if it has too many questions already.
    pub fn ask(&self, shard: usize, question: Question) -> bool {
        let seat = &self.seats[shard];
        let is_asked = seat.questions.push(question).is_ok();
        // Release: whoever sees the flag sees the question.
        seat.asked.store(true, Ordering::Release);
        // Fails only when the counter is at its end, and then the shard is awake.
        let _ = nix::unistd::write(&seat.event, &1u64.to_ne_bytes());
        is_asked
    }

    /// The next answer of a shard.
    #[must_use]
    pub fn answer_of(&self, shard: usize) -> Option<Answer> {
        self.seats[shard].answers.pop()
    }

    /// The next question for `me`; once there is none, the flag is down until the next is asked.
    #[must_use]
    pub fn question_for(&self, me: ShardId) -> Option<Question> {
        let seat = &self.seats[me.index()];
        if !seat.asked.load(Ordering::Relaxed) {
            return None;
        }
        // Down before the look: a question asked after it raises the flag again.
        seat.asked.swap(false, Ordering::AcqRel);
        let question = seat.questions.pop()?;
        seat.asked.store(true, Ordering::Relaxed);
        Some(question)
    }

    /// Answers for `me`.
    pub fn answer(&self, me: ShardId, answer: Answer) {
        // Nobody reads answers when the ring is full.
        drop(self.seats[me.index()].answers.push(answer));
        // Fails only when so many bytes wait that whoever reads them will not miss one, or when nobody reads.
        let _ = (&self.answered).write(&[1]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::eventfd::EventFd;

    fn desk() -> (Desk, UnixStream) {
        let event = || Arc::new(OwnedFd::from(EventFd::new().unwrap()));
        Desk::new([event(), event()]).unwrap()
    }

    #[test]
    fn questions_and_answers_come_in_order_and_to_whom_they_are_for() {
        let (desk, _heard) = desk();
        let (me, other) = (ShardId(0), ShardId(1));
        let question = |number| Question { number, wants_report: false };
        assert!(desk.ask(0, question(1)) && desk.ask(0, question(2)));
        assert_eq!(desk.question_for(other), None);
        assert_eq!([desk.question_for(me), desk.question_for(me)], [Some(question(1)), Some(question(2))]);
        assert_eq!(desk.question_for(me), None);
        assert!(desk.ask(0, question(3)));
        assert_eq!(desk.question_for(me), Some(question(3)));
        desk.answer(me, Answer::Taken { number: 3, log_health: None });
        assert_eq!(desk.answer_of(1), None);
        assert_eq!(desk.answer_of(0), Some(Answer::Taken { number: 3, log_health: None }));
    }

    #[test]
    fn a_shard_that_does_not_answer_is_not_asked_without_end() {
        let (desk, _heard) = desk();
        let asked = (0..1000).filter(|number| desk.ask(1, Question { number: *number, wants_report: true }));
        assert_eq!(asked.count(), CAPACITY);
    }
}
