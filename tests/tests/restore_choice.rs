//! Which set a restore brings back, and what it asks.

use std::fs;

use tests::databases;
use tests::sets::{assert_same, change, content, developer, named, pull};
use tests::shells;

#[test]
fn latest_passes_over_a_damaged_pull() {
    let env = developer();
    let first = named(&env, "pull").remove(0);
    change(&env.production().join("data.db"));
    let second = pull(&env);
    fs::remove_file(env.data().join(&second).join("data.db")).expect("damage");
    env.xtask(["restore-db", "--latest", "--yes"]).ok().stderr_has(&first);
    assert_same(&content(&env.data()), &content(&env.data().join(&first)));
}

#[test]
fn json_on_a_terminal_asks_nothing() {
    let env = developer();
    change(&env.data().join("data.db"));
    for args in [&["restore-db", "--json"][..], &["restore-db", "--latest", "--json"]] {
        let session = env.xtask_on_pty(args);
        assert_eq!(session.wait_exit(), 2, "{}", session.screen());
        session.wait_for_text(", and --json does not ask");
    }
}

#[test]
fn who_waited_is_asked_again_when_the_answer_means_something_else_by_now() {
    let env = developer();
    change(&env.data().join("data.db"));
    change(&env.production().join("tenant_iris.db"));
    let body = format!(
        "while [ ! -e '{}' ]; do sleep 0.01; done; exec {} \"$@\"",
        env.path("go").display(),
        shells::find("sqlite3").display()
    );
    shells::script(&env.path("bin"), "sqlite3", &body);
    let via = format!("local:{}", env.production().display());
    let mut running = env.start_xtask(["pull-db", "--via", &via]);
    running.wait_for_stderr("Connecting");
    let session = env.xtask_on_pty(["restore-db", "--latest"]);
    session.wait_for_text("(y/N)");
    session.send("y\r");
    session.wait_for_text("Waiting for");
    env.write("go", "");
    running.wait().ok();
    let pulled = content(&env.data());
    session.wait_for(
        |screen| screen.matches("Restore the pull of ").count() == 2 && screen.contains("(y/N)"),
        "a second question",
    );
    session.send("n\r");
    assert_eq!(session.wait_exit(), 130);
    assert_same(&content(&env.data()), &pulled);
}

#[test]
fn what_was_sound_beside_a_damaged_database_comes_back_alone() {
    let env = developer();
    change(&env.data().join("data.db"));
    let mine = databases::content(&env.data().join("data.db"));
    fs::write(env.data().join("tenant_iris.db"), "no database").expect("write");
    let restored = env.xtask(["restore-db", "--latest", "--yes"]).ok();
    restored.stderr_has("restore-db --undo --only GLOB").stderr_lacks("brings back");
    let undo = ["restore-db", "--undo", "--yes"];
    env.xtask(undo).fails(1).stderr_has("tenant_iris.db was damaged").stderr_has("--only GLOB");
    env.xtask([&undo[..], &["--only", "data.db"]].concat()).ok();
    assert_eq!(databases::content(&env.data().join("data.db")), mine);
}

#[test]
fn latest_prefers_a_whole_set_and_prune_keeps_it() {
    let env = developer();
    let whole = named(&env, "pull").remove(0);
    env.db_toml("keep = 1\n");
    let via = format!("local:{}", env.production().display());
    for _ in 0..3 {
        change(&env.production().join("data.db"));
        env.xtask(["pull-db", "--via", &via, "--only", "data.db"]).ok();
    }
    assert_eq!(named(&env, "pull").len(), 2, "a whole one and a partial one");
    env.xtask(["restore-db", "--latest", "--yes"]).ok().stderr_has(&whole);
}
