//! The files of `vectors/`: cases, each a list of steps. Parsing only; `run` carries them out.

use crate::ledger::Covered;
use crate::statement::{StatementId, Target};
use quelea::base::Version;
use std::time::Duration;

/// One case.
#[derive(Debug)]
pub(crate) struct Case {
    /// The file's name without folder and ending.
    pub file: String,
    /// The case's name, unique in its file.
    pub name: String,
    /// Where it begins, from 1.
    pub line: usize,
    /// The versions it runs in, each with the statements it covers.
    pub covers: Vec<(Version, Vec<StatementId>)>,
    /// Settings that differ from the defaults.
    pub options: Vec<(String, String)>,
    /// What happens.
    pub steps: Vec<Step>,
}

/// A line of a case.
#[derive(Debug)]
pub(crate) struct Step {
    /// Where it stands, from 1.
    pub line: usize,
    /// What happens.
    pub action: Action,
}

/// What happens in a step.
#[derive(Debug)]
pub(crate) enum Action {
    /// `c1 open` or `c1 open 192.0.2.1`: connect, from another address than loopback if there is one.
    Open(String, Option<String>),
    /// `c1 > PACKET ;; PACKET`: send, all in one piece.
    Send(String, Vec<String>),
    /// `c1 < PACKET`: this is the next packet. `c1|c2 < PACKET`: of one of these. `c1 <~ PACKET`: consecutive ones in any order.
    Receive { from: Vec<String>, packet: String, any_order: bool },
    /// `c1 quiet`: nothing came, and the connection is open.
    Quiet(String),
    /// `c1 closed`: nothing came but the end.
    Closed(String),
    /// `c1 drop`: the network fails.
    Drop(String),
    /// `c1 stall`: the client stops reading.
    Stall(String),
    /// `c1 read`: the client reads again.
    Read(String),
    /// `advance 1500ms`, `advance 20s`.
    Advance(Duration),
    /// `shutdown`: the broker stops.
    Shutdown,
}

/// The version of this name.
pub(crate) fn version(text: &str) -> Option<Version> {
    match text {
        "3.1" => Some(Version::V310),
        "3.1.1" => Some(Version::V311),
        "5" => Some(Version::V5),
        _ => None,
    }
}

/// All cases there are.
pub(crate) fn all() -> Result<Vec<Case>, Vec<String>> {
    let mut cases = Vec::new();
    let mut mistakes = Vec::new();
    for (path, text) in crate::files("tests/conformance/vectors", "txt") {
        let name = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
        match parse(&name, &text) {
            Ok(found) => cases.extend(found),
            Err(found) => mistakes.extend(found),
        }
    }
    if mistakes.is_empty() { Ok(cases) } else { Err(mistakes) }
}

/// Which cases cover which statements in a version. MQTT 3.1 has no numbered ones.
pub(crate) fn covered(cases: &[Case], version: Version) -> Covered {
    let mut covered = Covered::new();
    for case in cases {
        let target = Target::Case { file: case.file.clone(), case: case.name.clone() };
        for id in case.covers.iter().filter(|(v, _)| *v == version).flat_map(|(_, ids)| ids) {
            covered.entry(id.clone()).or_default().insert(target.clone());
        }
    }
    covered
}

/// Reads a file of cases; mistakes name their line.
pub(crate) fn parse(file: &str, text: &str) -> Result<Vec<Case>, Vec<String>> {
    let mut cases: Vec<Case> = Vec::new();
    let mut mistakes = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let parsed = match (line.strip_prefix("case "), cases.last_mut()) {
            (Some(name), _) => {
                cases.push(Case {
                    file: file.into(),
                    name: name.trim().into(),
                    line: number,
                    covers: Vec::new(),
                    options: Vec::new(),
                    steps: Vec::new(),
                });
                Ok(())
            }
            (None, Some(case)) => parse_line(case, number, line),
            (None, None) => Err("a step before the first case".into()),
        };
        if let Err(why) = parsed {
            mistakes.push(format!("{file}:{number}: {why}"));
        }
    }
    for case in &cases {
        let twice = cases.iter().filter(|c| c.name == case.name).count() > 1;
        if twice || case.covers.is_empty() || case.steps.is_empty() {
            mistakes
                .push(format!("{file}:{}: {} is there twice or lacks covers or steps", case.line, case.name));
        }
    }
    if mistakes.is_empty() { Ok(cases) } else { Err(mistakes) }
}

fn parse_line(case: &mut Case, line: usize, text: &str) -> Result<(), String> {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let rest = rest.trim();
    match word {
        "covers" => {
            let (name, ids) = rest.split_once(' ').unwrap_or((rest, ""));
            let version = version(name).ok_or_else(|| format!("no version `{name}`"))?;
            let ids = ids
                .split_whitespace()
                .map(|id| StatementId::parse(id).ok_or_else(|| format!("no statement `{id}`")))
                .collect::<Result<_, _>>()?;
            case.covers.push((version, ids));
            return Ok(());
        }
        "option" => {
            let (key, value) = rest.split_once(' ').ok_or("option KEY VALUE")?;
            case.options.push((key.into(), value.trim().into()));
            return Ok(());
        }
        _ => {}
    }
    let actions = match word {
        "advance" => vec![Action::Advance(duration(rest)?)],
        "shutdown" => vec![Action::Shutdown],
        who => match rest.split_once(' ') {
            Some(("connect", words)) => connect(who, words, "0"),
            Some(("resume", words)) => connect(who, words, "1"),
            Some(("reconnect", words)) => connect(who, words, "?"),
            _ => vec![connection_action(who, rest)?],
        },
    };
    case.steps.extend(actions.into_iter().map(|action| Step { line, action }));
    Ok(())
}

/// `c1 connect client=a` is a CONNECT that is accepted; `resume` if its session is present, `reconnect` if either will do.
fn connect(who: &str, words: &str, session: &str) -> Vec<Action> {
    let packet = format!("CONNACK ok session={session} *");
    vec![
        Action::Send(who.into(), vec![format!("CONNECT {words}")]),
        Action::Receive { from: vec![who.into()], packet, any_order: false },
    ]
}

fn connection_action(who: &str, text: &str) -> Result<Action, String> {
    let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
    let rest = rest.trim();
    let one = || -> Result<String, String> {
        let well_formed = who.starts_with('c') && who.bytes().all(|b| b.is_ascii_alphanumeric());
        if well_formed { Ok(who.into()) } else { Err(format!("`{who}` is no connection (c1, cpub, ...)")) }
    };
    Ok(match (verb, rest) {
        ("open", "") => Action::Open(one()?, None),
        ("open", address) => Action::Open(one()?, Some(address.into())),
        (">", packets) => Action::Send(one()?, packets.split(" ;; ").map(str::to_owned).collect()),
        ("<" | "<~", packet) if !packet.is_empty() => {
            let from = who.split('|').map(str::to_owned).collect();
            Action::Receive { from, packet: packet.into(), any_order: verb == "<~" }
        }
        ("quiet", "") => Action::Quiet(one()?),
        ("closed", "") => Action::Closed(one()?),
        ("drop", "") => Action::Drop(one()?),
        ("stall", "") => Action::Stall(one()?),
        ("read", "") => Action::Read(one()?),
        _ => return Err(format!("`{verb}` is no step")),
    })
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = match text.strip_suffix("ms") {
        Some(number) => number.parse().map(Duration::from_millis),
        None => text.strip_suffix('s').unwrap_or("").parse().map(Duration::from_secs),
    };
    parsed.map_err(|_| format!("`{text}` is no duration (1500ms, 20s)"))
}

#[test]
fn cases_are_read() {
    let text = "# note\ncase a\n  covers 5 MQTT-3.1.0-1\n  option mqtt.prefetch 1\n  c1 > PINGREQ ;; PINGREQ\n  c1|c2 < PINGRESP\n  advance 1500ms\n  c1 resume client=x\n";
    let cases = parse("f", text).unwrap();
    assert_eq!((cases.len(), cases[0].steps.len(), cases[0].line), (1, 5, 2));
    assert!(matches!(&cases[0].steps[0].action, Action::Send(c, p) if c == "c1" && p.len() == 2));
    assert!(matches!(&cases[0].steps[1].action, Action::Receive { from, .. } if from.len() == 2));
    assert!(matches!(cases[0].steps[2].action, Action::Advance(d) if d.as_millis() == 1500));
    for bad in
        ["c1 > PINGREQ", "case a\ncovers 5\n", "case a\ncovers 4\nshutdown", "case a\ncovers 5\nc1 jump"]
    {
        assert!(parse("f", bad).is_err(), "{bad}");
    }
}
