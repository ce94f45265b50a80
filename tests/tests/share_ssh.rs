//! A store in a directory that ssh reaches.

use std::fs;

use tests::env::TestEnv;
use tests::process::Running;
use tests::server::Environment;
use tests::sets::{assert_same, content, developer, pull};
use tests::share::SharedStore;
use tests::shells;

fn publisher(store: &SharedStore) -> TestEnv {
    let env = developer();
    store.settings(&env, "");
    pull(&env);
    env
}

#[test]
fn any_shell_will_do_and_one_connection() {
    let root = tempfile::tempdir().expect("a temp dir");
    for path in [shells::debian(root.path(), &[]), shells::busybox(root.path(), &[])] {
        let store = SharedStore::behind(&Environment::default().set("PATH", &path));
        let env = publisher(&store);
        store.publish(&env);
        assert_eq!(store.logins(), 1);
        let other = store.member();
        store.pull(&other);
        assert_eq!(store.logins(), 2);
        assert_same(&content(&other.data()), &content(&env.data()));
        let objects = store.objects().len();
        let prune = ["snapshots", "prune", "--share", "--keep", "1", "--yes"];
        store.xtask(&env, &prune).ok();
        assert_eq!(store.objects().len(), objects, "all of them are needed");
    }
}

/// A connection that is cut leaves a file beside an object: it is none, and hinders nobody.
#[test]
fn what_a_cut_connection_has_left_is_no_object() {
    let store = SharedStore::behind_ssh();
    let env = publisher(&store);
    fs::create_dir_all(store.path().join("index")).expect("make a directory");
    fs::write(store.path().join("index/00000001.new-7"), "{").expect("write");
    store.publish(&env);
    fs::write(store.path().join("index/00000002.new-7"), "{").expect("write");
    let other = store.member();
    store.pull(&other);
    assert_same(&content(&other.data()), &content(&env.data()));
    // Nobody has half an object: the script takes its size first.
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../xtask/src/objects/store.sh");
    let mut half = env.command("sh");
    half.arg(script);
    let request = format!("{}\nput\nobjects/cut\n10\nhalf", store.path().display());
    let output = Running::start_with_stdin(&mut half, request.as_bytes()).wait();
    output.fails(43);
    assert!(store.objects().iter().all(|path| !path.to_string_lossy().contains("cut")));
}

#[test]
fn what_ssh_cannot_reach_is_told() {
    let store = SharedStore::behind_ssh();
    let env = publisher(&store);
    let none = store.xtask(&env, &["pull-db", "--via", "share"]).fails(1);
    none.stderr_has("is no directory of a store").stderr_has("snapshots publish creates it");
    fs::write(store.path(), "a file").expect("write");
    let file = store.xtask(&env, &["snapshots", "publish"]).fails(1);
    file.stderr_has("cannot write to ssh://").stderr_has("hint: ");

    env.db_toml("[share]\nurl = 'ssh://nobody@127.0.0.1:1/store'\n");
    let dead = store.xtask(&env, &["pull-db", "--via", "share"]).fails(1);
    dead.stderr_has("the store cannot be reached").stderr_has("Connection refused");
    let offline = store.xtask(&env, &["pull-db", "--via", "share", "--offline-ok"]).ok();
    offline.stderr_has("warning: ");
    env.db_toml("[share]\nurl = 'ssh://-oProxyCommand=x/store'\n");
    store.xtask(&env, &["snapshots"]).fails(2).stderr_has("is not the place of a store");
}
