//! One moment for all databases, and for how long an app waits for it, where databases are
//! not in WAL mode.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use tests::databases;
use tests::env::TestEnv;
use tests::process::wait_for;
use tests::pull::assert_tidy;
use tests::shells::{self, find};
use tests::store;

/// More than a group may have, and large enough to be alone.
const LARGE: u32 = 5_000_000;

fn path(env: &TestEnv, name: &str) -> PathBuf {
    env.production().join(name)
}

/// A database with a row that counts rounds, and so many bytes besides.
fn make(path: &Path, mode: &str, bytes: u32) {
    databases::execute(
        path,
        &format!(
            "PRAGMA journal_mode = {mode}; CREATE TABLE t (round); INSERT INTO t VALUES (0);
             CREATE TABLE filling (data); INSERT INTO filling VALUES (randomblob({bytes}))"
        ),
    );
}

fn open(path: &Path) -> Connection {
    let db = Connection::open(path).expect("open");
    db.busy_timeout(Duration::from_secs(60)).expect("set a timeout");
    db.execute_batch("PRAGMA synchronous = OFF").expect("set");
    db
}

fn round_of(path: &Path) -> i64 {
    let db = Connection::open(path).expect("open");
    db.query_row("SELECT round FROM t", [], |row| row.get(0)).expect("a row")
}

/// It writes to one after the other: at a moment, all are in the same round, or those that
/// come first in the next one.
#[test]
fn a_writer_that_goes_round_is_in_one_round() {
    for modes in [&["DELETE"][..], &["DELETE", "WAL", "TRUNCATE"]] {
        let env = TestEnv::new();
        let names: Vec<_> = (0..14).map(|i| format!("{i:02}.db")).collect();
        for (i, name) in names.iter().enumerate() {
            make(&path(&env, name), modes[i % modes.len()], if i == 3 { LARGE } else { 1000 });
        }
        let (stop, rounds) = (AtomicBool::new(false), AtomicI64::new(0));
        thread::scope(|scope| {
            let all: Vec<_> = names.iter().map(|name| open(&path(&env, name))).collect();
            let (stop, rounds) = (&stop, &rounds);
            scope.spawn(move || {
                while !stop.load(SeqCst) {
                    let round = rounds.fetch_add(1, SeqCst) + 1;
                    for db in &all {
                        db.execute("UPDATE t SET round = ?1", [round]).expect("it can write");
                    }
                }
            });
            wait_for("the writer to write", || (rounds.load(SeqCst) > 5).then_some(()));
            let pulled: Vec<_> = (0..4).map(|_| env.local_pull(&[]).code).collect();
            stop.store(true, SeqCst);
            assert_eq!(pulled, [Some(0); 4]);
        });
        // From the first that is pinned on, the writer waits for it when it comes round.
        let rounds: Vec<Vec<_>> = (store::snapshots(&env.data()).iter())
            .filter(|snapshot| snapshot.kind() == "pull")
            .map(|snapshot| names.iter().map(|name| round_of(&snapshot.path.join(name))).collect())
            .collect();
        let apart =
            |all: &Vec<i64>| all.iter().max().zip(all.iter().min()).map(|(max, min)| max - min);
        assert!(
            rounds.len() == 4 && rounds.iter().all(|all| apart(all) <= Some(1)),
            "{modes:?}: {rounds:?}"
        );
        assert!(rounds.iter().flatten().all(|round| *round > 0), "{rounds:?}");
    }
}

/// What is committed after that moment is not in any copy, also where the -shm files were read
/// in the middle of a commit first.
#[test]
fn a_commit_that_comes_later_is_in_none() {
    let env = TestEnv::new();
    let apps: Vec<_> = ["a.db", "b.db"]
        .map(|name| {
            make(&path(&env, name), "WAL", 1000);
            let app = open(&path(&env, name));
            app.execute("UPDATE t SET round = 1", []).expect("write");
            app
        })
        .into();
    let bin = env.path("bin");
    // The -shm of a.db is torn once: it begins with the same 48 bytes twice.
    let torn = format!(
        "head='{head}'
         case \" $* \" in *-shm*) [ -e '{once}' ] || {{ : >'{once}' && \"$head\" \"$@\" | {{
             \"$head\" -c 48 && \"$head\" -c 48 >/dev/null && \"$head\" -c 48 /dev/zero && cat
         }}; exit; }} ;; esac
         exec \"$head\" \"$@\"",
        head = find("head").display(),
        once = env.path("torn").display()
    );
    shells::script(&bin, "head", &torn);
    // Both commit once more, before the first -wal is copied.
    let late = format!(
        "case \" $* \" in *-wal*) [ -e '{once}' ] || {{ : >'{once}'
             for name in a b; do '{sqlite3}' '{directory}'/$name.db 'UPDATE t SET round = 2'; done
         }} ;; esac
         exec '{dd}' \"$@\"",
        once = env.path("late").display(),
        sqlite3 = find("sqlite3").display(),
        directory = env.production().display(),
        dd = find("dd").display()
    );
    shells::script(&bin, "dd", &late);
    env.local_pull(&[]).ok();
    assert!(env.path("torn").exists() && env.path("late").exists());
    for (name, app) in ["a.db", "b.db"].into_iter().zip(&apps) {
        assert_eq!(round_of(&env.data().join(name)), 1, "{name}");
        let there: i64 = app.query_row("SELECT round FROM t", [], |row| row.get(0)).expect("read");
        assert_eq!(there, 2);
    }
}

#[test]
fn how_far_apart_they_are_is_said() {
    let env = TestEnv::new();
    for name in ["a.db", "b.db"] {
        make(&path(&env, name), "DELETE", LARGE);
    }
    let skew = env.local_pull(&["--json"]).ok().json()["skew_ms"].as_i64();
    assert!(skew.is_some_and(|skew| (0..60_000).contains(&skew)), "{skew:?}");
}

/// The lock of each database ends with its own copy.
#[test]
fn who_writes_to_a_small_one_does_not_wait_for_the_largest() {
    let env = TestEnv::new();
    make(&path(&env, "large.db"), "DELETE", LARGE);
    make(&path(&env, "small.db"), "DELETE", 1000);
    let (held, go) = (env.path("held"), env.path("go"));
    let hold = format!(
        "case \" $* \" in *'/large.db '*) : >'{}'; until [ -e '{}' ]; do sleep 0.02; done ;; esac
         exec '{}' \"$@\"",
        held.display(),
        go.display(),
        find("dd").display()
    );
    shells::script(&env.path("bin"), "dd", &hold);
    let mut xtask = tests::process::Running::start(&mut env.local_pull_command(&[]));
    xtask.wait_for("the large one to be copied", |_| held.exists());
    let small = open(&path(&env, "small.db"));
    small.execute("UPDATE t SET round = 1", []).expect("nobody keeps it");
    let large = open(&path(&env, "large.db"));
    large.busy_timeout(Duration::ZERO).expect("set a timeout");
    large.execute("UPDATE t SET round = 1", []).expect_err("it is being copied");
    env.write("go", "");
    xtask.wait().ok();
    large.execute("UPDATE t SET round = 1", []).expect("nobody keeps it");
    assert_tidy(&env);
}

/// With databases of a second, say: as a slow disk has them.
fn slow() -> TestEnv {
    let env = TestEnv::new();
    make(&path(&env, "data.db"), "DELETE", 20_000_000);
    env.db_toml("max-lock = '1ms'\n");
    env
}

#[test]
fn a_lock_that_would_last_is_not_taken_without_a_word() {
    let env = slow();
    let data = path(&env, "data.db").display().to_string();
    env.local_pull(&[])
        .fails(2)
        .stderr_has(&format!("error: the app could not write to {data} for about 1 s while it is"))
        .stderr_has(
            "hint: add --yes to pull it nevertheless, or set max-lock = \"2s\" in xtask/db",
        );
    env.local_pull(&["--dry-run"]).fails(2).stderr_has("could not write to ");
    assert_tidy(&env);
    env.local_pull(&["--yes"]).ok();
    env.db_toml("max-lock = '1h'\n");
    env.local_pull(&[]).ok();
    env.db_toml("max-lock = 'soon'\n");
    env.local_pull(&[]).fails(2).stderr_has("max-lock \"soon\" is not a duration");
    // What is in WAL mode is not locked.
    databases::execute(&path(&env, "data.db"), "PRAGMA journal_mode = WAL");
    env.db_toml("max-lock = '1ms'\n");
    env.local_pull(&[]).ok();
}

#[test]
fn on_a_terminal_it_is_asked_for() {
    let env = slow();
    for (answer, code) in [("n", 130), ("y", 0)] {
        let session = tests::pty::Session::spawn(&env.local_pull_command(&[]));
        session.wait_for_text("Pull it nevertheless?");
        session.send(&format!("{answer}\r"));
        assert_eq!(session.wait_exit(), code);
        assert_eq!(env.data().join("data.db").exists(), code == 0);
    }
}
