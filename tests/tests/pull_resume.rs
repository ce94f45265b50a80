//! A pull that is cut, by whatever: the next one of the same source resumes from what arrived, and
//! nobody else ever sees that.

use std::fs;
use std::path::PathBuf;

use tests::databases;
use tests::disk::SmallDisk;
use tests::env::TestEnv;
use tests::output::Output;
use tests::process::wait_for;
use tests::pull::{NAMES, assert_live_equals_production, production, pull, recorded};
use tests::server::Sshd;
use tests::sets::snapshots;
use tests::store::{files_with, kinds, left_behind};
use tests::world::Faults;

/// Kibibytes of each database that no compression makes smaller.
const SIZES: [u32; 3] = [200, 6000, 2000];
const HINT: &str = "\nhint: the next pull resumes from what arrived\n";
const SECRET: &str = "hunter2-hunter2";
const RULE: &str = "[[sanitize]]\ntable = 'export_settings'\nset = { private_key = 'NULL' }\n";

/// A production, and how many bytes a first pull of it receives.
fn large(sizes: [u32; 3]) -> (TestEnv, Sshd, u64) {
    let (env, sshd) = production();
    for (name, kibibytes) in NAMES.iter().zip(sizes) {
        add(&env, name, kibibytes);
    }
    pull(&env, &[]);
    let wire = wire(&env);
    fs::remove_dir_all(env.data()).expect("the first pull comes again");
    (env, sshd, wire)
}

fn add(env: &TestEnv, name: &str, kibibytes: u32) {
    databases::execute(
        &env.production().join(name),
        &format!(
            "CREATE TABLE noise AS WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {kibibytes})
             SELECT randomblob(1000) AS data FROM n"
        ),
    );
}

fn wire(env: &TestEnv) -> u64 {
    recorded(env, "/origin/wire_bytes").as_u64().expect("a number")
}

fn cut_after(env: &TestEnv, bytes: Option<u64>) {
    env.edit_world(|world| {
        world.faults = Faults { cut_stdout_after_bytes: bytes, ..Faults::default() };
    });
}

/// A pull that is cut after this percentage of a whole one.
#[track_caller]
fn cut(env: &TestEnv, whole: u64, percent: u64, args: &[&str]) -> Output {
    cut_after(env, Some(whole * percent / 100));
    let output = env.xtask([&["pull-db"], args].concat()).fails(1);
    cut_after(env, None);
    output.stderr_has("error: the connection was cut after ")
}

/// A pull that brings all, and leaves nothing beside it; how many bytes it received.
#[track_caller]
fn resume(env: &TestEnv, args: &[&str]) -> u64 {
    let output = pull(env, args);
    output.stderr_lacks("differs from what was pulled").stderr_lacks("changed page");
    assert_live_equals_production(env, &NAMES);
    for name in NAMES {
        databases::assert_same(&env.production().join(name), &newest(env).join(name));
    }
    let mut files = databases::files(&newest(env));
    files.retain(|file| file != "CACHEDIR.TAG");
    assert_eq!(files, ["data.db", "snapshot.json", "tenant_iris.db", "tenant_juno.db"]);
    wire(env)
}

fn newest(env: &TestEnv) -> PathBuf {
    tests::pull::snapshot(env).path
}

fn leftover(env: &TestEnv) -> PathBuf {
    env.data().join(".xtask/incoming-pull")
}

#[track_caller]
fn assert_share(part: u64, whole: u64, percent: u64) {
    assert!(part * 100 <= whole * percent, "{part} bytes of {whole}");
}

#[test]
fn a_pull_that_was_cut_is_resumed_and_what_it_left_is_shown_nowhere() {
    let (env, _sshd, whole) = large(SIZES);
    cut(&env, whole, 90, &[]).stderr_has(HINT);
    assert_eq!(kinds(&env.data()), [""; 0]);
    assert_eq!(snapshots(&env).len(), 0);
    for list in [&["snapshots", "list"][..], &["restore-db", "--list"]] {
        let output = env.xtask(list).ok().stderr_lacks("incoming");
        assert!(!output.stdout().contains("incoming"), "{output}");
    }
    env.xtask(["restore-db", "--latest", "--yes"]).fails(1);
    // A dry run offers it, and changes nothing.
    let before = tests::delta::files_below(&env.data());
    let planned = env.xtask(["pull-db", "--dry-run", "--json"]).ok().json();
    assert_share(planned["wire_bytes"].as_u64().expect("a number"), whole, 15);
    assert!(before == tests::delta::files_below(&env.data()), "a dry run changed something");
    let again = resume(&env, &[]);
    tests::faults::say(&format!("cut at 90%: {again} of {whole} bytes again"));
    assert_share(again, whole, 15);
    // A pull that ended leaves nothing to resume from.
    cut_after(&env, None);
    assert!(resume(&env, &["--full"]) * 100 > whole * 95);
}

#[test]
fn a_large_database_that_was_cut_early_is_resumed() {
    let (env, _sshd, whole) = large([100, 20_000, 100]);
    for (percent, most) in [(30, 75), (60, 45)] {
        cut(&env, whole, percent, &["--full"]).stderr_has(HINT);
        let again = resume(&env, &[]);
        tests::faults::say(&format!("cut at {percent}%: {again} of {whole} bytes again"));
        assert_share(again, whole, most);
    }
}

#[test]
fn a_pull_may_be_cut_again_and_again_while_production_changes() {
    let (env, _sshd, whole) = large(SIZES);
    let mut sum = 0;
    for _ in 0..3 {
        cut(&env, whole, 25, &[]).stderr_has(HINT);
        sum += whole * 25 / 100;
        databases::execute(
            &env.production().join(NAMES[1]),
            "UPDATE noise SET data = randomblob(1000) WHERE rowid % 1000 = 1",
        );
    }
    sum += resume(&env, &[]);
    assert_share(sum, whole, 150);
}

#[test]
fn what_is_not_in_the_leftover_has_its_base_from_a_snapshot() {
    let (env, _sshd, whole) = large(SIZES);
    pull(&env, &[]);
    add_rows(&env, NAMES[1]);
    // Of the last one nothing arrives: it still does not come.
    cut(&env, whole, 50, &["--full"]).stderr_has(HINT);
    assert_share(resume(&env, &[]), whole, 60);
    assert_eq!(kinds(&env.data()), ["pull", "pull"]);
}

fn add_rows(env: &TestEnv, name: &str) {
    databases::execute(
        &env.production().join(name),
        "INSERT INTO noise SELECT randomblob(1000) FROM noise LIMIT 100",
    );
}

#[test]
fn a_client_that_is_killed_or_interrupted_leaves_what_arrived_too() {
    for kill in [true, false] {
        let (env, _sshd, whole) = large(SIZES);
        env.edit_world(|world| world.faults.stall_after_bytes = Some(whole * 9 / 10));
        let mut xtask = env.start_xtask(["pull-db"]);
        // The last one arrives: what came before it is whole.
        let last = || leftover(&env).join(NAMES[2]).metadata().map_or(0, |file| file.len());
        xtask.wait_for("most to arrive", |_| last() > 600_000);
        if kill {
            xtask.kill();
            drop(xtask);
        } else {
            xtask.interrupt();
            let output = xtask.wait().fails(130);
            output.stderr_has("error: interrupted; nothing was changed\n").stderr_has(HINT);
        }
        wait_for("the server to clean up", || {
            databases::files(&env.path("tmp")).is_empty().then_some(())
        });
        // Other commands leave it alone.
        env.xtask(["snapshots", "list"]).ok();
        env.xtask(["snapshots", "create"]).fails(1);
        env.edit_world(|world| world.faults = Faults::default());
        assert_share(resume(&env, &[]), whole, 25);
    }
}

#[test]
fn a_leftover_that_was_damaged_does_no_harm() {
    let (env, _sshd, whole) = large(SIZES);
    let change = |name: &str, change: fn(&mut Vec<u8>)| {
        let path = leftover(&env).join(name);
        let mut bytes = fs::read(&path).expect("it arrived");
        change(&mut bytes);
        fs::write(&path, bytes).expect("write");
    };
    let cases: [fn(&mut Vec<u8>); 6] = [
        |bytes| bytes[300_000..300_100].fill(0xff),
        |bytes| bytes.truncate(100_001),
        |bytes| bytes.truncate(60),
        |bytes| bytes.clear(),
        |bytes| bytes.resize(10_000_000, 0xaa),
        // Another page size.
        |bytes| bytes[16..18].copy_from_slice(&[0x20, 0]),
    ];
    for case in cases {
        cut(&env, whole, 90, &["--full"]);
        change(NAMES[1], case);
        resume(&env, &[]);
    }
    // The record, and links that lead elsewhere.
    cut(&env, whole, 90, &["--full"]);
    fs::write(leftover(&env).join("snapshot.json"), "{").expect("write");
    resume(&env, &[]);
    cut(&env, whole, 90, &["--full"]);
    let mine = env.path("mine.db");
    let arrived = leftover(&env).join(NAMES[1]);
    fs::rename(&arrived, &mine).expect("move");
    std::os::unix::fs::symlink(&mine, &arrived).expect("link");
    let other = leftover(&env).join(NAMES[0]);
    let linked = env.path("linked.db");
    fs::hard_link(&other, &linked).expect("link");
    let before = [&mine, &linked].map(|path| fs::read(path).expect("read"));
    databases::execute(&env.production().join(NAMES[0]), "UPDATE items SET value = -1");
    pull(&env, &[]);
    assert_live_equals_production(&env, &NAMES);
    assert!(before == [&mine, &linked].map(|path| fs::read(path).expect("read")), "written to");
}

#[test]
fn of_another_source_or_with_other_rules_nothing_is_resumed() {
    let (env, _sshd, whole) = large(SIZES);
    cut(&env, whole, 90, &[]);
    let elsewhere = env.path("elsewhere");
    fs::create_dir(&elsewhere).expect("make a directory");
    for name in NAMES {
        fs::copy(env.production().join(name), elsewhere.join(name)).expect("copy");
    }
    let elsewhere = elsewhere.display().to_string();
    assert!(resume(&env, &["--remote-dir", &elsewhere]) * 100 > whole * 95);
    assert!(!leftover(&env).exists(), "at most one is kept");

    fs::remove_dir_all(env.data()).expect("the first pull comes again");
    for name in NAMES {
        databases::create_secrets(&env.production().join(name), 5, SECRET);
    }
    cut(&env, whole, 90, &[]).stderr_has(HINT);
    assert_ne!(files_with(&env.data(), SECRET).len(), 0, "there is no rule yet");
    env.db_toml(RULE);
    let output = pull(&env, &[]);
    assert!(wire(&env) * 100 > whole * 95, "{output}");
    assert_eq!(files_with(&env.data(), &format!("{SECRET}-key")).len(), 0);
}

#[test]
fn a_pull_without_its_rules_leaves_nothing() {
    let (env, _sshd, whole) = large(SIZES);
    for name in NAMES {
        databases::create_secrets(&env.production().join(name), 5, SECRET);
    }
    env.db_toml(RULE);
    cut(&env, whole, 50, &[]).stderr_has(HINT);
    assert!(leftover(&env).exists());
    let output = cut(&env, whole, 90, &["--no-sanitize", "--yes"]);
    output.stderr_lacks("resumes");
    assert_eq!(left_behind(&env.data()), [""; 0]);
    env.edit_world(|world| world.faults.stall_after_bytes = Some(whole * 9 / 10));
    let mut xtask = env.start_xtask(["pull-db", "--no-sanitize", "--yes"]);
    xtask.wait_for_stderr("Receiving tenant_juno.db");
    xtask.kill();
    drop(xtask);
    env.xtask(["snapshots", "rm", "none", "--yes"]).fails(1);
    env.edit_world(|world| world.faults = Faults::default());
    env.local_pull(&["--dry-run"]).ok();
    env.xtask(["snapshots", "prune", "--yes"]).ok();
    assert_eq!(left_behind(&env.data()), [""; 0]);
    assert_eq!(files_with(&env.data(), SECRET).len(), 0);
}

#[test]
fn what_an_unmatched_rule_did_not_mask_does_not_stay() {
    let (env, _sshd) = production();
    databases::create_secrets(&env.production().join(NAMES[0]), 5, SECRET);
    env.db_toml(&RULE.replace("private_key", "privat_key"));
    // Another database might have that column, so that this one is sent.
    let output = env.xtask(["pull-db", "--only", NAMES[0]]).fails(1);
    output.stderr_has("Receiving data.db").stderr_has("privat_key").stderr_lacks("resumes");
    assert!(!leftover(&env).exists());
    assert_eq!(files_with(&env.data(), SECRET).len(), 0);
}

#[test]
fn a_leftover_is_removed_when_it_is_old_or_room_is_wanted() {
    let (env, _sshd, whole) = large(SIZES);
    for time in ["2026-01-01T00:00:00Z", "2999-01-01T00:00:00Z"] {
        cut(&env, whole, 60, &[]);
        let record = leftover(&env).join("snapshot.json");
        let text = fs::read_to_string(&record).expect("it says what it is of");
        let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        json["time"] = time.into();
        fs::write(&record, json.to_string()).expect("write");
        env.xtask(["snapshots", "create"]).fails(1);
        assert!(!leftover(&env).exists(), "{time}");
    }
    cut(&env, whole, 60, &[]);
    env.xtask(["snapshots", "prune", "--yes"]).ok().stderr_has(" of a pull that was cut\n");
    assert!(!leftover(&env).exists());
    // Before anything arrives, there is nothing to keep.
    cut_after(&env, Some(whole / 1000));
    env.xtask(["pull-db"]).fails(1).stderr_has("error: the connection was cut").stderr_lacks(HINT);
    assert!(!leftover(&env).exists());
}

#[test]
fn the_room_that_a_leftover_takes_is_room_for_the_next_pull() {
    let (env, _sshd, whole) = large([200, 3000, 1000]);
    // Not twice the set beside what arrived.
    let Some(_disk) = SmallDisk::mount(&env.data(), 11_000) else { return };
    cut(&env, whole, 90, &[]).stderr_has(HINT);
    assert_share(resume(&env, &[]), whole, 20);
}

#[test]
fn an_archive_that_was_cut_is_not_kept_and_takes_nothing_away() {
    let (env, _sshd, whole) = large(SIZES);
    env.edit_world(|world| world.faults.sftp_cut_after_bytes = Some(whole / 2));
    env.xtask(["pull-db", "--sftp"]).fails(1).stderr_lacks("resumes");
    assert_eq!(left_behind(&env.data()), [""; 0]);
    cut(&env, whole, 90, &[]).stderr_has(HINT);
    env.edit_world(|world| world.faults.sftp_cut_after_bytes = Some(1000));
    env.xtask(["pull-db", "--sftp"]).fails(1).stderr_has(HINT);
    env.edit_world(|world| world.faults = Faults::default());
    assert!(!leftover(&env).join(".archive").exists());
    assert_share(resume(&env, &["--sftp"]), whole, 15);
}
