//! Directories for what a command makes on its way. Those of a killed command are removed by the
//! next one.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::{env, io};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::error::Failure;

const PREFIX: &str = "xtask-scratch-";

/// A private directory, which is removed at the end.
pub struct Scratch {
    dir: TempDir,
    /// Tells other commands that it is in use.
    _lock: File,
}

impl Scratch {
    /// # Errors
    ///
    /// The directory cannot be created.
    pub fn new() -> Result<Self> {
        Self::new_in(&env::temp_dir())
    }

    /// # Errors
    ///
    /// The directory cannot be created.
    pub fn new_in(parent: &Path) -> Result<Self> {
        let scratch = loop {
            let made = Self::make(parent).with_context(|| {
                let what = format!("cannot create a temporary directory in {}", parent.display());
                Failure::new(what).hint("set TMPDIR to a writable directory")
            })?;
            if let Some(scratch) = made {
                break scratch;
            }
        };
        scratch.remove_abandoned(parent);
        Ok(scratch)
    }

    /// `None` if another command has removed it before it was locked.
    fn make(parent: &Path) -> io::Result<Option<Self>> {
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        let lock = match File::open(dir.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        // Without locks, those of killed commands stay.
        let _ = lock.lock();
        let is_there = dir.path().exists();
        Ok(is_there.then_some(Self { dir, _lock: lock }))
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Removes the directories of killed commands of this user.
    fn remove_abandoned(&self, parent: &Path) {
        let Ok(owner) = self.path().metadata().map(|ours| ours.uid()) else { return };
        for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX)
                && entry.metadata().is_ok_and(|it| it.is_dir() && it.uid() == owner);
            // Locked until it is gone: a command that has just made it waits, and makes another.
            if is_ours
                && let Ok(dir) = File::open(entry.path())
                && dir.try_lock().is_ok()
            {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_begin_at_once_leave_each_other_their_directories() {
        let parent = tempfile::tempdir().unwrap();
        let begin = || {
            for _ in 0..300 {
                let scratch = Scratch::new_in(parent.path()).unwrap();
                std::thread::yield_now();
                std::fs::write(scratch.path().join("rows"), "text").unwrap();
            }
        };
        std::thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(begin))));
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
