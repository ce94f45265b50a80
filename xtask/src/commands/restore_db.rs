use anyhow::Result;
use clap_complete::engine::ArgValueCompleter;
use serde::Serialize;

use crate::completion;
use crate::config::{NamePattern, Names, Settings};
use crate::context::Context;
use crate::error::Failure;
use crate::live::list::{Listing, list, title};
use crate::live::report;
use crate::live::{self, LockedLiveSet, Replacement, State};
use crate::moment;
use crate::snapshots::{Kind, Snapshot, Store, described};
use crate::ui::{Ui, count, escape};

/// Restore an earlier snapshot of the databases
///
/// Without a flag, on a terminal, pick a snapshot from a list. The current data
/// is saved as a snapshot first, so that `--undo` brings it back.
#[derive(clap::Args)]
#[group(skip)]
pub struct Args {
    /// Restore the snapshot with this name or label, or with a name that begins or ends like this
    #[arg(value_name = "NAME", group = "which", add = ArgValueCompleter::new(completion::snapshots))]
    snapshot: Option<String>,
    // The name of that argument in earlier versions.
    #[arg(long, group = "which", hide = true)]
    name: Option<String>,
    /// Restore the newest snapshot of this moment or before: "2 hours ago", "yesterday 18:00",
    /// monday, 2026-03-15
    #[arg(long, group = "which", value_name = "MOMENT")]
    at: Option<String>,
    /// Restore the newest pulled snapshot
    #[arg(long, group = "which")]
    latest: bool,
    /// Restore the data from before the last pull, restore or setup
    #[arg(long, group = "which")]
    undo: bool,
    /// List the snapshots
    #[arg(long, group = "which")]
    list: bool,
    /// Restore only databases whose name matches
    #[arg(long, value_name = "GLOB", value_parser = NamePattern::anywhere, add = ArgValueCompleter::new(completion::databases), conflicts_with = "list")]
    only: Option<NamePattern>,
}

impl Args {
    pub(crate) fn run(mut self, cx: &Context) -> Result<()> {
        let settings = cx.settings()?;
        self.only = self.only.map(|only| only.with(&settings.names.renames));
        let store = Store::of(&settings);
        if self.list {
            return list(cx, &settings);
        }
        if store.list()?.is_empty() {
            return Err(Failure::new(format!("there is no snapshot in {}", store.dir.display()))
                .hint("cargo xtask pull-db")
                .into());
        }
        // Asked before the lock is taken: no command should wait for a person.
        let chosen = self.choose(cx, &settings, &store)?;
        let replacement = self.replacement(&chosen, &settings.names)?;
        let is_idle = live::is_up_to_date(&store, &settings, &replacement)?;
        if !is_idle {
            self.confirm(&cx.ui, &settings, &replacement)?;
        }

        let live = LockedLiveSet::lock(cx, &settings, "cargo xtask restore-db")?;
        // Another command held the lock, and may have changed which snapshots these are.
        let confirmed = chosen.name.clone();
        let chosen =
            if self.latest || self.undo { self.choose(cx, &settings, &store)? } else { chosen };
        let replacement = self.replacement(&chosen, &settings.names)?;
        let is_other = chosen.name != confirmed;
        if is_other || is_idle && !live::is_up_to_date(&store, &settings, &replacement)? {
            self.confirm(&cx.ui, &settings, &replacement)?;
        }
        let replaced = live.replace(&replacement)?;
        drop(live);
        if cx.ui.json {
            cx.ui.json(&Report {
                snapshot: &chosen.name,
                before: replaced.before.as_ref().map(|saved| saved.name.as_str()),
                restored: &replaced.installed,
                removed: &replaced.removed,
                programs: &replaced.programs,
                unsanitized_databases: &replaced.unsanitized,
            })?;
        } else {
            report::replaced(&cx.ui, &chosen, &replaced);
        }
        let command = settings.hooks.after_restore.as_ref();
        report::run_after(cx, &settings, "after-restore", command, &chosen, &replaced)
    }

    fn choose(&self, cx: &Context, settings: &Settings, store: &Store) -> Result<Snapshot> {
        if let Some(name) = self.snapshot.as_ref().or(self.name.as_ref()) {
            store.find(name)
        } else if let Some(text) = &self.at {
            at(store, text)
        } else if self.latest {
            latest(store)
        } else if self.undo {
            undo(store)
        } else if cx.ui.interactive() {
            LockedLiveSet::recover_without_waiting(cx, settings)?;
            pick(&cx.ui, store, settings)
        } else {
            let why = match cx.ui.json {
                true => "--json does not ask",
                false => "there is no terminal to pick one on",
            };
            Err(Failure::usage(format!("no snapshot given, and {why}"))
                .hint("give a NAME, --at, --latest or --undo; --list shows the snapshots")
                .into())
        }
    }

    fn replacement<'a>(&'a self, snapshot: &'a Snapshot, names: &Names) -> Result<Replacement<'a>> {
        if let Some(why) = snapshot.defect_of(self.only.as_ref()) {
            return Err(Failure::new(format!("{} cannot be restored: {why}", snapshot.name))
                .hint(format!(
                    "restore another snapshot (cargo xtask restore-db --list), or its other databases \
                     with --only GLOB; its files are in {}",
                    snapshot.path.display()
                ))
                .into());
        }
        let replacement =
            Replacement { snapshot, only: self.only.as_ref(), save: Some(Kind::BeforeRestore) };
        if replacement.installs(names).is_empty() {
            let what = self.only.as_ref().map_or("the settings", NamePattern::as_str);
            return Err(
                Failure::new(format!("no database of {} matches {what}", snapshot.name)).into()
            );
        }
        Ok(replacement)
    }

    fn confirm(&self, ui: &Ui, settings: &Settings, replacement: &Replacement<'_>) -> Result<()> {
        let live = live::databases(&settings.data_dir, &settings.names)?;
        let installs = replacement.installs(&settings.names);
        let store = Store::of(settings);
        let brought = State::read(&store)?.brought(&store);
        let removes = replacement.removes(&settings.names, &live, &brought);
        let replaced = installs.iter().filter(|name| live.contains(name)).count();
        let mut question = format!("Restore {}", title(replacement.snapshot));
        match replaced {
            0 => question += &format!(" ({})", count(installs.len(), "database")),
            _ => question += &format!(" over {}", count(replaced, "database")),
        }
        if replaced > 0 && installs.len() > replaced {
            question += &format!(", add {}", installs.len() - replaced);
        }
        if !removes.is_empty() {
            question += &format!(", remove {}", escape(&removes.join(", ")));
        }
        let unsanitized = replacement.snapshot.unsanitized(&settings.rules);
        if installs.iter().any(|name| unsanitized.contains(name)) {
            question += ", with unmasked secrets";
        }
        question += "?";
        if replaced > 0 || !removes.is_empty() {
            question += " Current ones are saved first.";
        }
        ui.confirm(&question)
    }
}

/// The newest pulled snapshot, if possible a complete one; without any pulled snapshot, the newest.
fn latest(store: &Store) -> Result<Snapshot> {
    let snapshots = store.list()?;
    let sound = || snapshots.iter().filter(|snapshot| snapshot.defect.is_none());
    let pulls = || sound().filter(|snapshot| snapshot.is_pull());
    pulls()
        .find(|snapshot| snapshot.only().is_none())
        .or_else(|| pulls().next())
        .or_else(|| sound().next())
        .cloned()
        .ok_or_else(|| {
            let newest = snapshots.first().map(|snapshot| {
                let defect = snapshot.defect.as_deref().unwrap_or_default();
                format!("; the newest, {}: {defect}", snapshot.path.display())
            });
            Failure::new("every snapshot is damaged".to_owned() + &newest.unwrap_or_default())
                .hint("cargo xtask restore-db --list says why")
                .into()
        })
}

/// The newest sound snapshot that the clock dates at or before a moment.
fn at(store: &Store, text: &str) -> Result<Snapshot> {
    let moment = moment::parse(text, &moment::now())?;
    let snapshots = store.list()?;
    let sound = || snapshots.iter().filter(|snapshot| snapshot.defect.is_none());
    let found = sound().filter(|it| it.time <= moment).max_by_key(|it| (it.time, it.order));
    found.cloned().ok_or_else(|| {
        let by_time = |it: &&Snapshot| it.time;
        let range = match (sound().min_by_key(by_time), sound().max_by_key(by_time)) {
            (Some(oldest), Some(newest)) => format!(
                "the oldest is {}, the newest {}",
                described(oldest, &snapshots),
                described(newest, &snapshots)
            ),
            _ => "every snapshot is damaged".to_owned(),
        };
        Failure::new(format!("no snapshot is as old as {text:?}: {range}"))
            .hint("cargo xtask restore-db --list")
            .into()
    })
}

fn undo(store: &Store) -> Result<Snapshot> {
    match State::read(store)?.before {
        Some(name) => store.find(&name),
        None => Err(Failure::new(
            "there is nothing to undo: no data was saved before the last pull or restore",
        )
        .hint("pick one: cargo xtask restore-db --list")
        .into()),
    }
}

fn pick(ui: &Ui, store: &Store, settings: &Settings) -> Result<Snapshot> {
    let mut snapshots = store.list()?;
    // A directory that somebody has made, with nothing in it.
    snapshots.retain(|snapshot| snapshot.meta.is_some() || !snapshot.files.is_empty());
    if snapshots.is_empty() {
        return Err(Failure::new(format!("no snapshot in {} holds anything", store.dir.display()))
            .hint("cargo xtask pull-db")
            .into());
    }
    let listing = Listing::new(store, &snapshots, settings)?;
    let start = snapshots.iter().position(|snapshot| !listing.is_current(snapshot));
    let choices = listing.choices(ui.columns().unwrap_or(80));
    let chosen = ui.pick("Restore which snapshot?", choices, start.unwrap_or(0))?;
    Ok(snapshots.swap_remove(chosen))
}

/// Printed with `--json`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "restore-db"))]
pub struct Report<'a> {
    snapshot: &'a str,
    before: Option<&'a str>,
    restored: &'a [String],
    removed: &'a [String],
    programs: &'a [String],
    /// Unsanitized databases of the live set.
    unsanitized_databases: &'a [String],
}
