//! The journal of a replacement: what has been decided, and is done by this
//! run or the next.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use xshell::Shell;

use super::hold::{self, LockedDb};
use super::save::{self, Copies};
use super::shared::is_done;
use super::state::read_json;
use super::{LockedLiveSet, STAGED, State};
use crate::error::Failure;
use crate::snapshots::{Kind, Store};
use crate::ui::escape;
use crate::{fs, pages};

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

    /// Does what has not been done yet with what is held, all that is pending.
    /// What lies beside a database goes first, and for good: an old `-wal` must
    /// never meet a new database.
    pub fn commit(&self, store: &Store, sh: &Shell, held: Vec<LockedDb>) -> Result<()> {
        for one in &held {
            one.remove_sidecars()?;
        }
        fs::sync(&store.dir)?;
        hold::install(sh, held)?;
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
        std::fs::remove_dir_all(&staged)
            .with_context(|| format!("cannot remove {}", staged.display()))?;
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

impl LockedLiveSet<'_> {
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
        if let Some(mut journal) = journal {
            let name = escape(journal.state.live.as_deref().unwrap_or_default());
            self.roll_forward(&mut journal).with_context(|| {
                format!("a run was killed while it put {name} in place, and must be finished first")
            })?;
            self.ui.warn(format!(
                "a run was killed while it put {name} in place: that is now finished"
            ));
        } else if self.store.state_dir().join(STAGED).exists() {
            remove_staged(&self.store)?;
            self.ui.warn("a run was killed before it changed the live set, which is as it was");
        }
        Ok(())
    }

    /// What was put in place before the kill may have been written to since, and
    /// stays. So does what was written to since and is not in place yet: as a snapshot.
    fn roll_forward(&self, journal: &mut Journal) -> Result<()> {
        let staged = self.store.state_dir().join(STAGED);
        for name in &journal.in_place {
            let (path, staged) = (self.store.dir.join(name), staged.join(name));
            if staged.exists() && is_done(&path, &staged, self.wait)? {
                fs::remove(&staged)?;
            }
        }
        let remove: Vec<_> = journal.unremoved(&self.store).into_iter().cloned().collect();
        let install: Vec<_> = journal.pending(&self.store).into_iter().cloned().collect();
        let mut held = self.hold(&remove, &install)?;
        // Also where there was nothing to save: a program may have made one since.
        let save = journal.save || journal.state.before.is_some();
        let mut copies =
            if save && !held.is_empty() { self.copy(self.databases()?, &mut held)? } else { None };
        if let Some(copies) = &mut copies {
            // What is in place already is no longer what the state says.
            let pending = |name: &String| remove.contains(name) || install.contains(name);
            let in_place = journal.state.raw(&self.store).into_iter().filter(|name| !pending(name));
            copies.raw.retain(pending);
            copies.raw.extend(in_place);
        }
        hold::lock(&mut held, self.wait)?;
        journal.in_place.extend(save::write(&mut held, copies.as_mut())?);
        let saved = match copies {
            Some(copies) if !self.already_saved(&journal.state, &copies, &held)? => {
                Some(self.keep(copies, Kind::BeforeRestore)?)
            }
            _ => None,
        };
        let is_there = |name: &String| self.store.dir.join(name).exists();
        if let Some(saved) = &saved
            && !journal.state.before.as_ref().is_some_and(is_there)
        {
            journal.state.before = Some(saved.name.clone());
        }
        journal.write(&self.store)?;
        journal.commit(&self.store, self.sh, held)?;
        if let Some(saved) = saved {
            self.ui.warn(format!("what was written to it since is in {}", saved.name));
            self.backfill_hashes(&saved);
        }
        Ok(())
    }

    /// Whether each copy of what is held is also in what was, or in what is to be.
    fn already_saved(&self, state: &State, copies: &Copies<'_>, held: &[LockedDb]) -> Result<bool> {
        for one in held {
            let copy = copies.path(&one.name);
            let mut found = !copy.exists();
            for snapshot in state.before.iter().chain(&state.live) {
                let kept = self.store.dir.join(snapshot).join(&one.name);
                found = found || (kept.exists() && pages::same_content(&kept, &copy)?);
            }
            if !found {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
