//! Health and metrics: what they say while clients come, publish and go, and what the HTTP around them allows.

use crate::DEADLINE;
use crate::broker::{Broker, Process};
use crate::tools::{self, PROMETHEUS_PYTHON};
use crate::wire::{Wire, connect_with, packet, publish, subscribe, text};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Instant;

/// A whole response: its status, its head, its body.
pub(crate) struct Response {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

/// Sends these bytes and reads until the server closes.
fn exchange(http: SocketAddr, request: &[u8]) -> Response {
    let mut stream = TcpStream::connect(http).expect("the control thread listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a deadline can be set");
    // The server may refuse before it has read everything.
    let _ = stream.write_all(request);
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        bytes.extend_from_slice(&chunk[..count]);
    }
    let response = String::from_utf8(bytes).expect("text");
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {response}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Response { status, head: head.to_owned(), body: body.to_owned() }
}

pub(crate) fn request(http: SocketAddr, method: &str, path: &str) -> Response {
    exchange(http, format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
}

/// The samples of the metrics page, by name and labels as written.
pub(crate) fn metrics(http: SocketAddr) -> BTreeMap<String, f64> {
    let response = request(http, "GET", "/metrics");
    assert_eq!(response.status, 200, "{}", response.body);
    let samples = response.body.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a sample");
            (name.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

/// Waits until these samples have these values.
fn wait_for(http: SocketAddr, expected: &[(&str, f64)]) -> BTreeMap<String, f64> {
    let start = Instant::now();
    loop {
        let metrics = metrics(http);
        let value = |name: &str| *metrics.get(name).unwrap_or_else(|| panic!("no {name} in {metrics:#?}"));
        let wrong: Vec<_> = expected.iter().filter(|(name, wanted)| value(name) != *wanted).collect();
        if wrong.is_empty() {
            return metrics;
        }
        let shown: Vec<_> = wrong.iter().map(|(name, wanted)| (name, wanted, value(name))).collect();
        assert!(start.elapsed() < DEADLINE, "name, wanted, shown: {shown:#?}");
    }
}

fn with_http(settings: &[&str]) -> (Broker, SocketAddr) {
    let broker = Broker::start(&[&["quelea.http=0"], settings].concat());
    let http = broker.http().expect("`ready` says where");
    assert!(http.ip().is_loopback() && http.port() != 0, "{http}");
    (broker, http)
}

#[test]
fn nothing_is_served_unless_asked_for() {
    assert_eq!(Broker::with_shards(1).http(), None);
    let both = Broker::start(&["prometheus.tcp.port=0", "prometheus.tcp.ip=127.0.0.2"]);
    let http = both.http().expect("`ready` says where");
    assert_eq!(http.ip().to_string(), "127.0.0.2");
    assert_eq!(request(http, "GET", "/healthz").status, 200);
    both.stop();
}

#[test]
fn values_move_as_clients_come_publish_and_go() {
    for shards in ["quelea.shards=1", "quelea.shards=3"] {
        let (broker, http) = with_http(&[shards]);
        wait_for(http, &[("rabbitmq_connections", 0.0), ("quelea_sessions", 0.0)]);

        let mut v4 = Wire::connected(broker.address(), 4, "v4");
        let mut v5 = Wire::connected(broker.address(), 5, "v5");
        v5.send(&subscribe(5, 1, "t/#", 1));
        assert_eq!(v5.receive().map(|suback| suback.first), Some(0x90));
        v4.send(&publish(4, "t/0", b"12345"));
        v4.send(&packet(0x32, &[&text("t/1")[..], &[0, 7], b"12345"].concat()));
        assert_eq!(v4.receive().map(|puback| puback.first), Some(0x40));
        assert_eq!(v5.receive().map(|publish| publish.first), Some(0x30));
        let delivered = v5.receive().expect("the QoS 1 message");
        v4.send(&publish(4, "nobody", b""));
        let one = 1.0;
        let metrics = wait_for(
            http,
            &[
                ("rabbitmq_connections", 2.0),
                ("quelea_sockets", 2.0),
                ("quelea_clients{protocol=\"mqtt311\"}", one),
                ("quelea_clients{protocol=\"mqtt50\"}", one),
                ("rabbitmq_global_publishers{protocol=\"mqtt311\"}", one),
                ("rabbitmq_global_consumers{protocol=\"mqtt50\"}", one),
                ("quelea_messages_received_total{protocol=\"mqtt311\",qos=\"0\"}", 2.0),
                ("quelea_messages_received_total{protocol=\"mqtt311\",qos=\"1\"}", one),
                ("rabbitmq_global_messages_received_total{protocol=\"mqtt311\"}", 3.0),
                ("quelea_messages_delivered_total{protocol=\"mqtt50\",qos=\"1\"}", one),
                ("rabbitmq_global_messages_unroutable_dropped_total", one),
                ("rabbitmq_queue_messages_unacked", one),
                ("rabbitmq_queues", one),
                ("quelea_subscriptions{queue_type=\"rabbit_classic_queue\"}", one),
            ],
        );
        // PUBLISH of 12 bytes: fixed header 2, topic 5, payload 5; and one of 10.
        assert_eq!(metrics["quelea_message_bytes_received_total{protocol=\"mqtt311\",qos=\"0\"}"], 22.0);
        assert_eq!(metrics["quelea_message_bytes_received_total{protocol=\"mqtt311\",qos=\"1\"}"], 14.0);
        assert_eq!(metrics["quelea_message_bytes_delivered_total{protocol=\"mqtt50\",qos=\"1\"}"], 15.0);
        assert!(metrics["quelea_memory_bytes{owner=\"receive_buffers\"}"] > 0.0);
        assert!(metrics["rabbitmq_process_resident_memory_bytes"] > 1e6);

        let topic_len = 2 + usize::from(delivered.body[1]);
        v5.send(&packet(0x40, &delivered.body[topic_len..topic_len + 2]));
        wait_for(
            http,
            &[
                ("rabbitmq_queue_messages_unacked", 0.0),
                (
                    "rabbitmq_global_messages_acknowledged_total{protocol=\"mqtt50\",queue_type=\"rabbit_classic_queue\"}",
                    one,
                ),
            ],
        );

        all_go(&broker, http, v4, v5);
        broker.stop();
    }
}

/// One says goodbye, one does not, and two are not let in.
fn all_go(broker: &Broker, http: SocketAddr, mut v4: Wire, v5: Wire) {
    let one = 1.0;
    v4.send(&[0xE0, 0]);
    v4.assert_closed();
    drop(v5);
    let mut stranger = Wire::open(broker.address());
    stranger.send(b"GET / HTTP/1.1\r\n\r\n");
    stranger.assert_closed();
    let mut intruder = Wire::open(broker.address());
    intruder.send(&connect_with(4, "x", 0xC2, &[text("guest"), text("wrong")].concat()));
    assert_eq!(intruder.receive().map(|connack| connack.body[1]), Some(4));
    intruder.assert_closed();
    wait_for(
        http,
        &[
            ("rabbitmq_connections", 0.0),
            ("quelea_sockets", 0.0),
            ("quelea_sessions", 0.0),
            ("rabbitmq_connections_closed_total", 2.0),
            ("quelea_connections_closed_total{cause=\"disconnect\"}", one),
            ("quelea_connections_closed_total{cause=\"lost\"}", one),
            ("quelea_connections_refused_total{cause=\"not_mqtt\"}", one),
            ("quelea_connections_refused_total{cause=\"bad_credentials\"}", one),
            ("rabbitmq_auth_attempts_failed_total{protocol=\"mqtt\"}", one),
            ("quelea_sockets_accepted_total", 4.0),
        ],
    );
}

/// The parsers of others take the pages.
#[test]
fn others_can_read_the_pages() {
    const SCRIPT: &str = r#"
import json, sys
from prometheus_client.parser import text_string_to_metric_families
page, status = sys.stdin.read().split("\0")
families = list(text_string_to_metric_families(page))
names = [family.name for family in families]
assert len(set(names)) == len(names), "a family twice"
assert all(family.documentation and family.type != "unknown" and family.samples for family in families)
samples = [(sample.name, tuple(sorted(sample.labels.items()))) for family in families for sample in family.samples]
assert len(set(samples)) == len(samples), "a sample twice"
lag = next(family for family in families if family.name == "quelea_loop_lag_seconds")
counts = [sample.value for sample in lag.samples if sample.name.endswith("_bucket")]
assert counts == sorted(counts) and lag.samples[-1].value == counts[-1] > 0
status = json.loads(status)
assert status["status"] == "ok" and [shard["id"] for shard in status["shards"]] == [0, 1], status
print(len(families))
"#;
    let Some(python) = tools::need(&PROMETHEUS_PYTHON) else { return };
    let (broker, http) = with_http(&["quelea.shards=2"]);
    assert_eq!(request(http, "GET", "/healthz").status, 200);
    let page = request(http, "GET", "/metrics");
    assert!(page.head.contains("text/plain; version=0.0.4"), "{}", page.head);
    let status = request(http, "GET", "/status");
    let mut child = Command::new(python)
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python starts");
    let input = format!("{}\0{}", page.body, status.body);
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("python reads");
    let output = child.wait_with_output().expect("python ends");
    assert!(output.status.success(), "{}", page.body);
    let families: usize = String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number");
    assert!(families > 50, "{families}");
    broker.stop();
}

/// One thread of the broker is held still, as a tracer can; the others go on.
#[test]
fn health_names_a_shard_that_stalls() {
    let (broker, http) = with_http(&["quelea.shards=2"]);
    assert_eq!(request(http, "GET", "/healthz").status, 200);
    let before = metrics(http);
    let thread = thread_of(broker.process_id(), "shard-1");
    if let Err(error) = ptrace::seize(thread, ptrace::Options::empty()) {
        let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!is_ci, "a thread cannot be traced here: {error}");
        return;
    }
    ptrace::interrupt(thread).expect("a traced thread can be stopped");
    waitpid(thread, Some(WaitPidFlag::__WALL)).expect("it stops");

    let start = Instant::now();
    let sick = request(http, "GET", "/healthz");
    assert_eq!(sick.status, 503, "{}", sick.body);
    assert!(
        sick.body.contains("shard 1 has not answered for") && !sick.body.contains("shard 0"),
        "{}",
        sick.body
    );
    assert!(start.elapsed().as_secs() < 10, "health does not wait for the shard");
    let stale = metrics(http);
    assert_eq!(stale["quelea_shards_silent"], 1.0);
    let total = "quelea_sockets_accepted_total";
    assert!(stale[total] >= before[total], "what a silent shard has counted is not forgotten");

    ptrace::detach(thread, None).expect("it goes on");
    let start = Instant::now();
    while request(http, "GET", "/healthz").status != 200 {
        assert!(start.elapsed() < DEADLINE, "health comes back with the shard");
    }
    broker.stop();
}

fn thread_of(process: u32, name: &str) -> Pid {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("a running process has threads");
    let is_it = |path: &std::path::PathBuf| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name)
    };
    let task = tasks.filter_map(|task| Some(task.ok()?.path())).find(is_it).expect("the thread exists");
    let number = task.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
    Pid::from_raw(number.expect("threads have numbers"))
}

#[test]
fn a_taken_http_port_is_named() {
    let (broker, http) = with_http(&[]);
    for (settings, key) in [
        (vec![format!("--set=quelea.http={http}")], "quelea.http"),
        (vec![format!("--set=prometheus.tcp.port={}", http.port())], "prometheus.tcp.port"),
    ] {
        let mut args = vec!["--set=mqtt.listeners.tcp.default=127.0.0.1:0"];
        args.extend(settings.iter().map(String::as_str));
        let (status, lines) = Process::start(&args).wait();
        assert_eq!(status.code(), Some(1), "{lines:#?}");
        let is_named = |line: &String| line.contains(&http.to_string()) && line.contains(key);
        assert!(lines.iter().any(is_named), "{lines:#?}");
        assert!(!lines.iter().any(|line| line.starts_with("ready ")), "{lines:#?}");
    }
    broker.stop();
}

#[test]
fn http_is_bounded() {
    let (broker, http) = with_http(&[]);
    assert_eq!(request(http, "GET", "/").status, 404);
    assert_eq!(request(http, "POST", "/nothing").status, 404);
    let refused = request(http, "POST", "/metrics");
    assert_eq!(refused.status, 405);
    assert!(refused.head.to_ascii_lowercase().contains("allow: get,head"), "{}", refused.head);
    let head = request(http, "HEAD", "/metrics");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let long = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "a".repeat(64 << 10));
    assert_eq!(exchange(http, long.as_bytes()).status, 431);
    let body = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n\r\n12345";
    assert_eq!(exchange(http, body.as_bytes()).status, 413);
    assert_eq!(exchange(http, b"nonsense\r\n\r\n").status, 400);

    let head = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nA: \r\n\r\n";
    let full = head.replace("A: ", &format!("A: {}", "a".repeat((16 << 10) - head.len())));
    assert_eq!((full.len(), exchange(http, full.as_bytes()).status), (16 << 10, 200));

    // As many silent connections as are served at once: the next one waits until they have had their time.
    let mut silent: Vec<_> = (0..31).map(|_| TcpStream::connect(http).expect("accepted")).collect();
    let start = Instant::now();
    assert_eq!(request(http, "GET", "/healthz").status, 200);
    assert!(start.elapsed().as_secs() < 5, "one less is not too many");
    let waiting = "32 connections to the health and metrics pages are open";
    assert!(!broker.lines().iter().any(|line| line.contains(waiting)));
    silent.push(TcpStream::connect(http).expect("accepted"));
    assert_eq!(request(http, "GET", "/healthz").status, 200);
    broker.wait_for_line(0, waiting);
    for mut stream in silent {
        let _ = stream.read(&mut [0; 1024]).expect("closed");
    }
    broker.stop();
}
