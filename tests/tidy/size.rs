//! Files and functions stay small enough to be read at once.

use crate::code;

/// Lines a file may have.
const FILE_LINES_MAX: usize = 800;
/// Lines of code between the braces of a function; blank lines and comments do not count, as in clippy's `too_many_lines`.
const FUNCTION_LINES_MAX: usize = 70;
/// Files that were too long when the rule came, and how long they may stay: shorten, never lengthen, never add.
const RATCHET: &[(&str, usize)] = &[];

/// Complaints about the length of a file.
pub(crate) fn check_file(path: &str, text: &str) -> Vec<String> {
    let max = RATCHET.iter().find(|(listed, _)| *listed == path).map_or(FILE_LINES_MAX, |(_, max)| *max);
    let count = text.lines().count();
    if count <= max {
        return Vec::new();
    }
    vec![format!(
        "{path}: {count} lines, at most {max}: find the second noun in it and give that a file of its own"
    )]
}

/// Complaints about the length of its functions.
pub(crate) fn check_functions(path: &str, code: &str) -> Vec<String> {
    let tokens = code::tokens(code);
    let lines: Vec<&str> = code.lines().collect();
    let mut complaints = Vec::new();
    for (at, (line, token)) in tokens.iter().enumerate() {
        let is_named = tokens
            .get(at + 1)
            .is_some_and(|(_, name)| name.starts_with(|char: char| char.is_alphabetic() || char == '_'));
        if *token != "fn" || !is_named {
            continue;
        }
        let Some((first, last)) = body(&tokens[at..]) else { continue };
        // The lines of the braces do not count unless they hold code as well, which formatting sees to.
        let inside = lines.get(first..last.saturating_sub(1)).unwrap_or_default();
        let count = inside.iter().filter(|line| !line.trim().is_empty()).count();
        if count > FUNCTION_LINES_MAX {
            let name = tokens[at + 1].1;
            complaints.push(format!(
                "{path}:{line}: `{name}` has {count} lines, at most {FUNCTION_LINES_MAX}: name its steps and make each a function"
            ));
        }
    }
    complaints
}

/// The lines of the braces around the body of the function that starts here; `None` if it has none.
fn body(tokens: &[(usize, &str)]) -> Option<(usize, usize)> {
    let mut depth = 0_usize;
    let mut first = None;
    // `;` inside of brackets is an array's length, not the end of a declaration.
    let mut brackets = 0_usize;
    for (line, token) in tokens {
        match *token {
            "[" | "(" => brackets += 1,
            "]" | ")" => brackets = brackets.checked_sub(1)?,
            ";" if brackets == 0 && first.is_none() => return None,
            "{" => {
                depth += 1;
                first = first.or(Some(*line));
            }
            "}" => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return first.map(|first| (first, *line));
                }
            }
            _ => {}
        }
    }
    None
}

#[test]
fn long_files_are_found() {
    assert_eq!(check_file("a.rs", &"x\n".repeat(801)).len(), 1);
    assert_eq!(check_file("a.rs", &"x\n".repeat(800)).len(), 0);
}

#[test]
fn long_functions_are_found() {
    let function = |lines: usize| {
        format!(
            "impl X {{\n    fn long<const N: [u8; 2]>(x: [u8; 3])\n    -> u8 {{\n{}    }}\n    fn short() {{}}\n}}\ntrait T {{ fn none(); }}\n",
            "        x();\n\n".repeat(lines)
        )
    };
    let complaints = check_functions("a.rs", &function(71));
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(complaints[0].starts_with("a.rs:2: `long` has 71 lines"), "{complaints:?}");
    assert_eq!(check_functions("a.rs", &function(70)), Vec::<String>::new());
}
