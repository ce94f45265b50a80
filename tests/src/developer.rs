//! A developer in the middle of work, for commands that end anywhere.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::databases;
use crate::env::TestEnv;
use crate::process::command;
use crate::sets::{Set, content, developer};

/// A developer with databases of dozens of pages, whose program was killed while
/// it wrote to the live set: a row of each is in its `-wal` only.
pub fn at_work() -> TestEnv {
    let env = developer();
    for name in ["data.db", "tenant_iris.db"] {
        let live = env.data().join(name);
        let away = env.path(name);
        fs::rename(&live, &away).expect("rename");
        let writer = Connection::open(&away).expect("open");
        databases::insert(&writer, 20, 7);
        for end in ["", "-wal", "-shm"] {
            let (from, to) =
                (format!("{}{end}", away.display()), format!("{}{end}", live.display()));
            fs::copy(from, to).expect("copy");
        }
    }
    env
}

/// A data directory as a command finds it, any number of times.
pub struct Found {
    data: PathBuf,
    kept: PathBuf,
}

impl Found {
    /// As it is now.
    pub fn now(env: &TestEnv) -> Found {
        let found = Found { data: env.data(), kept: env.path("found") };
        copy(&found.data, &found.kept);
        found
    }

    pub fn restore(&self) {
        if self.data.exists() {
            fs::remove_dir_all(&self.data).expect("remove");
        }
        copy(&self.kept, &self.data);
    }
}

/// What is live, without a change to it: whoever opens a database may take in
/// what a killed program left beside it.
pub fn look(env: &TestEnv) -> Set {
    let copy = env.path("look");
    let _ = fs::remove_dir_all(&copy);
    fs::create_dir(&copy).expect("make a directory");
    for name in databases::files(&env.data()) {
        if name.contains(".db") {
            fs::copy(env.data().join(&name), copy.join(&name)).expect("copy");
        }
    }
    content(&copy)
}

fn copy(from: &Path, to: &Path) {
    let copied = command("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "cp fails");
}
