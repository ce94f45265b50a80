//! A team's store of snapshots: one publishes, the others pull.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rusqlite::Connection;
use tests::databases;
use tests::env::TestEnv;
use tests::fixtures;
use tests::process::Running;
use tests::sets::{assert_same, change, content, developer, named, pull, snapshots};
use tests::share::{SharedStore, add_identity, recipients};
use tests::store::left_behind;

/// One who may enter production, where a database has some MB.
fn publisher(store: &SharedStore) -> TestEnv {
    let env = developer();
    let large = Connection::open(env.production().join("tenant_iris.db")).expect("open");
    databases::insert(&large, 30_000, 9);
    drop(large);
    store.settings(&env, "");
    pull(&env);
    env
}

#[test]
fn a_colleague_pulls_what_was_published_and_the_next_day_what_changed() {
    for store in SharedStore::each_kind() {
        let env = publisher(&store);
        let first = store.publish(&env);
        store.xtask(&env, &["snapshots", "publish"]).ok().stderr_has("Already published: backup_");
        let other = store.member();
        let output = store.xtask(&other, &["pull-db", "--via", "share"]).ok();
        let output =
            output.stderr_has("Pulled 2 databases of backup_").stderr_has("Current backup_");
        assert!(output.stderr.contains(&format!("from {}\n", store.url())));
        assert_same(&content(&other.data()), &content(&env.data()));
        assert_eq!(left_behind(&other.data()), [""; 0]);
        let here = &tests::store::snapshots(&other.data())[0].json;
        let there = &tests::store::snapshots(&env.data())[1].json;
        for key in ["/kind", "/time", "/origin/source", "/databases/1/sha256"] {
            assert_eq!(here.pointer(key), there.pointer(key), "{key}");
        }
        assert_eq!(here["origin"]["share"], store.url());
        store.xtask(&other, &["pull-db", "--via", "share"]).ok();
        assert_eq!(named(&other, "pull").len(), 1, "it is here already");

        for _ in 0..10 {
            change(&env.production().join("tenant_iris.db"));
            pull(&env);
            let published = store.publish(&env);
            // After eight deltas it is whole again.
            let limit = if published > first / 2 { first } else { first / 10 };
            let pulled = store.pull(&other);
            assert!(published < 2 * limit && pulled < 2 * limit, "{first} {published} {pulled}");
            assert_same(&content(&other.data()), &content(&env.data()));
        }
        let undone = other.xtask(["restore-db", "--undo", "--yes"]).ok();
        undone.stderr_has("Current backup_");
        let third = store.member();
        store.pull(&third);
        assert_same(&content(&third.data()), &content(&env.data()));
    }
}

#[test]
fn two_publish_at_once_and_both_are_there() {
    for store in SharedStore::each_kind() {
        let both = [publisher(&store), publisher(&store)];
        let start =
            |env| Running::start(&mut store.command(env, &["snapshots", "publish", "--json"]));
        for running in both.each_ref().map(start) {
            running.wait().ok();
        }
        let other = store.member();
        let list = store.xtask(&other, &["snapshots", "list", "--share", "--json"]).ok().json();
        let published = list["snapshots"].as_array().expect("a list");
        assert_eq!(published.len(), 2, "{list}");
        for (env, entry) in both.iter().rev().zip(published) {
            let name = entry["name"].as_str().expect("a name");
            assert_eq!(named(env, "pull")[0], name);
            store.xtask(&other, &["pull-db", "--via", "share", "--name", name]).ok();
            assert_same(&content(&other.data()), &content(&env.data()));
        }
    }
}

#[test]
fn only_recipients_read_the_store() {
    let store = SharedStore::directory();
    let [env, other, stranger] = [publisher(&store), store.member(), store.member()];
    let [mine, others, strangers] = [&env, &other, &stranger].map(add_identity);
    for member in [&env, &other, &stranger] {
        recipients(member, &[&mine, "# a colleague", &others]);
    }
    store.xtask(&env, &["snapshots", "publish"]).ok().stderr_has(", encrypted: ");
    store.pull(&other);
    assert_same(&content(&other.data()), &content(&env.data()));
    let refused = store.xtask(&stranger, &["pull-db", "--via", "share"]).fails(1);
    refused.stderr_has("cannot be decrypted with your private key").stderr_has("hint: ");
    assert_eq!(snapshots(&stranger).len(), 0);
    for (path, content) in store.files() {
        assert!(!content.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]), "{path:?} is zstd as it is");
        assert!(!content.windows(7).any(|it| it == b"data.db"), "{path:?} names a database");
    }

    // A new member needs no other store.
    recipients(&env, &[&mine, &others, &strangers]);
    store.xtask(&env, &["snapshots", "publish"]).ok().stderr_has("Already published");
    store.pull(&stranger);
    assert_same(&content(&stranger.data()), &content(&env.data()));

    fs::remove_file(stranger.path("home/.config/age/keys.txt")).expect("remove");
    let without = store.xtask(&stranger, &["pull-db", "--via", "share"]).fails(2);
    without.stderr_has("cannot read your private key").stderr_has("age-keygen -o");
}

#[test]
fn what_is_unmasked_or_uncovered_is_not_published() {
    let store = SharedStore::directory();
    let env = TestEnv::new();
    databases::create_secrets(&env.production().join("data.db"), 3, "secret-1");
    store.settings(&env, "");
    pull(&env);
    let refused = store.xtask(&env, &["snapshots", "publish"]).fails(1);
    refused.stderr_has("likely secrets are not masked: export_settings.");
    let rule = "[[sanitize]]\ntable = 'export_settings'\ndelete = true\n";
    store.settings(&env, rule);
    let refused = store.xtask(&env, &["snapshots", "publish"]).fails(1);
    refused.stderr_has(" is unmasked: data.db").stderr_has("--unsanitized");
    assert!(!store.path().exists(), "nothing was stored");
    store.xtask(&env, &["snapshots", "publish", "--unsanitized"]).ok();

    let other = store.member();
    store.settings(&other, rule);
    let pull_db = ["pull-db", "--via", "share"];
    let refused = store.xtask(&other, &pull_db).fails(1);
    refused.stderr_has(" is unmasked: data.db").stderr_has("--no-sanitize");
    assert_eq!(snapshots(&other).len(), 0);
    store.xtask(&other, &[&pull_db[..], &["--no-sanitize", "--yes"]].concat()).ok();

    pull(&env);
    // Masked by a rule of the time, and not by those of today.
    store.settings(&env, &format!("{rule}where = 'id > 1'\n"));
    let refused = store.xtask(&env, &["snapshots", "publish"]).fails(1);
    refused.stderr_has("it was pulled with other rules than those of xtask/db.toml");
    store.settings(&env, rule);
    store.publish(&env);
    let third = store.member();
    store.settings(&third, rule);
    store.pull(&third);
    assert_eq!(databases::count(&third.data().join("data.db"), "export_settings"), 0);
    let manual = env.xtask(["snapshots", "create", "mine"]).ok();
    manual.stderr_has("Saved");
    store.xtask(&env, &["snapshots", "publish", "mine"]).fails(1).stderr_has("is no pull");
}

#[test]
fn flags_of_a_pull_work_or_are_refused() {
    let store = SharedStore::directory();
    let env = publisher(&store);
    let other = store.member();
    let pull_db =
        |args: &[&str]| store.xtask(&other, &[&["pull-db", "--via", "share"], args].concat());
    pull_db(&[]).fails(1).stderr_has("is no directory of a store");
    store.publish(&env);
    let plan = pull_db(&["--dry-run", "--json"]).ok().json();
    assert_eq!(plan["databases"][1]["missing_bytes"], plan["databases"][1]["bytes"]);
    pull_db(&["--dry-run"]).ok().stderr_has("Would fetch at most ").stderr_has(" not here");
    assert_eq!(snapshots(&other).len(), 0);
    pull_db(&["--only", "tenant_*"]).ok().stderr_has("Pulled 1 database ");
    assert_eq!(content(&other.data()).into_keys().collect::<Vec<_>>(), ["tenant_iris.db"]);
    pull_db(&["--only", "none*"]).fails(2).stderr_has("no database of backup_");
    pull_db(&["--if-older", "1h"]).ok().stderr_has("Pulled 2 databases");
    pull_db(&["--if-older", "1h"]).ok().stderr_has("Skipped the pull: backup_");
    pull_db(&["--dry-run"]).ok().stderr_has("already here");
    for flag in [&["--sftp"][..], &["--machine", "1"], &["--remote-dir", "/data"]] {
        pull_db(flag).fails(2).stderr_has(&format!("{} does not work with `share`", flag[0]));
    }
    pull_db(&["--name", "nowhere"])
        .fails(1)
        .stderr_has("is called \"nowhere\"; the newest is backup_");
    store.xtask(&other, &["pull-db", "--name", "x"]).fails(2).stderr_has("--name works with");
    store.xtask(&other, &["doctor", "--via", "share"]).stderr_lacks("panicked");
    store.xtask(&other, &["snapshots", "list", "--share"]).ok().stdout_has("2 databases");
}

/// A day costs what changed, on the disk too.
#[test]
fn what_is_unchanged_is_a_link_and_a_directory_comes_with_its_databases() {
    let store = SharedStore::directory();
    let env = developer();
    let include = "include = ['*.db', 'tenants/*.db']";
    store.settings(&env, include);
    fs::create_dir(env.production().join("tenants")).expect("make a directory");
    databases::execute(&env.production().join("tenants/kali.db"), "CREATE TABLE notes (text)");
    pull(&env);
    store.publish(&env);
    let other = store.member();
    store.settings(&other, include);
    store.pull(&other);
    change(&env.production().join("tenant_iris.db"));
    pull(&env);
    store.publish(&env);
    store.pull(&other);
    assert_same(&content(&other.data()), &content(&env.data()));
    let inodes = |name: &str| -> Vec<u64> {
        let pulls = named(&other, "pull").into_iter();
        let files = pulls.map(|pull| other.data().join(pull).join(name));
        files.map(|file| fs::metadata(file).expect("it is there").ino()).collect()
    };
    let (same, changed) = (inodes("tenants/kali.db"), inodes("tenant_iris.db"));
    assert_eq!((same.len(), same[0]), (2, same[1]));
    assert_ne!(changed[0], changed[1]);
}

/// Every member can use the store, whatever umask the first publisher has.
#[test]
fn objects_get_the_permissions_of_the_directory() {
    for (store, of_directories, of_files) in [
        (SharedStore::directory(), 0o770, 0o660),
        (SharedStore::directory(), 0o700, 0o600),
        (SharedStore::behind_ssh(), 0o775, 0o664),
    ] {
        let env = publisher(&store);
        let root = store.path();
        fs::create_dir(&root).expect("make a directory");
        fs::set_permissions(&root, fs::Permissions::from_mode(of_directories)).expect("chmod");
        store.publish(&env);
        let mode = |path: &Path| fs::metadata(path).expect("it is there").mode() & 0o777;
        let files = store.files();
        assert!(files.len() > 2);
        for (path, _) in files {
            assert_eq!(mode(&path), of_files, "{}", path.display());
            let directory = path.parent().expect("a directory");
            assert_eq!(mode(directory), of_directories, "{}", directory.display());
        }
    }
}

/// As of a pull from the server.
#[test]
fn only_databases_of_the_set_come() {
    let store = SharedStore::directory();
    let env = publisher(&store);
    store.publish(&env);
    let other = store.member();
    store.settings(&other, "include = ['data.*']");
    let pull_db = ["pull-db", "--via", "share"];
    store.xtask(&other, &pull_db).ok().stderr_has("Pulled 1 database of ");
    assert_eq!(content(&other.data()).into_keys().collect::<Vec<_>>(), ["data.db"]);
    assert_eq!(content(&other.data().join(&named(&other, "pull")[0])).len(), 1);
    store.settings(&other, "include = ['none.db']");
    let none = store.xtask(&other, &pull_db).fails(2);
    none.stderr_has(" matches `include`").stderr_has("hint: compare `include` in xtask/db.toml");
}

/// With `via = "share"`, the others need no flag; a hook pulls where there is a network.
#[test]
fn a_team_that_pulls_from_its_store_needs_no_flag() {
    let store = SharedStore::bucket();
    let env = publisher(&store);
    store.publish(&env);
    let other = store.member();
    store.settings(&other, "via = 'share'");
    store.xtask(&other, &["pull-db", "--if-older", "1h"]).ok().stderr_has("Pulled 2 databases");
    assert_same(&content(&other.data()), &content(&env.data()));
    let doctor = store.xtask(&other, &["doctor"]);
    doctor.stdout_has("cargo xtask snapshots list --share").stderr_lacks("panicked");
    let server = format!("local:{}", env.production().display());
    store
        .xtask(&other, &["pull-db", "--via", &server])
        .ok()
        .stderr_has("Pulled 2 databases from /");

    let mut pull = store.command(&other, &["pull-db", "--offline-ok", "--json"]);
    let offline = Running::start(pull.env("AWS_ENDPOINT_URL", "http://127.0.0.1:1")).wait().ok();
    let offline = offline
        .stderr_has("warning: ")
        .stderr_has("cannot be reached")
        .stderr_has("nothing was changed");
    assert_eq!(offline.json()["reason"], "offline");
    let mut pull = store.command(&other, &["pull-db"]);
    Running::start(pull.env("AWS_ENDPOINT_URL", "http://127.0.0.1:1")).wait().fails(1);
}

#[test]
fn without_the_feature_or_a_url_the_commands_say_what_to_add() {
    let store = SharedStore::directory();
    let env = developer();
    for args in [&["snapshots", "publish"][..], &["pull-db", "--via", "share"]] {
        env.xtask(args).fails(2).stderr_has("names no store").stderr_has("add [share] with url = ");
    }
    store.settings(&env, "");
    for args in [&["snapshots", "publish"][..], &["pull-db", "--via", "share"]] {
        let refused = env.xtask(args).fails(2);
        refused
            .stderr_has("this xtask was built without sharing")
            .stderr_has("hint: add features = [\"share\"] to xtask-db in xtask/Cargo.toml");
    }
    env.db_toml("[share]\nurl = 'https://example.com'\n");
    env.xtask(["snapshots"])
        .fails(2)
        .stderr_has("hint: it is s3://BUCKET/PREFIX, file:///PATH or ssh://");
    env.db_toml("[share]\nurl = 's3://bucket/x'\n");
    let publish = store.xtask(&env, &["snapshots", "publish"]).fails(2);
    publish
        .stderr_has("there are no credentials for s3://bucket/x")
        .stderr_has("AWS_ACCESS_KEY_ID");
}

#[test]
fn fixtures_are_cut_from_what_was_published() {
    let store = SharedStore::directory();
    let env = fixtures::pulled();
    store.settings(&env, fixtures::SETTINGS);
    store.publish(&env);
    let other = store.member();
    store.settings(&other, fixtures::SETTINGS);
    for file in ["migrate.sh", "migrations/1.sql"] {
        let text = fs::read_to_string(env.repo().join(file)).expect("read");
        other.write(&format!("repo/{file}"), &text);
    }
    store.pull(&other);
    for member in [&env, &other] {
        member.xtask(["refresh-fixtures"]).ok();
    }
    for file in [fixtures::ORDERS, fixtures::PEOPLE] {
        let [mine, others] = [&env, &other].map(|it| fs::read(it.repo().join(file)).expect("read"));
        assert!(mine == others, "{file} differs");
    }
}

#[test]
fn a_pull_tells_that_other_rules_masked_what_was_published() {
    let store = SharedStore::directory();
    let env = publisher(&store);
    store.publish(&env);
    let other = store.member();
    let warning = "warning: what was published was masked with other rules";
    store.xtask(&other, &["pull-db", "--via", "share"]).ok().stderr_lacks(warning);
    let rule = "[[sanitize]]\ndatabase = 'none.db'\ntable = 'items'\nset.data = 'NULL'\n";
    store.settings(&other, rule);
    store.xtask(&other, &["pull-db", "--via", "share"]).ok().stderr_has(warning);
}
