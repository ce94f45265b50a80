//! What production deleted long ago lies in free pages and in the gaps of others,
//! where no rule can name it.

use std::fs;

use tests::databases;
use tests::leaky::{AUDIT_RULE, Leaky, RULES};
use tests::sqlite3::Build;

const SCRUB: &str = "scrub = 'deleted-rows'\n";

/// A production where much was deleted: from all databases, and from one that no
/// rule changes.
fn production(build: Build) -> Leaky {
    let mut leaky = Leaky::new(build);
    for name in tests::leaky::NAMES {
        let db = leaky.open(name);
        leaky.insert_and_delete(&db);
    }
    let quiet = leaky.open("quiet.db");
    quiet
        .execute_batch(
            "PRAGMA secure_delete = OFF;
             CREATE TABLE plain (id INTEGER PRIMARY KEY, value, kept);
             CREATE INDEX plain_value ON plain (value)",
        )
        .expect("create a table");
    for i in 0..800 {
        let value = match i % 8 {
            0 => leaky.random.long_secret(&mut leaky.secrets, 6000),
            _ => leaky.random.secret(&mut leaky.secrets),
        };
        quiet
            .execute("INSERT INTO plain (value, kept) VALUES (?1, 'kept ' || ?2)", (value, i))
            .expect("insert a row");
    }
    quiet
        .execute_batch(
            "DELETE FROM plain WHERE id > 500; DELETE FROM plain WHERE id % 3 = 0;
             UPDATE plain SET value = id",
        )
        .expect("delete");
    drop(quiet);
    let bytes = fs::read(leaky.env.production().join("quiet.db")).expect("read");
    assert!(leaky.secrets.found_in(&bytes).len() > 10_000, "free pages have nothing");
    leaky
}

#[test]
fn with_scrub_what_was_deleted_is_gone_from_all_databases_and_builds() {
    for &build in Build::some() {
        let leaky = production(build);
        leaky.env.db_toml(&[SCRUB, RULES, AUDIT_RULE].concat());
        leaky.pull(&[]);
        let quiet = leaky.env.data().join("quiet.db");
        databases::assert_same(&quiet, &leaky.env.production().join("quiet.db"));
        // A second one finds these as its base.
        let second = leaky.pull(&["--json"]).json();
        let changed = second["databases"].as_array().expect("databases").iter();
        let changed: Vec<_> = changed
            .filter(|database| database["name"] == "quiet.db")
            .map(|database| database["changed_pages"].as_u64())
            .collect();
        assert_eq!(changed, [Some(0)], "{second}");
    }
}

#[test]
fn with_scrub_in_one_rule_its_databases_are_scrubbed() {
    let leaky = production(Build::Machine);
    let rule =
        "[[sanitize]]\ndatabase = 'quiet.db'\ntable = 'plain'\ndelete = true\nwhere = 'id < 0'\n";
    leaky.env.db_toml(&[RULES, AUDIT_RULE, rule, SCRUB].concat());
    leaky.pull(&[]);
    databases::assert_whole(&leaky.env.data().join("quiet.db"));
}

/// That costs nothing there, because the whole copy is wiped.
#[test]
fn where_a_rule_changes_a_row_what_was_deleted_is_gone_as_well() {
    for &build in Build::some() {
        let leaky = production(build);
        leaky.pull(&["--only", "[lmsw]*.db"]);
    }
}

/// Else the tests above could not fail.
#[test]
fn a_database_that_no_rule_changes_comes_with_what_was_deleted() {
    let leaky = production(Build::Machine);
    leaky.env.xtask(["pull-db", "--yes"]).ok();
    let bytes = fs::read(leaky.env.data().join("quiet.db")).expect("read");
    assert!(leaky.secrets.found_in(&bytes).len() > 10_000);
}
