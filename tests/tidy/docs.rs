//! Documents and code agree: module docs, dead files, keys, benches, fixtures, links.

use crate::tree::{Tree, is_rust};
use quelea::config::keys::Key;

/// Complaints about a source file that does not open with its documentation.
pub(crate) fn check_module_docs(path: &str, text: &str) -> Vec<String> {
    if text.starts_with("//! ") {
        return Vec::new();
    }
    vec![format!("{path}: open it with `//! ` lines: what it is, what it is not, invariants, cost")]
}

/// Complaints about source files that no module declares and no target names.
pub(crate) fn check_reachable(tree: &Tree) -> Vec<String> {
    tree.rust()
        .filter(|file| !is_declared(tree, &file.path))
        .map(|file| {
            format!(
                "{}: nothing builds it: declare it with `mod`, name it in Cargo.toml, or delete it",
                file.path
            )
        })
        .collect()
}

fn is_declared(tree: &Tree, path: &str) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let is_root = matches!(path, "src/lib.rs" | "build.rs");
    // A member of the workspace has a manifest and targets of its own.
    let manifest =
        folder.match_indices('/').map(|(at, _)| &folder[..at]).chain([folder]).find_map(|folder| {
            let file = tree.file(&format!("{folder}/Cargo.toml"))?;
            Some((format!("{folder}/"), file.text.as_str()))
        });
    let (root, manifest) = manifest.unwrap_or_else(|| (String::new(), tree.text("Cargo.toml")));
    let local = path.strip_prefix(&root).unwrap_or(path);
    if is_root || matches!(local, "src/lib.rs" | "src/main.rs") || manifest.contains(&format!("\"{local}\""))
    {
        return true;
    }
    // A test may lie in the folder of another package: the fuzz targets are replayed where they are fuzzed.
    if tree.text("Cargo.toml").contains(&format!("\"{path}\"")) {
        return true;
    }
    // `benches/x.rs` needs no path when a target of that name exists.
    let stem = name.strip_suffix(".rs").unwrap_or(name);
    if folder.ends_with("benches") && manifest.contains(&format!("name = \"{stem}\"")) {
        return true;
    }
    let (module, parent) = if name == "mod.rs" {
        folder.rsplit_once('/').map_or((folder, ""), |(up, module)| (module, up))
    } else {
        (stem, folder)
    };
    let (up, parent_name) = parent.rsplit_once('/').unwrap_or(("", parent));
    let declaring = [
        format!("{parent}/mod.rs"),
        format!("{parent}/lib.rs"),
        format!("{parent}/main.rs"),
        format!("{up}/{parent_name}.rs"),
    ];
    let declares = |code: &str| code.contains(&format!("mod {module};"));
    // Benches are roots of their own, several in one folder.
    let is_bench =
        |path: &str| parent.ends_with("benches") && path.rsplit_once('/').is_some_and(|(at, _)| at == parent);
    declaring.iter().filter_map(|path| tree.file(path)).any(|file| declares(&file.code))
        || tree.rust().any(|file| is_bench(&file.path) && declares(&file.code))
        || tree.rust().any(|file| file.text.contains(&format!("#[path = \"{name}\"]")))
}

/// A key as its row of `tuning.md` begins.
pub(crate) struct Row {
    key: String,
    start: String,
}

impl Row {
    /// The row of a key of the table.
    pub(crate) fn of(key: &Key) -> Self {
        let default = if key.is_derived() { key.default_text() } else { format!("`{}`", key.default_text()) };
        Self::new(key.name, &default, &key.allowed_text())
    }

    fn new(key: &str, default: &str, allowed: &str) -> Self {
        Self { key: key.to_owned(), start: format!("| `{key}` | {default} | {allowed} | ") }
    }
}

/// Complaints about keys without a true row in `tuning.md`, and about rows without a key.
pub(crate) fn check_keys(rows: &[Row], tuning: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for row in rows {
        let count = tuning.lines().filter(|line| line.starts_with(&row.start)).count();
        if count != 1 {
            complaints.push(format!(
                "tuning.md: `{}` has {count} rows of the form below, it needs one that goes on with its effect\n  {}",
                row.key, row.start
            ));
        }
    }
    // A table of keys has this head; other tables are free.
    let is_head = |line: &&str| line.starts_with("| key | default | allowed |");
    let mut lines = tuning.lines();
    while lines.by_ref().any(|line| is_head(&line)) {
        for line in lines.by_ref().skip(1).take_while(|line| line.starts_with('|')) {
            let key = line.split('`').nth(1).unwrap_or_default();
            if !rows.iter().any(|row| row.key == key) {
                complaints.push(format!(
                    "tuning.md: no key `{key}` exists: take its row out, or add it to src/config/keys.rs"
                ));
            }
        }
    }
    complaints
}

/// Complaints about benches whose numbers stand nowhere.
pub(crate) fn check_benches(tree: &Tree) -> Vec<String> {
    let documents = [tree.text("tuning.md"), tree.text("BENCHMARKS.md")];
    let benches = tree.rust().filter_map(|file| file.path.strip_prefix("benches/")?.strip_suffix(".rs"));
    benches
        .filter(|name| {
            !name.contains('/')
                && !documents.iter().any(|text| {
                    text.contains(&format!("`{name}`")) || text.contains(&format!("--bench {name}"))
                })
        })
        .map(|name| {
            format!(
                "benches/{name}.rs: name it in tuning.md or BENCHMARKS.md, with its command and its number"
            )
        })
        .collect()
}

/// Complaints about fixtures that no test names, by file or by folder.
pub(crate) fn check_fixtures(tree: &Tree) -> Vec<String> {
    let is_named = |name: &str| tree.rust().any(|file| file.text.contains(name));
    let fixtures = tree.files().filter_map(|file| file.path.strip_prefix("tests/fixtures/"));
    fixtures
        .filter(|path| !is_rust(path) && !path.split('/').any(is_named))
        .map(|path| format!("tests/fixtures/{path}: no test reads it: write one, or delete it"))
        .collect()
}

/// Complaints about links from one document to a file that is not there.
pub(crate) fn check_links(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in tree.files().filter(|file| file.path.ends_with(".md")) {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for target in file.text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            let is_elsewhere = target.is_empty() || target.contains("://") || target.starts_with("mailto:");
            let path = if folder.is_empty() { target.to_owned() } else { format!("{folder}/{target}") };
            let is_there = tree.files().any(|other| {
                other.path == path || other.path.starts_with(&format!("{}/", path.trim_end_matches('/')))
            });
            if !is_elsewhere && !is_there {
                complaints.push(format!("{}: the link to {target} leads nowhere: correct it", file.path));
            }
        }
    }
    complaints
}

#[test]
fn missing_module_docs_are_found() {
    for text in ["", "use x;", "// comment", "/// item", "\n//! late"] {
        assert_eq!(check_module_docs("a.rs", text).len(), 1, "{text}");
    }
    assert_eq!(check_module_docs("a.rs", "//! What it is.\n"), Vec::<String>::new());
}

#[test]
fn dead_files_are_found() {
    let manifest =
        "[[bin]]\npath = \"src/main.rs\"\n[[test]]\npath = \"tests/it/main.rs\"\n[[bench]]\nname = \"trie\"";
    let tree = Tree::of(&[
        ("Cargo.toml", manifest),
        ("src/lib.rs", "pub mod a;\npub mod b; // mod e;"),
        ("src/main.rs", ""),
        ("src/a.rs", "mod c;"),
        ("src/a/c.rs", ""),
        ("src/b/mod.rs", "mod tests;"),
        ("src/b/tests.rs", ""),
        ("tests/it/main.rs", "mod x;"),
        ("tests/it/x.rs", ""),
        ("benches/trie.rs", ""),
        ("loadgen/Cargo.toml", "[package]"),
        ("loadgen/src/main.rs", "mod y;"),
        ("loadgen/src/y.rs", ""),
    ]);
    assert_eq!(check_reachable(&tree), Vec::<String>::new());
    for dead in [
        "src/e.rs",
        "src/b/f.rs",
        "src/g/mod.rs",
        "tests/tidy/main.rs",
        "benches/codec.rs",
        "loadgen/src/z.rs",
    ] {
        let mut files: Vec<(&str, &str)> =
            tree.files().map(|file| (file.path.as_str(), file.text.as_str())).collect();
        files.push((dead, ""));
        assert_eq!(check_reachable(&Tree::of(&files)).len(), 1, "{dead}");
    }
}

#[test]
fn keys_without_row_and_rows_without_key_are_found() {
    let rows = [Row::new("a.b", "`1`", "an integer"), Row::new("c", "many", "a path")];
    let head = "| key | default | allowed | effect |\n|---|---|---|---|\n";
    let good = format!(
        "{head}| `a.b` | `1` | an integer | x |\n\ntext\n\n{head}| `c` | many | a path | y |\n| `x` |\n"
    );
    assert_eq!(check_keys(&rows, &good).len(), 1, "a row without key");
    let good = good.replace("| `x` |\n", "\n| other | table |\n| `x` | y |\n");
    assert_eq!(check_keys(&rows, &good), Vec::<String>::new());
    for (from, to) in
        [("`1`", "`2`"), ("an integer", "a number"), ("| `c` | many | a path | y |\n", ""), ("a.b", "a.c")]
    {
        assert!(!check_keys(&rows, &good.replace(from, to)).is_empty(), "{from} -> {to}");
    }
    assert!(!check_keys(&rows, "").is_empty());
}

#[test]
fn benches_without_number_are_found() {
    let tree =
        |tuning| Tree::of(&[("benches/trie.rs", ""), ("benches/support/mod.rs", ""), ("tuning.md", tuning)]);
    assert_eq!(check_benches(&tree("nothing")).len(), 1);
    assert_eq!(check_benches(&tree("the tries")).len(), 1);
    assert_eq!(check_benches(&tree("`cargo bench --bench trie`: 1 ns")), Vec::<String>::new());
}

#[test]
fn fixtures_without_test_are_found() {
    let tree = |test| Tree::of(&[("tests/fixtures/logs/a.bin", ""), ("tests/it/main.rs", test)]);
    assert_eq!(check_fixtures(&tree("fn f() {}")).len(), 1);
    assert_eq!(check_fixtures(&tree("read(\"logs\")")), Vec::<String>::new());
}

#[test]
fn links_into_nothing_are_found() {
    let tree = |text| {
        Tree::of(&[("README.md", text), ("tuning.md", ""), ("docs/a.md", "[up](b.md)"), ("docs/b.md", "")])
    };
    assert_eq!(check_links(&tree("[x](gone.md)")).len(), 1);
    assert_eq!(
        check_links(&tree("[x](tuning.md#keys), [y](docs/), [z](https://a.b/c), [w](#here)")),
        Vec::<String>::new()
    );
}
