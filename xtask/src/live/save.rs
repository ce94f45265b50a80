//! Saving the live set.

use std::path::Path;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use rusqlite::ErrorCode;

use super::{Live, State, sidecar};
use crate::error::Failure;
use crate::snapshots::{Database, Kind, Meta, Snapshot};
use crate::sqlite::SIDECARS;
use crate::ui::{count, escape};
use crate::{durable, git, sqlite};

/// The snapshot that holds what was live.
pub struct Saved {
    pub name: String,
    /// False when a snapshot held the very same already.
    pub new: bool,
    /// One of its databases could not be read.
    pub damaged: bool,
}

impl Live<'_> {
    /// Makes a snapshot of the live set through SQLite's backup API, unless one
    /// holds the same already; none of an empty set.
    ///
    /// # Errors
    ///
    /// It cannot be read or written; the live set is as it was.
    pub fn save(&self, kind: Kind) -> Result<Option<Saved>> {
        self.save_before(kind, None)
    }

    /// As [`save`](Self::save); of several snapshots that hold the same it
    /// returns `next`, which is about to be put in place, if it is one of them.
    pub(super) fn save_before(&self, kind: Kind, next: Option<&str>) -> Result<Option<Saved>> {
        let (names, dir) = (self.databases()?, &self.store.dir);
        if names.is_empty() {
            return Ok(None);
        }
        let what = format!("{} in {}", count(names.len(), "database"), dir.display());
        let _working = self.ui.working("Saving", what);
        let incoming = self.store.begin()?;
        let Copied { damaged, written } =
            copy(dir, &names, incoming.path()).context("cannot save the live set")?;
        // A manual save replaces nothing: what is written meanwhile is not lost.
        if let Some(name) = written.first().filter(|_| kind != Kind::Manual && !self.force) {
            return Err(Failure::new(format!(
                "{} was written by another program while it was saved; nothing was changed",
                dir.join(name).display()
            ))
            .hint("stop it, and run the same command again")
            .into());
        }
        for name in &damaged {
            self.ui.warn(format!("{} is damaged: it is saved as it is", escape(name)));
        }
        if kind != Kind::Manual
            && damaged.is_empty()
            && let Some(name) = self.held_by(&names, incoming.path(), next)?
        {
            return Ok(Some(Saved { name, new: false, damaged: false }));
        }
        let meta = Meta {
            version: 1,
            kind,
            time: Timestamp::now(),
            origin: None,
            git_commit: git::head(self.sh, &self.settings.root),
            only: None,
            databases: names
                .iter()
                .map(|name| describe(&incoming.path().join(name), damaged.contains(name)))
                .collect::<Result<_>>()?,
        };
        let damaged = meta.databases.iter().any(|database| database.damaged);
        Ok(Some(Saved { name: incoming.commit(meta)?.name, new: true, damaged }))
    }

    /// The snapshot with the same content as the files in `dir`.
    fn held_by(&self, names: &[String], dir: &Path, next: Option<&str>) -> Result<Option<String>> {
        let last = State::read(&self.store)?.live;
        let mut snapshots = self.store.list()?;
        // The likely ones first: comparing reads all of both.
        snapshots.sort_by_key(|snapshot| {
            let name = Some(snapshot.name.as_str());
            (name != next, name != last.as_deref())
        });
        for snapshot in snapshots {
            if holds(&snapshot, names, dir)? {
                return Ok(Some(snapshot.name));
            }
        }
        Ok(None)
    }
}

/// What came of copying the live set.
struct Copied {
    /// What SQLite cannot read is copied byte by byte, with what lies beside it.
    damaged: Vec<String>,
    /// What another program has written since.
    written: Vec<String>,
}

fn copy(dir: &Path, names: &[String], to: &Path) -> Result<Copied> {
    let mut damaged: Vec<String> = Vec::new();
    let written = loop {
        let sound: Vec<_> = names.iter().filter(|name| !damaged.contains(name)).collect();
        let paths: Vec<_> = sound.iter().map(|name| (dir.join(name), to.join(name))).collect();
        let pairs: Vec<_> = paths.iter().map(|(from, to)| (from.as_path(), to.as_path())).collect();
        let (i, error) = match sqlite::backup_set(&pairs) {
            Ok(written) => break written.into_iter().map(|i| sound[i].clone()).collect(),
            Err(failed) => failed,
        };
        let code =
            error.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code);
        if !matches!(code, Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)) {
            return Err(error)
                .with_context(|| format!("{} cannot be copied", paths[i].0.display()));
        }
        damaged.push(sound[i].clone());
        for (_, copy) in &paths {
            durable::remove(copy)?;
        }
    };
    for name in &damaged {
        let (from, to) = (dir.join(name), to.join(name));
        durable::copy(&from, &to)?;
        for end in SIDECARS.iter().filter(|end| sidecar(&from, end).exists()) {
            durable::copy(&sidecar(&from, end), &sidecar(&to, end))?;
        }
    }
    for name in names {
        std::fs::File::open(to.join(name))?.sync_all()?;
    }
    Ok(Copied { damaged, written })
}

/// Describes a closed file for `snapshot.json`. One that cannot be described is
/// recorded as damaged: saving it must not fail for that.
///
/// # Errors
///
/// It cannot be read.
pub(super) fn describe(path: &Path, damaged: bool) -> Result<Database> {
    let found = if damaged { None } else { sqlite::describe(path).ok() };
    let damaged = found.is_none();
    let found = found.unwrap_or_default();
    Ok(Database {
        name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        bytes: path.metadata()?.len(),
        sha256: durable::sha256(path)?,
        page_size: found.page_size,
        user_version: found.user_version,
        schema: found.schema,
        damaged,
    })
}

/// Whether `snapshot` has exactly these databases with this content.
fn holds(snapshot: &Snapshot, names: &[String], dir: &Path) -> Result<bool> {
    let same_names = snapshot.files.iter().map(|(name, _)| name).eq(names);
    // One that is no whole set would not take away what comes later.
    let whole = snapshot.meta.as_ref().is_some_and(|meta| meta.only.is_none());
    if snapshot.defect.is_some() || !whole || !same_names {
        return Ok(false);
    }
    for name in names {
        if !sqlite::same_content(&snapshot.path.join(name), &dir.join(name))? {
            return Ok(false);
        }
    }
    Ok(true)
}
