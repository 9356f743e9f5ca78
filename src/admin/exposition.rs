//! The text format Prometheus reads (version 0.0.4): families, each with its samples. Knows no metric.
//!
//! Invariants: a family is written once and in one piece; names and label values come out as the format wants them.

use std::fmt::{Display, Write};

/// The content type of the format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page in the making.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

/// What a family's numbers do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// They only grow.
    Counter,
    /// They go up and down.
    Gauge,
    /// Buckets, sum and count.
    Histogram,
}

/// One family: every further sample is of its name.
#[derive(Debug)]
pub struct Family<'a> {
    page: &'a mut Exposition,
    name: &'a str,
}

impl Exposition {
    /// Begins a family.
    pub fn family<'a>(&'a mut self, kind: Kind, name: &'a str, help: &str) -> Family<'a> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        Family { page: self, name }
    }

    /// A gauge without labels.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(Kind::Gauge, name, help).sample(&[], value);
    }

    /// A counter without labels.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(Kind::Counter, name, help).sample(&[], value);
    }

    /// The page.
    #[must_use]
    pub fn into_text(self) -> String {
        self.text
    }

    fn write(&mut self, arguments: std::fmt::Arguments<'_>) {
        self.text.write_fmt(arguments).expect("a String takes everything");
    }
}

impl Family<'_> {
    /// One sample.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        self.sample_of("", labels, value)
    }

    /// One sample whose name goes on after the family's, as histograms have them.
    pub fn sample_of(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        let name = self.name;
        self.page.write(format_args!("{name}{suffix}"));
        for (index, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let before = if index == 0 { '{' } else { ',' };
            self.page.write(format_args!("{before}{label}=\"{text}\""));
        }
        let after = if labels.is_empty() { "" } else { "}" };
        self.page.write(format_args!("{after} {value}\n"));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped() {
        let mut page = Exposition::default();
        let mut family = page.family(Kind::Gauge, "a", "one \\ two\nthree");
        family.sample(&[("x", "a\"b\\c\nd"), ("y", "")], 1).sample(&[], 2);
        let expected =
            "# HELP a one \\\\ two\\nthree\n# TYPE a gauge\na{x=\"a\\\"b\\\\c\\nd\",y=\"\"} 1\na 2\n";
        assert_eq!(page.into_text(), expected);
    }
}
