//! What people see while a run goes on: a line that moves on a terminal, a line a second elsewhere.

use crate::clock::{self, SECOND};
use crate::engine::{Observer, Phase, Totals};
use crate::table::{count, micros};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};

/// Shows progress on standard error.
pub struct Progress {
    bar: Option<ProgressBar>,
    quiet: bool,
    shown: u64,
    last: Totals,
}

impl Progress {
    /// Nothing is shown if `quiet`.
    pub fn new(quiet: bool) -> Self {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(1000);
            let style = ProgressStyle::with_template("{prefix:>8} [{bar:30}] {msg}");
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, quiet, shown: clock::now(), last: Totals::default() }
    }

    /// Takes the line away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Observer for Progress {
    fn progress(&mut self, phase: Phase, totals: &Totals, clients: u64, elapsed: u64, total: u64) {
        let since = clock::now() - self.shown;
        let due = if self.bar.is_some() { SECOND / 5 } else { SECOND };
        if self.quiet || since < due {
            return;
        }
        let per_sec = |now: u64, before: u64| count((now - before) as f64 * SECOND as f64 / since as f64);
        let (name, message) = match phase {
            Phase::Prepare | Phase::Setup => (
                "connect",
                format!("{} of {clients} ready ({}/s)", totals.ready, per_sec(totals.ready, self.last.ready)),
            ),
            Phase::Run if totals.published == 0 => {
                ("hold", format!("{} connections held, {} died", totals.ready - totals.died, totals.died))
            }
            Phase::Drain if totals.published == 0 => {
                ("ask", format!("{} of {} asked clients answered", totals.alive, totals.asked))
            }
            Phase::Close => ("leave", format!("{} sockets open", totals.sockets)),
            Phase::Run => (
                "run",
                format!(
                    "{}/s published, {}/s delivered, p50 {}, p99 {}",
                    per_sec(totals.published, self.last.published),
                    per_sec(totals.received, self.last.received),
                    micros(totals.p50_micros),
                    micros(totals.p99_micros),
                ),
            ),
            Phase::Drain => ("drain", format!("{} delivered", totals.received)),
        };
        self.shown = clock::now();
        self.last = *totals;
        let share = match phase {
            Phase::Prepare | Phase::Setup => (totals.settled, clients),
            Phase::Run => (elapsed.min(total), total),
            Phase::Drain | Phase::Close => (1, 1),
        };
        if let Some(bar) = &self.bar {
            bar.set_prefix(name);
            bar.set_position(share.0.saturating_mul(1000) / share.1.max(1));
            bar.set_message(message);
        } else {
            let _ = writeln!(std::io::stderr(), "{name:>8}  {message}");
        }
    }
}
