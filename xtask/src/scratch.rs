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
        let Ok(lock) = File::open(dir.path()) else { return Ok(None) };
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
            let is_abandoned = entry.file_name().to_string_lossy().starts_with(PREFIX)
                && entry.metadata().is_ok_and(|it| it.is_dir() && it.uid() == owner)
                && File::open(entry.path()).is_ok_and(|dir| dir.try_lock().is_ok());
            if is_abandoned {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
}
