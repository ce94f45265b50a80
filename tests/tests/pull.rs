//! `cargo xtask pull-db`, as it goes on a good day.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tests::databases;
use tests::env::TestEnv;
use tests::process::{Running, command};
use tests::pull::{NAMES, live, production, pull, recorded, snapshot};
use tests::server::{Environment, Sshd};
use tests::store;
use tests::world::Container;

fn sha256(path: &Path) -> String {
    let output = command("sha256sum").arg(path).output().expect("sha256sum runs");
    String::from_utf8_lossy(&output.stdout)[..64].to_owned()
}

/// The one invocation so far, without the remote command at its end.
#[track_caller]
fn the_flags(env: &TestEnv) -> Vec<String> {
    let mut all = env.fly_invocations();
    assert_eq!(all.len(), 1, "{all:?}");
    let mut flags = all.remove(0);
    let remote = flags.pop().expect("a remote command");
    assert!(remote.starts_with("sh -c '"), "{remote}");
    assert_eq!(flags.pop().as_deref(), Some("--command"));
    flags
}

fn forget_invocations(env: &TestEnv) {
    fs::remove_file(env.path("fly.log")).expect("fly was run");
}

#[test]
fn a_whole_set_arrives_over_one_connection_and_is_recorded() {
    let (env, sshd) = production();
    databases::execute(&env.production().join(NAMES[1]), "PRAGMA user_version = 42");
    env.git(&["commit", "--quiet", "--allow-empty", "--message", "first"]);
    let production = || {
        let mut files = store::fingerprint(&env.production());
        // A reader of a closed database in WAL mode leaves an empty -wal.
        files.retain(|name, _| name.ends_with(".db"));
        files
    };
    let before = production();
    pull(&env, &[]);

    assert_eq!(the_flags(&env), ["ssh", "console", "--app", "upflow"]);
    assert_eq!(sshd.connections(), 1);
    assert_eq!(production(), before, "production is only read");
    let snapshot = snapshot(&env);
    for name in NAMES {
        databases::assert_same(&env.production().join(name), &env.data().join(name));
        databases::assert_same(&env.production().join(name), &snapshot.path.join(name));
    }
    assert_eq!(live(&env), NAMES);
    let mut files = NAMES.to_vec();
    files.extend(["CACHEDIR.TAG", "snapshot.json"]);
    files.sort_unstable();
    assert_eq!(databases::files(&snapshot.path), files);

    let json = &snapshot.json;
    assert_eq!((&json["version"], snapshot.kind()), (&1.into(), "pull"));
    let head = env.git(&["rev-parse", "HEAD"]).stdout();
    assert_eq!(json["git_commit"], head.trim());
    let origin = &json["origin"];
    assert_eq!(origin["app"], "upflow");
    assert_eq!(origin["machine"], "48ed667c733018");
    assert_eq!(origin["region"], "nrt");
    assert_eq!(origin["sanitize_rules"], Value::Null, "there are no rules");
    assert!(origin["seconds"].as_f64() > Some(0.0), "{origin}");
    let bytes: u64 = json["databases"]
        .as_array()
        .map_or(0, |all| all.iter().filter_map(|database| database["bytes"].as_u64()).sum());
    let wire = origin["wire_bytes"].as_u64().expect("a number");
    assert!(wire > 1000 && wire < bytes, "{wire} on the wire for {bytes}");
    assert_eq!(snapshot.databases(), NAMES);
    for (database, name) in json["databases"].as_array().expect("an array").iter().zip(NAMES) {
        let path = snapshot.path.join(name);
        assert_eq!(database["bytes"], fs::metadata(&path).expect("it is there").len());
        assert_eq!(database["sha256"], sha256(&path));
        assert_eq!(database["page_size"], 4096);
        assert_eq!(database["user_version"], if name == NAMES[1] { 42 } else { 0 });
        assert_eq!(database["schema"].as_str().map(str::len), Some(64));
    }
}

#[test]
fn nobody_else_may_read_what_was_pulled() {
    let (env, _sshd) = production();
    databases::create_secrets(&env.production().join(NAMES[0]), 1, "hunter2");
    let mut xtask = env.command("sh");
    xtask.args(["-c", "umask 000; exec \"$@\"", "sh"]);
    let plain = env.xtask_command(["pull-db"]);
    xtask.arg(plain.get_program()).args(plain.get_args());
    Running::start(&mut xtask).wait().ok();
    pull(&env, &[]);
    let modes = store::modes(&env.data());
    assert!(modes.len() > 10, "{modes:?}");
    for (path, mode) in modes {
        let wanted = if path.is_dir() { 0o700 } else { 0o600 };
        // The lock tells which process holds it, and nothing more.
        if !path.ends_with("lock") {
            assert_eq!(mode, wanted, "{} has {mode:o}", path.display());
        }
    }
}

#[test]
fn the_talk_of_fly_does_no_harm_and_the_machine_that_answered_is_named() {
    let (env, _sshd) = production();
    env.db_toml("any-machine = true");
    env.add_machine(|machine| "other".clone_into(&mut machine.id));
    env.edit_world(|world| {
        let machine = &mut world.apps.get_mut("upflow").expect("the app exists")[0];
        let port = machine.port;
        machine.containers = (["web", "sidecar"].iter())
            .map(|name| Container { name: (*name).to_owned(), port })
            .collect();
    });
    pull(&env, &["-v"])
        .stderr_has("No machine specified, using 48ed667c733018 in region nrt\n")
        .stderr_has("No container specified, using web\n")
        .stderr_has("from upflow on Fly.io, machine 48ed667c733018 in nrt\n");
    assert_eq!(recorded(&env, "/origin/machine"), "48ed667c733018");
    assert_eq!(recorded(&env, "/origin/region"), "nrt");
}

#[test]
fn a_machine_without_a_name_is_known_from_what_fly_says() {
    let env = TestEnv::new();
    let _sshd = env.start_server(&Environment::default().set("TMPDIR", env.path("tmp")));
    databases::create(&env.production().join("data.db"), 10, 1);
    env.db_toml("any-machine = true");
    env.add_machine(|machine| "other".clone_into(&mut machine.id));
    pull(&env, &[]).stderr_has(", machine 48ed667c733018 in nrt\n");
    assert_eq!(recorded(&env, "/origin/machine"), "48ed667c733018");
}

#[test]
fn the_flags_that_choose_a_machine_are_passed_on() {
    let (env, _sshd) = production();
    let other =
        Sshd::start(&Environment::fly("upflow", "e286", "fra").set("TMPDIR", env.path("tmp")));
    let port = other.port();
    env.edit_world(|world| world.ssh_key = other.key());
    env.add_machine(|machine| {
        "e286".clone_into(&mut machine.id);
        "fra".clone_into(&mut machine.region);
        "worker".clone_into(&mut machine.process_group);
        machine.containers =
            ["web", "db"].map(|name| Container { name: name.to_owned(), port }).to_vec();
    });
    let flags = ["--machine", "e286", "--region", "fra", "--process-group", "worker"];
    let flags = [&flags[..], &["--container", "db"]].concat();
    pull(&env, &flags).stderr_has(", machine e286 in fra\n");
    assert_eq!(the_flags(&env), [&["ssh", "console", "--app", "upflow"], &flags[..]].concat());
    assert_eq!(recorded(&env, "/origin/machine"), "e286");
}

#[test]
fn the_app_is_the_flag_then_the_environment_then_db_toml_then_fly_toml() {
    let (env, _sshd) = production();
    env.edit_world(|world| {
        let machines = world.apps["upflow"].clone();
        world.apps.extend(
            ["by-flag", "by-variable", "by-db-toml"].map(|app| (app.to_owned(), machines.clone())),
        );
    });
    let app = |args: &[&str], variable: Option<&str>| {
        let mut xtask = env.xtask_command([&["pull-db"], args].concat());
        xtask.envs(variable.map(|app| ("FLY_APP", app)));
        Running::start(&mut xtask).wait().ok();
        let flags = the_flags(&env);
        forget_invocations(&env);
        assert_eq!(recorded(&env, "/origin/app"), flags[3]);
        flags[3].clone()
    };
    assert_eq!(app(&[], None), "upflow");
    env.db_toml("app = 'by-db-toml'\n");
    assert_eq!(app(&[], None), "by-db-toml");
    assert_eq!(app(&[], Some("")), "by-db-toml");
    assert_eq!(app(&[], Some("by-variable")), "by-variable");
    assert_eq!(app(&["--app", "by-flag"], Some("by-variable")), "by-flag");
}

#[test]
fn the_directory_is_the_flag_then_db_toml_then_the_mount_in_fly_toml() {
    let (env, _sshd) = production();
    for (name, rows) in [("by-db-toml", 11), ("by flag's", 12)] {
        fs::create_dir(env.path(name)).expect("make a directory");
        databases::create(&env.path(name).join("data.db"), rows, 9);
    }
    let rows = |args: &[&str]| {
        pull(&env, args);
        databases::count(&env.data().join("data.db"), "items")
    };
    assert_eq!(rows(&[]), 400);
    env.db_toml(&format!("remote-dir = '{}'\n", env.path("by-db-toml").display()));
    assert_eq!(rows(&[]), 11);
    assert_eq!(rows(&["--remote-dir", &env.path("by flag's").display().to_string()]), 12);
}

#[test]
fn what_was_live_is_saved_once_and_not_at_all_with_no_backup() {
    let (env, _sshd) = production();
    databases::create(&env.make_data().join("data.db"), 7, 7);
    databases::create(&env.data().join("gone.db"), 5, 8);
    store::brings(&env.data(), "gone.db");
    let mine = databases::content(&env.data().join("data.db"));

    let said = pull(&env, &[]).stderr_has("Saved the previous data as backup_");
    said.stderr_has("Removed gone.db, which the snapshot does not have\n")
        .stderr_has("hint: cargo xtask restore-db --undo");
    assert_eq!(store::kinds(&env.data()), ["pull", "before-pull"]);
    assert_eq!(live(&env), NAMES, "production has no gone.db");
    let saved = &store::snapshots(&env.data())[1];
    assert_eq!(saved.databases(), ["data.db", "gone.db"]);
    assert_eq!(databases::content(&saved.path.join("data.db")), mine);
    assert_eq!(databases::count(&saved.path.join("gone.db"), "items"), 5);

    pull(&env, &[]).stderr_lacks("Saved").stderr_has("Already up to date (backup_");
    assert_eq!(store::kinds(&env.data()), ["pull", "before-pull", "pull"], "no second copy");

    databases::execute(&env.data().join("data.db"), "DELETE FROM items");
    databases::create(&env.data().join("new.db"), 3, 3);
    pull(&env, &["--no-backup"]).stderr_lacks("Saved").stderr_lacks("--undo");
    assert_eq!(store::kinds(&env.data()), ["pull", "before-pull", "pull", "pull"]);
    assert_eq!(databases::count(&env.data().join("data.db"), "items"), 400);
    assert!(env.data().join("new.db").exists(), "what is saved nowhere is not removed");
}

#[test]
fn excluded_databases_stay_as_they_are_on_both_sides() {
    let (env, _sshd) = production();
    env.db_toml("include = ['*.db', '*.sqlite']\nexclude = ['durably.db', 'tmp_?.db']\n");
    databases::create(&env.production().join("durably.db"), 100, 1);
    databases::create(&env.production().join("tmp_1.db"), 100, 1);
    databases::create(&env.production().join("more.sqlite"), 20, 1);
    databases::create(&env.production().join("other.sqlite3"), 20, 1);
    databases::create(&env.make_data().join("durably.db"), 3, 2);
    let mine = fs::read(env.data().join("durably.db")).expect("it was made");
    pull(&env, &[]);
    let mut names = NAMES.to_vec();
    names.insert(1, "more.sqlite");
    assert_eq!(snapshot(&env).databases(), names);
    names.insert(1, "durably.db");
    assert_eq!(live(&env), names);
    assert_eq!(fs::read(env.data().join("durably.db")).expect("it stays"), mine);
}

#[test]
fn with_only_the_other_databases_stay_live() {
    let (env, _sshd) = production();
    pull(&env, &[]);
    databases::execute(&env.data().join("data.db"), "DELETE FROM items");
    databases::execute(&env.data().join("tenant_iris.db"), "DELETE FROM items");
    databases::create(&env.data().join("mine.db"), 4, 4);
    pull(&env, &["--only", "tenant_[hi]*.db"]);
    assert_eq!(snapshot(&env).kind(), "before-pull");
    let pulled = &store::snapshots(&env.data())[1];
    assert_eq!(
        (pulled.databases(), &pulled.json["only"]),
        (vec![NAMES[1]], &"tenant_[hi]*.db".into())
    );
    let rows = |name: &str| databases::count(&env.data().join(name), "items");
    assert_eq!(
        ["data.db", "tenant_iris.db", "tenant_juno.db", "mine.db"].map(rows),
        [0, 400, 400, 4]
    );
}

#[test]
fn keep_is_how_many_pulled_snapshots_stay() {
    let (env, _sshd) = production();
    env.db_toml("keep = 2\n");
    let mut names = Vec::new();
    for round in 0..4 {
        let output = pull(&env, &["--no-backup"]);
        if round > 1 {
            output.stderr_has("Pruned 1 snapshot, ");
        }
        names.push(snapshot(&env).name);
    }
    let kept: Vec<String> = store::snapshots(&env.data()).into_iter().map(|s| s.name).collect();
    assert_eq!(kept, names[2..]);
}
