//! Worktrees of one clone: each has its own current data, and all share what was pulled.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use serde_json::Value;
use tests::databases;
use tests::env::TestEnv;
use tests::process::Running;
use tests::pty::{ENTER, Session};
use tests::sets::{assert_same, change, content};
use tests::store::{self, left_behind};

const SHARED: &str = "snapshots-dir = 'data'\nkeep = 1\n";

/// A developer with a linked worktree beside the main one.
struct Clone {
    env: TestEnv,
}

impl Clone {
    fn new(settings: &str) -> Clone {
        let env = TestEnv::new();
        databases::create(&env.production().join("data.db"), 30, 1);
        databases::create(&env.production().join("tenant_iris.db"), 300, 2);
        env.db_toml(settings);
        env.git(&["add", "--all"]);
        env.git(&["commit", "--quiet", "--message=first"]);
        env.git(&["worktree", "add", "--quiet", "-b", "other", "../linked"]);
        Clone { env }
    }

    /// The data of the main worktree and of the linked one.
    fn data(&self, tree: &str) -> PathBuf {
        self.env.path(tree).join("data")
    }

    fn command(&self, tree: &str, args: &[&str]) -> Command {
        let mut command = self.env.xtask_command(args);
        command.env("CARGO_MANIFEST_DIR", self.env.path(tree).join("xtask"));
        command
    }

    fn start(&self, tree: &str, args: &[&str]) -> Running {
        Running::start(&mut self.command(tree, args))
    }

    #[track_caller]
    fn xtask(&self, tree: &str, args: &[&str]) -> tests::output::Output {
        self.start(tree, args).wait().ok()
    }

    fn start_pull(&self, tree: &str, args: &[&str]) -> Running {
        let via = format!("local:{}", self.env.production().display());
        self.start(tree, &[&["pull-db", "--json", "--via", &via], args].concat())
    }

    /// Pulls what has changed; the name of the snapshot.
    #[track_caller]
    fn pull(&self, tree: &str) -> String {
        change(&self.env.production().join("data.db"));
        name_of(&self.start_pull(tree, &[]).wait().ok().json())
    }

    /// The names of the snapshots that a worktree lists, newest first.
    #[track_caller]
    fn listed(&self, tree: &str) -> Vec<String> {
        let listed = self.xtask(tree, &["snapshots", "--json"]).json()["snapshots"].take();
        let listed = listed.as_array().expect("a list").iter();
        listed
            .map(|one| {
                assert_eq!(one["defect"], Value::Null, "{one}");
                one["name"].as_str().expect("a name").to_owned()
            })
            .collect()
    }

    fn assert_tidy(&self) {
        for tree in ["repo", "linked"] {
            let mut left = left_behind(&self.data(tree));
            left.retain(|name| name != "shared-by");
            assert_eq!(left, [""; 0], "{tree}");
        }
    }
}

fn name_of(report: &Value) -> String {
    report["snapshot"].as_str().expect("a pull names its snapshot").to_owned()
}

fn names(data: &Path) -> Vec<String> {
    store::snapshots(data).into_iter().map(|snapshot| snapshot.name).collect()
}

#[test]
fn what_one_worktree_pulls_the_other_restores() {
    let clone = Clone::new("");
    let hint = "hint: add snapshots-dir = \"data\" to xtask/db.toml: all worktrees then share the \
                snapshots in ";
    let first = clone.start_pull("repo", &[]).wait().ok().stderr_lacks("snapshots-dir").json();
    let said = clone.start_pull("linked", &[]).wait().ok();
    let own = name_of(&said.json());
    let place = clone.env.repo().canonicalize().expect("it is there").join("data");
    said.stderr_has(&format!("{hint}{}\n", place.display()));
    clone.start_pull("linked", &[]).wait().ok().stderr_lacks("snapshots-dir");

    for tree in ["repo", "linked"] {
        clone.env.write(&format!("{tree}/xtask/db.toml"), SHARED.trim_end_matches("keep = 1\n"));
    }
    // What it had before the setting is there, and so is what the other has.
    let listed = clone.listed("linked");
    assert!(listed.contains(&own) && listed.contains(&name_of(&first)), "{listed:?}");
    change(&clone.data("repo").join("data.db"));
    let of_main = content(&clone.data("repo"));
    let newest = clone.pull("linked");
    assert!(names(&clone.data("repo")).contains(&newest));
    assert!(!names(&clone.data("linked")).contains(&newest));
    assert_same(&content(&clone.data("linked")), &content(&clone.env.production()));
    assert_same(&content(&clone.data("repo")), &of_main);

    change(&clone.data("linked").join("tenant_iris.db"));
    let of_linked = content(&clone.data("linked"));
    clone.xtask("linked", &["restore-db", "--yes", "--name", &name_of(&first)]);
    let saved = store::snapshots(&clone.data("linked")).pop().expect("the data was saved");
    assert_eq!(saved.kind(), "before-restore");
    assert!(!clone.listed("repo").contains(&saved.name), "it is of the data of the other");
    clone.xtask("linked", &["restore-db", "--yes", "--undo"]);
    assert_same(&content(&clone.data("linked")), &of_linked);
    clone.xtask("repo", &["restore-db", "--yes", "--name", &newest]);
    assert_same(&content(&clone.data("repo")), &content(&clone.env.production()));
    // What a person saves is for all.
    clone.xtask("linked", &["snapshots", "create"]);
    assert_eq!(clone.listed("repo")[0], clone.listed("linked")[0]);
    clone.assert_tidy();
}

#[test]
fn two_worktrees_that_pull_at_once_wait_for_each_other() {
    let clone = Clone::new(SHARED);
    clone.pull("repo");
    let lock = File::options().write(true).open(clone.data("repo").join(".xtask/lock"));
    let lock = lock.expect("the first pull made it");
    lock.lock().expect("lock");
    let place = clone.env.repo().canonicalize().expect("it is there").join("data");
    let waiting = format!("Waiting for another command in {}\n", place.display());
    change(&clone.env.production().join("data.db"));
    let mut pulls = ["repo", "linked"].map(|tree| clone.start_pull(tree, &[]));
    for pull in &mut pulls {
        pull.wait_for("it to wait", |pull| pull.stderr_so_far().contains(&waiting));
    }
    clone.start_pull("linked", &["--no-wait"]).wait().fails(1).stderr_has("is running in ");
    drop(lock);
    let pulled = pulls.map(|pull| name_of(&pull.wait().ok().json()));
    assert_ne!(pulled[0], pulled[1]);
    for tree in ["repo", "linked"] {
        assert_same(&content(&clone.data(tree)), &content(&clone.env.production()));
    }
    let found = names(&clone.data("repo"));
    assert!(pulled.iter().all(|name| found.contains(name)), "{found:?}");
    clone.assert_tidy();
}

#[test]
fn a_prune_of_one_worktree_keeps_what_the_other_needs() {
    let clone = Clone::new(SHARED);
    let kept = clone.pull("linked");
    let other = clone.pull("linked");
    // `kept` is live and `other` is what an undo restores.
    clone.xtask("linked", &["restore-db", "--yes", "--name", &kept]);
    for _ in 0..3 {
        clone.pull("repo");
    }
    clone.xtask("repo", &["snapshots", "prune", "--yes"]);
    let found = names(&clone.data("repo"));
    assert!(found.contains(&kept) && found.contains(&other), "{found:?}");
    clone.xtask("linked", &["restore-db", "--yes", "--undo"]);
    let wanted = content(&clone.data("repo").join(&other));
    assert_same(&content(&clone.data("linked")), &wanted);

    // The reverse: what the main one needs, and what was saved of its data.
    change(&clone.data("repo").join("data.db"));
    let before = clone.pull("repo");
    change(&clone.data("repo").join("data.db"));
    clone.xtask("repo", &["restore-db", "--yes", "--name", &before]);
    let needed = names(&clone.data("repo"));
    let saves: Vec<_> = needed.iter().rev().take(2).collect();
    for _ in 0..3 {
        clone.pull("linked");
        change(&clone.data("linked").join("data.db"));
    }
    let found = names(&clone.data("repo"));
    assert!(saves.iter().all(|name| found.contains(name)), "{found:?} lacks one of {saves:?}");
    assert!(found.contains(&before));
    clone.xtask("repo", &["restore-db", "--yes", "--undo"]);
}

#[test]
fn a_worktree_needs_snapshots_until_it_has_been_gone_for_a_week() {
    let clone = Clone::new(SHARED);
    let kept = clone.pull("linked");
    for _ in 0..2 {
        clone.pull("repo");
    }
    let records = clone.data("repo").join(".xtask/shared-by");
    let record = fs::read_dir(&records).expect("records").next().expect("one").expect("one").path();
    let read = || serde_json::from_slice::<Value>(&fs::read(&record).expect("read")).expect("JSON");
    // What the last change of the worktree is counts for nothing.
    let long_ago = Timespec { tv_sec: 1_700_000_000, tv_nsec: 0 };
    let times = Timestamps { last_access: long_ago, last_modification: long_ago };
    utimensat(CWD, &record, &times, AtFlags::empty()).expect("set the time");
    // What a killed command left is no record.
    fs::write(records.join("xtask-unfinished-1"), "{").expect("write");

    let (place, away) = (clone.env.path("linked"), clone.env.path("away"));
    let set_gone_since = |time: &str| {
        let mut json = read();
        json["gone_since"] = time.into();
        fs::write(&record, json.to_string()).expect("write");
    };
    let is_kept = || {
        clone.xtask("repo", &["snapshots", "prune", "--yes"]);
        names(&clone.data("repo")).contains(&kept)
    };
    fs::rename(&place, &away).expect("move");
    assert!(is_kept(), "the first prune that finds it gone");
    assert!(read()["gone_since"].is_string());
    fs::rename(&away, &place).expect("move");
    set_gone_since("2023-11-14T22:13:20Z");
    assert!(is_kept() && read()["gone_since"].is_null(), "it is back");
    fs::rename(&place, &away).expect("move");
    assert!(is_kept(), "it is gone anew");
    set_gone_since("2023-11-14T22:13:20Z");
    assert!(!is_kept());
    assert_eq!(fs::read_dir(&records).expect("records").count(), 0);
}

#[test]
fn a_new_worktree_restores_before_it_has_a_data_directory() {
    let clone = Clone::new(SHARED);
    let pulled = clone.pull("repo");
    let data = clone.data("linked");
    clone.start("linked", &["restore-db", "--latest"]).wait().fails(2).stderr_has("add --yes");
    assert!(!data.exists(), "nothing was confirmed");
    let restores: [&[&str]; 2] = [&["--latest"], &[&pulled]];
    for which in restores {
        let said = clone.xtask("linked", &[&["restore-db", "--yes", "--json"], which].concat());
        assert_eq!(said.json()["before"], Value::Null);
        assert_same(&content(&data), &content(&clone.env.production()));
        fs::remove_dir_all(&data).expect("remove");
    }
    let session = Session::spawn_sized(&clone.command("linked", &["restore-db"]), 30, 300);
    session.wait_for_text("Restore which snapshot?");
    session.send(ENTER);
    session.wait_for_text(" (2 databases)? (y/N)");
    session.send("y");
    session.send(ENTER);
    assert_eq!(session.wait_exit(), 0, "{}", session.screen());
    assert_same(&content(&data), &content(&clone.env.production()));
    fs::remove_dir_all(&data).expect("remove");
    let said = clone.start("linked", &["snapshots", "create"]).wait().fails(1);
    said.stderr_has(&format!("there is nothing to save: no database in {}\n", data.display()));
}

#[test]
fn the_removal_of_what_another_worktree_needs_names_that() {
    let clone = Clone::new(SHARED);
    let of_linked = clone.pull("linked");
    let of_main = clone.pull("repo");
    let free = clone.pull("repo");
    clone.xtask("repo", &["snapshots", "create"]);
    clone.xtask("repo", &["restore-db", "--yes", "--name", &of_main]);
    for (tree, snapshot, other) in [("repo", &of_linked, "linked"), ("linked", &of_main, "repo")] {
        let dir = clone.env.path(other).canonicalize().expect("it is there").join("data");
        let warning = format!(
            "warning: {snapshot} may be needed for restore-db --undo in {}\n",
            dir.display()
        );
        let said = clone.start(tree, &["snapshots", "rm", snapshot]).wait().fails(2);
        said.stderr_has(&warning).stderr_has("add --yes");
        assert!(clone.listed(tree).contains(snapshot));
        clone.xtask(tree, &["snapshots", "rm", "--yes", snapshot]).stderr_has(&warning);
        assert!(!clone.listed(tree).contains(snapshot));
    }
    // What only this worktree needs.
    let newest = clone.pull("repo");
    assert_ne!(newest, free);
    clone.xtask("repo", &["snapshots", "rm", "--yes", &newest]).stderr_lacks("may be needed");
}

#[test]
fn linked_worktrees_without_a_main_one_share_with_no_other_project() {
    let clone = Clone::new(SHARED);
    let git = |args: &[&str]| clone.env.git(args).ok();
    let sub = "src/super/.git/modules/sub";
    for (repository, shared) in [
        ("src/a.git", "src/a.git/xtask-snapshots/data"),
        ("src/b.git", "src/b.git/xtask-snapshots/data"),
        // Beside it is nothing that can be of another project, but no worktree either.
        ("src/c/.git", "src/c/.git/xtask-snapshots/data"),
        (sub, "src/super/.git/modules/sub/xtask-snapshots/data"),
    ] {
        let (place, tree) = (clone.env.path(repository), format!("{repository}-worktree"));
        let [at, to] = [&place, &clone.env.path(&tree)].map(|path| path.display().to_string());
        git(&["clone", "--quiet", "--bare", ".", &at]);
        if repository == sub {
            git(&["-C", &at, "config", "core.bare", "false"]);
        }
        git(&["-C", &at, "worktree", "add", "--quiet", "-b", "new", &to]);
        let pulled = clone.pull(&tree);
        assert_eq!(names(&clone.env.path(shared)), [pulled], "{repository}");
    }
    let mut beside: Vec<_> = fs::read_dir(clone.env.path("src"))
        .expect("read")
        .map(|entry| entry.expect("one").file_name().into_string().expect("UTF-8"))
        .collect();
    beside.sort();
    assert_eq!(beside, ["a.git", "a.git-worktree", "b.git", "b.git-worktree", "c", "super"]);
}

#[test]
fn snapshots_must_not_lie_among_the_current_data() {
    let clone = Clone::new("snapshots-dir = 'data/kept'\ninclude = ['**/*.db']\n");
    let said = clone.start_pull("repo", &[]).wait().fails(2);
    let data = clone.data("repo").canonicalize().unwrap_or_else(|_| clone.data("repo"));
    said.stderr_has(&format!(
        "snapshots-dir {0}/kept is inside the data directory {0}\n\
         hint: set a snapshots-dir outside, or that directory itself\n",
        data.display()
    ));
    // Also by another path.
    std::os::unix::fs::symlink("data", clone.env.path("repo/link")).expect("link");
    fs::create_dir_all(clone.data("repo")).expect("make");
    clone.env.db_toml("snapshots-dir = 'link/kept'\n");
    clone
        .start("repo", &["snapshots"])
        .wait()
        .fails(2)
        .stderr_has(" is inside the data directory ");
    clone.env.db_toml("snapshots-dir = 'link'\ninclude = ['**/*.db']\n");
    clone.pull("repo");
    clone.pull("repo");
    assert_same(&content(&clone.data("repo")), &content(&clone.env.production()));
    clone.env.db_toml("snapshots-dir = '.'\n");
    assert_eq!(clone.pull("repo"), names(&clone.env.repo())[0]);
}

#[test]
fn a_record_that_cannot_be_read_stops_a_prune() {
    let clone = Clone::new(SHARED);
    clone.pull("linked");
    let records = clone.data("repo").join(".xtask/shared-by");
    let record = fs::read_dir(&records).expect("records").next().expect("one").expect("one");
    fs::write(record.path(), "{").expect("write");
    let said = clone.start("repo", &["snapshots", "prune", "--yes"]).wait().fails(1);
    said.stderr_has("cannot read which snapshots another directory needs: ");
    clone.pull("linked");
    clone.xtask("repo", &["snapshots", "prune", "--yes"]);
}

#[test]
fn the_fresh_pull_of_one_worktree_is_none_of_the_other() {
    let clone = Clone::new(SHARED);
    for tree in ["linked", "repo"] {
        for skipped in [false, true] {
            let report = clone.start_pull(tree, &["--if-older", "1h"]).wait().ok().json();
            assert_eq!(report["skipped"], skipped, "{tree}");
        }
        assert_same(&content(&clone.data(tree)), &content(&clone.env.production()));
    }
}

#[test]
fn snapshots_may_be_on_another_file_system() {
    let clone = Clone::new("");
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let shared = place.path().join("snapshots");
    let settings = format!("snapshots-dir = '{}'\n", shared.display());
    clone.env.write("repo/xtask/db.toml", &settings);
    let first = clone.pull("repo");
    change(&clone.data("repo").join("data.db"));
    let mine = content(&clone.data("repo"));
    clone.pull("repo");
    clone.xtask("repo", &["restore-db", "--yes", "--undo"]);
    assert_same(&content(&clone.data("repo")), &mine);
    clone.xtask("repo", &["restore-db", "--yes", "--name", &first]);
    clone.xtask("repo", &["snapshots", "create"]);
    let kinds = store::kinds(&shared);
    assert_eq!(kinds, ["pull", "pull", "manual"]);
    assert!(store::kinds(&clone.data("repo")).iter().all(|kind| kind.starts_with("before-")));
    clone.xtask("repo", &["snapshots", "rm", &first, "--yes"]);
    assert_eq!(store::kinds(&shared), ["pull", "manual"]);
    assert_eq!(left_behind(&clone.data("repo")), [""; 0]);
    fs::remove_dir_all(place.path()).expect("remove");
    fs::create_dir(place.path()).expect("make");
    std::os::unix::fs::symlink("nowhere", &shared).expect("link");
    clone.start("repo", &["snapshots"]).wait().fails(1).stderr_has("which does not exist\n");
}
