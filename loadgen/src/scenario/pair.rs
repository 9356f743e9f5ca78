//! `pair`: half of the clients publish, each to one subscriber of its own.

use super::{Topology, Wiring};
use crate::args::Common;
use anyhow::{Result, ensure};

/// Arguments of `pair`.
#[derive(clap::Args, Clone, Debug)]
pub struct PairArgs {
    #[command(flatten)]
    pub common: Common,
}

impl PairArgs {
    /// Half and half.
    ///
    /// # Errors
    /// If somebody stays alone.
    pub fn topology(&self) -> Result<Topology> {
        let clients = self.common.clients;
        ensure!(
            clients >= 2 && clients.is_multiple_of(2),
            "pairs need an even number of clients: --clients {clients}"
        );
        let half = clients / 2;
        Ok(Topology {
            idle: 0,
            idle_subscribe: false,
            publishers: half,
            subscribers: half,
            wiring: Wiring::Pairs,
        })
    }
}
