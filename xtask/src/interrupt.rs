//! Ctrl-C and other signals that ask this process to end: they set a flag, which is checked
//! wherever time is spent, so that everything is cleaned up. A second signal ends the process at
//! once.
//!
//! Nothing checks the flag once the journal of a replacement is written.

mod children;

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rusqlite::Connection;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_shutdown};

#[cfg(feature = "share")]
pub use self::children::output_of;
pub use self::children::{finish, output, output_unless, run, transcript};
use crate::error::{Exit, Failure};

/// The interval of checks, if nothing else wakes the thread up.
const LOOK: Duration = Duration::from_millis(50);
/// SQLite checks the flag after this number of its instructions: some milliseconds.
const OPERATIONS: i32 = 100_000;

/// How long after another program's signal ours may arrive: a thousand times the usual delay.
const LATE: Duration = Duration::from_millis(100);

static ASKED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// The cause of an interrupted command. If a [`Failure`] is above it, that says what was changed;
/// else nothing was.
#[derive(Debug)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Installs the signal handlers.
///
/// # Errors
///
/// The system refuses a handler.
pub fn watch() -> io::Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        if is_ignored(signal) {
            continue;
        }
        // When a terminal closes, both the kernel and the shell send SIGHUP.
        if signal != SIGHUP {
            register_conditional_shutdown(signal, Exit::Declined as i32, ASKED.clone())?;
        }
        register(signal, ASKED.clone())?;
    }
    Ok(())
}

/// Whether the signal is ignored, because of `nohup` or because a shell started this in the
/// background. Only Linux tells.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

pub fn is_asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}

/// Fails if this process was asked to end.
pub fn check() -> Result<(), Interrupted> {
    if is_asked() { Err(Interrupted) } else { Ok(()) }
}

/// Replaces an error by the interrupt that caused it: on a terminal, Ctrl-C also ends the programs
/// that we started. Only for code that changes nothing here.
pub fn prefer_interrupt(error: anyhow::Error) -> anyhow::Error {
    if check_late().is_err() { Interrupted.into() } else { error }
}

/// Like [`check`], after another program failed: the system may send that program's signal first.
fn check_late() -> Result<(), Interrupted> {
    sleep(LATE)
}

/// An error as it is printed.
pub fn into_user_error(error: anyhow::Error) -> anyhow::Error {
    if error.root_cause().is::<Interrupted>() && error.downcast_ref::<Failure>().is_none() {
        return Failure::declined("interrupted; nothing was changed").into();
    }
    error
}

/// Sleeps.
///
/// # Errors
///
/// This process was asked to end.
pub fn sleep(time: Duration) -> Result<(), Interrupted> {
    let end = Instant::now() + time;
    loop {
        check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(LOOK));
    }
}

/// Runs `work` in a thread and waits for it; if interrupted, leaves the thread running.
///
/// # Errors
///
/// This process was asked to end.
pub fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let (tell, told) = channel();
    std::thread::spawn(move || tell.send(work()));
    loop {
        match told.recv_timeout(LOOK) {
            Ok(done) => return Ok(done),
            Err(RecvTimeoutError::Timeout) => check()?,
            Err(RecvTimeoutError::Disconnected) => bail!("a thread panicked"),
        }
    }
}

/// Waits until a pipe can be read or written, at most `limit`; returns whether it can.
///
/// # Errors
///
/// This process was asked to end, or the pipe cannot be polled.
pub fn ready(pipe: impl AsFd, flags: PollFlags, limit: Duration) -> Result<bool> {
    let end = Instant::now().checked_add(limit);
    loop {
        check()?;
        let left = end.map_or(LOOK, |end| end.saturating_duration_since(Instant::now()).min(LOOK));
        match poll(&mut [PollFd::new(&pipe, flags)], Some(&Timespec::try_from(left)?)) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Makes statements on `db` fail once this process was asked to end.
///
/// # Errors
///
/// SQLite refuses the progress handler.
pub fn run_interruptibly(db: &mut Connection) -> rusqlite::Result<()> {
    db.progress_handler(OPERATIONS, Some(is_asked))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn nothing_was_changed_unless_something_says_what() {
        let told = |error: anyhow::Error| crate::error::chain(&into_user_error(error));
        let error = || Err::<(), _>(Interrupted).context("cannot save the current data");
        assert_eq!(told(error().unwrap_err()), ["interrupted; nothing was changed"]);
        let so = error().context(Failure::new("it was pulled")).unwrap_err();
        assert_eq!(told(so), ["it was pulled", "cannot save the current data", "interrupted"]);
        assert_eq!(told(Failure::new("no app").into()), ["no app"]);
    }

    #[test]
    fn what_is_done_beside_is_waited_for() {
        assert_eq!(beside(|| 1).unwrap(), 1);
        let (reader, writer) = io::pipe().unwrap();
        assert!(!ready(&reader, PollFlags::IN, Duration::from_millis(1)).unwrap());
        drop(writer);
        assert!(ready(&reader, PollFlags::IN, Duration::MAX).unwrap());
    }
}
