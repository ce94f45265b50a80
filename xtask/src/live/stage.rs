//! Copies the databases to be installed into the staging directory, beside the live set.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::error::Failure;
use crate::snapshots::Snapshot;
use crate::sqlite::{remove_sidecars, sidecar};
use crate::ui::Ui;
use crate::{fs, interrupt, pages, sqlite};

/// Copies the databases and verifies them meanwhile.
pub fn stage(snapshot: &Snapshot, install: &[String], to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    for name in install {
        let (from, copy) = (snapshot.path.join(name), to.join(name));
        fs::create_parents(to, name)?;
        let recorded = snapshot.database(name);
        if recorded.is_some_and(|database| database.is_recorded(&from)) {
            // Not written to since it was verified.
            fs::duplicate(&from, &copy)?.sync_all()?;
            continue;
        }
        let sha256 = fs::copy(&from, &copy)?;
        match recorded.map(|database| &database.sha256) {
            Some(Some(recorded)) if *recorded == sha256 => {}
            Some(Some(_)) => return Err(damaged(&from).into()),
            Some(None) | None => stage_unrecorded(&from, &copy)?,
        }
    }
    fs::sync_dirs(to, install)
}

/// Makes plain files again of staged databases that a program has changed, without free pages if
/// `compact` says so.
pub fn close(ui: &Ui, install: &[String], staged: &Path, compact: bool) -> Result<()> {
    for name in install {
        let copy = staged.join(name);
        let what = || format!("{name} was not left as a database; nothing was changed");
        sqlite::recover_journal(&copy).with_context(what)?;
        if compact && let Err(error) = sqlite::compact(&copy) {
            ui.warn(format!("{name} keeps its free pages: {error:#}"));
        }
        interrupt::check()?;
        // SQLite takes a file without a header for an empty database.
        pages::Header::of(&copy).with_context(what)?;
        sqlite::check(&copy).with_context(what)?;
        remove_sidecars(&copy)?;
        fs::sync(&copy)?;
    }
    fs::sync_dirs(staged, install)
}

/// A file that was copied by a person or an older tool may have a journal, without which it is
/// inconsistent.
fn stage_unrecorded(from: &Path, copy: &Path) -> Result<()> {
    for end in ["-wal", "-journal"] {
        let journal = sidecar(from, end);
        if journal.exists() {
            fs::copy(&journal, &sidecar(copy, end))?;
            sqlite::recover_journal(copy).with_context(|| damaged(from))?;
        }
    }
    interrupt::check()?;
    sqlite::check(copy).with_context(|| damaged(from))?;
    remove_sidecars(copy)
}

fn damaged(path: &Path) -> Failure {
    Failure::new(format!("{} is damaged; the current data was not changed", path.display()))
        .hint("restore another one: cargo xtask restore-db --list")
}
