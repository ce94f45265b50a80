//! What follows from the audit of a pull: a warning, or that nothing is sent.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tests::databases;
use tests::env::TestEnv;
use tests::long::depth;
use tests::process::Running;
use tests::pull::{pull, pull_fails};
use tests::shells::{self, find};
use tests::store;

#[track_caller]
fn audit(env: &TestEnv) -> Vec<Value> {
    let json = env.local_pull(&["--json"]).ok().json();
    json["audit"].as_array().expect("an array").clone()
}

#[test]
fn a_column_that_appears_later_stops_a_pull_before_anything_is_sent() {
    let (env, _sshd) = TestEnv::with_server();
    let path = env.production().join("data.db");
    databases::execute(
        &path,
        "CREATE TABLE users (id, email); INSERT INTO users VALUES (1, 'hunter2isnosecret')",
    );
    env.db_toml("[audit]\nlevel = 'fail'\n[[sanitize]]\ntable = 'users'\nset = { email = 'id' }\n");
    pull(&env, &[]).stderr_lacks("warning");
    databases::execute(&path, "ALTER TABLE users ADD COLUMN phoneNumber");
    let captured: PathBuf = env.path("captured");
    env.replace_fly(&format!("standin-fly \"$@\" | tee {}", captured.display()));
    for args in [&[][..], &["--dry-run"], &["--sftp"], &["-q"]] {
        pull_fails(&env, args, 1).stderr_has(
            "error: nothing was sent: a column with likely secrets has no rule\n  \
             users.phoneNumber  in data.db, 0 rows\n\
             hint: cargo xtask init adds a rule for each:\n  [[sanitize]]\n  table = \"users\"\n  \
             set = { \"phoneNumber\" = \"fake(phone)\" }\n\
             columns that are fine: allow = [\"table.column\"] in [audit]\n",
        );
        let said = fs::read(&captured).expect("it was captured");
        let said = String::from_utf8(said).expect("talk is text: no archive is in it");
        for marker in ["XTASK-DB 1 ", "XTASK-DB-PLAN", "XTASK-DB-ARCHIVE", "packing", "hunter2"] {
            assert!(!said.contains(marker), "{marker}: {said}");
        }
    }
    assert_eq!(store::kinds(&env.data()), ["pull"]);
    env.db_toml("[audit]\nlevel = 'fail'\nallow = ['users.phoneNumber', 'users.email']");
    pull(&env, &[]).stderr_lacks("warning");
    assert_eq!(databases::count(&env.data().join("data.db"), "users"), 1);
}

#[test]
fn a_warning_comes_last_and_names_what_to_write() {
    let env = TestEnv::with_database(
        "CREATE TABLE users (email); CREATE TABLE hooks (body);
         INSERT INTO users VALUES ('a'), ('b'), (NULL); INSERT INTO hooks VALUES ('xoxb-0123456789')",
    );
    databases::execute(&env.production().join("tenant.db"), "CREATE TABLE users (id, email)");
    let columns = "hooks.body   in data.db, 1 row with what looks like a Slack token\n  \
                   users.email  in 2 databases, 2 rows\n";
    let text =
        format!("warning: 2 columns with likely secrets are now in ./data, unmasked\n  {columns}");
    let planned =
        format!("warning: 2 columns with likely secrets would come unmasked\n  {columns}");
    let hint = "hint: cargo xtask init adds a rule for each:\n  [[sanitize]]\n  table = \"hooks\"\n  \
                set = { \"body\" = \"''\" }\n  [[sanitize]]\n  table = \"users\"\n  set = { \"email\" = \"fake(email)\" }\n\
                columns that are fine: allow = [\"table.column\"] in [audit]\n";
    let output = env.local_pull(&[]).ok();
    assert!(output.stderr.ends_with(&format!("{text}{hint}")), "{output}");
    env.local_pull(&["-q"]).ok().stderr_is(&text);
    env.local_pull(&["--dry-run"])
        .ok()
        .stderr_has(&format!("nothing was changed\n{planned}{hint}"));
    let wanted = json!([
        { "table": "hooks", "column": "body", "kind": "slack", "rows": 1, "databases": 1, "database": "data.db", "set": "''" },
        { "table": "users", "column": "email", "kind": "personal", "rows": 2, "databases": 2, "database": "data.db", "set": "fake(email)" },
    ]);
    for (args, text) in [(&["--json"][..], &text), (&["--json", "--dry-run"], &planned)] {
        let output = env.local_pull(args).ok().stderr_has(text);
        assert_eq!(output.json()["audit"], wanted);
    }
}

#[test]
fn a_column_of_many_databases_is_one_line() {
    let env = TestEnv::new();
    databases::execute(
        &env.production().join("t100.db"),
        "CREATE TABLE members (email); INSERT INTO members VALUES (1)",
    );
    let last = depth(120, 220);
    for i in 101..last {
        fs::copy(env.production().join("t100.db"), env.production().join(format!("t{i}.db")))
            .expect("copy");
    }
    let found = audit(&env);
    assert_eq!(found.len(), 1, "{found:?}");
    let all = last - 100;
    assert_eq!((&found[0]["databases"], &found[0]["rows"]), (&all.into(), &all.into()));
    env.local_pull(&[])
        .ok()
        .stderr_has(&format!("\n  members.email  in {all} databases, {all} rows\n"));
}

const STRANGE: [(&str, &str); 7] = [
    ("it's", "the \"token\""),
    ("new\nline", "pass\nword\nkey\n"),
    ("\n.shell touch pwned", "x'); .quit\ntoken"),
    ("a b.c", "d.e token"),
    ("\u{1b}[2J\u{202e}", "\u{7}token"),
    ("$(touch pwned)", "`touch pwned` token %s \\"),
    ("Größe→漢字🦀", "Schlüssel token 漢字🦀"),
];

#[test]
fn strange_names_stay_data_and_the_lines_for_them_are_right() {
    for encoding in ["UTF-8", "UTF-16le"] {
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let tables = STRANGE.map(|(table, column)| {
            let (table, column) = (quoted(table), quoted(column));
            format!("CREATE TABLE {table} (id, {column}); INSERT INTO {table} VALUES (1, 'x'), (2, NULL);")
        });
        let env = TestEnv::new();
        let name = "o'x\n$(touch pwned)` %s é.db".replace('\n', "-");
        let sql = format!("PRAGMA encoding = '{encoding}'; {}", tables.concat());
        databases::execute(&env.production().join(&name), &sql);
        let found = audit(&env);
        let wanted: BTreeSet<_> =
            STRANGE.map(|(table, column)| (table.to_owned(), column.to_owned())).into();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let names: BTreeSet<_> =
            found.iter().map(|found| (text(&found["table"]), text(&found["column"]))).collect();
        assert_eq!(names, wanted, "{encoding}");
        assert!(
            found.iter().all(|found| found["rows"] == 1 && found["database"] == name.as_str()),
            "{found:?}"
        );
        let output = env.local_pull(&[]).ok().is_harmless();
        let rules = output.stderr.split("adds a rule for each:\n").nth(1).expect("a hint");
        let rules = rules.split("columns that are fine").next().expect("rules");
        // No rule can name a table with a control character, or a line of it that begins with a dot.
        let is_possible = |rule: &&str| !["\\u00", "\\n.shell"].iter().any(|it| rule.contains(it));
        let rules = rules.split("  [[sanitize]]").skip(1).filter(is_possible);
        let rules: String = rules.map(|rule| format!("[[sanitize]]{rule}")).collect();
        env.db_toml(&format!(
            "[audit]\nlevel = 'fail'\nallow = ['*.shell touch pwned.*token', '*[[]2J*.*token']\n{rules}"
        ));
        env.local_pull(&[]).ok().stderr_lacks("warning");
        for directory in [env.repo(), env.production(), env.path("tmp"), env.path("")] {
            assert!(!directory.join("pwned").exists());
        }
    }
}

#[test]
fn each_shell_looks() {
    let sql = "CREATE TABLE \"u's\" (email, note); INSERT INTO \"u's\" VALUES ('a', 'AKIAHUNTER2ISNOSECRE');";
    let large =
        format!("{sql} CREATE TABLE filler (x); INSERT INTO filler VALUES (zeroblob(2000000));");
    for (shell, words) in [("dash", ""), ("bash", "--posix"), ("busybox", "sh")] {
        for sql in [sql, &large] {
            let env = TestEnv::with_database(sql);
            let exec = format!("exec {} {words} \"$@\"", find(shell).display());
            shells::script(&env.path("bin"), "sh", &exec);
            let found = audit(&env);
            let kinds: Vec<_> =
                found.iter().map(|found| found["kind"].as_str().unwrap_or_default()).collect();
            assert_eq!(kinds, ["aws", "personal"], "{shell}");
            env.db_toml("[audit]\nlevel = 'fail'");
            env.local_pull(&[]).fails(1).stderr_has("nothing was sent");
        }
    }
    // A machine with nothing but busybox, whose grep is another.
    let env = TestEnv::with_database(&large);
    let bin = shells::busybox(&env.path(""), &["sqlite3"]);
    let mut pull = env.local_pull_command(&["--json"]);
    let json = Running::start(pull.env("PATH", &bin)).wait().ok().json();
    assert_eq!(json["audit"].as_array().map(Vec::len), Some(2), "{json}");
}

#[test]
fn of_thousands_of_columns_only_so_many_are_told() {
    let columns = |from: u32| {
        let columns: Vec<_> = (from..from + 505).map(|i| format!("key_{i}")).collect();
        columns.join(", ")
    };
    let env = TestEnv::with_database(&format!(
        "CREATE TABLE a ({}); CREATE TABLE b ({})",
        columns(0),
        columns(505)
    ));
    let output = env.local_pull(&["--json"]).ok();
    assert_eq!(output.json()["audit"].as_array().map(Vec::len), Some(1000));
    output
        .stderr_has("1,010 columns with likely secrets are now in ")
        .stderr_has("\n  and 990 more; --json lists the first 1,000\n");
    env.db_toml("[audit]\nlevel = 'fail'");
    env.local_pull(&["--json"])
        .fails(1)
        .stdout_is("")
        .stderr_has("\n  and 990 more; --json lists more where `level` is \"warn\"\n");
}

#[test]
fn what_is_set_for_the_audit_must_mean_something() {
    let env = TestEnv::with_database("CREATE TABLE t (a)");
    for (toml, said) in [
        ("level = 'warning'", "did you mean `warn`?"),
        ("alow = []", "did you mean `allow`?"),
        ("allow = ['members']", "allow has \"members\", which is not a column of a table"),
        ("allow = ['a.[^b]']", "has a character class that not every shell supports"),
        ("allow = [\"a.\\u001b\"]", "the pattern has a control character"),
        ("allow = ['a.[b']", "is malformed"),
    ] {
        env.db_toml(&format!("[audit]\n{toml}\n"));
        env.local_pull(&[]).fails(2).stderr_has(said).stderr_has("db.toml").is_harmless();
    }
}
