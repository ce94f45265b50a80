//! The live set: saved as a snapshot, replaced by one. Nothing else changes it.
//!
//! A replacement is staged beside the set and synced. Then a journal is written,
//! and from that moment it happens: a killed run is finished by the next
//! command. Without a journal nothing has been changed yet, and what was staged
//! is thrown away.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use glob::Pattern;
use jiff::Timestamp;
use rusqlite::ErrorCode;
use serde::{Deserialize, Serialize};
use xshell::Shell;

use crate::error::Failure;
use crate::settings::{Names, Settings};
use crate::snapshots::{Database, Kind, LockedStore, Meta, Snapshot, Store};
use crate::ui::{Ui, count, escape};
use crate::{durable, git, holders, sqlite};

const JOURNAL: &str = "journal.json";
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
        Ok(read_json(&store.state_dir().join(STATE))?.unwrap_or_default())
    }

    fn write(&self, store: &Store) -> Result<()> {
        durable::write(&store.state_dir().join(STATE), &serde_json::to_vec_pretty(self)?)
    }
}

/// A replacement that has been decided.
#[derive(Deserialize, Serialize)]
struct Journal {
    /// Staged under their own names.
    install: Vec<String>,
    remove: Vec<String>,
    state: State,
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>> {
    match std::fs::read(path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .with_context(|| format!("{} is malformed", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
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
            && names.contains(&name)
            && entry.path().is_file()
        {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}

/// The snapshot that holds what was live.
pub struct Saved {
    pub name: String,
    /// False when a snapshot held the very same already.
    pub new: bool,
}

/// Makes a snapshot of the live set through SQLite's backup API, unless one
/// holds the same already; none of an empty set.
///
/// # Errors
///
/// It cannot be read or written; the live set is as it was.
pub fn save(
    ui: &Ui,
    sh: &Shell,
    settings: &Settings,
    store: &LockedStore,
    kind: Kind,
) -> Result<Option<Saved>> {
    let names = databases(&store.dir, &settings.names)?;
    if names.is_empty() {
        return Ok(None);
    }
    let _working = ui.working(
        "Saving",
        format!("{} in {}", count(names.len(), "database"), store.dir.display()),
    );
    let incoming = store.begin()?;
    let damaged =
        copy_live(&store.dir, &names, incoming.path()).context("cannot save the live set")?;
    for name in &damaged {
        ui.warn(format!("{} is damaged: it is saved as it is", escape(name)));
    }
    if kind != Kind::Manual && damaged.is_empty() {
        for snapshot in store.list()? {
            if holds(&snapshot, &names, incoming.path())? {
                return Ok(Some(Saved { name: snapshot.name, new: false }));
            }
        }
    }
    let databases = names
        .iter()
        .map(|name| describe(&incoming.path().join(name), damaged.contains(name)))
        .collect::<Result<Vec<_>>>()?;
    let git_commit = git::head(sh, &settings.root);
    let meta = Meta {
        version: 1,
        kind,
        time: Timestamp::now(),
        origin: None,
        git_commit,
        only: None,
        databases,
    };
    let snapshot = incoming.commit(meta)?;
    Ok(Some(Saved { name: snapshot.name, new: true }))
}

/// Copies the live set; returns the names of what SQLite cannot read, which is
/// copied byte by byte.
fn copy_live(dir: &Path, names: &[String], to: &Path) -> Result<Vec<String>> {
    let mut damaged: Vec<String> = Vec::new();
    loop {
        let sound: Vec<_> = names.iter().filter(|name| !damaged.contains(name)).collect();
        let paths: Vec<_> = sound.iter().map(|name| (dir.join(name), to.join(name))).collect();
        let pairs: Vec<_> = paths.iter().map(|(from, to)| (from.as_path(), to.as_path())).collect();
        let Err((i, error)) = sqlite::backup_set(&pairs) else { break };
        let code =
            error.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code);
        if !matches!(code, Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)) {
            return Err(error)
                .with_context(|| format!("{} cannot be copied", paths[i].0.display()));
        }
        damaged.push(sound[i].clone());
        for (_, copy) in &paths {
            durable::remove(copy)?;
        }
    }
    for name in &damaged {
        durable::copy(&dir.join(name), &to.join(name))?;
    }
    for name in names {
        std::fs::File::open(to.join(name))?.sync_all()?;
    }
    Ok(damaged)
}

/// Describes a closed file for `snapshot.json`.
///
/// # Errors
///
/// It cannot be read, or it is no database although it is not said to be damaged.
pub fn describe(path: &Path, damaged: bool) -> Result<Database> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let found = if damaged { sqlite::Description::default() } else { sqlite::describe(path)? };
    Ok(Database {
        name,
        bytes: path.metadata()?.len(),
        sha256: durable::sha256(path)?,
        page_size: found.page_size,
        user_version: found.user_version,
        schema: found.schema,
        damaged,
    })
}

/// Whether `snapshot` has exactly these databases with this content.
fn holds(snapshot: &Snapshot, names: &[String], dir: &Path) -> Result<bool> {
    let same_names = snapshot.files.iter().map(|(name, _)| name).eq(names);
    if snapshot.defect.is_some() || snapshot.meta.is_none() || !same_names {
        return Ok(false);
    }
    for name in names {
        if !sqlite::same_content(&snapshot.path.join(name), &dir.join(name))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What is to be put in place, and how.
pub struct Replacement<'a> {
    pub snapshot: &'a Snapshot,
    /// Only what matches is replaced, and nothing removed.
    pub only: Option<&'a Pattern>,
    /// What kind of snapshot is made of the live set first; none is.
    pub save: Option<Kind>,
    /// Go on although a program has the set open.
    pub force: bool,
}

pub struct Replaced {
    pub before: Option<Saved>,
    pub installed: Vec<String>,
    pub removed: Vec<String>,
}

impl Replacement<'_> {
    /// The databases that it puts in place.
    pub fn installs(&self) -> Vec<String> {
        let wanted = |name: &str| self.only.is_none_or(|only| only.matches(name));
        self.snapshot
            .files
            .iter()
            .map(|(name, _)| name.clone())
            .filter(|name| wanted(name))
            .collect()
    }

    /// The live databases that it takes away: those that a whole set does not
    /// have. What is not saved first, or was not taken as a set, takes none away.
    pub fn removes(&self, live: &[String]) -> Vec<String> {
        let whole = self.snapshot.meta.as_ref().is_some_and(|meta| meta.only.is_none());
        if !whole || self.only.is_some() || self.save.is_none() {
            return Vec::new();
        }
        let installs = self.installs();
        live.iter().filter(|name| !installs.contains(name)).cloned().collect()
    }

    /// Replaces the live set.
    ///
    /// # Errors
    ///
    /// The snapshot is damaged, a program has the set open, or the disk fails:
    /// the live set is as it was, or a journal lets the next command finish.
    pub fn run(
        &self,
        ui: &Ui,
        sh: &Shell,
        settings: &Settings,
        store: &LockedStore,
    ) -> Result<Replaced> {
        let install = self.installs();
        let remove = self.removes(&databases(&store.dir, &settings.names)?);
        let touched: Vec<_> = install.iter().chain(&remove).cloned().collect();
        stage(self.snapshot, &install, &store.state_dir().join(STAGED))?;
        holders::refuse(ui, sh, &store.dir, &touched, self.force)?;
        let before = match self.save {
            Some(kind) => save(ui, sh, settings, store, kind)?,
            None => None,
        };
        holders::refuse(ui, sh, &store.dir, &touched, self.force)?;
        // A set that is the same already does not take the way back with it.
        let unchanged = before.as_ref().is_some_and(|saved| saved.name == self.snapshot.name);
        let way_back = match &before {
            Some(_) if unchanged => State::read(store)?.before,
            saved => saved.as_ref().map(|saved| saved.name.clone()),
        };
        let state = State { live: Some(self.snapshot.name.clone()), before: way_back };
        let journal = Journal { install, remove, state };
        durable::write(&store.state_dir().join(JOURNAL), &serde_json::to_vec_pretty(&journal)?)?;
        journal.finish(store)?;
        Ok(Replaced { before, installed: journal.install, removed: journal.remove })
    }
}

/// Copies what is to be installed, proving it on the way.
fn stage(snapshot: &Snapshot, install: &[String], to: &Path) -> Result<()> {
    if to.exists() {
        std::fs::remove_dir_all(to).with_context(|| format!("cannot remove {}", to.display()))?;
    }
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

/// A file that a person or an older tool copied may have its `-wal` beside it.
fn stage_unrecorded(from: &Path, copy: &Path) -> Result<()> {
    let wal = sidecar(from, "-wal");
    if wal.exists() {
        durable::copy(&wal, &sidecar(copy, "-wal"))?;
        sqlite::absorb_wal(copy).with_context(|| damaged(from))?;
    }
    sqlite::check(copy).with_context(|| damaged(from))?;
    for end in ["-wal", "-shm"] {
        durable::remove(&sidecar(copy, end))?;
    }
    Ok(())
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

impl Journal {
    /// Does what has not been done yet. What follows a database around is only
    /// removed while the database that it belongs to is still there.
    fn finish(&self, store: &Store) -> Result<()> {
        let staged = store.state_dir().join(STAGED);
        for name in &self.install {
            let (from, to) = (staged.join(name), store.dir.join(name));
            if from.exists() {
                remove_sidecars(&to)?;
                durable::rename(&from, &to)?;
            }
        }
        for name in &self.remove {
            let path = store.dir.join(name);
            remove_sidecars(&path)?;
            durable::remove(&path)?;
        }
        durable::sync_dir(&store.dir)?;
        self.state.write(store)?;
        if staged.exists() {
            std::fs::remove_dir_all(&staged)
                .with_context(|| format!("cannot remove {}", staged.display()))?;
        }
        durable::remove(&store.state_dir().join(JOURNAL))?;
        durable::sync_dir(&store.state_dir())
    }
}

fn remove_sidecars(path: &Path) -> Result<()> {
    for end in ["-wal", "-shm", "-journal"] {
        durable::remove(&sidecar(path, end))?;
    }
    Ok(())
}

/// Finishes or undoes what a killed run left, and says which.
///
/// # Errors
///
/// It cannot be finished: the next command will try again.
pub fn recover(ui: &Ui, store: &LockedStore) -> Result<()> {
    if let Some(journal) = read_json::<Journal>(&store.state_dir().join(JOURNAL))? {
        journal.finish(store)?;
        let name = journal.state.live.as_deref().unwrap_or_default();
        ui.warn(format!(
            "a run was killed while it put {} in place: that is now finished",
            escape(name)
        ));
    } else if store.state_dir().join(STAGED).exists() {
        std::fs::remove_dir_all(store.state_dir().join(STAGED))?;
        ui.warn("a run was killed before it changed the live set, which is as it was");
    }
    Ok(())
}

/// Records that the live set was saved and is about to be changed by another tool.
///
/// # Errors
///
/// The state cannot be written.
pub fn about_to_change(store: &LockedStore, saved: Option<&Saved>) -> Result<()> {
    State { live: None, before: saved.map(|saved| saved.name.clone()) }.write(store)
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
