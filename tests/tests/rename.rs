//! `rename`: databases that are called otherwise here, as in Rails.

use std::fs;

use tests::databases;
use tests::env::TestEnv;
use tests::sets::snapshots;
use tests::store::left_behind;

const RENAME: &str = "include = ['*.sqlite3', 'storage/*.sqlite3']\n\
                      [rename]\n'production*.sqlite3' = 'development*.sqlite3'\n\
                      'storage/files.sqlite3' = 'files.sqlite3'\n";
const PAIRS: [(&str, &str); 4] = [
    ("a.sqlite3", "a.sqlite3"),
    ("production.sqlite3", "development.sqlite3"),
    ("production_queue.sqlite3", "development_queue.sqlite3"),
    ("storage/files.sqlite3", "files.sqlite3"),
];
const SECRET: &str = "hunter2-hunter2";

fn production() -> TestEnv {
    let env = TestEnv::new();
    fs::create_dir(env.production().join("storage")).expect("make a directory");
    for (name, _) in PAIRS {
        let path = env.production().join(name);
        databases::create(&path, 300, 1);
        let table = "CREATE TABLE secrets (value TEXT)";
        databases::execute(&path, &format!("{table}; INSERT INTO secrets VALUES ('{SECRET}')"));
    }
    env.db_toml(RENAME);
    env
}

#[track_caller]
fn assert_pulled(env: &TestEnv) {
    for (server, local) in PAIRS {
        databases::assert_same(&env.data().join(local), &env.production().join(server));
    }
    assert!(!env.data().join("production.sqlite3").exists());
    assert_eq!(left_behind(&env.data()), [""; 0]);
}

#[test]
fn what_is_called_otherwise_here_is_pulled_saved_restored_and_undone() {
    let env = production();
    env.make_data();
    // What has the server's name here is somebody else's.
    env.write("repo/data/production.sqlite3.txt", "");
    env.local_pull(&[]).ok().stderr_has("development_queue.sqlite3 ");
    assert_pulled(&env);
    let first = snapshots(&env)[0]["name"].as_str().expect("a name").to_owned();
    for (server, _) in PAIRS {
        databases::execute(&env.production().join(server), "UPDATE items SET value = value + 1");
    }
    env.local_pull(&[]).ok().stderr_has(" in ").stderr_has("changed page");
    assert_pulled(&env);
    databases::execute(&env.data().join("development.sqlite3"), "DELETE FROM items");
    env.xtask(["restore-db", "--yes", "--name", &first]).ok();
    assert_eq!(databases::count(&env.data().join("development.sqlite3"), "items"), 300);
    env.xtask(["restore-db", "--yes", "--undo"]).ok();
    assert_eq!(databases::count(&env.data().join("development.sqlite3"), "items"), 0);
    env.local_pull(&[]).ok();
    assert_pulled(&env);
    fs::remove_file(env.production().join("production_queue.sqlite3")).expect("remove");
    env.local_pull(&[]).ok().stderr_has("development_queue.sqlite3");
    assert!(!env.data().join("development_queue.sqlite3").exists());
}

#[test]
fn only_rules_and_fixtures_take_either_name() {
    for name in ["production.sqlite3", "development.sqlite3"] {
        let env = production();
        let rule = format!(
            "[[sanitize]]\ndatabase = '{name}'\ntable = 'secrets'\nset = {{ value = \"'x'\" }}\n"
        );
        let fixture =
            format!("[[fixture]]\npath = 'tests/f.db'\nfrom = '{name}'\nrows = {{ items = 3 }}\n");
        env.db_toml(&format!("{RENAME}{rule}{fixture}"));
        env.local_pull(&["--only", name]).ok().stderr_has("Pulled 1 database");
        assert!(!databases::bytes_contain(&env.data().join("development.sqlite3"), SECRET));
        env.local_pull(&[]).ok();
        assert!(databases::bytes_contain(&env.data().join("a.sqlite3"), SECRET));
        assert!(!databases::bytes_contain(&env.data().join("development.sqlite3"), SECRET));
        env.xtask(["refresh-fixtures"]).ok();
        assert_eq!(databases::count(&env.repo().join("tests/f.db"), "items"), 3);
        databases::execute(&env.data().join("development.sqlite3"), "DELETE FROM items");
        env.xtask(["restore-db", "--yes", "--latest", "--only", name]).ok();
        assert_eq!(databases::count(&env.data().join("development.sqlite3"), "items"), 300);
    }
}

#[test]
fn two_that_would_have_one_name_are_refused() {
    let env = production();
    databases::create(&env.production().join("development.sqlite3"), 1, 1);
    env.local_pull(&[])
        .fails(1)
        .stderr_has(
            "development.sqlite3 and production.sqlite3 would both be called development.sqlite3",
        )
        .stderr_has("hint: in xtask/db.toml");
    env.db_toml("[rename]\n'a*.db' = 'b.db'\n");
    env.local_pull(&[]).fails(2).stderr_has("which stands for the same text");
}

/// Production and staging have other names, and one name here.
#[test]
fn two_sources_may_have_one_name_here() {
    let env = TestEnv::new();
    let create = |directory: &str, name: &str| {
        fs::create_dir_all(env.path(directory)).expect("make a directory");
        let path = env.path(directory).join(name);
        databases::create(&path, 20, 1);
        databases::execute(
            &path,
            &format!("CREATE TABLE secrets (value); INSERT INTO secrets VALUES ('{SECRET}')"),
        );
    };
    create("production", "production.sqlite3");
    create("staging", "staging.sqlite3");
    create("staging", "staging_queue.sqlite3");
    env.db_toml(
        "via = 'local:../production'\ninclude = ['production.sqlite3']\n\
         [rename]\n'production*.sqlite3' = 'development*.sqlite3'\n'staging*.sqlite3' = 'development*.sqlite3'\n\
         [source.staging]\nvia = 'local:../staging'\ninclude = ['staging*.sqlite3']\n\
         [[source.staging.sanitize]]\ndatabase = 'staging.sqlite3'\ntable = 'secrets'\nset = { value = \"'x'\" }\n",
    );
    env.xtask(["pull-db"]).ok();
    env.xtask(["pull-db", "--source", "staging"]).ok().stderr_has("development_queue.sqlite3");
    let live = env.data().join("development.sqlite3");
    assert!(!databases::bytes_contain(&live, SECRET));
    env.xtask(["pull-db", "--source", "staging", "--only", "staging.sqlite3"]).ok();
    env.xtask(["pull-db", "--yes", "--source", "staging", "--no-sanitize"])
        .ok()
        .stderr_has("unmasked");
}
