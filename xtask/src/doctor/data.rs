//! Checks of the current data and of the snapshots on this machine.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;

use anyhow::Result;
use jiff::Timestamp;

use super::{Check, Fix, several};
use crate::config::Settings;
use crate::live::{self, State};
use crate::sanitize::audit::{self, Finding, Level};
use crate::sanitize::{Change, unmatched};
use crate::snapshots::{Snapshot, Store, unsanitized};
use crate::ui::{age, bytes, count, from_root};

/// All of them; `has_rules` says whether the rules are known.
pub fn checks(settings: &Settings, has_rules: bool) -> Vec<Check> {
    let store = Store::of(settings);
    let snapshots = match store.list() {
        Ok(snapshots) => snapshots,
        Err(error) => return vec![Check::failed("snapshots", &error)],
    };
    let mut checks = Vec::new();
    checks.extend(space(settings, &snapshots));
    checks.extend(leftovers(settings, &store));
    if !has_rules {
        return checks;
    }
    checks.extend(unmasked_snapshots(settings, &snapshots));
    checks.extend(unmasked_data(settings, &store));
    let of_source = |one: &&Snapshot| one.source() == settings.source.as_deref();
    let newest = snapshots.iter().filter(of_source).find(|one| one.is_pull());
    let masks = settings.rules.iter().any(|rule| !matches!(rule.change, Change::Omit(_)));
    if newest.is_none() && !masks && settings.audit.level != Level::Off {
        let message = "no rule masks anything, and no pull has looked for secrets yet";
        checks.push(
            Check::warning("audit", message)
                .fix("cargo xtask pull-db --dry-run shows the columns with likely secrets"),
        );
    }
    if let Some(pulled) = newest.filter(|one| one.defect.is_none()) {
        checks.extend(uncovered_columns(settings, pulled));
        // The rules may be for the databases of another source, or for those that were not pulled.
        if pulled.only().is_none() && settings.source.is_none() {
            let idle = idle_rules(settings, pulled);
            checks.extend(idle.unwrap_or_else(|error| vec![Check::failed("rules", &error)]));
        }
    }
    checks
}

fn space(settings: &Settings, snapshots: &[Snapshot]) -> Option<Check> {
    let mut seen = BTreeSet::new();
    let files =
        snapshots.iter().flat_map(|one| one.files.iter().map(|(name, _)| one.path.join(name)));
    let sizes = files.filter_map(|path| {
        let file = path.metadata().ok()?;
        // Snapshots share unchanged files, and zeros take no room.
        seen.insert((file.dev(), file.ino())).then(|| file.blocks() * 512)
    });
    let taken: u64 = sizes.sum();
    let dir = from_root(&settings.root, &settings.snapshots_dir);
    let message =
        format!("{} in {dir}, {} on disk", count(snapshots.len(), "snapshot"), bytes(taken));
    (!snapshots.is_empty()).then(|| Check::ok("snapshots", message))
}

/// What killed or cut commands left in the data directory.
fn leftovers(settings: &Settings, store: &Store) -> Vec<Check> {
    let mut checks = Vec::new();
    let dir = from_root(&settings.root, &settings.data_dir);
    if live::is_being_replaced(store) {
        let message =
            format!("a command replaces the current data in {dir}, or was killed while it did");
        let check = Check::warning("leftovers", message);
        checks.push(
            check.fix("any command finishes that: cargo xtask doctor --fix").can_fix(Fix::Here),
        );
    }
    match store.abandoned() {
        Err(error) => checks.push(Check::failed("leftovers", &error)),
        Ok(paths) if !paths.is_empty() => {
            let names: Vec<_> = paths.iter().map(|path| from_root(&settings.root, path)).collect();
            let message = format!("killed commands left {}", several(&names));
            let check = Check::warning("leftovers", message);
            checks.push(check.fix("cargo xtask doctor --fix removes them").can_fix(Fix::Here));
        }
        Ok(_) => {}
    }
    if let Some(leftover) = store.leftover() {
        let message = format!("a pull was cut after {} had arrived", bytes(leftover.bytes()));
        let fix = "cargo xtask pull-db resumes it; cargo xtask snapshots prune removes that";
        checks.push(Check::warning("cut-pull", message).fix(fix));
    }
    checks
}

fn unmasked_snapshots(settings: &Settings, snapshots: &[Snapshot]) -> Option<Check> {
    let Settings { rules, unmasked_keep, .. } = settings;
    let unmasked: Vec<_> =
        snapshots.iter().filter(|one| !one.unsanitized(rules).is_empty()).collect();
    let oldest = unmasked.iter().min_by_key(|one| one.time)?;
    let old = age(Timestamp::now().as_second() - oldest.time.as_second());
    let message = match &unmasked[..] {
        [one] => format!("{} is unmasked, of {old}", one.name),
        several => format!("{} snapshots are unmasked, the oldest of {old}", several.len()),
    };
    let remove = format!("cargo xtask snapshots rm {}", oldest.name);
    Some(Check::warning("unmasked", message).fix(match unmasked_keep {
        Some(_) => remove,
        None => format!("{remove}, or set unmasked-keep = \"7d\" in xtask/db.toml"),
    }))
}

fn unmasked_data(settings: &Settings, store: &Store) -> Option<Check> {
    let state = match State::read(store) {
        Ok(state) => state,
        Err(error) => return Some(Check::failed("current-data", &error)),
    };
    let unmasked = unsanitized(&state.raw(store), &settings.rules).into_iter();
    let unmasked: Vec<_> = unmasked.filter(|name| store.dir.join(name).exists()).collect();
    (!unmasked.is_empty()).then(|| {
        let message = format!("the current data is unmasked: {}", several(&unmasked));
        Check::warning("current-data", message).fix("cargo xtask pull-db")
    })
}

/// The columns that the audit of a pull found, as far as it has recorded them, and that the rules of
/// today do not cover.
fn uncovered_columns(settings: &Settings, pulled: &Snapshot) -> Option<Check> {
    let Settings { audit, rules, .. } = settings;
    if audit.level == Level::Off {
        return None;
    }
    let recorded = pulled.meta.iter().flat_map(|meta| &meta.databases).flat_map(|database| {
        let remote = database.remote.iter().flat_map(|remote| remote.found.split(';'));
        remote.filter_map(|line| {
            Some((&database.name, Finding::parse_recorded(&database.name, line)?))
        })
    });
    let uncovered = recorded.filter(|(database, finding)| {
        finding.unread.is_none() && !audit::is_fine(audit, rules, database, finding)
    });
    let places: BTreeSet<_> = uncovered.map(|(_, finding)| finding.place()).collect();
    let places: Vec<_> = places.into_iter().collect();
    let message = match places.len() {
        0 => return None,
        1 => format!("a column with likely secrets is not masked: {}", places[0]),
        n => format!("{n} columns with likely secrets are not masked: {}", several(&places)),
    };
    Some(Check::error("columns", message).fix("cargo xtask init adds a rule for each"))
}

fn idle_rules(settings: &Settings, pulled: &Snapshot) -> Result<Vec<Check>> {
    let idle = unmatched::idle_rules(&settings.rules, pulled)?.into_iter();
    let mut checks: Vec<_> = idle
        .map(|rule| {
            let (message, fix) = rule.describe(&settings.rules);
            Check::error("rules", message).fix(fix)
        })
        .collect();
    for tables in unmatched::idle_omits(&settings.rules, pulled)? {
        let message = format!("omit: no database has a table {tables}");
        checks.push(Check::warning("rules", message).fix("edit omit in xtask/db.toml"));
    }
    Ok(checks)
}
