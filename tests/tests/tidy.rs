//! The hygiene of the repository, as matklad's xshell checks its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tests::process::command;
use toml::{Table, Value};

/// Written in two pieces, so that this file does not find itself.
const FORBIDDEN_IN_RUST: [(&str, &str); 4] = [
    (concat!("to", "do!("), "is unfinished"),
    (concat!("dbg", "!("), "is left from debugging"),
    (concat!("#[ign", "ore"), "switches a test off: fix or delete it"),
    (concat!("#![all", "ow("), "hides lints: expect them, with a reason"),
];

const FORBIDDEN_ANYWHERE: [(&str, &str); 2] = [
    (concat!("/wo", "rk/"), "is a path of one machine"),
    (concat!("/ro", "ot/"), "is a path of one machine"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the root").to_owned()
}

/// The tracked text files, each by its path from the root.
fn text_files() -> Vec<(String, String)> {
    let listing = command("git").current_dir(root()).args(["ls-files", "-z"]).output();
    let listing = listing.expect("git runs").stdout;
    let paths = String::from_utf8(listing).expect("tracked paths are UTF-8");
    let files: Vec<(String, String)> = paths
        .split_terminator('\0')
        .filter(|path| !path.ends_with("Cargo.lock") && !path.starts_with("tests/fuzz/corpus/"))
        // What is not UTF-8 is no text; what is not there is being deleted.
        .filter_map(|path| Some((path.to_owned(), fs::read_to_string(root().join(path)).ok()?)))
        .collect();
    assert!(!files.is_empty(), "no tracked files: is this a git repository?");
    files
}

#[track_caller]
fn none(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

/// The lines that contain a forbidden text.
fn find(path: &str, text: &str, forbidden: &[(&str, &str)], problems: &mut Vec<String>) {
    for (number, line) in (1..).zip(text.lines()) {
        for (needle, reason) in forbidden {
            if line.contains(needle) {
                problems.push(format!("{path}:{number}: `{needle}` {reason}"));
            }
        }
    }
}

#[test]
fn whitespace_is_clean() {
    let mut problems = Vec::new();
    for (path, text) in text_files() {
        for (number, line) in (1..).zip(text.split('\n')) {
            if line.ends_with([' ', '\t', '\r']) {
                problems.push(format!("{path}:{number}: trailing whitespace"));
            }
        }
        if !text.is_empty() && !text.ends_with('\n') {
            problems.push(format!("{path}: no newline at the end"));
        }
    }
    none(&problems);
}

#[test]
fn nothing_unfinished_is_left() {
    let mut problems = Vec::new();
    for (path, text) in text_files().iter().filter(|(path, _)| path.ends_with(".rs")) {
        find(path, text, &FORBIDDEN_IN_RUST, &mut problems);
    }
    none(&problems);
}

#[test]
fn no_path_belongs_to_one_machine() {
    let mut problems = Vec::new();
    for (path, text) in text_files() {
        find(&path, &text, &FORBIDDEN_ANYWHERE, &mut problems);
    }
    none(&problems);
}

/// One that `main.rs` does not name is not even compiled.
#[test]
fn every_file_of_tests_is_in_the_program() {
    let main = fs::read_to_string(root().join("tests/tests/main.rs")).expect("read");
    let modules: Vec<&str> = main.lines().filter_map(|line| line.strip_prefix("mod ")).collect();
    let mut problems = Vec::new();
    for (path, _) in text_files() {
        let file = path.strip_prefix("tests/tests/").and_then(|file| file.strip_suffix(".rs"));
        if let Some(file) = file.filter(|file| *file != "main")
            && !modules.contains(&format!("{file};").as_str())
        {
            problems.push(format!("{path}: `mod {file};` is missing in tests/tests/main.rs"));
        }
    }
    none(&problems);
}

fn manifest(path: &str) -> Table {
    let text = fs::read_to_string(root().join(path)).expect("read a manifest");
    text.parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Either `name = "1"` or `name = { version = "1", … }`.
fn version(dependency: &Value) -> Option<&str> {
    dependency.get("version").unwrap_or(dependency).as_str()
}

/// xtask/ is copied into other repositories, so it cannot inherit.
#[test]
fn xtask_repeats_the_workspace() {
    let (workspace, xtask) = (manifest("Cargo.toml"), manifest("xtask/Cargo.toml"));
    let workspace = &workspace["workspace"];
    assert_eq!(xtask["lints"], workspace["lints"], "lints of xtask and of the workspace");
    for key in ["edition", "rust-version", "license", "publish"] {
        assert_eq!(xtask["package"][key], workspace["package"][key], "{key} of xtask");
    }
    let shared = workspace["dependencies"].as_table().expect("a table");
    for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
        let section = xtask.get(section).and_then(Value::as_table);
        for (name, dependency) in section.into_iter().flatten() {
            if let Some(other) = shared.get(name) {
                assert_eq!(version(dependency), version(other), "version of {name} in xtask");
            }
        }
    }
}

/// Fuzzing is a workspace of its own, which nobody builds by the way.
#[test]
fn the_fuzzed_xtask_has_the_dependencies_of_this_one() {
    let xtask = manifest("xtask/Cargo.toml");
    let dependencies = xtask["dependencies"].as_table().expect("a table");
    let lock = manifest("tests/fuzz/Cargo.lock");
    let packages = lock["package"].as_array().expect("packages");
    let locked = packages.iter().find(|package| package["name"].as_str() == Some("xtask-db"));
    let locked = locked.and_then(|xtask| xtask["dependencies"].as_array()).expect("it is locked");
    let locked: Vec<_> = locked.iter().filter_map(Value::as_str).collect();
    // Those of a feature that is off there are not locked.
    let is_optional = |it: &Value| it.get("optional").and_then(Value::as_bool) == Some(true);
    let wanted = dependencies.iter().filter(|(_, it)| !is_optional(it)).map(|(name, _)| name);
    assert!(locked.iter().eq(wanted), "cd tests/fuzz && cargo metadata: {locked:?}");
}

#[test]
fn the_other_packages_inherit_the_lints() {
    for package in ["app", "tests", "tests/dev"] {
        let manifest = manifest(&format!("{package}/Cargo.toml"));
        assert_eq!(manifest["lints"]["workspace"], Value::Boolean(true), "{package}");
    }
}

/// Also in comments: where the other side of something is.
/// The scripts of the server are sent as one.
#[test]
fn no_two_functions_of_the_scripts_have_one_name() {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    let mut problems = Vec::new();
    let scripts = text_files().into_iter().filter(|(path, _)| path.starts_with("ops-remote/"));
    for (path, text) in scripts {
        for line in text.lines() {
            let Some((name, _)) = line.split_once("() {") else { continue };
            if let Some(other) = seen.insert(name.to_owned(), path.clone()) {
                problems.push(format!("{path}: {name} is also a function of {other}"));
            }
        }
    }
    assert!(seen.len() > 100, "only {seen:?}");
    none(&problems);
}

#[test]
fn sources_that_others_name_are_there() {
    let mut problems = Vec::new();
    for (path, text) in text_files() {
        for (at, _) in text.match_indices(concat!("xtask/", "src/")) {
            let is_name = |c: char| c.is_alphanumeric() || "/_-.".contains(c);
            let end = text[at..].find(|c| !is_name(c)).unwrap_or(text.len() - at);
            let name = text[at..at + end].trim_end_matches(['.', '/']);
            if name.ends_with(".rs") && name != "xtask/src/new.rs" && !root().join(name).exists() {
                problems.push(format!("{path}: there is no {name}"));
            }
        }
    }
    none(&problems);
}

fn documents() -> impl Iterator<Item = (String, String)> {
    text_files().into_iter().filter(|(path, _)| path.ends_with(".md"))
}

#[test]
fn links_within_the_repository_lead_somewhere() {
    let mut problems = Vec::new();
    for (path, text) in documents() {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            let beside = root().join(&path).with_file_name(file);
            if !link.contains("://") && !file.is_empty() && !beside.exists() {
                problems.push(format!("{path}: {link} leads nowhere"));
            }
        }
    }
    none(&problems);
}

/// In backquotes, from the root: what a document says that it is about.
#[test]
fn files_that_documents_name_are_there() {
    let mut problems = Vec::new();
    for (path, text) in documents() {
        for name in text.split('`').skip(1).step_by(2) {
            let is_ours = ["xtask/src/", "tests/", "ops-remote/", "docs/", "app/"]
                .iter()
                .any(|start| name.starts_with(start));
            let is_path = !name.contains([' ', '{', '*', '<']);
            if is_ours && is_path && path != "README.md" && !root().join(name).exists() {
                problems.push(format!("{path}: there is no {name}"));
            }
        }
    }
    none(&problems);
}

#[test]
fn rows_of_tables_are_not_torn_off() {
    let mut problems = Vec::new();
    for (path, text) in documents() {
        let lines: Vec<&str> = text.lines().collect();
        for (i, pair) in lines.windows(2).enumerate() {
            let begins = pair[1].starts_with('|') && !pair[0].starts_with('|');
            if begins && !lines.get(i + 2).is_some_and(|line| line.starts_with("| ---")) {
                problems.push(format!("{path}:{}: a row without its table", i + 2));
            }
        }
    }
    none(&problems);
}
