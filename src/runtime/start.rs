//! From a configuration to a serving process, and from a signal to its end.
//!
//! ```text
//! limits, data directory, ports -> shards open their rings, read their logs back -> tell each other their filters -> listen
//!     -> ready -> signal -> goodbyes -> end
//! ```
//!
//! Nothing is listened on before every shard has its sessions back and knows all filters. Whatever fails before `ready` is an error that names the setting.

use super::control::Control;
use super::data_dir::{self, DataDir};
use super::desk::Desk;
use super::disk::{Logs, ShardLog, logs};
use super::driver::{self, Driver, Setup};
use super::mailbox::Mesh;
use super::net::probe;
use super::watch::{ProcessFacts, Watch};
use super::{listener, memory, signal, space};
use crate::base::{HashKey, ShardId};
use crate::config::HttpListener;
use crate::shard::Options;
use anyhow::{Context, Result, anyhow, bail};
use glommio::{LocalExecutorBuilder, Placement};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

/// What a process is started with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunConfig {
    /// Where plain MQTT is listened for.
    pub listeners: Vec<SocketAddr>,
    /// Where health and metrics are served, if anywhere.
    pub http: Vec<HttpListener>,
    /// How many shards, 1 to 64.
    pub shards: u16,
    /// Where the process keeps what outlives it.
    pub data_dir: PathBuf,
    /// `disk_free_limit.absolute`.
    pub free_bytes_min: u64,
    /// What every shard is configured with.
    pub options: Options,
}

/// Glommio registers this much memory an executor for storage; the log does not go through it, and 64 KiB is its minimum.
const STORAGE_MEMORY: usize = 64 << 10;
/// Direct descriptors a ring: 512 KiB of kernel memory. Who has more connections opens another ring.
const DESCRIPTORS_MAX: u64 = 65_536;
/// How often memory and space on disk are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What goodbyes may take longer than they should before the process ends without.
const GRACE: Duration = Duration::from_secs(2);

/// What threads tell the main one.
enum Event {
    /// A shard has opened its ring, then that it listens; or why not.
    Step(Result<()>),
    /// A signal came.
    Leave,
    /// A shard has ended.
    Ended(Result<()>),
}

/// Runs the broker until it is told to leave.
///
/// # Errors
/// Whatever keeps it from serving, or ends it before its time.
pub fn run(config: RunConfig) -> Result<()> {
    let limits = probe::probe()?;
    let data_dir = DataDir::open(&config.data_dir)?;
    let RunConfig { listeners, http, shards, free_bytes_min, options, .. } = config;
    logs::warn_of_sync(options.log.sync, options.log_sync_interval_ms);
    let tags = data_dir::draw().context("random bits")?;
    let logs = Logs::open(data_dir.path(), shards, &options.log, data_dir.key(), tags)?;
    let control = Arc::new(Control::new(shards).context("event descriptors")?);
    let bounds =
        Bounds { memory_max: options.process.memory_max_bytes, data_dir: data_dir.path(), free_bytes_min };
    bounds.look(&control);
    let events = (0..shards).map(|shard| Arc::clone(control.event(usize::from(shard))));
    let (desk, answered) = Desk::new(events).context("event descriptors")?;
    let desk = Arc::new(desk);
    let (events, inbox) = mpsc::channel();
    let leave = events.clone();
    // Whoever stops listening to events has ended.
    signal::watch(move || drop(leave.send(Event::Leave))).context("signal handlers")?;

    let plan = Plan {
        shards,
        options,
        key: data_dir.key(),
        descriptors: u32::try_from(limits.descriptors.min(DESCRIPTORS_MAX))?,
        control: Arc::clone(&control),
        desk: Arc::clone(&desk),
    };
    let mut bound = Vec::new();
    let mut sockets: Vec<Vec<(TcpListener, SocketAddr)>> = (0..shards).map(|_| Vec::new()).collect();
    for address in listeners {
        let (each, address) = listener::bind(address, shards, listener::MQTT_KEY)?;
        for (of_shard, socket) in sockets.iter_mut().zip(each) {
            of_shard.push((socket, address));
        }
        bound.push(address);
    }
    let (http_sockets, http_bound) = bind_http(&http)?;
    let (threads, starts) = plan.spawn(sockets, &logs, &events)?;
    await_step(&inbox, shards)?;
    for start in starts {
        start.send(()).map_err(|_| anyhow!("a shard ended before it began"))?;
    }
    await_step(&inbox, shards)?;
    let watch = if http_sockets.is_empty() {
        None
    } else {
        let facts = ProcessFacts::new(bounds.memory_max, bounds.data_dir.to_owned(), free_bytes_min);
        Some(Watch::start(http_sockets, Arc::clone(&control), desk, answered, facts)?)
    };
    announce(&bound, &http_bound, shards);
    serve(&control, &inbox, shards, &bounds)?;
    drop(watch);
    for thread in threads {
        thread.join().map_err(|_| anyhow!("a shard panicked"))?;
    }
    Ok(())
}

/// What shards are made from.
struct Plan {
    shards: u16,
    options: Options,
    key: HashKey,
    descriptors: u32,
    control: Arc<Control>,
    desk: Arc<Desk>,
}

type Threads = (Vec<JoinHandle<()>>, Vec<Sender<()>>);

impl Plan {
    /// A thread a shard, each on a core of its own as far as there are enough; and what starts each.
    fn spawn(
        &self,
        sockets: Vec<Vec<(TcpListener, SocketAddr)>>,
        logs: &Logs,
        events: &Sender<Event>,
    ) -> Result<Threads> {
        let mesh = Arc::new(Mesh::new(self.shards, self.options.process.mailbox_capacity));
        let cores = cores().context("the cores this process may use")?;
        let mut threads = Vec::new();
        let mut starts = Vec::new();
        for (id, listeners) in (0..self.shards).zip(sockets) {
            let opened = events.clone();
            let setup = Setup {
                id: ShardId(id),
                key: self.key,
                options: self.options.clone(),
                mesh: Arc::clone(&mesh),
                control: Arc::clone(&self.control),
                desk: Arc::clone(&self.desk),
                listeners,
                // Whoever stops listening to events has ended.
                opened: Box::new(move |result| drop(opened.send(Event::Step(result.map_err(Into::into))))),
                descriptors: self.descriptors,
            };
            let log = logs.of_shard(setup.id, Arc::clone(self.control.event(usize::from(id))));
            let core = cores[usize::from(id) % cores.len()];
            let (start, begin) = mpsc::channel();
            let events = events.clone();
            let thread = std::thread::Builder::new().name(format!("shard-{id}"));
            let body = move || {
                let result = run_shard(setup, log, core, &begin, &events);
                // Whoever stops listening to events has ended.
                let _ = events.send(Event::Ended(result));
            };
            threads.push(thread.spawn(body).with_context(|| format!("a thread for shard {id}"))?);
            starts.push(start);
        }
        Ok((threads, starts))
    }
}

fn run_shard(
    setup: Setup,
    log: ShardLog,
    core: usize,
    begin: &Receiver<()>,
    events: &Sender<Event>,
) -> Result<()> {
    let shard = setup.id.0;
    let builder = LocalExecutorBuilder::new(Placement::Fixed(core)).io_memory(STORAGE_MEMORY);
    let executor = match builder.make() {
        Ok(executor) => executor,
        Err(error) => {
            let _ = events.send(Event::Step(Err(anyhow!("an executor on core {core}: {error}"))));
            return Ok(());
        }
    };
    executor.run(async move {
        let mut driver = match Driver::new(setup) {
            Ok(driver) => driver,
            Err(error) => {
                let error = anyhow!(error).context(format!("the network ring of shard {shard}"));
                let _ = events.send(Event::Step(Err(error)));
                return Ok(());
            }
        };
        let recovered = log.recover().map(|(recovered, disk)| driver.take_log(recovered, disk));
        let is_recovered = recovered.is_ok();
        let _ = events.send(Event::Step(recovered.map_err(Into::into)));
        if !is_recovered || begin.recv().is_err() {
            // This shard cannot be, or another one.
            return Ok(());
        }
        driver.run().await.with_context(|| format!("the network ring of shard {shard}"))
    })
}

/// Waits until every shard has taken a step.
fn await_step(inbox: &Receiver<Event>, shards: u16) -> Result<()> {
    let mut taken = 0;
    while taken < shards {
        match inbox.recv()? {
            Event::Step(result) => result?,
            Event::Leave => bail!("told to leave before everything was ready"),
            Event::Ended(result) => return result.and(Err(anyhow!("a shard ended before it began"))),
        }
        taken += 1;
    }
    Ok(())
}

/// The one line that says where the broker is reached.
fn announce(bound: &[SocketAddr], http: &[SocketAddr], shards: u16) {
    let list = |bound: &[SocketAddr]| bound.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",");
    let http = if http.is_empty() { String::new() } else { format!(" http={}", list(http)) };
    // There is nobody to tell when even this cannot be written.
    let _ = writeln!(io::stderr(), "ready mqtt={}{http} shards={shards}", list(bound));
}

/// The sockets of the control thread, listening, and where they do.
fn bind_http(listeners: &[HttpListener]) -> Result<(Vec<TcpListener>, Vec<SocketAddr>)> {
    let (mut sockets, mut bound) = (Vec::new(), Vec::new());
    for HttpListener { address, key } in listeners {
        let (each, address) = listener::bind(*address, 1, key)?;
        for socket in each {
            listener::listen(&socket, address, key)?;
            socket.set_nonblocking(true).context(*key)?;
            sockets.push(socket);
        }
        bound.push(address);
    }
    Ok((sockets, bound))
}

/// Watches over the shards until all have ended.
fn serve(control: &Control, inbox: &Receiver<Event>, shards: u16, bounds: &Bounds<'_>) -> Result<()> {
    let mut running = shards;
    let mut leaving = false;
    while running > 0 {
        let timeout = if leaving { Duration::from_millis(driver::DRAIN_MAX_MS) + GRACE } else { LOOK_EVERY };
        match inbox.recv_timeout(timeout) {
            Ok(Event::Leave) => {
                leaving = true;
                control.leave();
            }
            Ok(Event::Ended(result)) => {
                result?;
                running -= 1;
            }
            Ok(Event::Step(_)) => {}
            Err(RecvTimeoutError::Timeout) if leaving => bail!("connections were still open at the end"),
            Err(RecvTimeoutError::Timeout) => bounds.look(control),
            Err(RecvTimeoutError::Disconnected) => bail!("the shards are gone"),
        }
    }
    Ok(())
}

/// What the process may use.
struct Bounds<'a> {
    memory_max: Option<u64>,
    data_dir: &'a Path,
    free_bytes_min: u64,
}

impl Bounds<'_> {
    fn look(&self, control: &Control) {
        if let (Some(max), Some(own)) = (self.memory_max, memory::own_bytes()) {
            watch_memory(control, own, max);
        }
        if let Some(free) = space::free_bytes(self.data_dir) {
            watch_space(control, free, self.free_bytes_min);
        }
    }
}

fn watch_space(control: &Control, free: u64, min: u64) {
    let was = control.is_short_of_space();
    let short = space::is_short(was, free, min);
    if short && !was {
        tracing::warn!(
            free,
            min,
            "the disk of quelea.data_dir has less space than disk_free_limit.absolute: durable messages are refused until there is \
             more"
        );
    } else if was && !short {
        tracing::info!(free, min, "the disk has more space than disk_free_limit.absolute again");
    }
    control.set_short_of_space(short);
}

fn watch_memory(control: &Control, own: u64, max: u64) {
    let was = control.is_short_of_memory();
    let short = memory::is_short(was, own, max);
    if short && !was {
        tracing::warn!(
            own,
            max,
            "over quelea.memory.max_bytes: publishers are paused or read slowly, new clients and subscriptions are refused"
        );
    } else if was && !short {
        tracing::info!(own, max, "below quelea.memory.max_bytes again");
    }
    control.set_short_of_memory(short);
}

/// The cores this process may run on, at least one.
fn cores() -> nix::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    let cores: Vec<usize> = (0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).collect();
    if cores.is_empty() { Err(nix::errno::Errno::ENODEV) } else { Ok(cores) }
}
