//! `[source.NAME]`: other places to pull from.

use std::fs;

use tests::databases::{self, count};
use tests::env::TestEnv;
use tests::sets::snapshots;

fn both() -> TestEnv {
    let env = TestEnv::new();
    databases::create(&env.production().join("data.db"), 300, 1);
    fs::create_dir(env.path("staging")).expect("make a directory");
    databases::create(&env.path("staging/data.db"), 20, 2);
    for path in [env.production().join("data.db"), env.path("staging/data.db")] {
        databases::execute(
            &path,
            "CREATE TABLE notes (a TEXT); INSERT INTO notes VALUES ('private note')",
        );
    }
    env.db_toml(
        "via = 'local:../production'\n\
         [source.staging]\nvia = 'local:../staging'\n\
         [[source.staging.sanitize]]\ntable = 'notes'\nset = { a = \"'x'\" }\n\
         [[fixture]]\npath = 'tests/f.db'\nfrom = 'data.db'\nrows = { items = 30 }\n",
    );
    env
}

#[test]
fn each_source_has_its_own_databases_rules_and_bases() {
    let env = both();
    let live = env.data().join("data.db");
    env.xtask(["pull-db"]).ok();
    assert_eq!(count(&live, "items"), 300);
    assert!(databases::bytes_contain(&live, "private note"));
    env.xtask(["pull-db", "--source", "staging"]).ok().stderr_lacks("changed page");
    assert_eq!(count(&live, "items"), 20);
    assert!(!databases::bytes_contain(&live, "private note"));
    let listed = snapshots(&env);
    let sources: Vec<_> = listed.iter().map(|one| one["source"].as_str()).collect();
    assert_eq!(sources, [Some("staging"), None]);
    env.xtask(["restore-db", "--list"]).ok().stdout_has("  from staging\n");

    // A fixture is of production, also while staging is the current data.
    env.xtask(["refresh-fixtures"]).ok();
    assert_eq!(count(&env.repo().join("tests/f.db"), "items"), 30);
    env.xtask(["restore-db", "--yes", "--undo"]).ok();
    assert_eq!(count(&live, "items"), 300);
}

#[test]
fn a_source_that_is_not_there_is_named_with_those_that_are() {
    let env = both();
    env.xtask(["pull-db", "--source", "stagin"])
        .fails(2)
        .stderr_has("there is no source \"stagin\"")
        .stderr_has("hint: there is --source staging");
    env.db_toml("[source.staging]\nap = 'x'\n");
    env.xtask(["pull-db"]).fails(2).stderr_has("did you mean `app`?");
}

#[test]
fn the_app_of_a_source_goes_over_the_environment() {
    let (env, _sshd) = TestEnv::with_server();
    env.db_toml("app = 'x'\n[source.other]\napp = 'other'\nmachine = 'abc'\n");
    let mut command = env.xtask_command(["pull-db", "--source", "other"]);
    command.env("FLY_APP", "upflow");
    tests::process::Running::start(&mut command).wait().fails(1);
    let asked = env.fly_invocations();
    let asked = asked.first().expect("fly was started");
    assert!(asked.windows(2).any(|two| two == ["--app", "other"]), "{asked:?}");
    assert!(asked.windows(2).any(|two| two == ["--machine", "abc"]), "{asked:?}");
}

#[test]
fn a_source_need_not_have_what_a_rule_is_for_and_keeps_snapshots_of_its_own() {
    let env = both();
    databases::execute(&env.path("staging/data.db"), "DROP TABLE items");
    env.db_toml(
        "via = 'local:../production'\nkeep = 2\n[[sanitize]]\ntable = 'items'\nset = { key = 'id' }\n\
         [source.staging]\nvia = 'local:../staging'\n",
    );
    for round in 0..3 {
        databases::execute(&env.production().join("data.db"), "INSERT INTO notes VALUES ('more')");
        env.xtask(["pull-db"]).ok();
        databases::execute(&env.path("staging/data.db"), "INSERT INTO notes VALUES ('more')");
        env.xtask(["pull-db", "--source", "staging"])
            .ok()
            .stderr_has("warning: rule 1 matches nothing in data.db\n");
        let of = |name: Option<&str>| {
            let listed = snapshots(&env);
            listed
                .iter()
                .filter(|one| one["kind"] == "pull" && one["source"].as_str() == name)
                .count()
        };
        assert_eq!((of(None), of(Some("staging"))), ((round + 1).min(2), (round + 1).min(2)));
    }
}
