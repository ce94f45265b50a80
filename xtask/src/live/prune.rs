//! Removes old snapshots that the live set does not need.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Result;
use jiff::Timestamp;

use super::{State, needed};
use crate::config::{MaxAge, Settings};
use crate::snapshots::{LockedStore, Snapshot, Store, disk_usage, prune_plan};
use crate::ui::{Ui, bytes, count, escape};

/// Which snapshots a prune removes, and which stay nevertheless.
pub struct Plan {
    /// Each with what is special about it.
    pub remove: Vec<(Snapshot, &'static str)>,
    /// How many bytes that frees.
    pub frees: u64,
    /// The snapshots whose unsanitized databases have expired and that stay nevertheless.
    expired: Vec<String>,
    /// The snapshots that stay for their last copies, each with these databases.
    last_copies: Vec<(String, String)>,
    /// How many pulled snapshots there are, and how many are to be kept.
    pulls: usize,
    keep: usize,
}

/// The result of a prune.
pub struct Pruned {
    plan: Plan,
    /// The snapshots kept for their last copies that were not reported before.
    new: BTreeSet<String>,
}

/// Which snapshots [`prune_plan`] removes: none that `restore-db --undo` needs here or in another
/// data directory that shares them, and with `min_age` none that is younger.
///
/// # Errors
///
/// The snapshots cannot be read, or what needs them.
pub fn plan(
    store: &LockedStore,
    settings: &Settings,
    keep: usize,
    min_age: Option<&MaxAge>,
) -> Result<Plan> {
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
    let before = min_age.map(|age| now.checked_sub(age.limit())).transpose()?;
    let plan = prune_plan(&snapshots, keep, &expired, &needed_names, &replaceable, before);
    let frees = disk_usage(plan.remove.iter().copied()).own;
    let last_copies = plan.last_copies.iter();
    let last_copies: Vec<_> =
        last_copies.map(|(it, names)| (it.name.clone(), names.join(", "))).collect();
    let (mut remove, mut stay) = (Vec::new(), Vec::new());
    for snapshot in &snapshots {
        let has_expired = expired.contains(&snapshot.name);
        if plan.remove.iter().any(|it| it.name == snapshot.name) {
            remove.push((snapshot.clone(), if has_expired { ", unmasked" } else { "" }));
        } else if has_expired && !last_copies.iter().any(|(name, _)| *name == snapshot.name) {
            stay.push(snapshot.name.clone());
        }
    }
    let pulls = snapshots.iter().filter(|snapshot| snapshot.is_pull()).count();
    Ok(Plan { remove, frees, expired: stay, last_copies, pulls, keep })
}

/// Removes the snapshots of a plan that was made since the store was locked.
///
/// # Errors
///
/// A snapshot cannot be removed.
pub fn carry_out(store: &LockedStore, plan: Plan) -> Result<Pruned> {
    for (snapshot, _) in &plan.remove {
        store.remove(snapshot)?;
    }
    let last = plan.last_copies.iter().map(|(name, _)| name.clone()).collect();
    let new = State::name_last_copies(store, last)?;
    Ok(Pruned { plan, new })
}

/// Makes a [`plan`], and carries it out.
///
/// # Errors
///
/// Those of both.
pub fn prune(store: &LockedStore, settings: &Settings, keep: usize) -> Result<Pruned> {
    carry_out(store, plan(store, settings, keep, None)?)
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
    let Pruned { plan, new } = pruned;
    for (name, databases) in plan.last_copies.iter().filter(|(it, _)| new.contains(it) || !only_new)
    {
        let what = format!("{name} has the last copy of {}", escape(databases));
        ui.status("Kept", what + ", which no pull has brought");
        ui.hint(format!("if nobody needs it: cargo xtask snapshots rm {name}"));
    }
    for name in plan.expired.iter().filter(|_| !only_new) {
        ui.status("Kept", format!("{name}, which is unmasked and has expired"));
        ui.hint(format!("if nobody needs it: cargo xtask snapshots rm {name}"));
    }
    if plan.remove.is_empty() {
        if !only_new {
            nothing(ui, plan);
        }
        return;
    }
    for (snapshot, what) in &plan.remove {
        ui.status("Removed", format!("{} ({}){what}", snapshot.name, snapshot.kind()));
    }
    ui.status("Pruned", plan.summary());
}

/// Says why nothing is removed.
pub fn nothing(ui: &Ui, plan: &Plan) {
    ui.status("Nothing", format!("to prune ({}, keep {})", count(plan.pulls, "pull"), plan.keep));
}

impl Plan {
    pub fn summary(&self) -> String {
        format!("{}, {}", count(self.remove.len(), "snapshot"), bytes(self.frees))
    }

    pub fn names(&self) -> BTreeSet<String> {
        self.remove.iter().map(|(snapshot, _)| snapshot.name.clone()).collect()
    }
}
