//! A developer with local changes, for commands that are interrupted anywhere.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::databases;
use crate::env::TestEnv;
use crate::process::command;
use crate::sets::{Set, content, developer};

/// A developer with databases of dozens of pages, whose program was killed while it wrote to the
/// live set: the last row of each is only in its `-wal`.
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

/// A copy of the initial data directory, which can be restored.
pub struct Found {
    data: PathBuf,
    kept: PathBuf,
}

impl Found {
    /// Copies the current data directory.
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

/// The live set, read from a copy: opening a database would recover the `-wal` that a killed
/// program left.
pub fn look(env: &TestEnv) -> Set {
    let copy = env.path("look");
    let _ = fs::remove_dir_all(&copy);
    fs::create_dir(&copy).expect("make a directory");
    for name in databases::files_below(&env.data()) {
        if name.contains(".db") {
            let to = copy.join(&name);
            fs::create_dir_all(to.parent().expect("a directory")).expect("make directories");
            fs::copy(env.data().join(&name), to).expect("copy");
        }
    }
    content(&copy)
}

fn copy(from: &Path, to: &Path) {
    let copied = command("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "cp fails");
}
