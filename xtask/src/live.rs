//! The live set: saved as a snapshot, replaced by one. Nothing else changes it.
//!
//! A replacement is staged beside the set and synced. The databases are held, so
//! that nobody writes to them but us, and all is prepared. Then a journal is
//! written, and from that moment it happens: a killed run is finished by the next
//! command. Without a journal nothing has been changed yet, and what was staged is
//! thrown away.

mod custom;
mod hold;
mod journal;
pub mod list;
pub mod prune;
pub mod report;
mod save;
mod shared;
mod state;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use glob::Pattern;
use xshell::Shell;

use self::hold::LockedDb;
use self::journal::Journal;
pub use self::journal::{is_being_replaced, needed};
pub use self::save::Saved;
pub use self::state::State;
use crate::config::{Names, Settings};
use crate::context::Context;
use crate::error::Failure;
use crate::snapshots::{Kind, LockedStore, Snapshot, Store};
use crate::sqlite::SIDECARS;
use crate::ui::Ui;
use crate::{fs, interrupt, open_files, snapshots, sqlite};

const STAGED: &str = "staged";

/// The databases of the live set, sorted.
///
/// # Errors
///
/// The directory cannot be read.
pub fn databases(dir: &Path, names: &Names) -> Result<Vec<String>> {
    let unreadable = || format!("cannot read {}", dir.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
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
pub struct LockedLiveSet<'a> {
    ui: &'a Ui,
    sh: &'a Shell,
    settings: &'a Settings,
    pub store: LockedStore,
    /// How long a program's transaction is waited for.
    wait: Duration,
}

impl<'a> LockedLiveSet<'a> {
    /// Waits for other commands in the data directory, then finishes or undoes
    /// what a killed one left.
    ///
    /// # Errors
    ///
    /// The directory cannot be made or locked, or what was left cannot be finished.
    pub fn lock(cx: &'a Context, settings: &'a Settings, command: &str) -> Result<Self> {
        let live = Self::unrecovered(cx, settings, command)?;
        live.recover()?;
        Ok(live)
    }

    /// The same for a command that only removes snapshots: it may make the room that
    /// is needed to finish what a killed one left, which is said.
    ///
    /// # Errors
    ///
    /// The directory cannot be made or locked.
    pub fn lock_to_remove(cx: &'a Context, settings: &'a Settings, command: &str) -> Result<Self> {
        let live = Self::unrecovered(cx, settings, command)?;
        if let Err(error) = live.recover() {
            interrupt::check()?;
            live.ui.warn(format!("{error:#}"));
        }
        Ok(live)
    }

    /// The same for a command that only lists: it waits for nobody, and what cannot be
    /// finished is said.
    ///
    /// # Errors
    ///
    /// This process was asked to end.
    pub fn recover_without_waiting(cx: &'a Context, settings: &'a Settings) -> Result<()> {
        let store = || Store::new(&settings.data_dir);
        if !is_being_replaced(&store()) {
            return Ok(());
        }
        let at_work = |holder: &str| Err(Failure::new(format!("{holder} is at work")).into());
        // What the list shows comes after what is wrong with it, and after nothing else.
        let ui = &Ui::new(true, false, cx.ui.json, false);
        let recovered = store().lock_if("cargo xtask snapshots list", at_work).and_then(|store| {
            LockedLiveSet { ui, sh: &cx.sh, settings, store, wait: Duration::ZERO }.recover()
        });
        if let Err(error) = recovered
            && is_being_replaced(&store())
        {
            interrupt::check()?;
            let dir = settings.data_dir.display();
            cx.ui.warn(format!("the databases in {dir} are only partly replaced: {error:#}"));
            cx.ui.hint("every command tries to finish that first: list again when it is possible");
        }
        Ok(())
    }

    fn unrecovered(cx: &'a Context, settings: &'a Settings, command: &str) -> Result<Self> {
        let store =
            Store::new(&settings.data_dir).no_wait(cx.global.no_wait).lock(&cx.ui, command)?;
        Ok(Self { ui: &cx.ui, sh: &cx.sh, settings, store, wait: cx.global.wait() })
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

    /// Refuses to go on when another program has the set open; with `force` it warns.
    ///
    /// # Errors
    ///
    /// One is open.
    pub fn refuse_if_open(&self, force: bool) -> Result<()> {
        open_files::refuse(self.ui, self.sh, &self.store.dir, &self.databases()?, force)
    }

    /// Records that another tool is about to change the live set, which `saved` holds.
    ///
    /// # Errors
    ///
    /// The state cannot be written.
    pub fn about_to_change(&self, saved: Option<&Saved>) -> Result<()> {
        // What was there may still be there.
        let state = State::read(&self.store)?;
        let brought = Some(state.brought(&self.store));
        let raw = state.raw(&self.store);
        let unsanitized = snapshots::unsanitized(&raw, &self.settings.rules);
        let before = saved.map(|saved| saved.name.clone());
        State { live: None, before, brought, unsanitized, raw: Some(raw), ..state }
            .write(&self.store)
    }

    /// Replaces the live set, also under programs that have it open.
    ///
    /// # Errors
    ///
    /// The snapshot is damaged, a program is in the way, or the disk fails: the
    /// live set is as it was, or a journal lets the next command finish.
    pub fn replace(&self, replacement: &Replacement<'_>) -> Result<Replaced> {
        let decided = self.prepare(replacement).map_err(interrupt::prefer_interrupt);
        if decided.is_err() {
            // What is reported is the failure before; the next command tries again.
            let _ = journal::undo(&self.store);
        }
        let Prepared { journal, held, before, others, programs } = decided?;
        journal.commit(&self.store, self.sh, held).map_err(|error| {
            Failure::new("the live set could not be replaced as a whole")
                .hint("fix the cause; the next command, whichever it is, finishes it")
                .over(error)
        })?;
        if let Some(saved) = &before {
            self.backfill_hashes(saved);
        }
        let Journal { install: installed, remove: removed, state, .. } = journal;
        let is_there = |name: &String| self.store.dir.join(name).exists();
        let unsanitized = state.unsanitized.into_iter().filter(is_there).collect();
        Ok(Replaced { before, installed, removed, others, programs, unsanitized })
    }

    /// Does all that changes nothing yet, and writes the journal.
    fn prepare(&self, replacement: &Replacement<'_>) -> Result<Prepared> {
        let install = replacement.installs(&self.settings.names);
        let live = self.databases()?;
        let old = State::read(&self.store)?;
        let brought = old.brought(&self.store);
        let remove = replacement.removes(&self.settings.names, &live, &brought);
        journal::remove_staged(&self.store)?;
        let staged = self.store.state_dir().join(STAGED);
        stage(replacement.snapshot, &install, &staged)?;
        for name in &install {
            let at = |name: &String| self.store.dir.join(name);
            let siblings = live.iter().filter_map(|name| at(name).metadata().ok());
            custom::follow(self.ui, &staged.join(name), &at(name), siblings)?;
        }

        let mut held = self.hold(&remove, &install)?;
        let mut copies = match replacement.save {
            // Those of others are not touched.
            Some(_) => {
                let ours = |name: &&String| brought.contains(*name) || install.contains(name);
                self.copy(live.iter().filter(ours).cloned().collect(), &mut held)?
            }
            None => None,
        };
        hold::end_read_transactions(&held)?;
        if let Some(copies) = &mut copies {
            self.find_same(copies, Some(&replacement.snapshot.name))?;
        }
        hold::lock(&mut held, self.wait)?;
        let in_place = save::write(&mut held, copies.as_mut())?;
        let before = match (copies, replacement.save) {
            (Some(copies), Some(kind)) => Some(self.keep(copies, kind)?),
            _ => None,
        };
        let programs = hold::programs(&held);

        let named = old.others.clone();
        let raw = Some(old.raw(&self.store));
        let pulled = Some(old.pulled(&self.store)?);
        let state = State { brought: Some(brought), raw, pulled, ..old };
        let (snapshot, rules) = (replacement.snapshot, &self.settings.rules);
        let state = state.after(snapshot, before.as_ref(), &live, &install, &remove, rules);
        let others = state.others.difference(&named).cloned().collect();
        let save = replacement.save.is_some();
        let journal = Journal { install, remove, in_place, save, state };
        let decided =
            interrupt::check().map_err(Into::into).and_then(|()| journal.write(&self.store));
        if decided.is_err() {
            self.discard_save(before.as_ref());
        }
        decided?;
        Ok(Prepared { journal, held, before, others, programs })
    }

    /// What was saved for nothing takes room, and a place among those that are kept.
    fn discard_save(&self, saved: Option<&Saved>) {
        if let Some(saved) = saved
            && saved.new
            && !is_being_replaced(&self.store)
        {
            let _ = self.store.find(&saved.name).and_then(|saved| self.store.remove(&saved));
        }
    }

    /// What is missing only makes it less certain later that the snapshot is sound.
    fn backfill_hashes(&self, saved: &Saved) {
        if saved.hashed {
            return;
        }
        let recorded = self.store.find(&saved.name).and_then(|it| self.store.record_hashes(it));
        if let Err(error) = recorded {
            self.ui.warn(format!("{} is saved without its sha256: {error:#}", saved.name));
        }
    }
}

/// A replacement from which there is no way back.
struct Prepared {
    journal: Journal,
    held: Vec<LockedDb>,
    before: Option<Saved>,
    others: Vec<String>,
    programs: Vec<String>,
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
    /// Live databases that stay, since no pull has brought them; those not named before.
    pub others: Vec<String>,
    /// Those that have a database open, and go on with the new one.
    pub programs: Vec<String>,
    /// The live databases, also others than these, that are unsanitized.
    pub unsanitized: Vec<String>,
}

impl Replacement<'_> {
    /// The databases that it puts in place. What a snapshot has beyond `names`
    /// is left alone: nothing of that was saved.
    pub fn installs(&self, names: &Names) -> Vec<String> {
        let files = self.snapshot.files.iter().map(|(name, _)| name);
        files.filter(|name| names.selects(name, self.only)).cloned().collect()
    }

    /// The live databases that it takes away: those of `brought` that a whole set does not
    /// have. What is not saved first, or was not taken as a set, takes none away.
    pub fn removes(
        &self,
        names: &Names,
        live: &[String],
        brought: &BTreeSet<String>,
    ) -> Vec<String> {
        let whole = self.snapshot.meta.as_ref().is_some_and(|meta| meta.only.is_none());
        if !whole || self.only.is_some() || self.save.is_none() {
            return Vec::new();
        }
        missing(live, brought, &self.installs(names))
    }
}

/// The live databases of `brought` that a whole set of these does not have.
pub fn missing(live: &[String], brought: &BTreeSet<String>, set: &[String]) -> Vec<String> {
    let missing = live.iter().filter(|&name| brought.contains(name) && !set.contains(name));
    missing.cloned().collect()
}

/// Copies what is to be installed, proving it on the way.
fn stage(snapshot: &Snapshot, install: &[String], to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    for name in install {
        let (from, copy) = (snapshot.path.join(name), to.join(name));
        let sha256 = fs::copy(&from, &copy)?;
        let recorded = snapshot
            .meta
            .iter()
            .flat_map(|meta| &meta.databases)
            .find(|database| database.name == *name)
            .map(|database| &database.sha256);
        match recorded {
            Some(Some(recorded)) if *recorded == sha256 => {}
            Some(Some(_)) => return Err(damaged(&from).into()),
            Some(None) | None => stage_unrecorded(&from, &copy)?,
        }
    }
    fs::sync(to)
}

/// A file that a person or an older tool copied may have a journal beside it,
/// without which it is half a transaction.
fn stage_unrecorded(from: &Path, copy: &Path) -> Result<()> {
    for end in ["-wal", "-journal"] {
        let journal = sidecar(from, end);
        if journal.exists() {
            fs::copy(&journal, &sidecar(copy, end))?;
            sqlite::recover_journal(copy).with_context(|| damaged(from))?;
        }
    }
    interrupt::check()?;
    sqlite::check(copy).with_context(|| damaged(from))?;
    remove_sidecars(copy)
}

fn remove_sidecars(path: &Path) -> Result<()> {
    SIDECARS.iter().try_for_each(|end| fs::remove(&sidecar(path, end)))
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
