mod diff;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;

use crate::context::Context;
use crate::error::Failure;
use crate::live::list::list;
use crate::live::{LockedLiveSet, prune};
use crate::snapshots::{External, Kind, Store};
use crate::ui::bytes;

/// List, make and remove snapshots
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// List the snapshots, newest first
    List,
    /// Save the current data; such a snapshot is never pruned
    Create,
    /// Remove a snapshot
    Rm {
        /// Remove the snapshot with this name, or with a name that begins or ends like this
        name: String,
    },
    /// Remove old snapshots that pulls and restores made
    Prune {
        /// Keep this many pulled snapshots, and as many of those saved before a change
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        keep: Option<u32>,
    },
    /// Compare two snapshots, the current data or files
    Diff(Box<diff::Args>),
}

impl Args {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let settings = cx.settings()?;
        let store = Store::of(&settings);
        let command = "cargo xtask snapshots";
        let lock_to_remove = || LockedLiveSet::lock_to_remove(cx, &settings, command);
        match self.action.unwrap_or(Action::List) {
            Action::List => list(cx, &settings),
            Action::Create => create(cx, &LockedLiveSet::lock(cx, &settings, command)?),
            Action::Diff(args) => args.run(cx),
            Action::Rm { name } => remove(cx, &store, &name, lock_to_remove),
            Action::Prune { keep } => {
                let keep = keep.map_or(settings.keep, |keep| keep as usize);
                let live = lock_to_remove()?;
                prune::report(&cx.ui, &prune::prune(&live.store, &settings, keep)?, false);
                if let Some(size) = live.store.discard_leftover()? {
                    cx.ui.status("Removed", format!("{} of a pull that was cut", bytes(size)));
                }
                Ok(())
            }
        }
    }
}

fn remove<'a>(
    cx: &Context,
    store: &Store,
    name: &str,
    lock: impl FnOnce() -> Result<LockedLiveSet<'a>>,
) -> Result<()> {
    let snapshot = store.find(name)?;
    let what = match &snapshot.elsewhere {
        Some(External::Link(target)) => {
            format!("the link {}, not {}", snapshot.name, target.display())
        }
        _ => format!("{} ({})", snapshot.name, bytes(snapshot.bytes())),
    };
    let confirm = |needed_in: &BTreeSet<PathBuf>| {
        for dir in needed_in {
            let dir = dir.display();
            cx.ui.warn(format!("{} may be needed for restore-db --undo in {dir}", snapshot.name));
        }
        cx.ui.confirm(&format!("Remove {what}?"))
    };
    // Asked before the lock is taken: no command should wait for a person.
    let known = prune::needed_elsewhere(store, &snapshot.name)?;
    confirm(&known)?;
    let live = lock()?;
    // Another command held the lock.
    let now = prune::needed_elsewhere(store, &snapshot.name)?;
    if !now.is_subset(&known) {
        confirm(&now)?;
    }
    live.store.remove(&live.store.find(&snapshot.name)?)?;
    cx.ui.status("Removed", what);
    Ok(())
}

fn create(cx: &Context, live: &LockedLiveSet<'_>) -> Result<()> {
    match live.save(Kind::Manual, true)? {
        Some(saved) => cx.ui.status("Saved", saved.name),
        None => {
            let dir = live.store.dir.display();
            let message = format!("there is nothing to save: no database in {dir}");
            return Err(Failure::new(message).into());
        }
    }
    Ok(())
}
