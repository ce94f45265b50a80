//! Databases of an app with extensions that the server's `sqlite3` does not have: sqlite-vec, a
//! tokenizer of its own, SQLCipher. The app itself opens what a pull brings.

use std::path::Path;

use tests::env::TestEnv;
use tests::process::Running;
use tests::{databases, python};

const VERSIONS: &str = include_str!("../extensions/requirements.txt");

#[track_caller]
fn app(env: &TestEnv, task: &str, path: &Path) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("extensions/app.py");
    let mut python = env.command(python::programs("extensions", VERSIONS).join("python"));
    Running::start(python.arg(script).arg(task).arg(path)).wait().ok().stdout()
}

fn production() -> TestEnv {
    let env = TestEnv::new();
    app(&env, "make", &env.production().join("data.db"));
    env
}

#[track_caller]
fn query(env: &TestEnv) -> String {
    app(env, "query", &env.data().join("data.db"))
}

const USERS: &str = "[[sanitize]]\ntable = 'users'\nset.name = \"'masked'\"\n";

#[test]
fn the_app_finds_all_of_its_virtual_tables_after_a_pull_and_a_restore() {
    let env = production();
    let found = "item 7, box 7, number 77, 99, 0, 99, ";
    env.local_pull(&[]).ok().stderr_has("items.*");
    assert_eq!(query(&env), format!("{found}user 1\n"));
    env.db_toml(USERS);
    env.local_pull(&[]).ok().stderr_lacks("is empty here");
    assert_eq!(query(&env), format!("{found}masked\n"));
    for name in ["user 1", "masked"] {
        env.xtask(["restore-db", "--undo", "--yes"]).ok();
        assert_eq!(query(&env), format!("{found}{name}\n"));
    }
}

#[test]
fn the_app_rebuilds_an_index_with_its_tokenizer() {
    let env = production();
    env.db_toml(&format!(
        "{USERS}[[sanitize]]\ntable = 'notes'\nset.body = \"'masked'\"\n\
         [[sanitize]]\ntable = 'letters'\nset.body = \"'masked'\"\n"
    ));
    env.local_pull(&[])
        .ok()
        .stderr_has("INSERT INTO notes_fts(notes_fts) VALUES ('rebuild')\n")
        .stderr_has("index letters in data.db is empty here, with its text: ");
    let live = env.data().join("data.db");
    for secret in ["hunter2isnosecret", "correcthorsebatterystaple"] {
        assert!(databases::bytes_contain(&env.production().join("data.db"), secret));
        assert!(!databases::bytes_contain(&live, secret), "{secret}");
    }
    assert_eq!(query(&env), "item 7, box 7, number 77, 0, 0, 0, masked\n");
    assert_eq!(app(&env, "rebuild", &live), "ok\n");
    assert_eq!(query(&env), "item 7, box 7, number 77, 0, 99, 0, masked\n");
}

/// A rule may name the tables in which a module keeps its rows.
#[test]
fn rules_mask_the_rows_of_a_module_in_its_own_tables() {
    let env = production();
    env.db_toml("[[sanitize]]\ntable = 'items'\nset.note = \"'masked'\"\n");
    env.local_pull(&[]).fails(1).stderr_has("no such module: vec0\n").stderr_has(
        "hint: the server's sqlite3 lacks that module: write the rule for the tables in which it keeps its rows",
    );
    env.db_toml("[[sanitize]]\ntable = 'items_auxiliary'\nset.value00 = \"'masked'\"\n");
    env.local_pull(&[]).ok();
    assert!(query(&env).starts_with("masked, box 7, "));
    assert!(!databases::bytes_contain(&env.data().join("data.db"), "item 7"));
}

#[test]
fn a_database_of_sqlcipher_is_refused_as_encrypted() {
    let env = TestEnv::with_database("CREATE TABLE t (a)");
    app(&env, "encrypt", &env.production().join("secret.db"));
    env.local_pull(&[]).fails(1).stderr_has("/secret.db is encrypted, or no SQLite database: ");
    env.db_toml("exclude = ['secret.db']\n");
    env.local_pull(&[]).ok();
}
