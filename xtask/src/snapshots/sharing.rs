//! Which snapshots of a store the data directories need that share it: each records them beside
//! those snapshots, so that a prune for another one keeps them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::fs;

/// The directory of the records, in the state directory of the store.
const RECORDS: &str = "shared-by";
/// So long a data directory may be gone, such as on a disk that is not connected.
const ABSENCE: Duration = Duration::from_secs(7 * 24 * 3600);

#[derive(Deserialize, PartialEq, Eq, Serialize)]
struct Record {
    data_dir: PathBuf,
    snapshots: BTreeSet<String>,
}

fn path_of(state_dir: &Path, data_dir: &Path) -> PathBuf {
    let key = fs::sha256_of(data_dir.as_os_str().as_encoded_bytes());
    state_dir.join(RECORDS).join(format!("{}.json", &key[..16]))
}

fn read(path: &Path) -> Result<Option<Record>> {
    let record = fs::read(path)?.map(|text| serde_json::from_slice(&text)).transpose();
    record.with_context(|| {
        format!("cannot read which snapshots another directory needs: {}", path.display())
    })
}

/// Records what `data_dir` needs.
///
/// # Errors
///
/// The record cannot be written.
pub(super) fn record(state_dir: &Path, data_dir: &Path, needed: BTreeSet<String>) -> Result<()> {
    let path = path_of(state_dir, data_dir);
    let record = Record { data_dir: data_dir.to_owned(), snapshots: needed };
    // One that cannot be read is replaced by what is known.
    if read(&path).ok().flatten().as_ref() == Some(&record) {
        return Ok(());
    }
    fs::create_dir(&state_dir.join(RECORDS))?;
    fs::write(&path, &serde_json::to_vec_pretty(&record)?)
}

/// What all data directories need that are there, or have been lately.
///
/// # Errors
///
/// A record cannot be read: nothing may be removed.
pub(super) fn needed(state_dir: &Path) -> Result<BTreeSet<String>> {
    let mut needed = BTreeSet::new();
    let records = state_dir.join(RECORDS);
    if !records.exists() {
        return Ok(needed);
    }
    for entry in fs_err::read_dir(records)? {
        let entry = entry?;
        let Some(record) = read(&entry.path())? else { continue };
        let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
        if record.data_dir.exists() || age <= ABSENCE {
            needed.extend(record.snapshots);
        } else {
            fs::remove(&entry.path())?;
        }
    }
    Ok(needed)
}
