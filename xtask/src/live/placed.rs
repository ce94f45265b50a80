//! What is known of live databases without reading them: the content that was installed, and the
//! stamp of the file right after. As long as the stamp is the same, so is the content, until the
//! machine boots: a power cut may take the new times of a file, and leave what was written to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use xshell::{Shell, cmd};

use super::State;
use crate::snapshots::{Snapshot, Store};
use crate::sqlite::sidecar;
use crate::{fs, interrupt};

/// How long the clock of the file system may take to advance, and how often that is tried.
const TICK: Duration = Duration::from_millis(5);
const TICKS: usize = 10;

/// Device, inode, size, and the times of the last write and of the last change of a file.
type File = (u64, u64, u64, (i64, i64), (i64, i64));

/// The files of a live database; an empty `-wal` has no content. The `-shm` is left out: programs
/// write to it while they only read the database.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Stamp {
    file: File,
    wal: Option<File>,
}

impl Stamp {
    /// `None` if the file is missing.
    pub fn of(path: &Path) -> Option<Self> {
        let wal = sidecar(&path.canonicalize().ok()?, "-wal").metadata().ok();
        let wal = wal.filter(|wal| wal.len() > 0).map(|wal| file(&wal));
        Some(Self { file: file(&path.metadata().ok()?), wal })
    }

    /// Whether the database was written to since the other stamp was taken of it, when it had no
    /// `-wal`. A change of its owner or mode is no write.
    fn is_written_since(&self, placed: &Stamp) -> bool {
        let (_, ino, size, written, _) = self.file;
        let (placed_ino, placed_size, placed_written) =
            (placed.file.1, placed.file.2, placed.file.3);
        self.wal.is_some() || (ino, size, written) != (placed_ino, placed_size, placed_written)
    }

    /// Whether the file is the one that was staged, and nobody has written to it since: a rename
    /// changes only the ctime.
    fn is_staged(&self, staged: &Stamp) -> bool {
        let (dev, ino, size, written, _) = self.file;
        let (staged_dev, staged_ino, staged_size, staged_written, _) = staged.file;
        self.wal.is_none()
            && (dev, ino, size, written) == (staged_dev, staged_ino, staged_size, staged_written)
    }
}

fn file(metadata: &Metadata) -> File {
    let written = (metadata.mtime(), metadata.mtime_nsec());
    let changed = (metadata.ctime(), metadata.ctime_nsec());
    (metadata.dev(), metadata.ino(), metadata.len(), written, changed)
}

/// A live database as it was installed.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Placed {
    /// The content in the snapshot.
    pub sha256: String,
    pub stamp: Stamp,
    /// What has made a database of here of it.
    #[serde(default)]
    pub prepared: String,
    /// The run of the kernel in which the stamp was taken. Not recorded by older versions.
    #[serde(default)]
    boot: Option<String>,
}

/// Names the run of the kernel, if that is known.
fn boot() -> Option<&'static str> {
    static BOOT: OnceLock<Option<String>> = OnceLock::new();
    let read = || match cfg!(target_os = "macos") {
        true => {
            let sh = Shell::new().ok()?;
            cmd!(sh, "sysctl -n kern.bootsessionuuid").quiet().ignore_stderr().read().ok()
        }
        false => std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok(),
    };
    let boot = BOOT.get_or_init(|| Some(read()?.trim().to_owned()).filter(|id| !id.is_empty()));
    boot.as_deref()
}

/// The stamps of staged files, once a write that comes later would get another time.
pub fn staged(store: &Store, dir: &Path, names: &[String]) -> BTreeMap<String, Stamp> {
    let stamps = names.iter().filter_map(|name| Some((name.clone(), Stamp::of(&dir.join(name))?)));
    let stamps: BTreeMap<_, _> = stamps.collect();
    let newest = stamps.values().map(|stamp| stamp.file.3).max();
    if newest.is_none_or(|newest| has_passed(store, newest)) { stamps } else { BTreeMap::new() }
}

/// Records which of the installed databases of `snapshot` are still what was `staged`: those that no
/// program had open, nor has written to since.
///
/// # Errors
///
/// The state cannot be written.
pub fn record(
    store: &Store,
    snapshot: &Snapshot,
    installed: &[String],
    staged: &BTreeMap<String, Stamp>,
    prepared: impl Fn(&str) -> String,
) -> Result<()> {
    let mut state = State::read(store)?;
    for name in installed {
        state.placed.remove(name);
        if let (Some(sha256), Some(staged)) = (sha256_in(snapshot, name), staged.get(name))
            && let Some(stamp) = Stamp::of(&store.dir.join(name))
            && stamp.is_staged(staged)
        {
            state.placed.insert(
                name.clone(),
                Placed {
                    sha256: sha256.to_owned(),
                    stamp,
                    prepared: prepared(name),
                    boot: boot().map(str::to_owned),
                },
            );
        }
    }
    state.write(store)
}

/// Whether the clock of the file system goes past `time` soon.
fn has_passed(store: &Store, time: (i64, i64)) -> bool {
    let probe = store.state_dir().join(format!("{}tick", fs::UNFINISHED));
    let passed = (0..TICKS).any(|_| {
        let written = std::fs::write(&probe, "").and_then(|()| probe.metadata());
        let passed = written.is_ok_and(|it| (it.mtime(), it.mtime_nsec()) > time);
        passed || interrupt::sleep(TICK).is_err()
    });
    let _ = std::fs::remove_file(&probe);
    passed && interrupt::check().is_ok()
}

/// The recorded sha256 of a database of a snapshot.
pub fn sha256_in<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a str> {
    snapshot.database(name)?.sha256.as_deref()
}

/// Those live databases that are as they were installed.
pub fn unchanged(store: &Store, state: &State) -> BTreeMap<String, Placed> {
    let mut placed = state.placed.clone();
    placed.retain(|name, placed| {
        placed.boot.is_some()
            && placed.boot.as_deref() == boot()
            && Stamp::of(&store.dir.join(name)).is_some_and(|now| now == placed.stamp)
    });
    placed
}

/// Those live databases that were written to since they were installed, or are gone. Of one that
/// a program had open then, nothing is known.
pub fn edited(store: &Store, state: &State) -> BTreeSet<String> {
    let is_edited = |(name, placed): &(&String, &Placed)| {
        let now = Stamp::of(&store.dir.join(name));
        now.is_none_or(|now| now.is_written_since(&placed.stamp))
    };
    state.placed.iter().filter(is_edited).map(|(name, _)| name.clone()).collect()
}

/// A file in a snapshot with this content, which nobody has written to since it was recorded.
pub fn find_file(snapshots: &[Snapshot], name: &str, sha256: &str) -> Option<PathBuf> {
    snapshots.iter().find_map(|snapshot| {
        let database = snapshot.database(name)?;
        let path = snapshot.path.join(name);
        let found = database.sha256.as_deref() == Some(sha256) && database.is_recorded(&path);
        found.then_some(path)
    })
}
