//! The control thread's questions, from one shard's side.

use super::Driver;
use crate::runtime::desk::{Answer, Reply};

impl Driver {
    /// Takes up what the control thread asks: says so at once; a report takes its time.
    pub(super) fn take_questions(&mut self) {
        while let Some(question) = self.desk.question_for(self.id) {
            let log_health = self.shard.log_health();
            self.desk.answer(self.id, Answer::Taken { number: question.number, log_health });
            if question.wants_report {
                self.reporting = self.reporting.max(question.number);
                self.shard.handle_query(self.now);
            }
        }
    }

    /// Hands over the report, once it is ready.
    pub(super) fn hand_in_report(&mut self) {
        let Some(report) = self.shard.poll_report() else { return };
        let reply = Reply {
            number: self.reporting,
            report: *report,
            receive_buffer_bytes: self.rings.receive_buffer_bytes(),
            rings: self.rings.count() as u64,
            log: self.log_state(),
        };
        self.desk.answer(self.id, Answer::Report(Box::new(reply)));
    }
}
