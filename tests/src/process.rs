//! Programs under test: started with a deadline, and always ended.

use std::fs;
use std::io::{Read, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, Once};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT};

use crate::output::Output;

/// The time after which a program counts as hung. Generous: a slow CI machine must not fail a test.
pub const DEADLINE: Duration = Duration::from_secs(900);

/// How long the pipes of a program may stay open after its exit.
const DRAIN: Duration = Duration::from_secs(10);

#[expect(
    clippy::disallowed_methods,
    reason = "tests need what xshell does not give: signals, deadlines and a cleared environment"
)]
pub fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    Command::new(program)
}

/// Polls until `ready` returns a value; panics with `what` at the deadline.
#[track_caller]
pub fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain for {what}");
        // `ready` itself may take milliseconds, for example to scan all processes.
        thread::sleep(pause(start));
    }
}

/// The time between polls: an eighth of the time that has passed.
fn pause(since: Instant) -> Duration {
    (since.elapsed() / 8).clamp(Duration::from_millis(1), Duration::from_millis(25))
}

/// If the tests run in the background, the shell makes them ignore SIGINT, and children inherit
/// that. A handled signal is reset to the default in a child.
fn can_be_interrupted() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for signal in [SIGINT, SIGHUP] {
            let always = Arc::new(AtomicBool::new(true));
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, always)
                .expect("handle a signal");
        }
    });
}

/// A running program; dropping this kills it and its children.
pub struct Running {
    child: Child,
    describe: String,
    stdout: Pipe,
    stderr: Pipe,
    started: Instant,
}

impl Running {
    /// Starts the command with empty stdin.
    #[track_caller]
    pub fn start(command: &mut Command) -> Running {
        command.stdin(Stdio::null());
        Running::spawn(command)
    }

    /// Starts the command with `input` as its stdin.
    #[track_caller]
    pub fn start_with_stdin(command: &mut Command, input: impl Into<Vec<u8>>) -> Running {
        command.stdin(Stdio::piped());
        let mut running = Running::spawn(command);
        let mut stdin = running.child.stdin.take().expect("stdin is piped");
        let input = input.into();
        // In a thread, because a program may answer before it has read everything. A write error
        // means that the program does not read its input.
        thread::spawn(move || drop(stdin.write_all(&input)));
        running
    }

    #[track_caller]
    fn spawn(command: &mut Command) -> Running {
        use std::os::unix::process::CommandExt as _;

        can_be_interrupted();
        let describe = format!("{command:?}");
        // Its own group, so that a hung program can be killed with its children.
        command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("cannot start {describe}: {error}"));
        let stdout = Pipe::collect(child.stdout.take().expect("stdout is piped"));
        let stderr = Pipe::collect(child.stderr.take().expect("stderr is piped"));
        Running { child, describe, stdout, stderr, started: Instant::now() }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn stdout_so_far(&self) -> Vec<u8> {
        self.stdout.bytes()
    }

    pub fn stderr_so_far(&self) -> String {
        String::from_utf8_lossy(&self.stderr.bytes()).into_owned()
    }

    pub fn has_exited(&mut self) -> bool {
        self.child.try_wait().expect("the child is ours").is_some()
    }

    /// Sends SIGINT to the whole group, as a terminal does at Ctrl-C.
    pub fn interrupt(&self) {
        kill_process_group(self.pid(), Signal::INT).expect("the group exists");
    }

    /// Sends SIGINT to the program alone.
    pub fn interrupt_alone(&self) {
        self.signal(Signal::INT);
    }

    /// Sends a signal to the program alone.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the program exists");
    }

    /// Sends SIGKILL to the program alone: its children must notice by themselves.
    pub fn kill(&mut self) {
        self.child.kill().expect("the child is ours");
    }

    #[track_caller]
    pub fn wait_for_stderr(&mut self, text: &str) {
        self.wait_for(&format!("{text:?} on stderr"), |running| {
            running.stderr_so_far().contains(text)
        });
    }

    #[track_caller]
    pub fn wait_for(&mut self, what: &str, ready: impl Fn(&Running) -> bool) {
        while !ready(self) {
            let has_exited = self.has_exited();
            if has_exited {
                // What it said last may not have been read yet.
                self.drain();
            }
            let gone = has_exited && !ready(self);
            if gone || self.started.elapsed() > DEADLINE {
                panic!("waited in vain for {what}\n{}", self.output(None));
            }
            thread::sleep(pause(self.started));
        }
    }

    /// Waits for the end. Panics with the output so far if the program hangs, or leaves a child
    /// that keeps its pipes open.
    #[track_caller]
    pub fn wait(mut self) -> Output {
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                break status;
            }
            if self.started.elapsed() > DEADLINE {
                panic!("still running after {DEADLINE:?}\n{}", self.output(None));
            }
            thread::sleep(pause(self.started));
        };
        if !self.drain() {
            panic!("exited, but left a process with its pipes\n{}", self.output(None));
        }
        self.output(status.code())
    }

    /// Waits for the rest of the output of a program that has exited; returns whether its pipes are
    /// closed.
    fn drain(&self) -> bool {
        let end = Instant::now() + DRAIN;
        while !(self.stdout.closed() && self.stderr.closed()) {
            if Instant::now() > end {
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
        true
    }

    fn output(&self, code: Option<i32>) -> Output {
        Output {
            command: self.describe.clone(),
            stdout: self.stdout.bytes(),
            stderr: self.stderr_so_far(),
            code,
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The group may have ended already.
        let _ = kill_process_group(self.pid(), Signal::KILL);
        drop(self.child.wait());
    }
}

/// Collects the output of a program, so that it never blocks on a full pipe.
struct Pipe {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Pipe {
    fn collect(mut from: impl Read + Send + 'static) -> Pipe {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                sink.lock().expect("no reader panics").extend_from_slice(&buffer[..n]);
            }
        });
        Pipe { bytes, reader }
    }

    fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().expect("no reader panics").clone()
    }

    fn closed(&self) -> bool {
        self.reader.is_finished()
    }
}

/// Kills a process and its descendants. Its process group is not enough: sshd starts a session for
/// each connection.
pub fn kill_tree(root: u32) {
    let listing = command("ps").args(["-A", "-o", "pid=,ppid="]).output().expect("ps runs");
    let parents: Vec<(u32, u32)> = String::from_utf8_lossy(&listing.stdout)
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().map(str::parse);
            Some((words.next()?.ok()?, words.next()?.ok()?))
        })
        .collect();
    let mut doomed = vec![root];
    let mut next = 0;
    while let Some(&parent) = doomed.get(next) {
        doomed.extend(parents.iter().filter(|pair| pair.1 == parent).map(|pair| pair.0));
        next += 1;
    }
    doomed.into_iter().for_each(kill_one);
}

/// Kills every process whose environment contains `text`. A session that lost its connection is an
/// orphan, but has inherited its environment. Does nothing without /proc.
pub fn kill_by_environment(text: &str) {
    find_by_environment(text).into_iter().for_each(|(pid, _)| kill_one(pid));
}

/// The processes whose environment contains `text`, each with the name of its program.
pub fn find_by_environment(text: &str) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment.windows(text.len()).any(|window| window == text.as_bytes())
            && let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok())
        {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            found.push((pid, name.trim().to_owned()));
        }
    }
    found
}

fn kill_one(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // The process may have ended meanwhile.
    let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
}
