//! What an operator can set about who may connect.

/// Who is let in, until user accounts exist.
#[derive(Clone, PartialEq, Eq)]
pub struct Options {
    /// `mqtt.allow_anonymous`: whether a client without credentials may connect (from loopback only).
    pub allow_anonymous: bool,
    /// `default_user`: the one user there is (from loopback only).
    pub default_user: String,
    /// `default_pass`.
    pub default_pass: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { allow_anonymous: true, default_user: "guest".into(), default_pass: "guest".into() }
    }
}

impl std::fmt::Debug for Options {
    /// Leaves the password out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("allow_anonymous", &self.allow_anonymous)
            .field("default_user", &self.default_user)
            .finish_non_exhaustive()
    }
}
