//! The files of `statements/`: one normative statement a line. Parsing only; `ledger` judges.

use std::fmt;

/// `MQTT-3.1.2-24`; the order is that of the specification.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct StatementId {
    section: Vec<u32>,
    number: u32,
}

/// A line of a ledger.
#[derive(Debug)]
pub(crate) struct Statement {
    /// Where it stands, from 1.
    pub line: usize,
    /// Which statement.
    pub id: StatementId,
    /// `server`, `client` or `both`.
    pub who: String,
    /// What it asks, in our own words.
    pub summary: String,
    /// How far we are.
    pub status: Status,
}

/// How far we are with a statement.
#[derive(Debug)]
pub(crate) enum Status {
    /// These tests cover it.
    Tested(Vec<Target>),
    /// It binds nobody here, for this reason.
    Exempt(String),
    /// Nothing covers it yet.
    Todo,
}

/// A test.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Target {
    /// `connect:clean-start`, a case of `vectors/connect.txt`.
    Case {
        /// The file's name without folder and ending.
        file: String,
        /// The case in it.
        case: String,
    },
    /// `src/base/topic.rs#filters_match`, a test function.
    Function {
        /// The file, from the repository's root.
        path: String,
        /// The function in it.
        function: String,
    },
}

impl StatementId {
    /// Reads `MQTT-3.1.2-24`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (section, number) = text.strip_prefix("MQTT-")?.rsplit_once('-')?;
        let section = section.split('.').map(|n| n.parse().ok()).collect::<Option<Vec<u32>>>()?;
        Some(Self { section, number: number.parse().ok()? })
    }
}

impl fmt::Display for StatementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let section: Vec<String> = self.section.iter().map(u32::to_string).collect();
        write!(f, "MQTT-{}-{}", section.join("."), self.number)
    }
}

impl Target {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some((path, function)) = text.split_once('#') {
            return Ok(Self::Function { path: path.into(), function: function.into() });
        }
        match text.split_once(':') {
            Some((file, case)) => Ok(Self::Case { file: file.into(), case: case.into() }),
            None => Err(format!("`{text}` is neither `file:case` nor `path#function`")),
        }
    }
}

impl Status {
    fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(' ') {
            None if text == "todo" => Ok(Self::Todo),
            Some(("exempt", reason)) => Ok(Self::Exempt(reason.into())),
            Some(("tested", targets)) => {
                targets.split(", ").map(Target::parse).collect::<Result<Vec<_>, _>>().map(Self::Tested)
            }
            _ => Err(format!("`{text}` is not `tested TARGET, ...`, `exempt REASON` or `todo`")),
        }
    }
}

/// Reads a ledger; the mistakes name their line.
pub(crate) fn parse(text: &str) -> Result<Vec<Statement>, Vec<String>> {
    let mut statements = Vec::new();
    let mut mistakes = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match parse_line(index + 1, line) {
            Ok(statement) => statements.push(statement),
            Err(why) => mistakes.push(format!("line {}: {why}", index + 1)),
        }
    }
    if mistakes.is_empty() { Ok(statements) } else { Err(mistakes) }
}

fn parse_line(line: usize, text: &str) -> Result<Statement, String> {
    let columns: Vec<&str> = text.split(" | ").collect();
    let &[id, who, summary, status] = columns.as_slice() else {
        return Err("not four columns `ID | who | summary | status`".into());
    };
    let id = StatementId::parse(id).ok_or_else(|| format!("`{id}` is no statement id"))?;
    if !["server", "client", "both"].contains(&who) {
        return Err(format!("`{who}` is none of server, client, both"));
    }
    if summary.is_empty() || summary.chars().count() > 120 {
        return Err("the summary is empty or longer than 120 characters".into());
    }
    Ok(Statement { line, id, who: who.into(), summary: summary.into(), status: Status::parse(status)? })
}
