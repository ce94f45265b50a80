//! Which snapshots of a store the data directories need that share it: each records them beside
//! those snapshots, so that a prune for another one keeps them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::fs;

/// The directory of the records, in the state directory of the store.
const RECORDS: &str = "shared-by";
/// So long a data directory may be gone, such as on a disk that is not connected.
const ABSENCE: SignedDuration = SignedDuration::from_hours(7 * 24);

#[derive(Deserialize, PartialEq, Eq, Serialize)]
struct Record {
    data_dir: PathBuf,
    snapshots: BTreeSet<String>,
    /// When a prune first found the directory gone; reset by one that finds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gone_since: Option<Timestamp>,
}

fn path_of(state_dir: &Path, data_dir: &Path) -> PathBuf {
    let key = fs::sha256_of(data_dir.as_os_str().as_encoded_bytes());
    state_dir.join(RECORDS).join(format!("{}.json", &key[..16]))
}

fn read(path: &Path) -> Result<Option<Record>> {
    let record = fs::read(path)?.map(|text| serde_json::from_slice(&text)).transpose();
    record.with_context(|| {
        let path = path.display();
        Failure::new(format!("cannot read which snapshots another directory needs: {path}"))
            .hint("run cargo xtask pull-db in each worktree, or remove that file if none needs one")
    })
}

/// Records what `data_dir` needs.
///
/// # Errors
///
/// The record cannot be written.
pub(super) fn record(state_dir: &Path, data_dir: &Path, needed: BTreeSet<String>) -> Result<()> {
    let path = path_of(state_dir, data_dir);
    let record = Record { data_dir: data_dir.to_owned(), snapshots: needed, gone_since: None };
    // One that cannot be read is replaced by what is known.
    if read(&path).ok().flatten().as_ref() == Some(&record) {
        return Ok(());
    }
    fs::create_dir_durably(&state_dir.join(RECORDS))?;
    fs::write(&path, &serde_json::to_vec_pretty(&record)?)
}

/// The records, each with its path.
fn records(state_dir: &Path) -> Result<Vec<(PathBuf, Record)>> {
    let dir = state_dir.join(RECORDS);
    let mut records = Vec::new();
    if !dir.exists() {
        return Ok(records);
    }
    for entry in fs_err::read_dir(dir)? {
        let path = entry?.path();
        // Others are unfinished files.
        if path.extension().is_some_and(|end| end == "json")
            && let Some(record) = read(&path)?
        {
            records.push((path, record));
        }
    }
    Ok(records)
}

/// What all data directories need that are there, or have been lately.
///
/// # Errors
///
/// A record cannot be read: nothing may be removed.
pub(super) fn needed(state_dir: &Path) -> Result<BTreeSet<String>> {
    fs::remove_unfinished(&state_dir.join(RECORDS));
    let (mut needed, now) = (BTreeSet::new(), Timestamp::now());
    for (path, mut record) in records(state_dir)? {
        let is_gone = !record.data_dir.try_exists().unwrap_or(true);
        let gone_since = is_gone.then(|| record.gone_since.unwrap_or(now));
        if gone_since.is_some_and(|since| now.duration_since(since) > ABSENCE) {
            fs::remove(&path)?;
            continue;
        }
        needed.extend(record.snapshots.iter().cloned());
        if record.gone_since != gone_since {
            record.gone_since = gone_since;
            // On a full disk, a prune must go on: the next one tries it again.
            let _ = fs::write(&path, &serde_json::to_vec_pretty(&record)?);
        }
    }
    Ok(needed)
}

/// The data directories that have recorded to need a snapshot.
///
/// # Errors
///
/// A record cannot be read.
pub(super) fn dirs_that_need(state_dir: &Path, snapshot: &str) -> Result<BTreeSet<PathBuf>> {
    let records = records(state_dir)?.into_iter().map(|(_, record)| record);
    let needing = records.filter(|record| record.snapshots.contains(snapshot));
    Ok(needing.map(|record| record.data_dir).collect())
}
