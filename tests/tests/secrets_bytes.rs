//! No eight bytes of a secret that a rule removes leave the server: not in a database,
//! the stream, a log or what is said, and with no build of its `sqlite3`.

use std::fs;

use tests::databases;
use tests::env::TestEnv;
use tests::leaky::{Leaky, NAMES};
use tests::long::depth;
use tests::output::Output;
use tests::process::Running;
use tests::secrets::{Random, Secrets};
use tests::sqlite3::Build;

fn options(env: &TestEnv, build: Build) -> String {
    sqlite3(env, build, &[":memory:", "PRAGMA compile_options"]).stdout()
}

#[track_caller]
fn sqlite3(env: &TestEnv, build: Build, args: &[&str]) -> Output {
    Running::start(env.command("sqlite3").env("PATH", build.path()).args(args)).wait().ok()
}

#[test]
fn a_build_without_secure_delete_leaves_what_is_overwritten() {
    let env = TestEnv::new();
    for &build in &Build::all()[1..] {
        let options = options(&env, build);
        assert!(options.contains("ENABLE_FTS4\n") && options.contains("ENABLE_FTS5\n"));
        assert!(!options.contains("SECURE_DELETE"), "{build:?}: {options}");
        assert_eq!(options.contains("DBSTAT"), build == Build::WithoutSecureDelete);
        sqlite3(&env, build, &[":memory:", "PRAGMA secure_delete"]).stdout_is("0\n");
        let path = env.path(format!("{build:?}.db"));
        let make =
            "CREATE TABLE t (v); INSERT INTO t VALUES ('hunter2isnosecret'); UPDATE t SET v = 'x'";
        sqlite3(&env, build, &[&path.display().to_string(), make]);
        assert!(databases::bytes_contain(&path, "hunter2isno"), "{build:?}");
    }
    let source = |build| sqlite3(&env, build, &[":memory:", "SELECT sqlite_version()"]).stdout();
    if Build::all().len() > 1 {
        assert_ne!(source(Build::Machine), source(Build::WithoutDbstat), "another library");
    }
}

#[test]
fn a_piece_of_a_secret_is_found_in_any_case_and_encoding() {
    let mut secrets = Secrets::default();
    let secret = Random::new(1).secret(&mut secrets);
    let wide: Vec<u8> = secret.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let upper = secret.to_ascii_uppercase();
    for piece in [&secret.as_bytes()[..8], &upper.as_bytes()[9..17], &wide[..16], &wide[18..34]] {
        let mut bytes = vec![b'x'; 100_000];
        assert!(secrets.found_in(&bytes).is_empty());
        bytes.splice(5000..5000, piece.iter().copied());
        assert_eq!(secrets.found_in(&bytes).len(), 1, "{piece:?}");
        bytes[5004] = b'_';
        assert!(secrets.found_in(&bytes).is_empty());
    }
}

#[test]
fn without_rules_all_secrets_arrive() {
    let leaky = Leaky::new(Build::Machine);
    assert!(leaky.secrets.count() > depth(1600, 4000), "{}", leaky.secrets.count());
    for name in NAMES {
        let bytes = fs::read(leaky.env.production().join(name)).expect("read");
        assert!(leaky.secrets.found_in(&bytes).len() > depth(20_000, 50_000), "{name}");
    }
    leaky.env.xtask(["pull-db", "--no-sanitize", "--yes"]).ok();
    let found =
        leaky.streams().iter().map(|bytes| leaky.secrets.found_in(bytes).len()).sum::<usize>();
    assert!(found > depth(80_000, 200_000), "{found} pieces in the stream");
    assert!(
        leaky.secrets.found_in(&fs::read(leaky.env.data().join("wide.db")).expect("read")).len()
            > depth(20_000, 50_000)
    );
}

/// What a day brings: some rows more, some less, and new secrets in old rows.
fn a_day(leaky: &mut Leaky) {
    for name in NAMES {
        let db = leaky.open(name);
        leaky.insert(&db, 3);
        for id in [20, 40, 60] {
            let [token, note] = [0; 2].map(|_| leaky.random.secret(&mut leaky.secrets));
            db.execute("UPDATE users SET token = ?1, note = ?2 WHERE id = ?3", (token, note, id))
                .expect("update a row");
        }
        db.execute_batch("DELETE FROM users WHERE id = 50; DELETE FROM notes WHERE id = 51")
            .expect("delete a row");
        db.execute_batch("INSERT INTO notes5 (notes5) VALUES ('rebuild')").expect("rebuild");
        db.execute_batch("INSERT INTO notes4 (notes4) VALUES ('rebuild')").expect("rebuild");
    }
}

/// What no rule is about is as in production, and what the rules make is there.
#[track_caller]
fn assert_sanitized(env: &TestEnv) {
    for name in NAMES {
        let (live, production) = (env.data().join(name), env.production().join(name));
        databases::assert_whole(&live);
        for sql in [
            "SELECT group_concat(id || kept) FROM (SELECT * FROM events ORDER BY id)",
            "SELECT group_concat(id || name || plan) FROM (SELECT * FROM users ORDER BY id)",
            "SELECT count(*) || max(id) || sum(user) FROM audit",
            "SELECT sum(owner) FROM keys WHERE kept = 'a key'",
            "SELECT group_concat(secret) FROM keys WHERE owner <= 10",
            "SELECT sum(length(body)) FROM letters WHERE kept = 'a letter'",
            "SELECT group_concat(token) FROM (SELECT * FROM sessions WHERE user % 4 = 0 ORDER BY id)",
            "SELECT count(*) FROM notes",
        ] {
            let [here, there] = [&live, &production].map(|path| databases::query(path, sql));
            assert!(here == there, "{name}: {sql}");
        }
        for (sql, left) in [
            ("SELECT count(*) FROM users WHERE email <> 'user' || id || '@example.com'", 0),
            (
                "SELECT count(*) FROM users WHERE token <> '' OR note NOTNULL OR length(label) > 2",
                0,
            ),
            ("SELECT count(*) FROM sessions WHERE user % 4 <> 0", 0),
            ("SELECT count(*) FROM keys WHERE owner > 10 AND secret <> printf('%0100d', owner)", 0),
            (
                "SELECT count(*) = (SELECT count(*) FROM notes) FROM notes5 WHERE notes5 MATCH 'nothing'",
                1,
            ),
            (
                "SELECT count(*) = (SELECT count(*) FROM notes) FROM notes4 WHERE notes4 MATCH 'nothing'",
                1,
            ),
            ("SELECT count(*) = (SELECT count(*) FROM own5) FROM own5 WHERE own5 MATCH 'its'", 1),
            ("SELECT count(*) = (SELECT count(*) FROM own4) FROM own4 WHERE own4 MATCH 'its'", 1),
        ] {
            assert_eq!(databases::query(&live, sql), i64::from(left).into(), "{name}: {sql}");
        }
    }
}

#[test]
fn no_piece_of_a_secret_comes_with_any_pull_of_any_build() {
    for &build in Build::all() {
        let mut leaky = Leaky::new(build);
        // An app has one open, with its latest rows in the log.
        let app = leaky.open("main.db");
        leaky.insert(&app, 2);
        let first = leaky.pull(&["--json"]).json();
        assert!(first["sanitized_rows"].as_u64() > Some(depth(1200, 3000)), "{first}");
        assert_sanitized(&leaky.env);
        if !Build::some().contains(&build) {
            continue;
        }
        a_day(&mut leaky);
        let second = leaky.pull(&["--json"]).json();
        let delta = second["databases"].as_array().expect("databases");
        assert!(delta.iter().any(|database| database["changed_pages"].is_u64()), "{second}");
        assert_sanitized(&leaky.env);
        a_day(&mut leaky);
        leaky.pull(&["--sftp"]);
        assert_sanitized(&leaky.env);
        leaky.pull(&["--full"]);
        for undo in ["--undo", "--latest"] {
            let output = leaky.env.xtask(["restore-db", undo, "--yes", "-v"]).ok();
            leaky.assert_no_secret(&output);
        }
        drop(app);
    }
}

/// FTS4 has no command for it.
#[test]
fn an_fts4_index_without_content_is_emptied() {
    for &build in Build::some() {
        let leaky = Leaky::new(build);
        for name in NAMES {
            leaky
                .open(name)
                .execute_batch(
                    "CREATE VIRTUAL TABLE bare4 USING fts4 (content=\"\", body);
                     INSERT INTO bare4 (docid, body) SELECT id, body FROM notes",
                )
                .expect("index the notes");
        }
        leaky.pull(&[]);
        assert_sanitized(&leaky.env);
    }
}
