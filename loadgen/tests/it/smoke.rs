//! Every scenario against the real broker of this repository: no promise is broken.

use crate::run::run;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

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
        &format!("topics --clients 20 --filters 5000 --wildcards 10 {short} --threads 2"),
        &format!("topics --clients 6 --filters 3 --wildcards 100 --rate 2000 {short} --protocol 5.0"),
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

/// Every case runs, goals are judged, and a row that nobody can be measured in does not end it.
#[test]
fn the_full_suite_judges_its_goals() {
    let broker = Broker::start(1);
    let folder = broker.folder.clone();
    let [json, markdown] = ["full.json", "full.md"].map(|name| folder.join(name).display().to_string());
    let output = Command::new(env!("CARGO_BIN_EXE_quelea-loadgen"))
        .args([
            "compare",
            "full",
            "--rounds=1",
            "--secs=0.2",
            "--only=5,000/s QoS 0",
            "--only=idle clients with a QoS 0",
        ])
        .args(["--only=one in flight", "--idle-clients=50", "--many-clients=100", "--args=--warmup 0"])
        .arg(format!("--target=quelea={}", broker.address))
        .arg(format!("--pid=quelea={}", broker.child.id()))
        .args(["--shards=quelea=1", "--about=quelea=the one under test", "--target=mosquitto=127.0.0.1:1"])
        .args(["--json", &json, "--markdown", &markdown])
        .output()
        .expect("the binary under test starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "a broker that is not there is a result: {output:?}");
    assert_eq!(std::fs::read_to_string(markdown).unwrap(), text);
    for line in [
        "- quelea: the one under test",
        "| **100 idle clients with a QoS 0 subscription** | exact | - |",
        "| **open loop 5,000/s QoS 0** | exact",
        "| echo floor: ",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert!(report["machine"]["cores"].as_u64() > Some(0), "{report}");
    let goals: Vec<&serde_json::Value> = report["cases"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|case| case["goals"].as_array().unwrap())
        .collect();
    let judged = goals.iter().filter(|goal| goal["met"].is_boolean()).count();
    // Bytes and connects of idle clients, CPU of pairs over the floor and of topics over pairs; not what compares with who is not there.
    assert_eq!((goals.len(), judged), (7, 4), "{goals:?}");
}

/// The million, with few: all of its goals but those that need many.
#[test]
fn many_are_held_written_to_and_dropped() {
    let broker = Broker::start(2);
    let pid = broker.child.id();
    let run = run(
        broker.address,
        &format!(
            "million --clients 400 --source 127.0.0.2-127.0.0.5 --keep-alive 1 --hold 3 --share 10 --settle 2 --broker-pid {pid}"
        ),
    );
    assert_eq!((run.code, run.verdict()), (0, "exact"), "{}", run.report);
    let after = &run.report["after"];
    assert_eq!((&after["written"], &after["heard"]), (&40.into(), &40.into()), "{after}");
    // A keep alive of a second for three: at least two pings each, and the question at the end.
    assert!(after["pings_answered"].as_u64() >= Some(3 * 400), "{after}");
    assert!(after["drop_secs"].as_f64() < Some(10.0), "{after}");
    assert!(!after["broker_rss"].as_array().unwrap().is_empty(), "{after}");
    let witness = &after["witness"];
    assert_eq!(witness["published"], witness["received"], "{after}");
    assert!(witness["latency_us_meanwhile"]["count"].as_u64() > Some(0), "{after}");
    let met: Vec<bool> =
        run.report["goals"].as_array().unwrap().iter().map(|goal| goal["met"].as_bool().unwrap()).collect();
    assert_eq!(met[..3], [true; 3], "{}", run.report["goals"]);
}

/// A broker that is gone before the end has broken its promises, and has not given its memory back: that is a result, not an impossible request.
#[test]
fn a_broker_that_dies_while_many_are_held_is_judged() {
    let mut broker = Broker::start(1);
    let (address, pid) = (broker.address, broker.child.id());
    let args = format!("million --clients 40 --source 127.0.0.2 --hold 50 --settle 1 --broker-pid {pid}");
    let run = std::thread::scope(|scope| {
        let run = scope.spawn(|| run(address, &args));
        // The kernel holds a socket for each, on both ends, and has for a second: all have subscribed.
        let mut looks = 0;
        while looks < 50 && !run.is_finished() {
            looks = if established(address.port()) < 80 { 0 } else { looks + 1 };
            std::thread::park_timeout(Duration::from_millis(20));
        }
        broker.child.kill().expect("it runs");
        broker.child.wait().expect("it ends");
        run.join().expect("it ends by itself")
    });
    assert_eq!((run.code, run.verdict()), (1, "broken"), "{}", run.report);
    assert_eq!(run.lost_connections(), 40, "{}", run.broken());
    for broken in ["who writes to clients: ", "the witness: "] {
        assert!(run.broken().contains(broken), "{broken}: {}", run.broken());
    }
    assert!(run.report["after"]["back_secs"].is_null(), "{}", run.report["after"]);
    assert!(run.report["goals"].as_array().unwrap().iter().skip(4).all(|goal| goal["met"] == false));
}

/// Ends of connections to or from this port of this machine that are established.
fn established(port: u16) -> usize {
    let port = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").expect("readable");
    let is_one = |line: &&str| {
        let mut words = line.split_whitespace().skip(1);
        let ends = [words.next(), words.next()];
        words.next() == Some("01") && ends.into_iter().flatten().any(|end| end.ends_with(&port))
    };
    table.lines().filter(is_one).count()
}

/// Everything small: what is a point is drawn.
#[test]
fn growth_is_drawn() {
    let broker = Broker::start(1);
    let svg = broker.folder.join("growth.svg");
    let output = Command::new(env!("CARGO_BIN_EXE_quelea-loadgen"))
        .args(["compare", "growth", "--rounds=1", "--secs=0.5", "--many-clients=40", "--args=--warmup 0"])
        .args(["--only=idle clients", "--only=filters"])
        .arg(format!("--target=one shard=127.0.0.1:{}", broker.address.port()))
        .arg(format!("--pid=one shard={}", broker.child.id()))
        .args(["--quiet", "--json=-"])
        .arg("--svg")
        .arg(&svg)
        .output()
        .expect("the binary under test starts");
    assert!(output.status.success(), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("nothing but the report");
    assert_eq!((&report["suite"], output.stderr.len()), (&"growth".into(), 0), "{output:?}");
    let svg = std::fs::read_to_string(svg).expect("it was written");
    // One for idle clients, and one for each number of filters, unless the machine was so busy that nothing was delivered in so short a time.
    assert!((2..=5).contains(&svg.matches("<circle").count()), "{svg}");
    assert!(
        svg.contains("one shard</text>") && svg.contains("idle client, one subscription each</text>"),
        "{svg}"
    );
}
