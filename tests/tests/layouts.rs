//! The settings of `docs/layouts.md`, each with databases as the framework lays them out.

use std::fs;

use tests::databases::{self, count};
use tests::docs;
use tests::env::TestEnv;
use tests::store::{kinds, left_behind};

/// The settings below a heading of the document.
fn settings(heading: &str) -> String {
    docs::settings("layouts.md", heading)
        .lines()
        .filter(|line| !line.starts_with("after-pull"))
        .fold(String::new(), |text, line| text + line + "\n")
}

/// A production with these databases, and the app's own files in its data directory.
fn app(heading: &str, data: &str, schemas: &[(&str, &str)]) -> TestEnv {
    let env = TestEnv::new();
    env.db_toml(&settings(heading));
    for (name, sql) in schemas {
        let path = env.production().join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("make directories");
        databases::execute(&path, sql);
    }
    fs::create_dir_all(env.repo().join(data)).expect("make a directory");
    env.write(&format!("repo/{data}/keep.bin"), "of the app");
    env
}

fn pull(env: &TestEnv, data: &str) {
    env.local_pull(&[]).ok();
    let directory = env.repo().join(data);
    assert_eq!(fs::read_to_string(directory.join("keep.bin")).expect("it stays"), "of the app");
    assert_eq!(left_behind(&directory), [""; 0]);
}

#[test]
fn rails_opens_what_was_pulled_by_its_own_name() {
    const JOBS: &str = "CREATE TABLE solid_queue_jobs (id INTEGER PRIMARY KEY, arguments TEXT);
         INSERT INTO solid_queue_jobs VALUES (1, 'private job')";
    let env = app(
        "Rails 8",
        "storage",
        &[
            (
                "production.sqlite3",
                "PRAGMA journal_mode = WAL;
                 CREATE TABLE schema_migrations (version varchar NOT NULL PRIMARY KEY);
                 CREATE TABLE ar_internal_metadata (key varchar NOT NULL PRIMARY KEY, value varchar);
                 INSERT INTO ar_internal_metadata VALUES ('environment', 'production');
                 CREATE TABLE posts (id INTEGER PRIMARY KEY AUTOINCREMENT, title varchar);
                 INSERT INTO posts (title) VALUES ('first')",
            ),
            ("production_queue.sqlite3", JOBS),
            (
                "production_cache.sqlite3",
                "CREATE TABLE solid_cache_entries (id INTEGER PRIMARY KEY, value BLOB);
                 INSERT INTO solid_cache_entries VALUES (1, 'private entry')",
            ),
        ],
    );
    pull(&env, "storage");
    let file = |name: &str| env.repo().join("storage").join(name);
    assert_eq!(count(&file("development.sqlite3"), "posts"), 1);
    assert_eq!(count(&file("development_queue.sqlite3"), "solid_queue_jobs"), 0);
    assert_eq!(count(&file("development_cache.sqlite3"), "solid_cache_entries"), 0);
    assert!(!file("production.sqlite3").exists());

    // What the developer wrote is saved and comes back.
    databases::execute(&file("development.sqlite3"), "INSERT INTO posts (title) VALUES ('mine')");
    env.touch_production();
    pull(&env, "storage");
    assert_eq!(count(&file("development.sqlite3"), "posts"), 1);
    env.xtask(["restore-db", "--yes", "--undo"]).ok();
    assert_eq!(count(&file("development.sqlite3"), "posts"), 2);
    assert_eq!(kinds(&env.repo().join("storage")), ["pull", "pull", "before-pull"]);
}

#[test]
fn django_has_one_database_in_the_root_of_the_project() {
    let env = app(
        "Django",
        ".",
        &[(
            "db.sqlite3",
            "CREATE TABLE django_session (session_key varchar(40) PRIMARY KEY, session_data text);
             INSERT INTO django_session VALUES ('abc', 'private session');
             CREATE TABLE auth_user (id INTEGER PRIMARY KEY, username, password, email, first_name, last_name);
             INSERT INTO auth_user VALUES (1, 'ada', 'private hash', 'private@mail', 'private first', 'private last');
             CREATE TABLE app_note (id INTEGER PRIMARY KEY, text varchar); INSERT INTO app_note VALUES (1, 'a')",
        )],
    );
    pull(&env, ".");
    let live = env.repo().join("db.sqlite3");
    assert_eq!((count(&live, "app_note"), count(&live, "django_session")), (1, 0));
    for secret in ["session", "hash", "@mail", "first", "last"] {
        let secret = format!("private {secret}").replace(" @", "@");
        assert!(!databases::bytes_contain(&live, &secret), "{secret}");
    }
    assert!(env.repo().join("xtask/db.toml").exists());
}

#[test]
fn each_tenant_has_a_database_in_a_directory_of_its_own() {
    const USERS: &str = "CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT, password TEXT);
         INSERT INTO users VALUES (1, 'ada@private.example', 'hunter2-hunter2')";
    let tenants = ["main.db", "tenants/1/main.db", "tenants/2f6b0c/main.db"];
    let env = app("A database for each tenant", "data", &tenants.map(|name| (name, USERS)));
    pull(&env, "data");
    for name in &tenants[1..] {
        let live = env.data().join(name);
        assert_eq!(count(&live, "users"), 1);
        assert!(!databases::bytes_contain(&live, "hunter2-hunter2"), "{name}");
    }
}
