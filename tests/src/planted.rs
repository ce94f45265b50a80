//! A production with a secret, both in a row and in a free page.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use rusqlite::types::Value;

use crate::env::TestEnv;
use crate::output::Output;
use crate::process::Running;
use crate::{databases, store};

pub const SECRET: &str = "hunter2isnosecret";

/// Deletes rows, so that there are free pages: a rebuilt copy has none.
pub const FREE_PAGES: &str = "PRAGMA secure_delete = OFF; CREATE TABLE gone (t);
     WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
     INSERT INTO gone SELECT 'of no interest ' || i FROM n; DELETE FROM gone;";

/// The secret in a row, and a second time in a free page.
pub fn planted() -> String {
    format!(
        "{FREE_PAGES} CREATE TABLE tokens (id INTEGER PRIMARY KEY, token);
         CREATE TABLE old (t); INSERT INTO old VALUES ('{SECRET}'); DROP TABLE old;
         INSERT INTO tokens (token) VALUES ('{SECRET}'), ('short');"
    )
}

pub const RULE: &str = "[[sanitize]]\ntable = 'tokens'\nset = { token = 'NULL' }\n";

/// A production with one database.
pub fn production(sql: &str, rules: &str) -> TestEnv {
    let env = TestEnv::with_database(sql);
    env.db_toml(rules);
    env
}

/// Pulls with these programs on the server, or with all.
pub fn run(env: &TestEnv, path: Option<OsString>) -> Output {
    let mut pull = env.local_pull_command(&[]);
    pull.envs(path.map(|path| ("PATH", path)));
    Running::start(&mut pull).wait()
}

/// The bytes of the pulled database.
#[track_caller]
pub fn pulled(env: &TestEnv) -> Vec<u8> {
    run(env, None).ok();
    let newest = store::snapshots(&env.data()).pop().expect("there is a snapshot");
    fs::read(newest.path.join("data.db")).expect("read a snapshot")
}

pub fn live(env: &TestEnv) -> PathBuf {
    env.data().join("data.db")
}

#[track_caller]
pub fn is_vacuumed(env: &TestEnv) -> bool {
    databases::assert_whole(&live(env));
    databases::query(&live(env), "PRAGMA freelist_count") == Value::Integer(0)
}
