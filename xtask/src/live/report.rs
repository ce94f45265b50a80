//! The messages after a replacement of the live set.

use super::Replaced;
use crate::snapshots::Snapshot;
use crate::ui::{Ui, count, escape};

/// Printed by every command that has changed the live set.
pub const WAY_BACK: &str = "cargo xtask restore-db --undo brings back what was live before";

/// Reports what the live set is now, and how to undo the replacement.
pub fn replaced(ui: &Ui, snapshot: &Snapshot, replaced: &Replaced) {
    match &replaced.before {
        Some(saved) if saved.new => ui.status("Saved", format!("what was live as {}", saved.name)),
        Some(saved) if saved.name == snapshot.name => {
            ui.status("Live", format!("{}, with the same content as before", snapshot.name));
            return unsanitized(ui, replaced);
        }
        Some(saved) => ui.status("Kept", format!("{}, which holds what was live", saved.name)),
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
        "Live",
        format!("{} ({})", snapshot.name, count(replaced.installed.len(), "database")),
    );
    unsanitized(ui, replaced);
    programs(ui, replaced);
    match &replaced.before {
        Some(saved) if saved.damaged => ui.hint(format!(
            "what was sound of the set before is in {}: cargo xtask restore-db --undo --only GLOB",
            saved.name
        )),
        Some(_) => ui.hint(WAY_BACK),
        None => {}
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
    ui.status("Unsanitized", escape(&what) + ": live, secrets included");
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
        Some(saved) => format!("is in {}", saved.name),
        None => "is gone".to_owned(),
    };
    ui.status("", format!("what it wrote before {before}"));
    ui.status("", "what it writes from now on goes to the new data");
}
