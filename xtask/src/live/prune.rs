//! Removes old snapshots that the live set does not need.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Result;
use jiff::Timestamp;

use super::{State, needed};
use crate::config::Settings;
use crate::snapshots::{LockedStore, Snapshot, Store, prune_plan};
use crate::ui::{Ui, bytes, count, escape};

/// The removed snapshots, and those that stay for their last copies.
pub struct Pruned {
    /// Each with what was special about it.
    removed: Vec<(Snapshot, &'static str)>,
    /// The snapshots whose unsanitized databases have expired and that stay nevertheless.
    expired: Vec<String>,
    /// Name of the snapshot, the databases in it, and whether this was not reported before.
    left: Vec<(String, String, bool)>,
}

/// Removes the snapshots of [`prune_plan`], but none that `restore-db --undo` needs here or in
/// another data directory that shares them.
///
/// # Errors
///
/// A snapshot cannot be removed.
pub fn prune(store: &LockedStore, settings: &Settings, keep: usize) -> Result<Pruned> {
    let mut snapshots = store.list()?;
    snapshots.retain(|snapshot| !store.is_of_others(snapshot));
    let now = Timestamp::now();
    let has_expired = |snapshot: &&Snapshot| {
        let until = snapshot.unsanitized_until(&settings.rules, settings.unmasked_keep.as_ref());
        until.is_some_and(|until| until <= now)
    };
    let expired = snapshots.iter().filter(has_expired).map(|snapshot| snapshot.name.clone());
    let expired: BTreeSet<_> = expired.collect();
    // Databases that are live, or can be pulled again.
    let mut replaceable = State::read(store)?.pulled(store)?;
    let files = snapshots.iter().flat_map(|snapshot| &snapshot.files).map(|(name, _)| name);
    replaceable.extend(files.filter(|name| store.dir.join(name).exists()).cloned());
    let mut needed_names = needed(store)?;
    needed_names.extend(store.needed_by_sharing()?);
    if let Some(shared) = store.shared() {
        // It may be a data directory itself.
        needed_names.extend(needed(&Store::new(shared))?);
    }
    let plan = prune_plan(&snapshots, keep, &expired, &needed_names, &replaceable);
    for snapshot in &plan.remove {
        store.remove(snapshot)?;
    }
    let last: BTreeSet<_> = plan.last_copies.iter().map(|(it, _)| it.name.clone()).collect();
    let new = State::name_last_copies(store, last.clone())?;
    let left = plan.last_copies.iter().map(|(snapshot, names)| {
        (snapshot.name.clone(), names.join(", "), new.contains(&snapshot.name))
    });
    let left = left.collect();
    let (mut removed, mut stay) = (Vec::new(), Vec::new());
    for snapshot in &snapshots {
        let has_expired = expired.contains(&snapshot.name);
        if plan.remove.iter().any(|it| it.name == snapshot.name) {
            removed.push((snapshot.clone(), if has_expired { ", unmasked" } else { "" }));
        } else if has_expired && !last.contains(&snapshot.name) {
            stay.push(snapshot.name.clone());
        }
    }
    Ok(Pruned { removed, expired: stay, left })
}

/// The other data directories that may need a snapshot for `restore-db --undo`.
///
/// # Errors
///
/// What one needs cannot be read.
pub fn needed_elsewhere(store: &Store, snapshot: &str) -> Result<BTreeSet<PathBuf>> {
    let mut dirs = store.sharing_that_need(snapshot)?;
    if let Some(shared) = store.shared()
        && needed(&Store::new(shared))?.iter().any(|name| name == snapshot)
    {
        dirs.insert(shared.to_owned());
    }
    Ok(dirs)
}

/// Reports removed and kept snapshots; with `only_new`, only those not reported before.
pub fn report(ui: &Ui, pruned: &Pruned, only_new: bool) {
    for (snapshot, names, _) in pruned.left.iter().filter(|(_, _, new)| *new || !only_new) {
        let what = format!("{snapshot} has the last copy of {}", escape(names));
        ui.status("Kept", what + ", which no pull has brought");
        ui.hint(format!("if nobody needs it: cargo xtask snapshots rm {snapshot}"));
    }
    for name in pruned.expired.iter().filter(|_| !only_new) {
        ui.status("Kept", format!("{name}, which is unmasked and has expired"));
        ui.hint(format!("if nobody needs it: cargo xtask snapshots rm {name}"));
    }
    let Pruned { removed, .. } = pruned;
    if removed.is_empty() && only_new {
        return;
    }
    for (snapshot, what) in removed {
        ui.status("Removed", format!("{} ({}){what}", snapshot.name, snapshot.kind()));
    }
    let freed = removed.iter().map(|(snapshot, _)| snapshot.bytes()).sum();
    ui.status("Pruned", format!("{}, {}", count(removed.len(), "snapshot"), bytes(freed)));
}
