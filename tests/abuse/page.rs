//! The broker's metrics page, as far as cases and their report need it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Samples by name and labels, as they are written.
#[derive(Debug)]
pub(crate) struct Page(BTreeMap<String, f64>);

impl Page {
    /// What the broker shows now.
    pub(crate) fn read(http: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(http).expect("the control thread listens");
        stream.set_read_timeout(Some(crate::DEADLINE)).expect("an option");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("it reads");
        let mut page = String::new();
        stream.read_to_string(&mut page).expect("it answers");
        let body = page.split_once("\r\n\r\n").expect("a head and a body").1;
        let samples = body.lines().filter(|line| !line.starts_with('#'));
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ').expect("a sample");
            (name.to_owned(), value.parse().expect("a number"))
        };
        Self(samples.map(sample).collect())
    }

    /// One sample.
    pub(crate) fn value(&self, sample: &str) -> f64 {
        *self.0.get(sample).unwrap_or_else(|| panic!("no {sample} in {:#?}", self.0))
    }

    /// The bound that every loop lag since `earlier` was below or at, in seconds. It is asked for once a second: most turns are not seen.
    pub(crate) fn lag_bound_since(&self, earlier: &Self) -> f64 {
        let all = "quelea_loop_lag_seconds_bucket{le=\"+Inf\"}";
        let count = self.value(all) - earlier.value(all);
        let bound = |name: &str| {
            let text = name.strip_prefix("quelea_loop_lag_seconds_bucket{le=\"")?.strip_suffix("\"}")?;
            text.parse::<f64>().ok()
        };
        let buckets =
            self.0.iter().filter_map(|(name, value)| Some((bound(name)?, value - earlier.value(name))));
        let full = buckets.filter(|(_, below)| *below >= count).map(|(bound, _)| bound);
        full.fold(f64::INFINITY, f64::min)
    }

    /// Who holds how much memory.
    pub(crate) fn memory(&self) -> Vec<String> {
        let is_memory = |name: &str| name.starts_with("quelea_memory_bytes");
        let samples = self.0.iter().filter(|(name, _)| is_memory(name));
        samples.map(|(name, value)| format!("{name} {value}")).collect()
    }
}
