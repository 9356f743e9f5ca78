//! Socket addresses in the kernel's layout, written and read byte by byte.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Bytes of a `sockaddr_in6`, the longer of the two.
const SIZE_MAX: usize = size_of::<libc::sockaddr_in6>();

/// A `sockaddr_in` or `sockaddr_in6`, and its length as the kernel wants it.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(super) struct RawAddress {
    bytes: [u8; SIZE_MAX],
    pub(super) len: libc::socklen_t,
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "families are small numbers")]
const FAMILY_V4: u16 = libc::AF_INET as u16;
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "families are small numbers")]
const FAMILY_V6: u16 = libc::AF_INET6 as u16;
#[allow(clippy::cast_possible_truncation, reason = "28")]
const LEN_MAX: libc::socklen_t = SIZE_MAX as libc::socklen_t;
const LEN_V4: libc::socklen_t = 16;

impl RawAddress {
    /// Room for any address, to be filled by the kernel.
    pub(super) const EMPTY: Self = Self { bytes: [0; SIZE_MAX], len: LEN_MAX };

    pub(super) fn new(address: SocketAddr) -> Self {
        let mut raw = Self::EMPTY;
        match address {
            SocketAddr::V4(v4) => {
                raw.bytes[0..2].copy_from_slice(&FAMILY_V4.to_ne_bytes());
                raw.bytes[2..4].copy_from_slice(&v4.port().to_be_bytes());
                raw.bytes[4..8].copy_from_slice(&v4.ip().octets());
                raw.len = LEN_V4;
            }
            SocketAddr::V6(v6) => {
                raw.bytes[0..2].copy_from_slice(&FAMILY_V6.to_ne_bytes());
                raw.bytes[2..4].copy_from_slice(&v6.port().to_be_bytes());
                raw.bytes[4..8].copy_from_slice(&v6.flowinfo().to_ne_bytes());
                raw.bytes[8..24].copy_from_slice(&v6.ip().octets());
                raw.bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
            }
        }
        raw
    }

    /// The address, unless it is of another family.
    pub(super) fn decode(&self) -> Option<SocketAddr> {
        let two = |at: usize| [self.bytes[at], self.bytes[at + 1]];
        let four = |at: usize| [self.bytes[at], self.bytes[at + 1], self.bytes[at + 2], self.bytes[at + 3]];
        let family = u16::from_ne_bytes(two(0));
        let port = u16::from_be_bytes(two(2));
        if family == FAMILY_V4 {
            Some(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::from(four(4)), port)))
        } else if family == FAMILY_V6 {
            let mut octets = [0; 16];
            octets.copy_from_slice(&self.bytes[8..24]);
            let (flow, scope) = (u32::from_ne_bytes(four(4)), u32::from_ne_bytes(four(24)));
            Some(SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from(octets), port, flow, scope)))
        } else {
            None
        }
    }
}

/// The socket domain of an address.
pub(super) fn domain(address: &SocketAddr) -> i32 {
    match address {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_kernels_layout() {
        let v6 = SocketAddrV6::new("fe80::1:2".parse().unwrap(), 1883, 5, 7);
        for address in
            ["127.0.0.1:1", "255.1.2.3:65535"].map(|a| a.parse().unwrap()).into_iter().chain([v6.into()])
        {
            assert_eq!(RawAddress::new(address).decode(), Some(address));
        }
        assert_eq!(RawAddress::EMPTY.decode(), None);
    }
}
