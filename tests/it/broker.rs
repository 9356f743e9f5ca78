//! One running broker: the real binary, a port of its choice, a data folder of its own.

use crate::DEADLINE;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

/// A process of the binary under test; killed when dropped.
pub(crate) struct Process {
    child: Child,
    stderr: Arc<Lines>,
    folder: PathBuf,
}

/// A process that has said `ready`.
pub(crate) struct Broker {
    process: Process,
    address: SocketAddr,
    http: Option<SocketAddr>,
}

/// What a process has written to standard error so far.
#[derive(Default)]
struct Lines {
    state: Mutex<LinesState>,
    changed: Condvar,
}

#[derive(Default)]
struct LinesState {
    lines: Vec<String>,
    is_ended: bool,
}

impl Process {
    /// Starts the binary with these arguments and, unless they name one, a data folder of its own.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_quelea")), args)
    }

    /// The same, with room for so many descriptors: in the process, and in each ring.
    pub(crate) fn start_with_descriptors(args: &[&str], descriptors: u32) -> Self {
        let mut shell = Command::new("sh");
        let script = format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_quelea")]);
        Self::spawn(shell, args)
    }

    fn spawn(mut command: Command, args: &[&str]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("it-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder under target/ can be made");
        let has_data_folder = args.iter().any(|arg| arg.contains("quelea.data_dir="));
        let mut child = command
            .args(args)
            .args(if has_data_folder { None } else { Some("--set=quelea.data_dir=data") })
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary under test starts");
        let stderr = Arc::new(Lines::default());
        let source = BufReader::new(child.stderr.take().expect("standard error is piped"));
        let lines = Arc::clone(&stderr);
        std::thread::spawn(move || lines.fill(source));
        Self { child, stderr, folder }
    }

    /// Waits until the process ends by itself; its status, and all it wrote to standard error.
    pub(crate) fn wait(mut self) -> (ExitStatus, Vec<String>) {
        let lines = self.stderr.wait_for(|state| state.is_ended.then(|| state.lines.clone()));
        (self.child.wait().expect("a child can be waited for"), lines)
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        let pid = i32::try_from(self.child.id()).expect("process ids fit");
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("a child can be signalled");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if the process has ended, which is what they are for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Broker {
    /// Starts a broker with these settings on a free port of loopback and waits until it serves.
    pub(crate) fn start(settings: &[&str]) -> Self {
        Self::started(settings, Process::start)
    }

    /// The same, with room for so many descriptors: in the process, and in each ring of a shard.
    #[allow(dead_code, reason = "for tests of several rings")]
    pub(crate) fn start_with_descriptors(settings: &[&str], descriptors: u32) -> Self {
        Self::started(settings, |args| Process::start_with_descriptors(args, descriptors))
    }

    fn started(settings: &[&str], start: impl FnOnce(&[&str]) -> Process) -> Self {
        let mut args = vec!["--set=mqtt.listeners.tcp.default=127.0.0.1:0".to_owned()];
        args.extend(settings.iter().map(|setting| format!("--set={setting}")));
        let process = start(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let ready = process.stderr.wait_for(|state| {
            let ready = state.lines.iter().find(|line| line.starts_with("ready ")).cloned();
            assert!(ready.is_some() || !state.is_ended, "no start: {:#?}", state.lines);
            ready
        });
        let field =
            |name: &str| ready.split(' ').find_map(|field| field.strip_prefix(name)).map(str::to_owned);
        // The first, where there are several.
        let address = field("mqtt=").and_then(|addresses| addresses.split(',').next()?.parse().ok());
        let address: SocketAddr = address.unwrap_or_else(|| panic!("no address in: {ready}"));
        assert_ne!(address.port(), 0, "{ready}");
        let shards = settings.iter().find_map(|setting| setting.strip_prefix("quelea.shards="));
        if let Some(shards) = shards {
            assert_eq!(field("shards=").as_deref(), Some(shards), "{ready}");
        }
        let http = field("http=").map(|address| address.parse().expect("an address"));
        Self { process, address, http }
    }

    /// A broker with so many shards and all else as it is by default.
    pub(crate) fn with_shards(shards: u16) -> Self {
        Self::start(&[&format!("quelea.shards={shards}")])
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it serves HTTP, if it does.
    pub(crate) fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Its process.
    pub(crate) fn process_id(&self) -> u32 {
        self.process.child.id()
    }

    /// What it has logged so far.
    #[allow(dead_code, reason = "for tests that look for causes")]
    pub(crate) fn lines(&self) -> Vec<String> {
        self.process.stderr.wait_for(|state| Some(state.lines.clone()))
    }

    /// Waits until it logs a line with this text, after the first `skip` ones.
    #[allow(dead_code, reason = "for tests that look for causes")]
    pub(crate) fn wait_for_line(&self, skip: usize, text: &str) {
        let is_it = |line: &String| line.contains(text);
        self.process.stderr.wait_for(|state| state.lines.iter().skip(skip).any(is_it).then_some(()));
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.process.terminate();
    }

    /// Waits until it has ended; its status, and all it wrote to standard error.
    pub(crate) fn wait(self) -> (ExitStatus, Vec<String>) {
        self.process.wait()
    }

    /// Ends it and asserts that it went well: no crash in between, exit status 0.
    pub(crate) fn stop(self) {
        self.terminate();
        let (status, lines) = self.wait();
        assert!(status.success(), "{status}: {lines:#?}");
    }
}

impl Lines {
    fn fill(&self, source: impl BufRead) {
        for line in source.split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            self.state.lock().expect("nobody panics with the lock").lines.push(line);
            self.changed.notify_all();
        }
        self.state.lock().expect("nobody panics with the lock").is_ended = true;
        self.changed.notify_all();
    }

    /// Waits until `found` finds something.
    fn wait_for<T>(&self, mut found: impl FnMut(&LinesState) -> Option<T>) -> T {
        let start = Instant::now();
        let mut state = self.state.lock().expect("nobody panics with the lock");
        loop {
            // Cloned out, so that a panic in `found` does not poison the lock of the reader.
            let copy = LinesState { lines: state.lines.clone(), is_ended: state.is_ended };
            drop(state);
            if let Some(found) = found(&copy) {
                return found;
            }
            let left = DEADLINE.checked_sub(start.elapsed());
            let left =
                left.unwrap_or_else(|| panic!("the broker wrote nothing of the kind: {:#?}", copy.lines));
            state = self.state.lock().expect("nobody panics with the lock");
            if state.lines.len() == copy.lines.len() && state.is_ended == copy.is_ended {
                state = self.changed.wait_timeout(state, left).expect("nobody panics with the lock").0;
            }
        }
    }
}
