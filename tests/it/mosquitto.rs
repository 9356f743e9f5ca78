//! mosquitto_pub and mosquitto_sub: programs, so each test is a few runs of them.

use crate::DEADLINE;
use crate::broker::Broker;
use crate::tools;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

const VERSIONS: [&str; 3] = ["mqttv31", "mqttv311", "mqttv5"];

/// A running mosquitto_sub that writes `topic qos retain payload` for each message; killed when dropped.
struct Subscriber {
    child: Child,
    lines: Receiver<String>,
    /// Messages that came while something else was waited for.
    early: VecDeque<String>,
}

impl Subscriber {
    /// Starts it and waits until it has subscribed.
    fn start(broker: SocketAddr, version: &str, args: &[&str]) -> Self {
        // Its log is flushed at every line only when it does not see that it writes to a pipe.
        let mut child = command(&["stdbuf", "-oL", "mosquitto_sub"], broker, version)
            .args(["-d", "-F", "got %t %q %r %p"])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("mosquitto_sub starts");
        let source = BufReader::new(child.stdout.take().expect("standard output is piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            source.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let mut new = Self { child, lines, early: VecDeque::new() };
        loop {
            let line = new.line();
            if line.starts_with("Subscribed") {
                return new;
            }
            if line.starts_with("got ") {
                new.early.push_back(line);
            }
        }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(DEADLINE).expect("mosquitto_sub goes on")
    }

    /// The next message is this one; lines of the log are passed over.
    fn assert_receives(&mut self, topic: &str, qos: u8, retain: u8, payload: &str) {
        let got = self.early.pop_front().unwrap_or_else(|| {
            std::iter::repeat_with(|| self.line())
                .find(|line| line.starts_with("got "))
                .expect("lines do not end")
        });
        assert_eq!(got, format!("got {topic} {qos} {retain} {payload}"));
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        // Both fail only if it has ended, which is what they are for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(program: &[&str], broker: SocketAddr, version: &str) -> Command {
    let mut command = Command::new(program[0]);
    command.args(&program[1..]);
    command.args(["-h", &broker.ip().to_string(), "-p", &broker.port().to_string(), "-V", version]);
    command
}

fn publish(broker: SocketAddr, version: &str, args: &[&str]) {
    let output =
        command(&["mosquitto_pub"], broker, version).args(args).output().expect("mosquitto_pub starts");
    assert!(output.status.success(), "mosquitto_pub {args:?}: {output:?}");
}

fn on_one_and_four_shards(play: impl Fn(SocketAddr, &str)) {
    if tools::need(&tools::MOSQUITTO).is_none() {
        return;
    }
    for shards in [1, 4] {
        let broker = Broker::with_shards(shards);
        for version in VERSIONS {
            play(broker.address(), version);
        }
        broker.stop();
    }
}

#[test]
fn every_qos() {
    on_one_and_four_shards(|broker, version| {
        for subscribed in 0..=2 {
            let qos = subscribed.to_string();
            let filter = format!("{version}/qos/{qos}/#");
            let mut subscriber = Subscriber::start(broker, version, &["-q", &qos, "-t", &filter]);
            for published in 0..=2 {
                let topic = format!("{version}/qos/{qos}/x");
                publish(broker, version, &["-q", &published.to_string(), "-t", &topic, "-m", "hello there"]);
                subscriber.assert_receives(&topic, subscribed.min(published), 0, "hello there");
            }
        }
    });
}

#[test]
fn retained_and_will() {
    on_one_and_four_shards(|broker, version| {
        let kept = format!("{version}/kept/a");
        publish(broker, version, &["-q", "1", "-r", "-t", &kept, "-m", "kept"]);
        let (filter, will) = (format!("{version}/kept/+"), format!("{version}/will"));
        let mut subscriber = Subscriber::start(broker, version, &["-q", "1", "-t", &filter, "-t", &will]);
        subscriber.assert_receives(&kept, 1, 1, "kept");
        let args = ["-t", "nothing", "--will-topic", &will, "--will-qos", "1", "--will-payload", "gone"];
        drop(Subscriber::start(broker, version, &args));
        subscriber.assert_receives(&will, 1, 0, "gone");
    });
}

#[test]
fn persistent_session() {
    on_one_and_four_shards(|broker, version| {
        let (topic, id) = (format!("{version}/persistent"), format!("persistent-{version}"));
        let mut args = vec!["-q", "1", "-t", &topic, "-i", &id, "-c"];
        if version == "mqttv5" {
            args.extend(["-x", "600"]);
        }
        let mut subscriber = Subscriber::start(broker, version, &args);
        publish(broker, version, &["-q", "1", "-t", &topic, "-m", "here"]);
        subscriber.assert_receives(&topic, 1, 0, "here");
        drop(subscriber);
        publish(broker, version, &["-q", "1", "-t", &topic, "-m", "away"]);
        let mut subscriber = Subscriber::start(broker, version, &args);
        subscriber.assert_receives(&topic, 1, 0, "away");
    });
}

#[test]
fn shared_subscription() {
    on_one_and_four_shards(|broker, version| {
        let topic = format!("{version}/shared");
        let filter = format!("$share/group/{topic}");
        let mut members = [0, 1].map(|_| Subscriber::start(broker, version, &["-q", "1", "-t", &filter]));
        for _ in 0..2 {
            publish(broker, version, &["-q", "1", "-t", &topic, "-m", "x"]);
        }
        for member in &mut members {
            member.assert_receives(&topic, 1, 0, "x");
        }
    });
}
