//! `cargo xtask pull-db` while the app is used: what arrives is one moment of
//! the service, and the service does not notice.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use rusqlite::types::Value;
use tests::databases;
use tests::env::TestEnv;
use tests::load::Load;
use tests::long::depth;
use tests::process::wait_for;
use tests::pull::{NAMES, assert_tidy, pull, snapshot};
use tests::server::Sshd;

const ORGS: [&str; 2] = ["iris", "juno"];
const SEEDED: u32 = 2000;

fn with_app(rows: u32) -> (TestEnv, Sshd) {
    let (env, sshd) = TestEnv::with_server();
    let production = env.production().display().to_string();
    env.app(["setup", "--data-dir", &production, "--rows", &rows.to_string()]).ok();
    (env, sshd)
}

fn integer(path: &Path, sql: &str) -> i64 {
    match databases::query(path, sql) {
        Value::Integer(value) => value,
        other => panic!("{sql} gave {other:?}"),
    }
}

/// How many pull requests an organization has, by its own rows and by the counter
/// in data.db.
fn rows_and_counter(directory: &Path, org: &str) -> (i64, i64) {
    let tenant = directory.join(format!("tenant_{org}.db"));
    let counter = format!("SELECT pull_request_count FROM organizations WHERE id = '{org}'");
    (databases::count(&tenant, "pull_requests"), integer(&directory.join("data.db"), &counter))
}

/// The app commits to the tenant's database and then counts in data.db, and each
/// organization has one writer. So at any moment there are as many rows as were
/// counted, or one more. The databases are pinned by one statement, data.db
/// first: a request may fit between the pins, but only in this direction.
#[track_caller]
fn assert_one_moment(directory: &Path, acknowledged: &BTreeMap<String, u64>) -> Vec<i64> {
    for name in NAMES {
        let path = directory.join(name);
        databases::assert_whole(&path);
        let orphans = integer(&path, "SELECT count(*) FROM pragma_foreign_key_check");
        assert_eq!(orphans, 0, "foreign keys in {name}");
    }
    let ahead = |org: &str| {
        let (rows, counter) = rows_and_counter(directory, org);
        let known = i64::from(SEEDED) + acknowledged[org] as i64;
        assert!(counter >= known, "{org}: {known} were acknowledged, {counter} arrived");
        assert!(rows >= counter, "{org}: {rows} rows and {counter} counted");
        rows - counter
    };
    ORGS.map(ahead).to_vec()
}

fn stop_without_trouble(load: Load) {
    let report = load.stop();
    for (org, trouble) in report.trouble {
        assert_eq!(trouble.refused, 0, "{org}: {trouble:?}");
    }
}

#[test]
fn what_is_pulled_under_load_is_one_moment_and_the_writers_notice_nothing() {
    let (env, _sshd) = with_app(SEEDED);
    let app = env.serve(&env.production());
    let load = app.load(&ORGS);
    load.wait_for_writes(50);
    let mut ahead = Vec::new();
    for round in 0..depth(2, 8) {
        let acknowledged = load.acknowledged();
        let args = if round == 1 { &["--sftp"][..] } else { &[] };
        pull(&env, args);
        let after = load.acknowledged();
        assert!(ORGS.iter().all(|org| after[*org] > acknowledged[*org]), "writers went on");
        load.wait_for_writes(1);
        ahead.extend(assert_one_moment(&snapshot(&env).path, &acknowledged));
    }
    stop_without_trouble(load);
    // A loaded machine may stop sqlite3 between two pins, but hardly ever does.
    let torn = ahead.iter().filter(|rows| **rows > 1).count();
    assert!(torn <= depth(1, 2), "rows ahead of their counter: {ahead:?}");
}

#[test]
fn a_rollback_journal_is_pulled_under_load_too() {
    let (env, _sshd) = TestEnv::with_server();
    for (seed, name) in (1..).zip(NAMES) {
        let path = env.production().join(name);
        databases::create(&path, 2000, seed);
        databases::execute(&path, "PRAGMA journal_mode = DELETE");
    }
    let writer = rusqlite::Connection::open(env.production().join(NAMES[0])).expect("open");
    writer.busy_timeout(Duration::from_secs(30)).expect("set a timeout");
    let (stop, commits) = (AtomicBool::new(false), AtomicU32::new(0));
    let committed = || commits.load(SeqCst);
    thread::scope(|scope| {
        let (stop, commits) = (&stop, &commits);
        scope.spawn(move || {
            while !stop.load(SeqCst) {
                databases::insert(&writer, 1, 10_000 + commits.fetch_add(1, SeqCst));
                // A writer that never lets go starves every reader, also ours.
                thread::sleep(Duration::from_millis(5));
            }
        });
        wait_for("the writer to write", || (committed() > 20).then_some(()));
        // The last one may be under way.
        let before = committed() - 1;
        let pulled = env.xtask(["pull-db"]);
        let after = committed();
        stop.store(true, SeqCst);
        pulled.ok();
        assert!(after > before, "the writer went on");
        let arrived = snapshot(&env).path.join(NAMES[0]);
        databases::assert_whole(&arrived);
        let rows = databases::count(&arrived, "items");
        assert!(rows >= i64::from(2000 + before), "{before} commits, and {rows} rows");
    });
    assert_tidy(&env);
}

/// The most memory that a process has had, in KiB.
fn peak_memory(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let (_, rest) = status.split_once("VmHWM:")?;
    rest.split_whitespace().next()?.parse().ok()
}

#[test]
fn all_of_a_large_set_arrives_over_one_connection_in_little_memory() {
    let (env, sshd) = with_app(depth(40_000, 150_000));
    let bytes: u64 = (NAMES.iter())
        .map(|name| fs::metadata(env.production().join(name)).expect("it was made").len())
        .sum();
    assert!(bytes > depth(52_000_000, 200_000_000), "{bytes} bytes");
    let mut peak = None;
    let mut xtask = env.start_xtask(["pull-db"]);
    wait_for("the pull to end", || {
        peak = peak.max(peak_memory(xtask.id()));
        xtask.has_exited().then_some(())
    });
    xtask.wait().ok();
    assert_tidy(&env);
    assert!(peak < Some(depth(40, 64) * 1024), "the peak was {peak:?} KiB");
    assert!(peak > Some(1000) || !Path::new("/proc/self/status").exists(), "it was measured");
    assert_eq!((sshd.connections(), env.fly_invocations().len()), (1, 1));
    for name in NAMES {
        let [left, right] = [env.production(), env.data()].map(|directory| directory.join(name));
        databases::assert_whole(&right);
        // The header at the beginning counts the changes of this file.
        let [left, right] = [left, right].map(|path| fs::read(path).expect("read").split_off(100));
        assert!(left == right, "{name} is not the same");
    }
}
