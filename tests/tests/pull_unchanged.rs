//! `cargo xtask pull-db`, again: a database whose files are in the state in which they were
//! pulled is neither copied nor sent, and everything that could pretend that is noticed.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tests::databases;
use tests::delta::{Report, Scene};
use tests::long::depth;
use tests::process::command;
use tests::pull::{NAMES, assert_live_equals_production};
use tests::shells;

/// The script takes a file for settled that has not been written for longer than two seconds.
const SETTLED: Duration = Duration::from_millis(3100);

/// Waits until no file of production has been written or changed recently.
fn settle(scene: &Scene) {
    let is_recent = |path: PathBuf| {
        let metadata = fs::metadata(path).expect("it is there");
        let changed = Duration::new(metadata.ctime() as u64, metadata.ctime_nsec() as u32);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        now < changed + SETTLED
    };
    let files = || fs::read_dir(scene.env.production()).expect("a directory");
    while files().any(|entry| is_recent(entry.expect("an entry").path())) {
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn settled() -> Scene {
    let mut scene = Scene::new();
    scene.fresh = false;
    scene
}

/// A scene whose databases a first pull has brought, settled.
fn pulled(names: &[&str]) -> Scene {
    let scene = settled();
    scene.create(names, 300);
    settle(&scene);
    scene.pull(&[]);
    scene
}

fn is_copied(report: &Report) -> bool {
    report.output.stderr.contains("     Copying ")
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).expect("it is there").ino()
}

fn newest(scene: &Scene, name: &str) -> PathBuf {
    let live = tests::pull::snapshot(&scene.env);
    live.path.join(name)
}

#[test]
fn what_has_not_changed_is_not_copied_and_takes_no_room_here() {
    let scene = pulled(&NAMES);
    let (first, live) = (inode(&newest(&scene, NAMES[0])), inode(&scene.env.data().join(NAMES[0])));
    let report = scene.pull(&[]);
    assert!(!is_copied(&report), "{}", report.output);
    assert_eq!(report.all_changed(&NAMES), [Some(0); 3]);
    assert!(report.wire_bytes() < 2000, "{} bytes", report.wire_bytes());
    assert_eq!(inode(&newest(&scene, NAMES[0])), first);
    assert_eq!(inode(&scene.env.data().join(NAMES[0])), live, "the live one is not touched");
    assert_ne!(live, first, "an app writes to the live one");

    // Of three, one has.
    scene.execute(NAMES[1], "UPDATE items SET value = value + 1");
    let report = scene.pull(&[]);
    report.output.stderr_has("     Copying 1 database on the server (");
    assert_eq!(inode(&newest(&scene, NAMES[0])), first);
    assert_live_equals_production(&scene.env, &NAMES);

    // A time in the future is not settled: another write could leave the same.
    set_time(&scene.path(NAMES[1]), SystemTime::now() + Duration::from_secs(3600));
    report_copies(&scene, 1);
    let second = inode(&newest(&scene, NAMES[1]));
    report_copies(&scene, 1);
    assert_eq!(inode(&newest(&scene, NAMES[1])), second, "its content takes no room twice");
    set_time(&scene.path(NAMES[1]), SystemTime::now());
    settle(&scene);
    report_copies(&scene, 1);
    report_copies(&scene, 0);
    let report = scene.pull(&["--full"]);
    assert!(is_copied(&report));
    assert_eq!(report.all_changed(&NAMES), [None; 3]);
}

fn set_time(path: &Path, time: SystemTime) {
    let file = fs::File::options().write(true).open(path).expect("open");
    file.set_modified(time).expect("set a time");
}

fn report_copies(scene: &Scene, count: usize) {
    let report = scene.pull(&[]);
    let copies = format!("     Copying {count} database");
    assert_eq!(report.output.stderr.contains(&copies), count > 0, "{count}: {}", report.output);
    assert_eq!(is_copied(&report), count > 0, "{count}: {}", report.output);
}

#[test]
fn whatever_pretends_to_be_unchanged_is_noticed() {
    let name = "data.db";
    type Forgery = (&'static str, fn(&Scene, &Path));
    let forgeries: [Forgery; 7] = [
        ("its time is set back", |scene, path| {
            let before = fs::metadata(path).expect("it is there").modified().expect("a time");
            scene.execute(
                "data.db",
                "UPDATE items SET value = value + 1; PRAGMA wal_checkpoint(TRUNCATE)",
            );
            set_time(path, before);
        }),
        ("it is restored from a backup with its times", |scene, path| {
            let backup = scene.env.path("backup");
            copy_with_times(path, &backup);
            databases::execute(&backup, "UPDATE items SET value = value + 2");
            copy_with_times(path, &scene.env.path("times"));
            fs::copy(&backup, path).expect("copy");
            let times = fs::metadata(scene.env.path("times")).expect("it is there");
            set_time(path, times.modified().expect("a time"));
        }),
        ("another file takes its name", |scene, path| {
            let other = scene.env.path("other");
            copy_with_times(path, &other);
            databases::execute(&other, "UPDATE items SET value = value + 3");
            let times = fs::metadata(path).expect("it is there").modified().expect("a time");
            set_time(&other, times);
            fs::rename(&other, path).expect("rename");
        }),
        ("VACUUM", |scene, _| {
            scene.execute("data.db", "DELETE FROM items WHERE id % 3 = 0; VACUUM");
        }),
        ("bytes are written behind SQLite's back", |_, path| {
            let sql =
                "PRAGMA writable_schema = ON; UPDATE items SET value = value + 4 WHERE id = 7";
            databases::execute(path, sql);
        }),
        ("a commit stays in the -wal", |scene, path| {
            let app = rusqlite::Connection::open(path).expect("open");
            app.execute_batch("UPDATE items SET value = value + 5").expect("update");
            // It ends without a checkpoint.
            let _ = scene;
            std::mem::forget(app);
        }),
        ("it leads to another file", |scene, path| {
            let other = scene.env.path("elsewhere.db");
            copy_with_times(path, &other);
            databases::execute(&other, "UPDATE items SET value = value + 6");
            fs::remove_file(path).expect("remove");
            for end in ["-wal", "-shm"] {
                let _ = fs::remove_file(format!("{}{end}", path.display()));
            }
            std::os::unix::fs::symlink(&other, path).expect("link");
        }),
    ];
    for (what, forge) in forgeries {
        let scene = pulled(&[name]);
        let before = databases::content(&scene.env.data().join(name));
        forge(&scene, &scene.path(name));
        settle(&scene);
        let report = scene.pull(&[]);
        assert!(is_copied(&report), "{what}: {}", report.output);
        assert!(databases::content(&scene.env.data().join(name)) != before, "{what}");
        assert_live_equals_production(&scene.env, &[name]);
    }
}

fn copy_with_times(from: &Path, to: &Path) {
    let status = command("cp").arg("-p").args([from, to]).status().expect("cp runs");
    assert!(status.success());
}

#[test]
fn where_the_clock_of_the_server_is_behind_nothing_is_taken_for_unchanged() {
    let scene = pulled(&["data.db"]);
    let date = shells::find("date");
    let body =
        format!("case $* in +%s) echo 1000000000 ;; *) exec {} \"$@\" ;; esac", date.display());
    shells::script(&scene.env.path("bin"), "date", &body);
    assert!(is_copied(&scene.pull(&[])));
    fs::remove_file(scene.env.path("bin/date")).expect("it was there");
    assert!(is_copied(&scene.pull(&[])), "that pull recorded no state");
    assert!(!is_copied(&scene.pull(&[])));
}

#[test]
fn a_file_system_that_may_not_set_times_is_not_believed() {
    let scene = pulled(&["data.db"]);
    let stat = shells::find("stat");
    let body = format!(
        "case \"$* \" in *' -f -c '*) echo 65735546 ;; *) exec {} \"$@\" ;; esac",
        stat.display()
    );
    shells::script(&scene.env.path("bin"), "stat", &body);
    assert!(is_copied(&scene.pull(&[])));
    assert!(is_copied(&scene.pull(&[])));
}

#[test]
fn other_rules_another_audit_or_the_time_of_day_void_it() {
    let name = "data.db";
    let scene = settled();
    scene.create(&[name], 300);
    databases::create_secrets(&scene.path(name), 5, "hunter2");
    settle(&scene);
    let rule = |value: &str| {
        format!("[[sanitize]]\ntable = 'export_settings'\nset = {{ private_key = \"{value}\" }}\n")
    };
    let twice = |settings: &str| {
        scene.env.db_toml(settings);
        [is_copied(&scene.report(&[])), is_copied(&scene.report(&[]))]
    };
    assert_eq!(twice(&rule("'x'")), [true, false]);
    assert_eq!(twice(&rule("'y'")), [true, false]);
    let allowed = rule("'y'") + "[audit]\nallow = [\"items.data\"]\n";
    assert_eq!(twice(&allowed), [true, false]);
    assert_eq!(twice(&rule("hex(randomblob(4))")), [true, false], "a random value stays");
    assert_eq!(twice(&rule("datetime('now')")), [true, true]);
    assert_eq!(twice(&rule("CURRENT_TIMESTAMP")), [true, true]);
}

#[test]
fn what_the_audit_found_is_said_again_and_rules_match_what_is_unchanged() {
    let scene = settled();
    scene.create(&NAMES, 10);
    databases::create_secrets(&scene.path(NAMES[0]), 5, "hunter2");
    let settings = "CREATE TABLE settings (name, value); INSERT INTO settings VALUES ('backup', 'ftp://a:hunter2@nas.example')";
    scene.execute(NAMES[0], settings);
    let rule = "[[sanitize]]\ntable = 'export_settings'\nset = { private_key = \"'x'\" }\n";
    scene.env.db_toml(rule);
    settle(&scene);
    let said = |report: &Report| {
        let lines = report.output.stderr.lines();
        lines.filter(|line| line.contains("settings.")).map(str::to_owned).collect()
    };
    let first: Vec<String> = said(&scene.report(&[]));
    assert!(first.iter().any(|line| line.contains("  settings.value ")), "{first:?}");
    // The rule matches nothing in the one that is copied.
    scene.execute(NAMES[1], "UPDATE items SET value = value + 1");
    let report = scene.report(&[]);
    assert_eq!(said(&report), first);
    report.output.stderr_has("     Copying 1 database").stderr_lacks("matches nothing");
    let report = scene.report(&[]);
    assert_eq!(said(&report), first);
    // The column that it is for goes, and so does the rule's match.
    scene.execute(NAMES[0], "ALTER TABLE export_settings RENAME COLUMN private_key TO private");
    scene.start(&[]).wait().fails(1).stderr_has("rule 1: none of the databases has a column");
}

#[test]
fn a_snapshot_that_was_written_to_is_no_base_of_what_is_unchanged() {
    let name = "data.db";
    let scene = pulled(&[name]);
    databases::execute(&newest(&scene, name), "UPDATE items SET value = 77");
    scene.pull(&[]);
    assert_live_equals_production(&scene.env, &[name]);
    assert_ne!(databases::query(&newest(&scene, name), "SELECT max(value) FROM items"), 77.into());
}

/// The database is closed when it is replaced, and an app opens the new one at once.
#[test]
fn what_an_app_writes_right_after_the_replacement_is_saved_by_the_next_pull() {
    let names = ["a.db", "b.db", "c.db", "d.db", "e.db", "f.db"];
    let scene = Scene::new();
    scene.create(&names, 10);
    scene.pull(&[]);
    for round in 0..depth(2, 20) {
        for name in names {
            scene.execute(name, "UPDATE items SET value = value + 1");
        }
        let live = scene.env.data().join(names[0]);
        let old = inode(&live);
        let app = std::thread::spawn(move || {
            while fs::metadata(&live).map_or(old, |live| live.ino()) == old {}
            databases::execute(&live, "INSERT INTO items (key) VALUES ('precious')");
        });
        scene.report(&[]);
        app.join().expect("it writes");
        for name in names {
            scene.execute(name, "UPDATE items SET value = value + 1");
        }
        scene.report(&[]);
        let count = "SELECT count(*) FROM items WHERE key = 'precious'";
        let saved = tests::store::snapshots(&scene.env.data());
        let has = |snapshot: &tests::store::Snapshot| {
            databases::query(&snapshot.path.join(names[0]), count) == 1.into()
        };
        assert_eq!(saved.iter().filter(|snapshot| has(snapshot)).count(), round + 1);
    }
}

/// The last one has not changed, so that its base is the last that was found.
#[test]
fn one_that_changes_while_others_are_copied_is_copied_too() {
    let names = ["a.db", "b.db", "c.db"];
    let scene = settled();
    scene.create(&names, 10);
    for name in names {
        scene.execute(name, "PRAGMA journal_mode = delete");
    }
    settle(&scene);
    scene.pull(&[]);
    scene.execute(names[0], "UPDATE items SET value = 5");
    settle(&scene);
    let app = rusqlite::Connection::open(scene.path(names[0])).expect("open");
    app.execute_batch("BEGIN EXCLUSIVE").expect("lock");
    let mut pull = scene.start(&[]);
    pull.wait_for_stderr("     Copying 1 database");
    scene.execute(names[1], "UPDATE items SET value = 7");
    app.execute_batch("ROLLBACK").expect("unlock");
    drop(app);
    let report = Report::of(pull.wait().ok());
    assert_eq!(report.changed(names[2]), Some(0));
    assert_live_equals_production(&scene.env, &names);
}

#[test]
fn pages_that_production_freed_without_writing_them_are_zeroed() {
    let scene = Scene::new();
    let name = "data.db";
    scene.create(&[name], 10);
    databases::create_secrets(&scene.path(name), 5, "hunter2");
    let rule = "[[sanitize]]\ntable = 'export_settings'\nset = { private_key = \"'x'\" }\n";
    scene.env.db_toml(rule);
    scene.execute(
        name,
        "CREATE TABLE notes AS WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 900)
         SELECT 'a private note ' || i || hex(randomblob(150)) AS body FROM n",
    );
    scene.report(&[]);
    scene.execute(name, "PRAGMA secure_delete = OFF; DELETE FROM notes");
    let delta = scene.report(&[]);
    let full = scene.report(&["--full", "--local-dir", "full"]);
    let bytes =
        |dir: PathBuf, report: &Report| fs::read(dir.join(report.text("snapshot")).join(name));
    let delta = bytes(scene.env.data(), &delta).expect("read");
    assert!(!delta.windows(14).any(|window| window == b"a private note"));
    assert!(delta == bytes(scene.env.repo().join("full"), &full).expect("read"));
}

/// Its new pages have the numbers that those of the next database's base had.
#[test]
fn what_grows_is_not_compared_with_the_base_of_the_next_database() {
    let scene = Scene::new();
    let mails = "CREATE TABLE mails AS WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 400)
                 SELECT printf('mail %d the-token-of-%d %.*c', i, i, 300, 'c') AS body FROM n;";
    let users = "CREATE TABLE users (id INTEGER PRIMARY KEY, token); INSERT INTO users VALUES (1, 'abcdefghijkl');";
    let filler = "CREATE TABLE filler AS SELECT hex(randomblob(28500)) AS data;";
    databases::execute(&scene.path("a.db"), &format!("{users} {filler}"));
    databases::execute(&scene.path("b.db"), &format!("{mails} {users}"));
    scene.env.db_toml("[[sanitize]]\ntable = 'users'\nset = { token = \"'t'\" }\n");
    scene.report(&[]);
    let leak =
        format!("CREATE TABLE other (a); {mails} INSERT INTO users VALUES (2, 'the-token-of-200')");
    databases::execute(&scene.path("a.db"), &leak);
    let said = scene.start(&[]).wait().fails(1);
    said.stderr_has("in a.db, a rule removes values of users.token, which are still in mails.body");
}

#[test]
fn a_plan_says_which_databases_its_rules_were_not_tried_on() {
    let scene = settled();
    scene.create(&["a.db", "b.db"], 300);
    scene.env.db_toml("[[sanitize]]\ntable = 'items'\nset.data = 'NULL'\n");
    settle(&scene);
    scene.report(&[]);
    databases::execute(&scene.path("b.db"), "UPDATE items SET value = 1");
    let untold = "             without 1 database unchanged since the last pull (--full)\n";
    let via = scene.env.xtask([
        "pull-db",
        "--dry-run",
        "--via",
        &format!("local:{}", scene.env.production().display()),
    ]);
    via.ok().stderr_has(untold).stderr_has("items.data  400 rows: blobs → NULL\n");
}
