//! The live set: saved as a snapshot, replaced by one. Nothing else changes it.
//!
//! A replacement is staged beside the set and synced. Then a journal is written,
//! and from that moment it happens: a killed run is finished by the next
//! command. Without a journal nothing has been changed yet, and what was staged
//! is thrown away.

mod journal;
mod save;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use glob::Pattern;
use serde::{Deserialize, Serialize};
use xshell::Shell;

use self::journal::Journal;
pub use self::save::Saved;
use crate::error::Failure;
use crate::settings::{Names, Settings};
use crate::snapshots::{Kind, LockedStore, Snapshot, Store};
use crate::sqlite::SIDECARS;
use crate::ui::Ui;
use crate::{Context, durable, holders, sqlite};

const STATE: &str = "state.json";
const STAGED: &str = "staged";

/// Where the live set came from, and the way back.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct State {
    /// The snapshot that was last put in place.
    pub live: Option<String>,
    /// The snapshot that holds what was live before that.
    pub before: Option<String>,
}

impl State {
    /// # Errors
    ///
    /// The state cannot be read.
    pub fn read(store: &Store) -> Result<Self> {
        let path = store.state_dir().join(STATE);
        let state = read_json(&path).with_context(|| {
            Failure::new("it is not known what is live and what was before")
                .hint(format!("remove {}; then restore by name", path.display()))
        })?;
        Ok(state.unwrap_or_default())
    }

    fn write(&self, store: &Store) -> Result<()> {
        durable::write(&store.state_dir().join(STATE), &serde_json::to_vec_pretty(self)?)
    }
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>> {
    let text = durable::read(path)?;
    text.map(|text| serde_json::from_slice(&text))
        .transpose()
        .with_context(|| format!("{} is malformed", path.display()))
}

/// Whether a run is replacing the live set, or was killed while it did.
pub fn is_being_replaced(store: &Store) -> bool {
    store.state_dir().join(journal::JOURNAL).exists()
}

/// The databases of the live set, sorted.
///
/// # Errors
///
/// The directory cannot be read.
pub fn databases(dir: &Path, names: &Names) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string()
            && !name.starts_with('.')
            // Whatever the patterns say, no database.
            && !SIDECARS.iter().any(|end| name.ends_with(end))
            && names.contains(&name)
            && entry.path().is_file()
        {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}

/// The live set in the hands of the one command that may change it.
pub struct Live<'a> {
    ui: &'a Ui,
    sh: &'a Shell,
    settings: &'a Settings,
    pub store: LockedStore,
    /// Go on although a program has the set open.
    force: bool,
}

impl<'a> Live<'a> {
    /// Waits for other commands in the data directory, then finishes or undoes
    /// what a killed one left.
    ///
    /// # Errors
    ///
    /// The directory cannot be made or locked, or what was left cannot be finished.
    pub fn lock(
        cx: &'a Context,
        settings: &'a Settings,
        command: &str,
        force: bool,
    ) -> Result<Self> {
        let store =
            Store::new(&settings.data_dir).no_wait(cx.global.no_wait).lock(&cx.ui, command)?;
        let live = Self { ui: &cx.ui, sh: &cx.sh, settings, store, force };
        live.recover()?;
        Ok(live)
    }

    /// # Errors
    ///
    /// The directory cannot be read.
    pub fn databases(&self) -> Result<Vec<String>> {
        databases(&self.store.dir, &self.settings.names)
    }

    /// How much a save of the live set takes.
    ///
    /// # Errors
    ///
    /// The directory cannot be read.
    pub fn bytes(&self) -> Result<u64> {
        let size = |name: &String| self.store.dir.join(name).metadata().map_or(0, |m| m.len());
        Ok(self.databases()?.iter().map(size).sum())
    }

    /// Refuses to go on when another program has one of `names` open, unless
    /// that was asked for.
    ///
    /// # Errors
    ///
    /// One is open.
    pub fn refuse_if_open(&self, names: &[String]) -> Result<()> {
        holders::refuse(self.ui, self.sh, &self.store.dir, names, self.force)
    }

    /// Records that another tool is about to change the live set, which `saved` holds.
    ///
    /// # Errors
    ///
    /// The state cannot be written.
    pub fn about_to_change(&self, saved: Option<&Saved>) -> Result<()> {
        State { live: None, before: saved.map(|saved| saved.name.clone()) }.write(&self.store)
    }

    /// Replaces the live set.
    ///
    /// # Errors
    ///
    /// The snapshot is damaged, a program has the set open, or the disk fails:
    /// the live set is as it was, or a journal lets the next command finish.
    pub fn replace(&self, replacement: &Replacement<'_>) -> Result<Replaced> {
        let replaced = self.decide(replacement).and_then(|(journal, before)| {
            journal.write(&self.store)?;
            journal.finish(&self.store).with_context(|| {
                Failure::new("the live set could not be replaced as a whole")
                    .hint("mend the cause; the next command, whichever it is, goes on with it")
            })?;
            Ok(Replaced { before, installed: journal.install, removed: journal.remove })
        });
        if replaced.is_err() {
            // What is reported is the failure before; the next command tries again.
            let _ = journal::undo(&self.store);
        }
        replaced
    }

    /// All that comes before the point of no return.
    fn decide(&self, replacement: &Replacement<'_>) -> Result<(Journal, Option<Saved>)> {
        let install = replacement.installs(&self.settings.names);
        let remove = replacement.removes(&self.settings.names, &self.databases()?);
        let touched: Vec<_> = install.iter().chain(&remove).cloned().collect();
        self.refuse_if_open(&touched)?;
        journal::remove_staged(&self.store)?;
        stage(replacement.snapshot, &install, &self.store.state_dir().join(STAGED))?;
        let before = match replacement.save {
            Some(kind) => self.save_before(kind, Some(&replacement.snapshot.name))?,
            None => None,
        };
        // Copying takes its time, in which a program may have been started.
        self.refuse_if_open(&touched)?;
        // A set that is the same already does not take the way back with it.
        let target = &replacement.snapshot.name;
        let way_back = match &before {
            Some(saved) if saved.name == *target => State::read(&self.store)?.before,
            saved => saved.as_ref().map(|saved| saved.name.clone()),
        };
        let state = State { live: Some(target.clone()), before: way_back };
        Ok((Journal { install, remove, state }, before))
    }
}

/// What is to be put in place, and how.
pub struct Replacement<'a> {
    pub snapshot: &'a Snapshot,
    /// Only what matches is replaced, and nothing removed.
    pub only: Option<&'a Pattern>,
    /// What kind of snapshot is made of the live set first; none is.
    pub save: Option<Kind>,
}

pub struct Replaced {
    pub before: Option<Saved>,
    pub installed: Vec<String>,
    pub removed: Vec<String>,
}

impl Replacement<'_> {
    /// The databases that it puts in place. What a snapshot has beyond `names`
    /// is left alone: nothing of that was saved.
    pub fn installs(&self, names: &Names) -> Vec<String> {
        let files = self.snapshot.files.iter().map(|(name, _)| name);
        files.filter(|name| names.selects(name, self.only)).cloned().collect()
    }

    /// The live databases that it takes away: those that a whole set does not
    /// have. What is not saved first, or was not taken as a set, takes none away.
    pub fn removes(&self, names: &Names, live: &[String]) -> Vec<String> {
        let whole = self.snapshot.meta.as_ref().is_some_and(|meta| meta.only.is_none());
        if !whole || self.only.is_some() || self.save.is_none() {
            return Vec::new();
        }
        let installs = self.installs(names);
        live.iter().filter(|name| !installs.contains(name)).cloned().collect()
    }
}

/// Copies what is to be installed, proving it on the way.
fn stage(snapshot: &Snapshot, install: &[String], to: &Path) -> Result<()> {
    durable::create_dir(to)?;
    for name in install {
        let (from, copy) = (snapshot.path.join(name), to.join(name));
        let sha256 = durable::copy(&from, &copy)?;
        let recorded = snapshot
            .meta
            .iter()
            .flat_map(|meta| &meta.databases)
            .find(|database| database.name == *name);
        match recorded {
            Some(database) if database.sha256 == sha256 => {}
            Some(_) => return Err(damaged(&from).into()),
            None => stage_unrecorded(&from, &copy)?,
        }
    }
    durable::sync_dir(to)
}

/// A file that a person or an older tool copied may have a journal beside it,
/// without which it is half a transaction.
fn stage_unrecorded(from: &Path, copy: &Path) -> Result<()> {
    for end in ["-wal", "-journal"] {
        let journal = sidecar(from, end);
        if journal.exists() {
            durable::copy(&journal, &sidecar(copy, end))?;
            sqlite::absorb_journal(copy).with_context(|| damaged(from))?;
        }
    }
    sqlite::check(copy).with_context(|| damaged(from))?;
    remove_sidecars(copy)
}

fn remove_sidecars(path: &Path) -> Result<()> {
    SIDECARS.iter().try_for_each(|end| durable::remove(&sidecar(path, end)))
}

fn damaged(path: &Path) -> Failure {
    Failure::new(format!("{} is damaged; the live set was not changed", path.display()))
        .hint("restore another one: cargo xtask restore-db --list")
}

fn sidecar(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

#[cfg(test)]
mod tests;
