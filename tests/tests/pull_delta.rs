//! `cargo xtask pull-db`, again: which databases come as what differs from an earlier
//! pull, and from which.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::time::Instant;

use tests::databases::{self, STRANGE_NAMES};
use tests::delta::{Report, Scene, files_below};
use tests::faults::say;
use tests::long::depth;
use tests::output::Output;
use tests::pull::{NAMES, assert_tidy, production, pull};
use tests::store;

#[test]
fn what_only_moved_counters_is_unchanged() {
    let scene = Scene::new();
    scene.create(&["data.db"], 100);
    scene.pull(&[]);
    for (sql, changed) in [
        ("SELECT count(*) FROM items", 0..=0),
        ("PRAGMA wal_checkpoint(TRUNCATE)", 0..=0),
        ("BEGIN; UPDATE items SET value = 0; ROLLBACK", 0..=0),
        ("UPDATE items SET value = value WHERE id = 1", 0..=0),
        // SQLite counts each of these in the header.
        ("PRAGMA journal_mode = delete; PRAGMA journal_mode = wal", 0..=1),
        ("PRAGMA user_version = 7; PRAGMA user_version = 0", 0..=1),
        // What a pull of it all would see as well.
        ("PRAGMA journal_mode = delete", 1..=1),
        ("UPDATE items SET data = 'y' WHERE id = 50", 1..=2),
    ] {
        scene.execute("data.db", sql);
        let found = scene.pull(&[]).changed("data.db");
        assert!(found.is_some_and(|pages| changed.contains(&pages)), "{sql}: {found:?}");
    }
}

#[test]
fn of_a_large_database_no_more_comes_than_what_differs() {
    let scene = Scene::new();
    scene.create(&["data.db", "tenant_iris.db"], 7000);
    scene.pull(&[]);
    for id in [50, 3000, 7000] {
        let change = format!("UPDATE items SET data = randomblob(1000) WHERE id = {id}");
        scene.execute("tenant_iris.db", &change);
    }
    let report = scene.pull(&[]);
    assert_eq!(report.changed("data.db"), Some(0));
    let changed = report.changed("tenant_iris.db");
    assert!(changed.is_some_and(|pages| (3..=12).contains(&pages)), "{changed:?}");
    assert!(report.wire_bytes() < 20_000, "{} bytes", report.wire_bytes());
    report.output.stderr_has("    Updating tenant_iris.db (").stderr_lacks("Receiving");
}

#[test]
fn a_large_database_of_which_most_differs_comes_whole() {
    let scene = Scene::new();
    scene.create(&["data.db"], 17_000);
    scene.pull(&[]);
    for (which, is_whole) in [("id % 10 = 0", false), ("id > 0", true)] {
        let change = format!("UPDATE items SET data = randomblob(1000) WHERE {which}");
        scene.execute("data.db", &change);
        let changed = scene.pull(&[]).changed("data.db");
        assert_eq!(changed.is_none(), is_whole, "{which}: {changed:?}");
    }
}

#[test]
fn a_database_is_compared_with_the_last_one_of_its_name() {
    let scene = Scene::new();
    scene.create(&NAMES, 100);
    let [data, iris, _] = NAMES.map(|name| scene.path(name));
    let changed = || scene.pull(&[]).all_changed(&NAMES);
    assert_eq!(changed(), [None; 3]);
    assert_eq!(changed(), [Some(0); 3]);

    // Each is replaced by another.
    fs::rename(&data, scene.env.path("away")).expect("rename");
    fs::rename(&iris, &data).expect("rename");
    fs::rename(scene.env.path("away"), &iris).expect("rename");
    let swapped = changed();
    assert!(swapped[..2].iter().all(|pages| *pages > Some(20)), "{swapped:?}");
    assert_eq!(swapped[2], Some(0));

    // Nothing, of which SQLite's backup makes one page, another page, and what it was.
    fs::rename(&data, scene.env.path("away")).expect("rename");
    fs::write(&data, "").expect("write");
    assert_eq!(changed(), [Some(1), Some(0), Some(0)]);
    databases::execute(&data, "PRAGMA user_version = 3");
    assert_eq!(fs::metadata(&data).expect("it is there").len(), 4096);
    assert_eq!(changed(), [Some(1), Some(0), Some(0)]);
    fs::rename(scene.env.path("away"), &data).expect("rename");
    assert!(changed()[0] > Some(20));

    // Gone, and there again; another page size.
    fs::rename(&iris, scene.env.path("away")).expect("rename");
    assert_eq!(scene.pull(&[]).all_changed(&[NAMES[0], NAMES[2]]), [Some(0); 2]);
    fs::rename(scene.env.path("away"), &iris).expect("rename");
    scene.create(&["new.db"], 1);
    scene.execute(NAMES[2], "PRAGMA journal_mode = delete; PRAGMA page_size = 8192; VACUUM");
    let report = scene.pull(&[]);
    assert_eq!(report.all_changed(&NAMES), [Some(0), Some(0), None]);
    assert_eq!(report.changed("new.db"), None);
    assert_eq!(changed(), [Some(0); 3]);
}

#[test]
fn a_base_is_of_the_same_source_and_has_the_same_rules() {
    let scene = Scene::new();
    let name = "data.db";
    scene.create(&[name], 100);
    databases::create_secrets(&scene.path(name), 5, "hunter2");
    let changed = |args: &[&str]| {
        let report = scene.report(args);
        (report.changed(name), report)
    };
    let rule = |set: &str| {
        scene.env.db_toml(&format!("[[sanitize]]\ntable = 'export_settings'\nset = {{ {set} }}\n"));
    };
    assert_eq!(changed(&[]).0, None);
    rule("private_key = 'NULL'");
    assert_eq!(changed(&[]).0, None, "the base has secrets");
    assert_eq!(changed(&[]).0, Some(0));
    assert_eq!(changed(&["--no-sanitize"]).0, Some(0), "from before the rule");
    rule("private_key = 'NULL', sheet_id = 'NULL'");
    let (found, first) = changed(&[]);
    assert_eq!(found, None, "the rule is another");
    let (found, second) = changed(&[]);
    assert_eq!(found, Some(0));

    // From elsewhere, though the databases are the same.
    let elsewhere = scene.env.path("elsewhere");
    fs::create_dir(&elsewhere).expect("make a directory");
    fs::copy(scene.path(name), elsewhere.join(name)).expect("copy");
    let via = format!("local:{}", elsewhere.display());
    let mut xtask = scene.env.xtask_command(["pull-db", "--json", "--via", &via]);
    let output = tests::process::Running::start(xtask.env("TMPDIR", scene.env.path("tmp"))).wait();
    assert_eq!(Report::of(output.ok()).changed(name), None);

    // What an older tool has left, or somebody made, has no record.
    for snapshot in [first, second] {
        let directory = scene.env.data().join(snapshot.text("snapshot"));
        fs::remove_file(directory.join("snapshot.json")).expect("remove");
    }
    assert_eq!(changed(&[]).0, None);
}

#[test]
fn each_database_has_a_base_of_its_own() {
    let scene = Scene::new();
    scene.create(&NAMES, 200);
    scene.pull(&[]);
    for name in NAMES {
        scene.execute(name, "UPDATE items SET data = randomblob(1000) WHERE id % 10 = 0");
    }
    assert!(scene.pull(&["--only", "data*"]).changed("data.db") > Some(10));
    assert!(scene.pull(&["--only", "*iris*"]).changed("tenant_iris.db") > Some(10));
    let report = scene.pull(&[]);
    assert_eq!(report.all_changed(&NAMES[..2]), [Some(0); 2]);
    assert!(report.changed("tenant_juno.db") > Some(10));
    scene.env.xtask(["restore-db", "--yes", "--undo"]).ok();
    assert_eq!(scene.pull(&[]).all_changed(&NAMES), [Some(0); 3], "whatever is live");
}

#[test]
fn strange_file_names_have_bases_too() {
    for scene in [Scene::new(), Scene::busybox()] {
        scene.create(&STRANGE_NAMES, 20);
        scene.pull(&[]);
        scene.add(STRANGE_NAMES[5], 20);
        for (name, changed) in STRANGE_NAMES.iter().zip(scene.pull(&[]).all_changed(&STRANGE_NAMES))
        {
            assert_eq!(changed > Some(0), *name == STRANGE_NAMES[5], "{name}: {changed:?}");
            assert!(changed.is_some(), "{name}");
        }
    }
}

#[test]
fn of_many_databases_those_that_changed_come() {
    let scene = Scene::new();
    let count = depth(18, 120);
    let names: Vec<_> = (0..count).map(|i| format!("tenant_{i:03}.db")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    scene.create(&names, 20);
    let begun = Instant::now();
    let whole = scene.report(&[]);
    let full = begun.elapsed();
    let those = [0, 7, 15, count - 1];
    for i in those {
        scene.add(names[i], 1);
    }
    let begun = Instant::now();
    let delta = scene.report(&[]);
    let again = begun.elapsed();
    for (i, name) in names.iter().enumerate() {
        let changed = delta.changed(name);
        assert_eq!(changed > Some(0), those.contains(&i), "{name}: {changed:?}");
        assert!(changed.is_some(), "{name}");
    }
    for i in [0, 1, count - 1] {
        databases::assert_same(&scene.env.data().join(names[i]), &scene.path(names[i]));
    }
    let (all, some) = (whole.wire_bytes(), delta.wire_bytes());
    say(&format!(
        "{count} databases: {full:.1?} for {all} bytes, then {again:.1?} for {some} bytes"
    ));
    assert!(some < all / depth(5, 50), "{some} of {all} bytes");
}

/// Everything in a data directory, by content.
fn everything(scene: &Scene) -> BTreeMap<String, String> {
    files_below(&scene.env.data())
}

#[test]
fn a_dry_run_tells_what_a_pull_brings_and_changes_nothing() {
    for scene in depth(&[Scene::busybox as fn() -> Scene][..], &[Scene::busybox, Scene::new]) {
        let scene = scene();
        scene.create(&NAMES, 300);
        scene.env.db_toml(
            "[[sanitize]]\ntable = 'items'\ndatabase = 'data.db'\nset = { key = 'NULL' }\n",
        );
        // Nothing is here yet, not even the directory.
        let planned = scene.report(&["--dry-run"]);
        assert_eq!(planned.all_changed(&NAMES), [None; 3]);
        assert!(!scene.env.data().exists());
        let compare = |planned: &Report, args: &[&str]| {
            let pulled = scene.report(args);
            assert_eq!(planned.all_changed(&NAMES), pulled.all_changed(&NAMES));
            let (said, came) = (planned.wire_bytes(), pulled.wire_bytes());
            assert!(said.abs_diff(came) < came / 20 + 500, "{said} bytes for {came}");
            for key in ["bytes", "changed_bytes"] {
                let of = |report: &Report| -> Vec<_> {
                    report.databases().iter().map(|database| database[key].clone()).collect()
                };
                assert_eq!(of(planned), of(&pulled), "{key}");
            }
        };
        compare(&planned, &[]);

        scene.add(NAMES[1], 100);
        let before = everything(&scene);
        let lock = File::options().write(true).open(scene.env.data().join(".xtask/lock"));
        let lock = lock.expect("there is a lock");
        lock.lock().expect("nobody has it");
        let planned = scene.report(&["--dry-run", "--no-wait"]);
        drop(lock);
        assert!(planned.changed(NAMES[1]) > Some(20), "{}", planned.output);
        assert!(everything(&scene) == before, "something changed");
        let full = scene.report(&["--dry-run", "--full"]);
        assert_eq!(full.all_changed(&NAMES), [None; 3]);
        assert!(full.wire_bytes() > 2 * planned.wire_bytes());
        compare(&planned, &[]);
        compare(&full, &["--full"]);
    }
}

#[test]
fn a_dry_run_through_fly_says_so_and_fails_as_a_pull_does() {
    let (env, sshd) = production();
    pull(&env, &[]);
    databases::execute(
        &env.production().join("data.db"),
        "UPDATE items SET data = 'y' WHERE id = 1",
    );
    let before = files_below(&env.data());
    let run = |args: &[&str]| -> Output {
        let output = env.xtask([&["pull-db", "--dry-run"], args].concat());
        assert_tidy(&env);
        assert!(files_below(&env.data()) == before, "something changed\n{output}");
        output
    };
    run(&[])
        .ok()
        .stdout_is("")
        .stderr_has(
            "  Would pull 3 databases from upflow on Fly.io, machine 48ed667c733018 in nrt\n",
        )
        .stderr_has(" in 1 changed page\n")
        .stderr_has("  unchanged\n")
        .stderr_has("; nothing was changed\n");
    assert_eq!(sshd.connections(), 2);
    run(&["--sftp"]).fails(2).stderr_has("cannot be used with");
    run(&["--only", "none*"]).fails(1).stdout_is("").stderr_has("matches none of: ");
    run(&["--remote-dir", "/nowhere/at/all"]).fails(1).stdout_is("").stderr_has("no directory");
    env.edit_world(|world| world.faults.cut_stdout_after_bytes = Some(300));
    run(&["--json"]).fails(1).stdout_is("").stderr_has("nothing was changed");
    assert_eq!(store::kinds(&env.data()), ["pull"]);
}
