//! What `cargo xtask pull-db` says, and to whom.

use std::fs;

use tests::databases;
use tests::process::Running;
use tests::pty::Session;
use tests::pull::{NAMES, live, production, pull, snapshot};
use tests::world::Faults;

#[test]
fn without_a_terminal_every_step_is_a_line_on_stderr() {
    let (env, _sshd) = production();
    databases::create(&env.make_data().join("old.db"), 5, 5);
    tests::store::brings(&env.data(), "old.db");
    let output = pull(&env, &[]).stdout_is("");
    let said = env.normalize(&output.stderr);
    let wanted = "  Connecting to upflow on Fly.io
     Copying 3 databases on the server (<SIZE>)
    Auditing the copies on the server
     Packing on the server
   Receiving data.db (<SIZE>)
   Receiving tenant_iris.db (<SIZE>)
   Receiving tenant_juno.db (<SIZE>)
      Saving 1 database in <ROOT>/repo/data
      Pulled 3 databases from upflow on Fly.io, machine 48ed667c733018 in nrt
             data.db          <SIZE>
             tenant_iris.db   <SIZE>
             tenant_juno.db   <SIZE>
       Ready ./data in <SECS>, <SIZE> on the wire for <SIZE>
       Saved the previous data as backup_<TIME>
     Removed old.db, which the snapshot does not have
     Current backup_<TIME> (3 databases)
hint: cargo xtask restore-db --undo brings back the previous data
";
    // The sizes are set to the right, and their width is theirs.
    assert_eq!(said.replace("  <SIZE>\n", " <SIZE>\n"), wanted.replace("  <SIZE>\n", " <SIZE>\n"));
}

#[test]
fn json_is_all_that_is_on_stdout() {
    let (env, _sshd) = production();
    databases::create(&env.make_data().join("old.db"), 5, 5);
    tests::store::brings(&env.data(), "old.db");
    let json = pull(&env, &["--json"]).json();
    let snapshot_names: Vec<String> =
        tests::store::snapshots(&env.data()).into_iter().map(|snapshot| snapshot.name).collect();
    assert_eq!(json["snapshot"], snapshot_names[0]);
    assert_eq!(json["before"], snapshot_names[1]);
    assert_eq!(json["removed"], serde_json::json!(["old.db"]));
    let names = json["databases"].as_array().expect("an array").iter().map(|db| &db["name"]);
    assert!(names.eq(NAMES), "{json}");
    assert_eq!((&json["machine"], &json["region"]), (&"48ed667c733018".into(), &"nrt".into()));
    assert!(json["wire_bytes"].as_u64() > Some(1000), "{json}");
}

#[test]
fn quiet_says_nothing_when_all_is_well() {
    let (env, _sshd) = production();
    pull(&env, &["-q"]).stdout_is("").stderr_is("");
    assert_eq!(live(&env), NAMES);
}

#[test]
fn git_must_ignore_the_data_directory_or_there_is_a_warning() {
    let (env, _sshd) = production();
    let warning = "does not ignore all of";
    pull(&env, &[]).stderr_lacks(warning);
    env.write("repo/.gitignore", "/target\n");
    pull(&env, &["-q"]).stderr_has(&format!("warning: git {warning} {}", env.data().display()));
    pull(&env, &[]).stderr_has("hint: add a line to .gitignore: /data\n");
    env.write("repo/.gitignore", "data/*\n");
    pull(&env, &[]).stderr_lacks(warning);
    fs::remove_dir_all(env.path("repo/.git")).expect("it was a repository");
    fs::remove_file(env.path("repo/.gitignore")).expect("it was there");
    pull(&env, &[]).stderr_lacks(warning);
    assert_eq!(snapshot(&env).json["git_commit"], serde_json::Value::Null);
}

#[test]
fn verbose_shows_the_command_and_what_fly_says() {
    let (env, _sshd) = production();
    pull(&env, &["-v"])
        .stderr_has("$ fly ssh console --app upflow --command")
        .stderr_has("Connecting to fdaa:0:1a2b:a7b:1f60:1:2d3e:2... complete\n")
        .stderr_has("the server has SQLite 3.");
}

#[test]
fn on_a_terminal_a_bar_shows_what_has_come_and_is_gone_at_the_end() {
    let (env, _sshd) = production();
    let path = env.production().join(NAMES[0]);
    databases::execute(&path, "UPDATE items SET data = randomblob(20000)");
    env.edit_world(|world| {
        world.faults = Faults { stall_after_bytes: Some(3_000_000), ..Faults::default() };
    });
    let session = env.xtask_on_pty(["pull-db"]);
    let screen = session.wait_for_text("Receiving [");
    let bar = screen.lines().find(|line| line.contains("Receiving [")).unwrap_or_default();
    assert!(bar.contains(" left  ") && bar.contains("B/s · data.db"), "{bar}");
    assert!(!screen.contains("Packing"), "one line at a time:\n{screen}");
    session.send(tests::pty::CTRL_C);
    assert_ne!(session.wait_exit(), 0);

    env.edit_world(|world| world.faults = Faults::default());
    let session = env.xtask_on_pty(["pull-db"]);
    let screen = session.wait_for_text("Current backup_");
    assert_eq!(session.wait_exit(), 0);
    for gone in ["Receiving", "Connecting", "Copying", "Packing", "Saving"] {
        assert!(!screen.contains(gone), "{gone} stayed:\n{screen}");
    }
    let steps =
        ["✓ Connected to upflow", "✓ Copied 3 databases on the server", "✓ Audited", "Pulled 3"];
    let places: Vec<_> = steps.iter().map(|step| screen.find(step)).collect();
    assert!(places.is_sorted() && places[0].is_some(), "{screen}");
    assert!(screen.contains("Ready ./data in "), "{screen}");
}

/// Where nothing can be drawn over, nothing is hidden either.
#[test]
fn a_dumb_terminal_gets_plain_lines_and_a_narrow_one_short_ones() {
    let (env, _sshd) = production();
    let mut command = env.xtask_command(["pull-db"]);
    command.env("TERM", "dumb");
    let session = Session::spawn(&command);
    let screen = session.wait_for_text("Current backup_");
    assert!(screen.contains("Copying 3 databases") && !screen.contains("✓"), "{screen}");
    databases::execute(&env.production().join(NAMES[1]), "UPDATE items SET value = value + 1");
    let session = Session::spawn_sized(&env.xtask_command(["pull-db"]), 40, 60);
    let screen = session.wait_for_text("Ready ./data in ");
    let row = screen.lines().find(|line| line.contains(NAMES[1])).expect("its row");
    assert!(!row.contains("changed page"), "{screen}");
}

#[test]
fn colours_are_for_terminals_only() {
    let (env, _sshd) = production();
    let mut xtask = env.xtask_command(["pull-db"]);
    let output = Running::start(xtask.env_remove("NO_COLOR")).wait().ok();
    output.stderr_lacks("\x1b");
}
