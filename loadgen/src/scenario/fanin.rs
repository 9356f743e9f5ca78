//! `fanin`: many publish, one (or a few, each of which gets everything) subscribes to all of it.

use super::{Topology, Wiring};
use crate::args::Common;
use anyhow::{Result, ensure};

/// Arguments of `fanin`.
#[derive(clap::Args, Clone, Debug)]
pub struct FaninArgs {
    /// Of the clients, how many subscribe; each gets every message.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub subscribers: u32,
    #[command(flatten)]
    pub common: Common,
}

impl FaninArgs {
    /// The rest publishes.
    ///
    /// # Errors
    /// If there is no rest.
    pub fn topology(&self) -> Result<Topology> {
        let (clients, subscribers) = (self.common.clients, self.subscribers);
        ensure!(
            subscribers >= 1 && clients > subscribers,
            "fan-in needs subscribers and publishers: --clients {clients} - --subscribers {subscribers}"
        );
        let publishers = clients - subscribers;
        Ok(Topology { idle: 0, idle_subscribe: false, publishers, subscribers, wiring: Wiring::All })
    }
}
