//! `snapshots`, `setup-db`, and how commands in one data directory get along.

use std::fs;
use std::path::Path;

use tests::env::TestEnv;
use tests::process::Running;
use tests::sets::{assert_same, change, content, developer, named, pull, snapshots};
use tests::store::left_behind;
use tests::{binaries, databases, shells};

/// Pulls, each time something else; the names, oldest first.
fn pulls(env: &TestEnv, n: usize) -> Vec<String> {
    let one = |_| {
        change(&env.production().join("data.db"));
        pull(env)
    };
    (0..n).map(one).collect()
}

#[test]
fn what_a_person_saves_is_never_pruned() {
    let env = developer();
    change(&env.data().join("data.db"));
    let mine = content(&env.data());
    let saved = env.xtask(["snapshots", "create"]).ok().stdout_is("").stderr_has("Saved backup_");
    let manual = named(&env, "manual");
    assert!(saved.stderr.contains(&manual[0]), "{saved}");
    env.xtask(["snapshots", "create"]).ok();
    assert_eq!(named(&env, "manual").len(), 2, "also when nothing changed since the last one");
    pulls(&env, 3);
    env.xtask(["snapshots", "prune", "--keep", "1"]).ok();
    assert_eq!(named(&env, "manual").len(), 2);
    env.xtask(["restore-db", "--yes", "--name", &manual[0]]).ok();
    assert_same(&content(&env.data()), &mine);
}

#[test]
fn an_empty_set_is_not_saved() {
    let env = TestEnv::new();
    env.xtask(["snapshots", "create"]).fails(1).stderr_has("no database in ");
    assert_eq!(left_behind(&env.data()), [""; 0]);
}

#[test]
fn removing_needs_a_yes() {
    let env = developer();
    let name = named(&env, "pull").remove(0);
    env.xtask(["snapshots", "rm", &name]).fails(2).stderr_has("hint: add --yes\n");
    env.xtask(["snapshots", "rm", "1999", "--yes"]).fails(1);
    assert_eq!(snapshots(&env).len(), 1);
    let live = content(&env.data());
    env.xtask(["snapshots", "rm", &name, "--yes"]).ok().stderr_has(&format!("Removed {name}"));
    assert_eq!(snapshots(&env).len(), 0);
    assert_same(&content(&env.data()), &live);
    assert_eq!(left_behind(&env.data()), [""; 0]);
}

#[test]
fn pruning_keeps_the_newest_and_the_way_back() {
    let env = developer();
    let first = named(&env, "pull").remove(0);
    let [second, third] = &pulls(&env, 2)[..] else { panic!("two pulls") };
    env.xtask(["restore-db", "--yes", "--name", &first]).ok();
    env.xtask(["restore-db", "--yes", "--name", second]).ok();
    let prune = || env.xtask(["snapshots", "prune", "--keep", "1"]).ok();
    prune().stderr_has("Pruned 0 snapshots");
    env.xtask(["restore-db", "--yes", "--latest"]).ok();
    prune().stderr_has("Pruned 1 snapshot,");
    assert_eq!(named(&env, "pull"), [&third[..], second]);
    env.xtask(["restore-db", "--yes", "--undo"]).ok().stderr_has(second);
    env.xtask(["snapshots", "prune", "--keep", "0"]).fails(2);
}

#[test]
fn pruning_leaves_what_it_cannot_judge() {
    let env = developer();
    pulls(&env, 2);
    let oldest = env.data().join(named(&env, "pull").remove(2));
    fs::remove_file(oldest.join("data.db")).expect("damage a snapshot");
    let by_hand = env.data().join("backup_2025-01-02T03-04-05-678Z");
    fs::create_dir(&by_hand).expect("make a directory");
    databases::create(&by_hand.join("data.db"), 3, 3);
    env.xtask(["snapshots", "prune", "--keep", "1"]).ok();
    assert!(oldest.exists() && by_hand.exists());
}

#[test]
fn pruning_leaves_the_last_copy_of_what_no_pull_can_bring() {
    let env = developer();
    env.db_toml("keep = 1\n");
    let (mine, tenant) = (env.data().join("mine.db"), env.production().join("tenant_iris.db"));
    databases::create(&mine, 3, 3);
    env.xtask(["snapshots", "create"]).ok();
    let manual = named(&env, "manual").remove(0);
    // What a restore has brought, the next pull removes.
    fs::remove_file(&mine).expect("remove");
    env.xtask(["restore-db", "--name", &manual, "--yes"]).ok();
    env.xtask(["snapshots", "rm", &manual, "--yes"]).ok();
    let again = || {
        change(&env.data().join("data.db"));
        change(&env.production().join("data.db"));
        env.local_pull(&[]).ok()
    };
    again().stderr_has("Removed mine.db, which the snapshot does not have");
    let holder = named(&env, "before-pull").remove(0);
    // That of a database which pulls have brought is pruned like the rest.
    fs::remove_file(tenant).expect("remove");
    let kept = format!("Kept {holder} has the last copy of mine.db, which no pull has brought\n");
    let hint = format!("hint: if nobody needs it: cargo xtask snapshots rm {holder}\n");
    again().stderr_has(&kept).stderr_has(&hint);
    again().stderr_has("Pruned 2 snapshots,").stderr_lacks(&kept);
    again().stderr_lacks(&kept);
    env.xtask(["snapshots", "prune"]).ok().stderr_has(&kept).stderr_has("Pruned 0 snapshots");
    assert_eq!(named(&env, "before-pull").len(), 2);
    env.xtask(["restore-db", "--name", &holder, "--only", "mine.db", "--yes"]).ok();
    databases::assert_whole(&mine);
    env.xtask(["snapshots", "prune"]).ok().stderr_lacks(&kept);
}

#[cfg(target_os = "linux")]
#[test]
fn a_backup_takes_the_current_data_and_no_snapshot() {
    let env = developer();
    change(&env.data().join("data.db"));
    env.xtask(["restore-db", "--latest", "--yes"]).ok();
    env.xtask(["snapshots", "create"]).ok();
    assert_eq!(snapshots(&env).len(), 3);
    let mut tar = env.command("tar");
    tar.args(["-cvf", "/dev/null", "--exclude-caches", "-C"]).arg(env.repo()).arg("data");
    let listed = Running::start(&mut tar).wait().ok().stdout();
    let mut files: Vec<_> = listed.lines().filter(|line| !line.ends_with('/')).collect();
    files.retain(|file| !file.ends_with("/CACHEDIR.TAG"));
    files.sort_unstable();
    assert_eq!(files, ["data/data.db", "data/tenant_iris.db"]);
}

#[test]
fn both_lists_are_the_same() {
    let env = developer();
    pulls(&env, 1);
    let list = env.xtask(["restore-db", "--list"]).ok().stdout();
    env.xtask(["snapshots", "list"]).ok().stdout_is(list).stderr_is("");
    let list = env.xtask(["restore-db", "--list", "--json"]).ok().stdout();
    env.xtask(["snapshots", "list", "--json"]).ok().stdout_is(list).stderr_is("");
}

#[test]
fn a_terminal_without_colour_shows_plain_lines() {
    let env = developer();
    change(&env.data().join("data.db"));
    let session = env.xtask_on_pty(["snapshots", "create"]);
    assert_eq!(session.wait_exit(), 0);
    let screen = env.normalize(&session.wait_for_text("Saved"));
    assert_eq!(screen.trim_end(), "       Saved backup_<TIME>");
    let session = env.xtask_on_pty(["restore-db", "--latest", "--yes"]);
    assert_eq!(session.wait_exit(), 0);
    let screen = env.normalize(&session.wait_for_text("hint"));
    assert_eq!(
        screen.trim_end(),
        "        Kept backup_<TIME>, which holds the previous data\n     \
         Current backup_<TIME> (2 databases)\n\
         hint: cargo xtask restore-db --undo brings back the previous data"
    );
}

#[test]
fn a_warning_begins_a_line_while_a_spinner_turns() {
    let env = developer();
    env.write("repo/data/data.db", &"no database ".repeat(1000));
    // Saving it takes longer than a spinner needs to show itself.
    let rows = "WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 100)";
    let fill = format!("INSERT INTO items (key, data) {rows} SELECT i, zeroblob(500000) FROM n");
    databases::execute(&env.data().join("tenant_iris.db"), &fill);
    let session = env.xtask_on_pty(["snapshots", "create"]);
    assert_eq!(session.wait_exit(), 0);
    let screen = session.screen();
    let warning = "warning: data.db is damaged: it is saved as it is";
    assert_eq!(screen.lines().next(), Some(warning), "{screen}");
    assert!(!screen.contains("Saving"), "{screen}");
}

#[test]
fn a_program_is_found_in_each_of_several_links_to_one_name() {
    let env = app_with_setup("10");
    for name in ["a", "b"] {
        let place = env.path(name);
        fs::create_dir(&place).expect("make a directory");
        databases::create(&place.join("data.db"), 3, 3);
        let link = env.make_data().join(format!("{name}.db"));
        std::os::unix::fs::symlink(place.join("data.db"), link).expect("link");
    }
    let mut shell = env.command("sqlite3");
    let sql = "PRAGMA journal_mode = delete; SELECT count(*) FROM items";
    shell.arg(env.path("b/data.db")).args([sql, ".shell echo open; exec sleep 1000"]);
    let mut shell = Running::start(&mut shell);
    shell.wait_for("sqlite3 to open", |shell| shell.stdout_so_far().ends_with(b"open\n"));
    let place = env.data().join("b.db").display().to_string();
    env.xtask(["setup-db"]).fails(1).stderr_has(&format!("{place} is open in sqlite3 (process "));
}

fn app_with_setup(rows: &str) -> TestEnv {
    let env = TestEnv::new();
    let app = binaries::app().display().to_string();
    env.db_toml(&format!("setup = \"{app} setup --data-dir {{dir}} --rows 50\"\n"));
    let production = env.production().display().to_string();
    env.app(["setup", "--data-dir", &production, "--rows", rows]).ok();
    env
}

fn pull_requests(data: &Path) -> i64 {
    databases::count(&data.join("tenant_iris.db"), "pull_requests")
}

#[test]
fn setup_migrates_and_seeds_and_both_ways_lead_back() {
    let env = app_with_setup("10");
    pull(&env);
    let pulled = content(&env.data());
    databases::execute(&env.data().join("data.db"), "CREATE TABLE mine (a)");
    // What is there keeps its rows, and what is missing is made anew.
    fs::remove_file(env.data().join("tenant_iris.db")).expect("remove");
    let mine = content(&env.data());
    env.xtask(["setup-db"]).ok().stderr_has("restore-db --undo brings back the previous data");
    assert_eq!(pull_requests(&env.data()), 50);
    env.xtask(["restore-db", "--undo", "--yes"]).ok();
    assert_same(&content(&env.data()), &mine);
    env.xtask(["setup-db"]).ok();
    env.xtask(["restore-db", "--latest", "--yes"]).ok();
    assert_same(&content(&env.data()), &pulled);
    assert_same(&content(&env.data()), &content(&env.production()));
}

#[test]
fn setup_makes_a_first_set_and_refuses_one_in_use() {
    let env = app_with_setup("10");
    env.xtask(["setup-db"]).ok();
    assert_eq!(pull_requests(&env.data()), 50);
    assert_eq!(snapshots(&env).len(), 0);
    let app = env.serve(&env.data());
    let (status, _) = app.client().get("/orgs/iris/stats").expect("the app answers");
    assert_eq!(status, 200);
    env.xtask(["setup-db"]).fails(1).stderr_has("is open in app (process ");
    env.xtask(["setup-db", "--force", "--", "--rows", "60"]).fails(1);
}

#[test]
fn setup_without_a_command_names_the_setting() {
    let env = developer();
    env.xtask(["setup-db"]).fails(2).stderr_has("hint: add to xtask/db.toml: setup = ");
    env.db_toml("setup = \"sh -c 'exit 3'\"");
    let live = content(&env.data());
    env.xtask(["setup-db"]).fails(1).stderr_has("sh");
    assert_same(&content(&env.data()), &live);
}

/// A pull that copies on the server until the file `go` is there.
fn slow_pull(env: &TestEnv) -> Running {
    let sqlite3 = shells::find("sqlite3");
    let body = format!(
        "while [ ! -e '{}' ]; do sleep 0.01; done; exec {} \"$@\"",
        env.path("go").display(),
        sqlite3.display()
    );
    shells::script(&env.path("bin"), "sqlite3", &body);
    let via = format!("local:{}", env.production().display());
    let mut pull = env.start_xtask(["pull-db", "--via", &via]);
    pull.wait_for_stderr("Connecting");
    pull
}

#[test]
fn a_second_command_says_for_whom_it_waits_and_goes_on() {
    let env = developer();
    change(&env.production().join("data.db"));
    let pull = slow_pull(&env);
    let waiting = format!("Waiting for cargo xtask pull-db (process {}) in <ROOT>", pull.id());
    let mut second = env.start_xtask(["snapshots", "create"]);
    second.wait_for("the second to wait", |second| {
        env.normalize(&second.stderr_so_far()).contains(&waiting)
    });
    env.write("go", "");
    pull.wait().ok();
    second.wait().ok();
    let manual = env.data().join(named(&env, "manual").remove(0));
    assert_same(&content(&manual), &content(&env.production()));
}

#[test]
fn a_command_that_waited_goes_by_what_is_there_then() {
    let env = developer();
    change(&env.data().join("data.db"));
    let mine = content(&env.data());
    env.xtask(["restore-db", "--latest", "--yes"]).ok();
    env.xtask(["restore-db", "--undo", "--yes"]).ok();
    for which in ["--undo", "--latest"] {
        change(&env.production().join("tenant_iris.db"));
        let pull = slow_pull(&env);
        let mut second = env.start_xtask(["restore-db", which, "--yes"]);
        second.wait_for_stderr("Waiting");
        env.write("go", "");
        pull.wait().ok();
        second.wait().ok();
        let latest = content(&env.production());
        assert_same(&content(&env.data()), if which == "--undo" { &mine } else { &latest });
        fs::remove_file(env.path("go")).expect("remove a file");
    }
}

#[test]
fn a_lock_that_a_killed_command_left_holds_nobody_up() {
    let env = developer();
    let mut pull = slow_pull(&env);
    pull.kill();
    env.write("go", "");
    drop(pull);
    env.xtask(["snapshots", "create"]).ok().stderr_lacks("Waiting");
    assert_eq!(left_behind(&env.data()), [""; 0]);
}

#[test]
fn what_a_desktop_or_nobody_has_put_there_is_no_database_and_no_snapshot() {
    let env = developer();
    let newest = tests::pull::snapshot(&env).path;
    let by_hand = env.data().join("backup_2026-01-01T00-00-00-000Z");
    fs::create_dir(&by_hand).expect("make a directory");
    fs::copy(newest.join("data.db"), by_hand.join("data.db")).expect("copy");
    fs::create_dir(env.data().join("backup_2026-01-02T00-00-00-000Z")).expect("make a directory");
    for directory in [&env.data(), &newest, &by_hand] {
        for name in ["Thumbs.db", ".DS_Store", "data.db~", ".data.db.swp"] {
            fs::write(directory.join(name), "of a desktop").expect("write");
        }
    }
    env.xtask(["restore-db", "--yes", "--name", "2026-01-01T00-00-00-000"]).ok();
    env.local_pull(&[]).ok();
    assert!(env.data().join("Thumbs.db").exists());
    let session = env.xtask_on_pty(["restore-db"]);
    let screen = session.wait_for_text("2026-01-01T00-00-00-000Z");
    assert!(!screen.contains("2026-01-02"), "{screen}");
    session.send("\u{1b}");
    session.wait_exit();
}
