//! What came before there was a rule for it is marked as soon as there is one.

use std::fs;

use serde_json::{Value, json};
use tests::databases;
use tests::env::TestEnv;
use tests::pty::Session;
use tests::sets::change;
use tests::store;

const OF_DATA: &str =
    "[[sanitize]]\ndatabase = 'data.db'\ntable = 'items'\nset = { key = \"'x' || id\" }\n";
const OF_TENANT: &str =
    "[[sanitize]]\ndatabase = 'tenant.db'\ntable = 'items'\nset = { key = \"'x' || id\" }\n";

/// With two databases that were pulled under `rules`, and what was live before the second pull.
fn pulled(rules: &str) -> TestEnv {
    let env = TestEnv::new();
    for (name, seed) in [("data.db", 1), ("tenant.db", 2)] {
        databases::create(&env.production().join(name), 20, seed);
    }
    env.db_toml(rules);
    env.local_pull(&[]).ok();
    change(&env.data().join("data.db"));
    env.local_pull(&[]).ok().stderr_lacks("nmasked");
    assert_eq!(store::kinds(&env.data()), ["pull", "pull", "before-pull"]);
    env
}

/// Whether each line of both lists has the mark, newest first, and whether JSON says the same.
#[track_caller]
fn marks(env: &TestEnv) -> Vec<bool> {
    let json = &env.xtask(["snapshots", "list", "--json"]).ok().json()["snapshots"];
    let json = json.as_array().expect("a list").iter();
    let json: Vec<_> = json.map(|snapshot| snapshot["unsanitized"] == true).collect();
    for list in [&["snapshots", "list"][..], &["restore-db", "--list"]] {
        let said = env.xtask(list).ok().stdout();
        let lines: Vec<_> = said.lines().map(|line| line.contains(" unmasked")).collect();
        assert_eq!(lines, json, "{said}");
    }
    json
}

fn state(env: &TestEnv) -> Value {
    let text = fs::read(env.data().join(".xtask/state.json")).expect("there is a state");
    serde_json::from_slice(&text).expect("JSON")
}

#[test]
fn what_was_pulled_before_there_were_rules_is_unsanitized_once_there_are() {
    let env = pulled("");
    assert_eq!(marks(&env), [false; 3]);
    env.db_toml(OF_DATA);
    assert_eq!(marks(&env), [true; 3]);

    let picker = Session::spawn_sized(&env.xtask_command(["restore-db"]), 30, 200);
    picker.wait_for_text(" unmasked  current");
    let undo = Session::spawn_sized(&env.xtask_command(["restore-db", "--undo"]), 30, 200);
    undo.wait_for_text(", with unmasked secrets? Current ones are saved first. (y/N)");
    undo.send("n\r");
    undo.wait_exit();
    let back = env.xtask(["restore-db", "--undo", "--yes", "--json"]).ok().json();
    assert_eq!(back["unsanitized_databases"], json!(["data.db"]));
    assert_eq!(state(&env)["unsanitized"], json!(["data.db"]));
    env.xtask(["snapshots", "create"]).ok();
    assert_eq!(marks(&env), [true; 4]);
    // tenant.db is live as it came, and only a rule of its own makes something of that.
    env.local_pull(&["--only", "data.db"]).ok().stderr_lacks("nmasked");
    env.db_toml(&[OF_DATA, OF_TENANT].concat());
    env.local_pull(&["--only", "data.db"]).ok().stderr_has(" Unmasked tenant.db: secrets");
    env.xtask(["snapshots", "create"]).ok();
    assert!(marks(&env)[0]);
    env.local_pull(&[]).ok().stderr_lacks("nmasked");
    assert!(!marks(&env)[0]);
    assert_eq!(state(&env)["unsanitized"], json!([]));
    env.db_toml("");
    assert!(!marks(&env).contains(&true));
}

#[test]
fn what_came_under_other_rules_is_not_unsanitized_but_what_no_rule_was_for_is() {
    let env = pulled(OF_DATA);
    env.db_toml(&OF_DATA.replace("'x'", "'y'"));
    assert_eq!(marks(&env), [false; 3]);
    env.db_toml(&[OF_DATA, OF_TENANT].concat());
    assert_eq!(marks(&env), [true; 3]);
    let back = env.xtask(["restore-db", "--undo", "--yes", "--json"]).ok().json();
    assert_eq!(back["unsanitized_databases"], json!(["tenant.db"]));
}

#[test]
fn what_an_older_version_pulled_before_there_were_rules_is_unsanitized_too() {
    let env = pulled("");
    for snapshot in store::snapshots(&env.data()) {
        snapshot.edit(|json| {
            for database in json["databases"].as_array_mut().expect("a list") {
                database.as_object_mut().expect("an object").remove("raw");
            }
        });
    }
    let mut old = state(&env);
    old.as_object_mut().expect("an object").remove("raw");
    env.write("repo/data/.xtask/state.json", &old.to_string());
    env.db_toml(OF_DATA);
    // Of what it saved itself nothing is known.
    assert_eq!(marks(&env), [false, true, true]);
    env.xtask(["snapshots", "create"]).ok();
    assert_eq!(marks(&env), [true, false, true, true]);
}
