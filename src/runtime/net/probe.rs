//! Start-up checks, by doing: what the broker needs of this machine is tried, and what is missing is named together with the
//! setting that mends it.

use super::{Completion, Descriptor, Ended, NetRing, ReceiveBuffers, RingOptions};
use crate::base::ConnectionId;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

/// Direct descriptors and ordinary ones the broker cannot do with less than.
const DESCRIPTORS_MIN: u64 = 128;
/// Glommio locks this much memory an executor, or refuses to start.
const LOCKED_MEMORY_MIN: u64 = 512 << 10;
/// How long one step of the trial may take; on loopback it takes microseconds.
const STEP_MAX: Duration = Duration::from_secs(5);

/// Why the broker cannot run here, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// `io_uring_setup` is not there.
    #[error(
        "this kernel has no io_uring, or a seccomp filter hides it: Linux 6.1 or newer is needed; in a container allow \
        io_uring_setup, io_uring_enter and io_uring_register (for example `--security-opt seccomp=unconfined`)"
    )]
    NoUring,
    /// `kernel.io_uring_disabled` is 1 or 2.
    #[error(
        "io_uring is switched off (kernel.io_uring_disabled = {0}): run `sysctl -w kernel.io_uring_disabled=0`"
    )]
    Disabled(u8),
    /// A seccomp filter or security module says no.
    #[error(
        "io_uring is forbidden to this process: in a container allow io_uring_setup, io_uring_enter and \
        io_uring_register in the seccomp profile (for example `--security-opt seccomp=unconfined`)"
    )]
    Forbidden,
    /// Set-up flags or operations are unknown to the kernel.
    #[error("this kernel's io_uring lacks {what} ({error}): Linux 6.1 or newer is needed")]
    Lacks {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        error: Errno,
    },
    /// Memory for rings could not be had.
    #[error(
        "no memory for io_uring rings: raise the locked-memory limit (`ulimit -l unlimited`, systemd \
        `LimitMEMLOCK=infinity`) or the memory limit of the control group"
    )]
    NoMemory,
    /// `RLIMIT_MEMLOCK` is too small.
    #[error(
        "the locked-memory limit is {limit} bytes, at least {LOCKED_MEMORY_MIN} are needed: `ulimit -l 8192`, systemd \
        `LimitMEMLOCK=8M`, docker `--ulimit memlock=8388608`"
    )]
    LockedMemory {
        /// The hard limit.
        limit: u64,
    },
    /// `RLIMIT_NOFILE` is too small.
    #[error(
        "the descriptor limit is {limit}, at least {DESCRIPTORS_MIN} are needed: `ulimit -n 1048576`, systemd \
        `LimitNOFILE=1048576`, docker `--ulimit nofile=1048576`"
    )]
    Descriptors {
        /// The hard limit.
        limit: u64,
    },
    /// Something unexpected, in the words of the system.
    #[error("the network trial failed at {what}: {error}")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        error: io::Error,
    },
}

/// The limits the broker runs under, after raising them as far as is allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// `RLIMIT_NOFILE`: bounds the descriptor table of the process and that of each ring, separately.
    pub descriptors: u64,
}

/// Raises the soft limits to the hard ones and tries everything the rings need.
///
/// # Errors
/// The first thing that is missing.
pub fn probe() -> Result<Limits, Unfit> {
    let descriptors = raised(Resource::RLIMIT_NOFILE)?;
    if descriptors < DESCRIPTORS_MIN {
        return Err(Unfit::Descriptors { limit: descriptors });
    }
    let locked = raised(Resource::RLIMIT_MEMLOCK)?;
    if locked < LOCKED_MEMORY_MIN {
        return Err(Unfit::LockedMemory { limit: locked });
    }
    Trial::new()?.run()?;
    Ok(Limits { descriptors })
}

fn raised(resource: Resource) -> Result<u64, Unfit> {
    let failed = |error: Errno| Unfit::Failed { what: "reading limits", error: error.into() };
    let (soft, hard) = getrlimit(resource).map_err(failed)?;
    if soft < hard && setrlimit(resource, hard, hard).is_ok() { Ok(hard) } else { Ok(soft) }
}

/// Two rings, a listener and a client.
struct Trial {
    rings: [NetRing; 2],
    listener: TcpListener,
    client: TcpStream,
}

const CONNECTION: ConnectionId = ConnectionId { slot: 0, generation: 0 };

impl Trial {
    fn new() -> Result<Self, Unfit> {
        let options = RingOptions { submissions: 8, completions: 16, descriptors: 8 };
        let ring = || {
            let (buffers, tokens) = ReceiveBuffers::new(4, 256);
            let mut ring = NetRing::new(options, buffers).map_err(|error| unfit(&error))?;
            tokens.into_iter().for_each(|token| ring.publish(token));
            Ok(ring)
        };
        let rings = [ring()?, ring()?];
        let failed = |error| Unfit::Failed { what: "a loopback connection", error };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        let client = TcpStream::connect(listener.local_addr().map_err(failed)?).map_err(failed)?;
        Ok(Self { rings, listener, client })
    }

    /// Accept into a direct descriptor, hand it over, receive there by multishot from provided buffers, twice.
    fn run(mut self) -> Result<(), Unfit> {
        self.rings[0].accept(0, &self.listener);
        let accepted = match self.step(0, "accept into direct descriptors")? {
            Completion::Accepted { descriptor, .. } => Ok(descriptor),
            Completion::AcceptFailed { error, .. } => Err(error),
            _ => Err(Errno::EPROTO),
        };
        let accepted = accepted.map_err(lacks("accept into direct descriptors"))?;
        let moved = self.hand_over(accepted).map_err(lacks("handing a descriptor to another ring"))?;
        self.rings[0].close(accepted);
        self.rings[1].adopt(moved);
        self.rings[1].receive_multishot(CONNECTION, moved);
        for _ in 0..2 {
            let sent = self.client.write_all(b"quelea");
            sent.map_err(|error| Unfit::Failed { what: "a loopback connection", error })?;
            match self.step(1, "multishot receive from a buffer ring")? {
                Completion::Received { buffer, last: false, .. } => self.rings[1].publish(buffer),
                Completion::ReceiveEnded { ended: Ended::Failed(error), .. } => {
                    return Err(lacks("multishot receive from a buffer ring")(error));
                }
                _ => return Err(lacks("multishot receive from a buffer ring")(Errno::EPROTO)),
            }
        }
        Ok(())
    }

    fn hand_over(&mut self, descriptor: Descriptor) -> Result<Descriptor, Errno> {
        let to = self.rings[1].ring_fd();
        self.rings[0].hand_over(CONNECTION, descriptor, to);
        match self.step(0, "hand-over") {
            Ok(Completion::HandedOver { result, .. }) => result,
            _ => Err(Errno::EPROTO),
        }
    }

    /// The next completion of one ring. Both are entered: the second one does work for the first.
    fn step(&mut self, ring: usize, what: &'static str) -> Result<Completion, Unfit> {
        let failed = |error| Unfit::Failed { what, error };
        let mut completions = Vec::new();
        self.rings[1 - ring].submit().map_err(failed)?;
        self.rings[ring].wait(Some(STEP_MAX)).map_err(failed)?;
        self.rings[ring].reap(&mut completions);
        let late = || failed(io::Error::from(io::ErrorKind::TimedOut));
        completions.into_iter().next().ok_or_else(late)
    }
}

fn lacks(what: &'static str) -> impl Fn(Errno) -> Unfit {
    move |error| Unfit::Lacks { what, error }
}

/// What a failed ring set-up means.
fn unfit(error: &io::Error) -> Unfit {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let disabled = disabled.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    explain(Errno::from_raw(error.raw_os_error().unwrap_or_default()), disabled)
}

fn explain(error: Errno, disabled: u8) -> Unfit {
    match error {
        Errno::ENOSYS => Unfit::NoUring,
        Errno::EPERM | Errno::EACCES if disabled > 0 => Unfit::Disabled(disabled),
        Errno::EPERM | Errno::EACCES => Unfit::Forbidden,
        Errno::ENOMEM => Unfit::NoMemory,
        Errno::EMFILE => Unfit::Descriptors { limit: 0 },
        error => Unfit::Lacks { what: "DEFER_TASKRUN rings, sparse file tables or buffer rings", error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_fit() {
        let limits = probe().unwrap();
        assert!(limits.descriptors >= DESCRIPTORS_MIN);
    }

    #[test]
    fn each_failure_names_its_fix() {
        let cases = [
            (Errno::ENOSYS, 0, "Linux 6.1"),
            (Errno::EPERM, 2, "kernel.io_uring_disabled=0"),
            (Errno::EPERM, 0, "seccomp"),
            (Errno::ENOMEM, 0, "ulimit -l"),
            (Errno::EINVAL, 0, "Linux 6.1"),
        ];
        for (error, disabled, fix) in cases {
            let text = explain(error, disabled).to_string();
            assert!(text.contains(fix), "{error}: {text}");
        }
        assert!(Unfit::Descriptors { limit: 64 }.to_string().contains("LimitNOFILE"));
        assert!(Unfit::LockedMemory { limit: 65_536 }.to_string().contains("LimitMEMLOCK"));
    }
}
