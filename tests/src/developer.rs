//! A developer in the middle of work, for commands that end anywhere.

use std::fs;

use rusqlite::Connection;

use crate::databases;
use crate::env::TestEnv;
use crate::process::Running;
use crate::sets::{Set, content, developer};
use crate::store::snapshots;
use crate::{binaries, output::Output};

/// A developer whose program was killed while it wrote to the live set: a row
/// of each database is in its `-wal` only.
pub struct Developer {
    pub env: TestEnv,
    pub old: Set,
    pub new: Set,
}

impl Developer {
    pub fn begin() -> Developer {
        let env = developer();
        let new = content(&env.data());
        let work = env.path("work");
        fs::create_dir(&work).expect("make a directory");
        fs::create_dir(env.path("old")).expect("make a directory");
        let mut writers = Vec::new();
        for name in ["data.db", "tenant_iris.db"] {
            fs::copy(env.data().join(name), work.join(name)).expect("copy");
            let writer = Connection::open(work.join(name)).expect("open");
            databases::insert(&writer, 20, 7);
            writers.push(writer);
        }
        for name in databases::files(&work) {
            fs::copy(work.join(&name), env.path("old").join(&name)).expect("copy");
        }
        drop(writers);
        let developer = Developer { old: content(&work), new, env };
        developer.set();
        developer
    }

    /// Everything as it was after the pull and the killed program.
    pub fn set(&self) {
        // All but that of the first pull, also one that came of an interrupted pull.
        for snapshot in snapshots(&self.env.data()).iter().skip(1) {
            fs::remove_dir_all(&snapshot.path).expect("remove a snapshot");
        }
        for name in databases::files(&self.env.data()) {
            if name.contains(".db") {
                fs::remove_file(self.env.data().join(name)).expect("remove");
            }
        }
        for name in databases::files(&self.env.path("old")) {
            fs::copy(self.env.path("old").join(&name), self.env.data().join(&name)).expect("copy");
        }
    }
}

/// Runs xtask, and signals it at its `n`th call of `syscall`. Only its main thread
/// is watched, none of its children.
#[track_caller]
pub fn signalled(env: &TestEnv, args: &[&str], signal: &str, syscall: &str, n: usize) -> Output {
    let mut strace = env.command("strace");
    strace.args(["-qq", "-o", "/dev/null", "-e", &format!("trace={syscall}")]);
    strace.args(["-e", &format!("inject={syscall}:signal={signal}:when={n}")]);
    strace.arg(binaries::xtask()).args(args);
    strace.arg("--config").arg(env.path("repo/xtask/db.toml"));
    Running::start(&mut strace).wait()
}
