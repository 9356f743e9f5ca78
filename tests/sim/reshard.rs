//! Another number of shards at a start: what is on the disks goes to others, by the broker's own rules.
//!
//! A crash in between is not simulated: until all is moved the old disks are as they were.

use crate::crash::recover;
use crate::disk::Drive;
use crate::world::World;
use quelea::base::HashKey;
use quelea::log::Log;
use quelea::shard::durable::Rehoming;

impl World {
    /// Moves everything to as many disks as there are shards.
    pub(crate) fn rehome(&mut self) -> Result<(), String> {
        let (before, now) = (self.drives.len(), self.shards.len());
        self.note(format_args!("{before} disks go to {now}"));
        self.oracle.moves += 1;
        let starts = self.crashes.len() as u64;
        let tags = HashKey { k0: self.key.k0 ^ starts, k1: self.key.k1 ^ u64::MAX };
        let count = |count: usize| u16::try_from(count).expect("a few shards");
        let mut rehoming = Rehoming::new(self.key, tags, count(before), count(now), &self.swarm.options.log);
        for shard in 0..before {
            let recovery = self.recovery(shard);
            let recovered = recover(recovery, &mut self.drives[shard])?;
            self.check_damage(shard, &recovered.report)?;
            let drive = &self.drives[shard];
            rehoming.begin(count(shard));
            let streams = recovered.streams.iter().try_for_each(|stream| rehoming.take_stream(stream));
            let states = recovered.states.iter().try_for_each(|state| rehoming.take_state(state));
            streams.and(states).map_err(|refused| refused.to_string())?;
            for place in recovered.log.places() {
                let bytes = drive.bytes(place.segment, place.offset, place.size);
                let whole = recovered.log.whole(place, bytes).map_err(|damage| format!("{damage:?}"))?;
                rehoming.take_message(&whole).map_err(|refused| refused.to_string())?;
            }
        }
        self.drives = rehoming.logs().iter_mut().map(write).collect::<Result<_, _>>()?;
        self.rot.clear();
        Ok(())
    }
}

/// A disk with a log.
fn write(log: &mut Log) -> Result<Drive, String> {
    let mut drive = Drive::default();
    log.flush().map_err(|refused| refused.to_string())?;
    for syncs in [false, true] {
        if syncs {
            log.sync();
        }
        while let Some(operation) = log.poll_output() {
            let reply = drive.carry_out(&operation);
            log.handle_disk(reply);
        }
    }
    if log.backlog() > 0 {
        return Err("a log is not written to its end".into());
    }
    Ok(drive)
}
