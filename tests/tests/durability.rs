//! What is synced before it is relied on, and what is left by whoever failed.

use std::fs::{self, File};

use rusqlite::Connection;
use tests::env::TestEnv;
use tests::faults::{can_trace, under_strace};
use tests::long::depth;
use tests::process::{Running, wait_for};
use tests::pull::production;
use tests::sets::{change, developer, named, pull};
use tests::shells;
use tests::{databases, faults, fixtures};

#[test]
fn what_is_in_the_way_is_said_before_anything_changes() {
    let env = developer();
    change(&env.data().join("data.db"));
    let before = databases::content(&env.data().join("data.db"));
    let obstacle = env.data().join("tenant_iris.db");
    fs::remove_file(&obstacle).expect("remove");
    fs::create_dir(&obstacle).expect("a directory in the way");
    env.xtask(["restore-db", "--latest", "--yes"])
        .fails(1)
        .stderr_has("tenant_iris.db: it is not a file; nothing was changed");
    assert!(databases::content(&env.data().join("data.db")) == before);
    assert_eq!(named(&env, "before-restore"), [""; 0]);
}

#[test]
fn the_lock_is_private_too() {
    use std::os::unix::fs::PermissionsExt as _;
    let env = developer();
    let mode = fs::metadata(env.data().join(".xtask/lock")).expect("it is there").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
}

#[test]
fn what_a_killed_program_left_in_production_stays_as_it_is() {
    let (env, _sshd) = production();
    databases::create(&env.path("killed.db"), 10, 1);
    let writer = Connection::open(env.path("killed.db")).expect("open");
    databases::insert(&writer, 50, 2);
    for end in ["", "-wal"] {
        fs::copy(
            env.path(format!("killed.db{end}")),
            env.production().join(format!("killed.db{end}")),
        )
        .expect("copy");
    }
    drop(writer);
    let read = || {
        ["", "-wal"]
            .map(|end| fs::read(env.production().join(format!("killed.db{end}"))).expect("read"))
    };
    let before = read();
    tests::pull::pull(&env, &[]);
    assert!(read() == before, "not even a checkpoint is written");
    assert_eq!(databases::count(&env.data().join("killed.db"), "items"), 60);
}

#[test]
fn a_local_pull_that_fails_leaves_no_copy() {
    let env = developer();
    let rows = "WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
                INSERT INTO t SELECT randomblob(2000) FROM n";
    databases::execute(&env.production().join("large.db"), &format!("CREATE TABLE t (a); {rows}"));
    env.db_toml("[[sanitize]]\nsql = 'DELETE FROM no_such_table'\n");
    let via = format!("local:{}", env.production().display());
    env.xtask(["pull-db", "--via", &via]).fails(1).stderr_has("masking");
    assert_eq!(databases::files(&env.path("local-tmp")), [""; 0]);
}

/// What a run syncs and renames, a line each, with the paths.
fn traced(env: &TestEnv, args: &[&str]) -> String {
    let syscalls = ["fsync", "fdatasync", "rename", "renameat", "renameat2"];
    faults::trace(env, args, &syscalls).into_iter().map(|call| call.text + "\n").collect()
}

#[test]
fn what_is_saved_and_staged_is_synced_before_it_is_renamed() {
    let env = developer();
    // An unchanged database would be neither saved nor staged.
    change(&env.data().join("data.db"));
    change(&env.data().join("tenant_iris.db"));
    let trace = traced(&env, &["restore-db", "--latest", "--yes"]);
    let lines: Vec<&str> = trace.lines().collect();
    let at = |what: &str, from: &str| {
        lines
            .iter()
            .position(|line| line.contains(what) && line.contains(from))
            .unwrap_or_else(|| panic!("no {what} of {from} in\n{trace}"))
    };
    let decided = at("rename", "journal.json");
    for (name, dir) in
        [("data.db", "staged"), ("tenant_iris.db", "staged"), ("data.db", "incoming-")]
    {
        let synced =
            lines.iter().position(|l| l.contains("sync(") && l.contains(dir) && l.contains(name));
        assert!(synced.is_some_and(|i| i < decided), "{dir} {name} in\n{trace}");
    }
    let synced = |what: &str| lines.iter().any(|l| l.contains("sync(") && l.contains(what));
    assert!(synced("unfinished-"), "the journal");
    assert!(
        lines[decided..].iter().any(|l| l.contains("sync(") && l.contains(".xtask>")),
        "its directory"
    );
    assert!(
        lines[decided..].iter().any(|l| l.contains("sync(") && l.contains("/data>")),
        "the live directory"
    );
}

#[test]
fn what_arrives_is_synced_before_it_is_a_snapshot() {
    let env = developer();
    change(&env.production().join("data.db"));
    let via = format!("local:{}", env.production().display());
    let trace = traced(&env, &["pull-db", "--via", &via]);
    let committed = trace
        .lines()
        .position(|line| line.contains("rename") && line.contains("/backup_"))
        .expect("a commit");
    for name in ["data.db", "tenant_iris.db"] {
        let synced = trace
            .lines()
            .position(|l| l.contains("fsync(") && l.contains("incoming-") && l.contains(name));
        assert!(synced.is_some_and(|i| i < committed), "{name} in\n{trace}");
    }
}

#[test]
fn a_pull_ends_when_the_servers_side_has() {
    let env = developer();
    let rm = format!("sleep 1; exec {} \"$@\"", shells::find("rm").display());
    shells::script(&env.path("bin"), "rm", &rm);
    pull(&env);
    assert_eq!(databases::files(&env.path("local-tmp")), [""; 0], "at once");
}

/// At some moments of a run: whatever it does just then, it cleans up.
#[test]
fn a_client_that_goes_at_any_moment_leaves_nothing_on_the_server() {
    use std::io::Write as _;
    use std::process::Stdio;
    use std::time::Duration;

    let env = developer();
    let script = shells::pull_script(&env.path("."));
    let request = format!(
        "nonce 00\nmode stream\ndirectory {}\nstaging {}\ninclude *.db\nend\n",
        env.production().display(),
        env.path("tmp").display()
    );
    for shell in [&["dash"][..], &["bash", "--posix"], &["busybox", "sh"]] {
        for moment in (0..40).step_by(depth(9, 1)) {
            let mut server = env.command(shell[0]);
            server.args(&shell[1..]).arg(&script).env("XTASK_REQUEST", "1");
            server.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut server = server.spawn().expect("start the script");
            let mut client = server.stdin.take().expect("it listens");
            client.write_all(request.as_bytes()).expect("ask");
            std::thread::sleep(Duration::from_millis(moment * 3));
            drop(client);
            wait_for("the script to end", || server.try_wait().expect("it is ours"));
            let left = databases::files(&env.path("tmp"));
            assert_eq!(left, [""; 0], "{shell:?} after {moment} times 3 ms");
        }
    }
}

#[test]
fn a_file_that_is_made_while_the_copies_are_removed_is_removed_as_well() {
    let env = developer();
    // As a child of what was killed may do it, once.
    let body = format!(
        "rm=$(PATH=/usr/bin:/bin command -v rm); $rm \"$@\"; [ ! -e {0} ] || exec $rm \"$@\"\n\
         touch {0}; mkdir -p \"$2\"; touch \"$2/late\"; exit 1",
        env.path("once").display()
    );
    shells::script(&env.path("bin"), "rm", &body);
    pull(&env);
    assert!(env.path("once").exists(), "it was in the way");
    assert_eq!(databases::files(&env.path("local-tmp")), [""; 0]);
}

const REFRESH: [&str; 1] = ["refresh-fixtures"];

/// A first refresh was killed instead of its first rename.
fn killed_refresh() -> TestEnv {
    let env = fixtures::pulled();
    let inject = "inject=?rename,?renameat,?renameat2:signal=KILL:when=1";
    let calls = ["rename", "renameat", "renameat2"];
    Running::start(&mut under_strace(&env, &REFRESH, &calls, &["-e", inject])).wait();
    env
}

#[test]
fn a_file_that_a_killed_command_was_writing_is_removed_by_the_next() {
    if !can_trace() {
        return;
    }
    let env = killed_refresh();
    let left = || {
        let mut left = databases::files(&env.repo().join("tests/fixtures"));
        left.retain(|name| name.contains("unfinished-"));
        left
    };
    assert_eq!(left().len(), 1);
    // What a person has called so, and what another command is writing.
    let (own, other) = ("unfinished-novel.txt", "xtask-unfinished-abcdef");
    for name in [own, other] {
        env.write(&format!("repo/tests/fixtures/{name}"), "text");
    }
    let writes = File::open(env.repo().join("tests/fixtures").join(other)).expect("open");
    writes.lock().expect("lock");
    env.xtask(REFRESH).ok();
    assert_eq!(left(), [own, other]);
    drop(writes);
    env.xtask(REFRESH).ok();
    assert_eq!(left(), [own]);
}

#[test]
fn a_directory_that_a_killed_command_has_filled_is_removed_by_the_next() {
    if !can_trace() {
        return;
    }
    let env = killed_refresh();
    let left = || databases::files(&env.path("local-tmp"));
    assert!(!left().is_empty(), "rows of production are there");
    // What another command is filling, and what is not ours.
    let (other, own) = ("xtask-scratch-abcdef", "scratch");
    for name in [other, own] {
        env.write(&format!("local-tmp/{name}/rows"), "text");
    }
    let fills = File::open(env.path("local-tmp").join(other)).expect("open");
    fills.lock().expect("lock");
    env.xtask(REFRESH).ok();
    assert_eq!(left(), [own, other]);
    drop(fills);
    databases::execute(&env.production().join("shop.db"), "DELETE FROM orders WHERE id = 30");
    pull(&env);
    env.xtask(REFRESH).ok();
    assert_eq!(left(), [own]);
}
