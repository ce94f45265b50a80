//! The journal of a replacement: what has been decided, and is done by this
//! run or the next.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::{Live, STAGED, State, read_json, remove_sidecars};
use crate::durable;
use crate::error::Failure;
use crate::snapshots::Store;
use crate::ui::escape;

pub(super) const JOURNAL: &str = "journal.json";

/// A replacement that has been decided.
#[derive(Deserialize, Serialize)]
pub(super) struct Journal {
    /// Staged under their own names.
    pub install: Vec<String>,
    pub remove: Vec<String>,
    pub state: State,
}

impl Journal {
    pub fn write(&self, store: &Store) -> Result<()> {
        durable::write(&store.state_dir().join(JOURNAL), &serde_json::to_vec_pretty(self)?)
    }

    /// Those that have not been put in place yet.
    fn pending(&self, store: &Store) -> Vec<&String> {
        let staged = store.state_dir().join(STAGED);
        self.install.iter().filter(|name| staged.join(name).exists()).collect()
    }

    /// Those that have not been removed yet. All are gone before the first is
    /// put in place: one that is there after that was made by a program since.
    fn unremoved(&self, store: &Store) -> Vec<&String> {
        let begun = self.pending(store).len() < self.install.len();
        self.remove.iter().filter(|_| !begun).collect()
    }

    /// Does what has not been done yet. What lies beside a database goes
    /// first, and for good: an old `-wal` must never meet a new database.
    pub fn finish(&self, store: &Store) -> Result<()> {
        let (pending, unremoved) = (self.pending(store), self.unremoved(store));
        for name in pending.iter().chain(&unremoved) {
            remove_sidecars(&store.dir.join(name))?;
        }
        for name in unremoved {
            durable::remove(&store.dir.join(name))?;
        }
        durable::sync_dir(&store.dir)?;
        let staged = store.state_dir().join(STAGED);
        for name in pending {
            durable::rename(&staged.join(name), &store.dir.join(name))?;
        }
        durable::sync_dir(&store.dir)?;
        self.state.write(store)?;
        remove_staged(store)?;
        durable::remove(&store.state_dir().join(JOURNAL))?;
        durable::sync_dir(&store.state_dir())
    }
}

pub(super) fn remove_staged(store: &Store) -> Result<()> {
    let staged = store.state_dir().join(STAGED);
    if staged.exists() {
        std::fs::remove_dir_all(&staged)
            .with_context(|| format!("cannot remove {}", staged.display()))?;
    }
    Ok(())
}

/// Throws away what was staged, unless it has been decided.
pub(super) fn undo(store: &Store) -> Result<()> {
    if store.state_dir().join(JOURNAL).exists() { Ok(()) } else { remove_staged(store) }
}

impl Live<'_> {
    /// Finishes or undoes what a killed run left, and says which.
    ///
    /// # Errors
    ///
    /// It cannot be finished, or a program has the set open: the next command
    /// will try again.
    pub(super) fn recover(&self) -> Result<()> {
        let path = self.store.state_dir().join(JOURNAL);
        let journal = read_json::<Journal>(&path).with_context(|| {
            Failure::new("a run was killed while it replaced the live set, and cannot be finished")
                .hint(format!(
                    "look at {} and what is in staged/ beside it, then remove both",
                    path.display()
                ))
        })?;
        if let Some(journal) = journal {
            let names: Vec<_> = journal
                .pending(&self.store)
                .into_iter()
                .chain(journal.unremoved(&self.store))
                .cloned()
                .collect();
            let name = escape(journal.state.live.as_deref().unwrap_or_default());
            self.refuse_if_open(&names).with_context(|| {
                format!("a run was killed while it put {name} in place, and must be finished first")
            })?;
            journal.finish(&self.store)?;
            self.ui.warn(format!(
                "a run was killed while it put {name} in place: that is now finished"
            ));
        } else if self.store.state_dir().join(STAGED).exists() {
            remove_staged(&self.store)?;
            self.ui.warn("a run was killed before it changed the live set, which is as it was");
        }
        Ok(())
    }
}
