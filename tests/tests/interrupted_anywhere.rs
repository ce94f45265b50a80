//! A command that gets one SIGINT at any moment leaves the old set or the new one,
//! says which, and leaves nothing else: the next command has nothing to clean up.

#![expect(clippy::print_stdout, reason = "a test that fails says where it was")]

use std::fs;

use tests::databases;
use tests::developer::{Found, at_work, look};
use tests::env::TestEnv;
use tests::faults::{can_trace, interrupted, under_strace};
use tests::long::depth;
use tests::output::Output;
use tests::process::{Running, command, wait_for};
use tests::sets::{Set, assert_same, change, content, developer, named, snapshots};
use tests::store::{has_arrived, left_behind};

/// A command finds the data directory so, which becomes `new`.
struct Scene {
    env: TestEnv,
    found: Found,
    old: Set,
    new: Set,
}

impl Scene {
    fn new() -> Scene {
        let env = at_work();
        let new = content(&env.data().join(named(&env, "pull").remove(0)));
        Scene { found: Found::now(&env), old: look(&env), new, env }
    }
}

/// What the main thread asks of the system, and after how many calls the next
/// signal comes where there is little time.
type Calls = [(&'static str, usize)];

/// Interrupts a command at its calls, one after the other; how often it had changed
/// nothing, and how often it was done all the same.
#[track_caller]
fn sweep(scene: &Scene, args: &[&str], calls: &Calls) -> [usize; 2] {
    let mut counts = [0, 0];
    for (syscall, step) in calls {
        for n in (1..).step_by(depth(*step, 1)) {
            scene.found.restore();
            println!("{syscall} {n}");
            let output = interrupted(&scene.env, args, syscall, n).output;
            let done = check(scene, &output);
            if output.code == Some(0) {
                break;
            }
            println!("  done: {done}");
            counts[usize::from(done)] += 1;
        }
    }
    println!("changed nothing, were done: {counts:?}");
    counts
}

#[track_caller]
fn check(scene: &Scene, output: &Output) -> bool {
    let env = &scene.env;
    assert_eq!(left_behind(&env.data()), [""; 0], "{output}");
    assert_eq!(databases::files(&env.path("local-tmp")), [""; 0], "{output}");
    let says = |text: &str| output.stderr.contains(text);
    let done = match output.code {
        Some(0) => !says("interrupted"),
        Some(130) if says("interrupted, but the command had already finished") => true,
        Some(130) if says("error: interrupted; nothing was changed") => false,
        // The system was still loading it, and it did not listen yet.
        None if output.stderr.is_empty() => false,
        Some(130) if says(" was pulled, but did not become the current data\n") => false,
        _ => panic!("{output}"),
    };
    let live = content(&env.data());
    assert_same(&live, if done { &scene.new } else { &scene.old });
    for snapshot in snapshots(env) {
        assert!(snapshot["defect"].is_null(), "{snapshot}");
    }
    done
}

#[test]
fn a_restore_has_happened_or_has_not() {
    if !can_trace() {
        return;
    }
    let scene = Scene::new();
    let calls = [
        ("rename", 1),
        ("renameat", 1),
        ("unlink", 2),
        ("fsync", 3),
        ("mkdir", 2),
        ("unlinkat", 2),
        ("flock", 2),
        ("write", 6),
        ("pwrite64", 23),
        ("pread64", 41),
        ("openat", 61),
        ("read", 67),
    ];
    let interrupted = sweep(&scene, &["restore-db", "--latest", "--yes"], &calls);
    assert!(interrupted[0] > 8 && interrupted[1] > 4, "{interrupted:?}");
    // And the way back is the one of a restore that nobody interrupted.
    scene.env.xtask(["restore-db", "--undo", "--yes"]).ok();
    assert_same(&content(&scene.env.data()), &scene.old);
}

#[test]
fn a_pull_has_happened_or_has_not() {
    if !can_trace() {
        return;
    }
    let mut scene = Scene::new();
    change(&scene.env.production().join("data.db"));
    scene.new = content(&scene.env.production());
    let via = format!("local:{}", scene.env.production().display());
    let calls = [
        ("rename", 1),
        ("renameat", 1),
        ("fsync", 13),
        ("mkdir", 4),
        ("unlink", 23),
        ("poll", 9),
        ("write", 61),
        ("openat", 211),
    ];
    let interrupted = sweep(&scene, &["pull-db", "--via", &via], &calls);
    assert!(interrupted[0] > 4 && interrupted[1] > 1, "{interrupted:?}");
}

#[test]
fn a_snapshot_is_whole_or_is_none() {
    if !can_trace() {
        return;
    }
    let env = developer();
    let live = content(&env.data());
    for (syscall, step) in
        [("rename", 1), ("fsync", 2), ("mkdir", 1), ("pwrite64", 13), ("write", 5)]
    {
        for n in (1..).step_by(depth(step, 1)) {
            println!("{syscall} {n}");
            let before = named(&env, "manual").len();
            let output = interrupted(&env, &["snapshots", "create"], syscall, n).output;
            assert_eq!(left_behind(&env.data()), [""; 0], "{output}");
            let nothing = output.stderr.contains("error: interrupted; nothing was changed");
            assert_eq!(
                output.code,
                Some(if output.stderr.contains("interrupted") { 130 } else { 0 })
            );
            assert_eq!(named(&env, "manual").len(), before + usize::from(!nothing), "{output}");
            if output.code == Some(0) {
                break;
            }
        }
    }
    assert_same(&content(&env.data()), &live);
    assert!(snapshots(&env).iter().all(|snapshot| snapshot["defect"].is_null()));
}

#[test]
fn what_has_arrived_need_not_be_checked_to_its_end() {
    if !can_trace() {
        return;
    }
    let env = developer();
    for name in databases::files(&env.data()) {
        if name.ends_with(".db") {
            fs::remove_file(env.data().join(name)).expect("remove");
        }
    }
    // Two are checked at a time: the third must wait for its turn.
    let third = env.production().join("tenant_juno.db");
    databases::create(&third, 20, 3);
    let bytes = third.metadata().expect("it was made").len();
    // Nothing but the checks reads so as often as the system's loader: there is no live set, and
    // a thread of the comparison reads once.
    let log = env.path("trace");
    let calls = || fs::read_to_string(&log).unwrap_or_default().matches("pread64(").count();
    let start = |options: &[&str], args: &[&str]| {
        // Its threads, and not what it starts.
        let flags = [&["-f", "-b", "execve"], options].concat();
        Running::start(&mut under_strace(&env, args, &["pread64"], &flags))
    };
    start(&[], &["-V"]).wait().ok();
    let loading = calls();
    let delay = format!("inject=pread64:delay_enter=1000s:when={}+", loading + 1);
    let via = format!("local:{}", env.production().display());
    let mut xtask = start(&["-D", "-e", &delay], &["pull-db", "--via", &via]);
    let waits = || calls() > loading + 1 && has_arrived(&env.data(), "tenant_juno.db", bytes);
    xtask.wait_for("the checks to be waited for", |_| waits());
    xtask.interrupt_alone();
    xtask.wait_for_stderr("error: interrupted; nothing was changed\n");
    // It keeps the process for as long as it delays a thread.
    for (pid, _) in env.processes().into_iter().filter(|(_, name)| name == "strace") {
        Running::start(command("kill").args(["-9", &pid.to_string()])).wait().ok();
    }
    let output = xtask.wait().fails(130);
    assert_eq!(left_behind(&env.data()), [""; 0], "{output}");
    wait_for("all to end", || env.processes().is_empty().then_some(()));
}

#[test]
fn a_large_database_need_not_be_copied_to_its_end() {
    if !can_trace() {
        return;
    }
    let env = developer();
    databases::execute(
        &env.data().join("data.db"),
        "CREATE TABLE noise AS WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
         SELECT randomblob(4000) AS data FROM n",
    );
    let run = interrupted(&env, &["snapshots", "create"], "pwrite64", 100);
    run.output.fails(130).stderr_has("error: interrupted; nothing was changed\n");
    let pages = run.hit.matches("pwrite64(").count();
    assert!((100..2500).contains(&pages), "{pages} pages were written, of more than 5000");
}
