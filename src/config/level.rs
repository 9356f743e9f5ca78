//! How much is logged: RabbitMQ's level names, as a value.

use tracing::level_filters::LevelFilter;

/// The least important thing that is still written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What an operator may want to know.
    #[default]
    Info,
    /// What may become a problem.
    Warning,
    /// What needs a human.
    Error,
    /// What stops the process; Quelea writes these as errors.
    Critical,
    /// Nothing.
    None,
}

impl LogLevel {
    /// The same as a filter of the tracing crate, which knows nothing above an error.
    #[must_use]
    pub fn filter(self) -> LevelFilter {
        match self {
            Self::Debug => LevelFilter::DEBUG,
            Self::Info => LevelFilter::INFO,
            Self::Warning => LevelFilter::WARN,
            Self::Error | Self::Critical => LevelFilter::ERROR,
            Self::None => LevelFilter::OFF,
        }
    }
}
