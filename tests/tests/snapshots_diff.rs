//! `snapshots diff`: what changed between two sets of databases.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde_json::{Value, json};
use tests::databases::{self, execute};
use tests::env::TestEnv;
use tests::output::Output;
use tests::sets::{change, developer, named, pull, snapshots};

const USERS: &str = "
CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT UNIQUE, name TEXT, token TEXT);
CREATE TABLE tags (tag TEXT PRIMARY KEY, n INT) WITHOUT ROWID;
CREATE VIRTUAL TABLE search USING fts5 (name);
CREATE VIEW names AS SELECT name FROM users;
INSERT INTO users VALUES (1, 'ann@example.com', 'Ann', 't1'), (2, 'bob@example.com', 'Bob', 't2'),
                         (3, 'cy@example.com', 'Cy', 't3');
INSERT INTO tags VALUES ('new', 1), ('old', 2);
INSERT INTO search VALUES ('Ann');
";

const CHANGES: &str = "
ALTER TABLE users ADD COLUMN nickname TEXT DEFAULT 'none';
UPDATE users SET name = 'Anna', token = NULL WHERE id = 1;
DELETE FROM users WHERE id = 2;
INSERT INTO users (id, email, name) VALUES (4, 'dan@example.com', 'Dan'), (5, NULL, 'Eve');
UPDATE tags SET n = 3 WHERE tag = 'old';
INSERT INTO search VALUES ('Dan');
DROP VIEW names;
CREATE VIEW names AS SELECT name, nickname FROM users;
CREATE INDEX users_name ON users (name);
CREATE TABLE audit (at INT);
INSERT INTO audit VALUES (1), (2);
PRAGMA user_version = 7;
";

/// A developer who has pulled `data.db` and two databases of tenants, and changed what is current.
fn changed() -> TestEnv {
    let env = TestEnv::with_database(USERS);
    for (name, seed) in [("tenant_iris.db", 1), ("tenant_old.db", 2)] {
        databases::create(&env.production().join(name), 30, seed);
    }
    pull(&env);
    execute(&env.data().join("data.db"), CHANGES);
    fs::remove_file(env.data().join("tenant_old.db")).expect("remove");
    execute(&env.data().join("tenant_new.db"), "CREATE TABLE t (a); CREATE TABLE u (a)");
    env
}

#[track_caller]
fn diff(env: &TestEnv, args: &[&str]) -> Output {
    env.xtask([&["snapshots", "diff"], args].concat())
}

fn snapshot(env: &TestEnv) -> PathBuf {
    env.data().join(named(env, "pull").remove(0))
}

/// The files in a directory and below it, with their bytes.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).expect("read a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                left.push(path);
            } else {
                let bytes = fs::read(&path).expect("read a file");
                found.insert(path, bytes);
            }
        }
    }
    found
}

#[test]
fn what_changed_since_the_last_pull_is_shown() {
    let env = changed();
    let before = files(&env.data());
    let shown = diff(&env, &[]).ok();
    assert_eq!(
        env.normalize(&shown.stdout()),
        "data.db: schema
  + table audit
  + column users.nickname TEXT DEFAULT 'none'
  + index users_name on users
  ~ view names
  ~ pragma user_version 0 → 7
data.db: rows
  audit   +2
  search  its index differs
  tags            ~1
  users   +2  -1  ~1
tenant_iris.db: same
tenant_new.db: only in current (2 tables, <SIZE>)
tenant_old.db: only in backup_<TIME> (1 table, <SIZE>)
"
    );
    assert_eq!(env.normalize(&shown.stderr), "   Comparing backup_<TIME> with current\n");
    let summary = diff(&env, &["--summary", "-q"]).ok().stderr_is("").stdout();
    assert_eq!(summary.lines().next(), Some("data.db: 5 changes of the schema; 4 tables +4 -1 ~2"));
    assert_eq!(summary.lines().count(), 4);
    assert!(files(&env.data()) == before, "a comparison only reads");
}

#[test]
fn the_way_of_the_comparison_is_the_order_of_its_arguments() {
    let env = changed();
    let name = named(&env, "pull").remove(0);
    let (short, forward) = (&name[name.len() - 4..], diff(&env, &[]).ok().stdout());
    diff(&env, &[&name]).ok().stdout_is(&forward);
    diff(&env, &[short, "current"]).ok().stdout_is(&forward);
    let back = diff(&env, &["current", short]).ok();
    back.stdout_has("  - column users.nickname TEXT DEFAULT 'none'\n")
        .stdout_has("  users   +1  -2  ~1\n")
        .stdout_has("tenant_old.db: only in backup_");
    diff(&env, &["current", "current"])
        .ok()
        .stdout_is("data.db: same\ntenant_iris.db: same\ntenant_new.db: same\n");
    diff(&env, &["--only", "tenant_i*"]).ok().stdout_is("tenant_iris.db: same\n");
    let wrong = diff(&env, &["--only", "x*"]).fails(2).stdout_is("");
    wrong.stderr_has(
        "error: --only \"x*\" matches none of: data.db, tenant_iris.db, tenant_new.db, ",
    );
    diff(&env, &["1999"]).fails(1).stderr_has("no snapshot in ");
    diff(&env, &["no/such.db"]).fails(2).stderr_has("error: no/such.db is not a file\n");
    let empty = TestEnv::new();
    diff(&empty, &[])
        .fails(1)
        .stderr_has("there is no pulled snapshot")
        .stderr_has("cargo xtask pull-db");
}

#[test]
fn the_rows_of_a_table_are_shown() {
    let env = changed();
    diff(&env, &["--table", "users"]).ok().stdout_is(
        "data.db: users
  ~ id 1: name 'Ann' → 'Anna', token 't1' → NULL
  - id 2: email 'bob@example.com', name 'Bob', token 't2'
  + id 4: email 'dan@example.com', name 'Dan', token NULL, nickname 'none'
  + id 5: email NULL, name 'Eve', token NULL, nickname 'none'
data.db: rows
  users  +2  -1  ~1
",
    );
    diff(&env, &["--table", "USERS", "--skinny"]).ok().stdout_is(
        "data.db: USERS
  ~ id 1: name, token
  - id 2
  + id 4
  + id 5
data.db: rows
  users  +2  -1  ~1
",
    );
    diff(&env, &["--table", "tags"]).ok().stdout_has("  ~ tag 'old': n 2 → 3\n");
    diff(&env, &["--table", "audit"]).ok().stdout_is("data.db: rows\n  audit  +2\n");
    let wrong = diff(&env, &["--table", "user"]).fails(2).stdout_is("");
    wrong.stderr_has(
        "error: none of the databases has a table \"user\"\nhint: did you mean \"users\"?\n",
    );
    diff(&env, &["--skinny"]).fails(2);
    diff(&env, &["--table", "users", "--summary"]).fails(2);
}

#[test]
fn scripts_get_json() {
    let env = changed();
    let name = named(&env, "pull").remove(0);
    let report = diff(&env, &["--json"]).ok().json();
    assert_eq!((&report["a"], &report["b"]), (&json!(name), &json!("current")));
    let databases = report["databases"].as_array().expect("a list");
    let statuses: Vec<_> =
        databases.iter().map(|it| (it["name"].as_str(), it["status"].as_str())).collect();
    let expected = [
        ("data.db", "changed"),
        ("tenant_iris.db", "same"),
        ("tenant_new.db", "added"),
        ("tenant_old.db", "removed"),
    ];
    assert_eq!(statuses, expected.map(|(name, status)| (Some(name), Some(status))));
    assert_eq!(databases[0]["unmasked"], false);
    let column = json!({"change": "added", "type": "column", "name": "users.nickname", "after": "TEXT DEFAULT 'none'"});
    assert_eq!(databases[0]["schema"][1], column);
    let index = json!({"change": "added", "type": "index", "name": "users_name", "table": "users"});
    assert_eq!(databases[0]["schema"][2], index);
    let users = json!({"name": "users", "added": 2, "removed": 1, "changed": 1});
    assert_eq!(databases[0]["tables"][3], users);
    assert_eq!(databases[0]["tables"][1]["note"], "its index differs");
    assert_eq!(databases[2]["content"]["tables"], 2);

    let report = diff(&env, &["--json", "--table", "users"]).ok().json();
    assert_eq!(report["databases"][0]["tables"], json!([users]));
    let rows = report["rows"].as_array().expect("a list");
    assert_eq!(
        rows[0],
        json!({"database": "data.db", "change": "changed", "key": {"id": 1}, "columns": ["name", "token"],
               "before": {"name": "Ann", "token": "t1"}, "after": {"name": "Anna", "token": null}})
    );
    assert_eq!(
        (&rows[1]["change"], &rows[1]["before"]["email"]),
        (&json!("removed"), &json!("bob@example.com"))
    );
    assert_eq!(
        (&rows[2]["change"], &rows[2]["after"]["nickname"]),
        (&json!("added"), &json!("none"))
    );
    assert_eq!(rows.len(), 4);
    let report = diff(&env, &["--json", "--table", "users", "--skinny"]).ok().json();
    assert_eq!(
        report["rows"][1],
        json!({"database": "data.db", "change": "removed", "key": {"id": 2}, "columns": []})
    );
    let report = diff(&env, &["current", "--json", "--table", "users"]).ok().json();
    assert_eq!((&report["rows"], &report["b"]), (&json!([]), &json!("current")));
}

#[test]
fn values_of_unmasked_databases_are_shown_only_if_asked_for() {
    let env = TestEnv::with_database(USERS);
    execute(
        &env.production().join("data.db"),
        "CREATE TABLE keys (secret TEXT PRIMARY KEY, n); INSERT INTO keys VALUES ('hunter2', 1)",
    );
    env.db_toml("[[sanitize]]\ntable = 'users'\nset = { token = \"''\" }\n");
    env.local_pull(&["--no-sanitize", "--yes"]).ok();
    let live = env.data().join("data.db");
    execute(
        &live,
        "UPDATE users SET token = 'secret2' WHERE id = 1; DELETE FROM users WHERE id = 3; UPDATE keys SET n = 2",
    );
    let pulled = snapshot(&env).join("data.db").display().to_string();
    let live = live.display().to_string();
    // Of a file, it counts in which data directory it is.
    let other = env.path("other").display().to_string();
    let elsewhere = ["--local-dir", &other, &pulled, &live];
    for sides in [&[][..], &["current", &pulled], &[&pulled, &live], &elsewhere] {
        let rows = |more: &[&str]| diff(&env, &[sides, more].concat()).ok();
        let shown = rows(&["--table", "users"]);
        shown
            .stdout_has("data.db: users (unmasked: values are shown only with --show-unmasked)\n")
            .stdout_has("  ~ id 1: token\n")
            .stdout_has(" id 3\n");
        let mut all = rows(&["--table", "users"]).stdout();
        all += &rows(&["--table", "keys"]).stdout_has("  ~ rowid 1: n\n").stdout();
        all += &rows(&["--table", "users", "--json"]).stdout();
        all += &rows(&["--table", "keys", "--json"]).stdout();
        for value in ["t1", "t3", "secret2", "hunter2", "example.com"] {
            assert!(!all.contains(value), "{value} in {all}");
        }
        rows(&["--table", "users", "--show-unmasked"])
            .stdout_has("'secret2'")
            .stdout_has("email 'cy@example.com'");
        assert_eq!(rows(&["--json"]).json()["databases"][0]["unmasked"], true);
    }
}

#[test]
fn a_running_app_is_read_at_one_moment_and_goes_on() {
    let env = developer();
    let live = env.data().join("data.db");
    let app = Connection::open(&live).expect("open");
    app.execute_batch("PRAGMA wal_autocheckpoint = 0").expect("a setting");
    databases::insert(&app, 5, 9);
    app.execute_batch("BEGIN IMMEDIATE; DELETE FROM items").expect("write");
    let before = databases::files(&env.data());
    let changed = || diff(&env, &["--only", "data.db"]).ok();
    changed().stdout_is("data.db: rows\n  items  +5\n");
    assert_eq!(databases::files(&env.data()), before);
    app.execute_batch("COMMIT").expect("nobody is in its way");
    changed().stdout_is("data.db: rows\n  items  -30\n");
    // Its pages have moved into the file, and the rest is in the -wal.
    app.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("nobody reads any more");
    databases::insert(&app, 1, 9);
    changed().stdout_is("data.db: rows\n  items  -29  ~1\n");
    drop(app);
    // In a rollback mode.
    execute(&live, "PRAGMA journal_mode = DELETE");
    changed().stdout_is("data.db: rows\n  items  -29  ~1\n");
    assert_eq!(
        databases::files(&env.data()).iter().filter(|name| name.contains("data.db")).count(),
        1
    );
}

#[test]
fn a_database_that_is_locked_is_waited_for_and_then_named() {
    let env = developer();
    let live = env.data().join("data.db");
    execute(&live, "PRAGMA journal_mode = DELETE");
    let app = Connection::open(&live).expect("open");
    app.execute_batch("BEGIN EXCLUSIVE; DELETE FROM items WHERE id = 1").expect("lock");
    let shown = diff(&env, &["--no-wait"]).fails(1);
    shown.stdout_is("data.db: not compared\ntenant_iris.db: same\n").stderr_has(
        "warning: data.db: a program has it locked: end its transaction, or give it time with --wait SECONDS: ",
    );
    let mut waiting = env.start_xtask(["snapshots", "diff", "--wait", "100"]);
    waiting.wait_for_stderr("Comparing");
    app.execute_batch("COMMIT").expect("nobody reads");
    waiting.wait().ok().stdout_has("  items  -1\n");
}

#[test]
fn what_a_killed_app_left_stays_as_it_is() {
    for (keep_shm, files_of_it) in [(true, 3), (false, 2)] {
        let env = developer();
        let live = env.data().join("data.db");
        let away = env.path("away.db");
        fs::rename(&live, &away).expect("rename");
        let app = Connection::open(&away).expect("open");
        databases::insert(&app, 7, 9);
        for end in ["", "-wal", "-shm"].into_iter().filter(|end| keep_shm || *end != "-shm") {
            let path = |path: &Path| format!("{}{end}", path.display());
            fs::copy(path(&away), path(&live)).expect("copy");
        }
        let all = || {
            let mut files = files(&env.data());
            files.retain(|path, _| !path.to_string_lossy().ends_with("-shm"));
            (files, databases::files(&env.data()))
        };
        let before = all();
        assert_eq!(before.1.iter().filter(|name| name.starts_with("data.db")).count(), files_of_it);
        diff(&env, &["--only", "data.db"]).ok().stdout_is("data.db: rows\n  items  +7\n");
        assert!(all() == before, "{:?}", before.1);
    }
}

#[test]
fn files_are_compared_by_their_path() {
    let env = changed();
    let copy = env.path("data.db");
    fs::copy(env.data().join("data.db"), &copy).expect("copy");
    execute(&copy, "DELETE FROM audit");
    let copy = copy.display().to_string();
    diff(&env, &["current", &copy]).ok().stdout_is("data.db: rows\n  audit  -2\n");
    diff(&env, &[&copy]).ok().stdout_is("data.db: rows\n  audit  +2\n");
    let other = env.path("other.db");
    fs::copy(&copy, &other).expect("copy");
    let other = other.display().to_string();
    diff(&env, &[&copy, &other]).ok().stdout_is("data.db → other.db: same\n");
    let wrong = diff(&env, &[&other]).fails(2);
    wrong.stderr_has("error: current has no database called \"other.db\"; it has: data.db, tenant_iris.db, tenant_new.db\nhint: ");
    diff(&env, &[&other, "--only", "data.db"])
        .ok()
        .stdout_is("other.db → data.db: rows\n  audit  +2\n");
    // A file of a snapshot is part of it.
    let snapshot = snapshot(&env);
    let before = files(&snapshot);
    let pulled = snapshot.join("data.db").display().to_string();
    diff(&env, &[&pulled]).ok().stdout_has("  users   +2  -1  ~1\n");
    diff(&env, &[&pulled, &pulled]).ok().stdout_is("data.db: same\n");
    assert!(files(&snapshot) == before);
}

#[test]
fn a_damaged_database_is_named_and_the_others_are_compared() {
    let env = developer();
    change(&env.data().join("tenant_iris.db"));
    change(&env.data().join("data.db"));
    let path = env.data().join("data.db");
    let mut bytes = fs::read(&path).expect("read");
    let page = bytes.len() / 4096 - 1;
    bytes[4096..page * 4096].fill(0xa5);
    fs::write(&path, bytes).expect("write");
    let shown = diff(&env, &[]).fails(1);
    shown
        .stdout_is("data.db: not compared\ntenant_iris.db: rows\n  items  +1\n")
        .stderr_has(&format!("warning: data.db: {} is damaged: ", path.display()))
        .stderr_has("error: 1 database could not be compared: data.db\nhint: ");
    let report: Value = diff(&env, &["--json"]).fails(1).json();
    assert_eq!(report["databases"][0]["status"], "failed");
    assert_eq!(report["databases"][1]["status"], "changed");
    fs::write(&path, "no database".repeat(1000)).expect("write");
    diff(&env, &[]).fails(1).stdout_has("data.db: not compared\ntenant_iris.db: rows\n");
}

#[test]
fn hostile_names_and_values_are_harmless() {
    let env = TestEnv::new();
    let evil = "\u{1b}]0;owned\u{7}\u{202e}\nx\"';--";
    let (quoted, text) = (evil.replace('"', "\"\""), evil.replace('\'', "''"));
    let production = env.production().join("data.db");
    execute(
        &production,
        &format!(
            "CREATE TABLE \"{quoted}\" (\"k{quoted}\" TEXT PRIMARY KEY, \"{quoted}\");
             INSERT INTO \"{quoted}\" VALUES ('{text}', 1), ('a', 2)"
        ),
    );
    pull(&env);
    let live = env.data().join("data.db");
    execute(
        &live,
        &format!(
            "UPDATE \"{quoted}\" SET \"{quoted}\" = '{text}'; INSERT INTO \"{quoted}\" VALUES ('b{text}', x'1b');
             ALTER TABLE \"{quoted}\" ADD COLUMN \"new{quoted}\" DEFAULT '{text}';
             CREATE INDEX \"i{quoted}\" ON \"{quoted}\" (\"{quoted}\")"
        ),
    );
    for args in
        [&[][..], &["--table", evil], &["--summary"], &["--json"], &["--table", evil, "--json"]]
    {
        let shown = diff(&env, args).ok().is_harmless();
        let has_it = args.contains(&"--summary") || shown.stdout().contains("owned");
        assert!(has_it, "{shown}");
    }
    let rows = diff(&env, &["--table", evil]).ok().stdout();
    assert!(rows.contains("+1") && rows.contains("~2"), "{rows}");
    diff(&env, &["--table", "\u{1b}[31m"]).fails(2).is_harmless();
    diff(&env, &["\u{1b}[31m/x"]).fails(2).is_harmless();
}

#[test]
fn a_comparison_can_be_interrupted() {
    let env = developer();
    let rows = "WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 300000)";
    let fill = format!("INSERT INTO items (key) {rows} SELECT i FROM n");
    execute(&env.data().join("data.db"), &fill);
    let snapshot = snapshot(&env);
    let before = databases::files(&snapshot);
    let mut running = env.start_xtask(["snapshots", "diff", "--table", "items"]);
    running.wait_for("rows", |running| running.stdout_so_far().len() > 1000);
    assert_eq!(databases::files(&snapshot), before, "nothing appears beside a snapshot");
    running.interrupt();
    let output = running.wait().fails(130).stderr_has("interrupted; nothing was changed");
    assert!(output.stdout().lines().count() < 300_000);
    assert_eq!(snapshots(&env).len(), 1);
}
