//! The space that snapshots take: they share files that did not change.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;

use super::Snapshot;

/// In bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct DiskUsage {
    pub on_disk: u64,
    /// How much more it would be if no two of them had a file in common.
    pub shared: u64,
    /// How much of it only these snapshots have: what is free after they are removed.
    pub own: u64,
}

/// The space that these snapshots take together.
pub fn disk_usage<'a>(snapshots: impl IntoIterator<Item = &'a Snapshot>) -> DiskUsage {
    let mut files = BTreeMap::new();
    let mut usage = DiskUsage { on_disk: 0, shared: 0, own: 0 };
    for snapshot in snapshots {
        for (name, _) in &snapshot.files {
            let Ok(file) = snapshot.path.join(name).metadata() else { continue };
            let bytes = file.blocks() * 512;
            let links = files.entry((file.dev(), file.ino())).or_insert(0);
            *links += 1;
            if *links == 1 {
                usage.on_disk += bytes;
            } else {
                usage.shared += bytes;
            }
            if *links == file.nlink() {
                usage.own += bytes;
            }
        }
    }
    usage
}
