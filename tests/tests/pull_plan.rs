//! `pull-db --dry-run` tells what each rule does and which columns are new, and no value.

use serde_json::json;
use tests::databases;
use tests::env::TestEnv;
use tests::process::Running;
use tests::shells::{self, find};
use tests::sqlite3::Build;

const SECRET: &str = "hunter2";
const RULES: &str = "
[[sanitize]]
table = 'users'
set.email = 'fake(email)'
set.note = 'NULL -- nothing'
where = \"email <> ''\"
[[sanitize]]
table = 'users'
set.password = \"'x' || id || (SELECT count(*) FROM users)\"
[[sanitize]]
table = 'logs'
delete = true
[[sanitize]]
database = 'data.db'
sql = 'UPDATE users SET id = id'
[[sanitize]]
table = 'users'
where = 'id > 5'
set.id = 'id'
";

fn env() -> TestEnv {
    let env = TestEnv::with_database(&format!(
        "CREATE TABLE users (id INTEGER PRIMARY KEY, email, password, note);
         INSERT INTO users VALUES (1, '{SECRET}@b.c', '{SECRET}', NULL), (2, '', '', 5), (3, 'a', x'00', 'ü');
         CREATE TABLE logs (body); INSERT INTO logs VALUES ('{SECRET}'), (2);"
    ));
    databases::execute(
        &env.production().join("other.db"),
        "CREATE TABLE users (id, email, password, note); INSERT INTO users VALUES (7, 'longer@example.org', NULL, '')",
    );
    env.db_toml(RULES);
    env
}

#[test]
fn each_rule_is_told_with_rows_and_shapes() {
    for build in Build::versions() {
        let env = env();
        build.install(&env.path("bin"));
        let output = env.local_pull(&["--dry-run", "-v"]).ok();
        output
            .stderr_has(
                "  Would mask 13 rows
             users.email     3 rows: 1–18 characters → 26 characters
             users.note      3 rows: 1 character, 1 NULL, 1 empty → NULL
             users.password  4 rows: 7 characters, 1 NULL, 1 empty, 1 blobs → 3 characters
             logs            2 rows deleted
             rule 4          3 rows changed
             users.id        1 row: numbers → numbers\n",
            )
            .stderr_lacks(SECRET);
    }
    let env = env();
    let plan = env.local_pull(&["--dry-run", "--json"]).ok().json();
    assert_eq!(plan["new_columns"], json!([]), "there is no earlier pull");
    let deleted = json!({"rule": 3, "table": "logs", "column": null, "rows": 2, "before": null, "after": null});
    assert_eq!(plan["effects"][3], deleted);
    assert!(!env.data().exists());
}

#[test]
fn each_shell_tells_the_same() {
    let args = ["--dry-run", "--json"];
    let wanted = env().local_pull(&args).ok().json()["effects"].clone();
    let env = env();
    for (shell, words) in [("dash", ""), ("bash", "--posix"), ("busybox", "sh")] {
        let exec = format!("exec {} {words} \"$@\"", find(shell).display());
        shells::script(&env.path("bin"), "sh", &exec);
        assert_eq!(env.local_pull(&args).ok().json()["effects"], wanted, "{shell}");
    }
    let bin = shells::busybox(&env.path(""), &["sqlite3"]);
    let mut plan = env.local_pull_command(&args);
    let plan = Running::start(plan.env("PATH", &bin)).wait().ok().json();
    assert_eq!(plan["effects"], wanted, "busybox alone");
}

/// UTF-16 is another form of the same names, and no database has all columns of a rule.
#[test]
fn effects_are_added_up_over_databases_of_any_encoding() {
    let env = TestEnv::with_database(
        "PRAGMA encoding = 'UTF-16'; CREATE TABLE users (note); INSERT INTO users VALUES ('a'), ('bc')",
    );
    databases::execute(
        &env.production().join("other.db"),
        "CREATE TABLE users (note, pin); INSERT INTO users VALUES ('def', 1)",
    );
    databases::execute(
        &env.production().join("third.db"),
        "CREATE TABLE users (pin); INSERT INTO users VALUES (1), (2), (3)",
    );
    env.db_toml("[[sanitize]]\ntable = 'users'\nset.note = 'NULL'\nset.pin = '0'\n");
    env.local_pull(&["--dry-run"]).ok().stderr_has(
        "  Would mask 6 rows
             users.note  3 rows: 1–3 characters → NULL
             users.pin   4 rows: numbers → numbers\n",
    );
}

#[test]
fn a_table_with_many_long_names_is_no_obstacle() {
    let env = env();
    let columns: Vec<_> = (0..150).map(|i| format!("{}{i}", "c".repeat(400))).collect();
    databases::execute(
        &env.production().join("data.db"),
        &format!("CREATE TABLE wide ({})", columns.join(", ")),
    );
    env.local_pull(&["-q"]).ok();
    let sql = format!("ALTER TABLE wide ADD {}", "d".repeat(400));
    databases::execute(&env.production().join("data.db"), &sql);
    env.local_pull(&["--dry-run"]).ok().stderr_has(" New columns wide.dddd");
}

#[test]
fn columns_that_the_last_pull_lacks_are_named() {
    let env = env();
    env.local_pull(&["-q"]).ok();
    env.local_pull(&["--dry-run"]).ok().stderr_lacks("New columns");
    databases::execute(
        &env.production().join("other.db"),
        "ALTER TABLE users ADD Phone; CREATE TABLE invoices (a, b); CREATE TABLE logs (body)",
    );
    env.local_pull(&["--dry-run"]).ok().stderr_has(" New columns invoices.*, users.Phone\n");
    env.local_pull(&["-q"]).ok();
    env.local_pull(&["--dry-run"]).ok().stderr_lacks("New columns");
}
