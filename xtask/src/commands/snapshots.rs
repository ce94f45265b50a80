use anyhow::Result;
use clap::Subcommand;

use crate::Context;
use crate::error::Failure;
use crate::live::{Live, State};
use crate::snapshots::{Kind, LockedStore, Snapshot, Store, prune_plan};
use crate::ui::{bytes, count};

/// List, make and remove snapshots
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List the snapshots, newest first
    List,
    /// Save the live set; what you save yourself is never pruned
    Create,
    /// Remove a snapshot
    Rm {
        /// Its name, or how its name begins or ends
        name: String,
    },
    /// Remove old snapshots that pulls and restores made
    Prune {
        /// How many stay of the pulled ones, and of those saved before a change
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        keep: Option<u32>,
    },
}

impl Args {
    pub fn run(self, cx: &Context) -> Result<()> {
        let settings = cx.settings()?;
        if let Action::List = self.action {
            return super::restore_db::list(&cx.ui, &Store::new(&settings.data_dir));
        }
        if let Action::Rm { name } = &self.action {
            // A question is asked before the lock is taken: nobody waits for a person.
            let snapshot = Store::new(&settings.data_dir).find(name)?;
            let size = bytes(snapshot.bytes());
            cx.ui.confirm(&format!("Remove {} ({size})?", snapshot.name))?;
        }
        let live = Live::lock(cx, &settings, "cargo xtask snapshots", false)?;
        let store = &live.store;
        match self.action {
            Action::List => unreachable!("done above"),
            Action::Create => match live.save(Kind::Manual)? {
                Some(saved) => cx.ui.status("Saved", saved.name),
                None => {
                    return Err(
                        Failure::new(format!("no database in {}", store.dir.display())).into()
                    );
                }
            },
            Action::Rm { name } => {
                let snapshot = store.find(&name)?;
                store.remove(&snapshot)?;
                cx.ui.status("Removed", snapshot.name);
            }
            Action::Prune { keep } => {
                let keep = keep.map_or(settings.keep, |keep| keep as usize);
                let removed = prune(store, keep)?;
                let freed = removed.iter().map(Snapshot::bytes).sum();
                cx.ui.status(
                    "Pruned",
                    format!("{}, {}", count(removed.len(), "snapshot"), bytes(freed)),
                );
            }
        }
        Ok(())
    }
}

/// Removes what [`prune_plan`] names; the way back (`restore-db --undo`) stays.
///
/// # Errors
///
/// One cannot be removed.
pub fn prune(store: &LockedStore, keep: usize) -> Result<Vec<Snapshot>> {
    let state = State::read(store)?;
    let needed: Vec<_> = [state.live, state.before].into_iter().flatten().collect();
    let snapshots = store.list()?;
    let plan: Vec<_> = prune_plan(&snapshots, keep, &needed).into_iter().cloned().collect();
    for snapshot in &plan {
        store.remove(snapshot)?;
    }
    Ok(plan)
}
