//! The store: snapshots below the data directory, the lock that orders those
//! who change it, and what a plan to prune would remove.

mod snapshot;

use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

pub use self::snapshot::{Database, Kind, Meta, Origin, Snapshot};
use self::snapshot::{META, PREFIX, name_of};
use crate::durable;
use crate::error::Failure;
use crate::ui::{Ui, count, escape};

/// What is ours in the data directory but no snapshot.
const STATE_DIR: &str = ".xtask";
const INCOMING: &str = "incoming-";

/// A data directory and its snapshots, for reading.
pub struct Store {
    pub dir: PathBuf,
}

impl Store {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.join(STATE_DIR)
    }

    /// All snapshots, newest first.
    ///
    /// # Errors
    ///
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<Snapshot>> {
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", self.dir.display()));
            }
        };
        let unreadable = || format!("cannot read {}", self.dir.display());
        let mut snapshots = Vec::new();
        for entry in entries {
            let entry = entry.with_context(unreadable)?;
            if entry.file_type().with_context(unreadable)?.is_dir() {
                let path = entry.path();
                let snapshot = Snapshot::read(path)
                    .with_context(|| format!("cannot read {}", entry.path().display()))?;
                snapshots.extend(snapshot);
            }
        }
        // Names without milliseconds, of older tools, do not sort like their times.
        snapshots.sort_by(|a, b| (b.time, &b.name).cmp(&(a.time, &a.name)));
        Ok(snapshots)
    }

    /// The one snapshot whose name is `text`, or begins or ends with it; the
    /// `backup_` before it and the `Z` behind it may be left out.
    ///
    /// # Errors
    ///
    /// None or several are.
    pub fn find(&self, text: &str) -> Result<Snapshot> {
        let snapshots = self.list()?;
        let fits = |snapshot: &&Snapshot| {
            let name = snapshot.name.as_str();
            let short = name.trim_start_matches(PREFIX);
            [name, short].iter().any(|n| n.starts_with(text))
                || name.ends_with(text)
                || name.trim_end_matches('Z').ends_with(text)
        };
        if let Some(exact) = snapshots.iter().find(|snapshot| snapshot.name == text) {
            return Ok(exact.clone());
        }
        let found: Vec<_> = snapshots.iter().filter(fits).collect();
        match found[..] {
            [one] if !text.is_empty() => Ok(one.clone()),
            [] => Err(Failure::new(format!(
                "no snapshot in {} is called {text:?}",
                self.dir.display()
            ))
            .hint("cargo xtask restore-db --list")
            .into()),
            _ => Err(Failure::usage(format!(
                "{} are called like {text:?}",
                count(found.len(), "snapshot")
            ))
            .hint(format!("name one, for example {}", found[0].name))
            .into()),
        }
    }

    /// Waits for every other command in this data directory to end.
    ///
    /// # Errors
    ///
    /// The directory cannot be made or locked.
    pub fn lock(self, ui: &Ui, command: &str) -> Result<LockedStore> {
        durable::create_dir(&self.dir)?;
        durable::create_dir(&self.state_dir())?;
        let path = self.state_dir().join("lock");
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder)?;
                ui.status(
                    "Waiting",
                    format!("for {} in {}", escape(holder.trim()), self.dir.display()),
                );
                file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        // For those who wait. It may not be written: on a full disk, prune must go on.
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| write!(file, "{command} (process {})", std::process::id()));
        let store = LockedStore { store: self, _lock: file };
        store.remove_abandoned()?;
        Ok(store)
    }
}

/// The store in the hands of the one process that may change it.
pub struct LockedStore {
    store: Store,
    _lock: File,
}

impl std::ops::Deref for LockedStore {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

impl LockedStore {
    /// What a killed run was about to make a snapshot of, or was writing.
    fn remove_abandoned(&self) -> Result<()> {
        let dir = self.state_dir();
        let unreadable = || format!("cannot read {}", dir.display());
        for entry in std::fs::read_dir(&dir).with_context(unreadable)? {
            let entry = entry.with_context(unreadable)?;
            let name = entry.file_name();
            if name.to_string_lossy().starts_with(INCOMING) {
                std::fs::remove_dir_all(entry.path())
                    .with_context(|| format!("cannot remove {}", entry.path().display()))?;
            } else if name.to_string_lossy().starts_with(durable::UNFINISHED) {
                durable::remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// A directory for the files of the next snapshot, gone unless it is committed.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn begin(&self) -> Result<Incoming<'_>> {
        let dir = tempfile::Builder::new()
            .prefix(INCOMING)
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempdir_in(self.state_dir())
            .with_context(|| {
                format!("cannot create a directory in {}", self.state_dir().display())
            })?;
        Ok(Incoming { store: self, dir })
    }

    /// Records the sha256 of those databases of a snapshot that have none.
    ///
    /// # Errors
    ///
    /// They cannot be read, or it cannot be written.
    pub fn record_hashes(&self, mut snapshot: Snapshot) -> Result<()> {
        let Some(meta) = &mut snapshot.meta else { return Ok(()) };
        for database in meta.databases.iter_mut().filter(|database| database.sha256.is_none()) {
            database.sha256 = Some(durable::sha256(&snapshot.path.join(&database.name))?);
        }
        durable::write(&snapshot.path.join(META), &serde_json::to_vec_pretty(&meta)?)
    }

    /// Removes a snapshot, so that a kill in between leaves no half of one.
    ///
    /// # Errors
    ///
    /// It cannot be removed.
    pub fn remove(&self, snapshot: &Snapshot) -> Result<()> {
        let grave = self.state_dir().join(format!("{INCOMING}{}", snapshot.name));
        durable::rename(&snapshot.path, &grave)?;
        durable::sync_dir(&self.dir)?;
        std::fs::remove_dir_all(&grave)
            .with_context(|| format!("cannot remove {}", grave.display()))
    }
}

/// The files of a snapshot to be.
pub struct Incoming<'a> {
    store: &'a LockedStore,
    dir: tempfile::TempDir,
}

impl Incoming<'_> {
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Makes the files, which are synced, a snapshot.
    ///
    /// # Errors
    ///
    /// It cannot be written; then there is none.
    pub fn commit(self, mut meta: Meta) -> Result<Snapshot> {
        let mut path = self.store.dir.join(name_of(meta.time));
        while path.exists() {
            meta.time += jiff::SignedDuration::from_millis(1);
            path = self.store.dir.join(name_of(meta.time));
        }
        durable::write(&self.path().join(META), &serde_json::to_vec_pretty(&meta)?)?;
        durable::rename(self.path(), &path)?;
        durable::sync_dir(&self.store.dir)?;
        let unreadable = format!("cannot read {}", path.display());
        let Some(snapshot) = Snapshot::read(path).context(unreadable)? else {
            bail!("a snapshot was given a name that is none")
        };
        Ok(snapshot)
    }
}

/// What to remove so that the newest `keep` stay of each kind: whole pulls,
/// pulls of some databases, and what was saved before a pull or restore. What a
/// person made, what is defective, and what `needed` names, stays.
pub fn prune_plan<'a>(
    snapshots: &'a [Snapshot],
    keep: usize,
    needed: &[String],
) -> Vec<&'a Snapshot> {
    let (mut whole, mut partial, mut saves) = (0, 0, 0);
    let mut plan: Vec<&Snapshot> = Vec::new();
    // What is defective takes no place of what could be restored.
    for snapshot in snapshots.iter().filter(|snapshot| snapshot.defect.is_none()) {
        let seen = match snapshot.meta.as_ref().map(|meta| meta.kind) {
            Some(Kind::Pull) if snapshot.only().is_none() => &mut whole,
            Some(Kind::Pull) => &mut partial,
            Some(Kind::BeforePull | Kind::BeforeRestore) => &mut saves,
            Some(Kind::Manual) | None => continue,
        };
        *seen += 1;
        if *seen > keep && !needed.contains(&snapshot.name) {
            plan.push(snapshot);
        }
    }
    plan
}

#[cfg(test)]
mod tests;
