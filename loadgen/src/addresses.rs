//! Source addresses, and how many connections they and the process's limits allow.

use anyhow::{Context, Result, bail, ensure};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

/// Addresses in one list at most: a slip in a range is seen before it fills the memory.
const ADDRESSES_MAX: u128 = 65_536;

/// Descriptors the process needs besides its rings: standard streams, event descriptors, files under `/proc`.
const DESCRIPTORS_RESERVED: u64 = 64;

/// A list such as `127.0.0.1-127.0.0.64,10.0.0.9`.
///
/// # Errors
/// If it is none.
pub fn parse_sources(list: &str) -> Result<Vec<IpAddr>> {
    let mut sources = Vec::new();
    for item in list.split(',').map(str::trim) {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let parse = |text: &str| {
            text.trim().parse::<IpAddr>().with_context(|| format!("`{text}` in `{list}` is no IP address"))
        };
        append(parse(first)?, parse(last)?, &mut sources).with_context(|| format!("`{item}`"))?;
    }
    Ok(sources)
}

fn append(first: IpAddr, last: IpAddr, sources: &mut Vec<IpAddr>) -> Result<()> {
    let (from, to) = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => (u128::from(first.to_bits()), u128::from(last.to_bits())),
        (IpAddr::V6(first), IpAddr::V6(last)) => (first.to_bits(), last.to_bits()),
        _ => bail!("a range has two addresses of one family"),
    };
    ensure!(from <= to, "the first address of a range comes before the last");
    let count = (to - from).saturating_add(1).saturating_add(sources.len() as u128);
    ensure!(count <= ADDRESSES_MAX, "{count} addresses: at most {ADDRESSES_MAX}");
    sources.extend((from..=to).map(|bits| match first {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
    }));
    Ok(())
}

/// The broker's address.
///
/// # Errors
/// If the name has none.
pub fn resolve(host: &str, port: u16) -> Result<SocketAddr> {
    let addresses = (host, port).to_socket_addrs().with_context(|| format!("{host} has no address"))?;
    let mut addresses: Vec<SocketAddr> = addresses.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    addresses.first().copied().with_context(|| format!("{host} has no address"))
}

/// What the operating system allows.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The first and the last port the system chooses from.
    pub ports: (u16, u16),
    /// Descriptors of the process.
    pub descriptors: u64,
}

/// Sockets in one ring's table at most.
pub const RING_DESCRIPTORS_MAX: u64 = 16_384;

impl Limits {
    /// Asks the system, after raising the descriptor limit as far as it goes.
    pub fn probe() -> Self {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
        let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
        let descriptors = if raised { hard } else { soft };
        let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        let mut ports = text.split_whitespace().filter_map(|port| port.parse().ok());
        let ports = (ports.next().unwrap_or(32_768), ports.next().unwrap_or(60_999));
        Self { ports, descriptors }
    }

    /// Sockets in one ring's table.
    pub fn ring_descriptors(&self) -> u64 {
        self.descriptors.min(RING_DESCRIPTORS_MAX)
    }

    /// Refuses what cannot be, before the first connection, with the arithmetic.
    ///
    /// # Errors
    /// If there are more clients than addresses x ports, or than rings x descriptors.
    pub fn check(&self, clients: u64, sources: &[IpAddr], target: SocketAddr) -> Result<()> {
        if let Some(source) = sources.iter().find(|source| source.is_ipv4() != target.is_ipv4()) {
            bail!("the source address {source} cannot reach {target}: the families differ");
        }
        let (first, last) = self.ports;
        let ports = u64::from(last.saturating_sub(first)) + 1;
        let addresses = sources.len().max(1) as u64;
        ensure!(
            clients <= addresses * ports,
            "{clients} clients need more ports than there are: {addresses} source address(es) x {ports} ports ({first} to {last}) = {}. \
             Name at least {} addresses with --source, or widen net.ipv4.ip_local_port_range",
            addresses * ports,
            clients.div_ceil(ports)
        );
        let table = self.ring_descriptors();
        let rings = self.descriptors.saturating_sub(DESCRIPTORS_RESERVED);
        ensure!(
            clients <= rings.saturating_mul(table),
            "{clients} clients need more descriptors than there are: {} - {DESCRIPTORS_RESERVED} reserved = {rings} rings x {table} sockets \
             in each = {}. Raise the descriptor limit (ulimit -n)",
            self.descriptors,
            rings.saturating_mul(table)
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_sources() {
        let parse = |list: &str| parse_sources(list).map(|list| list.len());
        assert_eq!(parse("127.0.0.1").unwrap(), 1);
        assert_eq!(parse("127.0.0.1-127.0.0.64").unwrap(), 64);
        assert_eq!(parse("127.0.0.250-127.0.1.5, 10.0.0.1,::1-::4").unwrap(), 12 + 1 + 4);
        for bad in
            ["", "x", "127.0.0.2-127.0.0.1", "127.0.0.1-::1", "127.0.0.1,", "10.0.0.0-11.0.0.0", "::-ffff::"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_arithmetic() {
        let target = "127.0.0.1:1883".parse().unwrap();
        let limits = Limits { ports: (32_768, 60_999), descriptors: 20_000 };
        let sources = |count: u8| (1..=count).map(|last| IpAddr::from([127, 0, 0, last])).collect::<Vec<_>>();
        assert!(limits.check(28_232, &[], target).is_ok());
        let refusal = limits.check(28_233, &[], target).unwrap_err().to_string();
        assert!(refusal.contains("1 source address(es) x 28232 ports (32768 to 60999) = 28232"), "{refusal}");
        assert!(refusal.contains("at least 2 addresses"), "{refusal}");
        assert!(limits.check(1_000_000, &sources(36), target).is_ok());
        assert!(limits.check(1_000_000, &sources(35), target).is_err());
        let few = Limits { descriptors: 100, ..limits };
        let refusal = few.check(3601, &[], target).unwrap_err().to_string();
        assert!(refusal.contains("100 - 64 reserved = 36 rings x 100 sockets in each = 3600"), "{refusal}");
        assert!(few.check(3600, &[], target).is_ok());
        assert!(limits.check(1, &["::1".parse().unwrap()], target).is_err());
    }
}
