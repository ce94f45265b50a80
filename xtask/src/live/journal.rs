//! The journal of a replacement: the decided steps, which this run or the next one executes.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use xshell::Shell;

use super::locked_db::{self, LockedDb};
use super::state::read_json;
use super::{STAGED, State};
use crate::fs;
use crate::snapshots::Store;

pub(super) const JOURNAL: &str = "journal.json";

/// A decided replacement.
#[derive(Deserialize, Serialize)]
pub(super) struct Journal {
    /// The databases to install, staged under their own names.
    pub install: Vec<String>,
    pub remove: Vec<String>,
    /// The databases that are changed while programs have them open. The schema cookie of the
    /// staged file tells whether its transaction was committed.
    #[serde(default)]
    pub in_place: Vec<String>,
    /// Whether the replaced databases are saved first.
    #[serde(default)]
    pub save: bool,
    pub state: State,
}

impl Journal {
    pub fn write(&self, store: &Store) -> Result<()> {
        self.state.reserve(store)?;
        // After a power cut, what is staged is there if the journal is.
        fs::sync(&store.state_dir())?;
        fs::write(&store.state_dir().join(JOURNAL), &serde_json::to_vec_pretty(self)?)
    }

    /// The databases that are not installed yet.
    pub fn pending(&self, store: &Store) -> Vec<&String> {
        let staged = store.state_dir().join(STAGED);
        self.install.iter().filter(|name| staged.join(name).exists()).collect()
    }

    /// The databases that are not removed yet. All are removed before the first is installed: one
    /// that exists after that was created by a program since.
    pub fn unremoved(&self, store: &Store) -> Vec<&String> {
        let begun = self.pending(store).len() < self.install.len();
        self.remove.iter().filter(|_| !begun).collect()
    }

    /// Executes the remaining steps with the locked databases. Sidecars are removed first: a new
    /// database must never meet an old `-wal`.
    pub fn commit(&self, store: &Store, sh: &Shell, locked: Vec<LockedDb>) -> Result<()> {
        for one in &locked {
            one.remove_sidecars()?;
        }
        let sync = || fs::sync_dirs(&store.dir, self.install.iter().chain(&self.remove));
        sync()?;
        locked_db::install(sh, locked)?;
        sync()?;
        self.remove.iter().for_each(|name| fs::remove_empty_parents(&store.dir, name));
        self.state.write(store)?;
        remove_staged(store)?;
        fs::remove(&store.state_dir().join(JOURNAL))?;
        fs::sync(&store.state_dir())
    }
}

pub(super) fn remove_staged(store: &Store) -> Result<()> {
    let staged = store.state_dir().join(STAGED);
    if staged.exists() {
        fs_err::remove_dir_all(&staged)?;
    }
    Ok(())
}

/// Removes the staged files, unless the replacement is decided.
pub(super) fn undo(store: &Store) -> Result<()> {
    if store.state_dir().join(JOURNAL).exists() { Ok(()) } else { remove_staged(store) }
}

/// The snapshots that are or will be live, or that `restore-db --undo` needs.
///
/// # Errors
///
/// The journal or the state cannot be read.
pub fn needed(store: &Store) -> Result<Vec<String>> {
    let journal = read_json::<Journal>(&store.state_dir().join(JOURNAL))?;
    let states = [Some(State::read(store)?), journal.map(|journal| journal.state)];
    Ok(states.iter().flatten().flat_map(State::needed).collect())
}

/// Whether a run is replacing the live set, or was killed while it did.
pub fn is_being_replaced(store: &Store) -> bool {
    store.state_dir().join(JOURNAL).exists()
}
