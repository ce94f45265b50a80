//! Faults at a chosen system call: xtask is killed instead of it, or it fails as
//! on a full or a broken disk.
//!
//! strace counts the calls of each thread by itself, and lets go of the programs
//! that xtask starts: a server's side that dies is another test (`pull_killed.rs`).

use std::fmt;
use std::fs;
use std::io::Write as _;
use std::process::Command;
use std::sync::OnceLock;

use crate::env::TestEnv;
use crate::output::Output;
use crate::process::{Running, command, wait_for};
use crate::{binaries, databases, shells};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Kill,
    /// The call fails with this, and so do all of its kind that come after it.
    Error(&'static str),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Kill => "kill",
            Fault::Error(error) => error,
        })
    }
}

pub struct Injection<'a> {
    pub syscall: &'a str,
    pub fault: Fault,
    /// From 1, in the first thread that gets so far.
    pub nth: usize,
}

impl fmt::Display for Injection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} {}", self.fault, self.syscall, self.nth)
    }
}

/// A run with a fault.
pub struct Run {
    pub output: Output,
    /// The calls that failed, or the one instead of which it was killed; empty
    /// when the run did not get so far. Of an interrupted one, all.
    pub hit: String,
}

impl Run {
    pub fn killed(&self) -> bool {
        self.output.code.is_none()
    }
}

/// Also when the test passes, whose output is not shown then.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Not every machine lets one process trace another.
pub fn can_trace() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| {
        let traced =
            command(shells::find("strace")).args(["-qq", "-o", "/dev/null", "true"]).status();
        let can = traced.is_ok_and(|status| status.success());
        if !can {
            say("skipped: strace may not trace here");
        }
        can
    })
}

/// Runs xtask with a fault.
#[track_caller]
pub fn inject(env: &TestEnv, args: &[impl AsRef<str>], injection: &Injection<'_>) -> Run {
    let Injection { syscall, fault, nth } = injection;
    let what = match fault {
        Fault::Kill => format!("signal=KILL:when={nth}"),
        // Pipes are read and written too: what is said has to arrive.
        Fault::Error(error) if ["read", "write"].contains(syscall) => {
            format!("error={error}:when={nth}")
        }
        Fault::Error(error) => format!("error={error}:when={nth}+"),
    };
    let (output, trace) =
        strace(env, args, &[*syscall], &["-e", &format!("inject={syscall}:{what}")]);
    let mut lines = trace.lines();
    let mut injected = trace.lines().filter(|line| line.ends_with("(INJECTED)"));
    let hit = match fault {
        Fault::Kill if output.code.is_none() => lines.rfind(|line| line.contains('(')),
        Fault::Kill => None,
        // Each thread has an nth call: if one of these is on a pipe, that may be to blame.
        Fault::Error(_) => {
            injected.clone().find(|line| line.contains("<pipe:")).or(injected.next())
        }
    };
    Run { hit: hit.unwrap_or_default().to_owned(), output }
}

/// One call of a run.
pub struct Call {
    pub thread: u32,
    pub syscall: String,
    /// With all paths, and nothing of what is read or written.
    pub text: String,
}

/// Runs xtask to its good end, and lists these of its calls.
#[track_caller]
pub fn trace(env: &TestEnv, args: &[impl AsRef<str>], syscalls: &[&str]) -> Vec<Call> {
    let (output, trace) = strace(env, args, syscalls, &[]);
    output.ok();
    let call = |line: &str| {
        let (thread, text) = line.split_once(' ')?;
        // The end of a call that another thread interrupted has no name there.
        let (syscall, _) = text.trim_start().split_once('(')?;
        let known = syscalls.contains(&syscall);
        known.then(|| Call {
            thread: thread.parse().expect("strace -f says which thread"),
            syscall: syscall.to_owned(),
            text: text.to_owned(),
        })
    };
    trace.lines().filter_map(call).collect()
}

/// Runs xtask, and interrupts it at its `nth` call of `syscall`. Only its main thread
/// is watched, none of its children: a second signal would not be heeded, but end it.
#[track_caller]
pub fn interrupted(env: &TestEnv, args: &[impl AsRef<str>], syscall: &str, nth: usize) -> Run {
    let inject = format!("inject={syscall}:signal=INT:when={nth}");
    let mut strace = under_strace(env, args, &[syscall], &["-e", &inject]);
    let output = Running::start(&mut strace).wait();
    Run { hit: fs::read_to_string(env.path("trace")).expect("read"), output }
}

/// xtask, with a trace of these of its calls.
pub fn under_strace(
    env: &TestEnv,
    args: &[impl AsRef<str>],
    syscalls: &[&str],
    flags: &[&str],
) -> Command {
    let mut strace = env.command("strace");
    // A question mark: not every architecture has all of them.
    strace.args(["-qq", "-s", "0", "-e", &format!("trace=?{}", syscalls.join(",?"))]);
    strace.args(flags).arg("-o").arg(env.path("trace"));
    strace.arg(binaries::xtask()).args(args.iter().map(AsRef::as_ref));
    strace.env("CARGO_MANIFEST_DIR", env.path("repo/xtask"));
    strace
}

#[track_caller]
fn strace(
    env: &TestEnv,
    args: &[impl AsRef<str>],
    syscalls: &[&str],
    flags: &[&str],
) -> (Output, String) {
    let flags = [&["-f", "--detach-on=execve", "-y"], flags].concat();
    let mut running = Running::start(&mut under_strace(env, args, syscalls, &flags));
    wait_for("xtask to end", || running.has_exited().then_some(()));
    // When `running` goes, it kills what is left of the server's side: that must not help it.
    wait_for("the server's side to clean up", || {
        databases::files(&env.path("local-tmp")).is_empty().then_some(())
    });
    let args: Vec<_> = args.iter().map(AsRef::as_ref).collect();
    let output = Output { command: format!("xtask {}", args.join(" ")), ..running.wait() };
    (output, fs::read_to_string(env.path("trace")).expect("read"))
}
