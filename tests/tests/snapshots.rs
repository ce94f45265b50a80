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
    env.xtask(["snapshots", "prune", "--keep", "1", "--yes"]).ok();
    assert_eq!(named(&env, "manual").len(), 2);
    env.xtask(["restore-db", "--yes", "--name", &manual[0]]).ok();
    assert_same(&content(&env.data()), &mine);
}

#[test]
fn a_snapshot_with_a_label_or_a_pin_is_found_by_it_and_never_pruned() {
    let env = developer();
    change(&env.data().join("data.db"));
    let mine = content(&env.data());
    let label = "before 0007";
    env.xtask(["snapshots", "create", label]).ok().stderr_has("Saved \"before 0007\" as backup_");
    let pulled = pulls(&env, 3);
    let renamed = ["snapshots", "rename", &pulled[0], "of Monday"];
    env.xtask(renamed).ok().stderr_has(&format!("Renamed {} to \"of Monday\"", pulled[0]));
    env.xtask(["snapshots", "pin", &pulled[1]]).ok().stderr_has(&format!("Pinned {}", pulled[1]));
    let listed = env.xtask(["snapshots"]).ok().stdout();
    let line = |text: &str| listed.lines().any(|line| line.contains(text));
    assert!(line(" \"before 0007\"  ") && line(" \"of Monday\"  ") && line("  pinned"), "{listed}");

    env.xtask(["snapshots", "prune", "--keep", "1", "--yes"]).ok();
    assert_eq!(named(&env, "pull"), [&pulled[2][..], &pulled[1], &pulled[0]]);
    let json = snapshots(&env);
    let of = |name: &str| json.iter().find(|it| it["name"] == name).expect("it is there").clone();
    assert_eq!(
        (&of(&pulled[0])["label"], &of(&pulled[1])["pinned"]),
        (&"of Monday".into(), &true.into())
    );
    env.xtask(["restore-db", label, "--yes"]).ok();
    assert_same(&content(&env.data()), &mine);

    env.xtask(["snapshots", "rename", "of Monday", ""]).ok().stderr_has("Removed the label of ");
    env.xtask(["snapshots", "unpin", &pulled[1]]).ok();
    // What a snapshot without them records is what earlier versions did.
    let text = fs::read_to_string(env.data().join(&pulled[1]).join("snapshot.json")).expect("read");
    assert!(!text.contains("\"label\"") && !text.contains("\"pinned\""), "{text}");
    env.xtask(["restore-db", "--latest", "--yes"]).ok();
    env.xtask(["restore-db", label, "--yes"]).ok();
    env.xtask(["snapshots", "prune", "--keep", "1", "--yes"]).ok();
    assert_eq!(named(&env, "pull"), [&pulled[2][..]]);
}

#[test]
fn a_label_is_one_short_line() {
    let env = developer();
    let name = named(&env, "pull").remove(0);
    for label in ["a\nb", "\u{1b}[31m", "a\u{202e}b", &"x".repeat(61)] {
        env.xtask(["snapshots", "create", label]).fails(2).is_harmless();
        env.xtask(["snapshots", "rename", &name, label]).fails(2).is_harmless();
    }
    env.xtask(["snapshots", "create", " "]).fails(2);
    env.xtask(["snapshots", "pin", "nope"]).fails(1).stderr_has("; the newest are: ");
    // What somebody else has written into the file.
    let made = tests::store::snapshots(&env.data()).remove(0);
    made.edit(|json| json["label"] = "\u{1b}[2J\nbackup_x".into());
    let listed = env.xtask(["snapshots"]).ok().is_harmless().stdout();
    assert_eq!(listed.lines().count(), 1, "{listed}");
    let by_hand = env.data().join("backup_2025-01-02T03-04-05-678Z");
    fs::create_dir(&by_hand).expect("make a directory");
    databases::create(&by_hand.join("data.db"), 3, 3);
    env.xtask(["snapshots", "pin", "2025"]).fails(1).stderr_has("has no snapshot.json");
}

#[test]
fn a_prune_shows_what_it_would_remove_and_asks() {
    let env = developer();
    pulls(&env, 3);
    let all = named(&env, "pull");
    let prune = ["snapshots", "prune", "--keep", "1"];
    // The current one, that of `--undo` and two others.
    let planned = "Would remove 2 snapshots, ";
    let plain = env.xtask(prune).fails(2).stderr_has(planned).stderr_has("hint: add --yes\n");
    let lists = |text: &str, at: usize| text.contains(&format!("  {} ", all[at]));
    assert!(
        !lists(&plain.stderr, 1) && lists(&plain.stderr, 2) && lists(&plain.stderr, 3),
        "{plain}"
    );
    let dry = env.xtask([&prune[..], &["--dry-run"]].concat()).ok().stderr_has(planned);
    assert!(lists(&dry.stderr, 2), "{dry}");
    let session = env.xtask_on_pty(prune);
    let screen = session.wait_for_text("? Remove 2 snapshots? (y/N)");
    assert!(screen.contains(planned) && lists(&screen, 3), "{screen}");
    session.send("n\r");
    assert_eq!(session.wait_exit(), 130);
    assert!(session.screen().contains("\nCancelled; nothing changed"), "{}", session.screen());
    assert_eq!(named(&env, "pull"), all);

    let none = "Nothing to prune (4 pulls, keep 1)\n";
    let young = [&prune[..], &["--older-than", "1h"]].concat();
    env.xtask(&young).ok().stderr_has(none);
    env.xtask([&young[..], &["--dry-run"]].concat()).ok().stderr_has(none);
    env.xtask([&prune[..], &["--older-than", "soon"]].concat()).fails(2);
    let oldest = tests::store::snapshots(&env.data()).remove(0);
    oldest.edit(|json| json["time"] = "2026-01-01T00:00:00Z".into());
    env.xtask([&young[..], &["--yes"]].concat()).ok().stderr_has("Pruned 1 snapshot, ");
    let session = env.xtask_on_pty(prune);
    session.wait_for_text("? Remove 1 snapshot? (y/N)");
    session.send("y\r");
    assert_eq!(session.wait_exit(), 0);
    assert_eq!(named(&env, "pull"), all[..2]);
    env.xtask(prune).ok().stderr_has("Nothing to prune (2 pulls, keep 1)\n");
}

#[test]
fn a_prune_says_what_is_free_then_and_a_list_what_is_shared() {
    let env = developer();
    // Only data.db differs, and the file of the other is shared.
    pulls(&env, 2);
    change(&env.production().join("data.db"));
    pull(&env);
    let session = env.xtask_on_pty(["snapshots"]);
    let screen = session.wait_for_text(" on disk (");
    assert_eq!(session.wait_exit(), 0);
    let lines: Vec<_> = screen.lines().map(str::trim_end).collect();
    assert!(lines[0].starts_with("   NAME  TAKEN"), "{screen}");
    assert!(lines[1].starts_with(" ● ") && lines[1].ends_with("  current"), "{screen}");
    let last = lines.last().expect("a line");
    assert!(
        last.starts_with(" 4 snapshots, ") && last.ends_with(" shared) · keeps 10 pulls"),
        "{screen}"
    );
    let blocks = |name: &str| {
        use std::os::unix::fs::MetadataExt as _;
        let dir = env.data().join(name);
        dir.join("data.db").metadata().expect("it is there").blocks() * 512
    };
    let oldest = &named(&env, "pull")[2..];
    let freed: u64 = oldest.iter().map(|name| blocks(name)).sum();
    let said = format!("Pruned 2 snapshots, {:.1} kB\n", freed as f64 / 1000.0);
    env.xtask(["snapshots", "prune", "--keep", "1", "--yes"]).ok().stderr_has(&said);
    let whole = env.xtask_on_pty(["snapshots", "-v"]);
    whole.wait_for_text(&named(&env, "pull")[0]);
    assert_eq!(whole.wait_exit(), 0);
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
    let prune = || env.xtask(["snapshots", "prune", "--keep", "1", "--yes"]).ok();
    prune().stderr_has("Nothing to prune (");
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
    env.xtask(["snapshots", "prune", "--keep", "1", "--yes"]).ok();
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
    env.xtask(["snapshots", "prune", "--yes"])
        .ok()
        .stderr_has(&kept)
        .stderr_has("Nothing to prune (");
    assert_eq!(named(&env, "before-pull").len(), 2);
    env.xtask(["restore-db", "--name", &holder, "--only", "mine.db", "--yes"]).ok();
    databases::assert_whole(&mine);
    env.xtask(["snapshots", "prune", "--yes"]).ok().stderr_lacks(&kept);
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
        "    Previous data: backup_<TIME>\n     \
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
    // The current data is what was saved, and what the command has made of it.
    let current: Vec<_> =
        snapshots(&env).into_iter().filter(|it| it["last_put_in_place"] == true).collect();
    assert_eq!(current.len(), 1);
    assert_eq!(
        (&current[0]["kind"], &current[0]["undo"]),
        (&"before-restore".into(), &true.into())
    );
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
    let screen = session.wait_for_text("by hand");
    assert_eq!(screen.matches("by hand").count(), 1, "{screen}");
    session.send("\u{1b}");
    session.wait_exit();
}
