//! What a run with `--leave` writes down, so that another process, perhaps after a power cut, can judge what the sessions get.

use super::args::DurableArgs;
use super::terms::Terms;
use super::world::World;
use crate::args::Protocol;
use crate::judge::Lane;
use crate::output::write_file;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::path::Path;

/// The file's meaning; another one is not read.
const VERSION: u64 = 1;

/// What was left.
#[derive(Debug)]
pub struct Left {
    pub run: u32,
    sessions: u32,
    fan: u32,
    publishers: u32,
    qos: u8,
    sub_qos: u8,
    size: usize,
    protocol: u8,
    /// For each lane how many were published, and which of these nobody answers for.
    lanes: Vec<Lane>,
}

impl Left {
    /// Writes down what is due.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(path: &Path, terms: &Terms, world: &World) -> Result<()> {
        let uncertain: Vec<Value> = (0_u32..)
            .zip(&world.lanes)
            .filter(|(_, lane)| !lane.uncertain.is_empty())
            .map(|(number, lane)| json!([number, lane.uncertain]))
            .collect();
        let text = json!({
            "version": VERSION,
            "run": terms.run,
            "sessions": terms.sessions,
            "fan": terms.fan,
            "publishers": terms.publishers,
            "qos": terms.qos.bits(),
            "sub_qos": terms.sub_qos.bits(),
            "size": terms.size,
            "protocol_level": terms.persistent.version.level(),
            "published": world.lanes.iter().map(|lane| lane.published).collect::<Vec<_>>(),
            "uncertain": uncertain,
        });
        write_file(path, &text.to_string())
    }

    /// Reads what was left.
    ///
    /// # Errors
    /// If it is no such file.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
        let value: Value = serde_json::from_str(&text).with_context(|| format!("{name} is no JSON"))?;
        Self::parse(&value).with_context(|| format!("{name} was not written by --leave"))
    }

    fn parse(value: &Value) -> Option<Self> {
        let number = |name: &str| value[name].as_u64();
        let small = |name: &str| number(name).and_then(|number| u32::try_from(number).ok());
        let byte = |name: &str| number(name).and_then(|number| u8::try_from(number).ok());
        if number("version")? != VERSION {
            return None;
        }
        let published = value["published"].as_array()?;
        let mut lanes = Vec::with_capacity(published.len());
        for count in published {
            lanes.push(Lane { published: count.as_u64()?, ..Lane::default() });
        }
        for entry in value["uncertain"].as_array()? {
            let lane = lanes.get_mut(usize::try_from(entry[0].as_u64()?).ok()?)?;
            lane.uncertain = entry[1].as_array()?.iter().map(Value::as_u64).collect::<Option<_>>()?;
        }
        Some(Self {
            run: small("run")?,
            sessions: small("sessions")?,
            fan: small("fan").filter(|&fan| fan > 0)?,
            publishers: small("publishers").filter(|&publishers| publishers > 0)?,
            qos: byte("qos")?,
            sub_qos: byte("sub_qos")?,
            size: usize::try_from(number("size")?).ok()?,
            protocol: byte("protocol_level")?,
            lanes,
        })
    }

    /// The arguments of the run that goes on: what was decided then holds.
    pub fn adapt(&self, args: &DurableArgs) -> DurableArgs {
        let protocol = match self.protocol {
            3 => Protocol::V310,
            4 => Protocol::V311,
            _ => Protocol::V5,
        };
        DurableArgs {
            sessions: self.sessions,
            fan: self.fan,
            publishers: self.publishers,
            qos: self.qos,
            sub_qos: Some(self.sub_qos),
            size: self.size,
            protocol,
            online: 0,
            retained: 0,
            changing: 0,
            churn: 0.0,
            ..args.clone()
        }
    }

    /// The publishers of each group, as they were.
    pub fn lanes(&self) -> Vec<Vec<u32>> {
        Terms::lanes(self.sessions.div_ceil(self.fan), self.publishers)
    }

    /// What is due, in place of nothing.
    ///
    /// # Errors
    /// If the numbers do not go together.
    pub fn restore(self, world: &mut World) -> Result<()> {
        ensure!(
            self.lanes.len() == world.lanes.len(),
            "{} lanes for {} sessions",
            self.lanes.len(),
            self.sessions
        );
        world.lanes = self.lanes;
        Ok(())
    }
}
