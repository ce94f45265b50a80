//! A power cut on the server: whatever a pull has written there is in its one directory, which the
//! next pull removes after the boot.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tests::env::TestEnv;
use tests::faults::{can_trace, say};
use tests::power::{Call, parse};
use tests::process::{command, wait_for};
use tests::sets::{change, developer, pull};
use tests::{databases, fixtures, shells};

/// All calls that change names, and those that change content.
const NAMES: [&str; 13] = [
    "mkdir",
    "mkdirat",
    "mknod",
    "mknodat",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "unlink",
    "unlinkat",
];
const CONTENT: [&str; 8] = [
    "write",
    "pwrite64",
    "writev",
    "pwritev",
    "ftruncate",
    "fallocate",
    "copy_file_range",
    "sendfile",
];

/// The paths that a call changes, if it has changed any.
fn changed(call: &Call) -> Vec<PathBuf> {
    match call.name.as_str() {
        "mkdir" | "mknod" | "unlink" => vec![call.path(0)],
        "mkdirat" | "mknodat" | "unlinkat" | "symlink" => vec![call.path(1)],
        "rename" | "link" => vec![call.path(0), call.path(1)],
        "renameat" | "renameat2" | "linkat" => vec![call.path(1), call.path(3)],
        "symlinkat" => vec![call.path(2)],
        "openat" if call.has(2, "O_CREAT") => call.opened_path().into_iter().collect(),
        "copy_file_range" => call.open_path(2).into_iter().collect(),
        name if CONTENT.contains(&name) => call.open_path(0).into_iter().collect(),
        _ => Vec::new(),
    }
}

#[test]
fn what_a_pull_writes_is_in_its_directory() {
    if !can_trace() {
        return;
    }
    let env = fixtures::pulled();
    let trace = env.path("server-trace");
    let calls = [&NAMES[..], &CONTENT, &["openat"]].concat().join(",?");
    let body = format!(
        "exec strace -f -qq -y -xx -s 4096 -o '{}' -e 'trace=?{calls}' '{}' \"$@\"",
        trace.display(),
        shells::find("dash").display()
    );
    shells::script(&env.path("bin"), "sh", &body);
    databases::execute(&env.production().join("shop.db"), "UPDATE orders SET total = 7");
    let before: BTreeSet<_> = databases::files(&env.production()).into_iter().collect();
    pull(&env);
    let text = wait_for("the script to end", || {
        let made = databases::files(&env.path("local-tmp"));
        made.is_empty().then(|| fs::read_to_string(&trace).expect("read"))
    });
    let parent = env.path("local-tmp");
    let mut inside = 0;
    for call in parse(&text) {
        for path in changed(&call) {
            let below = path.strip_prefix(&parent).ok();
            let first = below.and_then(|below| below.iter().next()?.to_str());
            // After it has entered its directory, the script uses relative paths.
            let is_inside = first.is_some_and(|name| name.starts_with("xtask-pull."))
                || path.is_relative() && !path.starts_with("..");
            let is_device = ["/dev", "pipe:", "socket:"].iter().any(|it| path.starts_with(it))
                || path.to_string_lossy().starts_with("pipe:");
            // SQLite opens a database as it does in the app, and writes nothing.
            let is_opened = call.name == "openat"
                && path.parent() == Some(&*env.production())
                && path.file_name().is_some_and(|it| before.contains(&*it.to_string_lossy()));
            assert!(is_inside || is_device || is_opened, "{path:?}: {call:.300?}");
            inside += usize::from(is_inside);
        }
    }
    assert!(inside > 20, "only {inside} changes were seen");
}

/// What a power cut may leave of the directory: nothing in it, files of length zero, pipes, whole
/// copies.
fn leave(copies: &Path) {
    fs::create_dir(copies).expect("make a directory");
    fs::write(copies.join("0.db"), "").expect("write");
    fs::create_dir(copies.join("files")).expect("make a directory");
    fs::write(copies.join("files/1.db"), vec![7; 70_000]).expect("write");
    std::os::unix::fs::symlink("nowhere", copies.join("files/link")).expect("link");
    let pipe = command("mkfifo").arg(copies.join("pipe")).status();
    assert!(pipe.is_ok_and(|status| status.success()), "mkfifo fails");
}

/// Makes a directory, and what is in it, look as if it was written before the machine has booted.
fn age(env: &TestEnv, directory: &Path) -> bool {
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let Some(seconds) = uptime.split('.').next().and_then(|it| it.parse::<u64>().ok()) else {
        return false;
    };
    let before = format!("{} seconds ago", seconds + 180);
    let mut find = env.command("find");
    find.arg(directory).args(["-exec", "touch", "-h", "-d", &before, "{}", "+"]);
    assert!(find.status().is_ok_and(|status| status.success()), "touch fails");
    // Otherwise its age alone is enough.
    seconds + 180 < 24 * 60 * 60
}

#[test]
fn after_a_boot_the_next_pull_removes_what_a_power_cut_has_left() {
    for shell in ["dash", "bash", "busybox"] {
        let env = developer();
        let argument = if shell == "busybox" { " sh" } else { "" };
        let body = format!("exec '{}'{argument} \"$@\"", shells::find(shell).display());
        shells::script(&env.path("bin"), "sh", &body);
        // Its process id has now another process, which lives.
        let id = std::process::id();
        let at =
            |boot: &str| env.path("local-tmp").join(format!("xtask-pull.{id}.7.{boot}.Abc123"));
        let earlier = at("0f0e0d0c-aaaa-bbbb-cccc-0123456789ab-4026531836");
        let empty = at("1f0e0d0c-aaaa-bbbb-cccc-0123456789ab-4026531836");
        leave(&earlier);
        fs::create_dir(&empty).expect("make a directory");
        if !age(&env, &earlier) | !age(&env, &empty) {
            say("skipped: this machine has been up for a day, or has no /proc");
            return;
        }
        // This boot, but another container, where its process may live.
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("read");
        let container = at(&format!("{}-1", boot.trim()));
        // Another machine, which writes to it now.
        let machine = at("2f0e0d0c-aaaa-bbbb-cccc-0123456789ab-4026531836");
        leave(&container);
        leave(&machine);
        age(&env, &container);
        // One that is copying a large database.
        let copying = at("3f0e0d0c-aaaa-bbbb-cccc-0123456789ab-4026531836");
        leave(&copying);
        age(&env, &copying);
        let file = fs::File::options().write(true).open(copying.join("files/1.db"));
        file.and_then(|file| file.set_modified(SystemTime::now())).expect("set a time");
        change(&env.production().join("data.db"));
        pull(&env);
        assert!(!earlier.exists() && !empty.exists(), "{shell}");
        assert!(container.exists() && machine.exists() && copying.exists(), "{shell}");
    }
}
