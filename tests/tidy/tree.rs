//! The repository's text files, read once.

use crate::code;
use std::fs;
use std::path::Path;

/// Where the operator's or the build's own files lie, and what is not text of ours.
const SKIPPED: &[&str] = &[".git", "target", "quelea-data", "node_modules", "corpus"];

/// All text files of the repository, or a made-up few.
pub(crate) struct Tree {
    files: Vec<File>,
}

/// One text file.
pub(crate) struct File {
    /// From the root, with `/`.
    pub(crate) path: String,
    /// As it is.
    pub(crate) text: String,
    /// Of a Rust file: comments and the insides of literals blanked out, line for line.
    pub(crate) code: String,
}

impl File {
    fn new(path: &str, text: &str) -> Self {
        let code = if is_rust(path) { code::blank(text) } else { String::new() };
        Self { path: path.to_owned(), text: text.to_owned(), code }
    }
}

impl Tree {
    /// Reads the repository this test was built from.
    pub(crate) fn load() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = Vec::new();
        read_folder(root, "", &mut files);
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Self { files }
    }

    /// A made-up tree of (path, text).
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        Self { files: files.iter().map(|(path, text)| File::new(path, text)).collect() }
    }

    /// All files.
    pub(crate) fn files(&self) -> impl Iterator<Item = &File> {
        self.files.iter()
    }

    /// All Rust files.
    pub(crate) fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| is_rust(&file.path))
    }

    /// The file of that path.
    pub(crate) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The text of that file, empty if there is none.
    pub(crate) fn text(&self, path: &str) -> &str {
        self.file(path).map_or("", |file| &file.text)
    }
}

/// Whether it is a Rust source file.
pub(crate) fn is_rust(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "rs")
}

fn read_folder(root: &Path, folder: &str, files: &mut Vec<File>) {
    let entries = fs::read_dir(root.join(folder)).expect("a folder of the repository can be read");
    for entry in entries {
        let entry = entry.expect("a folder of the repository can be read");
        let name = entry.file_name().into_string().expect("names in the repository are UTF-8");
        if SKIPPED.contains(&name.as_str()) {
            continue;
        }
        let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        let kind = entry.file_type().expect("an entry of the repository has a type");
        if kind.is_dir() {
            read_folder(root, &path, files);
        } else if kind.is_file() {
            // What is not UTF-8 is a binary fixture: it has a path, and no words.
            let text =
                String::from_utf8(fs::read(entry.path()).expect("a file can be read")).unwrap_or_default();
            files.push(File::new(&path, &text));
        }
    }
}
