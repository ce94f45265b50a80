//! Whatever call of a command is its last, or fails, nothing is lost; and the
//! next command leaves nothing of it behind.

use std::fs::File;

use rusqlite::Connection;
use tests::developer::at_work;
use tests::env::TestEnv;
use tests::faults::{Fault, Injection, can_trace, inject};
use tests::long::long;
use tests::proof::Scene;
use tests::scenes::{self, RESTORE, UNDO, newest};
use tests::sets::{assert_same, change, content, named, pull};
use tests::store::snapshots;

#[test]
fn a_restore_has_happened_or_has_not() {
    if can_trace() {
        scenes::restore().prove();
    }
}

#[test]
fn a_restore_under_a_running_app_has_happened_or_has_not() {
    if can_trace() {
        scenes::restore_under_app().prove();
    }
}

#[test]
fn going_back_has_happened_or_has_not() {
    if can_trace() {
        scenes::undo().prove();
    }
}

/// A restore that is killed instead of its `nth` rename; whether it was decided.
fn killed_at(env: &TestEnv, nth: usize) -> bool {
    assert!(
        inject(env, &RESTORE, &Injection { syscall: "rename", fault: Fault::Kill, nth }).killed()
    );
    env.data().join(".xtask/journal.json").exists()
}

#[test]
fn the_command_that_finishes_a_killed_one_may_fail_too() {
    if !can_trace() {
        return;
    }
    // The first rename makes the snapshot; then one database is renamed after the other.
    let decided = if long() { &[2, 3][..] } else { &[3] };
    for nth in decided {
        let env = at_work();
        let new = newest(&env, "pull");
        assert!(killed_at(&env, *nth), "not decided at rename {nth}");
        // Not through a list, which would finish it.
        let saved = snapshots(&env.data()).pop().expect("what was live is saved");
        let old = content(&saved.path);
        Scene::new("finishing", env, &["snapshots", "create"]).was(old).becomes(new).prove();
    }
}

#[test]
fn what_was_finished_is_said_and_can_be_undone_at_once() {
    if !can_trace() {
        return;
    }
    let env = at_work();
    // The way back of an earlier restore must not be taken for that of the killed one.
    env.xtask(RESTORE).ok();
    env.xtask(UNDO).ok();
    change(&env.data().join("data.db"));
    let mine = content(&env.data());
    assert!(killed_at(&env, 2));
    env.xtask(UNDO)
        .ok()
        .stderr_has("warning: a run was killed while it put backup_")
        .stderr_has("that is now finished");
    assert_same(&content(&env.data()), &mine);
}

const LISTS: [&[&str]; 3] =
    [&["restore-db", "--list"], &["snapshots", "list"], &["snapshots", "list", "--json"]];

#[test]
fn a_list_finishes_a_killed_run_and_says_so_first() {
    if !can_trace() {
        return;
    }
    for list in LISTS {
        let env = at_work();
        let new = newest(&env, "pull");
        assert!(killed_at(&env, 2));
        let listed = env.xtask(list).ok();
        assert!(listed.stderr.starts_with("warning: a run was killed while it put"), "{listed}");
        assert!(listed.stderr.ends_with(": that is now finished\n"), "{listed}");
        assert_same(&content(&env.data()), &new);
        env.xtask(list).ok().stderr_is("").stdout_is(listed.stdout());
    }
}

#[test]
fn a_list_waits_for_nobody_to_finish_a_killed_run() {
    if !can_trace() {
        return;
    }
    let env = at_work();
    assert!(killed_at(&env, 2));
    let partly = "warning: the databases in <ROOT>/repo/data are only partly replaced: ";
    let lists_all_and_says = |why: &str| {
        for list in LISTS {
            let listed = env.xtask(list).ok();
            let said = env.normalize(&listed.stderr);
            assert!(said.starts_with(&format!("{partly}{why}")), "{listed}");
            assert!(listed.stdout().contains("before-restore"), "{listed}");
        }
    };
    let program = Connection::open(env.data().join("tenant_iris.db")).expect("open");
    program.execute_batch("BEGIN IMMEDIATE").expect("lock");
    lists_all_and_says("a run was killed while it put backup_");
    drop(program);
    let lock = File::open(env.data().join(".xtask/lock")).expect("open");
    lock.lock().expect("lock");
    lists_all_and_says("another command is running\nhint: ");
}

#[test]
fn room_can_be_made_before_a_killed_run_is_finished() {
    if !can_trace() {
        return;
    }
    let env = at_work();
    env.xtask(["snapshots", "create"]).ok();
    let mine = named(&env, "manual").remove(0);
    let new = newest(&env, "pull");
    assert!(killed_at(&env, 2));
    let program = Connection::open(env.data().join("tenant_iris.db")).expect("open");
    program.execute_batch("BEGIN IMMEDIATE").expect("lock");
    for args in [&["snapshots", "prune", "--yes"][..], &["snapshots", "rm", &mine, "--yes"]] {
        let output = env.xtask([args, &["--no-wait"]].concat());
        output
            .ok()
            .stderr_has("warning: a run was killed while it put backup_")
            .stderr_has(" was locked by ");
    }
    env.xtask(["restore-db", "--latest", "--yes", "--no-wait"])
        .fails(1)
        .stderr_has(" was locked by ");
    drop(program);
    env.xtask(["snapshots", "prune", "--yes"]).ok().stderr_has("that is now finished");
    assert_same(&content(&env.data()), &new);
    env.xtask(UNDO).ok();
}

#[test]
fn a_pull_has_happened_or_has_not() {
    if can_trace() {
        let env = at_work();
        change(&env.production().join("data.db"));
        let new = content(&env.production());
        let via = format!("local:{}", env.production().display());
        Scene::new("pull", env, &["pull-db", "--via", &via]).becomes(new).prove();
    }
}

#[test]
fn a_save_is_whole_or_none() {
    if can_trace() {
        Scene::new("snapshots create", at_work(), &["snapshots", "create"]).prove();
    }
}

#[test]
fn a_snapshot_that_is_removed_is_gone_or_whole() {
    if can_trace() {
        let env = at_work();
        env.xtask(["snapshots", "create"]).ok();
        let name = named(&env, "manual").remove(0);
        let scene = Scene::new("snapshots rm", env, &["snapshots", "rm", &name, "--yes"]);
        scene.removes(vec![name]).prove();
    }
}

#[test]
fn snapshots_that_are_pruned_are_gone_or_whole() {
    if can_trace() {
        let env = at_work();
        let may_go = vec![named(&env, "pull").remove(0)];
        for _ in 0..2 {
            change(&env.production().join("data.db"));
            pull(&env);
        }
        let scene =
            Scene::new("snapshots prune", env, &["snapshots", "prune", "--keep", "2", "--yes"]);
        scene.removes(may_go).prove();
    }
}
