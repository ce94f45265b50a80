//! The store: snapshots below the data directory, the lock that orders those
//! who change it, and what a plan to prune would remove.

mod lock;
mod prune;
mod snapshot;

use std::fs::File;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use fs_err::os::unix::fs::OpenOptionsExt as _;
use jiff::{SignedDuration, Timestamp};

pub use self::prune::prune_plan;
pub use self::snapshot::{Database, External, Kind, Meta, Origin, Snapshot, unsanitized};
use self::snapshot::{META, PREFIX, name_of, time_of};
use crate::error::Failure;
use crate::fs;
use crate::ui::{Ui, count, escape};

/// What is ours in the data directory but no snapshot.
const STATE_DIR: &str = ".xtask";
const INCOMING: &str = "incoming-";

/// Whether what is called so in a data directory is ours.
pub fn is_ours(name: &str) -> bool {
    name == STATE_DIR || time_of(name).is_some()
}

/// A data directory and its snapshots, for reading.
pub struct Store {
    pub dir: PathBuf,
    no_wait: bool,
}

impl Store {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), no_wait: false }
    }

    /// Whether it is an error that another command has the lock.
    pub fn no_wait(self, no_wait: bool) -> Self {
        Self { no_wait, ..self }
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
        self.refuse_dangling()?;
        let entries = match fs_err::read_dir(&self.dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut snapshots = Vec::new();
        for entry in entries {
            let path = entry?.path();
            let snapshot = Snapshot::read(path.clone())
                .with_context(|| format!("cannot read {}", path.display()))?;
            snapshots.extend(snapshot);
        }
        // Names without milliseconds, of older tools, do not sort like their times.
        snapshots.sort_by(|a, b| (b.order, &b.name).cmp(&(a.order, &a.name)));
        Ok(snapshots)
    }

    /// As [`find`], among all of them.
    ///
    /// # Errors
    ///
    /// None or several are called so.
    pub fn find(&self, text: &str) -> Result<Snapshot> {
        find(&self.list()?, text, &self.dir).cloned()
    }

    /// Waits for every other command in this data directory to end.
    ///
    /// # Errors
    ///
    /// The directory cannot be made, written or locked, or another command is not
    /// to be waited for.
    pub fn lock(self, ui: &Ui, command: &str) -> Result<LockedStore> {
        let (no_wait, dir) = (self.no_wait, self.dir.display().to_string());
        self.lock_if(command, |holder| {
            if no_wait {
                let message = format!("{holder} is at work in {dir}; nothing was changed");
                let hint = "run it again later, or without --no-wait";
                return Err(Failure::new(message).hint(hint).into());
            }
            ui.status("Waiting", format!("for {holder} in {dir}"));
            Ok(())
        })
    }

    /// The same; where another command has the lock, waits if `may_wait` says so.
    ///
    /// # Errors
    ///
    /// Those of [`Store::lock`], and those of `may_wait`.
    pub fn lock_if(
        self,
        command: &str,
        may_wait: impl FnOnce(&str) -> Result<()>,
    ) -> Result<LockedStore> {
        self.refuse_dangling()?;
        let path = self.state_dir().join("lock");
        let mut file = self.open_lock(&path).with_context(|| {
            Failure::new(format!("{} cannot be written", self.dir.display())).hint(
                "make it writable, or name another directory with --local-dir; \
                 cargo xtask restore-db --list only reads",
            )
        })?;
        lock::take(&mut file, &path, |holder| may_wait(&escape(holder)))?;
        lock::sign(&mut file, command);
        let store = LockedStore { store: self, lock: file };
        store.remove_abandoned()?;
        Ok(store)
    }

    /// Makes the directories, and proves that all that comes can be done in them.
    fn open_lock(&self, path: &Path) -> Result<File> {
        use rustix::fs::{Access, access};

        let (dir, state) = (&self.dir, &self.state_dir());
        fs::create_dir(dir)?;
        fs::create_dir(state)?;
        for dir in [dir, state] {
            access(dir, Access::WRITE_OK | Access::EXEC_OK)
                .with_context(|| format!("no file can be made in {}", dir.display()))?;
        }
        // Nothing can be renamed from one file system to another.
        if dir.metadata()?.dev() != state.metadata()?.dev() {
            bail!("{} is on another file system", state.display());
        }
        let mut options = fs_err::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        Ok(options.open(path)?.into_file())
    }

    /// An external disk that is not there must not look like an empty directory.
    fn refuse_dangling(&self) -> Result<()> {
        match self.dir.read_link() {
            Ok(target) if !self.dir.exists() => {
                let (dir, target) = (self.dir.display(), target.display());
                Err(Failure::new(format!("{dir} is a link to {target}, which is not there"))
                    .hint("connect its disk, make that directory, or remove the link")
                    .into())
            }
            _ => Ok(()),
        }
    }
}

/// The store in the hands of the one process that may change it.
pub struct LockedStore {
    store: Store,
    lock: File,
}

impl Drop for LockedStore {
    /// Nobody is to wait for a command that has ended.
    fn drop(&mut self) {
        let _ = self.lock.set_len(0);
    }
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
        for entry in fs_err::read_dir(&dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_string_lossy().starts_with(INCOMING) {
                fs_err::remove_dir_all(entry.path())?;
            } else if name.to_string_lossy().contains(fs::UNFINISHED) {
                fs::remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// A directory for the files of the next snapshot, gone unless it is committed.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn begin(&self) -> Result<SnapshotBuilder<'_>> {
        let dir = tempfile::Builder::new()
            .prefix(INCOMING)
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempdir_in(self.state_dir())
            .with_context(|| {
                format!("cannot create a directory in {}", self.state_dir().display())
            })?;
        Ok(SnapshotBuilder { store: self, dir })
    }

    /// Records the sha256 of those databases of a snapshot that have none.
    ///
    /// # Errors
    ///
    /// They cannot be read, or it cannot be written.
    pub fn record_hashes(&self, mut snapshot: Snapshot) -> Result<()> {
        let Some(meta) = &mut snapshot.meta else { return Ok(()) };
        for database in meta.databases.iter_mut().filter(|database| database.sha256.is_none()) {
            database.sha256 = Some(fs::sha256(&snapshot.path.join(&database.name))?);
        }
        // Of a killed run, what is unfinished in the state directory is removed.
        let new = self.state_dir().join(format!("{}{META}", fs::UNFINISHED));
        fs::write(&new, &serde_json::to_vec_pretty(&meta)?)?;
        fs::rename(&new, &snapshot.path.join(META))?;
        fs::sync(&snapshot.path)
    }

    /// Removes a snapshot, so that a kill in between leaves no half of one; of a
    /// link to one, only the link.
    ///
    /// # Errors
    ///
    /// It cannot be removed.
    pub fn remove(&self, snapshot: &Snapshot) -> Result<()> {
        match snapshot.elsewhere {
            Some(External::Link(_)) => {
                fs::remove(&snapshot.path)?;
                return fs::sync(&self.dir);
            }
            Some(External::Mount) => {
                let path = snapshot.path.display();
                return Err(Failure::new(format!("{path} is a file system of its own"))
                    .hint(format!("umount {path}; what is in it stays there"))
                    .into());
            }
            None => {}
        }
        let grave = self.state_dir().join(format!("{INCOMING}{}", snapshot.name));
        fs::rename(&snapshot.path, &grave)?;
        fs::sync(&self.dir)?;
        Ok(fs_err::remove_dir_all(&grave)?)
    }
}

/// The files of a snapshot to be.
pub struct SnapshotBuilder<'a> {
    store: &'a LockedStore,
    dir: tempfile::TempDir,
}

impl SnapshotBuilder<'_> {
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Makes the files, which are synced, a snapshot. Its name comes behind those of
    /// all that were made before it, also where the clock has gone back since.
    ///
    /// # Errors
    ///
    /// It cannot be written; then there is none.
    #[expect(clippy::needless_pass_by_value, reason = "what was committed is of no more use")]
    pub fn commit(self, meta: Meta) -> Result<Snapshot> {
        let mut order = meta.time;
        let snapshots = self.store.list()?;
        let newest = snapshots.iter().find(|snapshot| snapshot.meta.is_some());
        if let Some(newest) = newest.filter(|newest| newest.order >= order) {
            order = next(newest.order).with_context(|| format!("after {}", newest.name))?;
        }
        let mut path = self.store.dir.join(name_of(order));
        // What a person has made may be called so too.
        while path.symlink_metadata().is_ok() {
            order = next(order)?;
            path = self.store.dir.join(name_of(order));
        }
        fs::write(&self.path().join(META), &serde_json::to_vec_pretty(&meta)?)?;
        fs::rename(self.path(), &path)?;
        fs::sync(&self.store.dir)?;
        let unreadable = format!("cannot read {}", path.display());
        let Some(snapshot) = Snapshot::read(path).context(unreadable)? else {
            bail!("a snapshot was given a name that is none")
        };
        // One that was not understood would put nothing in place.
        if let (None, Some(why)) = (&snapshot.meta, &snapshot.defect) {
            bail!("{} cannot be read again: {why}", snapshot.path.display());
        }
        Ok(snapshot)
    }
}

fn next(time: Timestamp) -> Result<Timestamp> {
    time.checked_add(SignedDuration::from_millis(1)).with_context(|| {
        Failure::new("no snapshot can be named behind the end of time").hint("rename that one")
    })
}

/// The one snapshot whose name is `text`, or begins or ends with it; the
/// `backup_` before it and the `Z` behind it may be left out.
///
/// # Errors
///
/// None or several are.
pub fn find<'a>(snapshots: &'a [Snapshot], text: &str, dir: &Path) -> Result<&'a Snapshot> {
    let fits = |snapshot: &&Snapshot| {
        let name = snapshot.name.as_str();
        let short = name.trim_start_matches(PREFIX);
        [name, short].iter().any(|n| n.starts_with(text))
            || name.ends_with(text)
            || name.trim_end_matches('Z').ends_with(text)
    };
    if let Some(exact) = snapshots.iter().find(|snapshot| snapshot.name == text) {
        return Ok(exact);
    }
    let found: Vec<_> = snapshots.iter().filter(fits).collect();
    match found[..] {
        [one] if !text.is_empty() => Ok(one),
        [] => Err(Failure::new(format!("no snapshot in {} is called {text:?}", dir.display()))
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

#[cfg(test)]
mod tests;
