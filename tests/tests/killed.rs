//! A command that is killed at any moment leaves the old set or the new one,
//! and the next command leaves nothing of the killed one behind.

#![expect(clippy::print_stdout, reason = "a test that fails says where it was")]

use tests::databases;
use tests::env::TestEnv;
use tests::process::wait_for;
use tests::scene::{Scene, can_trace, signalled};
use tests::sets::{assert_same, change, content, developer, named, pull, snapshots};
use tests::store::left_behind;

const RESTORE: [&str; 3] = ["restore-db", "--latest", "--yes"];
const PRUNE: [&str; 2] = ["snapshots", "prune"];

/// Runs xtask, and kills it instead of its `n`th call of `syscall`; whether it
/// got that far.
#[track_caller]
fn killed(env: &TestEnv, args: &[&str], syscall: &str, n: usize) -> bool {
    let output = signalled(env, args, "KILL", syscall, n);
    assert!(matches!(output.code, None | Some(0)), "{output}");
    output.code.is_none()
}

/// After the next command the set is the old or the new one, with the way back
/// from the new one to the old one.
#[track_caller]
fn check(scene: &Scene) {
    scene.env.xtask(PRUNE).ok();
    assert_eq!(left_behind(&scene.env.data()), [""; 0]);
    for snapshot in snapshots(&scene.env) {
        assert!(snapshot["defect"].is_null(), "{snapshot}");
    }
    let live = content(&scene.env.data());
    if live != scene.old {
        assert_same(&live, &scene.new);
        scene.env.xtask(["restore-db", "--undo", "--yes"]).ok();
        assert_same(&content(&scene.env.data()), &scene.old);
    }
}

#[test]
fn a_restore_that_is_killed_has_happened_or_has_not() {
    if !can_trace() {
        return;
    }
    let scene = Scene::begin();
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
            check(&scene);
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
    let mut scene = Scene::begin();
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
            check(&scene);
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
    let scene = Scene::begin();
    // The first of these makes the snapshot, and the others come after the decision.
    for first in [1, 2, 3] {
        for syscall in ["rename", "renameat", "unlink", "fsync", "unlinkat"] {
            for n in 1.. {
                scene.set();
                assert!(killed(&scene.env, &RESTORE, "rename", first));
                let killed = killed(&scene.env, &PRUNE, syscall, n);
                println!("rename {first}, then {syscall} {n}");
                check(&scene);
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
    let scene = Scene::begin();
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
