use anyhow::Result;
use clap_complete::engine::ArgValueCompleter;

use crate::completion;
use crate::config::Settings;
use crate::context::Context;
use crate::error::Failure;
use crate::moment;
use crate::sanitize::audit::Level;
use crate::share::publish::publish;
use crate::share::vault::{self, Vault};
use crate::share::{portable, prune as pruning, report};
use crate::snapshots::{Meta, Snapshot, Store};
use crate::ui::{bytes, count};

#[derive(clap::Args)]
pub struct PublishArgs {
    /// The snapshot with this name, or with a name that begins or ends like this [default: the
    /// newest pull]
    #[arg(add = ArgValueCompleter::new(completion::snapshots))]
    name: Option<String>,
    /// Publish also databases that were not masked, or have columns that no rule covers
    #[arg(long)]
    unsanitized: bool,
}

#[derive(clap::Args, Default)]
pub struct ListArgs {
    /// List what the store of the team has instead
    #[arg(long)]
    pub share: bool,
}

impl PublishArgs {
    pub fn run(self, cx: &Context, settings: &Settings) -> Result<()> {
        let (ui, store) = (&cx.ui, Store::of(settings));
        let share = vault::settings(settings)?;
        let snapshot = self.choose(&store)?;
        let meta = portable::meta(&snapshot)?;
        if !self.unsanitized {
            refuse_secrets(cx, settings, &snapshot, &meta)?;
        }
        let vault = Vault::open(share, &store, true)?;
        let step = ui.step("Publishing", Some("Published"), &snapshot.name);
        let tell =
            || ui.status("Waiting", format!("for a prune of {}, at most 10 minutes", vault.url()));
        let is_new = step
            .during(|| bytes(vault.bytes()), || publish(&vault, &store, &snapshot, &meta, tell))?;
        step.finish();
        if ui.json {
            return ui.json(&report::Published {
                share: vault.url(),
                snapshot: &snapshot.name,
                new: is_new,
                encrypted: vault.is_encrypted(),
                databases: meta.databases.len(),
                bytes: snapshot.bytes(),
                wire_bytes: vault.bytes(),
            });
        }
        let (databases, url) = (count(meta.databases.len(), "database"), vault.url());
        if !is_new {
            ui.status("Already", format!("published: {} in {url}", snapshot.name));
            return Ok(());
        }
        let (travelled, all) = (bytes(vault.bytes()), bytes(snapshot.bytes()));
        let how = if vault.is_encrypted() { "encrypted" } else { "not encrypted" };
        ui.status("Stored", format!("{databases} in {url}, {how}: {travelled} for {all}"));
        if !vault.is_encrypted() {
            ui.warn("the store is not encrypted: anybody who can write to it can replace the index unnoticed");
            ui.hint("to encrypt it, commit xtask/recipients.txt with the public keys of the team (age-keygen), and set another url");
        }
        ui.hint("cargo xtask pull-db --via share");
        Ok(())
    }

    fn choose(&self, store: &Store) -> Result<Snapshot> {
        let snapshot = match &self.name {
            Some(name) => store.find(name)?,
            None => {
                // One of `--at` has an earlier moment than the others.
                let is_now = |it: &Snapshot| it.origin().is_some_and(|it| it.moment.is_none());
                let is_whole = |it: &Snapshot| {
                    it.is_pull() && it.defect.is_none() && it.only().is_none() && is_now(it)
                };
                let newest = store.list()?.into_iter().find(is_whole);
                newest.ok_or_else(|| {
                    Failure::new("there is no pull to publish").hint("cargo xtask pull-db")
                })?
            }
        };
        if snapshot.is_pull() {
            return Ok(snapshot);
        }
        let what = format!("{} is no pull: nobody knows what is masked in it", snapshot.name);
        let hint = "cargo xtask snapshots publish publishes the newest pull";
        Err(Failure::new(what).hint(hint).into())
    }
}

/// Refuses what would pass on a secret: what the rules of now, or the audit, say of it.
fn refuse_secrets(
    cx: &Context,
    settings: &Settings,
    snapshot: &Snapshot,
    meta: &Meta,
) -> Result<()> {
    let of_source = match snapshot.source() {
        Some(name) => Some(cx.settings()?.of_source(name)?),
        None => None,
    };
    let Settings { audit, rules, .. } = of_source.as_ref().unwrap_or(settings);
    portable::refuse_unmasked(&portable::unmasked(meta, rules), &snapshot.name, "--unsanitized")?;
    let refuse = |why: String, hint: &str| {
        let what = format!("{} is not published: {why}", snapshot.name);
        let hint = format!("{hint}; --unsanitized if its secrets may be passed on");
        Err(Failure::new(what).hint(hint).into())
    };
    if !snapshot.has_rules(rules) {
        let why = "it was pulled with other rules than those of xtask/db.toml";
        return refuse(why.to_owned(), "cargo xtask pull-db");
    }
    if audit.level == Level::Off {
        return Ok(());
    }
    let found = snapshot.origin().and_then(|origin| portable::uncovered_columns(audit, origin));
    match found.as_deref() {
        Some([]) => Ok(()),
        None => refuse("there is no record of its audit".to_owned(), "cargo xtask pull-db"),
        Some([one]) => {
            let why = format!("a column with likely secrets is not masked: {one}");
            refuse(why, "cargo xtask init adds a rule; then cargo xtask pull-db")
        }
        Some([first, rest @ ..]) => {
            let rest = count(rest.len(), "other column");
            let why = format!("columns with likely secrets are not masked: {first} and {rest}");
            refuse(why, "cargo xtask init adds a rule for each; then cargo xtask pull-db")
        }
    }
}

impl ListArgs {
    pub fn run(&self, cx: &Context, settings: &Settings) -> Result<()> {
        let (ui, store) = (&cx.ui, Store::of(settings));
        let vault = Vault::open(vault::settings(settings)?, &store, false)?;
        let entries = pruning::list(&vault)?;
        if ui.json {
            let snapshots = entries.iter().map(|entry| report::Listed {
                name: &entry.name,
                time: entry.time,
                source: entry.source.as_deref(),
                only: entry.only.as_deref(),
                databases: entry.databases,
                bytes: entry.bytes,
            });
            return ui.json(&report::List { share: vault.url(), snapshots: snapshots.collect() });
        }
        for entry in &entries {
            let when = moment::words(entry.time, &moment::now());
            let (databases, size) = (count(entry.databases, "database"), bytes(entry.bytes));
            let source = entry.source.as_ref().map(|it| format!("  {it}")).unwrap_or_default();
            let only = entry.only.as_ref().map(|it| format!("  only {it}")).unwrap_or_default();
            ui.data(format!("{}  {when}  {databases}  {size}{source}{only}", entry.name))?;
        }
        if entries.is_empty() {
            ui.status("Nothing", format!("was published to {} yet", vault.url()));
        }
        Ok(())
    }
}

pub fn prune(cx: &Context, settings: &Settings, keep: usize, dry_run: bool) -> Result<()> {
    let (ui, store) = (&cx.ui, Store::of(settings));
    let vault = Vault::open(vault::settings(settings)?, &store, false)?;
    if !dry_run && !ui.yes {
        let would = pruning::prune(&vault, keep, true)?.snapshots;
        if !would.is_empty() {
            would.iter().for_each(|name| ui.line(format!("  {name}")));
            let snapshots = count(would.len(), "snapshot");
            ui.confirm(&format!("Remove {snapshots} from {}?", vault.url()))?;
        }
    }
    let pruning::Pruned { snapshots, objects, bytes: size } =
        pruning::prune(&vault, keep, dry_run)?;
    if ui.json {
        let (share, removed) = (vault.url(), &snapshots[..]);
        return ui.json(&report::Pruned { share, removed, objects, bytes: size });
    }
    if snapshots.is_empty() && objects == 0 {
        ui.status("Nothing", format!("to remove from {}", vault.url()));
        return Ok(());
    }
    let verb = if dry_run { "Would remove" } else { "Removed" };
    let freed = if dry_run { String::new() } else { format!(", {}", bytes(size)) };
    ui.status(verb, format!("{}{freed} from {}", count(snapshots.len(), "snapshot"), vault.url()));
    for name in &snapshots {
        ui.line(format!("  {name}"));
    }
    Ok(())
}
