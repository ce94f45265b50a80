//! The live set: saves it as a snapshot, and replaces it by one. Nothing else changes it.
//!
//! A replacement is staged beside the set and synced. The databases are locked for all other
//! writers, and everything is prepared. Then a journal is written. With a journal, the next command
//! finishes a killed run; without one, nothing has been changed, and the staged files are removed.

mod journal;
pub mod list;
mod locked_db;
mod ownership;
mod placed;
pub mod prune;
mod replacement;
pub mod report;
mod save;
mod shared_db;
mod stage;
mod state;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use xshell::Shell;

use self::journal::{JOURNAL, Journal};
pub use self::journal::{is_being_replaced, needed};
use self::locked_db::LockedDb;
use self::placed::Stamp;
pub use self::replacement::{Replaced, Replacement, missing};
use self::save::{Copies, Saver};
pub use self::save::{Damage, Saved};
use self::stage::stage;
pub use self::state::State;
use self::state::read_json;
use crate::config::{Names, Settings};
use crate::context::Context;
use crate::error::Failure;
use crate::snapshots::{Kind, LockedStore, Snapshot, Store};
use crate::sqlite::SIDECARS;
use crate::ui::{Ui, escape};
use crate::user_command::UserCommand;
use crate::{fs, interrupt, open_files, pages, snapshots};

const STAGED: &str = "staged";

/// The databases of the live set, sorted; none if the directory does not exist yet.
///
/// # Errors
///
/// The directory cannot be read.
pub fn databases(dir: &Path, names: &Names) -> Result<Vec<String>> {
    // Not `exists`, which is also false for a directory that this user may not look at.
    if !dir.try_exists()? {
        return Ok(Vec::new());
    }
    let enters = |path: &str| names.enter(path) && !snapshots::is_in_snapshot(&format!("{path}/"));
    let is_database = |name: &String| {
        !snapshots::is_hidden(name)
            // Never a database, whatever the patterns say.
            && !SIDECARS.iter().any(|end| name.ends_with(end))
            && !snapshots::is_of_desktop(name)
            && names.contains(name)
    };
    let files = fs::files_below(dir, enters)?.into_iter();
    let files = files.filter(|(name, entry)| is_database(name) && entry.path().is_file());
    let mut found: Vec<_> = files.map(|(name, _)| name).collect();
    found.sort();
    Ok(found)
}

/// The sha256 of the live databases that are exactly as a snapshot has them, without reading them.
pub fn known_sha256(store: &Store, state: &State) -> BTreeMap<String, String> {
    let unchanged = placed::unchanged(store, state).into_iter();
    let as_pulled = unchanged.filter(|(_, placed)| placed.prepared.is_empty());
    as_pulled.map(|(name, placed)| (name, placed.sha256)).collect()
}

/// What changes a database of this snapshot before it is current; empty if nothing does.
fn preparation(settings: &Settings, snapshot: &Snapshot, name: &str) -> String {
    if snapshot.is_unprepared(name) { settings.preparation() } else { String::new() }
}

/// Whether a replacement by this snapshot would change nothing: it is the current one, and its
/// databases are as they were installed.
///
/// # Errors
///
/// The state or the data directory cannot be read.
pub fn is_up_to_date(
    store: &Store,
    settings: &Settings,
    replacement: &Replacement<'_>,
) -> Result<bool> {
    let state = State::read(store)?;
    if state.live.as_ref() != Some(&replacement.snapshot.name) {
        return Ok(false);
    }
    let live = databases(&store.dir, &settings.names)?;
    let unchanged = placed::unchanged(store, &state);
    let is_same = |name: &String| {
        unchanged.get(name).is_some_and(|placed| {
            placed::sha256_in(replacement.snapshot, name) == Some(&placed.sha256)
                && placed.prepared == preparation(settings, replacement.snapshot, name)
        })
    };
    let removes = replacement.removes(&settings.names, &live, &state.brought(store));
    Ok(removes.is_empty() && replacement.installs(&settings.names).iter().all(is_same))
}

/// The live set, locked for the one command that may change it.
pub struct LockedLiveSet<'a> {
    ui: &'a Ui,
    sh: &'a Shell,
    settings: &'a Settings,
    pub store: LockedStore,
    /// How long to wait for a program's transaction.
    wait: Duration,
}

impl<'a> LockedLiveSet<'a> {
    /// Waits for other commands in the data directory, then finishes or undoes a killed
    /// replacement.
    ///
    /// # Errors
    ///
    /// The directory cannot be created or locked, or the recovery failed.
    pub fn lock(cx: &'a Context, settings: &'a Settings, command: &str) -> Result<Self> {
        let live = Self::unrecovered(cx, settings, command)?;
        live.recover()?;
        Ok(live)
    }

    /// Like [`Self::lock`], for a command that only removes snapshots: that may free the space that
    /// a recovery needs, so a failed recovery is only reported.
    ///
    /// # Errors
    ///
    /// The directory cannot be created or locked.
    pub fn lock_to_remove(cx: &'a Context, settings: &'a Settings, command: &str) -> Result<Self> {
        let live = Self::unrecovered(cx, settings, command)?;
        if let Err(error) = live.recover() {
            interrupt::check()?;
            live.ui.warn(format!("{error:#}"));
        }
        Ok(live)
    }

    /// Like [`Self::lock`], for a command that only lists: it waits for no other command, and only
    /// reports a failed recovery.
    ///
    /// # Errors
    ///
    /// This process was asked to end.
    pub fn recover_without_waiting(cx: &'a Context, settings: &'a Settings) -> Result<()> {
        let store = || Store::of(settings);
        if !is_being_replaced(&store()) {
            return Ok(());
        }
        let at_work =
            |holder: &str, _: &Path| Err(Failure::new(format!("{holder} is running")).into());
        // Only warnings are printed before the list.
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
            cx.ui.hint("every command tries to finish that first: fix the cause, and run the command again");
        }
        Ok(())
    }

    fn unrecovered(cx: &'a Context, settings: &'a Settings, command: &str) -> Result<Self> {
        let store = Store::of(settings).no_wait(cx.global.no_wait).lock(&cx.ui, command)?;
        Ok(Self { ui: &cx.ui, sh: &cx.sh, settings, store, wait: cx.global.wait() })
    }

    /// The databases of the live set, sorted.
    pub fn databases(&self) -> Result<Vec<String>> {
        databases(&self.store.dir, &self.settings.names)
    }

    /// The size of the live set in bytes.
    ///
    /// # Errors
    ///
    /// The directory cannot be read.
    pub fn bytes(&self) -> Result<u64> {
        let size = |name: &String| self.store.dir.join(name).metadata().map_or(0, |m| m.len());
        Ok(self.databases()?.iter().map(size).sum())
    }

    /// Fails if another program has the set open; with `force` it only warns.
    ///
    /// # Errors
    ///
    /// A program has a database open.
    pub fn refuse_if_open(&self, force: bool) -> Result<()> {
        open_files::refuse(self.ui, self.sh, &self.store.dir, &self.databases()?, force)
    }

    /// Records that another tool is about to change the live set, which is saved in `saved`.
    ///
    /// # Errors
    ///
    /// The state cannot be written.
    pub fn about_to_change(&self, saved: Option<&Saved>) -> Result<()> {
        // The databases of an earlier pull may still be there.
        let state = State::read(&self.store)?;
        let brought = Some(state.brought(&self.store));
        let raw = state.raw(&self.store);
        let unsanitized = snapshots::unsanitized(&raw, &self.settings.rules);
        // What the tool makes of it is that snapshot, edited since.
        let before = saved.map(|saved| saved.name.clone());
        State { live: before.clone(), before, brought, unsanitized, raw: Some(raw), ..state }
            .write(&self.store)
    }

    /// Replaces the live set, even while programs have it open.
    ///
    /// # Errors
    ///
    /// The snapshot is corrupt, a program is in the way, or the disk fails. Either the live set is
    /// unchanged, or a journal lets the next command finish.
    pub fn replace(&self, replacement: &Replacement<'_>) -> Result<Replaced> {
        let prepared = self.prepare(replacement).map_err(interrupt::prefer_interrupt);
        if prepared.is_err() {
            // The first error is the one to report; the next command tries again to clean up.
            let _ = journal::undo(&self.store);
        }
        self.commit(prepared?, replacement.snapshot)
    }

    /// Commits the prepared replacement; if that fails, the next command finishes it.
    fn commit(&self, prepared: Prepared, snapshot: &Snapshot) -> Result<Replaced> {
        let Prepared { journal, locked, before, others, programs, all, staged } = prepared;
        journal.commit(&self.store, self.sh, locked).map_err(|error| {
            Failure::new("cannot finish replacing the current data")
                .hint("fix the cause; the next command finishes the replacement")
                .over(error)
        })?;
        if let Some(saved) = &before {
            self.backfill_hashes(saved);
        }
        let Journal { install, remove: removed, state, .. } = journal;
        let preparation = |name: &str| preparation(self.settings, snapshot, name);
        if let Err(error) = placed::record(&self.store, snapshot, &install, &staged, preparation) {
            self.ui.warn(format!("the next command compares the current data again: {error:#}"));
        }
        let is_there = |name: &String| self.store.dir.join(name).exists();
        let unsanitized = state.unsanitized.into_iter().filter(is_there).collect();
        Ok(Replaced { before, installed: all, removed, others, programs, unsanitized })
    }

    /// Does all steps that change nothing, then writes the journal.
    fn prepare(&self, replacement: &Replacement<'_>) -> Result<Prepared> {
        let all = replacement.installs(&self.settings.names);
        let live = self.databases()?;
        let old = State::read(&self.store)?;
        // A database that has the content already is not touched.
        let unchanged = placed::unchanged(&self.store, &old);
        let is_installed = |name: &&String| {
            let wanted = placed::sha256_in(replacement.snapshot, name);
            unchanged.get(*name).is_some_and(|placed| {
                wanted == Some(&placed.sha256)
                    && placed.prepared == preparation(self.settings, replacement.snapshot, name)
            })
        };
        let install: Vec<_> = all.iter().filter(|name| !is_installed(name)).cloned().collect();
        let brought = old.brought(&self.store);
        let remove = replacement.removes(&self.settings.names, &live, &brought);
        journal::remove_staged(&self.store)?;
        let staged = self.store.state_dir().join(STAGED);
        stage(replacement.snapshot, &install, &staged)?;
        self.change_staged(replacement.snapshot, &install, &staged)?;
        for name in &install {
            ownership::create_parents(self.ui, &self.store.dir, name)?;
        }
        for name in remove.iter().filter(|name| name.contains('/')) {
            ownership::require_writable(&self.store.dir, name)?;
        }
        for name in &install {
            let at = |name: &String| self.store.dir.join(name);
            let siblings = live.iter().filter_map(|name| at(name).metadata().ok());
            ownership::follow(self.ui, &staged.join(name), &at(name), siblings)?;
        }

        let stamps = placed::staged(&self.store, &staged, &install);

        let mut locked = self.open_and_lock(&remove, &install)?;
        if let Some(one) = locked_db::unknown(&locked) {
            self.ui.hint(format!(
                "whether a program of another user, such as one in a container, has {} open cannot be \
                 seen: it is changed in place, and such a program sees the new data",
                one.name
            ));
        }
        let mut copies = match replacement.save {
            // Databases of others are not touched.
            Some(kind) => {
                let ours = |name: &&String| brought.contains(*name) || all.contains(name);
                let names = live.iter().filter(ours).cloned().collect();
                self.saver().copy(kind, names, &mut locked)?
            }
            None => None,
        };
        locked_db::end_read_transactions(&locked)?;
        if let Some(copies) = &mut copies {
            self.saver().find_same(copies, Some(&replacement.snapshot.name))?;
        }
        locked_db::lock(&mut locked, self.ui, self.wait)?;
        let in_place = save::write(&mut locked, copies.as_mut())?;
        let before = match (copies, replacement.save) {
            (Some(copies), Some(kind)) => Some(self.saver().keep(copies, kind)?),
            _ => None,
        };
        let programs = locked_db::programs(&locked);

        let named = old.others.clone();
        let raw = Some(old.raw(&self.store));
        let pulled = Some(old.pulled(&self.store)?);
        let state = State { brought: Some(brought), raw, pulled, ..old };
        let (snapshot, rules) = (replacement.snapshot, &self.settings.rules);
        let state = state.after(snapshot, before.as_ref(), &live, &all, &remove, rules);
        let others = state.others.difference(&named).cloned().collect();
        let save = replacement.save.is_some();
        let journal = Journal { install, remove, in_place, save, state };
        let decided =
            interrupt::check().map_err(Into::into).and_then(|()| journal.write(&self.store));
        if decided.is_err() {
            self.discard_save(before.as_ref());
        }
        decided?;
        Ok(Prepared { journal, locked, before, others, programs, all, staged: stamps })
    }

    /// Lets the user's command change the staged databases that were not current here before, and
    /// compacts them.
    fn change_staged(&self, from: &Snapshot, install: &[String], staged: &Path) -> Result<()> {
        let Settings { hooks, compact, root, .. } = self.settings;
        let install: Vec<_> =
            install.iter().filter(|name| from.is_unprepared(name)).cloned().collect();
        if install.is_empty() || (hooks.prepare.is_none() && !compact) {
            return Ok(());
        }
        if let Some(line) = &hooks.prepare {
            let command = UserCommand { key: "prepare", line, root };
            command.run(self.ui, self.sh, staged, &from.path, &install, "nothing was changed")?;
        }
        stage::close(self.ui, &install, staged, *compact)
    }

    fn open_and_lock(&self, remove: &[String], install: &[String]) -> Result<Vec<LockedDb>> {
        locked_db::open_and_lock(self.ui, self.sh, &self.store, self.wait, remove, install)
    }

    fn saver(&self) -> Saver<'_> {
        Saver { ui: self.ui, sh: self.sh, settings: self.settings, store: &self.store }
    }

    /// Makes a snapshot of the live set through SQLite's backup API, unless one has the same
    /// content or the set is empty.
    ///
    /// # Errors
    ///
    /// A file cannot be read or written; or, unless `whoever_writes`, another program wrote to the
    /// live set meanwhile. The live set is unchanged.
    pub fn save(&self, kind: Kind, whoever_writes: bool) -> Result<Option<Saved>> {
        let Some(mut copies) = self.saver().copy(kind, self.databases()?, &mut [])? else {
            return Ok(None);
        };
        if let Some(name) = copies.outdated.first().filter(|_| !whoever_writes) {
            return Err(Failure::new(format!(
                "{} was written by another program while it was saved; nothing was changed",
                self.store.dir.join(name).display()
            ))
            .hint("stop it, and run the same command again")
            .into());
        }
        match kind {
            Kind::Manual => copies.hash()?,
            _ => self.saver().find_same(&mut copies, None)?,
        }
        self.saver().keep(copies, kind).map(Some)
    }

    /// Finishes or undoes a killed replacement, and reports which.
    ///
    /// # Errors
    ///
    /// A file cannot be changed, or a program has the set open: the next command tries again.
    fn recover(&self) -> Result<()> {
        let path = self.store.state_dir().join(JOURNAL);
        let journal = read_json::<Journal>(&path).with_context(|| {
            Failure::new(
                "a run was killed while it replaced the current data, and cannot be finished",
            )
            .hint(format!("look at {} and at staged/ beside it, then remove both", path.display()))
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
            journal::remove_staged(&self.store)?;
            self.ui.warn("a run was killed before it changed the current data, which is as it was");
        }
        Ok(())
    }

    /// Keeps writes since the kill: databases that are already replaced stay, and changes to those
    /// that are not yet replaced are saved as a snapshot.
    fn roll_forward(&self, journal: &mut Journal) -> Result<()> {
        let staged = self.store.state_dir().join(STAGED);
        for name in &journal.in_place {
            let (path, staged) = (self.store.dir.join(name), staged.join(name));
            if staged.exists() && shared_db::is_done(&path, &staged, self.wait)? {
                fs::remove(&staged)?;
            }
        }
        let remove: Vec<_> = journal.unremoved(&self.store).into_iter().cloned().collect();
        let install: Vec<_> = journal.pending(&self.store).into_iter().cloned().collect();
        for name in &install {
            // A power cut may have taken a new directory, though the journal is there.
            ownership::create_parents(self.ui, &self.store.dir, name)?;
        }
        let mut locked = self.open_and_lock(&remove, &install)?;
        // Even if there was nothing to save: a program may have created a database since.
        let save = journal.save || journal.state.before.is_some();
        let mut copies = if save && !locked.is_empty() {
            self.saver().copy(Kind::BeforeRestore, self.databases()?, &mut locked)?
        } else {
            None
        };
        if let Some(copies) = &mut copies {
            // Databases that are already in place have the marks of the journal's state.
            let pending = |name: &String| remove.contains(name) || install.contains(name);
            let in_place = journal.state.raw(&self.store).into_iter().filter(|name| !pending(name));
            copies.raw.retain(pending);
            copies.raw.extend(in_place);
        }
        locked_db::lock(&mut locked, self.ui, self.wait)?;
        journal.in_place.extend(save::write(&mut locked, copies.as_mut())?);
        let saved = match copies {
            Some(copies) if !self.already_saved(&journal.state, &copies, &locked)? => {
                Some(self.saver().keep(copies, Kind::BeforeRestore)?)
            }
            _ => None,
        };
        if let Some(saved) = &saved
            && !journal.state.before.as_ref().is_some_and(|name| self.store.has(name))
        {
            journal.state.before = Some(saved.name.clone());
        }
        journal.write(&self.store)?;
        journal.commit(&self.store, self.sh, locked)?;
        if let Some(saved) = saved {
            self.ui.warn(format!("the writes since then are in {}", saved.name));
            self.backfill_hashes(&saved);
        }
        Ok(())
    }

    /// Whether each copy of a locked database is also in the last or in the new snapshot.
    fn already_saved(
        &self,
        state: &State,
        copies: &Copies<'_>,
        locked: &[LockedDb],
    ) -> Result<bool> {
        for one in locked {
            let copy = copies.path(&one.name);
            let mut found = !copy.exists();
            let names = state.before.iter().chain(&state.live);
            for kept in names.filter_map(|snapshot| self.store.path_in(snapshot, &one.name)) {
                found = found || pages::same_content(&kept, &copy)?;
            }
            if !found {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes a save that turned out unnecessary: it would count as one of the kept snapshots.
    fn discard_save(&self, saved: Option<&Saved>) {
        if let Some(saved) = saved
            && saved.new
            && !is_being_replaced(&self.store)
        {
            let _ = self.store.find(&saved.name).and_then(|saved| self.store.remove(&saved));
        }
    }

    /// Adds missing hashes. An error is ignored: without hashes, verification is only weaker.
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

/// A replacement that is decided: its journal is written.
struct Prepared {
    journal: Journal,
    locked: Vec<LockedDb>,
    before: Option<Saved>,
    others: Vec<String>,
    programs: Vec<String>,
    /// The databases to install, and those that have the content already.
    all: Vec<String>,
    /// The stamps of the staged files.
    staged: BTreeMap<String, Stamp>,
}

#[cfg(test)]
mod tests;
