//! Clients: the machines that drive them, those that behave, and those that do not.

pub(crate) mod engine;
pub(crate) mod library;
pub(crate) mod machine;
pub(crate) mod polite;
pub(crate) mod rude;

/// A client of the world.
#[derive(Debug)]
pub(crate) enum Client {
    Polite(Box<polite::Polite>),
    Rude(rude::Rude),
}
