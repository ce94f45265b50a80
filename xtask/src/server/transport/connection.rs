//! A program that is connected to the server: its input, its output and its end.

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

/// Bytes of standard error that are kept to explain a failure.
const STDERR_TAIL: usize = 8 << 10;
/// Bytes that a writable pipe accepts without blocking, on every system.
const PIPE_BUF: usize = 512;
/// How long the server may take to remove its copies.
const CLOSE: Duration = Duration::from_secs(5);
/// How long to wait for the rest of standard error after the end.
const LAST_WORDS: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(5);
/// How often a sending thread checks whether to stop.
const LOOK: Duration = Duration::from_millis(50);
/// A working server sends a heartbeat every two seconds: a silence of this length is a cut.
pub const STALL: Duration = Duration::from_secs(30);

/// A connected program. When dropped, it gets the time that the server needs to remove its copies;
/// then it is killed and reaped.
pub struct Connection {
    child: Child,
    stdin: Option<ChildStdin>,
    sending: Option<Sending>,
    stdout: Option<ChildStdout>,
    /// The end of its standard error, which a thread reads.
    said: Arc<Mutex<Vec<u8>>>,
    /// The number of bytes received on standard error.
    heard: Arc<AtomicU64>,
    listener: Option<JoinHandle<()>>,
    /// How long it may take to end.
    patience: Duration,
}

/// The end of a connected program.
#[derive(Debug, Default)]
pub struct Ended {
    /// The end of its standard error.
    pub said: String,
    pub code: Option<i32>,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Self { said, code: output.status.code() }
    }
}

/// A message that a thread sends. After the last byte the thread returns the pipe; after an error
/// it has closed it, so that the server does not wait for the rest.
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

    /// Sends the script, the request, or a line.
    pub fn send(&mut self, message: Vec<u8>) {
        self.send_beside(std::iter::once(message));
    }

    /// Sends messages from a thread, while the output is read: a server that does not read has said
    /// why on its output. The input stays open, because its end tells the server that the client is
    /// gone. An error is ignored.
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

    /// Waits until the thread returns the input; not for a server that does not read it.
    fn take_back(&mut self) {
        let Some(Sending { thread, stop }) = self.sending.take() else { return };
        let end = Instant::now() + STALL;
        while !thread.is_finished() {
            if Instant::now() > end || interrupt::sleep(POLL).is_err() {
                stop.store(true, Ordering::Relaxed);
                break;
            }
        }
        self.stdin = thread.join().ok().flatten();
    }

    /// The server's output. With `talks`, the program writes to standard error once it is
    /// connected; otherwise it may ask a question there, and wait for the user.
    ///
    /// # Panics
    ///
    /// At the second call.
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

    /// Tells the server to stop. `wait` says whether to wait for the program; its further output
    /// and status are ignored.
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

    /// Kills a connection over which nothing is received any more.
    pub fn abandon(mut self) {
        // The program may have ended at this moment.
        let _ = self.child.kill();
    }

    /// Whether nothing was received within `limit`, from the server or from the program, which
    /// still runs.
    pub(super) fn is_silent_for(&self, limit: Duration) -> Result<bool> {
        let Some(stdout) = &self.stdout else { return Ok(false) };
        let ready = interrupt::ready(stdout, PollFlags::IN, limit)?;
        Ok(!ready && self.heard.load(Ordering::Relaxed) == 0)
    }

    /// Ends a broken connection; returns the exit code and the end of standard error.
    pub fn last_words(mut self) -> Ended {
        let code = self.end();
        // A background process of the program may keep the pipe open for hours.
        let deadline = Instant::now() + LAST_WORDS;
        let open = |listener: &JoinHandle<()>| !listener.is_finished();
        while self.listener.as_ref().is_some_and(open) && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
        let said = self.said.lock().map(|said| String::from_utf8_lossy(&said).into_owned());
        Ended { said: said.unwrap_or_default(), code }
    }

    /// Closes the input, so that the server removes its copies; kills the program if it does not
    /// end in time. Returns its exit code, also if it has ended before.
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
                    // The program may have ended at this moment.
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

/// The server's output. A read fails if the server is silent for too long.
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

/// How long a program has printed nothing on standard error. It adds up the waits of its caller, so
/// that time in which this process was stopped does not count.
pub struct Silence {
    heard: Arc<AtomicU64>,
    last: u64,
    lasted: Duration,
}

impl Silence {
    /// Adds one wait; returns whether the silence is too long.
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

/// Writes in blocks that a ready pipe accepts without blocking. After an error, the input is
/// closed: else the server would wait for the rest, and this process for its answer.
fn send(mut stdin: ChildStdin, message: &[u8], stopped: impl Fn() -> bool) -> Option<ChildStdin> {
    for part in message.chunks(PIPE_BUF) {
        // Checked between blocks: a slow reader could delay the end for as long as it likes.
        while !stopped() && !interrupt::ready(&stdin, PollFlags::OUT, LOOK).ok()? {}
        if stopped() {
            return None;
        }
        stdin.write_all(part).ok()?;
    }
    Some(stdin)
}

/// Reads to the end, line by line, and keeps the end of the text in `said`. Empty lines are the
/// server's heartbeat.
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
        // This reader ends only with its input.
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
