//! Where the tool runs is not as it should be: the data directory cannot be
//! written, is full, or is spread over several disks; variables lead nowhere.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use tests::databases;
use tests::disk::SmallDisk;
use tests::env::TestEnv;
use tests::fixtures;
use tests::long::depth;
use tests::output::Output;
use tests::process::Running;
use tests::sets::{assert_same, change, content, developer, named, pull, snapshots};
use tests::store::{fingerprint, kinds, left_behind};

/// All that changes something in a data directory, but for a pull.
const CHANGES: [&[&str]; 4] = [
    &["restore-db", "--latest", "--yes"],
    &["snapshots", "create"],
    &["snapshots", "prune", "--yes"],
    &["snapshots", "rm", "--yes", "backup_"],
];

fn pull_args(env: &TestEnv) -> [String; 3] {
    ["pull-db".to_owned(), "--via".to_owned(), format!("local:{}", env.production().display())]
}

/// A developer whose live set is not what was pulled, on a disk of its own.
fn on_a_disk() -> Option<(TestEnv, SmallDisk)> {
    let env = TestEnv::new();
    let disk = SmallDisk::mount(&env.data(), 3000)?;
    databases::create(&env.production().join("data.db"), 30, 1);
    databases::create(&env.production().join("tenant_iris.db"), 300, 2);
    pull(&env);
    change(&env.data().join("data.db"));
    change(&env.production().join("data.db"));
    Some((env, disk))
}

/// All that makes a failure a clean one.
type State = (std::collections::BTreeMap<String, (usize, u64)>, Vec<String>, Vec<String>);

fn state(env: &TestEnv) -> State {
    let mut live = fingerprint(&env.data());
    live.remove("filler");
    // SQLite makes both before it finds that the disk is full; no row is in them.
    live.retain(|name, (size, _)| {
        !(name.ends_with("-shm") || name.ends_with("-wal") && *size == 0)
    });
    (live, kinds(&env.data()), left_behind(&env.data()))
}

#[track_caller]
fn is_unwritable(env: &TestEnv, run: impl Fn(&[&str]) -> Output, why: &str) {
    let before = state(env);
    let pull = pull_args(env);
    let pull = pull.each_ref().map(String::as_str);
    for args in [&pull[..]].into_iter().chain(CHANGES) {
        run(args)
            .fails(1)
            .stdout_is("")
            .stderr_has(&format!("error: {} cannot be written\n", env.data().display()))
            .stderr_has(why)
            .stderr_has("\nhint: make it writable, or name another directory with --local-dir");
        assert!(state(env) == before, "{args:?}");
    }
    for args in [&["snapshots", "list"][..], &["restore-db", "--list"]] {
        run(args).ok().stdout_has(" pull ").stderr_is("");
    }
}

#[test]
fn a_disk_that_is_read_only_is_listed_and_left_alone() {
    let Some((env, disk)) = on_a_disk() else { return };
    disk.make_read_only(true);
    is_unwritable(&env, |args| env.xtask(args), "Read-only file system");
    disk.make_read_only(false);
    env.xtask(["restore-db", "--latest", "--yes"]).ok();
}

#[test]
fn a_directory_without_permission_is_listed_and_left_alone() {
    let env = developer();
    for directory in [env.data(), env.data().join(".xtask")] {
        let mode = |mode| {
            fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).expect("chmod");
        };
        mode(0o500);
        is_unwritable(&env, |args| env.xtask_obeying_permissions(args), "Permission denied");
        mode(0o700);
    }
}

#[test]
fn a_snapshot_that_may_not_be_read_does_not_hide_the_others() {
    let env = developer();
    let name = named(&env, "pull").remove(0);
    change(&env.production().join("data.db"));
    pull(&env);
    fs::set_permissions(env.data().join(&name), fs::Permissions::from_mode(0o000)).expect("chmod");
    let list = env.xtask_obeying_permissions(["snapshots", "list"]).ok();
    assert_eq!(list.stdout().lines().count(), 2, "{list}");
    list.stdout_has("damaged: ").stdout_has("Permission denied");
    env.xtask_obeying_permissions(["restore-db", "--latest", "--yes"]).ok();
}

/// Runs it with ever more space until it succeeds; before, it fails clean.
#[track_caller]
fn squeezed(args: &[&str]) {
    let Some((env, disk)) = on_a_disk() else { return };
    let pull = pull_args(&env);
    let pull = pull.each_ref().map(String::as_str);
    let args = if args.is_empty() { &pull[..] } else { args };
    let before = state(&env);
    // In KiB.
    let step = depth(40, 8);
    let mut failures = 0;
    loop {
        disk.leave(failures * step);
        let output = env.xtask(args);
        if output.code == Some(0) {
            break;
        }
        failures += 1;
        assert!(failures < 200, "it never succeeds\n{output}");
        let output = output.fails(1).stdout_is("");
        output
            .stderr_has("full")
            .stderr_has("cargo xtask snapshots prune --keep 3\n")
            .stderr_lacks("killed");
        let after = state(&env);
        assert!(after == before, "with {} KiB: {after:?}", (failures - 1) * step);
    }
    assert!(failures > depth(0, 2), "there was room at once");
    assert_eq!(left_behind(&env.data()), [""; 0]);
}

#[test]
fn a_pull_onto_a_full_disk_works_or_fails_clean() {
    squeezed(&[]);
}

#[test]
fn a_restore_on_a_full_disk_works_or_fails_clean() {
    squeezed(&["restore-db", "--latest", "--yes"]);
}

#[test]
fn a_save_on_a_full_disk_works_or_fails_clean() {
    squeezed(&["snapshots", "create"]);
}

#[test]
fn room_can_be_made_on_a_disk_that_is_full_to_the_last_byte() {
    let Some((env, disk)) = on_a_disk() else { return };
    pull(&env);
    // Not even who has the lock can be written into it.
    fs::write(env.data().join(".xtask/lock"), "").expect("write");
    disk.fill();
    env.xtask(["snapshots", "prune", "--keep", "1", "--yes"]).ok().stderr_has("Pruned 1 snapshot,");
    disk.fill();
    env.xtask(["snapshots", "rm", "--yes", &named(&env, "before-pull")[0]]).ok();
}

#[test]
fn the_data_directory_may_be_a_link() {
    for relative in [false, true] {
        let env = developer();
        fs::rename(env.data(), env.path("elsewhere")).expect("rename");
        let target =
            if relative { Path::new("../elsewhere").to_owned() } else { env.path("elsewhere") };
        symlink(target, env.data()).expect("link");
        let pulled = content(&env.data());
        change(&env.data().join("data.db"));
        env.xtask(["restore-db", "--latest", "--yes"]).ok();
        assert_same(&content(&env.path("elsewhere")), &pulled);
        change(&env.production().join("data.db"));
        pull(&env);
        assert!(env.data().is_symlink(), "it stays one");
        assert_eq!(kinds(&env.path("elsewhere")), ["pull", "before-restore", "pull"]);

        fs::rename(env.path("elsewhere"), env.path("unplugged")).expect("rename");
        let pull = pull_args(&env);
        let pull = pull.each_ref().map(String::as_str);
        for args in [&pull[..], &["snapshots", "list"]].into_iter().chain(CHANGES) {
            env.xtask(args)
                .fails(1)
                .stdout_is("")
                .stderr_has(&format!("error: {} is a link to ", env.data().display()))
                .stderr_has("elsewhere, which does not exist\nhint: connect its disk, ");
        }
        assert!(!env.path("elsewhere").exists(), "nothing is made there");
    }
}

/// A person moved a snapshot to an external disk, and left a link.
#[test]
fn a_snapshot_that_is_a_link_to_another_disk_is_one() {
    let env = developer();
    let external = env.path("external");
    let disk = SmallDisk::mount(&external, 3000);
    fs::create_dir_all(&external).expect("make a directory");
    let name = named(&env, "pull").remove(0);
    let (here, there) = (env.data().join(&name), external.join(&name));
    Running::start(env.command("cp").arg("-a").arg(&here).arg(&there)).wait().ok();
    fs::remove_dir_all(&here).expect("remove");
    symlink(&there, &here).expect("link");
    let pulled = content(&there);
    for _ in 0..2 {
        change(&env.production().join("data.db"));
        pull(&env);
    }
    assert_eq!(named(&env, "pull").len(), 3);
    env.xtask(["restore-db", "--yes", "--name", &name]).ok();
    assert_same(&content(&env.data()), &pulled);
    // Else it would be the way back, which prune leaves alone anyhow.
    change(&env.data().join("data.db"));
    env.xtask(["restore-db", "--yes", "--latest"]).ok();

    env.xtask(["snapshots", "prune", "--keep", "1", "--yes"]).ok().stderr_has("Pruned 1 snapshot,");
    assert!(here.is_symlink(), "it takes no place here, and is left alone");
    env.xtask(["snapshots", "rm", &name]).fails(2).stderr_has("this needs a confirmation");
    env.xtask(["snapshots", "rm", "--yes", &name])
        .ok()
        .stderr_has(&format!("Removed the link {name}, not {}", there.display()));
    assert!(!here.is_symlink());
    assert_same(&content(&there), &pulled);

    // The disk is not there.
    symlink(&there, &here).expect("link");
    drop(disk);
    drop(fs::remove_dir_all(&there));
    let list = env.xtask(["snapshots", "list"]).ok();
    list.stdout_has(&format!("damaged: it is a link to {}: No such file", there.display()));
    env.xtask(["restore-db", "--yes", "--name", &name]).fails(1).stderr_has("cannot be restored");
    pull(&env);
    env.xtask(["snapshots", "rm", "--yes", &name]).ok();
    assert!(!here.is_symlink());
}

#[test]
fn a_snapshot_on_a_disk_of_its_own_is_one_and_is_not_removed() {
    let env = developer();
    let name = named(&env, "pull").remove(0);
    let here = env.data().join(&name);
    fs::rename(&here, env.path("copy")).expect("rename");
    let Some(disk) = SmallDisk::mount(&here, 3000) else { return };
    for entry in fs::read_dir(env.path("copy")).expect("read a directory").flatten() {
        fs::copy(entry.path(), here.join(entry.file_name())).expect("copy");
    }
    change(&env.data().join("data.db"));
    env.xtask(["restore-db", "--yes", "--name", &name]).ok();
    assert_same(&content(&env.data()), &content(&here));
    change(&env.production().join("data.db"));
    pull(&env);
    env.xtask(["snapshots", "prune", "--keep", "1", "--yes"]).ok().stderr_has("Nothing to prune (");
    env.xtask(["snapshots", "rm", "--yes", &name])
        .fails(1)
        .stderr_has("is a mount point\n")
        .stderr_has(&format!("hint: umount {}; ", here.display()));
    assert_eq!(snapshots(&env).len(), 3);
    drop(disk);
}

#[test]
fn a_state_directory_that_is_a_link_stays_on_the_disk_of_the_data() {
    let env = developer();
    let state = env.data().join(".xtask");
    fs::rename(&state, env.path("state")).expect("rename");
    symlink(env.path("state"), &state).expect("link");
    change(&env.data().join("data.db"));
    env.xtask(["restore-db", "--yes", "--latest"]).ok();
    env.xtask(["restore-db", "--yes", "--undo"]).ok();
    let Some(_disk) = SmallDisk::mount(&env.path("other"), 3000) else { return };
    fs::remove_file(&state).expect("remove");
    symlink(env.path("other"), &state).expect("link");
    env.xtask(pull_args(&env))
        .fails(1)
        .stderr_has(&format!("{} is on another file system", state.display()))
        .stderr_lacks("Receiving");
    env.xtask(["snapshots", "list"]).ok();
}

/// The link is replaced, as any file is; what it led to is not touched, and is in
/// the snapshot that was made before.
#[test]
fn a_live_database_that_is_a_link_becomes_a_file() {
    let env = developer();
    let (live, target) = (env.data().join("data.db"), env.path("mine.db"));
    fs::rename(&live, &target).expect("rename");
    symlink(&target, &live).expect("link");
    change(&target);
    let mine = databases::content(&target);
    env.xtask(["restore-db", "--yes", "--latest"]).ok().stderr_has("Saved the previous data");
    assert!(!live.is_symlink());
    assert!(databases::content(&target) == mine);
    env.xtask(["restore-db", "--yes", "--undo"]).ok();
    assert!(databases::content(&live) == mine);
}

#[test]
fn without_a_place_for_temporary_files_what_needs_none_works() {
    let env = fixtures::pulled();
    let blocked = env.path("blocked");
    fs::write(&blocked, "a file").expect("write");
    for place in [env.path("missing"), blocked] {
        let run = |args: &[&str]| {
            let mut xtask = env.xtask_command(args);
            Running::start(xtask.env("TMPDIR", &place).env_remove("HOME")).wait()
        };
        change_people(&env);
        run(&["restore-db", "--yes", "--latest"]).ok();
        run(&["snapshots", "create"]).ok();
        run(&["snapshots", "list"]).ok();
        let args = pull_args(&env);
        let before = state(&env);
        run(&args.each_ref().map(String::as_str))
            .fails(1)
            .stderr_has(&format!("there is no directory {} to copy to\n", place.display()))
            .stderr_has("hint: free space, or set staging-dir");
        run(&["refresh-fixtures"])
            .fails(1)
            .stderr_has(&place.display().to_string())
            .stderr_has("hint: set TMPDIR to a writable directory\n");
        assert!(state(&env) == before);
    }
}

fn change_people(env: &TestEnv) {
    let sql = "INSERT INTO people (name) VALUES (hex(randomblob(9)))";
    databases::execute(&env.data().join("shop.db"), sql);
}

#[test]
fn without_a_home_everything_works() {
    let env = fixtures::developer();
    let run =
        |args: &[&str]| Running::start(env.xtask_command(args).env_remove("HOME")).wait().ok();
    run(&pull_args(&env).each_ref().map(String::as_str));
    for args in CHANGES.into_iter().take(3).chain([&["refresh-fixtures"][..], &["install-hooks"]]) {
        run(args);
    }
}

#[test]
fn thousands_of_files_of_others_are_no_matter() {
    let env = developer();
    for i in 0..3000 {
        fs::write(env.data().join(format!("upload-{i}.bin")), "x").expect("write");
        if i % 10 == 0 {
            fs::create_dir(env.data().join(format!("backup_of_{i}"))).expect("make a directory");
        }
    }
    let before = fs::read_dir(env.data()).expect("read a directory").count();
    change(&env.production().join("data.db"));
    pull(&env);
    env.xtask(["restore-db", "--yes", "--undo"]).ok().stderr_lacks("upload");
    let after = fs::read_dir(env.data()).expect("read a directory").count();
    assert_eq!(after, before + 1, "one snapshot more");
    let inode = env.data().join("upload-7.bin").metadata().expect("it is there").ino();
    pull(&env);
    assert_eq!(env.data().join("upload-7.bin").metadata().expect("it is there").ino(), inode);
}

/// More names than a command line could hold.
#[test]
fn a_set_of_thousands_that_git_would_commit_is_noticed() {
    let env = TestEnv::new();
    databases::create(&env.production().join("data.db"), 3, 3);
    env.write("repo/.gitignore", "");
    let name = "x".repeat(100);
    for i in 0..5000 {
        fs::write(env.make_data().join(format!("{name}-{i}.db")), "").expect("write");
    }
    let mut xtask = env.start_xtask(pull_args(&env));
    xtask.wait_for_stderr("warning: git does not ignore all of");
}

/// As of `cargo xtask … | head`, which has ended.
#[test]
fn what_nobody_reads_any_more_is_done_all_the_same() {
    let env = fixtures::pulled();
    let fixture = env.repo().join(fixtures::ORDERS).display().to_string();
    databases::execute(&env.data().join("shop.db"), "UPDATE people SET name = 'mine'");
    let pull = pull_args(&env);
    for args in [
        &["refresh-fixtures", "--json"][..],
        &["restore-db", "--latest", "--yes", "--json"],
        &[&pull[0], &pull[1], &pull[2], "--json"],
        &[&pull[0], &pull[1], &pull[2], "--json", "--dry-run"],
        &["restore-db", "--list"],
        &["snapshots", "list", "--json"],
        &["textconv", &fixture],
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut xtask = env.xtask_command(args);
        let output = xtask.stdout(writer).output().expect("it runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{args:?}\n{stderr}");
        assert!(!stderr.contains("error"), "{args:?}\n{stderr}");
    }
}

#[test]
fn no_limit_of_open_files_is_lowered() {
    let env = developer();
    env.db_toml("setup = \"sh -c 'ulimit -n >limit'\"\n");
    let script = "ulimit -Sn \"$(ulimit -Hn)\" && ulimit -n && exec \"$@\"";
    let xtask = env.xtask_command(["setup-db"]);
    let mut shell = env.command("sh");
    shell.args(["-c", script, "sh"]).arg(xtask.get_program()).args(xtask.get_args());
    let limit = Running::start(&mut shell).wait().ok().stdout();
    assert_eq!(fs::read_to_string(env.path("repo/limit")).expect("read"), limit);
}
