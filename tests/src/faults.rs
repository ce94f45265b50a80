//! Faults at a chosen system call: xtask is killed before the call, or the call fails like on a
//! full or broken disk.
//!
//! strace counts the calls of each thread separately. It does not follow the programs that xtask
//! starts: the end of a server is tested in `pull_killed.rs`.

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
    /// The call and all later ones of its kind fail with this error.
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
    /// The number of the call, from 1, in the first thread that reaches it.
    pub nth: usize,
}

impl fmt::Display for Injection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} {}", self.fault, self.syscall, self.nth)
    }
}

/// The result of a run with a fault.
pub struct Run {
    pub output: Output,
    /// The calls that failed, or before which xtask was killed; empty if the run did not reach
    /// them. For an interrupted run, all calls.
    pub hit: String,
}

impl Run {
    pub fn killed(&self) -> bool {
        self.output.code.is_none()
    }
}

/// Printed even if the test passes, when its output is not shown.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Some machines do not let one process trace another.
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
        // Reads and writes of pipes are not affected, so that messages arrive.
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
        // Each thread has its own nth call: one on a pipe may be the cause of the failure.
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
    /// The call with all paths, without the bytes that are read or written.
    pub text: String,
}

/// Runs xtask successfully, and returns its calls of these kinds.
#[track_caller]
pub fn trace(env: &TestEnv, args: &[impl AsRef<str>], syscalls: &[&str]) -> Vec<Call> {
    let (output, trace) = strace(env, args, syscalls, &[]);
    output.ok();
    let call = |line: &str| {
        let (thread, text) = line.split_once(' ')?;
        // The end of an interrupted call has no name on its line.
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

/// Interrupts xtask at its `nth` call of `syscall`, only in its main thread: a second signal would
/// end it at once.
#[track_caller]
pub fn interrupted(env: &TestEnv, args: &[impl AsRef<str>], syscall: &str, nth: usize) -> Run {
    let inject = format!("inject={syscall}:signal=INT:when={nth}");
    let mut strace = under_strace(env, args, &[syscall], &["-e", &inject]);
    let output = Running::start(&mut strace).wait();
    Run { hit: fs::read_to_string(env.path("trace")).expect("read"), output }
}

/// xtask under strace, which records these calls.
pub fn under_strace(
    env: &TestEnv,
    args: &[impl AsRef<str>],
    syscalls: &[&str],
    flags: &[&str],
) -> Command {
    let mut strace = env.command("strace");
    // With a question mark, a call that the architecture lacks is no error.
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
    // Dropping `running` kills the rest of the server's side; it must clean up without that.
    wait_for("the server's side to clean up", || {
        databases::files(&env.path("local-tmp")).is_empty().then_some(())
    });
    let args: Vec<_> = args.iter().map(AsRef::as_ref).collect();
    let output = Output { command: format!("xtask {}", args.join(" ")), ..running.wait() };
    (output, fs::read_to_string(env.path("trace")).expect("read"))
}
