//! The disk that snapshots of many days take here.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use xtask_db::internals::ui::Ui;

use super::local::Local;

/// How many databases there are at most, and how many of them change a day.
pub const DATABASES: u64 = 100;
const CHANGED: u64 = 5;
pub const DAYS: u64 = 10;

/// The size of a block of `stat`, whatever that of the file system is.
const BLOCK: u64 = 512;

/// Bytes of allocated blocks.
#[derive(Debug, Serialize)]
pub struct Disk {
    pub databases: u64,
    /// What production takes.
    pub set: u64,
    /// What the data directory takes, and what of it is in snapshots.
    pub data: u64,
    pub snapshots: u64,
}

impl Disk {
    /// Both as multiples of one set: with the live set, and without.
    pub fn multiples(&self) -> [f64; 2] {
        [self.data, self.snapshots].map(|bytes| bytes as f64 / self.set as f64)
    }
}

/// Pulls ten days. Nothing if one takes too long.
///
/// # Errors
///
/// A pull fails, or a directory cannot be read.
pub fn measure(ui: &Ui, local: &Local<'_>) -> Result<Option<Disk>> {
    local.reset()?;
    for day in 0..DAYS {
        ui.status("Measuring", format!("the disk that snapshots take, day {} of {DAYS}", day + 1));
        if day > 0 {
            local.live_a_day(day, CHANGED)?;
        }
        if local.pull()?.is_none() {
            return Ok(None);
        }
    }
    let (set, data) = (Usage::of(&local.production())?, Usage::of(&local.data())?);
    Ok(Some(Disk { databases: local.tenants, set: set.all, data: data.all, snapshots: data.below }))
}

/// What a directory takes: all of it, and what is in directories below it. A file with
/// several names in it counts once, and as below if one of them is.
#[derive(Debug, Default, PartialEq)]
struct Usage {
    all: u64,
    below: u64,
}

impl Usage {
    fn of(dir: &Path) -> Result<Self> {
        let mut usage = Self::default();
        usage.add(dir, false, &mut HashSet::new())?;
        Ok(usage)
    }

    fn add(&mut self, dir: &Path, below: bool, seen: &mut HashSet<(u64, u64)>) -> Result<()> {
        let entries = std::fs::read_dir(dir)?.collect::<std::io::Result<Vec<_>>>()?;
        let is_dir = |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        let (dirs, files): (Vec<_>, Vec<_>) = entries.into_iter().partition(is_dir);
        // Directories first: a live file that is a link to one of a snapshot takes nothing.
        for entry in dirs {
            self.add(&entry.path(), true, seen)?;
        }
        for entry in files {
            let metadata = entry.metadata()?;
            if seen.insert((metadata.dev(), metadata.ino())) {
                let bytes = metadata.blocks() * BLOCK;
                self.all += bytes;
                self.below += if below { bytes } else { 0 };
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_two_names_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("snapshot")).unwrap();
        for (name, bytes) in [("live", 20_000), ("snapshot/a", 50_000)] {
            std::fs::write(at(name), vec![1; bytes]).unwrap();
        }
        rustix::fs::sync();
        let once = Usage::of(dir.path()).unwrap();
        assert!(once.below >= 50_000 && once.all >= once.below + 20_000, "{once:?}");
        for name in ["linked", "snapshot/b"] {
            std::fs::hard_link(at("snapshot/a"), at(name)).unwrap();
        }
        assert_eq!(Usage::of(dir.path()).unwrap(), once);
        let disk = Disk { databases: 1, set: 10, data: 22, snapshots: 12 };
        assert_eq!(disk.multiples(), [2.2, 1.2]);
    }
}
