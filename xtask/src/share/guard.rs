//! Keeps publishes away from the deletions of a prune. A prune marks the store before it replaces the index. A
//! publish that has read the index and finds no mark then stores its objects after all deletions, or
//! cannot replace the index that it has read.

use std::time::Duration;

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};

use super::vault::Vault;
use crate::{fs, interrupt};

/// How long a mark counts after the last sign of its prune, which may have been killed.
const LEASE: SignedDuration = SignedDuration::from_mins(10);
const POLL: Duration = Duration::from_secs(1);

/// The mark of a prune, which goes when this is dropped.
pub struct Guard<'a> {
    vault: &'a Vault<'a>,
    name: String,
}

impl<'a> Guard<'a> {
    /// # Errors
    ///
    /// The store cannot be written.
    pub fn new(vault: &'a Vault<'_>) -> Result<Self> {
        let id = format!("{} {}", std::process::id(), Timestamp::now());
        let guard = Self { vault, name: fs::sha256_of(id.as_bytes()) };
        guard.renew()?;
        Ok(guard)
    }

    /// Shows that the prune goes on.
    ///
    /// # Errors
    ///
    /// The store cannot be written.
    pub fn renew(&self) -> Result<()> {
        self.vault.mark(&self.name)
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.vault.unmark(&self.name);
    }
}

/// Waits until no prune deletes objects, after it was told so.
///
/// # Errors
///
/// The store cannot be read, or this process was asked to end.
pub fn wait_for_prunes(vault: &Vault<'_>, tell: impl Fn()) -> Result<()> {
    let mut is_told = false;
    while is_marked(vault)? {
        if !std::mem::replace(&mut is_told, true) {
            tell();
        }
        interrupt::sleep(POLL)?;
    }
    Ok(())
}

fn is_marked(vault: &Vault<'_>) -> Result<bool> {
    let now = Timestamp::now();
    Ok(vault.marks()?.into_iter().any(|time| now.duration_since(time) < LEASE))
}
