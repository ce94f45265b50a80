//! A store that lies, is cut or is pruned.

use std::fs;

use rusqlite::Connection;
use tests::databases;
use tests::env::TestEnv;
use tests::process::Running;
use tests::sets::{assert_same, change, content, developer, named, pull, snapshots};
use tests::share::{SharedStore, add_identity, flip, recipients};
use tests::store::left_behind;

const PULL: [&str; 3] = ["pull-db", "--via", "share"];

/// One who publishes what changes each day.
fn published(store: &SharedStore, days: u32) -> TestEnv {
    let env = developer();
    store.settings(&env, "");
    for _ in 0..days {
        change(&env.production().join("tenant_iris.db"));
        pull(&env);
        store.publish(&env);
    }
    env
}

#[track_caller]
fn refuses(store: &SharedStore, env: &TestEnv) -> tests::output::Output {
    let output = store.xtask(env, &PULL).fails(1).is_harmless();
    assert_eq!(snapshots(env).len(), 0, "{output}");
    assert_eq!(left_behind(&env.data()), [""; 0], "{output}");
    output
}

#[test]
fn a_bit_that_was_flipped_anywhere_is_noticed() {
    for encrypted in [false, true] {
        let store = SharedStore::directory();
        let env = developer();
        store.settings(&env, "");
        let other = store.member();
        if encrypted {
            let keys = [&env, &other].map(add_identity);
            let keys = keys.each_ref().map(String::as_str);
            [&env, &other].iter().for_each(|member| recipients(member, &keys));
        }
        store.publish(&env);
        let files = store.files();
        assert!(files.len() > 3);
        for (path, whole) in files {
            // Without a key, nothing tells whether the index is what was published.
            if encrypted || path.parent().is_some_and(|dir| dir.ends_with("objects")) {
                flip(&path);
                refuses(&store, &other).stderr_has("hint: ");
                fs::write(&path, &whole[..whole.len() - 1]).expect("write");
                refuses(&store, &other);
                fs::write(&path, whole).expect("write");
            }
        }
        store.pull(&other);
        assert_same(&content(&other.data()), &content(&env.data()));
    }
}

#[test]
fn an_older_index_is_refused_and_an_object_in_the_place_of_another() {
    let store = SharedStore::directory();
    let env = published(&store, 2);
    let [other, new] = [store.member(), store.member()];
    store.pull(&other);
    let newest = store.path().join("index/00000002");
    let kept = fs::read(&newest).expect("read");
    fs::remove_file(&newest).expect("remove");
    for member in [&other, &env] {
        let refused = store.xtask(member, &PULL).fails(1);
        refused.stderr_has("was rolled back: its index is number 1, and 2 was seen");
    }
    store.xtask(&env, &["snapshots", "publish"]).fails(1).stderr_has("hint: if that was done");
    store.pull(&new);
    fs::copy(store.path().join("index/00000001"), &newest).expect("copy");
    refuses(&store, &store.member()).stderr_has("is not what was published");
    fs::write(&newest, kept).expect("write");
    store.pull(&other);
    let objects = store.objects();
    for other in &objects[1..] {
        fs::copy(&objects[0], other).expect("copy");
    }
    refuses(&store, &store.member());
}

#[test]
fn a_store_with_another_key_is_refused() {
    let store = SharedStore::directory();
    let env = developer();
    store.settings(&env, "");
    let key = add_identity(&env);
    recipients(&env, &[&key]);
    store.publish(&env);
    fs::remove_dir_all(store.path()).expect("remove");
    let refused = store.xtask(&env, &["snapshots", "publish"]).fails(1);
    refused.stderr_has("has another key than before").stderr_has("share.json");
}

#[test]
fn a_changed_file_here_is_no_base() {
    let store = SharedStore::directory();
    let env = published(&store, 1);
    let other = store.member();
    store.pull(&other);
    change(&env.production().join("tenant_iris.db"));
    pull(&env);
    store.publish(&env);
    let snapshot = other.data().join(&named(&other, "pull")[0]);
    flip(&snapshot.join("tenant_iris.db"));
    flip(&snapshot.join("data.db"));
    store.pull(&other);
    assert_same(&content(&other.data()), &content(&env.data()));
    // What is damaged here is fetched again.
    let newest = other.data().join(&named(&other, "pull")[0]);
    flip(&newest.join("data.db"));
    store.xtask(&other, &PULL).ok();
    let pulled = other.data().join(&named(&other, "pull")[0]);
    assert_ne!(pulled, newest);
    assert_same(&content(&pulled), &content(&env.data()));
    // Nor is it published as what it was.
    flip(&env.data().join(&named(&env, "pull")[0]).join("tenant_iris.db"));
    let empty = SharedStore::directory();
    empty.settings(&env, "");
    let refused = empty.xtask(&env, &["snapshots", "publish"]).fails(1);
    refused.stderr_has("tenant_iris.db in backup_").stderr_has("was changed");
}

#[test]
fn a_prune_keeps_what_the_others_need() {
    let store = SharedStore::directory();
    let env = published(&store, 5);
    let before = store.objects().len();
    let prune = ["snapshots", "prune", "--share", "--keep", "2"];
    store.xtask(&env, &[&prune[..], &["--dry-run"]].concat()).ok().stderr_has("Would remove 3 ");
    store.xtask(&env, &prune).fails(2).stderr_has("hint: add --yes");
    assert_eq!(store.objects().len(), before);
    store.xtask(&env, &[&prune[..], &["--yes"]].concat()).ok().stderr_has("Removed 3 snapshots, ");
    // Three manifests; each delta is needed by the newest, too.
    assert_eq!(store.objects().len(), before - 3);
    let list = store.xtask(&env, &["snapshots", "list", "--share", "--json"]).ok().json();
    for entry in list["snapshots"].as_array().expect("a list") {
        let other = store.member();
        let name = entry["name"].as_str().expect("a name");
        store.xtask(&other, &["pull-db", "--via", "share", "--name", name]).ok();
        assert_same(&content(&other.data()), &content(&env.data().join(name)));
    }

    // What nothing names goes a day later.
    let orphan = store.path().join("objects").join("a".repeat(64));
    fs::write(&orphan, "of a publish that was killed").expect("write");
    store.xtask(&env, &[&prune[..], &["--yes"]].concat()).ok();
    assert!(orphan.exists());
    let file = fs::File::options().write(true).open(&orphan).expect("open");
    let yesterday = std::time::SystemTime::now() - std::time::Duration::from_secs(25 * 3600);
    file.set_modified(yesterday).expect("set the time");
    store.xtask(&env, &[&prune[..], &["--yes"]].concat()).ok();
    assert!(!orphan.exists());
}

#[test]
fn a_publish_or_pull_that_is_killed_or_interrupted_leaves_the_store_readable() {
    let store = SharedStore::directory();
    let env = published(&store, 1);
    let other = store.member();
    let large = Connection::open(env.production().join("tenant_iris.db")).expect("open");
    let rows = "json_each('[1,2,3,4,5,6,7,8,9,10,11,12]')";
    let sql =
        format!("INSERT INTO items (key, data) SELECT value, randomblob(4000000) FROM {rows}");
    large.execute_batch(&sql).expect("insert");
    drop(large);
    let before = content(&env.data());
    pull(&env);
    for kill in [true, false] {
        // None of the objects that an earlier one has left is older than this.
        let started = std::time::SystemTime::now();
        let is_new = |path: &std::path::PathBuf| {
            path.metadata().and_then(|it| it.modified()).is_ok_and(|time| time > started)
        };
        let mut running = Running::start(&mut store.command(&env, &["snapshots", "publish"]));
        running.wait_for("an object, or the end", |_| {
            store.path().join("index/00000002").exists() || store.objects().iter().any(is_new)
        });
        if kill {
            running.kill();
        } else {
            running.interrupt();
            running.wait();
        }
        store.pull(&other);
        // On a busy machine it may have ended before.
        let now = content(&other.data());
        assert!(now == before || now == content(&env.data()), "it is neither the old nor the new");
    }
    store.publish(&env);
    let third = store.member();
    for kill in [false, true] {
        let mut running = Running::start(&mut store.command(&third, &PULL));
        running.wait_for("a database", |_| {
            tests::store::has_arrived(&third.data(), "tenant_iris.db", 1)
        });
        if kill {
            running.kill();
        } else {
            running.interrupt();
            running.wait().fails(130);
            assert_eq!(left_behind(&third.data()), [""; 0]);
        }
        assert_eq!(snapshots(&third).len(), 0);
    }
    store.pull(&third);
    assert_same(&content(&third.data()), &content(&env.data()));
    databases::assert_whole(&third.data().join("tenant_iris.db"));
}

#[test]
fn a_server_that_does_not_answer_can_be_interrupted() {
    let silent = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let address = silent.local_addr().expect("it is bound");
    let store = SharedStore::directory();
    let env = developer();
    env.db_toml("[share]\nurl = 's3://team/db'\n");
    for args in [&["snapshots", "publish"][..], &PULL] {
        let mut command = store.command(&env, args);
        command.env("AWS_ENDPOINT_URL", format!("http://{address}"));
        command.env("AWS_ACCESS_KEY_ID", "key").env("AWS_SECRET_ACCESS_KEY", "secret");
        let running = Running::start(&mut command);
        let connection = silent.accept().expect("it connects");
        running.interrupt();
        running.wait().fails(130).stderr_has("interrupted; nothing was changed");
        drop(connection);
    }
}
