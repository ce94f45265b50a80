//! Commands that are killed, and whose power is cut, from the same initial states.

use crate::databases;
use crate::developer::at_work;
use crate::env::TestEnv;
use crate::proof::Scene;
use crate::sets::{Set, change, content, named, pull};

pub const RESTORE: [&str; 3] = ["restore-db", "--latest", "--yes"];
pub const UNDO: [&str; 3] = ["restore-db", "--undo", "--yes"];

/// The newest snapshot of a kind, by content.
pub fn newest(env: &TestEnv, kind: &str) -> Set {
    content(&env.data().join(named(env, kind).remove(0)))
}

pub fn restore() -> Scene {
    let env = at_work();
    let new = newest(&env, "pull");
    Scene::new("restore", env, &RESTORE).becomes(new)
}

pub fn restore_under_app() -> Scene {
    let env = TestEnv::new();
    let production = env.production().display().to_string();
    env.app(["setup", "--data-dir", &production, "--rows", "100"]).ok();
    pull(&env);
    let tenant = env.data().join("tenant_iris.db");
    databases::execute(&tenant, "UPDATE pull_requests SET title = 'mine'");
    let new = newest(&env, "pull");
    let scene = Scene::new("restore under an app", env, &RESTORE).becomes(new);
    scene.under(|env| env.serve(&env.data()))
}

pub fn undo() -> Scene {
    let env = at_work();
    env.xtask(RESTORE).ok();
    change(&env.data().join("data.db"));
    let new = newest(&env, "before-restore");
    Scene::new("undo", env, &UNDO).becomes(new)
}
