//! Every scenario against the real broker of this repository: no promise is broken.

use crate::run::run;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A running broker; killed when dropped.
struct Broker {
    child: Child,
    address: SocketAddr,
    folder: PathBuf,
}

impl Broker {
    fn start(shards: u16) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("loadgen-{}-{number}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&folder).expect("a folder under target/ can be made");
        let mut child = Command::new(binary())
            .args(["--set=mqtt.listeners.tcp.default=127.0.0.1:0", "--set=quelea.data_dir=data"])
            .arg(format!("--set=quelea.shards={shards}"))
            .current_dir(&folder)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the broker starts");
        let mut lines = BufReader::new(child.stderr.take().expect("standard error is piped")).lines();
        let ready =
            lines.find_map(|line| line.ok().filter(|line| line.starts_with("ready "))).expect("it is ready");
        let address = ready.split(' ').find_map(|field| field.strip_prefix("mqtt=")).expect("it says where");
        let address = address.parse().expect("an address and a port");
        // A broker that dies says why: the test's output shows it.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("broker: {line}")));
        Self { child, address, folder }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The broker's binary stands beside the one under test; it is built if nobody has yet.
fn binary() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_quelea-loadgen")).with_file_name("quelea");
    if !path.exists() {
        let status = Command::new(env!("CARGO")).args(["build", "--workspace", "--bin", "quelea"]).status();
        assert!(status.expect("cargo is there").success(), "the broker does not build");
    }
    path
}

#[test]
fn the_real_broker_keeps_its_promises() {
    let broker = Broker::start(2);
    let pid = broker.child.id();
    let short = "--secs 0.3 --warmup 0.1";
    for args in [
        "conn --clients 500 --subscribe --sub-qos 1 --secs 0.2",
        "conn --clients 200 --source 127.0.0.2-127.0.0.9 --connect-rate 2000 --secs 0.1 --protocol 5.0",
        &format!("pair --clients 20 {short} --threads 2"),
        &format!("pair --clients 20 {short} --qos 1 --protocol 5.0"),
        &format!("pair --clients 20 {short} --qos 2"),
        &format!("pair --clients 20 {short} --qos 2 --sub-qos 1 --protocol 3.1"),
        &format!("pair --clients 20 {short} --qos 1 --rate 2000"),
        &format!("pair --clients 4 {short} --size 100000 --qos 1"),
        &format!("fanin --clients 21 {short} --qos 1 --threads 2"),
        &format!("fanin --clients 22 --subscribers 2 {short}"),
        &format!("fanout --clients 51 {short} --threads 2"),
        &format!("fanout --clients 51 {short} --qos 1 --rate 50"),
    ] {
        // Looking at the broker's memory afterwards takes a second.
        let cost = if args.contains("--subscribe ") { format!("--broker-pid {pid}") } else { String::new() };
        let run = run(broker.address, &format!("{args} --strict {cost}"));
        assert_eq!((run.code, run.verdict()), (0, "exact"), "{args}: {}", run.report);
        let clients = &run.report["clients"];
        assert_eq!(clients["ready"], clients["wanted"], "{args}");
        if args.starts_with("conn") {
            assert_eq!(clients["alive"], clients["wanted"], "{args}");
        } else {
            // On a busy machine all of it may fall outside of the measured time: latencies are asked for elsewhere.
            assert!(run.count("received") > 0, "{args}: {}", run.report);
        }
        let rss = run.report["memory"]["peak"]["broker_rss"].as_u64();
        assert_eq!(rss.is_some_and(|rss| rss > 1 << 20), !cost.is_empty(), "{args}: {}", run.report);
    }
}

/// Without a restart: sessions that are away, that come and go, and everything that changes.
#[test]
fn the_real_broker_keeps_sessions() {
    let broker = Broker::start(2);
    for args in [
        "--sessions 20 --qos 1",
        "--sessions 12 --fan 3 --online 6 --churn 30 --qos 2 --retained 6 --changing 4 --protocol 5.0",
        "--sessions 10 --online 10 --publishers 10 --window 1 --size 1024",
    ] {
        let run = run(broker.address, &format!("durable --secs 0.4 --warmup 0.1 {args}"));
        assert_eq!(run.code, 0, "{args}: {}", run.report);
        assert!(run.count("due") > 0 && run.count("received") >= run.count("due"), "{args}: {}", run.report);
    }
}

/// What makes it one is tested where it is decided: no run can be made to be late on every machine.
#[test]
fn a_generator_with_nothing_to_do_was_not_the_limit() {
    let broker = Broker::start(1);
    let run = run(broker.address, "conn --clients 10 --secs 0.3");
    let generator = &run.report["generator"];
    assert_eq!(generator["was_bottleneck"], false, "{generator}");
    assert_eq!(generator["bottleneck"].to_string(), "[]");
}
