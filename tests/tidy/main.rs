//! The repository tests its own rules: layers, docs, sizes, words, unsafe code, configuration keys, fixtures.
//!
//! Each check is a function from text to complaints. Every complaint says what to do instead, and every check has a bad
//! sample here that it must complain about. Nothing is built or run: the checks read the tree as text.
//!
//! Cost: one read of every source file and one pass over each for each check.

mod code;
mod docs;
mod layers;
mod purity;
mod size;
mod tree;
mod words;

use tree::Tree;

/// Fails with all complaints, one a line.
fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn the_tree_was_found() {
    let tree = Tree::load();
    for path in
        ["Cargo.toml", "src/lib.rs", "src/main.rs", "src/base/mod.rs", "tests/tidy/main.rs", "tuning.md"]
    {
        assert!(tree.file(path).is_some(), "{path} is not in the tree");
    }
    assert!(tree.rust().count() > 30, "a tree without sources passes every check");
}

#[test]
fn arrows_between_modules_point_down() {
    let tree = Tree::load();
    assert_none(&tree.rust().flat_map(|file| layers::check(&file.path, &file.code)).collect::<Vec<_>>());
}

#[test]
fn below_the_runtime_nothing_touches_the_world() {
    let tree = Tree::load();
    assert_none(&tree.rust().flat_map(|file| purity::check(&file.path, &file.code)).collect::<Vec<_>>());
}

#[test]
fn unsafe_code_is_where_it_is_listed() {
    let tree = Tree::load();
    assert_none(&purity::check_unsafe(&tree, purity::UNSAFE_FILES));
}

#[test]
fn every_source_file_says_what_it_is() {
    let tree = Tree::load();
    assert_none(
        &tree.rust().flat_map(|file| docs::check_module_docs(&file.path, &file.text)).collect::<Vec<_>>(),
    );
}

#[test]
fn every_source_file_is_part_of_the_build() {
    assert_none(&docs::check_reachable(&Tree::load()));
}

#[test]
fn files_and_functions_are_small() {
    let tree = Tree::load();
    assert_none(&tree.rust().flat_map(|file| size::check_file(&file.path, &file.text)).collect::<Vec<_>>());
    assert_none(
        &tree.rust().flat_map(|file| size::check_functions(&file.path, &file.code)).collect::<Vec<_>>(),
    );
}

#[test]
fn banned_words_are_absent() {
    let tree = Tree::load();
    assert_none(&tree.files().flat_map(|file| words::check_text(&file.path, &file.text)).collect::<Vec<_>>());
    assert_none(&tree.rust().flat_map(|file| words::check_code(&file.path, &file.code)).collect::<Vec<_>>());
}

#[test]
fn every_key_stands_in_tuning_md() {
    let tree = Tree::load();
    let rows: Vec<docs::Row> = quelea::config::keys::all().iter().map(docs::Row::of).collect();
    assert_none(&docs::check_keys(&rows, tree.text("tuning.md")));
}

#[test]
fn every_bench_is_named_where_its_numbers_are() {
    assert_none(&docs::check_benches(&Tree::load()));
}

#[test]
fn every_fixture_is_used() {
    assert_none(&docs::check_fixtures(&Tree::load()));
}

#[test]
fn links_between_documents_lead_somewhere() {
    assert_none(&docs::check_links(&Tree::load()));
}
