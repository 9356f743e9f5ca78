//! Clients in other languages: a script that reads commands and writes answers, a line each, fields parted by tabs, payloads in
//! hexadecimal digits. `clients/paho_driver.py` and `clients/mqtt_js_driver.cjs` are the two ends.
//!
//! | command | answer |
//! |---|---|
//! | `connect id persistent(0/1) expiry [topic qos retain payload]` | `ok session_present(0/1)` |
//! | `subscribe filter qos` | `ok granted` |
//! | `unsubscribe filter` | `ok` |
//! | `publish topic qos retain payload` | `ok` |
//! | `receive` | `ok topic qos retain payload` |
//! | `disconnect`, `kill` | `ok` |
//! | `closed` | `ok`, or `ok reason` |
//!
//! Anything else that is answered is an error, and fails the test.

use crate::DEADLINE;
use crate::client::{Client, Connect, EXPIRY_SECS, Family, Message};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// A script, and the protocol level its client is to speak.
pub(crate) struct Script {
    /// What starts it; address, port and level are added.
    pub(crate) command: fn() -> Option<Command>,
    /// 3, 4 or 5.
    pub(crate) level: u8,
    /// Whether the library reads the reason code of a DISCONNECT that has no properties.
    pub(crate) reads_bare_reason: bool,
}

impl Family for Script {
    fn connect(&self, broker: SocketAddr, connect: &Connect<'_>) -> Box<dyn Client> {
        let mut command = (self.command)().expect("asked for before the first connection");
        command.args([broker.ip().to_string(), broker.port().to_string(), self.level.to_string()]);
        Box::new(Driver::start(command, connect))
    }

    fn level(&self) -> u8 {
        self.level
    }

    fn shown_reason(&self, reason: u8) -> Option<u8> {
        (self.level == 5).then_some(if self.reads_bare_reason { reason } else { 0 })
    }
}

/// A running script: one client.
struct Driver {
    child: Child,
    commands: ChildStdin,
    answers: Receiver<String>,
    session_present: bool,
}

impl Driver {
    fn start(mut command: Command, connect: &Connect<'_>) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the script starts");
        let commands = child.stdin.take().expect("standard input is piped");
        let source = BufReader::new(child.stdout.take().expect("standard output is piped"));
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            // Ends with the script, or with the test.
            source.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let mut new = Self { child, commands, answers, session_present: false };
        let expiry = EXPIRY_SECS.to_string();
        let mut fields = vec!["connect", connect.id, bit(connect.is_persistent), &expiry];
        let will = connect.will.as_ref().map(fields_of).unwrap_or_default();
        fields.extend(will.iter().map(String::as_str));
        new.session_present = new.ask(&fields) == ["1"];
        new
    }

    /// Sends a command; what is answered behind `ok`.
    fn ask(&mut self, fields: &[&str]) -> Vec<String> {
        writeln!(self.commands, "{}", fields.join("\t")).expect("the script reads");
        let answer = self.answers.recv_timeout(DEADLINE);
        let answer = answer.unwrap_or_else(|_| panic!("no answer to {:?}", &fields[..fields.len().min(2)]));
        let mut fields = answer.split('\t').map(str::to_owned);
        assert_eq!(fields.next().as_deref(), Some("ok"), "{answer}");
        fields.collect()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Both fail only if the script has ended, which is what they are for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Client for Driver {
    fn session_present(&self) -> bool {
        self.session_present
    }

    fn subscribe(&mut self, filter: &str, qos: u8) -> u8 {
        self.ask(&["subscribe", filter, &qos.to_string()])[0].parse().expect("a number was granted")
    }

    fn unsubscribe(&mut self, filter: &str) {
        self.ask(&["unsubscribe", filter]);
    }

    fn publish(&mut self, message: &Message) {
        let fields = fields_of(message);
        let mut command = vec!["publish"];
        command.extend(fields.iter().map(String::as_str));
        self.ask(&command);
    }

    fn receive(&mut self) -> Message {
        let fields = self.ask(&["receive"]);
        let [topic, qos, retain, payload] = &fields[..] else { panic!("not a message: {fields:?}") };
        Message {
            topic: topic.clone(),
            qos: qos.parse().expect("a QoS"),
            retain: retain == "1",
            payload: from_hex(payload),
        }
    }

    fn disconnect(mut self: Box<Self>) {
        self.ask(&["disconnect"]);
    }

    fn kill(mut self: Box<Self>) {
        self.ask(&["kill"]);
    }

    fn wait_closed(mut self: Box<Self>) -> Option<u8> {
        self.ask(&["closed"]).first().map(|reason| reason.parse().expect("a reason code"))
    }
}

fn fields_of(message: &Message) -> Vec<String> {
    let payload = message.payload.iter().map(|byte| format!("{byte:02x}")).collect();
    vec![message.topic.clone(), message.qos.to_string(), bit(message.retain).to_owned(), payload]
}

fn bit(is_set: bool) -> &'static str {
    if is_set { "1" } else { "0" }
}

fn from_hex(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("digits are ASCII"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("two digits a byte")).collect()
}
