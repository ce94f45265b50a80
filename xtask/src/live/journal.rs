//! The journal of a replacement: what has been decided, and is done by this
//! run or the next.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use xshell::Shell;

use super::locked_db::{self, LockedDb};
use super::state::read_json;
use super::{STAGED, State};
use crate::fs;
use crate::snapshots::Store;

pub(super) const JOURNAL: &str = "journal.json";

/// A replacement that has been decided.
#[derive(Deserialize, Serialize)]
pub(super) struct Journal {
    /// Staged under their own names.
    pub install: Vec<String>,
    pub remove: Vec<String>,
    /// Those that are changed under programs that have them open. What is staged
    /// of them says by its schema cookie whether that has happened.
    #[serde(default)]
    pub in_place: Vec<String>,
    /// Whether what is replaced is saved first.
    #[serde(default)]
    pub save: bool,
    pub state: State,
}

impl Journal {
    pub fn write(&self, store: &Store) -> Result<()> {
        fs::write(&store.state_dir().join(JOURNAL), &serde_json::to_vec_pretty(self)?)
    }

    /// Those that have not been put in place yet.
    pub fn pending(&self, store: &Store) -> Vec<&String> {
        let staged = store.state_dir().join(STAGED);
        self.install.iter().filter(|name| staged.join(name).exists()).collect()
    }

    /// Those that have not been removed yet. All are gone before the first is
    /// put in place: one that is there after that was made by a program since.
    pub fn unremoved(&self, store: &Store) -> Vec<&String> {
        let begun = self.pending(store).len() < self.install.len();
        self.remove.iter().filter(|_| !begun).collect()
    }

    /// Does what has not been done yet with what is locked, all that is pending.
    /// What lies beside a database goes first, and for good: an old `-wal` must
    /// never meet a new database.
    pub fn commit(&self, store: &Store, sh: &Shell, locked: Vec<LockedDb>) -> Result<()> {
        for one in &locked {
            one.remove_sidecars()?;
        }
        fs::sync(&store.dir)?;
        locked_db::install(sh, locked)?;
        fs::sync(&store.dir)?;
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

/// Throws away what was staged, unless it has been decided.
pub(super) fn undo(store: &Store) -> Result<()> {
    if store.state_dir().join(JOURNAL).exists() { Ok(()) } else { remove_staged(store) }
}

/// The snapshots that are live, or the way back, or are about to be.
///
/// # Errors
///
/// It is not known.
pub fn needed(store: &Store) -> Result<Vec<String>> {
    let journal = read_json::<Journal>(&store.state_dir().join(JOURNAL))?;
    let states = [Some(State::read(store)?), journal.map(|journal| journal.state)];
    let names = states.into_iter().flatten().flat_map(|state| [state.live, state.before]);
    Ok(names.flatten().collect())
}

/// Whether a run is replacing the live set, or was killed while it did.
pub fn is_being_replaced(store: &Store) -> bool {
    store.state_dir().join(JOURNAL).exists()
}
