//! Whatever a file system has after a power cut, nothing is lost, and the next command leaves nothing
//! of what was cut.

use tests::databases;
use tests::developer::at_work;
use tests::env::TestEnv;
use tests::faults::can_trace;
use tests::proof::Scene;
use tests::sets::{Set, change, content, named, pull};

const RESTORE: [&str; 3] = ["restore-db", "--latest", "--yes"];
const UNDO: [&str; 3] = ["restore-db", "--undo", "--yes"];

/// The newest snapshot of a kind, by content.
fn newest(env: &TestEnv, kind: &str) -> Set {
    content(&env.data().join(named(env, kind).remove(0)))
}

fn restore() -> Scene {
    let env = at_work();
    let new = newest(&env, "pull");
    Scene::new("restore", env, &RESTORE).becomes(new)
}

#[test]
fn a_restore_has_happened_or_has_not() {
    if can_trace() {
        restore().prove_power_cuts();
    }
}

/// So the states are such that can go wrong.
#[test]
fn without_a_sync_a_restore_would_lose_something() {
    if can_trace() {
        restore().needs_syncs(&[".xtask/staged/data.db", ".xtask/staged", ".xtask"]);
    }
}

#[test]
fn a_restore_under_a_running_app_has_happened_or_has_not() {
    if can_trace() {
        let env = TestEnv::new();
        let production = env.production().display().to_string();
        env.app(["setup", "--data-dir", &production, "--rows", "100"]).ok();
        pull(&env);
        let tenant = env.data().join("tenant_iris.db");
        databases::execute(&tenant, "UPDATE pull_requests SET title = 'mine'");
        let new = newest(&env, "pull");
        let scene = Scene::new("restore under an app", env, &RESTORE).becomes(new);
        scene.under(|env| env.serve(&env.data())).prove_power_cuts();
    }
}

#[test]
fn going_back_has_happened_or_has_not() {
    if can_trace() {
        let env = at_work();
        env.xtask(RESTORE).ok();
        change(&env.data().join("data.db"));
        let new = newest(&env, "before-restore");
        Scene::new("undo", env, &UNDO).becomes(new).prove_power_cuts();
    }
}

#[test]
fn a_pull_has_happened_or_has_not() {
    if can_trace() {
        let env = at_work();
        change(&env.production().join("data.db"));
        let new = content(&env.production());
        let via = format!("local:{}", env.production().display());
        Scene::new("pull", env, &["pull-db", "--via", &via]).becomes(new).prove_power_cuts();
    }
}

#[test]
fn a_save_is_whole_or_none() {
    if can_trace() {
        Scene::new("snapshots create", at_work(), &["snapshots", "create"]).prove_power_cuts();
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
        let prune = ["snapshots", "prune", "--keep", "2", "--yes"];
        Scene::new("snapshots prune", env, &prune).removes(may_go).prove_power_cuts();
    }
}
