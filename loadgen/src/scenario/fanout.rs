//! `fanout`: one (or a few) publish, everybody else gets everything.

use super::{Topology, Wiring};
use crate::args::Common;
use anyhow::{Result, ensure};

/// Arguments of `fanout`.
#[derive(clap::Args, Clone, Debug)]
pub struct FanoutArgs {
    /// Of the clients, how many publish.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub publishers: u32,
    #[command(flatten)]
    pub common: Common,
}

impl FanoutArgs {
    /// The rest subscribes.
    ///
    /// # Errors
    /// If there is no rest.
    pub fn topology(&self) -> Result<Topology> {
        let (clients, publishers) = (self.common.clients, self.publishers);
        ensure!(
            publishers >= 1 && clients > publishers,
            "fan-out needs publishers and subscribers: --clients {clients} - --publishers {publishers}"
        );
        let subscribers = clients - publishers;
        Ok(Topology { idle: 0, idle_subscribe: false, publishers, subscribers, wiring: Wiring::All })
    }
}
