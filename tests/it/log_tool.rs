//! `quelea log` as an operator runs it: exit status, standard output, standard error.

use std::path::{Path, PathBuf};
use std::process::Command;

const HEALTHY: &[u8] = include_bytes!("../fixtures/log-v1/healthy.log");

/// A data directory whose one shard has this log.
fn directory(name: &str, log: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("log-tool-{name}-{}", std::process::id()));
    std::fs::create_dir_all(path.join("log/000")).expect("a folder under target/ can be made");
    std::fs::write(path.join("log/meta"), "quelea-log 1\nshards 1\n")
        .expect("a file under target/ can be written");
    std::fs::write(path.join("log/000/00000.log"), log).expect("a file under target/ can be written");
    path
}

fn log(args: &[&str], folder: &Path) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quelea"));
    let output = command
        .arg("log")
        .args(args)
        .arg("--data-dir")
        .arg(folder)
        .output()
        .expect("the binary under test starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_sound_log() {
    let folder = directory("sound", HEALTHY);
    let (code, text, errors) = log(&["inspect"], &folder);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{text}");
    assert!(text.contains("messages") && text.ends_with("sound\n"), "{text}");
    let (code, json, _) = log(&["inspect", "--json"], &folder);
    assert!(code == Some(0) && json.starts_with(r#"{"verdict":"sound""#), "{json}");
    std::fs::remove_dir_all(folder).expect("the folder is there");
}

#[test]
fn a_damaged_log() {
    let mut bytes = HEALTHY.to_vec();
    bytes[4 * 4096 + 100] ^= 1;
    let folder = directory("damaged", &bytes);
    let (code, text, errors) = log(&["verify"], &folder);
    assert_eq!((code, errors.as_str()), (Some(2), ""), "{text}");
    assert!(text.contains("00000.log at 16384: 4096 bytes cannot be read"), "{text}");
    std::fs::remove_dir_all(folder).expect("the folder is there");
}

#[test]
fn no_log() {
    let nowhere = Path::new("/proc/no-such-folder");
    for args in [&["inspect"][..], &["verify"], &["compact"], &["dump", "--client-id", "x"]] {
        let (code, text, errors) = log(args, nowhere);
        assert_eq!((code, text.as_str()), (Some(1), ""), "{args:?}");
        assert!(errors.contains("holds no durable log"), "{args:?}: {errors}");
    }
}
