//! Verifies that a command loses no data, whichever system call fails or is its last.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::app::App;
use crate::developer::{Found, look};
use crate::env::TestEnv;
use crate::faults::{self, Fault, Injection, Run, inject};
use crate::output::Output;
use crate::power::{self, Recording};
use crate::sets::{Set, assert_same, content, snapshots};
use crate::store::left_behind;
use crate::{databases, long};

/// Calls that change the disk, or make a change durable.
const CHANGES: &str = "write pwrite64 pwritev pwritev2 writev fsync fdatasync sync_file_range \
    rename renameat renameat2 unlink unlinkat rmdir link linkat symlink symlinkat mkdir mkdirat \
    ftruncate truncate fallocate openat copy_file_range sendfile chmod fchmod fchmodat";
/// Calls that need disk space.
const GROWTH: &str = "write pwrite64 pwritev pwritev2 writev fsync fdatasync rename renameat \
    renameat2 link linkat symlink symlinkat mkdir mkdirat ftruncate fallocate copy_file_range \
    sendfile";

/// The trials of each command: the name, the fault, and the calls.
const TRIALS: [(&str, Fault, &str); 6] = [
    ("kills", Fault::Kill, CHANGES),
    ("ENOSPC", Fault::Error("ENOSPC"), GROWTH),
    ("EIO", Fault::Error("EIO"), CHANGES),
    ("EIO of reads", Fault::Error("EIO"), "read pread64 getdents64"),
    ("EMFILE", Fault::Error("EMFILE"), "openat"),
    ("EACCES", Fault::Error("EACCES"), "openat"),
];

/// Without `--long`, a command is killed at two calls of each of these kinds and at the last call
/// of each other kind, and only the last call of each kind fails.
const DECIDING: &str = "rename renameat renameat2 unlink unlinkat fsync fdatasync";

/// The command after one that was cut or killed, which removes or finishes what that has left.
const NEXT: [&str; 2] = ["snapshots", "prune"];

/// With `--long`, the power is cut again during the recovery from about this many states.
const RECOVERIES: usize = 100;

/// Without `--long`, this many states of each command after a power cut are tried.
const POWER_CUTS: usize = 6;

/// A command, its initial state, and the changes that it may make.
pub struct Scene {
    name: &'static str,
    env: TestEnv,
    args: Vec<String>,
    found: Found,
    old: Set,
    new: Set,
    /// The snapshots before the command.
    known: BTreeMap<String, Set>,
    may_go: Vec<String>,
    /// A new snapshot may also have this.
    may_come: Option<Set>,
    serve: Option<fn(&TestEnv) -> App>,
    /// Whether the same command must succeed after one that was cut.
    repeats: bool,
}

impl Scene {
    /// The command starts with the current data directory. It must keep the live set and all
    /// snapshots, unless other methods say so.
    pub fn new(name: &'static str, env: TestEnv, args: &[&str]) -> Scene {
        let found = Found::now(&env);
        let old = look(&env);
        let names = databases::files(&env.data());
        let known = names.into_iter().filter(|name| name.starts_with("backup_"));
        let known = known.map(|name| (name.clone(), content(&env.data().join(name)))).collect();
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let (new, may_go, serve) = (old.clone(), Vec::new(), None);
        Scene {
            name,
            env,
            args,
            found,
            old,
            new,
            known,
            may_go,
            may_come: None,
            serve,
            repeats: false,
        }
    }

    /// Sets the expected live set afterwards.
    #[must_use]
    pub fn becomes(self, new: Set) -> Scene {
        Scene { new, ..self }
    }

    /// Sets the live set before, if the command starts in the middle of a replacement.
    #[must_use]
    pub fn was(self, old: Set) -> Scene {
        Scene { old, ..self }
    }

    /// The command removes these snapshots.
    #[must_use]
    pub fn removes(self, may_go: Vec<String>) -> Scene {
        Scene { may_go, ..self }
    }

    /// The command makes a snapshot of this.
    #[must_use]
    pub fn brings(self, set: Set) -> Scene {
        Scene { may_come: Some(set), ..self }
    }

    /// A program has the live set open during the command.
    #[must_use]
    pub fn under(self, serve: fn(&TestEnv) -> App) -> Scene {
        Scene { serve: Some(serve), ..self }
    }

    /// The command is repeated after one that was cut, and must reach the expected live set.
    #[must_use]
    pub fn repeats(self) -> Scene {
        Scene { repeats: true, ..self }
    }

    /// Cuts the power at every call, and tries each state that a file system may have then, or a
    /// sample of them; then cuts the command that follows in the same way. Panics with all that are
    /// wrong.
    pub fn prove_power_cuts(&self) {
        self.found.restore();
        let recording = {
            let _app = self.serve.map(|serve| serve(&self.env));
            self.record(&self.args)
        };
        let mut seen = HashSet::new();
        let states = recording.unseen(&mut seen);
        let chosen = long::spread(states.len(), POWER_CUTS);
        let mut wrong = Vec::new();
        for i in &chosen {
            wrong.extend(self.fails_in(&recording, false, None, states[*i]));
        }
        let (all, tried) = (states.len(), chosen.len());
        faults::say(&format!("{}: {tried} of {all} states after a power cut", self.name));
        wrong.extend(self.cut_recoveries(&recording, &states, &mut seen));
        assert!(wrong.is_empty(), "{}: {wrong:#?}", self.name);
    }

    /// What is wrong if the power is cut again, while the next command removes or finishes what a
    /// power cut has left.
    fn cut_recoveries(
        &self,
        first: &Recording,
        states: &[power::State],
        seen: &mut HashSet<u64>,
    ) -> Vec<String> {
        let (mut wrong, mut recoveries, mut all, mut tried) = (Vec::new(), 0, 0, 0);
        let step = if long::long() { states.len().div_ceil(RECOVERIES) } else { 1 };
        for state in states.iter().rev().step_by(step) {
            first.disk(None, *state).write_to(&self.env.data());
            if !long::long() && !self.decided() {
                continue;
            }
            let recovery = self.record(&NEXT);
            let states = recovery.unseen(seen);
            let chosen = long::spread(states.len(), POWER_CUTS);
            recoveries += usize::from(!states.is_empty());
            (all, tried) = (all + states.len(), tried + chosen.len());
            for i in chosen {
                let again = self.fails_in(&recovery, true, None, states[i]);
                let first = first.describe(*state);
                wrong.extend(again.map(|again| format!("{again}, after {first}")));
            }
            if !long::long() {
                break;
            }
        }
        faults::say(&format!(
            "{}: {tried} of {all} states after another, during {recoveries} recoveries",
            self.name
        ));
        wrong
    }

    fn record(&self, args: &[impl AsRef<str>]) -> Recording {
        power::record(&self.env, args, &self.env.data())
    }

    /// Leaves out each sync: then some state after a power cut must be wrong. Panics if none is, but
    /// for the excused ones: a path, how many of its syncs nothing needs, and why they stay. Without
    /// `--long`, only the first sync of each of `paths` is left out.
    pub fn needs_syncs(&self, paths: &[&str], excused: &[(&str, usize, &str)]) {
        self.found.restore();
        let recording = self.record(&self.args);
        let mut left: Vec<&str> = paths.to_vec();
        let mut needless: BTreeMap<String, usize> = BTreeMap::new();
        for (sync, path) in recording.syncs() {
            let is_chosen = left.contains(&&*path);
            left.retain(|one| *one != path);
            if !is_chosen && !long::long() {
                continue;
            }
            let mut states = recording.states_without(sync).into_iter();
            let is_needed =
                states.any(|it| self.fails_in(&recording, false, Some(sync), it).is_some());
            faults::say(&format!("{}: needs the sync of {path:?}: {is_needed}", self.name));
            if !is_needed {
                *needless.entry(path).or_default() += 1;
            }
        }
        assert!(left.is_empty(), "{}: it does not sync {left:?}", self.name);
        let expected = excused.iter().map(|(path, count, _)| ((*path).to_owned(), *count));
        let expected: BTreeMap<_, _> = expected.filter(|_| long::long()).collect();
        assert_eq!(needless, expected, "{}: nothing needs these syncs", self.name);
    }

    /// What is wrong in a state, if anything is. A recovery is of another command.
    fn fails_in(
        &self,
        recording: &Recording,
        is_recovery: bool,
        without: Option<usize>,
        state: power::State,
    ) -> Option<String> {
        recording.disk(without, state).write_to(&self.env.data());
        let hit = recording.describe(state);
        let code = (recording.is_finished(state) && !is_recovery).then_some(0);
        let output = Output { command: self.args.join(" "), code, ..Output::default() };
        let run = Run { output, hit };
        let tried = catch_unwind(AssertUnwindSafe(|| self.check(&run)));
        tried.is_err().then_some(run.hit)
    }

    /// Runs every trial at every call, or at a sample of them; panics with all failures.
    pub fn prove(&self) {
        self.found.restore();
        let all = TRIALS.map(|(_, _, syscalls)| syscalls).join(" ");
        let syscalls: BTreeSet<&str> = all.split_whitespace().collect();
        let calls = {
            let _app = self.serve.map(|serve| serve(&self.env));
            faults::trace(&self.env, &self.args, &Vec::from_iter(syscalls))
        };
        let mut counts = Vec::new();
        let mut wrong = Vec::new();
        for (name, fault, syscalls) in TRIALS {
            let mut count = 0;
            for syscall in syscalls.split_whitespace().filter(|call| tries(fault, call)) {
                for nth in self.choose(&calls, syscall, fault) {
                    let injection = Injection { syscall, fault, nth };
                    let tried = catch_unwind(AssertUnwindSafe(|| self.try_one(&injection)));
                    count += usize::from(tried.as_ref().is_ok_and(|hit| *hit));
                    if tried.is_err() {
                        faults::say(&format!("^ {}: {injection}", self.name));
                        wrong.push(injection.to_string());
                    }
                }
            }
            counts.push(format!("{count} {name}"));
        }
        faults::say(&format!("{}: {}", self.name, counts.join(", ")));
        assert!(wrong.is_empty(), "{}: {wrong:#?}", self.name);
    }

    /// The numbers, from 1, of the calls of this kind to hit: those on the test's files, all or a
    /// sample. Nothing has happened before the first.
    fn choose(&self, calls: &[faults::Call], syscall: &str, fault: Fault) -> Vec<usize> {
        let root = self.env.path("").display().to_string();
        let main = calls.first().map(|call| call.thread);
        let mut seen: BTreeMap<u32, usize> = BTreeMap::new();
        let mut ours = BTreeSet::new();
        let mut first = usize::MAX;
        for call in calls.iter().filter(|call| call.syscall == syscall) {
            let nth = seen.entry(call.thread).or_default();
            *nth += 1;
            // Each call starts with the working directory, which is not the file that it opens.
            let text = call.text.split_once("AT_FDCWD<").and_then(|(_, text)| text.split_once('>'));
            let text = text.map_or(call.text.as_str(), |(_, text)| text);
            if text.contains(&root) {
                ours.insert(*nth);
                if Some(call.thread) == main {
                    first = first.min(*nth);
                }
            }
        }
        // The first calls load the program's libraries, without which it does not start.
        ours.retain(|nth| *nth >= first);
        let ours = Vec::from_iter(ours);
        let kill = fault == Fault::Kill;
        let deciding = DECIDING.split(' ').any(|name| name == syscall);
        let sample = match (kill, deciding) {
            (true, true) => 2,
            (true, false) => 1,
            (false, _) => 1,
        };
        long::spread(ours.len(), sample).into_iter().map(|i| ours[i]).collect()
    }

    /// Returns whether the fault was hit.
    fn try_one(&self, injection: &Injection<'_>) -> bool {
        self.found.restore();
        let run = {
            let _app = self.serve.map(|serve| serve(&self.env));
            inject(&self.env, &self.args, injection)
        };
        // A run may differ in its calls, and hit one that no disk fault can affect.
        let others = ["<pipe:", "</sys/", "</proc/"];
        let none = run.hit.is_empty() || others.iter().any(|other| run.hit.contains(other));
        assert!(none || !run.output.stderr.contains("panicked"), "{}\n{}", run.hit, run.output);
        if let (Fault::Error(error), false) = (injection.fault, none)
            && !(run.output.code == Some(0) && (may_fail(&run.hit) || warns(&run)))
        {
            self.check_message(&run, error);
            // Files that cannot be read or removed may stay until the next command.
            let stays = "unlink unlinkat rmdir openat read getdents64 rename renameat renameat2";
            if !self.decided() && !stays.split(' ').any(|name| name == injection.syscall) {
                let mut left = left_behind(&self.env.data());
                // A removed snapshot is renamed and synced before its files are removed.
                left.retain(|name| !name.starts_with("incoming-backup_"));
                assert_eq!(left, [""; 0], "{}\n{}", run.hit, run.output);
            }
        }
        self.check(&run);
        !none
    }

    fn decided(&self) -> bool {
        self.env.data().join(".xtask/journal.json").exists()
    }

    /// Checks that the message names the error and the object.
    fn check_message(&self, run: &Run, error: &str) {
        let Run { output, hit } = run;
        // If a settings file cannot be read, that is an error of the settings.
        let settings = ["/xtask/db.toml", "/fly.toml"].iter().any(|file| hit.contains(file));
        let code = if settings { 2 } else { 1 };
        assert_eq!(output.code, Some(code), "{hit}\n{output}");
        let causes: &[&str] = match error {
            "ENOSPC" => &["No space left on device", "is full", "disk I/O error"],
            "EIO" => &[
                "Input/output error",
                "disk I/O error",
                "unable to open database file",
                "unable to get the page",
                // SQLite's message if it cannot read the change counter of the header.
                "database disk image is malformed",
            ],
            "EMFILE" => &["Too many open files", "unable to open database file"],
            _ => &["Permission denied", "unable to open database file", "a readonly database"],
        };
        let root = self.env.path("").display().to_string();
        let (_, told) = output.stderr.split_once("error: ").unwrap_or_default();
        assert!(causes.iter().any(|cause| told.contains(cause)), "no cause\n{hit}\n{output}");
        assert!(told.contains(&root), "no path\n{hit}\n{output}");
    }

    /// Checks that the set is the old or the new one, at the latest after the next command; that
    /// every snapshot is complete; that no files are left; and that `--undo` works.
    fn check(&self, run: &Run) {
        let (env, Run { output, hit }) = (&self.env, run);
        let decided = self.decided();
        if !decided {
            let live = look(env);
            assert!(live == self.old || live == self.new, "a mixture\n{hit}\n{output}");
        }
        let next = env.xtask(NEXT).ok();
        assert_eq!(left_behind(&env.data()), [""; 0], "{hit}\n{output}\n{next}");
        let live = content(&env.data());
        if decided {
            let next = next.stderr_has("that is now finished");
            assert!(live == self.new, "not finished\n{hit}\n{output}\n{next}");
        }
        assert!(live == self.old || live == self.new, "a mixture\n{hit}\n{output}");
        let finished = output.code == Some(0);
        assert!(!finished || live == self.new, "not done\n{hit}\n{output}");
        // A snapshot whose metadata cannot be read is not pruned.
        self.check_snapshots(finished && !hit.contains("/backup_"));
        if live != self.old {
            env.xtask(["restore-db", "--undo", "--yes"]).ok();
            assert_same(&content(&env.data()), &self.old);
        }
        if self.repeats {
            env.xtask(&self.args).ok();
            assert_same(&content(&env.data()), &self.new);
        }
    }

    fn check_snapshots(&self, finished: bool) {
        let mut has_come = false;
        let mut gone: BTreeSet<&str> = self.known.keys().map(String::as_str).collect();
        for snapshot in snapshots(&self.env) {
            assert!(snapshot["defect"].is_null(), "{snapshot}");
            let name = snapshot["name"].as_str().expect("a name");
            let found = content(&self.env.data().join(name));
            match self.known.get(name) {
                Some(known) => assert_same(&found, known),
                None => {
                    let expected = [Some(&self.old), Some(&self.new), self.may_come.as_ref()];
                    assert!(expected.contains(&Some(&found)), "{name} is neither");
                    has_come |= self.may_come.as_ref() == Some(&found);
                }
            }
            gone.remove(name);
        }
        for name in &gone {
            assert!(self.may_go.iter().any(|may| may == name), "{name} is lost");
        }
        assert!(!finished || self.may_come.is_none() || has_come, "no snapshot was made");
        assert!(!finished || gone.len() == self.may_go.len(), "only {gone:?} were removed");
    }
}

/// Whether to try this fault. Without `--long`, a call that already fails with ENOSPC does not fail
/// with EIO too, unless it is a sync.
fn tries(fault: Fault, syscall: &str) -> bool {
    let has = |list: &str| list.split_whitespace().any(|call| call == syscall);
    long::long() || fault != Fault::Error("EIO") || has("fsync fdatasync") || !has(GROWTH)
}

/// Whether a command may ignore the failure of this call: the result is checked to be right anyway.
fn may_fail(hit: &str) -> bool {
    let text = hit.split_once(' ').map_or("", |(_, text)| text.trim_start());
    let of = |what: &[&str]| what.iter().any(|what| text.contains(what));
    let calls = |names: &[&str]| names.iter().any(|name| text.starts_with(name));
    // The name of the lock's holder is only for waiting commands.
    of(&["/.xtask/lock>"])
        // Without the name of a program that has the set open, most often this one.
        || of(&["/comm>"])
        // Without the memory in the report of the run.
        || of(&["\"/proc/self/status\"", "/status>"])
        // The next command removes the file.
        || calls(&["unlink"])
        // An unreadable snapshot is treated like a missing one.
        || (calls(&["read(", "openat(", "getdents64("]) && of(&["/backup_"]))
        // SQLite leaves the sidecars for the next program that opens the database.
        || (of(&["/repo/data/"]) && !of(&["/.xtask/", "/backup_"]))
}

/// Steps after the replacement may fail with a warning.
fn warns(run: &Run) -> bool {
    let stderr = &run.output.stderr;
    let warnings = [
        "warning: old snapshots were not pruned: ",
        "warning: the next command compares the current data again: ",
        " is saved without its sha256: ",
    ];
    warnings.iter().any(|warning| stderr.contains(warning))
}
