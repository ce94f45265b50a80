//! Removes published snapshots, and the objects that no other needs.

use std::collections::BTreeSet;

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};

use super::guard::Guard;
use super::manifest::{AT_ONCE, Entry};
use super::vault::Vault;
use crate::each::each;

/// How long an object that nothing names stays: a publish that still runs may have put it there.
const GRACE: SignedDuration = SignedDuration::from_hours(24);

/// The number of deletions after which the mark of the prune is renewed.
const RENEWED: usize = 200;

#[derive(Default)]
pub struct Pruned {
    pub snapshots: Vec<String>,
    pub objects: usize,
    pub bytes: u64,
}

/// The published snapshots, newest first.
///
/// # Errors
///
/// The store cannot be read.
pub fn list(vault: &Vault<'_>) -> Result<Vec<Entry>> {
    let mut entries = vault.index()?.snapshots;
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.time));
    Ok(entries)
}

/// Removes all but the newest `keep` snapshots; with `dry_run` nothing.
///
/// # Errors
///
/// The store cannot be read or written.
pub fn prune(vault: &Vault<'_>, keep: usize, dry_run: bool) -> Result<Pruned> {
    let guard = if dry_run { None } else { Some(Guard::new(vault)?) };
    let (snapshots, objects) = vault.update(|index| {
        let mut kept = index.snapshots.clone();
        kept.sort_by_key(|entry| std::cmp::Reverse(entry.time));
        let removed = kept.split_off(keep.min(kept.len()));
        let snapshots: Vec<_> = removed.iter().map(|entry| entry.name.clone()).collect();
        if dry_run {
            return Ok(((snapshots, None), None));
        }
        // Read before the index is replaced: a store that cannot be read is left as it is.
        let objects = (objects(vault, &kept)?, objects(vault, &removed)?);
        // Also if no snapshot goes: one that publishes meanwhile then stores its objects again.
        Ok(((snapshots, Some(objects)), Some(kept)))
    })?;
    match (objects, guard) {
        (Some((needed, freed)), Some(guard)) => delete(vault, &guard, snapshots, &needed, &freed),
        _ => Ok(Pruned { snapshots, ..Pruned::default() }),
    }
}

/// The objects of these snapshots.
fn objects(vault: &Vault<'_>, entries: &[Entry]) -> Result<BTreeSet<String>> {
    let manifests = each(AT_ONCE, entries, |entry| vault.manifest(entry))?;
    let of_databases = manifests.iter().flat_map(|manifest| manifest.objects().map(str::to_owned));
    Ok(of_databases.chain(entries.iter().map(|entry| entry.manifest.object.clone())).collect())
}

fn delete(
    vault: &Vault<'_>,
    guard: &Guard<'_>,
    snapshots: Vec<String>,
    needed: &BTreeSet<String>,
    freed: &BTreeSet<String>,
) -> Result<Pruned> {
    let now = Timestamp::now();
    let mut all = vault.objects()?;
    all.retain(|(name, _, time)| {
        !needed.contains(name) && (freed.contains(name) || now.duration_since(*time) > GRACE)
    });
    for some in all.chunks(RENEWED) {
        guard.renew()?;
        each(AT_ONCE, some, |(name, ..)| vault.delete(name))?;
    }
    let bytes = all.iter().map(|(_, size, _)| size).sum();
    Ok(Pruned { snapshots, objects: all.len(), bytes })
}
