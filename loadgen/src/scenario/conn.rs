//! `conn`: clients connect at a rate, subscribe if asked to, and stay; at the end each is asked whether it is alive.

use super::{Topology, Wiring};
use crate::args::Common;
use anyhow::Result;

/// Arguments of `conn`.
#[derive(clap::Args, Clone, Debug)]
pub struct ConnArgs {
    /// Every client subscribes to a topic of its own, with --sub-qos.
    #[arg(long)]
    pub subscribe: bool,
    #[command(flatten)]
    pub common: Common,
}

impl ConnArgs {
    /// All clients are idle.
    ///
    /// # Errors
    /// Never: every number of clients can be idle.
    pub fn topology(&self) -> Result<Topology> {
        let idle = self.common.clients;
        Ok(Topology {
            idle,
            idle_subscribe: self.subscribe,
            publishers: 0,
            subscribers: 0,
            wiring: Wiring::All,
        })
    }
}
