//! Which snapshot a fixture is cut from: a commit brings no newer rows of production unasked.

use std::fs;

use rusqlite::types::Value;
use tests::databases;
use tests::env::TestEnv;
use tests::fixtures::{
    ADD_NOTE, LOCK, ORDERS, PEOPLE, SETTINGS, WITH_NOTE, assert_fresh, commit, committed,
    committed_columns, developer, migration, status,
};
use tests::{sets, store};

const SOURCE: &str = "from_sha256 = ";
const KEPT: &str =
    "Keeping the rows of tests/fixtures/orders.db (the snapshot that it was cut from is not here)";

/// A developer who has pulled once more since the fixtures were cut, with the name of the snapshot
/// that they were cut from.
fn pulled_again() -> (TestEnv, String) {
    let env = developer();
    let old = store::snapshots(&env.data()).pop().unwrap().name;
    newer(&env, "UPDATE orders SET total = -total; UPDATE people SET name = 'newer ' || id");
    (env, old)
}

/// Changes production and pulls it.
fn newer(env: &TestEnv, sql: &str) {
    databases::execute(&env.production().join("shop.db"), sql);
    sets::pull(env);
}

/// Whether the rows of a fixture are those of the first pull.
fn is_old(env: &TestEnv, fixture: &str) -> bool {
    let sql = match fixture {
        ORDERS => "SELECT min(total) > 0 FROM orders",
        _ => "SELECT min(name) = 'person 1' FROM people",
    };
    databases::query(&env.repo().join(fixture), sql) == Value::Integer(1)
}

fn sources(env: &TestEnv) -> Vec<String> {
    let lock = fs::read_to_string(env.repo().join(LOCK)).unwrap();
    lock.lines().filter(|line| line.starts_with(SOURCE)).map(str::to_owned).collect()
}

#[test]
fn a_pull_with_the_rules_of_now_is_named_where_the_recorded_one_has_others() {
    let (env, old) = pulled_again();
    env.db_toml(&SETTINGS.replace("token", "name"));
    env.local_pull(&[]).ok();
    commit(&env, &["--all"])
        .ok()
        .stderr_has(&format!(
            "warning: {old} was pulled with other rules than those in db.toml; to cut from backup_"
        ))
        .stderr_has(" instead: cargo xtask refresh-fixtures\n");
    env.xtask(["refresh-fixtures"]).ok().stderr_lacks("with other rules");
}

#[test]
fn a_commit_cuts_from_the_snapshot_that_is_recorded() {
    let (env, old) = pulled_again();
    let before = sources(&env);
    assert_eq!(before.len(), 2);
    migration(&env, 2, ADD_NOTE);
    commit(&env, &[])
        .ok()
        .stderr_has(&format!("Cutting tests/fixtures/orders.db from shop.db of {old}\n"))
        .stderr_lacks("warning");
    assert_eq!(committed_columns(&env), WITH_NOTE);
    assert!(is_old(&env, ORDERS));
    assert_eq!(sources(&env), before);
    assert_fresh(&env);
    // Also where the rules change.
    env.db_toml(&SETTINGS.replace("LIMIT 20", "LIMIT 5"));
    commit(&env, &["--all"]).ok().stderr_has(&old);
    assert!(is_old(&env, ORDERS));
    env.db_toml(&SETTINGS.replace("token", "name"));
    commit(&env, &["--all"]).ok().stderr_has(&format!(
        "warning: {old} was pulled with other rules than those in db.toml; pull again: cargo xtask pull-db, then cargo xtask refresh-fixtures\n"
    ));
    env.db_toml(SETTINGS);
    commit(&env, &["--all"]).ok();
    // Newer rows come when they are asked for, and then stay.
    env.xtask(["refresh-fixtures"]).ok().stderr_lacks(&old);
    assert!(!is_old(&env, ORDERS) && !is_old(&env, PEOPLE));
    assert!(sources(&env) != before);
    migration(&env, 3, "ALTER TABLE orders ADD COLUMN more;\n");
    commit(&env, &["--all"]).ok().stderr_lacks(&old);
    assert!(!is_old(&env, ORDERS));
    assert_fresh(&env);
}

#[test]
fn without_that_snapshot_the_committed_fixture_is_migrated() {
    let (env, old) = pulled_again();
    let before = sources(&env);
    fs::rename(env.data().join(&old), env.path("gone")).unwrap();
    migration(&env, 2, ADD_NOTE);
    commit(&env, &[]).ok().stderr_has(KEPT).stderr_lacks("Cutting").stderr_lacks("warning");
    assert_eq!(committed_columns(&env), WITH_NOTE);
    assert!(is_old(&env, ORDERS));
    assert_eq!(sources(&env), before);
    // The same bytes as from the snapshot.
    let in_place = fs::read(env.repo().join(ORDERS)).unwrap();
    fs::rename(env.path("gone"), env.data().join(&old)).unwrap();
    env.xtask(["refresh-fixtures", "--from", &old]).ok();
    assert!(in_place == fs::read(env.repo().join(ORDERS)).unwrap());
    assert_fresh(&env);
}

#[test]
fn newer_rows_come_with_a_warning_where_nothing_else_is_possible() {
    let (env, old) = pulled_again();
    let new = store::snapshots(&env.data()).pop().unwrap().name;
    fs::remove_dir_all(env.data().join(&old)).unwrap();
    env.db_toml(&SETTINGS.replace("LIMIT 20", "LIMIT 5"));
    let why = "its rules in db.toml changed, and the snapshot that it was cut from is not here";
    commit(&env, &["--all"])
        .ok()
        .stderr_has(&format!("warning: {ORDERS} gets the rows of the newest pull, {new}: {why}\n"));
    assert!(!is_old(&env, ORDERS) && is_old(&env, PEOPLE));
    assert_fresh(&env);
}

#[test]
fn a_migration_that_changed_does_not_run_twice() {
    let (env, old) = pulled_again();
    fs::remove_dir_all(env.data().join(&old)).unwrap();
    // There is a version from before the second migration, but none from before the first.
    migration(&env, 2, ADD_NOTE);
    commit(&env, &[]).ok();
    migration(&env, 2, "ALTER TABLE orders ADD COLUMN remark;\n");
    commit(&env, &[]).ok().stderr_has(KEPT).stderr_lacks("warning");
    assert_eq!(committed_columns(&env), "id person total remark");
    assert!(is_old(&env, ORDERS));
    migration(&env, 1, "-- changed\n");
    let why = "no commit has it without the migrations that changed, and the snapshot";
    commit(&env, &[]).ok().stderr_has(why);
    assert!(!is_old(&env, ORDERS));
    assert_fresh(&env);
}

#[test]
fn the_same_fixture_of_a_newer_pull_changes_no_lock() {
    let env = developer();
    newer(&env, "UPDATE people SET name = 'newer' WHERE id = 40; CREATE INDEX i ON orders(total)");
    let orders = || fs::read(env.repo().join(ORDERS)).unwrap();
    let before = (orders(), sources(&env));
    // A changed fixture has a new source, and one that does not change keeps its own.
    env.xtask(["refresh-fixtures"]).ok().stderr_has("Refreshed");
    assert!(before.0 != orders() && before.1 != sources(&env));
    env.git(&["commit", "--quiet", "--all", "--no-verify", "--message=refreshed"]);
    newer(&env, "UPDATE people SET name = 'newest' WHERE id = 40");
    env.xtask(["refresh-fixtures"]).ok().stderr_lacks("Refreshed");
    assert_eq!(status(&env), [""; 0]);
}

#[test]
fn a_lock_file_of_an_old_version_still_works() {
    let (env, _) = pulled_again();
    let lock = fs::read_to_string(env.repo().join(LOCK)).unwrap();
    let old: String = lock.split_inclusive('\n').filter(|line| !line.starts_with(SOURCE)).collect();
    env.write(&format!("repo/{LOCK}"), &old);
    commit(&env, &["--all"]).ok().stderr_is("");
    migration(&env, 2, ADD_NOTE);
    commit(&env, &[]).ok().stderr_has(KEPT);
    assert!(is_old(&env, ORDERS) && sources(&env).is_empty());
    assert_fresh(&env);
    env.xtask(["refresh-fixtures"]).ok();
    assert_eq!(sources(&env).len(), 2);
}

#[test]
fn any_sound_snapshot_with_that_database_will_do() {
    let (env, old) = pulled_again();
    let old = store::snapshots(&env.data()).into_iter().find(|one| one.name == old).unwrap();
    old.edit(|json| json["kind"] = "before-restore".into());
    migration(&env, 2, ADD_NOTE);
    commit(&env, &[]).ok().stderr_has(&format!("of {}\n", old.name));
    assert!(is_old(&env, ORDERS));
    // A file that is not as it was recorded has other rows.
    databases::execute(&old.path.join("shop.db"), "UPDATE orders SET total = -total");
    migration(&env, 3, "ALTER TABLE orders ADD COLUMN more;\n");
    commit(&env, &[]).ok().stderr_has(KEPT);
    assert!(is_old(&env, ORDERS));
    assert_eq!(committed(&env), ["migrations/3.sql", LOCK, ORDERS]);
}
