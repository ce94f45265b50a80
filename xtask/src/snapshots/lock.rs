//! The lock for commands that change a data directory. Its file names the holder; the name of a
//! killed one is ignored.

use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::interrupt;

const POLL: Duration = Duration::from_millis(20);
/// How long to wait for the holder's name in the file.
const NAMELESS: Duration = Duration::from_millis(500);

/// Takes the lock; if another command has it, calls `may_wait` once with that command's name, and
/// waits if it succeeds.
///
/// # Errors
///
/// The file cannot be locked, `may_wait` fails, or this process was asked to end.
pub fn take(file: &mut File, path: &Path, may_wait: impl FnOnce(&str) -> Result<()>) -> Result<()> {
    let begun = Instant::now();
    let mut may_wait = Some(may_wait);
    let mut last = None;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        if may_wait.is_some() {
            // A new holder may not have written its name yet: the name must be read twice.
            let now = holder(file)?;
            let holder = now.clone().filter(|_| now == last);
            last = now;
            if holder.is_some() || begun.elapsed() > NAMELESS {
                let holder = holder.as_deref().unwrap_or("another command");
                may_wait.take().map_or(Ok(()), |may_wait| may_wait(holder))?;
            }
        }
        interrupt::sleep(POLL)?;
    }
}

/// Whether a command has the lock.
pub fn is_held(path: &Path) -> bool {
    let file = File::open(path);
    file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Writes the holder's name, for waiting commands. Errors are ignored: with a full disk, commands
/// must still be able to free space.
pub fn sign(file: &mut File, command: &str) {
    let text = format!("{command} (process {})", std::process::id());
    let _ =
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
}

/// The holder's name, if its process is alive.
fn holder(file: &mut File) -> io::Result<Option<String>> {
    let mut text = Vec::new();
    file.rewind()?;
    file.take(1000).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let process = text.strip_suffix(')').and_then(|text| text.rsplit_once(" (process "));
    let process = process.and_then(|(_, id)| Pid::from_raw(id.parse().ok()?));
    let lives = |pid| !matches!(test_kill_process(pid), Err(Errno::SRCH));
    Ok(process.is_some_and(lives).then(|| text.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    #[test]
    fn who_is_dead_or_half_written_does_not_have_the_lock() {
        let mut held = tempfile::tempfile().unwrap();
        let holder_of = |text: &str, held: &mut File| {
            held.set_len(0).unwrap();
            held.rewind().unwrap();
            held.write_all(text.as_bytes()).unwrap();
            holder(held).unwrap()
        };
        let me = format!("cargo xtask pull-db (process {})", std::process::id());
        assert_eq!(holder_of(&me, &mut held), Some(me.clone()));
        // No system assigns these process ids.
        for text in
            ["", "cargo xtask pull-db", "x (process 1", "x (process 2147483647)", "x (process 0)"]
        {
            assert_eq!(holder_of(text, &mut held), None, "{text}");
        }
        sign(&mut held, "x");
        assert_eq!(holder(&mut held).unwrap(), Some(format!("x (process {})", std::process::id())));
    }

    #[test]
    fn what_nobody_has_signed_is_another_command() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = File::create(&path).unwrap();
        first.lock().unwrap();
        let mut second = File::options().read(true).write(true).open(&path).unwrap();
        let error = take(&mut second, &path, |who| bail!("{who}")).unwrap_err();
        assert_eq!(error.to_string(), "another command");
    }
}
