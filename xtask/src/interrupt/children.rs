//! Child processes, which are ended when this process is asked to end.

use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::NamedTempFile;
use xshell::Cmd;

use super::{LOOK, check, check_late, is_asked};

/// How long a program may take to end by itself, and again after a signal.
const GRACE: Duration = Duration::from_secs(5);

/// Runs a program that does not use the terminal; its whole process group ends with it. Its status
/// is not checked.
///
/// # Errors
///
/// The program does not start, or this process was asked to end.
pub fn output(command: Cmd<'_>) -> Result<Output> {
    let output = output_unless(command, |_| false)?;
    output.context("nothing has told it to end")
}

/// Like [`output`], but ends the program and returns `None` as soon as `stop` says so. `stop` is
/// called after each wait, with the length of that wait.
///
/// # Errors
///
/// As [`output`].
pub fn output_unless(
    command: Cmd<'_>,
    mut stop: impl FnMut(Duration) -> bool,
) -> Result<Option<Output>> {
    let child = alone(command).spawn()?;
    let group = Pid::from_child(&child);
    let mut stopped = false;
    let output = wait(
        Duration::ZERO,
        |signal| kill_process_group(group, signal),
        || {
            stopped = stopped || stop(LOOK);
            stopped
        },
        || child.wait_with_output(),
    )?;
    check()?;
    Ok((!stopped).then_some(output))
}

/// Like [`output`], for a program that reads `input`. It may end without having read all of it.
///
/// # Errors
///
/// As [`output`].
#[cfg(feature = "share")]
pub fn output_of(command: Cmd<'_>, input: Vec<u8>) -> Result<Output> {
    let mut child = alone(command).stdin(Stdio::piped()).spawn()?;
    let group = Pid::from_child(&child);
    let stdin = child.stdin.take();
    let sending = std::thread::spawn(move || {
        let _ = stdin.map(|mut stdin| io::Write::write_all(&mut stdin, &input));
    });
    let end = |signal| kill_process_group(group, signal);
    let output = wait(Duration::ZERO, end, || false, || child.wait_with_output())?;
    // Its end has closed the pipe.
    let _ = sending.join();
    check()?;
    Ok(output)
}

/// Like [`output`], for a program whose output is one text. Only its own end is waited for, not
/// that of programs which it leaves running.
///
/// # Errors
///
/// As [`output`].
pub fn transcript(command: Cmd<'_>) -> Result<(ExitStatus, Vec<u8>)> {
    let mut said = NamedTempFile::new()?;
    let to = said.reopen()?;
    let mut child = alone(command).stdout(to.try_clone()?).stderr(to).spawn()?;
    let group = Pid::from_child(&child);
    let end = |signal| kill_process_group(group, signal);
    let status = wait(Duration::ZERO, end, || false, move || child.wait())?;
    if is_asked() {
        // Nothing of it may go on writing. There may be nothing left of it.
        let _ = end(Signal::KILL);
    }
    check()?;
    let mut text = Vec::new();
    said.read_to_end(&mut text)?;
    Ok((status, text))
}

/// Runs a program that restores an earlier state to its end, even if this process was asked to end.
///
/// # Errors
///
/// The program does not start.
pub fn finish(command: Cmd<'_>) -> io::Result<Output> {
    alone(command).output()
}

/// A program that does not receive the terminal's Ctrl-C.
fn alone(command: Cmd<'_>) -> Command {
    let mut command = Command::from(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    command
}

/// Runs a program that may use the terminal. It receives the terminal's Ctrl-C too, and gets time
/// to end by itself.
///
/// # Errors
///
/// The program does not start, or fails.
pub fn run(command: Cmd<'_>) -> Result<()> {
    let name = command.to_string();
    let mut command = Command::from(command);
    // Standard output is for the data of this program.
    command.stdin(Stdio::null()).stdout(io::stderr());
    let mut child = command.spawn().with_context(|| format!("cannot run `{name}`"))?;
    let pid = Pid::from_child(&child);
    let end = |signal| kill_process(pid, signal);
    let status = wait(GRACE, end, || false, move || child.wait())?;
    if !status.success() {
        check_late()?;
        bail!("`{name}` failed ({status})");
    }
    Ok(())
}

/// Waits for `ended`. If this process is asked to end, or `stop` says so, sends SIGTERM after
/// `grace`, and SIGKILL after [`GRACE`] more.
fn wait<T: Send + 'static>(
    grace: Duration,
    end: impl Fn(Signal) -> rustix::io::Result<()>,
    mut stop: impl FnMut() -> bool,
    ended: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let (tell, told) = channel();
    std::thread::spawn(move || tell.send(ended()));
    let mut asked = None;
    let mut signals = [(grace, Signal::TERM), (grace + GRACE, Signal::KILL)].into_iter().peekable();
    loop {
        match told.recv_timeout(LOOK) {
            Ok(ended) => return Ok(ended?),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => bail!("a thread panicked"),
        }
        if is_asked() || stop() {
            let since = asked.get_or_insert_with(Instant::now).elapsed();
            if let Some((_, signal)) = signals.next_if(|(after, _)| since >= *after) {
                // The program may have ended at this moment.
                let _ = end(signal);
            }
        }
    }
}
