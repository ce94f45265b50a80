//! `cargo xtask pull-db` when something is wrong: it says what, where and what
//! to do, and everything stays as it was.

use std::fs;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tests::databases;
use tests::disk::SmallDisk;
use tests::env::TestEnv;
use tests::process::{Running, command, wait_for};
use tests::pull::{
    NAMES, assert_live_equals_production, assert_tidy, production, pull, pull_fails,
};
use tests::server::Sshd;
use tests::sets::developer;
use tests::shells;
use tests::store;
use tests::world::{Faults, Machine, World};

/// A developer who has a live set and a snapshot to lose.
fn pulled() -> (TestEnv, Sshd) {
    let (env, sshd) = production();
    fill(&env);
    pull(&env, &[]);
    databases::execute(&env.data().join(NAMES[0]), "UPDATE items SET data = 'mine'");
    (env, sshd)
}

/// A stream has to be longer than one block of zstd to be cut in the middle.
fn fill(env: &TestEnv) {
    databases::execute(
        &env.production().join(NAMES[0]),
        "UPDATE items SET data = randomblob(2000)",
    );
}

fn first_machine(world: &mut World) -> &mut Machine {
    &mut world.apps.get_mut("upflow").expect("the app exists")[0]
}

#[test]
fn what_fly_refuses_is_explained_with_the_next_command() {
    let (env, _sshd) = pulled();
    let fails = |args: &[&str], message: &str, hint: &str| {
        pull_fails(&env, args, 1)
            .stderr_has(&format!("error: {message}\n  | "))
            .stderr_has(&format!("\nhint: {hint}\n"));
    };
    fails(
        &["--machine", "nope"],
        "the app upflow has no such started machine",
        "fly machine list --app upflow",
    );
    fails(
        &["--region", "syd"],
        "the app upflow has no such started machine",
        "fly machine list --app upflow",
    );
    fails(
        &["--process-group", "cron"],
        "the app upflow has no such started machine",
        "fly machine list --app upflow",
    );
    fails(
        &["--app", "nope"],
        "there is no app nope, or this account may not see it",
        "fly apps list",
    );
    fails(
        &["--container", "nope"],
        "upflow has no such container",
        "name a container of the machine with --container",
    );
    env.edit_world(|world| "stopped".clone_into(&mut first_machine(world).state));
    fails(&[], "the app upflow has no started machine", "cargo xtask pull-db --start");
    env.edit_world(|world| world.logged_in = false);
    fails(&[], "fly is not logged in", "fly auth login");
}

#[test]
fn a_refused_connection_is_said_in_flys_words() {
    let (env, sshd) = pulled();
    drop(sshd);
    pull_fails(&env, &[], 1)
        .stderr_has(
            "error: the machine of upflow is up, but its SSH server does not answer\n  | Error: ",
        )
        .stderr_has("hint: run the same command again in a moment; fly logs --app upflow shows");
}

#[test]
fn either_name_of_fly_will_do_and_without_both_there_is_a_hint() {
    let (env, _sshd) = pulled();
    env.uninstall("fly");
    pull(&env, &["-v"]).stderr_has("$ flyctl ssh console");
    env.uninstall("flyctl");
    pull_fails(&env, &[], 1)
        .stderr_has("error: neither `fly` nor `flyctl` is on the PATH\n")
        .stderr_has("hint: install it (https://fly.io/docs/flyctl/install), then: fly auth login");
}

#[test]
fn a_server_without_sqlite3_is_explained() {
    let env = TestEnv::new();
    let bin = shells::debian(&env.path(""), &["sqlite3"]);
    let _sshd = env.start_server(&env.server_environment().set("PATH", &bin));
    databases::create(&env.production().join("data.db"), 10, 1);
    pull_fails(&env, &[], 1)
        .stderr_has("error: sqlite3 is not installed on the server\n")
        .stderr_has("hint: add `apt-get install -y sqlite3` (or `apk add sqlite`) to the image");
}

#[test]
fn a_directory_without_databases_is_named() {
    let (env, _sshd) = pulled();
    let production = env.production().display().to_string();
    pull_fails(&env, &["--remote-dir", "/no/such/dir"], 1)
        .stderr_has("error: there is no directory /no/such/dir on the server\n")
        .stderr_has("hint: name another with --remote-dir, or remote-dir in xtask/db.toml\n");
    env.xtask(["pull-db", "--via", "local:/no/such/dir"]).fails(1).stderr_has(
        "error: there is no directory /no/such/dir\nhint: check the path after local:\n",
    );
    let hint = "hint: check include and exclude in xtask/db.toml, and --only\n";
    let message = format!("error: no database in {production} matches: include = [\"*.db\"]");
    let names = NAMES.join(", ");
    pull_fails(&env, &["--only", "nope*"], 1)
        .stderr_has(&format!("error: --only 'nope*' matches none of: {names}\n"));
    for name in NAMES {
        fs::remove_file(env.production().join(name)).expect("it was there");
    }
    pull_fails(&env, &[], 1).stderr_has(&message).stderr_has(hint);
}

#[test]
fn a_file_that_is_no_database_is_named() {
    let (env, _sshd) = pulled();
    env.write("production/notes.db", &"These are notes, and no database at all. ".repeat(30));
    let path = env.production().join("notes.db");
    pull_fails(&env, &[], 1)
        .stderr_has(&format!("error: {} has no SQLite header", path.display()))
        .stderr_has("hint: add it to exclude in xtask/db.toml, or let include name the others\n");
    env.db_toml("exclude = ['notes.db']\n");
    pull(&env, &[]);
}

#[test]
fn a_database_that_is_damaged_on_the_server_does_not_replace_a_sound_one() {
    let (env, _sshd) = pulled();
    // The check of the first one ends while others still arrive.
    for name in [NAMES[2], NAMES[0]] {
        let path = env.production().join(name);
        let mut bytes = fs::read(&path).expect("read");
        bytes[8192..12288].fill(0xa5);
        fs::write(&path, bytes).expect("write");
        pull_fails(&env, &[], 1)
            .stderr_has("a database is damaged on the server; nothing was changed\n")
            .stderr_has(&format!("{name} is damaged\n"))
            .stderr_has("hint: on the server: sqlite3 FILE 'PRAGMA integrity_check'\n");
    }
}

#[test]
fn a_full_disk_on_the_server_is_noticed_before_and_during_the_copy() {
    let env = TestEnv::new();
    let bin = shells::debian(&env.path(""), &["df"]);
    let _sshd = env.start_server(&env.server_environment().set("PATH", &bin));
    databases::create(&env.production().join("data.db"), 20_000, 1);
    let hint = "hint: free space, or set staging-dir in xtask/db.toml to a directory on a larger";
    let free = |kibibytes: u32| {
        let header = "Filesystem 1024-blocks Used Available Capacity Mounted on";
        shells::script(&bin, "df", &format!("echo '{header}'; echo 'disk 1 1 {kibibytes} 1% /'"));
    };
    free(2000);
    let tmp = env.path("tmp").display().to_string();
    pull_fails(&env, &[], 1)
        .stderr_has(&format!("error: {tmp} has 2000 KiB free, and copying"))
        .stderr_has(hint);

    let small = env.path("small");
    let Some(_disk) = SmallDisk::mount(&small, 1000) else { return };
    env.db_toml(&format!("staging-dir = '{}'\n", small.display()));
    // Another one takes the space after we have asked for it.
    free(99_999_999);
    pull_fails(&env, &[], 1)
        .stderr_has(&format!("(is {} full?)\n", small.display()))
        .stderr_has(hint);
    wait_for("the server to clean up", || databases::files(&small).is_empty().then_some(()));
}

#[test]
fn a_full_disk_here_is_noticed_before_anything_arrives() {
    let (env, _sshd) = production();
    let Some(disk) = SmallDisk::mount(&env.data(), 700) else { return };
    pull(&env, &[]);
    disk.fill();
    pull_fails(&env, &[], 1)
        .stderr_has("the disk of ")
        .stderr_has(" free, but the pull needs ")
        .stderr_has("hint: free space: cargo xtask snapshots prune --keep 3\n")
        .stderr_lacks("Receiving");
}

#[test]
fn a_disk_that_fills_up_meanwhile_is_said_to_be_full() {
    let (env, _sshd) = production();
    fill(&env);
    let Some(disk) = SmallDisk::mount(&env.data(), 5300) else { return };
    pull(&env, &[]);
    let (held, gate) = (env.path("held"), env.path("gate"));
    env.replace_fly(&format!(
        "standin-fly \"$@\" | {{ head -c 300000; : >{}; \
         while [ ! -e {} ]; do sleep 0.02; done; cat; }}",
        held.display(),
        gate.display()
    ));
    let before = store::fingerprint(&env.data());
    let mut xtask = env.start_xtask(["pull-db", "--full"]);
    xtask.wait_for("the stream to be held", |_| held.exists());
    xtask.wait_for_stderr("Receiving data.db");
    disk.fill();
    env.write("gate", "");
    let output = xtask.wait().fails(1);
    disk.free();
    output
        .stderr_has("is full; nothing was changed\n")
        .stderr_has("hint: free space: cargo xtask snapshots prune --keep 3\n");
    assert_eq!(store::fingerprint(&env.data()), before);
    assert_eq!(store::kinds(&env.data()), ["pull"]);
    assert_tidy(&env);
}

#[test]
fn an_unknown_key_names_the_nearest() {
    let (env, _sshd) = pulled();
    for (key, nearest) in [("remot-dir", "remote-dir"), ("incldue", "include"), ("kep", "keep")] {
        env.db_toml(&format!("{key} = 'x'\n"));
        pull_fails(&env, &[], 2)
            .stderr_has(&format!("{}: ", env.path("repo/xtask/db.toml").display()))
            .stderr_has(&format!("unknown field `{key}`"))
            .stderr_has(&format!("hint: did you mean `{nearest}`?\n"));
    }
    assert_eq!(env.fly_invocations().len(), 1, "only the first pull");
}

#[test]
fn without_an_app_or_a_directory_the_ways_to_give_one_are_named() {
    let (env, _sshd) = pulled();
    env.write("repo/fly.toml", "app = 'upflow'\n");
    pull_fails(&env, &[], 2)
        .stderr_has("error: remote-dir is not set (often \"/data\")\n")
        .stderr_has("hint: set `remote-dir` in xtask/db.toml");
    fs::remove_file(env.path("repo/fly.toml")).expect("it was there");
    pull_fails(&env, &["--remote-dir", "/data"], 2)
        .stderr_has("error: no Fly.io app given\n")
        .stderr_has("hint: give --app, or set FLY_APP, `app` in xtask/db.toml");
    pull_fails(&env, &["--app", "upflow", "--remote-dir", "data"], 2)
        .stderr_has("\"data\" on the server is not an absolute path");
}

#[test]
fn ctrl_c_in_a_stalled_pull_ends_it_on_both_sides() {
    let (env, _sshd) = pulled();
    // More than the buffers on the way hold: the server cannot be done.
    databases::execute(
        &env.production().join(NAMES[0]),
        "CREATE TABLE noise AS WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 200)
         SELECT randomblob(100000) AS data FROM n",
    );
    let before = store::fingerprint(&env.data());
    env.edit_world(|world| {
        world.faults = Faults { stall_after_bytes: Some(300_000), ..Faults::default() };
    });
    let mut xtask = env.start_xtask(["pull-db", "--full"]);
    xtask.wait_for_stderr("Receiving data.db");
    assert!(!databases::files(&env.path("tmp")).is_empty(), "the server is at work");
    xtask.interrupt();
    // On a terminal fly ends first, and that is not why.
    xtask.wait().fails(130).stderr_has("error: interrupted; nothing was changed\n");
    assert_eq!(store::fingerprint(&env.data()), before);
    assert_eq!(store::kinds(&env.data()), ["pull"]);
    wait_for("the server to clean up", || {
        databases::files(&env.path("tmp")).is_empty().then_some(())
    });
    env.edit_world(|world| world.faults = Faults::default());
    pull(&env, &[]);
    assert_live_equals_production(&env, &NAMES);
}

#[test]
fn a_fly_that_is_killed_midway_is_a_cut_connection() {
    let (env, _sshd) = pulled();
    let pid = env.path("pid");
    env.replace_fly(&format!("echo $$ >{}; exec standin-fly \"$@\"", pid.display()));
    env.edit_world(|world| {
        world.faults = Faults { stall_after_bytes: Some(300_000), ..Faults::default() };
    });
    let before = store::fingerprint(&env.data());
    let mut xtask = env.start_xtask(["pull-db", "--full"]);
    xtask.wait_for_stderr("Receiving data.db");
    let pid = fs::read_to_string(pid).expect("fly runs");
    Running::start(command("kill").args(["-9", pid.trim()])).wait().ok();
    xtask
        .wait()
        .fails(1)
        .stderr_has("error: the connection was cut after ")
        .stderr_has(" bytes, before the end record; nothing was changed\n")
        .stderr_has("hint: run the same command again\n");
    assert_eq!(store::fingerprint(&env.data()), before);
    assert_tidy(&env);
}

/// In a rollback journal mode a writer keeps readers out, too.
#[test]
fn an_app_that_keeps_its_database_locked_is_waited_for_and_then_told_of() {
    let env = developer();
    let path = env.production().join("data.db");
    databases::execute(&path, "PRAGMA journal_mode = DELETE");
    let app = Connection::open(&path).expect("open");
    app.execute_batch("BEGIN EXCLUSIVE").expect("lock");
    let via = format!("local:{}", env.production().display());
    let start = Instant::now();
    env.xtask(["pull-db", "--via", &via])
        .fails(1)
        .stderr_has(&format!(
            "error: {} stayed locked for 10 s; nothing was sent\n",
            path.display()
        ))
        .stderr_has("hint: run the same command again when the app's transaction has ended\n");
    assert!(start.elapsed() >= Duration::from_secs(10), "it was not waited for");
    assert_tidy(&env);
    app.execute_batch("COMMIT").expect("unlock");
    env.xtask(["pull-db", "--via", &via]).ok();
}

#[test]
fn a_damaged_database_is_named_also_where_rules_find_it() {
    let env = developer();
    let path = env.production().join("data.db");
    databases::execute(&path, "UPDATE items SET data = randomblob(9000)");
    let mut bytes = fs::read(&path).expect("read");
    bytes[4096..].fill(0xff);
    fs::write(&path, bytes).expect("write");
    env.db_toml("[[sanitize]]\ntable = 'items'\nset = { data = 'NULL' }\n");
    let shown = path.display();
    env.local_pull(&[])
        .fails(1)
        .stderr_has(&format!("error: {shown} is damaged on the server"))
        .stderr_has(&format!("hint: on the server: sqlite3 {shown} 'PRAGMA integrity_check'\n"));
}

#[test]
fn another_directory_does_not_go_with_local() {
    let env = developer();
    let output = env.local_pull(&["--remote-dir", "/data"]).fails(2);
    output.stderr_has("error: --remote-dir does not work with local:");
}
