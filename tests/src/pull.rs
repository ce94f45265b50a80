//! `cargo xtask pull-db` from a small production, and the checks after each run.

use serde_json::Value;

use crate::databases;
use crate::env::TestEnv;
use crate::output::Output;
use crate::process::wait_for;
use crate::server::Sshd;
use crate::store::{self, Snapshot};

pub const NAMES: [&str; 3] = ["data.db", "tenant_iris.db", "tenant_juno.db"];

/// A server with three databases.
pub fn production() -> (TestEnv, Sshd) {
    let (env, sshd) = TestEnv::with_server();
    for (seed, name) in (1..).zip(NAMES) {
        databases::create(&env.production().join(name), 400, seed);
    }
    (env, sshd)
}

/// A successful pull; asserts that no files are left on either side.
#[track_caller]
pub fn pull(env: &TestEnv, args: &[&str]) -> Output {
    let earlier = env.unexpected().len();
    let output = env.xtask([&["pull-db"], args].concat()).ok();
    assert_tidy(env);
    assert_eq!(store::leftover(&env.data()), None, "{output}");
    let unexpected = env.unexpected().split_off(earlier);
    assert_eq!(unexpected, [""; 0], "on the server's standard error\n{output}");
    output
}

/// A pull that must fail with this code, change nothing and leave no files.
#[track_caller]
pub fn pull_fails(env: &TestEnv, args: &[&str], code: i32) -> Output {
    let before = (store::fingerprint(&env.data()), store::kinds(&env.data()));
    let output = env.xtask([&["pull-db"], args].concat()).fails(code).stdout_is("");
    let after = (store::fingerprint(&env.data()), store::kinds(&env.data()));
    assert!(before == after, "the live set or its snapshots changed: {after:?}\n{output}");
    assert_tidy(env);
    output
}

#[track_caller]
pub fn assert_tidy(env: &TestEnv) {
    let none: [&str; 0] = [];
    assert_eq!(store::left_behind(&env.data()), none, "in .xtask");
    // The server's last process may end a moment after the client.
    wait_for("the server to clean up", || {
        databases::files(&env.path("tmp")).is_empty().then_some(())
    });
    let mut local = databases::files(&env.path("local-tmp"));
    local.retain(|name| !name.starts_with("standin-fly-"));
    assert_eq!(local, none, "in the local TMPDIR");
}

/// The newest snapshot.
#[track_caller]
pub fn snapshot(env: &TestEnv) -> Snapshot {
    store::snapshots(&env.data()).pop().expect("there is a snapshot")
}

/// A value in the newest `snapshot.json`, such as `/origin/app`.
#[track_caller]
pub fn recorded(env: &TestEnv, pointer: &str) -> Value {
    snapshot(env).json.pointer(pointer).cloned().unwrap_or_default()
}

/// The names of the live files.
pub fn live(env: &TestEnv) -> Vec<String> {
    store::fingerprint(&env.data()).into_keys().collect()
}

#[track_caller]
pub fn assert_live_equals_production(env: &TestEnv, names: &[&str]) {
    for name in names {
        databases::assert_same(&env.production().join(name), &env.data().join(name));
    }
}
