use anyhow::Result;
use clap::Subcommand;
use jiff::Timestamp;
use serde::Serialize;

use crate::Context;
use crate::error::Failure;
use crate::live::{self, Live, State};
use crate::sanitize::Rule;
use crate::settings::Settings;
use crate::snapshots::{Elsewhere, Kind, LockedStore, Snapshot, Store, prune_plan};
use crate::ui::{Ui, age, bytes, count, escape};

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
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let settings = cx.settings()?;
        let store = Store::new(&settings.data_dir);
        let command = "cargo xtask snapshots";
        let lock_to_remove = || Live::lock_to_remove(cx, &settings, command);
        match self.action.unwrap_or(Action::List) {
            Action::List => list(cx, &settings),
            Action::Create => create(cx, &Live::lock(cx, &settings, command)?),
            Action::Rm { name } => {
                // A question is asked before the lock is taken: nobody waits for a person.
                let snapshot = store.find(&name)?;
                let what = match &snapshot.elsewhere {
                    Some(Elsewhere::Link(target)) => {
                        format!("the link {}, not {}", snapshot.name, target.display())
                    }
                    _ => format!("{} ({})", snapshot.name, bytes(snapshot.bytes())),
                };
                cx.ui.confirm(&format!("Remove {what}?"))?;
                let live = lock_to_remove()?;
                live.store.remove(&live.store.find(&snapshot.name)?)?;
                cx.ui.status("Removed", what);
                Ok(())
            }
            Action::Prune { keep } => {
                let keep = keep.map_or(settings.keep, |keep| keep as usize);
                report_pruned(&cx.ui, &prune(&lock_to_remove()?.store, keep)?, false);
                Ok(())
            }
        }
    }
}

fn create(cx: &Context, live: &Live<'_>) -> Result<()> {
    match live.save(Kind::Manual, true)? {
        Some(saved) => cx.ui.status("Saved", saved.name),
        None => {
            let dir = live.store.dir.display();
            return Err(Failure::new(format!("no database in {dir}")).into());
        }
    }
    Ok(())
}

/// What a prune has removed, and what it has left.
pub struct Pruned {
    removed: Vec<Snapshot>,
    /// Their names, with their last copies; and whether that has not been said before.
    left: Vec<(String, String, bool)>,
}

/// Removes what [`prune_plan`] names; the way back (`restore-db --undo`) stays.
///
/// # Errors
///
/// One cannot be removed.
pub fn prune(store: &LockedStore, keep: usize) -> Result<Pruned> {
    let snapshots = store.list()?;
    // What is live, or can be pulled again.
    let mut replaceable = State::read(store)?.pulled(store)?;
    let files = snapshots.iter().flat_map(|snapshot| &snapshot.files).map(|(name, _)| name);
    replaceable.extend(files.filter(|name| store.dir.join(name).exists()).cloned());
    let plan = prune_plan(&snapshots, keep, &live::needed(store)?, &replaceable);
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

/// Names what was removed, and what was left; of the latter only what is new, if that
/// is all that is asked for.
pub fn report_pruned(ui: &Ui, pruned: &Pruned, only_new: bool) {
    for (snapshot, names, _) in pruned.left.iter().filter(|(_, _, new)| *new || !only_new) {
        let what = format!("{snapshot} has the last copy of {}", escape(names));
        ui.status("Kept", what + ", which no pull has brought");
        ui.hint(format!("where that is of no use: cargo xtask snapshots rm {snapshot}"));
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

/// A line for each snapshot: name, age, kind, databases, size, in columns.
pub fn lines(snapshots: &[Snapshot], state: &State, rules: &[Rule]) -> Vec<String> {
    let now = Timestamp::now().as_second();
    snapshots
        .iter()
        .map(|snapshot| {
            // With its mark, a line fits into 80 columns.
            let mut line = format!(
                "{} {:<10} {:<14} {:>3} db {:>8}",
                snapshot.name,
                age(now - snapshot.time.as_second()),
                snapshot.kind(),
                snapshot.files.len(),
                bytes(snapshot.bytes()),
            );
            if state.live.as_ref() == Some(&snapshot.name) {
                line += " live";
            }
            if !snapshot.unsanitized(rules).is_empty() {
                line += " unsanitized";
            }
            if let Some(only) = snapshot.only() {
                line += &format!("  only {}", escape(only));
            }
            if let Some(defect) = &snapshot.defect {
                line += &format!("  damaged: {}", escape(defect));
            }
            line
        })
        .collect()
}

/// What `--json` prints for each.
#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    time: Timestamp,
    kind: &'a str,
    databases: Vec<&'a str>,
    bytes: u64,
    only: Option<&'a str>,
    defect: Option<&'a str>,
    unsanitized: bool,
    last_put_in_place: bool,
}

/// Prints the snapshots, newest first.
///
/// # Errors
///
/// They cannot be read.
pub fn list(cx: &Context, settings: &Settings) -> Result<()> {
    let (ui, store) = (&cx.ui, &Store::new(&settings.data_dir));
    let rules = &settings.rules;
    Live::recover_without_waiting(cx, settings)?;
    let snapshots = store.list()?;
    let state = State::read(store)?;
    if ui.json {
        let listed: Vec<_> = snapshots
            .iter()
            .map(|snapshot| Listed {
                name: &snapshot.name,
                time: snapshot.time,
                kind: snapshot.kind(),
                databases: snapshot.files.iter().map(|(name, _)| name.as_str()).collect(),
                bytes: snapshot.bytes(),
                only: snapshot.only(),
                defect: snapshot.defect.as_deref(),
                unsanitized: !snapshot.unsanitized(rules).is_empty(),
                last_put_in_place: state.live.as_ref() == Some(&snapshot.name),
            })
            .collect();
        return ui.json(&listed);
    }
    if snapshots.is_empty() {
        ui.status("Found", format!("no snapshot in {}", store.dir.display()));
    }
    for line in lines(&snapshots, &state, rules) {
        ui.data(line)?;
    }
    Ok(())
}
