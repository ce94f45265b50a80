//! A fixture is looked through as a pull is: what a rule removes is in no column of it, and
//! the audit is asked before anything is written.

use std::collections::BTreeSet;
use std::fs;

use rusqlite::types::Value;
use tests::databases;
use tests::env::TestEnv;
use tests::fixtures::{commit, committed, hooked, migration, status};
use tests::output::Output;
use tests::planted::SECRET;
use tests::process::Running;
use tests::{sets, store};

const FIXTURE: &str = "tests/fixtures/shop.db";
const EMAIL: &str = "[[sanitize]]\ntable = 'auth_user'\nset = { email = \"'user' || id\" }\n";
const LOG: &str =
    "[[sanitize]]\ntable = 'django_admin_log'\nset = { object_repr = \"'object'\" }\n";
const SHOP: &str = "[[fixture]]
path = 'tests/fixtures/shop.db'
from = 'shop.db'
rows = { auth_user = 'id = 1', django_admin_log = 3 }
migrate = 'sh migrate.sh {db}'
inputs = ['migrations/**']
";
const QUIET: &str = "[audit]\nlevel = 'off'\n";
const LEAK: &str = "in shop.db, a rule removes values of auth_user.email, which are still in django_admin_log.object_repr\n";

/// Pulled without rules; whom the log names is in no cut of it.
fn shop() -> TestEnv {
    let env = TestEnv::new();
    databases::execute(
        &env.production().join("shop.db"),
        "PRAGMA journal_mode = WAL; PRAGMA user_version = 1;
         CREATE TABLE auth_user (id INTEGER PRIMARY KEY, email TEXT);
         CREATE TABLE django_admin_log (id INTEGER PRIMARY KEY, object_repr TEXT);
         INSERT INTO auth_user VALUES (1, 'alice@example.com'), (2, 'bobby@example.com');
         INSERT INTO django_admin_log VALUES (1, 'changed bobby@example.com')",
    );
    env.write("repo/migrate.sh", tests::fixtures::MIGRATE);
    env.write("repo/migrations/1.sql", "");
    settings(&env, &[QUIET]);
    env.local_pull(&[]).ok();
    env
}

fn settings(env: &TestEnv, parts: &[&str]) {
    env.db_toml(&[&parts.concat(), SHOP].concat());
}

#[track_caller]
fn leaks(output: Output, what: &str) {
    output
        .fails(1)
        .stderr_has(&format!("error: cannot refresh {FIXTURE}; nothing was changed\n"))
        .stderr_has(what)
        .stderr_has(
            "hint: add a [[sanitize]] rule for the column that still has them (cargo xtask init proposes one), or `leak-check = false`",
        )
        .stderr_lacks("@example");
}

#[test]
fn what_a_new_rule_removes_and_another_column_has_is_not_written() {
    let env = shop();
    settings(&env, &[QUIET, EMAIL]);
    env.local_pull(&["--dry-run"]).fails(1).stderr_has(LEAK);
    leaks(env.xtask(["refresh-fixtures"]), LEAK);
    assert!(!env.repo().join("tests").exists());
    assert_eq!(databases::files(&env.path("local-tmp")), [""; 0], "nothing is left in TMPDIR");

    for parts in [[QUIET, EMAIL, "look = false\n"], [QUIET, EMAIL, LOG]] {
        settings(&env, &parts);
        env.xtask(["refresh-fixtures"]).ok();
        let found = store::files_with(&env.repo().join("tests"), "bobby@");
        assert_eq!(found.is_empty(), parts[2] == LOG);
    }
}

#[test]
fn the_hook_stops_the_commit_of_such_a_rule_and_stages_nothing() {
    let env = shop();
    env.xtask(["refresh-fixtures"]).ok();
    let env = hooked(env);
    let before = fs::read(env.repo().join(FIXTURE)).unwrap();
    settings(&env, &[QUIET, EMAIL]);
    env.git(&["add", "xtask/db.toml"]);
    leaks(commit(&env, &[]), LEAK);
    assert_eq!(status(&env), ["M  xtask/db.toml"]);
    assert!(before == fs::read(env.repo().join(FIXTURE)).unwrap());
    settings(&env, &[QUIET, EMAIL, LOG]);
    env.git(&["add", "xtask/db.toml"]);
    commit(&env, &[]).ok();
    assert!(committed(&env).contains(&FIXTURE.to_owned()));
}

#[test]
fn what_a_migration_puts_back_is_not_written() {
    let env = shop();
    settings(&env, &[QUIET, EMAIL, LOG]);
    env.xtask(["refresh-fixtures"]).ok();
    let env = hooked(env);
    let note = "ALTER TABLE auth_user ADD COLUMN note TEXT; UPDATE auth_user SET note = ";
    migration(&env, 2, &format!("{note} 'was ' || 'bobby' || '@example.com';"));
    let leak = "a rule removes values of auth_user.email, which are still in auth_user.note\n";
    leaks(commit(&env, &[]), leak);
    leaks(env.xtask(["refresh-fixtures"]), leak);
    assert_eq!(status(&env), ["A  migrations/2.sql"]);
    migration(&env, 2, &format!("{note} 'was ' || email;"));
    commit(&env, &[]).ok();
}

#[test]
fn a_column_that_no_rule_covers_is_told_or_stops_what_would_take_it_along() {
    let env = shop();
    settings(&env, &[]);
    let what = "a column with likely secrets is unmasked\n";
    let output = env.xtask(["refresh-fixtures", "--json"]).ok();
    let warning = format!(
        "warning: {FIXTURE}: {what}  auth_user.email  in shop.db, 1 row\nhint: cargo xtask init adds a rule"
    );
    let output = output.stderr_has(&warning);
    assert_eq!(output.json()["fixtures"][0]["audit"][0]["column"], "email");
    fs::remove_dir_all(env.repo().join("tests")).unwrap();
    const FAIL: &str = "[audit]\nlevel = 'fail'\n";
    settings(&env, &[FAIL]);
    env.local_pull(&["--dry-run"])
        .fails(1)
        .stderr_has("a column with likely secrets has no rule\n");
    let output = env.xtask(["refresh-fixtures"]).fails(1).stderr_has(what);
    output.stderr_has("nothing was changed\n").stderr_lacks("Running").stderr_lacks("@example");
    assert!(!env.repo().join("tests").exists());

    // Of a migration, also where no snapshot is at hand.
    settings(&env, &[FAIL, "allow = ['auth_user.email']\n"]);
    env.xtask(["refresh-fixtures"]).ok().stderr_lacks("likely secrets");
    let env = hooked(env);
    migration(&env, 2, "ALTER TABLE auth_user ADD COLUMN phone_number TEXT;");
    for _ in 0..2 {
        commit(&env, &[]).fails(1).stderr_has("  auth_user.phone_number  in shop.db, 0 rows\n");
        assert_eq!(status(&env), ["A  migrations/2.sql"]);
        let _ = fs::remove_dir_all(env.data());
    }
    settings(&env, &[FAIL, "allow = ['auth_user.*']\n"]);
    env.git(&["add", "--all"]);
    commit(&env, &[]).ok();
}

#[test]
fn a_snapshot_of_other_rules_is_named_once() {
    let env = shop();
    let again = |settings: &str| {
        env.db_toml(&[settings, SHOP, &SHOP.replace("shop.db'\nfrom", "two.db'\nfrom")].concat());
        let output = env.xtask(["refresh-fixtures"]).ok();
        let said = env.normalize(&output.stderr);
        said.lines()
            .filter(|line| line.contains("was pulled"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let named = |rules: &str| {
        vec![format!("warning: backup_<TIME> was pulled {rules}; pull again: cargo xtask pull-db")]
    };
    let none: Vec<String> = Vec::new();
    let rules = [QUIET, EMAIL, LOG].concat();
    assert_eq!(again(QUIET), none);
    assert_eq!(again(&rules), named("without the rules in db.toml"));
    env.local_pull(&[]).ok();
    assert_eq!(again(&rules), none);
    let other = rules.replace("user' || id", "person' || id");
    assert_eq!(again(&other), named("with other rules than those in db.toml"));
    assert_eq!(again(QUIET), named("with other rules than those in db.toml"));
}

#[test]
fn where_the_audit_cannot_run_nothing_is_written() {
    let env = shop();
    settings(&env, &[]);
    let mut refresh = env.xtask_command(["refresh-fixtures"]);
    let bin = tests::shells::busybox(&env.path(""), &["git"]);
    let output = Running::start(refresh.env("PATH", bin)).wait().fails(1);
    output.stderr_has("the audit needs the program sqlite3").stderr_has("hint: install it");
    assert!(!env.repo().join("tests").exists());
}

/// Each with what a pull says of it, and the fixture says the same.
#[test]
fn what_fails_a_pull_fails_a_fixture() {
    let text = format!("'{SECRET}'");
    let pem = "'-----BEGIN KEY-----' || char(10) || 'hunter2isnosecret' || char(13, 10) || '==='";
    let set = "table = 't'\nset = { a = '1' }";
    let audit = "CREATE TABLE audit (old); INSERT INTO audit";
    let whole = |copy: &str| format!("{audit} VALUES ({copy})");
    let many =
        "INSERT INTO t WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 40000)
                SELECT 'the secret number ' || i FROM n;";
    for (leaks, before, value, other, rule) in [
        (true, "", text.as_str(), whole(&text), set),
        (true, "", &text, whole(&format!("'it was ' || {text} || '.'")), set),
        (true, "", &text, whole(&format!("CAST(x'00' || {text} || x'0a00' AS BLOB)")), set),
        (true, "", pem, whole(pem), set),
        (true, "", &text, "CREATE VIRTUAL TABLE audit USING fts5 (old); INSERT INTO audit VALUES ('hunter2isnosecret')".to_owned(), set),
        (true, "", &text, "CREATE TABLE audit (now, old AS (now || '!') STORED); INSERT INTO audit (now) VALUES ('hunter2isnosecret')".to_owned(), set),
        (true, "", &text, "CREATE TABLE audit (id PRIMARY KEY, old) WITHOUT ROWID; INSERT INTO audit VALUES (1, 'hunter2isnosecret')".to_owned(), set),
        (true, "", &text, whole(&text), "table = 't'\ndelete = true\nlook = true"),
        (true, "", &text, whole("1"), "table = 't'\nset = { a = \"'x' || a\" }"),
        (true, "PRAGMA encoding = 'UTF-16le';", &text, whole(&text), set),
        (true, many, &text, whole("'the secret number 31415'"), set),
        (false, many, &text, whole("'it was the secret number 31415'"), set),
        (false, "PRAGMA encoding = 'UTF-16le';", &text, whole(&format!("'it was ' || {text}")), set),
        (false, "", &text, whole(&text), "table = 't'\ndelete = true"),
        (false, "", &text, whole(&text), "table = 't'\nset = { a = '1' }\nlook = false"),
        (false, "", &text, whole(&text), "sql = 'UPDATE t SET a = 1'"),
        (false, "INSERT INTO t VALUES ('hunter2isnosecret');", &text, whole(&text), "table = 't'\nset = { a = '1' }\nwhere = 'rowid = 1'"),
        (false, "", "'1990-12-24 10:00'", whole("'on 1990-12-24 10:00'"), set),
        (false, "", "'hunter2'", whole("'hunter2'"), set),
    ] {
        let (first, rest) = if before.starts_with("PRAGMA") { (before, "") } else { ("", before) };
        let sql = format!(
            "PRAGMA journal_mode = WAL; {first} CREATE TABLE t (a); INSERT INTO t VALUES ({value}); {rest} {other}"
        );
        let env = TestEnv::with_database(&sql);
        env.db_toml("");
        env.local_pull(&[]).ok();
        let rows = "[[fixture]]\npath = 'tests/fixtures/data.db'\nfrom = 'data.db'\nrows = { t = 1, audit = 9 }";
        env.db_toml(&format!("{QUIET}[[sanitize]]\n{rule}\n{rows}\n"));
        let pull = env.local_pull(&["--dry-run"]);
        let fixture = env.xtask(["refresh-fixtures"]);
        let what = |output: &Output| {
            let said = output.stderr.split("a rule removes values of ").nth(1).unwrap_or_default();
            let places = said.lines().next().unwrap_or_default().split(", and of ");
            places.map(str::to_owned).collect::<BTreeSet<_>>()
        };
        assert_eq!(what(&pull), what(&fixture), "{sql} {rule}\n{pull}\n{fixture}");
        for output in [pull, fixture] {
            assert_eq!(output.code, Some(i32::from(leaks)), "{sql} {rule}\n{output}");
        }
    }
}

/// Which rows a rule masks can depend on rows that no cut has.
#[test]
fn a_rule_sees_all_rows_of_a_snapshot_that_was_pulled_without_it() {
    let env = TestEnv::new();
    databases::execute(
        &env.production().join("shop.db"),
        "CREATE TABLE customers (user INTEGER); INSERT INTO customers VALUES (1);
         CREATE TABLE users (id INTEGER PRIMARY KEY, pin TEXT, k0 TEXT);
         INSERT INTO users VALUES (1, '4711', 'a'), (2, '0815', 'b')",
    );
    let settings = "audit.level = 'off'\n[[fixture]]\npath = 'tests/fixtures/shop.db'\nfrom = 'shop.db'\nrows = { users = '*', '*' = 0 }\n";
    let rule = "[[sanitize]]\ntable = 'users'\nwhere = 'id IN (SELECT user FROM customers)'\nset = { pin = \"'no pin'\" }\n";
    env.db_toml(settings);
    env.local_pull(&[]).ok();
    env.db_toml(&format!("{settings}{rule}"));
    env.xtask(["refresh-fixtures"]).ok().stderr_has("was pulled without the rules in db.toml");
    let pins = || {
        let path = env.repo().join(FIXTURE);
        databases::query(&path, "SELECT group_concat(pin, ' ') FROM users")
    };
    assert_eq!(pins(), Value::Text("no pin 0815".to_owned()));

    // A snapshot that somebody made has no rules on record, but what was masked is.
    env.db_toml(settings);
    env.local_pull(&["--no-sanitize", "--yes"]).ok();
    env.xtask(["snapshots", "create"]).ok();
    env.db_toml(&format!("{settings}{rule}"));
    let manual = sets::named(&env, "manual").remove(0);
    env.xtask(["refresh-fixtures", "--from", &manual])
        .ok()
        .stderr_has(&format!("{manual} has unmasked databases, such as shop.db"));
    assert_eq!(pins(), Value::Text("no pin 0815".to_owned()));
}

#[test]
fn what_a_migration_writes_into_an_omitted_table_is_gone_and_a_rule_that_no_longer_fits_is_told() {
    let env = shop();
    let rule = "[[sanitize]]\ntable = 'auth_user'\nwhere = \"email <> ''\"\nset = { email = \"'x'\" }\nleak-check = false\n";
    settings(&env, &["omit = ['log']\n", QUIET, rule]);
    env.local_pull(&[]).ok();
    env.write(
        "repo/migrations/2.sql",
        "CREATE TABLE log (text); INSERT INTO log VALUES ('SECRET'); ALTER TABLE auth_user RENAME COLUMN email TO mail;",
    );
    let lost = "masks auth_user.email, which is gone after `migrate`: what `migrate` writes in its place is not masked";
    env.xtask(["refresh-fixtures"]).ok().stderr_has(&format!("[[sanitize]] number 1 {lost}"));
    assert_eq!(databases::count(&env.repo().join(FIXTURE), "log"), 0);
}

#[test]
fn a_fixture_replaces_nothing_else() {
    let env = shop();
    let before = store::fingerprint(&env.data());
    env.write("repo/src/main.rs", "fn main() {}\n");
    std::os::unix::fs::symlink(env.path("home"), env.repo().join("outside")).expect("link");
    for (path, why) in [
        ("data/shop.db", "it belongs to the current data"),
        ("data/backup_2026-01-01T00-00-00-000Z/shop.db", "it belongs to the current data"),
        ("outside/shop.db", "a link leads out of the repository"),
        ("src/main.rs", "another file is there"),
    ] {
        env.db_toml(&[QUIET, &SHOP.replace(FIXTURE, path)].concat());
        env.xtask(["refresh-fixtures"]).fails(2).stderr_has(&format!(
            "error: [[fixture]] {path}: {why}\nhint: give the fixture another `path`"
        ));
    }
    assert_eq!(store::fingerprint(&env.data()), before);
    assert_eq!(fs::read_to_string(env.repo().join("src/main.rs")).expect("read"), "fn main() {}\n");
    assert_eq!(databases::files(&env.path("home")), [""; 0]);
}

/// `fake(name)` of a row is the same in each table.
#[test]
fn a_rule_that_changes_what_another_has_invented_needs_a_new_pull() {
    let env = TestEnv::with_database(
        "CREATE TABLE a (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO a VALUES (1, 'Ada');
         CREATE TABLE b (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO b VALUES (1, 'Bob')",
    );
    let settings = |first: &str| {
        env.db_toml(&format!(
            "{QUIET}[[sanitize]]\ntable = 'a'\nset.name = '{first}'\n[[sanitize]]\ntable = 'b'\nset.name = 'fake(email)'\n\
             [[fixture]]\npath = '{FIXTURE}'\nfrom = 'data.db'\nrows = {{ '*' = 5 }}\n"
        ));
    };
    settings("fake(email)");
    env.local_pull(&[]).ok();
    settings("fake(first_name)");
    let hint = "hint: if a rule has changed, its old values may be what is found: cargo xtask pull-db, then";
    env.xtask(["refresh-fixtures"]).fails(1).stderr_has(hint);
    env.local_pull(&[]).ok();
    env.xtask(["refresh-fixtures"]).ok();
}
