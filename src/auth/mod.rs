//! Identity and permissions; never blocks.
//!
//! So far there is one user, and only from loopback: access control proper is to come, and until then everything else is denied.

pub mod options;

pub use options::Options;

use std::net::IpAddr;
use subtle::ConstantTimeEq;

/// Why a client is not let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denied {
    /// User name or password are wrong, or missing where they are needed.
    BadCredentials,
    /// The client may not connect from where it is.
    NotAuthorized,
}

/// What CONNECT says about who the client is.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// User Name.
    pub username: Option<&'a str>,
    /// Password.
    pub password: Option<&'a [u8]>,
}

/// Decides whether a client at `peer` may connect.
///
/// # Errors
/// Why not.
pub fn check(options: &Options, peer: IpAddr, credentials: Credentials<'_>) -> Result<(), Denied> {
    match (credentials.username, credentials.password) {
        (None, None) if options.allow_anonymous => {}
        (Some(username), Some(password)) if is_default_user(options, username, password) => {}
        _ => return Err(Denied::BadCredentials),
    }
    if is_loopback(peer) { Ok(()) } else { Err(Denied::NotAuthorized) }
}

/// Compares both parts in time that depends on their lengths only.
fn is_default_user(options: &Options, username: &str, password: &[u8]) -> bool {
    let user = username.as_bytes().ct_eq(options.default_user.as_bytes());
    let pass = password.ct_eq(options.default_pass.as_bytes());
    (user & pass).into()
}

fn is_loopback(peer: IpAddr) -> bool {
    match peer {
        IpAddr::V4(v4) => v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_and_only_with_the_right_credentials() {
        let open = Options::default();
        let closed = Options { allow_anonymous: false, ..Options::default() };
        let none = Credentials { username: None, password: None };
        let guest = Credentials { username: Some("guest"), password: Some(b"guest") };
        let wrong = Credentials { username: Some("guest"), password: Some(b"Guest") };
        let half = Credentials { username: Some("guest"), password: None };
        let local: IpAddr = "127.0.0.1".parse().unwrap();
        let mapped: IpAddr = "::ffff:127.1.2.3".parse().unwrap();
        let remote: IpAddr = "192.0.2.1".parse().unwrap();
        let cases = [
            (&open, local, none, Ok(())),
            (&open, mapped, none, Ok(())),
            (&open, remote, none, Err(Denied::NotAuthorized)),
            (&open, local, guest, Ok(())),
            (&open, remote, guest, Err(Denied::NotAuthorized)),
            (&open, local, wrong, Err(Denied::BadCredentials)),
            (&open, local, half, Err(Denied::BadCredentials)),
            (&closed, local, none, Err(Denied::BadCredentials)),
            (&closed, local, guest, Ok(())),
        ];
        for (options, peer, credentials, expected) in cases {
            assert_eq!(check(options, peer, credentials), expected, "{peer} {:?}", credentials.username);
        }
    }
}
