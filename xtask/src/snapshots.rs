//! The store: the snapshots in the data directory, the lock for commands that change it, and the
//! plan of a prune.

mod cachedir;
mod disk;
mod leftover;
mod lock;
mod names;
mod prune;
mod sharing;
mod snapshot;

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use fs_err::os::unix::fs::OpenOptionsExt as _;
use jiff::{SignedDuration, Timestamp};

pub use self::disk::disk_usage;
pub use self::leftover::{Leftover, retain};
pub use self::names::check_names;
pub use self::prune::prune_plan;
pub use self::snapshot::META;
pub use self::snapshot::{
    Database, External, FileId, Kind, Meta, Origin, RemoteState, Snapshot, has_same_content,
    unsanitized,
};
use self::snapshot::{PREFIX, name_of, time_of};
use crate::config::Settings;
use crate::error::Failure;
use crate::ui::{Ui, escape};
use crate::{fs, moment};

/// The parts of the data directory that are not snapshots.
pub const STATE_DIR: &str = ".xtask";
const LOCK: &str = "lock";
const INCOMING: &str = "incoming-";
/// The directory of a pull, which outlives it as a [`Leftover`] if the pull was cut.
const PULL: &str = "incoming-pull";

/// Whether a file of this name in a data directory belongs to this tool.
pub fn is_ours(name: &str) -> bool {
    name == STATE_DIR || time_of(name).is_some()
}

/// Whether the name of a file, of which this is the path, begins with a dot: it is no database.
pub fn is_hidden(name: &str) -> bool {
    name.rsplit('/').next().is_some_and(|file| file.starts_with('.'))
}

/// Whether a file is one that a desktop puts into any directory, though it is called like a database.
pub fn is_of_desktop(name: &str) -> bool {
    name.rsplit('/').next() == Some("Thumbs.db")
}

/// Whether a path below a data directory begins with a directory that is named like a snapshot.
pub fn is_in_snapshot(name: &str) -> bool {
    name.split_once('/').is_some_and(|(first, _)| first.to_lowercase().starts_with(PREFIX))
}

/// A data directory and its snapshots, read-only. What was saved before a change lies in it; what was
/// pulled, or made by hand, may lie in another directory, which several data directories share.
pub struct Store {
    pub dir: PathBuf,
    /// Where snapshots are made that others may use too; may be `dir`, also by another path.
    common: PathBuf,
    no_wait: bool,
}

impl Store {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), common: dir.to_owned(), no_wait: false }
    }

    pub fn of(settings: &Settings) -> Self {
        Self { common: settings.snapshots_dir.clone(), ..Self::new(&settings.data_dir) }
    }

    /// The directory of shared snapshots, unless it is the data directory itself.
    pub fn shared(&self) -> Option<&Path> {
        (fs::real(&self.common) != fs::real(&self.dir)).then_some(&*self.common)
    }

    /// The directories with snapshots, the own one first.
    fn dirs(&self) -> Vec<&Path> {
        [&*self.dir].into_iter().chain(self.shared()).collect()
    }

    /// Sets whether a lock held by another command is an error.
    pub fn no_wait(self, no_wait: bool) -> Self {
        Self { no_wait, ..self }
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.join(STATE_DIR)
    }

    /// What arrived of the last pull, if that did not end.
    pub fn leftover(&self) -> Option<Leftover> {
        Leftover::read(&self.common.join(STATE_DIR).join(PULL))
    }

    /// What killed commands left here, which the next command that changes something removes.
    ///
    /// # Errors
    ///
    /// A directory cannot be read.
    pub fn abandoned(&self) -> Result<Vec<PathBuf>> {
        let state_dirs = self.dirs().into_iter().map(|dir| dir.join(STATE_DIR));
        // What a running command is making is no leftover.
        let idle = state_dirs.filter(|dir| dir.exists() && !lock::is_held(&dir.join(LOCK)));
        let lists = idle.map(|dir| abandoned(&dir)).collect::<Result<Vec<_>>>()?;
        Ok(lists.into_iter().flatten().collect())
    }

    /// All snapshots, newest first.
    ///
    /// # Errors
    ///
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<Snapshot>> {
        let mut snapshots: Vec<Snapshot> = Vec::new();
        for dir in self.dirs() {
            refuse_dangling(dir)?;
            let entries = match fs_err::read_dir(dir) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let path = entry?.path();
                let snapshot = Snapshot::read(path.clone())
                    .with_context(|| format!("cannot read {}", path.display()))?;
                // A copy that a person has made has the same name in both.
                let is_new = |one: &Snapshot| snapshots.iter().all(|it| it.name != one.name);
                if let Some(snapshot) = snapshot.filter(is_new) {
                    snapshots.push(snapshot);
                }
            }
        }
        // Names without milliseconds, of older tools, do not sort like their times.
        snapshots.sort_by(|a, b| (b.order, &b.name).cmp(&(a.order, &a.name)));
        Ok(snapshots)
    }

    /// Whether a snapshot was saved of the data of another directory, which alone may prune it.
    pub fn is_of_others(&self, snapshot: &Snapshot) -> bool {
        let is_shared = self.shared().is_some_and(|shared| snapshot.path.parent() == Some(shared));
        let kind = snapshot.meta.as_ref().map(|meta| meta.kind);
        is_shared && matches!(kind, Some(Kind::BeforePull | Kind::BeforeRestore))
    }

    /// Records in the shared directory which snapshots the live set needs.
    ///
    /// # Errors
    ///
    /// The record cannot be written.
    pub fn record_needed(&self, names: BTreeSet<String>) -> Result<()> {
        let shared = self.shared().map(|shared| shared.join(STATE_DIR));
        shared.map_or(Ok(()), |state_dir| sharing::record(&state_dir, &self.dir, names))
    }

    /// The snapshots that the live sets need which share them.
    ///
    /// # Errors
    ///
    /// A record cannot be read.
    pub fn needed_by_sharing(&self) -> Result<BTreeSet<String>> {
        sharing::needed(&self.common.join(STATE_DIR))
    }

    /// The other data directories that share the snapshots and have recorded to need this one.
    ///
    /// # Errors
    ///
    /// A record cannot be read.
    pub fn sharing_that_need(&self, snapshot: &str) -> Result<BTreeSet<PathBuf>> {
        let mut dirs = sharing::dirs_that_need(&self.common.join(STATE_DIR), snapshot)?;
        dirs.remove(&self.dir);
        Ok(dirs)
    }

    /// Whether there is a snapshot of this name.
    pub fn has(&self, name: &str) -> bool {
        self.dirs().iter().any(|dir| dir.join(name).exists())
    }

    /// The path of a file in the snapshot of this name.
    pub fn path_in(&self, snapshot: &str, file: &str) -> Option<PathBuf> {
        let paths = self.dirs().into_iter().map(|dir| dir.join(snapshot).join(file));
        paths.into_iter().find(|path| path.exists())
    }

    /// Like [`find`], among all snapshots.
    ///
    /// # Errors
    ///
    /// No snapshot matches, or several do.
    pub fn find(&self, text: &str) -> Result<Snapshot> {
        find(&self.list()?, text, &self.common).cloned()
    }

    /// Locks the data directory and that of shared snapshots; waits for other commands.
    ///
    /// # Errors
    ///
    /// A directory cannot be created, written or locked, or another command has the lock and
    /// `no_wait` is set.
    pub fn lock(self, ui: &Ui, command: &str) -> Result<LockedStore> {
        let no_wait = self.no_wait;
        self.lock_if(command, |holder, dir| {
            let dir = dir.display();
            if no_wait {
                let message = format!("{holder} is running in {dir}; nothing was changed");
                let hint = "run the command again later, or without --no-wait";
                return Err(Failure::new(message).hint(hint).into());
            }
            ui.status("Waiting", format!("for {holder} in {dir}"));
            Ok(())
        })
    }

    /// Like [`Store::lock`]; if another command has a lock, waits only if `may_wait` allows it.
    ///
    /// # Errors
    ///
    /// Those of [`Store::lock`] and `may_wait`.
    pub fn lock_if(
        self,
        command: &str,
        may_wait: impl Fn(&str, &Path) -> Result<()>,
    ) -> Result<LockedStore> {
        let unwritable = |dir: &Path| {
            let hint = match self.shared() {
                Some(shared) if shared == dir => "set another snapshots-dir in xtask/db.toml",
                _ => "name another directory with --local-dir",
            };
            Failure::new(format!("{} cannot be written", dir.display())).hint(format!(
                "make it writable, or {hint}; cargo xtask restore-db --list only reads"
            ))
        };
        for dir in [&self.dir, &self.common] {
            refuse_dangling(dir)?;
            // Whether they are one directory is certain only when both are there.
            fs::create_dir_durably(dir).with_context(|| unwritable(dir))?;
        }
        let lock = |dir: &Path| -> Result<Lock> {
            let path = dir.join(STATE_DIR).join(LOCK);
            let mut file = open_lock(dir, &path).with_context(|| unwritable(dir))?;
            lock::take(&mut file, &path, |holder| may_wait(&escape(holder), dir))?;
            lock::sign(&mut file, command);
            // A command that frees space on a full disk must go on.
            let _ = cachedir::tag(&dir.join(STATE_DIR));
            let lock = Lock { dir: dir.to_owned(), file };
            remove_abandoned(&dir.join(STATE_DIR))?;
            Ok(lock)
        };
        // In the same order by every command, so that no two wait for each other.
        let mut dirs = self.dirs();
        dirs.sort();
        let locks = dirs.into_iter().map(lock).collect::<Result<_>>()?;
        Ok(LockedStore { store: self, locks })
    }
}

/// Creates the state directory, and checks that later steps can write and rename in both.
fn open_lock(dir: &Path, path: &Path) -> Result<File> {
    use rustix::fs::{Access, access};

    let state = &dir.join(STATE_DIR);
    fs::create_dir_durably(state)?;
    for dir in [dir, state] {
        access(dir, Access::WRITE_OK | Access::EXEC_OK)
            .with_context(|| format!("no file can be made in {}", dir.display()))?;
    }
    // A file cannot be renamed to another file system.
    if dir.metadata()?.dev() != state.metadata()?.dev() {
        bail!("{} is on another file system", state.display());
    }
    let mut options = fs_err::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    Ok(options.open(path)?.into_file())
}

/// A data directory on a disconnected disk must not look like an empty one.
fn refuse_dangling(dir: &Path) -> Result<()> {
    match dir.read_link() {
        Ok(target) if !dir.exists() => {
            let (dir, target) = (dir.display(), target.display());
            Err(Failure::new(format!("{dir} is a link to {target}, which does not exist"))
                .hint("connect its disk, make that directory, or remove the link")
                .into())
        }
        _ => Ok(()),
    }
}

/// The unfinished snapshots and files of killed runs in a state directory, unless a pull can resume
/// from them.
fn abandoned(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(dir)? {
        let entry = entry?;
        let (name, path) = (entry.file_name(), entry.path());
        let is_directory = name.to_string_lossy().starts_with(INCOMING)
            && (name != PULL || Leftover::read(&path).is_none());
        if is_directory || name.to_string_lossy().contains(fs::UNFINISHED) {
            found.push(path);
        }
    }
    Ok(found)
}

fn remove_abandoned(dir: &Path) -> Result<()> {
    for path in abandoned(dir)? {
        match path.is_dir() {
            true => fs_err::remove_dir_all(path)?,
            false => fs::remove(&path)?,
        }
    }
    Ok(())
}

/// A locked store, which its process may change.
pub struct LockedStore {
    store: Store,
    locks: Vec<Lock>,
}

/// The lock of a directory.
struct Lock {
    dir: PathBuf,
    file: File,
}

impl Drop for Lock {
    /// Clears the name of this command, so that no command reports to wait for it.
    fn drop(&mut self) {
        let _ = self.file.set_len(0);
    }
}

impl std::ops::Deref for LockedStore {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

impl LockedStore {
    /// Creates a directory for the next snapshot; it is removed unless it is committed.
    ///
    /// # Errors
    ///
    /// The directory cannot be created.
    pub fn begin(&self, kind: Kind) -> Result<SnapshotBuilder<'_>> {
        let to = match kind {
            Kind::Pull | Kind::Manual => &self.common,
            Kind::BeforePull | Kind::BeforeRestore => &self.dir,
        };
        let dir = private_directory(to)?;
        Ok(SnapshotBuilder { store: self, to, path: dir.keep(), may_stay: false })
    }

    /// Creates a directory that only this user may enter. It is removed with the returned value, and
    /// after a kill by the next command.
    ///
    /// # Errors
    ///
    /// The directory cannot be created.
    pub fn private_directory(&self) -> Result<tempfile::TempDir> {
        private_directory(&self.common)
    }

    /// Creates the directory of the pull that `meta` describes, or takes over that of a pull that
    /// was cut, of which only the databases `kept` stay. If this pull is cut, the directory stays
    /// for the next one, also after a kill.
    ///
    /// # Errors
    ///
    /// The directory cannot be created, or another file in it cannot be removed.
    pub fn begin_pull(&self, meta: &Meta, kept: &[&str]) -> Result<SnapshotBuilder<'_>> {
        let path = self.common.join(STATE_DIR).join(PULL);
        if kept.is_empty() {
            // Also the record, which may be of another source.
            self.discard_leftover()?;
        }
        fs::create_dir(&path)?;
        retain(&path, kept)?;
        // On a full disk, the pull itself has the better message. Of what is kept there is a record.
        let written = fs::write(&path.join(META), &serde_json::to_vec_pretty(meta)?);
        let may_stay = written.is_ok() || !kept.is_empty();
        Ok(SnapshotBuilder { store: self, to: &self.common, path, may_stay })
    }

    /// Removes what arrived of a pull that was cut; returns its size in bytes.
    ///
    /// # Errors
    ///
    /// A file cannot be removed.
    pub fn discard_leftover(&self) -> Result<Option<u64>> {
        let path = self.common.join(STATE_DIR).join(PULL);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = self.leftover().map_or(0, |leftover| leftover.bytes());
        fs_err::remove_dir_all(&path)?;
        Ok(Some(bytes))
    }

    /// Lets other commands use the shared snapshots: this one does not touch them any more.
    pub fn release_shared(&mut self) {
        let Self { store, locks } = self;
        locks.retain(|lock| lock.dir == store.dir);
    }

    /// Records a label, or that a snapshot is pinned: whatever `change` makes of its metadata.
    ///
    /// # Errors
    ///
    /// The snapshot has no metadata, lies elsewhere, or cannot be written.
    pub fn edit(&self, snapshot: &Snapshot, change: impl FnOnce(&mut Meta)) -> Result<()> {
        let Some(meta) = &snapshot.meta else {
            let what = format!("{} has no {META}, which would record that", snapshot.name);
            return Err(Failure::new(what).hint("cargo xtask restore-db --list").into());
        };
        if snapshot.elsewhere.is_some() {
            let what = format!("{} lies elsewhere, and is only read", snapshot.name);
            return Err(Failure::new(what).hint("it is never pruned anyway").into());
        }
        let mut meta = meta.clone();
        change(&mut meta);
        write_meta(snapshot, &meta)
    }

    /// Records the missing sha256 of databases in a snapshot.
    ///
    /// # Errors
    ///
    /// A database cannot be read, or `snapshot.json` cannot be written.
    pub fn record_hashes(&self, mut snapshot: Snapshot) -> Result<()> {
        let Some(mut meta) = snapshot.meta.take() else { return Ok(()) };
        for database in meta.databases.iter_mut().filter(|database| database.sha256.is_none()) {
            database.sha256 = Some(fs::sha256(&snapshot.path.join(&database.name))?);
        }
        write_meta(&snapshot, &meta)
    }

    /// Removes a snapshot, so that a kill leaves no partial one; for a link, removes only the link.
    ///
    /// # Errors
    ///
    /// A file cannot be removed.
    pub fn remove(&self, snapshot: &Snapshot) -> Result<()> {
        match snapshot.elsewhere {
            Some(External::Link(_)) => {
                fs::remove(&snapshot.path)?;
                return fs::sync(parent(snapshot)?);
            }
            Some(External::Mount) => {
                let path = snapshot.path.display();
                return Err(Failure::new(format!("{path} is a mount point"))
                    .hint(format!("umount {path}; its content stays there"))
                    .into());
            }
            None => {}
        }
        let grave = parent(snapshot)?.join(STATE_DIR).join(format!("{INCOMING}{}", snapshot.name));
        fs::rename(&snapshot.path, &grave)?;
        fs::sync(parent(snapshot)?)?;
        Ok(fs_err::remove_dir_all(&grave)?)
    }
}

fn private_directory(dir: &Path) -> Result<tempfile::TempDir> {
    let state_dir = dir.join(STATE_DIR);
    tempfile::Builder::new()
        .prefix(INCOMING)
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir_in(&state_dir)
        .with_context(|| format!("cannot create a directory in {}", state_dir.display()))
}

/// The directory of an uncommitted snapshot.
pub struct SnapshotBuilder<'a> {
    store: &'a LockedStore,
    /// The directory of the finished snapshot.
    to: &'a Path,
    path: PathBuf,
    /// Whether the next pull may resume from it.
    may_stay: bool,
}

impl Drop for SnapshotBuilder<'_> {
    /// Removes the directory of what was not committed, unless a pull can resume from it. The next
    /// command removes what this cannot.
    fn drop(&mut self) {
        let _ = match self.leftover() {
            Some(leftover) => leftover.tidy(),
            None => std::fs::remove_dir_all(&self.path),
        };
    }
}

impl SnapshotBuilder<'_> {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the next pull resumes from, if this one fails now.
    pub fn leftover(&self) -> Option<Leftover> {
        self.may_stay.then(|| Leftover::read(&self.path)).flatten()
    }

    /// Makes a snapshot of the synced files. Its name sorts after all earlier ones, even if the
    /// clock was set back.
    ///
    /// # Errors
    ///
    /// The snapshot cannot be written; then it does not exist.
    #[expect(clippy::needless_pass_by_value, reason = "what was committed is of no more use")]
    pub fn commit(mut self, meta: Meta) -> Result<Snapshot> {
        self.may_stay = false;
        let mut order = meta.time;
        let snapshots = self.store.list()?;
        let newest = snapshots.iter().find(|snapshot| snapshot.meta.is_some());
        if let Some(newest) = newest.filter(|newest| newest.order >= order) {
            order = next(newest.order).with_context(|| format!("after {}", newest.name))?;
        }
        let mut path = self.to.join(name_of(order));
        // The user may have a directory of this name.
        while path.symlink_metadata().is_ok() || self.store.has(&name_of(order)) {
            order = next(order)?;
            path = self.to.join(name_of(order));
        }
        cachedir::tag(self.path())?;
        fs::sync_dirs_below(self.path(), meta.databases.iter().map(|database| &database.name))?;
        // This syncs the directory itself.
        fs::write(&self.path().join(META), &serde_json::to_vec_pretty(&meta)?)?;
        fs::rename(self.path(), &path)?;
        fs::sync(self.to)?;
        let unreadable = format!("cannot read {}", path.display());
        let Some(snapshot) = Snapshot::read(path).context(unreadable)? else {
            bail!("a snapshot was given a name that is none")
        };
        // Without its metadata, the snapshot would restore nothing.
        if let (None, Some(why)) = (&snapshot.meta, &snapshot.defect) {
            bail!("{} cannot be read again: {why}", snapshot.path.display());
        }
        Ok(snapshot)
    }
}

/// Replaces the `snapshot.json` of a snapshot.
fn write_meta(snapshot: &Snapshot, meta: &Meta) -> Result<()> {
    // In the state directory, the unfinished files of killed runs are removed.
    let new = parent(snapshot)?.join(STATE_DIR).join(format!("{}{META}", fs::UNFINISHED));
    fs::write(&new, &serde_json::to_vec_pretty(meta)?)?;
    fs::rename(&new, &snapshot.path.join(META))?;
    fs::sync(&snapshot.path)
}

/// The directory that has a snapshot.
fn parent(snapshot: &Snapshot) -> Result<&Path> {
    snapshot.path.parent().context("a snapshot lies in a directory")
}

fn next(time: Timestamp) -> Result<Timestamp> {
    time.checked_add(SignedDuration::from_millis(1)).with_context(|| {
        Failure::new("no name is left after the latest possible time").hint("rename that one")
    })
}

/// The one snapshot with this label, or whose name equals, starts with or ends with `text`;
/// `backup_` and the final `Z` may be omitted.
///
/// # Errors
///
/// No snapshot matches, or several do.
pub fn find<'a>(snapshots: &'a [Snapshot], text: &str, dir: &Path) -> Result<&'a Snapshot> {
    let fits = |snapshot: &&Snapshot| {
        let name = snapshot.name.as_str();
        let short = name.trim_start_matches(PREFIX);
        [name, short].iter().any(|n| n.starts_with(text))
            || name.ends_with(text)
            || name.trim_end_matches('Z').ends_with(text)
            || snapshot.label() == Some(text)
    };
    if let Some(exact) = snapshots.iter().find(|snapshot| snapshot.name == text) {
        return Ok(exact);
    }
    let found: Vec<_> = snapshots.iter().filter(fits).collect();
    match found[..] {
        [one] if !text.is_empty() => Ok(one),
        [] => {
            let what = format!("no snapshot in {} is called {text:?}", dir.display());
            let newest = snapshots.iter().take(3).map(|one| described(one, snapshots));
            let newest: Vec<_> = newest.collect();
            let newest = match newest.is_empty() {
                true => String::new(),
                false => format!("; the newest are: {}", newest.join(", ")),
            };
            Err(Failure::new(what + &newest).hint("cargo xtask restore-db --list").into())
        }
        _ => {
            let mut names: Vec<_> =
                found.iter().take(5).map(|one| described(one, snapshots)).collect();
            if found.len() > names.len() {
                names.push("…".to_owned());
            }
            let what = format!("{text:?} matches {}: {}", found.len(), names.join(", "));
            let hint = format!("name one, for example {}", found[0].name);
            Err(Failure::usage(what).hint(hint).into())
        }
    }
}

/// A snapshot as an error names it: `365Z (today 14:18)`.
pub fn described(snapshot: &Snapshot, among: &[Snapshot]) -> String {
    let short = short_name(&snapshot.name, among);
    format!("{short} ({})", moment::words(snapshot.time, &moment::now()))
}

/// The shortest end of a name that is of no other snapshot: `365Z`.
pub fn short_name<'a>(name: &'a str, among: &[Snapshot]) -> &'a str {
    const SHORTEST: usize = 4;
    // Names are ASCII. One that begins with a dash would be taken for a flag.
    let ends = (SHORTEST..name.len()).filter_map(|length| name.get(name.len() - length..));
    let is_unique = |end: &&str| {
        let has_it = |one: &&Snapshot| one.name.ends_with(*end) || one.label() == Some(*end);
        !end.starts_with('-') && among.iter().filter(has_it).count() <= 1
    };
    ends.into_iter().find(is_unique).unwrap_or(name)
}

#[cfg(test)]
mod tests;
