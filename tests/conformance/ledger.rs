//! Holds the ledger against the tests that there are, and the citations in the source against the ledger.

use crate::statement::{self, Statement, StatementId, Status, Target};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// The two specifications, and how many statements each has.
const SPECIFICATIONS: [(&str, usize); 2] = [("3.1.1", 141), ("5.0", 251)];

/// What [`check`] found.
#[derive(Debug)]
pub(crate) struct Report {
    /// Rows of the table in `README.md`.
    pub counts: String,
    /// The statements that nothing covers yet.
    pub open: Vec<String>,
    /// What is wrong.
    pub mistakes: Vec<String>,
}

/// Which cases cover which statements of one specification.
pub(crate) type Covered = BTreeMap<StatementId, BTreeSet<Target>>;

/// Checks the whole ledger; `covered` says what the cases cover of 3.1.1, and of 5.0.
pub(crate) fn check(covered: &[Covered; 2]) -> Report {
    let mut report = Report { counts: String::new(), open: Vec::new(), mistakes: Vec::new() };
    let mut known = BTreeSet::new();
    for ((name, count), covered) in SPECIFICATIONS.into_iter().zip(covered) {
        let file = format!("tests/conformance/statements/mqtt-{name}.txt");
        let text = std::fs::read_to_string(crate::root().join(&file)).expect("a ledger");
        let mut notes = Notes { file: &file, mistakes: &mut report.mistakes };
        match statement::parse(&text) {
            Ok(statements) => {
                if statements.len() != count {
                    notes.add(0, &format!("{} statements, the specification has {count}", statements.len()));
                }
                check_statements(&mut notes, &statements, covered);
                write_counts(&mut report.counts, name, &statements);
                let todo = statements.iter().filter(|s| matches!(s.status, Status::Todo));
                report.open.extend(todo.map(|s| format!("{name} {} ({}): {}", s.id, s.who, s.summary)));
                known.extend(statements.into_iter().map(|s| s.id));
            }
            Err(mistakes) => mistakes.iter().for_each(|mistake| notes.add(0, mistake)),
        }
    }
    check_citations(&known, &mut report.mistakes);
    check_readme(&report.counts, &mut report.mistakes);
    report
}

struct Notes<'a> {
    file: &'a str,
    mistakes: &'a mut Vec<String>,
}

impl Notes<'_> {
    fn add(&mut self, line: usize, what: &str) {
        self.mistakes.push(format!("{}:{line}: {what}", self.file));
    }
}

fn check_statements(notes: &mut Notes<'_>, statements: &[Statement], covered: &Covered) {
    for pair in statements.windows(2) {
        if pair[0].id >= pair[1].id {
            notes.add(pair[1].line, &format!("{} is there twice or out of order", pair[1].id));
        }
    }
    let none = BTreeSet::new();
    for statement in statements {
        let by_cases = covered.get(&statement.id).unwrap_or(&none);
        check_status(notes, statement, by_cases);
    }
    for (id, targets) in covered {
        if !statements.iter().any(|s| s.id == *id) {
            notes.add(0, &format!("{id}, covered by {}, does not exist", list(targets)));
        }
    }
}

fn check_status(notes: &mut Notes<'_>, statement: &Statement, by_cases: &BTreeSet<Target>) {
    let id = &statement.id;
    match &statement.status {
        Status::Tested(targets) => {
            let named: BTreeSet<Target> = targets.iter().cloned().collect();
            for target in targets {
                if let Err(why) = check_target(target, by_cases) {
                    notes.add(statement.line, &format!("{id}: {why}"));
                }
            }
            let unnamed: BTreeSet<Target> = by_cases.difference(&named).cloned().collect();
            if !unnamed.is_empty() {
                notes.add(statement.line, &format!("{id} is covered by {} too: name it", list(&unnamed)));
            }
        }
        Status::Exempt(reason) if reason.len() < 20 => {
            notes.add(statement.line, &format!("{id}: `{reason}` is no reason"));
        }
        Status::Exempt(_) | Status::Todo => {
            if !by_cases.is_empty() {
                notes.add(statement.line, &format!("{id}: write `tested {}`", list(by_cases)));
            }
        }
    }
}

/// Whether a test exists; a case must also say that it covers the statement.
fn check_target(target: &Target, by_cases: &BTreeSet<Target>) -> Result<(), String> {
    match target {
        Target::Case { file, case } if !by_cases.contains(target) => {
            Err(format!("no case {file}:{case} that covers it"))
        }
        Target::Case { .. } => Ok(()),
        Target::Function { path, function } => {
            let text =
                std::fs::read_to_string(crate::root().join(path)).map_err(|e| format!("{path}: {e}"))?;
            let declared = text.contains(&format!("fn {function}("));
            if declared { Ok(()) } else { Err(format!("{path} has no test `{function}`")) }
        }
    }
}

fn list(targets: &BTreeSet<Target>) -> String {
    let names: Vec<String> = targets
        .iter()
        .map(|t| match t {
            Target::Case { file, case } => format!("{file}:{case}"),
            Target::Function { path, function } => format!("{path}#{function}"),
        })
        .collect();
    names.join(", ")
}

fn write_counts(counts: &mut String, name: &str, statements: &[Statement]) {
    let count = |is: fn(&Status) -> bool| statements.iter().filter(|s| is(&s.status)).count();
    let tested = count(|s| matches!(s, Status::Tested(_)));
    let exempt = count(|s| matches!(s, Status::Exempt(_)));
    let todo = count(|s| matches!(s, Status::Todo));
    writeln!(counts, "| {name} | {} | {tested} | {exempt} | {todo} |", statements.len())
        .expect("writing to a string");
}

/// How a citation begins; put together, so that this line is none.
const CITATION: &str = concat!("[", "MQTT-");

/// Every `[MQTT-...]` in the source must be a statement of either specification.
fn check_citations(known: &BTreeSet<StatementId>, mistakes: &mut Vec<String>) {
    let mut files = crate::files("src", "rs");
    files.extend(crate::files("tests", "rs"));
    for (path, text) in files {
        for (index, line) in text.lines().enumerate() {
            for piece in line.split(CITATION).skip(1) {
                let id = format!("MQTT-{}", piece.split(']').next().unwrap_or_default());
                if id != "MQTT-..." && !StatementId::parse(&id).is_some_and(|id| known.contains(&id)) {
                    mistakes.push(format!("{}:{}: no statement {id}", path.display(), index + 1));
                }
            }
        }
    }
}

/// The counts in the README are those of the ledger.
fn check_readme(counts: &str, mistakes: &mut Vec<String>) {
    let readme =
        std::fs::read_to_string(crate::root().join("tests/conformance/README.md")).expect("a README");
    for row in counts.lines().filter(|row| !readme.contains(row)) {
        mistakes.push(format!("tests/conformance/README.md: the table lacks `{row}`"));
    }
}
