//! Whatever a file system has after a power cut, nothing is lost, and the next command leaves nothing
//! of what was cut.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tests::databases;
use tests::developer::at_work;
use tests::env::TestEnv;
use tests::faults::{can_trace, say};
use tests::fixtures;
use tests::long::{long, spread};
use tests::power::{Recording, record};
use tests::proof::Scene;
use tests::scenes::{self, RESTORE, UNDO};
use tests::sets::{assert_same, change, content, developer, named, pull};

#[test]
fn a_restore_has_happened_or_has_not() {
    if can_trace() {
        scenes::restore().prove_power_cuts();
    }
}

/// The syncs of a restore that nothing needs, by their paths, how many of them, and why they stay.
const RESTORES: [(&str, usize, &str); 6] = [
    (
        "",
        3,
        "SQLite's, of two new -wal files; and the name of the saved snapshot: what follows syncs it too",
    ),
    (
        ".xtask",
        2,
        "the journal must not come back over what is created after; and a record's, with its content",
    ),
    ("data.db", 1, "SQLite's"),
    ("data.db-wal", 1, "SQLite's"),
    ("tenant_iris.db", 1, "SQLite's"),
    ("tenant_iris.db-wal", 1, "SQLite's"),
];

/// So the states are such that can go wrong.
#[test]
fn without_a_sync_a_restore_would_lose_something() {
    if can_trace() {
        let paths = [".xtask/staged/data.db", ".xtask/staged", ".xtask"];
        scenes::restore().needs_syncs(&paths, &RESTORES);
    }
}

/// Only with `--long`: each state is tried with a second pull.
#[test]
fn without_a_sync_a_pull_would_lose_something() {
    if can_trace() && long() {
        let begins =
            "that what arrives has its record from the start; without, it is fetched again";
        let also = [
            (
                "",
                4,
                "as of a restore; and the name of the pulled snapshot, as that of the saved one",
            ),
            (".xtask/incoming-pull", 1, begins),
            (".xtask/incoming-pull/xtask-unfinished-*", 1, begins),
        ];
        let excused = [&RESTORES[1..], &also].concat();
        a_pull().needs_syncs(&[], &excused);
    }
}

#[test]
fn without_a_sync_a_save_would_lose_something() {
    if can_trace() {
        create().needs_syncs(&[".xtask/incoming-*/data.db", ""], &[]);
    }
}

#[test]
fn without_a_sync_a_snapshot_would_be_removed_in_part() {
    if can_trace() {
        prune().needs_syncs(&[""], &[]);
    }
}

#[test]
fn a_restore_under_a_running_app_has_happened_or_has_not() {
    if can_trace() {
        scenes::restore_under_app().prove_power_cuts();
    }
}

#[test]
fn going_back_has_happened_or_has_not() {
    if can_trace() {
        scenes::undo().prove_power_cuts();
    }
}

/// A pull, which is repeated after it was cut.
fn pull_scene(name: &'static str, env: TestEnv) -> Scene {
    let new = content(&env.production());
    let via = format!("local:{}", env.production().display());
    Scene::new(name, env, &["pull-db", "--via", &via]).becomes(new).repeats()
}

fn a_pull() -> Scene {
    let env = at_work();
    change(&env.production().join("data.db"));
    pull_scene("pull", env)
}

#[test]
fn a_pull_has_happened_or_has_not() {
    if can_trace() {
        a_pull().prove_power_cuts();
    }
}

/// A developer of an app with a database in a directory for each tenant; the last pull has brought
/// one, beside a changed one.
fn with_tenants() -> TestEnv {
    let env = TestEnv::new();
    env.db_toml("include = ['*.db', 'tenants/*/main.db']\n");
    databases::create(&env.production().join("data.db"), 30, 1);
    add_tenant(&env, "acme");
    pull(&env);
    env
}

fn add_tenant(env: &TestEnv, name: &str) {
    let directory = env.production().join("tenants").join(name);
    fs::create_dir_all(&directory).expect("make directories");
    databases::create(&directory.join("main.db"), 30, 2);
}

#[test]
fn a_pull_into_a_new_directory_has_happened_or_has_not() {
    if can_trace() {
        let env = with_tenants();
        add_tenant(&env, "umbrella");
        change(&env.production().join("tenants/acme/main.db"));
        pull_scene("pull of a new directory", env).prove_power_cuts();
    }
}

#[test]
fn going_back_to_fewer_directories_has_happened_or_has_not() {
    if can_trace() {
        let env = with_tenants();
        let new = content(&env.data());
        add_tenant(&env, "umbrella");
        pull(&env);
        change(&env.data().join("data.db"));
        Scene::new("undo of a directory", env, &UNDO).becomes(new).prove_power_cuts();
    }
}

/// The content may be durable before the times of its file: then the file looks as it was recorded.
#[test]
fn what_a_power_cut_has_left_with_old_times_is_saved() {
    let env = developer();
    let live = env.data().join("data.db");
    databases::execute(&live, "PRAGMA journal_mode = DELETE");
    env.xtask(RESTORE).ok();
    databases::execute(&live, "PRAGMA journal_mode = DELETE");
    change(&live);
    let edited = content(&env.data());
    let path = env.data().join(".xtask/state.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
    let placed = &mut state["placed"]["data.db"];
    let file = live.metadata().expect("it is there");
    placed["stamp"]["file"] = json!([
        file.dev(),
        file.ino(),
        file.len(),
        [file.mtime(), file.mtime_nsec()],
        [file.ctime(), file.ctime_nsec()]
    ]);
    placed["boot"] = "an earlier one".into();
    fs::write(&path, state.to_string()).expect("write");
    env.xtask(RESTORE).ok();
    env.xtask(UNDO).ok();
    assert_same(&content(&env.data()), &edited);
}

/// With the directories that it makes, and the record that protects its snapshot from others.
#[test]
fn a_first_pull_is_there_once_it_has_ended() {
    if !can_trace() {
        return;
    }
    let env = TestEnv::new();
    env.db_toml("snapshots-dir = 'kept/snapshots'\n");
    databases::create(&env.production().join("data.db"), 30, 1);
    let via = format!("local:{}", env.production().display());
    let recording = record(&env, &["pull-db", "--via", &via], &env.repo());
    let states = recording.unseen(&mut HashSet::new());
    let ended: Vec<_> = states.into_iter().filter(|state| recording.is_finished(*state)).collect();
    assert!(!ended.is_empty());
    for state in ended {
        recording.disk(None, state).write_to(&env.repo());
        let state = recording.describe(state);
        for made in ["data", "kept/snapshots", "kept/snapshots/.xtask/shared-by"] {
            assert!(env.repo().join(made).exists(), "{made} is lost, {state}");
        }
        assert_same(&content(&env.data()), &content(&env.production()));
        let of_pull = env.repo().join("kept/snapshots").join(named(&env, "pull").remove(0));
        assert_same(&content(&of_pull), &content(&env.production()));
    }
}

fn create() -> Scene {
    let env = at_work();
    let saved = content(&env.data());
    Scene::new("snapshots create", env, &["snapshots", "create"]).brings(saved)
}

#[test]
fn a_save_is_whole_or_none() {
    if can_trace() {
        create().prove_power_cuts();
    }
}

#[test]
fn an_imported_snapshot_is_whole_or_none() {
    if can_trace() {
        let env = at_work();
        let file = env.path("a.tar.zst").display().to_string();
        let name = named(&env, "pull").remove(0);
        env.xtask(["snapshots", "export", &name, &file]).ok();
        let brought = content(&env.data().join(&name));
        env.xtask(["snapshots", "rm", &name, "--yes"]).ok();
        let import = Scene::new("snapshots import", env, &["snapshots", "import", &file]);
        import.brings(brought).prove_power_cuts();
    }
}

#[test]
fn a_snapshot_that_is_removed_is_gone_or_whole() {
    if can_trace() {
        let env = at_work();
        let name = named(&env, "pull").remove(0);
        let rm = ["snapshots", "rm", &name, "--yes"];
        Scene::new("snapshots rm", env, &rm).removes(vec![name.clone()]).prove_power_cuts();
    }
}

#[test]
fn a_snapshot_that_gets_a_label_is_whole() {
    if can_trace() {
        let env = at_work();
        let name = named(&env, "pull").remove(0);
        let rename = ["snapshots", "rename", &name, "the bug"];
        Scene::new("snapshots rename", env, &rename).prove_power_cuts();
    }
}

fn prune() -> Scene {
    let env = at_work();
    let may_go = vec![named(&env, "pull").remove(0)];
    for _ in 0..2 {
        change(&env.production().join("data.db"));
        pull(&env);
    }
    let prune = ["snapshots", "prune", "--keep", "2", "--yes"];
    Scene::new("snapshots prune", env, &prune).removes(may_go)
}

#[test]
fn snapshots_that_are_pruned_are_gone_or_whole() {
    if can_trace() {
        prune().prove_power_cuts();
    }
}

/// All files of a directory.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = databases::files(dir).into_iter();
    names.map(|name| (name.clone(), fs::read(dir.join(&name)).expect("read"))).collect()
}

/// A refresh of two fixtures, recorded, with their directory before and after.
fn refreshed() -> (TestEnv, PathBuf, [BTreeMap<String, Vec<u8>>; 2], Recording) {
    let env = fixtures::pulled();
    let dir = env.repo().join("tests/fixtures");
    env.xtask(["refresh-fixtures"]).ok();
    let shop = env.production().join("shop.db");
    databases::execute(&shop, "UPDATE orders SET total = 7; UPDATE people SET name = 'new'");
    pull(&env);
    let old = files(&dir);
    let recording = record(&env, &["refresh-fixtures"], &dir);
    let new = files(&dir);
    assert!(old.iter().all(|(name, content)| new[name] != *content), "all of them change");
    (env, dir, [old, new], recording)
}

#[test]
fn a_fixture_is_whole_or_as_it_was() {
    if !can_trace() {
        return;
    }
    let (env, dir, [old, new], recording) = refreshed();
    let states = recording.unseen(&mut HashSet::new());
    let chosen = spread(states.len(), 8);
    say(&format!("fixtures: {} of {} states after a power cut", chosen.len(), states.len()));
    for i in chosen {
        recording.disk(None, states[i]).write_to(&dir);
        let state = recording.describe(states[i]);
        for (name, content) in &old {
            let found = fs::read(dir.join(name)).expect("it is there");
            assert!(found == *content || found == new[name], "{name} is neither, {state}");
        }
        let is_refreshed = old.keys().all(|name| fs::read(dir.join(name)).unwrap() == new[name]);
        assert!(is_refreshed || !recording.is_finished(states[i]), "not refreshed, {state}");
        env.xtask(["refresh-fixtures"]).ok();
        assert!(files(&dir) == new, "not refreshed, {state}");
    }
}
