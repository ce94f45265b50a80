//! The picture of README, `docs/recording.svg`: a pull, the picker and `--undo`, run now.

use std::fs;
use std::time::Duration;

use tests::databases;
use tests::env::TestEnv;
use tests::pty::{DOWN, ENTER, Session};
use tests::recording::{COLUMNS, ROWS, Recording, render, words};
use tests::store::snapshots;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/recording.svg");

const SETTINGS: &str = "
[[sanitize]]
table = 'export_settings'
set = { sheet_id = \"''\", client_email = \"''\", private_key = \"''\" }

[[sanitize]]
table = 'members'
set = { email = \"fake(email)\", password_hash = \"''\" }

[[sanitize]]
table = 'integrations'
set = { access_token = \"''\" }
";

/// A developer whose last pull was yesterday.
fn developer() -> (TestEnv, tests::server::Sshd) {
    let (env, sshd) = TestEnv::with_server();
    env.db_toml(SETTINGS);
    let production = env.production().display().to_string();
    env.app(["setup", "--data-dir", &production, "--rows", "4000"]).ok();
    env.xtask(["pull-db"]).ok();
    snapshots(&env.data())[0].date(&env.data(), "-1 day");
    let tenant = env.production().join("tenant_iris.db");
    databases::execute(
        &tenant,
        "UPDATE pull_requests SET title = 'Fix the login' WHERE id % 9 = 0",
    );
    // The developer has changed data since.
    let local = env.data().join("tenant_juno.db");
    databases::execute(&local, "UPDATE pull_requests SET title = 'Try something' WHERE id % 7 = 0");
    (env, sshd)
}

fn start(env: &TestEnv, args: &[&str]) -> Session {
    let mut xtask = env.xtask_command(args);
    xtask.env_remove("NO_COLOR");
    Session::spawn_sized(&xtask, ROWS, COLUMNS)
}

fn record(env: &TestEnv) -> Recording {
    let mut recording = Recording::default();
    recording.types("cargo xtask pull-db");
    let pull = start(env, &["pull-db"]);
    assert_eq!(pull.wait_exit(), 0, "{}", pull.screen());
    recording.prints(&pull);

    let moment = Duration::from_millis(900);
    recording.types("cargo xtask restore-db");
    let restore = start(env, &["restore-db"]);
    restore.wait_for_text("type to filter");
    recording.shows(&restore, 2 * moment);
    for when in ["current", "yesterday"] {
        restore.send(DOWN);
        let is_chosen = |line: &str| line.starts_with('>') && line.contains(when);
        restore.wait_for(|screen| screen.lines().any(is_chosen), "the next row");
        recording.shows(&restore, moment);
    }
    restore.send(ENTER);
    restore.wait_for_text("(y/N)");
    recording.shows(&restore, 2 * moment);
    restore.send("y\r");
    assert_eq!(restore.wait_exit(), 0, "{}", restore.screen());
    recording.prints(&restore);

    recording.types("cargo xtask restore-db --undo --yes");
    let undo = start(env, &["restore-db", "--undo", "--yes"]);
    assert_eq!(undo.wait_exit(), 0, "{}", undo.screen());
    recording.prints(&undo);
    recording
}

#[test]
fn the_recording_of_readme_is_what_is_seen_today() {
    let (env, _sshd) = developer();
    let made = render(&record(&env));
    let repository = env.repo().display().to_string();
    let made = made.replace(&repository, "/home/me/upflow");
    if std::env::var_os("UPDATE_RECORDING").is_some() {
        fs::write(FILE, &made).expect("write");
    }
    let file = fs::read_to_string(FILE).unwrap_or_default();
    assert_eq!(words(&file), words(&made), "docs/recording.svg is stale: cargo dev record");
}
