//! Sets of databases that a developer pulls, changes and restores.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::databases::{self, Content};
use crate::env::TestEnv;

/// Databases by name.
pub type Set = BTreeMap<String, Content>;

/// A developer who has pulled two databases.
pub fn developer() -> TestEnv {
    let env = TestEnv::new();
    databases::create(&env.production().join("data.db"), 30, 1);
    databases::create(&env.production().join("tenant_iris.db"), 300, 2);
    pull(&env);
    env
}

/// Pulls production; returns the name of the snapshot.
#[track_caller]
pub fn pull(env: &TestEnv) -> String {
    let via = format!("local:{}", env.production().display());
    let report = env.xtask(["pull-db", "--json", "--via", &via]).ok().json();
    report["snapshot"].as_str().expect("a pull names its snapshot").to_owned()
}

/// Adds a row to a database that no program has open.
pub fn change(path: &Path) {
    databases::execute(path, "INSERT INTO items (key) VALUES (lower(hex(randomblob(16))))");
}

/// The content of all databases in a directory, each of which must be intact.
pub fn content(directory: &Path) -> Set {
    let names = databases::files_below(directory).into_iter().filter(|name| name.ends_with(".db"));
    names
        .map(|name| {
            let path = directory.join(&name);
            databases::assert_whole(&path);
            (name, databases::content(&path))
        })
        .collect()
}

/// Names the database that differs, but not its content, which would fill the screen.
#[track_caller]
pub fn assert_same(left: &Set, right: &Set) {
    assert_eq!(left.keys().collect::<Vec<_>>(), right.keys().collect::<Vec<_>>());
    for (name, content) in left {
        assert!(*content == right[name], "{name} differs");
    }
}

/// The output of `restore-db --list --json`, newest first.
#[track_caller]
pub fn snapshots(env: &TestEnv) -> Vec<Value> {
    let output = env.xtask(["restore-db", "--list", "--json"]).ok().stderr_is("");
    output.json()["snapshots"].as_array().expect("a list").clone()
}

/// The names of all snapshots of a kind, newest first.
#[track_caller]
pub fn named(env: &TestEnv, kind: &str) -> Vec<String> {
    let of_kind = snapshots(env).into_iter().filter(|snapshot| snapshot["kind"] == kind);
    of_kind.map(|snapshot| snapshot["name"].as_str().expect("a name").to_owned()).collect()
}
