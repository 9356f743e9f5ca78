//! From one stage of a durable run to the next.
//!
//! ```text
//! come (subscribe, those that are offline leave) -> load [-> kill -> start -> everybody back -> check]... -> settle
//!   -> resume (everybody comes, everything is drained) -> check -> clean up
//! ```

use super::args::DurableArgs;
use super::left::Left;
use super::run::{Interrupted, Run, Stopped};
use super::terms::Role;
use crate::clock::{self, MILLISECOND, SECOND};
use crate::cost::{Memory, Processes};
use anyhow::{Result, ensure};
use std::collections::BTreeMap;

/// Between the last thing that was due and the end: whatever comes again would come now.
const AFTERMATH: u64 = 300 * MILLISECOND;
/// After an order to kill, connections end within this time.
const DYING_MAX: u64 = 10 * SECOND;
/// The shortest part of `--secs` after which a kill comes.
const KILL_FROM: f64 = 0.1;

/// Counters at one moment.
#[derive(Clone, Copy, Default, Debug)]
pub struct Sample {
    pub at: u64,
    pub acknowledged: u64,
    pub received: u64,
    pub broker_cpu: f64,
    pub own_cpu: f64,
    /// Bytes the broker's processes caused to be written to disks.
    pub written: u64,
}

/// One kill and start; nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Restart {
    /// From the order to start until a CONNECT was answered.
    pub answered: u64,
    /// Until everybody who was connected is again.
    pub complete: u64,
}

/// How it went.
#[derive(Default, Debug)]
pub struct Outcome {
    /// Why there is more to say than counts, if there is.
    pub stopped: Option<String>,
    pub come_nanos: u64,
    pub from: Sample,
    pub to: Sample,
    pub settle_nanos: u64,
    pub restarts: Vec<Restart>,
    pub resume_nanos: u64,
    /// Delivered while sessions were resumed.
    pub resumed: u64,
    /// Sessions that got all they were due, of those that were resumed.
    pub complete: u32,
    pub before: Memory,
    pub left: Memory,
    pub cleanup: BTreeMap<String, u64>,
}

/// Goes through all stages. What the broker does wrong is in the world, what it does not do at all in the outcome.
///
/// # Errors
/// If the machine, or a command, fails.
pub fn drive(run: &mut Run, args: &DurableArgs, processes: &Processes) -> Result<Outcome> {
    let mut outcome = Outcome { before: processes.memory(), ..Outcome::default() };
    let result = stages(run, args, processes, &mut outcome);
    match result {
        Ok(()) => {}
        Err(error) if error.is::<Stopped>() || error.is::<Interrupted>() => {
            outcome.stopped = Some(error.to_string());
        }
        Err(error) => return Err(error),
    }
    Ok(outcome)
}

fn stages(run: &mut Run, args: &DurableArgs, processes: &Processes, outcome: &mut Outcome) -> Result<()> {
    if args.resume.is_some() {
        run.assume_sessions();
    } else {
        come(run, outcome)?;
        load(run, args, processes, outcome)?;
        settle(run, outcome)?;
        outcome.left = processes.memory();
        if let Some(path) = &args.leave {
            return Left::write(path, &run.terms, &run.world);
        }
    }
    resume(run, args, outcome)?;
    check(run)?;
    if !args.no_cleanup {
        clean_up(run, outcome)?;
    }
    Ok(())
}

fn come(run: &mut Run, outcome: &mut Outcome) -> Result<()> {
    "come".clone_into(&mut run.said);
    let [sessions, publishers, changers] = run.terms.slots();
    let began = clock::now();
    run.want(0..run.terms.online);
    run.want(publishers);
    run.want(changers);
    run.visit(run.terms.online..sessions.end);
    settle_down(run, "clients did not come")?;
    outcome.come_nanos = clock::now() - began;
    Ok(())
}

/// Until nobody is on the way; not for ever.
fn settle_down(run: &mut Run, what: &str) -> Result<()> {
    let (mut progress, mut last) = (run.now, 0);
    loop {
        let patience = run.terms.timeout * 2;
        if run.is_settled() {
            break;
        }
        if run.now - progress > patience {
            return Err(anyhow::Error::new(Stopped(format!(
                "{what}: nothing happened for {} s",
                patience / SECOND
            ))));
        }
        run.turn()?;
        let now = run.came;
        if now != last {
            (last, progress) = (now, run.now);
        }
    }
    Ok(())
}

fn load(run: &mut Run, args: &DurableArgs, processes: &Processes, outcome: &mut Outcome) -> Result<()> {
    "load".clone_into(&mut run.said);
    (run.loading, run.holding, run.queued) = (true, false, args.queued);
    (0..run.terms.publishers).for_each(|publisher| run.world.pump(publisher));
    if args.kill.is_none() && args.queued.is_none() {
        let until = clock::now() + clock::from_secs(args.warmup);
        run.turn_until(until, |_| false)?;
    }
    outcome.from = sample(run, processes);
    run.world.measure = outcome.from.at..u64::MAX;
    if args.kill.is_some() {
        for _ in 0..args.cycles {
            cycle(run, args, outcome)?;
        }
    } else if let Some(queued) = args.queued {
        let due = queued * run.world.lanes.len() as u64;
        patient(run, |run| run.world.tally.published >= due && run.world.pending() == 0)?;
    } else {
        let until = outcome.from.at + clock::from_secs(args.secs);
        run.turn_until(until, |_| false)?;
    }
    run.loading = false;
    run.holding = true;
    outcome.to = sample(run, processes);
    run.world.measure.end = outcome.to.at;
    Ok(())
}

/// Until `done`, or nothing has been acknowledged or delivered for as long as `--drain` says.
fn patient(run: &mut Run, mut done: impl FnMut(&mut Run) -> bool) -> Result<bool> {
    let mut last = (0, 0, 0);
    let mut progress = clock::now();
    loop {
        if done(run) {
            return Ok(true);
        }
        if run.now.saturating_sub(progress) >= run.terms.drain {
            return Ok(false);
        }
        run.turn()?;
        let tally = &run.world.tally;
        let now = (tally.acknowledged + tally.refused, tally.received, run.came);
        if now != last {
            (last, progress) = (now, run.now);
        }
    }
}

fn cycle(run: &mut Run, args: &DurableArgs, outcome: &mut Outcome) -> Result<()> {
    let Some(kill) = &args.kill else { return Ok(()) };
    let share = KILL_FROM + (1.0 - KILL_FROM) * run.random.share();
    let until = clock::now() + clock::from_secs(args.secs * share);
    run.turn_until(until, |_| false)?;
    "kill".clone_into(&mut run.said);
    run.expecting = true;
    run.world.epoch += 1;
    run.commands.run(kill)?;
    let patience = clock::from_secs(args.restart_timeout);
    let ended = run.turn_until(clock::now() + patience, |run| !run.commands.is_running(kill))?;
    ensure!(ended, "`{kill}` does not end");
    let dead = run.turn_until(clock::now() + DYING_MAX, |run| run.is_dead())?;
    ensure!(dead, "`{kill}` has ended, and connections have not: it does not kill this broker");
    let began = clock::now();
    if let Some(start) = &args.start {
        run.commands.run(start)?;
    }
    if !run.turn_until(began + patience, |run| !run.is_down)? {
        let secs = args.restart_timeout;
        return Err(anyhow::Error::new(Stopped(format!(
            "the broker did not answer CONNECT within {secs} s"
        ))));
    }
    let answered = run.now - began;
    if !run.turn_until(run.now + patience, |run| run.missing == 0)? {
        let text = format!("{} clients did not come back", run.missing);
        return Err(anyhow::Error::new(Stopped(text)));
    }
    run.expecting = false;
    outcome.restarts.push(Restart { answered, complete: run.now - began });
    "load".clone_into(&mut run.said);
    check(run)
}

/// Publishing is over: until everything is answered, or nothing is any more.
fn settle(run: &mut Run, outcome: &mut Outcome) -> Result<()> {
    "settle".clone_into(&mut run.said);
    let began = clock::now();
    patient(run, |run| run.world.pending() == 0)?;
    (0..run.terms.publishers).for_each(|publisher| run.world.abandon(publisher));
    outcome.settle_nanos = clock::now() - began;
    Ok(())
}

/// What retained messages there are, and which subscriptions are in force.
fn check(run: &mut Run) -> Result<()> {
    run.holding = true;
    let (reader, prober) = (run.terms.slot(Role::Reader), run.terms.slot(Role::Prober));
    let until = |run: &Run| run.now + run.terms.drain.max(run.terms.timeout);
    if run.terms.changers > 0 {
        let quiet = |run: &mut Run| run.world.changers.iter().all(|changer| changer.request.is_none());
        run.turn_until(until(run), quiet)?;
        run.world.begin_probing();
        run.want(prober..prober + 1);
        run.turn_until(until(run), |run| !run.world.is_probing())?;
        run.turn_until(run.now + AFTERMATH / 3, |_| false)?;
        run.world.end_probing();
        run.release(prober);
    }
    if run.terms.retained > 0 {
        run.want(reader..reader + 1);
        if run.turn_until(until(run), |run| run.is_up(reader))? {
            run.turn_until(until(run), |run| !run.world.is_reading())?;
            run.turn_until(run.now + AFTERMATH / 3, |_| false)?;
            run.world.end_reading();
        }
        run.release(reader);
    }
    run.holding = !run.loading;
    Ok(())
}

/// Everybody comes, in turns if there are too many, until everything that is due came.
fn resume(run: &mut Run, args: &DurableArgs, outcome: &mut Outcome) -> Result<()> {
    "resume".clone_into(&mut run.said);
    let began = clock::now();
    let received = run.world.tally.received;
    let sessions = run.terms.sessions;
    run.world.is_draining = true;
    for session in (0..sessions).filter(|&session| run.is_up(session)).collect::<Vec<_>>() {
        run.world.look(session);
    }
    let at_once = args.at_once.max(run.terms.online);
    let in_turns = sessions > at_once;
    let mut next = 0;
    let mut out = 0;
    patient(run, |run| {
        for session in std::mem::take(&mut run.world.complete) {
            if in_turns {
                run.release(session);
                out += 1;
            }
        }
        while next < sessions && next - out < at_once {
            run.want(next..next + 1);
            next += 1;
        }
        run.world.complete_count == sessions
    })?;
    outcome.resume_nanos = run.world.last_arrival.saturating_sub(began);
    outcome.resumed = run.world.tally.received - received;
    outcome.complete = run.world.complete_count;
    run.turn_until(run.now + AFTERMATH, |_| false)?;
    Ok(())
}

/// The broker keeps nothing of this run.
fn clean_up(run: &mut Run, outcome: &mut Outcome) -> Result<()> {
    "clean up".clone_into(&mut run.said);
    let failures = run.failures.clone();
    if run.terms.retained > 0 {
        let prober = run.terms.slot(Role::Prober);
        run.world.begin_clearing();
        run.want(prober..prober + 1);
        let until = run.now + run.terms.timeout;
        run.turn_until(until, |run| !run.world.is_clearing())?;
    }
    run.begin_cleaning();
    let until = run.now + run.terms.timeout;
    run.turn_until(until, |run| run.up == 0 && run.links.busy == 0)?;
    let [sessions, _, changers] = run.terms.slots();
    run.visit(sessions.start..changers.end);
    settle_down(run, "sessions could not be taken away")?;
    outcome.cleanup = std::mem::replace(&mut run.failures, failures);
    Ok(())
}

fn sample(run: &Run, processes: &Processes) -> Sample {
    let tally = &run.world.tally;
    Sample {
        at: clock::now(),
        acknowledged: tally.acknowledged,
        received: tally.received,
        broker_cpu: processes.cpu(),
        own_cpu: clock::process_cpu(),
        written: processes.written(),
    }
}
