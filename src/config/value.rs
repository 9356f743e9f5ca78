//! Values: integers, sizes, addresses. Pure functions from text; `None` means not of that form.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// A decimal integer without sign, digits only.
pub(super) fn integer(text: &str) -> Option<u64> {
    // `u64::from_str` would take a leading `+`.
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// A size in bytes: an integer with an optional suffix directly behind it.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let digits_len = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, suffix) = text.split_at_checked(digits_len)?;
    let factor: u64 = match suffix.to_ascii_lowercase().as_str() {
        "" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1000 * 1000,
        "g" | "gb" => 1000 * 1000 * 1000,
        "t" | "tb" => 1000 * 1000 * 1000 * 1000,
        "ki" | "kib" => 1 << 10,
        "mi" | "mib" => 1 << 20,
        "gi" | "gib" => 1 << 30,
        "ti" | "tib" => 1 << 40,
        _ => return None,
    };
    integer(digits)?.checked_mul(factor)
}

/// `true` or `false`.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// `port`, `ip:port`, `[v6]:port`, and as RabbitMQ's own examples have it `v6:port`, where the last colon counts.
///
/// A bare port listens on all IPv4 interfaces; all of IPv6 is asked for with `[::]:port`.
pub(super) fn listener(text: &str) -> Option<SocketAddr> {
    listener_on(Ipv4Addr::UNSPECIFIED, text)
}

/// The same, but a bare port listens for this machine only.
pub(super) fn local_listener(text: &str) -> Option<SocketAddr> {
    listener_on(Ipv4Addr::LOCALHOST, text)
}

fn listener_on(default_ip: Ipv4Addr, text: &str) -> Option<SocketAddr> {
    let Some((ip, port_text)) = text.rsplit_once(':') else {
        return Some(SocketAddr::new(default_ip.into(), port(text)?));
    };
    let ip: IpAddr = match ip.strip_prefix('[') {
        Some(bracketed) => IpAddr::V6(bracketed.strip_suffix(']')?.parse().ok()?),
        None => ip.parse().ok()?,
    };
    Some(SocketAddr::new(ip, port(port_text)?))
}

/// A port.
pub(super) fn port(text: &str) -> Option<u16> {
    u16::try_from(integer(text)?).ok()
}
