//! What drives a well-behaved client: the strict machine, or the library.

use super::library::Library;
use super::machine::{Happening, Limits, Machine, Misbehaviour, Outgoing};
use quelea::base::{Now, ReasonCode};
use quelea::codec::{self, SubscribeFilter};

/// One of them.
#[derive(Debug)]
pub(crate) enum Engine {
    Strict(Box<Machine>),
    Library(Box<Library>),
}

/// The same call of either.
macro_rules! either {
    ($self:expr, $engine:ident => $call:expr) => {
        match $self {
            Self::Strict($engine) => $call,
            Self::Library($engine) => $call,
        }
    };
}

impl Engine {
    pub(crate) fn set_now(&mut self, now: Now) {
        if let Self::Library(library) = self {
            library.set_now(now);
        }
    }

    /// The broker's disk may have lost which identifiers are in use.
    pub(crate) fn forgive(&mut self) {
        if let Self::Strict(machine) = self {
            machine.is_forgiving = true;
        }
    }

    /// Stops holding acknowledgements back.
    pub(crate) fn be_prompt(&mut self) {
        if let Self::Strict(machine) = self {
            machine.is_lazy = false;
        }
        self.release(usize::MAX);
    }

    /// Writes acknowledgements that were held back; the library holds none.
    pub(crate) fn release(&mut self, count: usize) {
        if let Self::Strict(machine) = self {
            machine.release(count);
        }
    }

    pub(crate) fn connect(&mut self, connect: &codec::Connect<'_>, limits: Limits) {
        either!(self, engine => engine.connect(connect, limits));
    }

    pub(crate) fn is_connected(&self) -> bool {
        either!(self, engine => engine.is_connected())
    }

    /// Messages that are not acknowledged to the end.
    pub(crate) fn unsettled_count(&self) -> usize {
        either!(self, engine => engine.unsettled_count())
    }

    pub(crate) fn is_idle(&self) -> bool {
        either!(self, engine => engine.is_idle())
    }

    pub(crate) fn describe(&self) -> String {
        either!(self, engine => engine.describe())
    }

    /// What was written, to be sent.
    pub(crate) fn take_out(&mut self) -> Vec<u8> {
        either!(self, engine => engine.take_out())
    }

    /// What happened since the last call.
    pub(crate) fn take_happenings(&mut self) -> Vec<Happening> {
        either!(self, engine => engine.take_happenings())
    }

    pub(crate) fn publish(&mut self, message: Outgoing) {
        either!(self, engine => engine.publish(message));
    }

    pub(crate) fn subscribe(&mut self, tag: usize, filters: &[SubscribeFilter<'_>], id: Option<u32>) {
        either!(self, engine => engine.subscribe(tag, filters, id));
    }

    pub(crate) fn unsubscribe(&mut self, tag: usize, filters: &[&str]) {
        either!(self, engine => engine.unsubscribe(tag, filters));
    }

    pub(crate) fn ping(&mut self) {
        either!(self, engine => engine.ping());
    }

    pub(crate) fn disconnect(&mut self, reason: ReasonCode, session_expiry: Option<u32>) {
        either!(self, engine => engine.disconnect(reason, session_expiry));
    }

    pub(crate) fn handle_bytes(&mut self, bytes: &[u8]) -> Result<(), Misbehaviour> {
        either!(self, engine => engine.handle_bytes(bytes))
    }

    /// After CONNACK; gives what is lost with the session. The library has decided for itself.
    pub(crate) fn begin(&mut self, keeps: bool) -> Result<Vec<usize>, Misbehaviour> {
        match self {
            Self::Strict(machine) => {
                let lost = machine.begin(keeps);
                machine.handle_bytes(&[])?;
                Ok(lost)
            }
            Self::Library(library) => Ok(library.begin()),
        }
    }

    /// The session may be another than the one of before.
    pub(crate) fn forget_received(&mut self) {
        if let Self::Strict(machine) = self {
            machine.forget_received();
        }
    }
}
