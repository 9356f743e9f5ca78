//! Who asks the shards and keeps what they answered.
//!
//! Every second each shard is asked for a sign of life; how long it takes to give it is the loop lag. A shard whose question has
//! waited longer than [`SILENCE_MAX`] is silent: health says so, and its numbers are shown as they were last.

use super::process::ProcessFacts;
use crate::admin::Overview;
use crate::admin::overview::{Lag, ShardState};
use crate::runtime::control::Control;
use crate::runtime::desk::{Answer, Desk, Question};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// A question that waits longer makes its shard silent.
const SILENCE_MAX: Duration = Duration::from_secs(1);
/// A report may take longer than a sign of life: it walks over all connections and sessions.
const REPORT_MAX: Duration = Duration::from_secs(5);
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// The shards as they answered last.
pub(super) struct Observer {
    control: Arc<Control>,
    desk: Arc<Desk>,
    facts: ProcessFacts,
    state: Mutex<State>,
    /// Some answers have come.
    changed: Notify,
    /// One report at a time.
    reporting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    number: u64,
    lag: Lag,
    shards: Vec<Shown>,
}

#[derive(Default)]
struct Shown {
    state: ShardState,
    /// The oldest question it has not taken up, and since when that waits.
    waiting: Option<(u64, Instant)>,
    /// The last question its report answers.
    reported: u64,
}

impl Observer {
    /// Starts to ask and to listen, on the runtime this is called in.
    pub(super) fn start(
        control: Arc<Control>,
        desk: Arc<Desk>,
        answered: std::os::unix::net::UnixStream,
        facts: ProcessFacts,
    ) -> io::Result<Arc<Self>> {
        let shards = (0..desk.shard_count()).map(|_| Shown::default()).collect();
        let answered = UnixStream::from_std(answered)?;
        let observer = Arc::new(Self {
            control,
            desk,
            facts,
            state: Mutex::new(State { shards, ..State::default() }),
            changed: Notify::new(),
            reporting: tokio::sync::Mutex::new(()),
        });
        tokio::spawn(Arc::clone(&observer).listen(answered));
        tokio::spawn(Arc::clone(&observer).sample());
        Ok(observer)
    }

    /// Whether every shard gives a sign of life in time, and everything as it was last.
    pub(super) async fn check(&self) -> Overview {
        self.ask(false);
        let all_there = |state: &State| state.shards.iter().all(|shard| shard.waiting.is_none());
        self.wait(SILENCE_MAX + Duration::from_millis(50), all_there).await;
        self.overview()
    }

    /// Everything, as it is now.
    pub(super) async fn report(&self) -> Overview {
        let _one = self.reporting.lock().await;
        let number = self.ask(true);
        let done = |shard: &Shown| shard.reported >= number || shard.is_silent();
        self.wait(REPORT_MAX, |state: &State| state.shards.iter().all(done)).await;
        self.overview()
    }

    /// Whether every shard has reported once.
    pub(super) fn has_reports(&self) -> bool {
        self.state().shards.iter().all(|shard| shard.reported > 0)
    }

    fn ask(&self, wants_report: bool) -> u64 {
        let mut state = self.state();
        state.number += 1;
        let number = state.number;
        for (index, shard) in state.shards.iter_mut().enumerate() {
            shard.waiting.get_or_insert_with(|| (number, Instant::now()));
            // One that has too many questions already is silent by what waits.
            self.desk.ask(index, Question { number, wants_report });
        }
        number
    }

    fn overview(&self) -> Overview {
        let process = self.facts.look(&self.control);
        let state = self.state();
        let shards = state.shards.iter().map(Shown::view).collect();
        Overview { process, shards, lag: state.lag.clone() }
    }

    /// Waits until `is_done`, but not longer than `time_max`.
    async fn wait(&self, time_max: Duration, is_done: impl Fn(&State) -> bool) {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                // Before the look: what changes after it is heard.
                changed.as_mut().enable();
                if is_done(&self.state()) {
                    return;
                }
                // Silence is no event: look at the clock as well.
                let _ = timeout(Duration::from_millis(100), changed).await;
            }
        };
        let _ = timeout(time_max, waiting).await;
    }

    async fn sample(self: Arc<Self>) {
        let mut ticks = interval(SAMPLE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.ask(false);
        }
    }

    async fn listen(self: Arc<Self>, answered: UnixStream) {
        loop {
            if answered.readable().await.is_err() {
                return;
            }
            // A byte for each answer; all answers are taken anyway.
            while answered.try_read(&mut [0; 256]).is_ok_and(|count| count > 0) {}
            self.take_answers();
            self.changed.notify_waiters();
        }
    }

    fn take_answers(&self) {
        let mut state = self.state();
        let State { lag, shards, .. } = &mut *state;
        for (index, shard) in shards.iter_mut().enumerate() {
            while let Some(answer) = self.desk.answer_of(index) {
                shard.take(answer, lag);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with the lock")
    }
}

impl Shown {
    fn take(&mut self, answer: Answer, lag: &mut Lag) {
        match answer {
            Answer::Taken { number, log_health } => {
                self.state.log_health = log_health;
                let Some((waiting, since)) = self.waiting.filter(|(waiting, _)| *waiting <= number) else {
                    return;
                };
                if waiting == number {
                    self.state.lag_us = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
                    lag.record(self.state.lag_us);
                }
                self.waiting = None;
            }
            Answer::Report(reply) => {
                self.reported = reply.number;
                self.state.report = reply.report;
                self.state.receive_buffer_bytes = reply.receive_buffer_bytes;
                self.state.rings = reply.rings;
                self.state.log = reply.log;
            }
        }
    }

    fn is_silent(&self) -> bool {
        self.silent_ms().is_some()
    }

    fn silent_ms(&self) -> Option<u64> {
        let (_, since) = self.waiting?;
        let waited = since.elapsed();
        (waited >= SILENCE_MAX).then(|| u64::try_from(waited.as_millis()).unwrap_or(u64::MAX))
    }

    fn view(&self) -> ShardState {
        ShardState { silent_ms: self.silent_ms(), ..self.state.clone() }
    }
}
