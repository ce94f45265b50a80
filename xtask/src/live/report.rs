//! The messages after a replacement of the live set.

use anyhow::Result;

use super::{Damage, Replaced};
use crate::config::{CommandLine, Settings};
use crate::context::Context;
use crate::error;
use crate::snapshots::Snapshot;
use crate::ui::{Ui, count, escape};
use crate::user_command::UserCommand;

/// Printed by every command that has changed the live set.
pub const WAY_BACK: &str = "cargo xtask restore-db --undo brings back the previous data";

/// Runs the user's command for what was put in place, if there is one.
///
/// # Errors
///
/// The command fails: the replacement stays.
pub fn run_after(
    cx: &Context,
    settings: &Settings,
    key: &'static str,
    line: Option<&CommandLine>,
    snapshot: &Snapshot,
    replaced: &Replaced,
) -> Result<()> {
    let Some(line) = line else { return Ok(()) };
    let command = UserCommand { key, line, root: &settings.root };
    let then = format!("{} stays the current data", snapshot.name);
    let dir = &settings.data_dir;
    command
        .run(&cx.ui, &cx.sh, dir, &snapshot.path, &replaced.installed, &then)
        .map_err(|error| error::with_hint(error, WAY_BACK))
}

/// Reports what the live set is now, and how to undo the replacement.
pub fn replaced(ui: &Ui, snapshot: &Snapshot, replaced: &Replaced) {
    match &replaced.before {
        Some(saved) if saved.new => {
            ui.status("Saved", format!("the previous data as {}", saved.name));
        }
        Some(saved) if saved.name == snapshot.name => {
            ui.status("Already", format!("up to date ({})", snapshot.name));
            return unsanitized(ui, replaced);
        }
        Some(saved) => ui.status("Previous", format!("data: {}", saved.name)),
        None => {}
    }
    if !replaced.removed.is_empty() {
        ui.status(
            "Removed",
            escape(&replaced.removed.join(", ")) + ", which the snapshot does not have",
        );
    }
    if !replaced.others.is_empty() {
        ui.status("Left", escape(&replaced.others.join(", ")) + ", which no pull has brought");
    }
    ui.status(
        "Current",
        format!("{} ({})", snapshot.name, count(replaced.installed.len(), "database")),
    );
    unsanitized(ui, replaced);
    programs(ui, replaced);
    match &replaced.before {
        None => {}
        Some(saved) => match saved.damage {
            Damage::None => ui.hint(WAY_BACK),
            Damage::Some => ui.hint(format!(
                "the undamaged part of the previous data is in {}: cargo xtask restore-db --undo --only GLOB",
                saved.name
            )),
            Damage::All => ui.hint(format!(
                "the damaged data is kept in {}; the command `.recover` of sqlite3 may read a part of it",
                saved.name
            )),
        },
    }
}

/// Names the unsanitized live databases, also those of an earlier pull.
fn unsanitized(ui: &Ui, replaced: &Replaced) {
    let names = &replaced.unsanitized;
    if names.is_empty() {
        return;
    }
    let few = names.len() <= 3;
    let what = if few { names.join(", ") } else { count(names.len(), "database") };
    ui.status("Unmasked", escape(&what) + ": secrets included");
}

/// Says what happens to the writes of running programs.
fn programs(ui: &Ui, replaced: &Replaced) {
    if replaced.programs.is_empty() {
        return;
    }
    ui.status(
        "Running",
        escape(&replaced.programs.join(", ")) + ": sees the new data at its next query",
    );
    let before = match &replaced.before {
        Some(saved) => format!("are in {}", saved.name),
        None => "are lost".to_owned(),
    };
    ui.status("", format!("its earlier writes {before}"));
    ui.status("", "its later writes go to the new data");
}
