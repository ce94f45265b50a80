//! A rule that matches nothing leaves in what it was to remove: it is misspelt, or for other
//! databases than those that are looked at.

use std::fs;

use tests::databases;
use tests::env::TestEnv;
use tests::sets::{assert_same, content, developer};

#[test]
fn a_rule_for_what_no_database_has_names_the_nearest_and_sends_nothing() {
    let env = developer();
    let before = content(&env.data());
    let via = format!("local:{}", env.production().display());
    for (rule, error, hint) in [
        (
            "table = 'itemz'\ndelete = true",
            "none of the databases has a table itemz",
            "did you mean `items`? Edit rule 2 (itemz), xtask/db.toml:5",
        ),
        (
            "table = 'items'\nset = { keyy = '1', id = 'id' }",
            "none of the databases has a column keyy in items",
            "did you mean `key`? Edit rule 2 (items), xtask/db.toml:5",
        ),
        (
            "table = 'zzz'\ndelete = true",
            "none of the databases has a table zzz",
            "edit rule 2 (zzz), xtask/db.toml:5",
        ),
        (
            "database = 'x*.db'\nsql = 'DELETE FROM items'",
            "no database has a name that its `database` matches",
            "edit rule 2, xtask/db.toml:5",
        ),
    ] {
        env.db_toml(&format!(
            "[[sanitize]]\ntable = 'items'\ndelete = true\nwhere = '0'\n[[sanitize]]\n{rule}\n"
        ));
        env.xtask(["pull-db", "--via", &via])
            .fails(1)
            .stderr_has(&format!("error: rule 2: {error}; nothing was sent\n"))
            .stderr_has(&format!("hint: {hint}\n"))
            .stderr_lacks("Receiving");
        assert_same(&content(&env.data()), &before);
    }
}

const SAY_WHICH: &str = "hint: if a rule is for other databases, name them: database = \"…\"\n";

/// Another database may have what it names, so that only what seems to be misspelt is refused.
#[test]
fn of_some_databases_a_rule_that_seems_to_be_misspelt_is_refused() {
    let env = developer();
    let before = content(&env.data());
    for (rule, error, hint) in [
        ("table = 'item'\ndelete = true", "none of the databases has a table item", "items"),
        (
            "table = 'items'\nset = { kay = \"'x'\" }",
            "none of the databases has a column kay in items",
            "key",
        ),
    ] {
        env.db_toml(&format!("[[sanitize]]\n{rule}\n"));
        for more in [&[][..], &["--dry-run"]] {
            env.local_pull(&[&["--only", "data*"], more].concat())
                .fails(1)
                .stderr_has(&format!("error: rule 1: {error}; nothing was changed\n"))
                .stderr_has(&format!("hint: did you mean `{hint}`? Edit rule 1 ("))
                .stderr_has(&format!("), xtask/db.toml:1\n{SAY_WHICH}"));
        }
        assert_same(&content(&env.data()), &before);
    }
}

#[test]
fn of_some_databases_a_rule_that_names_one_of_them_has_to_match() {
    let env = developer();
    let rule = |database: &str| {
        env.db_toml(&format!(
            "[[sanitize]]\ndatabase = '{database}'\ntable = 'payments'\ndelete = true\n"
        ));
    };
    let pull = || env.local_pull(&["--only", "data.db"]);
    rule("data.db");
    pull().fails(1).stderr_has("rule 1: none of the databases has a table payments");
    rule("*");
    pull().ok().stderr_has(&format!("warning: rule 1 matches nothing in data.db\n{SAY_WHICH}"));
    for other in ["tenant_*.db", "nope.db"] {
        rule(other);
        pull().ok().stderr_lacks("rule");
    }
}

#[test]
fn the_database_that_a_rule_names_is_told_apart_from_its_table() {
    let env = developer();
    env.db_toml("[[sanitize]]\ndatabase = 'nope.db'\ntable = 'items'\ndelete = true\n");
    env.local_pull(&[])
        .fails(1)
        .stderr_has("error: rule 1: no database has a name that its `database` matches; nothing");
}

const FIXTURE: &str = "tests/fixtures/shop.db";

/// Two databases, pulled without rules, and a fixture of one.
fn shop() -> TestEnv {
    let env = TestEnv::new();
    for (name, sql) in [
        ("shop.db", "CREATE TABLE notes (id INTEGER PRIMARY KEY, body)"),
        ("other.db", "CREATE TABLE payments (id INTEGER PRIMARY KEY, card)"),
    ] {
        let table = if name == "shop.db" { "notes" } else { "payments" };
        let path = env.production().join(name);
        databases::execute(
            &path,
            &format!("{sql}; INSERT INTO {table} VALUES (1, 'private words')"),
        );
    }
    env.write("repo/migrate.sh", "sqlite3 \"$1\" 'ALTER TABLE notes ADD COLUMN token'");
    settings(&env, "");
    env
}

fn settings(env: &TestEnv, rules: &str) {
    env.db_toml(&format!(
        "[audit]\nlevel = 'off'\n{rules}\n[[fixture]]\npath = '{FIXTURE}'\nfrom = 'shop.db'\n\
         migrate = 'sh migrate.sh {{db}}'\n"
    ));
}

#[test]
fn a_fixture_is_not_made_with_a_rule_that_matches_nothing() {
    let env = shop();
    env.local_pull(&[]).ok();
    for (rule, error, hint) in [
        (
            "table = 'note'\nset = { body = \"''\" }",
            "none of the databases has a table note",
            "notes",
        ),
        (
            "table = 'notes'\nset = { bodi = \"''\" }",
            "none of the databases has a column bodi in notes",
            "body",
        ),
    ] {
        settings(&env, &format!("[[sanitize]]\n{rule}\n"));
        env.xtask(["refresh-fixtures"])
            .fails(1)
            .stderr_has(&format!("error: cannot refresh {FIXTURE}; nothing was changed\n"))
            .stderr_has(&format!("rule 1: {error}; nothing was changed\n"))
            .stderr_has(&format!("hint: did you mean `{hint}`? Edit rule 1 ("));
        assert!(!env.repo().join(FIXTURE).exists());
    }
    // What another database of the set has, or only the migrated fixture, is matched.
    for rule in ["table = 'payments'\ndelete = true", "table = 'notes'\nset = { token = 'NULL' }"] {
        settings(&env, &format!("[[sanitize]]\n{rule}\n"));
        env.xtask(["refresh-fixtures"]).ok();
        fs::remove_dir_all(env.repo().join("tests")).expect("it was made");
    }
}

/// Of a snapshot of some databases it is not known what the others have.
#[test]
fn a_fixture_of_some_databases_is_not_made_with_a_rule_that_seems_to_be_misspelt() {
    let env = shop();
    env.local_pull(&["--only", "shop.db"]).ok();
    settings(&env, "[[sanitize]]\ntable = 'payments'\ndelete = true\n");
    env.xtask(["refresh-fixtures"]).ok();
    settings(&env, "[[sanitize]]\ntable = 'note'\ndelete = true\n");
    env.xtask(["refresh-fixtures"]).fails(1).stderr_has("hint: did you mean `notes`? Edit rule 1");
}
