//! A program that is connected to the server: what goes in, what comes out, and
//! how it ends.

use std::io::{self, Read, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::event::PollFlags;
use rustix::process::{Pid, Signal, kill_process};

use crate::error::Failure;
use crate::interrupt;
use crate::ui::Ui;

/// How much of its standard error is kept to explain a failure, in bytes.
const STDERR_TAIL: usize = 8 << 10;
/// What fits into a pipe that is ready, on every system; in bytes.
const PIPE_BUF: usize = 512;
/// How long the server may take to remove its copies.
const CLOSE: Duration = Duration::from_secs(5);
/// How long the last of its standard error may take.
const LAST_WORDS: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(5);
/// How often a thread that sends looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(50);
/// A server that is at work says so every two seconds: silence for so long is a cut.
pub const STALL: Duration = Duration::from_secs(30);

/// A program that talks to the server. Dropped, it gets the time that the server
/// takes to remove its copies; then it is killed and reaped.
pub struct Connection {
    child: Child,
    stdin: Option<ChildStdin>,
    sending: Option<Sending>,
    stdout: Option<ChildStdout>,
    /// The end of what it says, which a thread listens to.
    said: Arc<Mutex<Vec<u8>>>,
    /// How many bytes of its standard error have come.
    heard: Arc<AtomicU64>,
    listener: Option<JoinHandle<()>>,
    /// How long it may take to end.
    patience: Duration,
}

/// How a program that was connected has ended.
#[derive(Debug, Default)]
pub struct Ended {
    /// The last that it said.
    pub said: String,
    pub code: Option<i32>,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Self { said, code: output.status.code() }
    }
}

/// What a thread sends. When all is sent it gives the input back; else it has closed it,
/// so that the server does not wait for the rest.
struct Sending {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Option<ChildStdin>>,
}

impl Connection {
    pub(super) fn start(mut command: Command, ui: &Ui) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| {
                Failure::new(format!("cannot run `{program}`"))
                    .hint(format!("is {program} installed?"))
            })?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (said, heard) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU64::new(0)));
        let listener = child.stderr.take().map(|stderr| {
            let (echo, said, heard) = (ui.echo(), said.clone(), heard.clone());
            std::thread::spawn(move || listen(stderr, &said, &heard, |line| echo.line(line)))
        });
        let patience = CLOSE;
        Ok(Self { child, stdin, sending: None, stdout, said, heard, listener, patience })
    }

    /// Sends the script, the request, or a word. The input stays open: its end tells
    /// the server that nobody waits any more. An error is not one yet: a server
    /// that does not listen says why on its output.
    pub fn send(&mut self, message: &[u8]) {
        self.take_back();
        self.stdin = self.stdin.take().and_then(|stdin| send(stdin, message, || false));
    }

    /// Sends what is still being made, while the server is listened to.
    pub fn send_beside(&mut self, messages: impl Iterator<Item = Vec<u8>> + Send + 'static) {
        self.take_back();
        let Some(stdin) = self.stdin.take() else { return };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let stopped = || stopped.load(Ordering::Relaxed);
            messages.into_iter().try_fold(stdin, |stdin, message| send(stdin, &message, stopped))
        });
        self.sending = Some(Sending { stop, thread });
    }

    /// Waits for the input to be free again.
    fn take_back(&mut self) {
        if let Some(Sending { thread, .. }) = self.sending.take() {
            self.stdin = thread.join().ok().flatten();
        }
    }

    /// The server's output. With `talks`, the program says on standard error that it is
    /// connected; else it may ask there, and wait for a person.
    ///
    /// # Panics
    ///
    /// The second time.
    pub fn take_output(&mut self, talks: bool) -> ServerOutput {
        ServerOutput {
            stdout: self.stdout.take().expect("the output is taken once"),
            begun: false,
            talks,
            silence: self.silence(),
            stalled: false,
        }
    }

    pub fn silence(&self) -> Silence {
        Silence { heard: self.heard.clone(), last: 0, lasted: Duration::ZERO }
    }

    /// Tells the server that it may stop. What the program does later does not matter;
    /// whether it is waited for, `wait` says.
    pub(super) fn release(&mut self, wait: bool) {
        if let Some(Sending { stop, .. }) = &self.sending {
            stop.store(true, Ordering::Relaxed);
        }
        self.take_back();
        let deadline = Instant::now() + LOOK;
        self.stdin.take().and_then(|stdin| send(stdin, b"done\n", || Instant::now() > deadline));
        if !wait {
            self.patience = Duration::ZERO;
        }
    }

    /// Ends a connection over which nothing comes any more.
    pub fn abandon(mut self) {
        // It may have ended in this moment.
        let _ = self.child.kill();
    }

    /// Whether nothing at all is heard for so long, neither of the server nor of
    /// the program, which still runs.
    pub(super) fn is_silent_for(&self, limit: Duration) -> Result<bool> {
        let Some(stdout) = &self.stdout else { return Ok(false) };
        let ready = interrupt::ready(stdout, PollFlags::IN, limit)?;
        Ok(!ready && self.heard.load(Ordering::Relaxed) == 0)
    }

    /// Ends a connection that has broken.
    pub fn last_words(mut self) -> Ended {
        let code = self.end();
        // A program that it left behind may hold the other end for hours.
        let deadline = Instant::now() + LAST_WORDS;
        let open = |listener: &JoinHandle<()>| !listener.is_finished();
        while self.listener.as_ref().is_some_and(open) && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
        let said = self.said.lock().map(|said| String::from_utf8_lossy(&said).into_owned());
        Ended { said: said.unwrap_or_default(), code }
    }

    /// The end of its input lets the server remove its copies; a program that
    /// does not end then is killed. Once it has ended this only says with which code.
    fn end(&mut self) -> Option<i32> {
        if let Some(Sending { stop, .. }) = &self.sending {
            stop.store(true, Ordering::Relaxed);
        }
        self.take_back();
        self.stdin = None;
        self.stdout = None;
        let deadline = Instant::now() + self.patience;
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < deadline => std::thread::sleep(POLL),
                Ok(None) if self.patience.is_zero() => {
                    // It may have ended in this moment.
                    let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
                    return None;
                }
                Ok(None) => {
                    let _ = self.child.kill();
                    let _ = self.child.wait();
                    return None;
                }
                Ok(Some(status)) => return status.code(),
                Err(_) => return None,
            }
        }
    }
}

/// What the server sends. Where it falls silent, reading ends in an error.
pub struct ServerOutput {
    stdout: ChildStdout,
    begun: bool,
    talks: bool,
    silence: Silence,
    pub stalled: bool,
}

impl Read for ServerOutput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.silence.lasted = Duration::ZERO;
        while !interrupt::ready(&self.stdout, PollFlags::IN, LOOK).map_err(io::Error::other)? {
            let last = self.silence.lasts(LOOK);
            if last && (self.begun || self.talks && self.silence.last > 0) {
                self.stalled = true;
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        self.begun = true;
        self.stdout.read(buffer)
    }
}

/// For how long a program has said nothing on its standard error: the sum of its caller's
/// waits, in which the time is missing for which this process was stopped.
pub struct Silence {
    heard: Arc<AtomicU64>,
    last: u64,
    lasted: Duration,
}

impl Silence {
    /// After one more wait; whether that is too long.
    pub fn lasts(&mut self, wait: Duration) -> bool {
        let heard = self.heard.load(Ordering::Relaxed);
        if heard == self.last {
            self.lasted += wait;
        } else {
            (self.last, self.lasted) = (heard, Duration::ZERO);
        }
        self.lasted >= STALL
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.end();
    }
}

/// What a pipe is ready for, it takes without waiting. Where not all can be sent, the
/// input is closed: the server would wait for the rest, and we for its answer.
fn send(mut stdin: ChildStdin, message: &[u8], stopped: impl Fn() -> bool) -> Option<ChildStdin> {
    for part in message.chunks(PIPE_BUF) {
        // Also between parts: who reads slowly could keep us here for as long as it likes.
        while !stopped() && !interrupt::ready(&stdin, PollFlags::OUT, LOOK).ok()? {}
        if stopped() {
            return None;
        }
        stdin.write_all(part).ok()?;
    }
    Some(stdin)
}

/// Reads to the end, line by line, and keeps the last of it in `said`. Empty lines are
/// the server's heartbeat.
fn listen(
    mut input: impl Read,
    said: &Mutex<Vec<u8>>,
    heard: &AtomicU64,
    mut on_line: impl FnMut(&str),
) {
    let mut open = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = input.read(&mut buffer) {
        heard.fetch_add(n as u64, Ordering::Relaxed);
        if buffer[..n].iter().all(|byte| *byte == b'\n') && open.is_empty() {
            continue;
        }
        if let Ok(mut said) = said.lock() {
            said.extend_from_slice(&buffer[..n]);
            let surplus = said.len().saturating_sub(STDERR_TAIL);
            said.drain(..surplus);
        }
        open.extend_from_slice(&buffer[..n]);
        while let Some(end) = open.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = open.drain(..=end).collect();
            match String::from_utf8_lossy(&line).trim_end() {
                "" => {}
                line => on_line(line),
            }
        }
        open.truncate(STDERR_TAIL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xshell::{Shell, cmd};

    fn connected(script: &str) -> Connection {
        let sh = Shell::new().unwrap();
        let ui = Ui::new(true, false, false, false);
        Connection::start(cmd!(sh, "sh -c {script}").into(), &ui).unwrap()
    }

    #[test]
    fn silent_is_who_neither_speaks_nor_ends() {
        let silent = |script: &str, limit: u64| {
            connected(script).is_silent_for(Duration::from_millis(limit)).unwrap()
        };
        assert!(silent("read end", 50));
        for script in ["echo x; read end", "exit 1"] {
            assert!(!silent(script, 60_000), "{script}");
        }
        assert!(!silent("echo x >&2; read end", 2000));
    }

    #[test]
    fn who_does_not_read_what_is_sent_beside_holds_nobody_up() {
        // It ends with its input, and no sooner.
        let slowly = "while [ -n \"$(dd bs=512 count=1 2>/dev/null | tr '\\0' x)\" ]; do :; done";
        for script in ["exec sleep 1000", slowly, "exec cat >/dev/null", "exit 1"] {
            let mut connection = connected(script);
            connection.send_beside(std::iter::repeat_with(|| vec![0; 32 << 10]));
            let start = Instant::now();
            drop(connection);
            assert!(start.elapsed() < CLOSE + LAST_WORDS, "{script}: {:?}", start.elapsed());
        }
    }

    #[test]
    fn the_tail_is_bounded_and_told_line_by_line() {
        let text = "x".repeat(20_000) + "\nlast\n";
        let mut lines = 0;
        let said = Mutex::new(Vec::new());
        listen(text.as_bytes(), &said, &AtomicU64::new(0), |_| lines += 1);
        let kept = said.into_inner().unwrap();
        assert_eq!((kept.len(), lines), (STDERR_TAIL, 2));
        assert!(kept.ends_with(b"last\n"));
    }
}
