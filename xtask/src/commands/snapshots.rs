mod diff;
pub mod exchange;
mod shared;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;
use clap_complete::engine::ArgValueCompleter;

use crate::completion;
use crate::config::{MaxAge, Settings};
use crate::context::Context;
use crate::error::Failure;
use crate::live::list::{Listing, list};
use crate::live::{LockedLiveSet, prune};
use crate::snapshots::{External, Kind, Store};
use crate::ui::{bytes, count, cut, escape};

/// List, make and remove snapshots
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// List the snapshots, newest first
    List(shared::ListArgs),
    /// Save the current data; such a snapshot is never pruned
    Create {
        /// Call it this, such as "before 0007"
        #[arg(value_parser = label)]
        label: Option<String>,
    },
    /// Give a snapshot a label, by which it is found and with which it is never pruned
    Rename {
        /// The snapshot with this name, or with a name that begins or ends like this
        #[arg(add = ArgValueCompleter::new(completion::snapshots))]
        name: String,
        /// The label; "" removes it
        #[arg(value_parser = label_or_none)]
        label: String,
    },
    /// Never prune a snapshot
    Pin {
        /// The snapshot with this name, or with a name that begins or ends like this
        #[arg(add = ArgValueCompleter::new(completion::snapshots))]
        name: String,
    },
    /// Let a snapshot be pruned again
    Unpin {
        /// The snapshot with this name, or with a name that begins or ends like this
        #[arg(add = ArgValueCompleter::new(completion::snapshots))]
        name: String,
    },
    /// Remove a snapshot
    Rm {
        /// Remove the snapshot with this name, or with a name that begins or ends like this
        #[arg(add = ArgValueCompleter::new(completion::snapshots))]
        name: String,
    },
    /// Remove old snapshots that pulls and restores made
    Prune(PruneArgs),
    /// Compare two snapshots, the current data or files
    Diff(Box<diff::Args>),
    /// Write a snapshot to one file, for another machine
    Export(exchange::ExportArgs),
    /// Make a snapshot of a file that export wrote; it is never pruned
    Import(exchange::ImportArgs),
    /// Put a pulled snapshot into the store of the team, for pull-db --via share
    Publish(shared::PublishArgs),
}

#[derive(clap::Args)]
struct PruneArgs {
    /// Keep this many pulled snapshots, and as many of those saved before a change
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
    /// Keep also all that are not older than this: 30d, 24h
    #[arg(long, value_name = "AGE")]
    older_than: Option<MaxAge>,
    /// Show what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Remove snapshots from the store of the team instead: all but the newest --keep
    #[arg(long, requires = "keep", conflicts_with = "older_than")]
    share: bool,
}

/// The longest label, in characters.
const LABEL: usize = 60;

impl Args {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let settings = cx.settings()?;
        let store = Store::of(&settings);
        let command = "cargo xtask snapshots";
        let lock_to_remove = || LockedLiveSet::lock_to_remove(cx, &settings, command);
        match self.action.unwrap_or(Action::List(shared::ListArgs::default())) {
            Action::List(args) if args.share => args.run(cx, &settings),
            Action::List(_) => list(cx, &settings),
            Action::Create { label } => {
                create(cx, &LockedLiveSet::lock(cx, &settings, command)?, label)
            }
            Action::Rename { name, label } => {
                let label = Some(label).filter(|label| !label.is_empty());
                let live = LockedLiveSet::lock(cx, &settings, command)?;
                let snapshot = live.store.find(&name)?;
                let name = &snapshot.name;
                live.store.edit(&snapshot, |meta| meta.label.clone_from(&label))?;
                match label {
                    Some(label) => cx.ui.status("Renamed", format!("{name} to \"{label}\"")),
                    None => cx.ui.status("Removed", format!("the label of {name}")),
                }
                Ok(())
            }
            Action::Pin { name } => {
                pin(cx, &LockedLiveSet::lock(cx, &settings, command)?, &name, true)
            }
            Action::Unpin { name } => {
                pin(cx, &LockedLiveSet::lock(cx, &settings, command)?, &name, false)
            }
            Action::Diff(args) => args.run(cx),
            Action::Export(args) => args.run(cx, &settings),
            Action::Import(args) => {
                args.run(cx, &settings, &LockedLiveSet::lock(cx, &settings, command)?)
            }
            Action::Publish(args) => args.run(cx, &settings),
            Action::Rm { name } => remove(cx, &store, &name, lock_to_remove),
            Action::Prune(PruneArgs { share: true, keep: Some(keep), dry_run, .. }) => {
                shared::prune(cx, &settings, keep as usize, dry_run)
            }
            Action::Prune(args) => args.run(cx, &settings, lock_to_remove),
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

impl PruneArgs {
    /// Asks before the lock is taken: no command should wait for a person. What another command
    /// has changed meanwhile is asked again.
    fn run<'a>(
        &self,
        cx: &Context,
        settings: &Settings,
        lock: impl Fn() -> Result<LockedLiveSet<'a>>,
    ) -> Result<()> {
        let ui = &cx.ui;
        let keep = self.keep.map_or(settings.keep, |keep| keep as usize);
        let mut confirmed = BTreeSet::new();
        loop {
            let live = lock()?;
            let plan = prune::plan(&live.store, settings, keep, self.older_than.as_ref())?;
            if self.dry_run && plan.remove.is_empty() {
                prune::nothing(ui, &plan);
                return Ok(());
            }
            let names = plan.names();
            if !self.dry_run && (ui.yes || names.is_subset(&confirmed)) {
                prune::report(ui, &prune::carry_out(&live.store, plan)?, false);
                if let Some(size) = live.store.discard_leftover()? {
                    ui.status("Removed", format!("{} of a pull that was cut", bytes(size)));
                }
                return Ok(());
            }
            let snapshots = live.store.list()?;
            drop(live);
            ui.status("Would remove", plan.summary());
            let listing = Listing::new(&Store::of(settings), &snapshots, settings)?;
            let removed = plan.remove.iter().map(|(snapshot, _)| snapshot);
            let columns = ui.columns().unwrap_or(usize::MAX);
            for line in listing.lines(removed) {
                ui.line(cut(&format!("  {line}"), columns - 1));
            }
            if self.dry_run {
                return Ok(());
            }
            ui.confirm(&format!("Remove {}?", count(names.len(), "snapshot")))?;
            confirmed = names;
        }
    }
}

/// A label that a command line and a list can show.
fn label(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("a label is not empty".to_owned());
    }
    label_or_none(text)
}

fn label_or_none(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.contains('\n') || escape(text) != text {
        return Err("a label has no control characters".to_owned());
    }
    match text.chars().count() {
        0..=LABEL => Ok(text.to_owned()),
        n => Err(format!("a label has at most {LABEL} characters, and this one has {n}")),
    }
}

fn pin(cx: &Context, live: &LockedLiveSet<'_>, name: &str, pinned: bool) -> Result<()> {
    let snapshot = live.store.find(name)?;
    live.store.edit(&snapshot, |meta| meta.pinned = pinned)?;
    cx.ui.status(if pinned { "Pinned" } else { "Unpinned" }, snapshot.name);
    Ok(())
}

fn create(cx: &Context, live: &LockedLiveSet<'_>, label: Option<String>) -> Result<()> {
    match (live.save(Kind::Manual, true)?, label) {
        (Some(saved), None) => cx.ui.status("Saved", saved.name),
        (Some(saved), Some(label)) => {
            let snapshot = live.store.find(&saved.name)?;
            live.store.edit(&snapshot, |meta| meta.label = Some(label.clone()))?;
            cx.ui.status("Saved", format!("\"{label}\" as {}", saved.name));
        }
        (None, _) => {
            let dir = live.store.dir.display();
            let message = format!("there is nothing to save: no database in {dir}");
            return Err(Failure::new(message).into());
        }
    }
    Ok(())
}
