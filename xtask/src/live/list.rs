//! The list of snapshots, with the live one marked.

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use super::{LockedLiveSet, State};
use crate::config::Settings;
use crate::context::Context;
use crate::snapshots::{Snapshot, Store};
use crate::ui::{age, bytes, escape};

/// What a list says of a snapshot with unsanitized databases.
fn mark(snapshot: &Snapshot, settings: &Settings) -> String {
    let Settings { rules, unmasked_keep, .. } = settings;
    if snapshot.unsanitized(rules).is_empty() {
        return String::new();
    }
    match snapshot.unsanitized_until(rules, unmasked_keep.as_ref()) {
        Some(until) if until <= Timestamp::now() => " unmasked, expired".to_owned(),
        Some(until) if snapshot.is_prunable() => until.strftime(" unmasked until %F").to_string(),
        _ => " unmasked".to_owned(),
    }
}

/// A line per snapshot with the columns name, age, kind, databases, size.
pub fn lines(snapshots: &[Snapshot], state: &State, settings: &Settings) -> Vec<String> {
    let now = Timestamp::now().as_second();
    snapshots
        .iter()
        .map(|snapshot| {
            // With its mark, a line has at most 80 columns.
            let mut line = format!(
                "{} {:<10} {:<14} {:>2} db {:>8}",
                snapshot.name,
                age(now - snapshot.time.as_second()),
                snapshot.kind(),
                snapshot.files.len(),
                bytes(snapshot.bytes()),
            );
            if state.live.as_ref() == Some(&snapshot.name) {
                line += " current";
            }
            line += &mark(snapshot, settings);
            if let Some(source) = snapshot.source() {
                line += &format!("  from {}", escape(source));
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

/// Printed with `--json` for each snapshot.
#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    time: Timestamp,
    kind: &'a str,
    databases: Vec<&'a str>,
    bytes: u64,
    only: Option<&'a str>,
    source: Option<&'a str>,
    defect: Option<&'a str>,
    unsanitized: bool,
    /// When a prune may remove it because of that.
    unsanitized_until: Option<Timestamp>,
    last_put_in_place: bool,
}

/// Prints the snapshots, newest first.
///
/// # Errors
///
/// The data directory or the state cannot be read.
pub fn list(cx: &Context, settings: &Settings) -> Result<()> {
    let (ui, store) = (&cx.ui, &Store::of(settings));
    let rules = &settings.rules;
    LockedLiveSet::recover_without_waiting(cx, settings)?;
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
                source: snapshot.source(),
                defect: snapshot.defect.as_deref(),
                unsanitized: !snapshot.unsanitized(rules).is_empty(),
                unsanitized_until: snapshot
                    .unsanitized_until(rules, settings.unmasked_keep.as_ref())
                    .filter(|_| snapshot.is_prunable()),
                last_put_in_place: state.live.as_ref() == Some(&snapshot.name),
            })
            .collect();
        return ui.json(&listed);
    }
    if snapshots.is_empty() {
        ui.status("Found", format!("no snapshot in {}", store.dir.display()));
    }
    for line in lines(&snapshots, &state, settings) {
        ui.data(line)?;
    }
    Ok(())
}
