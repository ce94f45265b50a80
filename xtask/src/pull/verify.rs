//! Verifies received databases: by the hash if they were built from a delta, and by SQLite's own
//! check.

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};

use crate::pull::base::Base;
use crate::pull::error::PullError;
use crate::server::protocol::{Changed, ReceivedDb};
use crate::snapshots::{Database, FileId};
use crate::sqlite::{self, Checked, Description};
use crate::ui::{Ui, escape};
use crate::{fs, interrupt};

/// The number of files that are checked at a time, while the next one arrives.
const CHECKS: usize = 2;

/// The number of tables that a warning names.
const SHOWN: usize = 5;

/// A received database that is sound.
pub struct VerifiedDb {
    pub database: Database,
    /// The number of rows that the rules changed.
    pub sanitized: u64,
    /// The differences from its base; `None` if it came complete.
    pub changed: Option<Changed>,
}

/// Checks of files, in threads, in the order of arrival.
#[derive(Default)]
pub struct Checks {
    running: VecDeque<JoinHandle<Result<Check>>>,
    done: Vec<Check>,
}

/// The result of the check of a file.
struct Check {
    /// Only for a delta: otherwise the stream's reader has already compared the hash.
    sha256: Option<String>,
    /// An error counts only if the hash matches: otherwise the transfer is at fault.
    description: Result<Description>,
}

impl Checks {
    /// Starts the check of `file`, which was built from `base`, if there is one.
    ///
    /// # Errors
    ///
    /// An earlier check could not run.
    pub fn start(&mut self, path: &Path, file: File, base: Option<Base>) -> Result<()> {
        if self.running.len() >= CHECKS {
            self.collect()?;
        }
        let path = path.to_owned();
        self.running.push_back(std::thread::spawn(move || check(&path, &file, base)));
        Ok(())
    }

    fn collect(&mut self) -> Result<()> {
        if let Some(check) = self.running.pop_front() {
            let panicked = |_| Err(anyhow::anyhow!("a check panicked"));
            self.done.push(interrupt::beside(|| check.join())?.unwrap_or_else(panicked)?);
        }
        Ok(())
    }

    /// The databases in `dir`, in the order of `received`; `None` for a delta whose result has the
    /// wrong hash.
    ///
    /// # Errors
    ///
    /// A database is corrupt.
    pub fn finish(
        &mut self,
        ui: &Ui,
        dir: &Path,
        received: &[ReceivedDb],
    ) -> Result<Vec<Option<VerifiedDb>>, PullError> {
        while !self.running.is_empty() {
            self.collect()?;
        }
        let checks = std::mem::take(&mut self.done);
        checks.into_iter().zip(received).map(|(check, db)| verified(ui, dir, check, db)).collect()
    }
}

fn check(path: &Path, file: &File, base: Option<Base>) -> Result<Check> {
    file.sync_all().with_context(|| format!("cannot sync {}", path.display()))?;
    let Some(Base { database: base, .. }) = base else {
        return Ok(Check { sha256: None, description: sqlite::check(path) });
    };
    let sha256 = Some(fs::sha256(path)?);
    // The same bytes as the base, which was checked by its own pull.
    let description = if sha256 == base.sha256 {
        let Database { page_size, user_version, schema, .. } = base;
        Ok(Description { page_size, user_version, schema, ..Description::default() })
    } else {
        sqlite::check(path)
    };
    Ok(Check { sha256, description })
}

fn verified(
    ui: &Ui,
    dir: &Path,
    check: Check,
    received: &ReceivedDb,
) -> Result<Option<VerifiedDb>, PullError> {
    if check.sha256.is_some_and(|sha256| sha256 != received.sha256) {
        return Ok(None);
    }
    let ReceivedDb { name, bytes, sha256, sanitized, changed, scrubbed, remote } = received.clone();
    let found = check.description.map_err(|error| {
        let path = dir.join(&name);
        // The hash tells whether it was corrupt on the server, or became so on this disk.
        let came_so = fs::sha256(&path).is_ok_and(|found| found == sha256);
        if came_so { PullError::DamagedThere(error) } else { PullError::DamagedHere(path, error) }
    })?;
    let Description { page_size, user_version, schema, checked } = found;
    warn(ui, &name, &checked);
    let (damaged, unsanitized, raw, as_pulled) = (false, false, false, false);
    let (sha256, file) = (Some(sha256), FileId::of(&dir.join(&received.name)).ok());
    let database = Database {
        name,
        bytes,
        sha256,
        page_size,
        user_version,
        schema,
        damaged,
        unsanitized,
        raw,
        as_pulled,
        scrubbed,
        remote,
        file,
    };
    Ok(Some(VerifiedDb { database, sanitized, changed }))
}

fn warn(ui: &Ui, name: &str, checked: &Checked) {
    let Checked { unchecked, stale } = checked;
    for (tables, why) in [
        (
            unchecked,
            "could not be checked: a function, collation, module or tokenizer of the app is missing here",
        ),
        (stale, "does not match its text: rebuild the full-text index in your app"),
    ] {
        if tables.is_empty() {
            continue;
        }
        let shown = &tables[..tables.len().min(SHOWN)];
        let (shown, rest) = (escape(&shown.join(", ")), tables.len() - shown.len());
        let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        ui.warn(format!("{}: {shown}{more} {why}", escape(name)));
    }
}
