//! Every client family plays every scenario, against one shard and against four.

use crate::broker::Broker;
use crate::client::{Connect, Family, Message};
use crate::driver::Script;
use crate::rumqtt;
use crate::scenarios::Stage;
use crate::tools;
use std::path::Path;
use std::process::Command;

fn play(family: &dyn Family, shards: u16) {
    let broker = Broker::with_shards(shards);
    Stage { family, broker: broker.address() }.play_all();
    broker.stop();
}

/// paho-mqtt in this protocol level; `None` if Python or the package is missing.
fn paho(level: u8) -> Option<Script> {
    fn command() -> Option<Command> {
        let mut command = Command::new(tools::need(&tools::PAHO_PYTHON)?);
        command.arg(clients().join("paho_driver.py"));
        Some(command)
    }
    command().map(|_| Script { command, level, reads_bare_reason: false })
}

/// mqtt.js in this protocol level; `None` if Node or the package is missing.
fn mqtt_js(level: u8) -> Option<Script> {
    fn command() -> Option<Command> {
        let mut command = Command::new("node");
        command
            .env("NODE_PATH", tools::need(&tools::MQTT_JS_FOLDER)?)
            .arg(clients().join("mqtt_js_driver.cjs"));
        Some(command)
    }
    command().map(|_| Script { command, level, reads_bare_reason: true })
}

fn clients() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/clients"))
}

macro_rules! families {
    ($($name:ident: $family:expr;)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn on_one_shard() {
                if let Some(family) = $family { play(&family, 1); }
            }

            #[test]
            fn on_four_shards() {
                if let Some(family) = $family { play(&family, 4); }
            }
        }
    )*};
}

families! {
    rumqttc_v311: Some(rumqtt::V4);
    rumqttc_v5: Some(rumqtt::V5);
    paho_v31: paho(3);
    paho_v311: paho(4);
    paho_v5: paho(5);
    mqtt_js_v31: mqtt_js(3);
    mqtt_js_v311: mqtt_js(4);
    mqtt_js_v5: mqtt_js(5);
}

/// A paho-mqtt publisher reaches subscribers of every other family and version.
#[test]
fn families_understand_each_other() {
    let Some(publisher) = paho(4) else { return };
    let broker = Broker::with_shards(4);
    let scripts = [mqtt_js(3), mqtt_js(4), mqtt_js(5), paho(3), paho(5)].into_iter().flatten();
    let mut families: Vec<Box<dyn Family>> = vec![Box::new(rumqtt::V4), Box::new(rumqtt::V5)];
    families.extend(scripts.map(|script| Box::new(script) as Box<dyn Family>));
    let mut subscribers = Vec::new();
    for (index, family) in families.iter().enumerate() {
        let mut subscriber =
            family.connect(broker.address(), &Connect::clean(&format!("subscriber-{index}")));
        subscriber.subscribe("myhome/livingroom/#", 2);
        subscribers.push(subscriber);
    }
    let mut publisher = publisher.connect(broker.address(), &Connect::clean("publisher"));
    for qos in 0..=2 {
        let message = Message::new("myhome/livingroom/temperature/sensor1", qos, r#"{"celsius": 21.5}"#);
        publisher.publish(&message);
        for subscriber in &mut subscribers {
            assert_eq!(subscriber.receive(), message);
        }
    }
    broker.stop();
}
