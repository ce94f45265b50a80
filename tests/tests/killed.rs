//! A command that is killed at any moment leaves the old set or the new one,
//! and the next command leaves nothing of the killed one behind.

#![expect(
    clippy::print_stdout,
    reason = "a test that is skipped says so, and one that fails where it was"
)]

use std::fs;

use rusqlite::Connection;
use tests::binaries;
use tests::databases;
use tests::env::TestEnv;
use tests::process::{Running, command, wait_for};
use tests::sets::{Set, assert_same, change, content, developer, named, pull, snapshots};
use tests::store::left_behind;

const RESTORE: [&str; 3] = ["restore-db", "--latest", "--yes"];
const PRUNE: [&str; 2] = ["snapshots", "prune"];

/// Not every machine lets one process trace another.
fn can_trace() -> bool {
    let traced = command("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    let can = traced.is_ok_and(|status| status.success());
    if !can {
        println!("skipped: strace is missing or may not trace");
    }
    can
}

/// Runs xtask, and kills it instead of its `n`th call of `syscall`; whether it
/// got that far. Only its main thread is watched, none of its children.
#[track_caller]
fn killed(env: &TestEnv, args: &[&str], syscall: &str, n: usize) -> bool {
    let mut strace = env.command("strace");
    strace.args(["-qq", "-o", "/dev/null", "-e", &format!("trace={syscall}")]);
    strace.args(["-e", &format!("inject={syscall}:signal=KILL:when={n}")]);
    strace.arg(binaries::xtask()).args(args);
    strace.arg("--config").arg(env.path("repo/xtask/db.toml"));
    let output = Running::start(&mut strace).wait();
    assert!(matches!(output.code, None | Some(0)), "{output}");
    output.code.is_none()
}

/// A developer whose program was killed while it wrote to the live set: a row
/// of each database is in its `-wal` only.
struct Scene {
    env: TestEnv,
    old: Set,
    new: Set,
}

impl Scene {
    fn new() -> Scene {
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
        let scene = Scene { old: content(&work), new, env };
        scene.set();
        scene
    }

    /// Everything as it was after the pull and the killed program.
    fn set(&self) {
        for kind in ["before-restore", "before-pull"] {
            for name in named(&self.env, kind) {
                fs::remove_dir_all(self.env.data().join(name)).expect("remove a snapshot");
            }
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

    /// After the next command the set is the old or the new one, with the way
    /// back from the new one to the old one.
    #[track_caller]
    fn check(&self) {
        self.env.xtask(PRUNE).ok();
        assert_eq!(left_behind(&self.env.data()), [""; 0]);
        for snapshot in snapshots(&self.env) {
            assert!(snapshot["defect"].is_null(), "{snapshot}");
        }
        let live = content(&self.env.data());
        if live != self.old {
            assert_same(&live, &self.new);
            self.env.xtask(["restore-db", "--undo", "--yes"]).ok();
            assert_same(&content(&self.env.data()), &self.old);
        }
    }
}

#[test]
fn a_restore_that_is_killed_has_happened_or_has_not() {
    if !can_trace() {
        return;
    }
    let scene = Scene::new();
    let mut kills = 0;
    for (syscall, step) in [
        ("rename", 1),
        ("renameat", 1),
        ("unlink", 1),
        ("fsync", 1),
        ("mkdir", 1),
        ("unlinkat", 1),
        ("write", 2),
        ("pwrite64", 7),
        ("openat", 23),
    ] {
        for n in (1..).step_by(step) {
            scene.set();
            let killed = killed(&scene.env, &RESTORE, syscall, n);
            println!("{syscall} {n}");
            scene.check();
            if !killed {
                break;
            }
            kills += 1;
        }
    }
    assert!(kills > 50, "killed {kills} times only");
}

#[test]
fn a_pull_that_is_killed_has_happened_or_has_not() {
    if !can_trace() {
        return;
    }
    let mut scene = Scene::new();
    change(&scene.env.production().join("data.db"));
    scene.new = content(&scene.env.production());
    let via = format!("local:{}", scene.env.production().display());
    for (syscall, step) in
        [("rename", 1), ("renameat", 1), ("fsync", 5), ("mkdir", 2), ("unlink", 9)]
    {
        for n in (1..).step_by(step) {
            scene.set();
            let killed = killed(&scene.env, &["pull-db", "--via", &via], syscall, n);
            println!("{syscall} {n}");
            scene.check();
            if !killed {
                break;
            }
        }
    }
    // A killed client takes its server down here; that of the next one cleans up.
    pull(&scene.env);
    wait_for("the server's side to clean up", || {
        databases::files(&scene.env.path("local-tmp")).is_empty().then_some(())
    });
}

#[test]
fn the_command_that_finishes_a_killed_one_may_be_killed_too() {
    if !can_trace() {
        return;
    }
    let scene = Scene::new();
    // The first of these makes the snapshot, and the others come after the decision.
    for first in [1, 2, 3] {
        for syscall in ["rename", "renameat", "unlink", "fsync", "unlinkat"] {
            for n in 1.. {
                scene.set();
                assert!(killed(&scene.env, &RESTORE, "rename", first));
                let killed = killed(&scene.env, &PRUNE, syscall, n);
                println!("rename {first}, then {syscall} {n}");
                scene.check();
                if !killed {
                    break;
                }
            }
        }
    }
}

#[test]
fn what_was_finished_is_said_and_can_be_undone_at_once() {
    if !can_trace() {
        return;
    }
    let scene = Scene::new();
    let env = &scene.env;
    // The way back of an earlier restore must not be taken for that of the killed one.
    env.xtask(RESTORE).ok();
    env.xtask(["restore-db", "--undo", "--yes"]).ok();
    change(&env.data().join("data.db"));
    let mine = content(&env.data());
    let journal = env.data().join(".xtask/journal.json");
    let n = (1..).find(|n| !killed(env, &RESTORE, "unlink", *n) || journal.exists());
    assert!(journal.exists(), "never killed after the decision, up to call {n:?}");
    env.xtask(["restore-db", "--undo", "--yes"])
        .ok()
        .stderr_has("warning: a run was killed while it put backup_")
        .stderr_has("that is now finished");
    assert_same(&content(&env.data()), &mine);
}

#[test]
fn the_half_of_a_snapshot_is_no_snapshot() {
    if !can_trace() {
        return;
    }
    let env = developer();
    let before = snapshots(&env).len();
    for n in 1.. {
        let killed = killed(&env, &["snapshots", "create"], "fsync", n);
        for snapshot in snapshots(&env) {
            assert!(snapshot["defect"].is_null(), "{snapshot}");
        }
        if !killed {
            break;
        }
    }
    assert!(snapshots(&env).len() > before);
    let name = named(&env, "manual").remove(0);
    assert!(killed(&env, &["snapshots", "rm", &name, "--yes"], "unlinkat", 2));
    assert!(snapshots(&env).iter().all(|snapshot| snapshot["name"] != name.as_str()));
    env.xtask(PRUNE).ok();
    assert_eq!(left_behind(&env.data()), [""; 0]);
}
