//! `omit`: the rows of tables that nobody needs here stay on the server.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use tests::databases::{self, count};
use tests::env::TestEnv;
use tests::pull::{recorded, snapshot};

/// A database whose cache and logs are most of it. The noise does not compress.
fn production() -> TestEnv {
    TestEnv::with_database(
        "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT);
         INSERT INTO users VALUES (1, 'ada'), (2, 'grace');
         CREATE TABLE solid_cache_entries (id INTEGER PRIMARY KEY, key BLOB, value BLOB);
         CREATE INDEX cache_keys ON solid_cache_entries (key);
         CREATE TABLE Logs_2026 (at TEXT, line BLOB);
         CREATE TABLE logs_of (user_id INTEGER REFERENCES users, line TEXT);
         CREATE VIRTUAL TABLE logs USING fts5 (line);
         CREATE TABLE log (line TEXT);
         INSERT INTO log VALUES ('it stays');
         CREATE TRIGGER on_delete AFTER DELETE ON logs_of BEGIN DELETE FROM users; END;
         WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
         INSERT INTO solid_cache_entries SELECT i, randomblob(20), randomblob(2000) FROM n;
         INSERT INTO Logs_2026 SELECT id, value FROM solid_cache_entries;
         INSERT INTO logs_of VALUES (1, 'private line');
         INSERT INTO logs VALUES ('words of the index');",
    )
}

const OMIT: &str = "omit = ['solid_cache_entries', 'logs*']\n";

#[test]
fn the_rows_of_omitted_tables_take_nothing_on_the_wire_and_no_room_here() {
    let env = production();
    env.db_toml(OMIT);
    env.local_pull(&[]).ok().stderr_lacks("rows masked");
    let live = env.data().join("data.db");
    for (table, rows) in [
        ("users", 2),
        ("log", 1),
        ("solid_cache_entries", 0),
        ("Logs_2026", 0),
        ("logs_of", 0),
        ("logs", 0),
    ] {
        assert_eq!(count(&live, table), rows, "{table}");
    }
    databases::assert_whole(&live);
    assert!(!databases::bytes_contain(&live, "private line"));
    assert!(recorded(&env, "/origin/wire_bytes").as_u64() < Some(20_000));
    let metadata = fs::metadata(snapshot(&env).path.join("data.db")).expect("it is there");
    let takes = metadata.blocks() * 512;
    assert!(metadata.len() > 4_000_000 && takes < 500_000, "{} of {}", takes, metadata.len());

    // What is omitted is not masked: rules that come later mark the rest.
    let rule = "[[sanitize]]\ntable = 'users'\nset = { name = \"'x'\" }\n";
    env.db_toml(&format!("{OMIT}{rule}"));
    env.xtask(["restore-db", "--list"]).ok().stdout_has("unmasked");
    env.local_pull(&[]).ok().stderr_has("2 rows masked");
    assert_eq!(count(&live, "solid_cache_entries"), 0);
}

#[test]
fn without_the_setting_all_rows_come() {
    let env = production();
    env.db_toml("");
    env.local_pull(&[]).ok();
    assert_eq!(count(&env.data().join("data.db"), "Logs_2026"), 1000);
    env.db_toml(OMIT);
    env.local_pull(&[]).ok();
    assert_eq!(count(&env.data().join("data.db"), "Logs_2026"), 0);
    env.db_toml("omit = ['[^a]']\n");
    env.local_pull(&[]).fails(2).stderr_has("omit");
}

#[test]
fn the_audit_has_nothing_to_say_of_what_is_omitted() {
    let env = TestEnv::with_database(
        "CREATE TABLE sessions (token TEXT); INSERT INTO sessions VALUES ('sk_live_0123456789abcdef');",
    );
    env.db_toml("audit.level = 'fail'\n");
    env.local_pull(&[]).fails(1).stderr_has("sessions.token");
    env.db_toml("omit = ['SESSIONS']\naudit.level = 'fail'\n");
    env.local_pull(&[]).ok().stderr_lacks("sessions");
}

#[test]
fn what_only_begins_like_a_virtual_table_is_omitted_and_so_are_virtual_tables() {
    let env = TestEnv::with_database(
        "CREATE VIRTUAL TABLE users USING rtree(id, x0, x1, +name text);
         INSERT INTO users VALUES (1, 0, 1, 'private name');
         CREATE TABLE users_tokens (id INTEGER PRIMARY KEY, token TEXT);
         INSERT INTO users_tokens VALUES (1, 'private token');
         CREATE TABLE docs (body TEXT); INSERT INTO docs VALUES ('it stays');
         CREATE VIRTUAL TABLE found USING fts5(body, content='docs');
         CREATE TABLE found_content (note TEXT); INSERT INTO found_content VALUES ('private note');
         CREATE VIRTUAL TABLE words USING fts5(body, content='');
         INSERT INTO words(rowid, body) VALUES (1, 'privateword');",
    );
    env.db_toml("omit = ['users*', 'found_content', 'words']\n");
    env.local_pull(&[]).ok();
    let live = env.data().join("data.db");
    for (table, rows) in [("users", 0), ("users_tokens", 0), ("found_content", 0), ("docs", 1)] {
        assert_eq!(count(&live, table), rows, "{table}");
    }
    assert!(!databases::bytes_contain(&live, "private"));
    databases::assert_whole(&live);
}

#[test]
fn what_is_omitted_stays_on_the_server_also_without_masking() {
    let env = TestEnv::with_database(
        "CREATE TABLE sessions (token); INSERT INTO sessions VALUES ('hunter2-hunter2'); CREATE TABLE t (a)",
    );
    for rules in ["", "[[sanitize]]\ntable = 't'\ndelete = true\n"] {
        env.db_toml(&format!("omit = ['sessions']\n{rules}"));
        env.local_pull(&["--no-sanitize", "--yes"]).ok();
        assert_eq!(count(&env.data().join("data.db"), "sessions"), 0);
        assert!(!databases::bytes_contain(&env.data().join("data.db"), "hunter2"));
    }
}

#[test]
fn a_pattern_that_omits_nothing_is_told() {
    let env = TestEnv::with_database("CREATE TABLE sessions (token)");
    env.db_toml("omit = ['sesions', 'sess*']\n");
    env.local_pull(&[])
        .ok()
        .stderr_has("warning: omit: no database has a table sesions\n")
        .stderr_lacks("sess*");
}
