//! The proof that a command loses nothing, whatever call is its last or fails.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::app::App;
use crate::developer::{Found, look};
use crate::env::TestEnv;
use crate::faults::{self, Fault, Injection, Run, inject};
use crate::sets::{Set, assert_same, content, snapshots};
use crate::store::left_behind;
use crate::{databases, long};

/// What changes the disk, or makes a change last.
const CHANGES: &str = "write pwrite64 pwritev pwritev2 writev fsync fdatasync sync_file_range \
    rename renameat renameat2 unlink unlinkat rmdir link linkat symlink symlinkat mkdir mkdirat \
    ftruncate truncate fallocate openat copy_file_range sendfile chmod fchmod fchmodat";
/// What needs room.
const GROWTH: &str = "write pwrite64 pwritev pwritev2 writev fsync fdatasync rename renameat \
    renameat2 link linkat symlink symlinkat mkdir mkdirat ftruncate fallocate copy_file_range \
    sendfile";

/// What is tried with each command: its name, the fault, and the calls.
const TRIALS: [(&str, Fault, &str); 6] = [
    ("kills", Fault::Kill, CHANGES),
    ("ENOSPC", Fault::Error("ENOSPC"), GROWTH),
    ("EIO", Fault::Error("EIO"), CHANGES),
    ("EIO of reads", Fault::Error("EIO"), "read pread64 getdents64"),
    ("EMFILE", Fault::Error("EMFILE"), "openat"),
    ("EACCES", Fault::Error("EACCES"), "openat"),
];

/// Where there is no time, a command is killed at two calls of each kind that is around
/// the decision and at the last of each other kind, and the last of each kind fails.
const DECIDING: &str = "rename renameat renameat2 unlink unlinkat fsync fdatasync";

/// A command, what it finds, and what it may do.
pub struct Scene {
    name: &'static str,
    env: TestEnv,
    args: Vec<String>,
    found: Found,
    old: Set,
    new: Set,
    /// Each snapshot that is there before it.
    known: BTreeMap<String, Set>,
    may_go: Vec<String>,
    serve: Option<fn(&TestEnv) -> App>,
}

impl Scene {
    /// The command finds the data directory as it is now, and leaves the live
    /// set and all snapshots alone unless the scene is told otherwise.
    pub fn new(name: &'static str, env: TestEnv, args: &[&str]) -> Scene {
        let found = Found::now(&env);
        let old = look(&env);
        let names = databases::files(&env.data());
        let known = names.into_iter().filter(|name| name.starts_with("backup_"));
        let known = known.map(|name| (name.clone(), content(&env.data().join(name)))).collect();
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let (new, may_go, serve) = (old.clone(), Vec::new(), None);
        Scene { name, env, args, found, old, new, known, may_go, serve }
    }

    /// What is live afterwards.
    #[must_use]
    pub fn becomes(self, new: Set) -> Scene {
        Scene { new, ..self }
    }

    /// What was live before, where the command finds it half replaced.
    #[must_use]
    pub fn was(self, old: Set) -> Scene {
        Scene { old, ..self }
    }

    /// The command removes these snapshots.
    #[must_use]
    pub fn removes(self, may_go: Vec<String>) -> Scene {
        Scene { may_go, ..self }
    }

    /// A program has the live set open meanwhile.
    #[must_use]
    pub fn under(self, serve: fn(&TestEnv) -> App) -> Scene {
        Scene { serve: Some(serve), ..self }
    }

    /// Tries every trial at every call, or at a sample of them, and fails with
    /// all that went wrong.
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

    /// Which calls of this kind are hit, from 1: of those that concern a file of
    /// the test, all or a sample. Before the first, nothing has happened yet.
    fn choose(&self, calls: &[faults::Call], syscall: &str, fault: Fault) -> Vec<usize> {
        let root = self.env.path("").display().to_string();
        let main = calls.first().map(|call| call.thread);
        let mut seen: BTreeMap<u32, usize> = BTreeMap::new();
        let mut ours = BTreeSet::new();
        let mut first = usize::MAX;
        for call in calls.iter().filter(|call| call.syscall == syscall) {
            let nth = seen.entry(call.thread).or_default();
            *nth += 1;
            // The working directory, which each call has before it, is no file that it opens.
            let text = call.text.split_once("AT_FDCWD<").and_then(|(_, text)| text.split_once('>'));
            let text = text.map_or(call.text.as_str(), |(_, text)| text);
            if text.contains(&root) {
                ours.insert(*nth);
                if Some(call.thread) == main {
                    first = first.min(*nth);
                }
            }
        }
        // Without its libraries, the program does not even begin.
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

    /// Whether the fault happened.
    fn try_one(&self, injection: &Injection<'_>) -> bool {
        self.found.restore();
        let run = {
            let _app = self.serve.map(|serve| serve(&self.env));
            inject(&self.env, &self.args, injection)
        };
        // Another run may count otherwise, and hit what no disk breaks.
        let others = ["<pipe:", "</sys/", "</proc/"];
        let none = run.hit.is_empty() || others.iter().any(|other| run.hit.contains(other));
        assert!(none || !run.output.stderr.contains("panicked"), "{}\n{}", run.hit, run.output);
        if let (Fault::Error(error), false) = (injection.fault, none)
            && !(run.output.code == Some(0) && (may_fail(&run.hit) || warns(&run)))
        {
            self.check_message(&run, error);
            // What cannot be read or removed may stay until the next command.
            let stays = "unlink unlinkat rmdir openat read getdents64 rename renameat renameat2";
            if !self.decided() && !stays.split(' ').any(|name| name == injection.syscall) {
                let mut left = left_behind(&self.env.data());
                // A snapshot is synced away before its files are removed.
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

    /// It says what failed, and where.
    fn check_message(&self, run: &Run, error: &str) {
        let Run { output, hit } = run;
        // What cannot be read of the settings is a fault of the settings.
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
                // So SQLite calls the header's counter that it could not read.
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

    /// The set is the old or the new one, also where the next command has to see
    /// to that; every snapshot is whole; nothing stays behind; there is a way back.
    fn check(&self, run: &Run) {
        let (env, Run { output, hit }) = (&self.env, run);
        let decided = self.decided();
        if !decided {
            let live = look(env);
            assert!(live == self.old || live == self.new, "a mixture\n{hit}\n{output}");
        }
        let next = env.xtask(["snapshots", "prune"]).ok();
        assert_eq!(left_behind(&env.data()), [""; 0], "{hit}\n{output}\n{next}");
        let live = content(&env.data());
        if decided {
            let next = next.stderr_has("that is now finished");
            assert!(live == self.new, "not finished\n{hit}\n{output}\n{next}");
        }
        assert!(live == self.old || live == self.new, "a mixture\n{hit}\n{output}");
        let finished = output.code == Some(0);
        assert!(!finished || live == self.new, "not done\n{hit}\n{output}");
        // One whose description cannot be read is not pruned.
        self.check_snapshots(finished && !hit.contains("/backup_"));
        if live != self.old {
            env.xtask(["restore-db", "--undo", "--yes"]).ok();
            assert_same(&content(&env.data()), &self.old);
        }
    }

    fn check_snapshots(&self, finished: bool) {
        let mut gone: BTreeSet<&str> = self.known.keys().map(String::as_str).collect();
        for snapshot in snapshots(&self.env) {
            assert!(snapshot["defect"].is_null(), "{snapshot}");
            let name = snapshot["name"].as_str().expect("a name");
            let found = content(&self.env.data().join(name));
            match self.known.get(name) {
                Some(known) => assert_same(&found, known),
                None => assert!(found == self.old || found == self.new, "{name} is neither"),
            }
            gone.remove(name);
        }
        for name in &gone {
            assert!(self.may_go.iter().any(|may| may == name), "{name} is lost");
        }
        assert!(!finished || gone.len() == self.may_go.len(), "only {gone:?} were removed");
    }
}

/// Whether a call fails so: where there is no time, one that fails for want of room does not
/// fail for another reason as well, unless it is what makes a change last.
fn tries(fault: Fault, syscall: &str) -> bool {
    let has = |list: &str| list.split_whitespace().any(|call| call == syscall);
    long::long() || fault != Fault::Error("EIO") || has("fsync fdatasync") || !has(GROWTH)
}

/// A call that a command may do without: what it does is right all the same, and
/// that is looked at.
fn may_fail(hit: &str) -> bool {
    let text = hit.split_once(' ').map_or("", |(_, text)| text.trim_start());
    let of = |what: &[&str]| what.iter().any(|what| text.contains(what));
    let calls = |names: &[&str]| names.iter().any(|name| text.starts_with(name));
    // Who holds the lock is told to those that wait for it.
    of(&["/.xtask/lock>"])
        // A program that has the set open, most often this one, goes without its name.
        || of(&["/comm>"])
        // So does our own account of the run.
        || of(&["\"/proc/self/status\"", "/status>"])
        // It goes with the next command.
        || calls(&["unlink"])
        // What cannot be read is worth no more than what is not there.
        || (calls(&["read(", "openat(", "getdents64("]) && of(&["/backup_"]))
        // SQLite leaves what lies beside a database where it is, for the next that opens it.
        || (of(&["/repo/data/"]) && !of(&["/.xtask/", "/backup_"]))
}

/// What comes after all is done may fail with a warning.
fn warns(run: &Run) -> bool {
    let stderr = &run.output.stderr;
    ["warning: old snapshots stay: ", " is saved without its sha256: "]
        .iter()
        .any(|warning| stderr.contains(warning))
}
