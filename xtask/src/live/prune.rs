//! Removes old snapshots that the live set does not need.

use anyhow::Result;

use super::{State, needed};
use crate::snapshots::{LockedStore, Snapshot, prune_plan};
use crate::ui::{Ui, bytes, count, escape};

/// The removed snapshots, and those that stay for their last copies.
pub struct Pruned {
    removed: Vec<Snapshot>,
    /// Name of the snapshot, the databases in it, and whether this was not reported before.
    left: Vec<(String, String, bool)>,
}

/// Removes the snapshots of [`prune_plan`], but not the one that `restore-db --undo` needs.
///
/// # Errors
///
/// A snapshot cannot be removed.
pub fn prune(store: &LockedStore, keep: usize) -> Result<Pruned> {
    let snapshots = store.list()?;
    // Databases that are live, or can be pulled again.
    let mut replaceable = State::read(store)?.pulled(store)?;
    let files = snapshots.iter().flat_map(|snapshot| &snapshot.files).map(|(name, _)| name);
    replaceable.extend(files.filter(|name| store.dir.join(name).exists()).cloned());
    let plan = prune_plan(&snapshots, keep, &needed(store)?, &replaceable);
    for snapshot in &plan.remove {
        store.remove(snapshot)?;
    }
    let left = plan.last_copies.iter().map(|(snapshot, _)| snapshot.name.clone()).collect();
    let new = State::name_last_copies(store, left)?;
    let left = plan.last_copies.iter().map(|(snapshot, names)| {
        (snapshot.name.clone(), names.join(", "), new.contains(&snapshot.name))
    });
    Ok(Pruned { removed: plan.remove.into_iter().cloned().collect(), left: left.collect() })
}

/// Reports removed and kept snapshots; with `only_new`, only those not reported before.
pub fn report(ui: &Ui, pruned: &Pruned, only_new: bool) {
    for (snapshot, names, _) in pruned.left.iter().filter(|(_, _, new)| *new || !only_new) {
        let what = format!("{snapshot} has the last copy of {}", escape(names));
        ui.status("Kept", what + ", which no pull has brought");
        ui.hint(format!("if nobody needs it: cargo xtask snapshots rm {snapshot}"));
    }
    let Pruned { removed, .. } = pruned;
    if removed.is_empty() && only_new {
        return;
    }
    for snapshot in removed {
        ui.status("Removed", format!("{} ({})", snapshot.name, snapshot.kind()));
    }
    let freed = removed.iter().map(Snapshot::bytes).sum();
    ui.status("Pruned", format!("{}, {}", count(removed.len(), "snapshot"), bytes(freed)));
}
