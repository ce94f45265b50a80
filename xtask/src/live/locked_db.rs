//! The live databases of one replacement, locked. Databases that no program has open are locked
//! exclusively. Databases that programs have open are changed through SQLite, in transactions that
//! are committed after the decision.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rusqlite::{Connection, ErrorCode};
use xshell::Shell;

use super::STAGED;
use super::shared_db::{SharedDb, checkpoint};
use crate::error::Failure;
use crate::snapshots::Store;
use crate::sqlite::remove_sidecars;
use crate::ui::{Spinner, Ui, escape};
use crate::{fs, interrupt, open_files, sqlite};

/// How long locks are released for programs that may wait for them: SQLite retries every 100 ms at
/// the latest.
const PAUSE: Duration = Duration::from_millis(120);

/// A live database that is to be replaced or removed.
pub(super) struct LockedDb {
    pub name: String,
    pub path: PathBuf,
    /// The new file; `None` if the database is removed.
    staged: Option<PathBuf>,
    pub access: Access,
}

pub(super) enum Access {
    /// The file does not exist.
    Missing,
    /// SQLite cannot read it: it is replaced as a plain file.
    Corrupt,
    /// No other process can open a transaction.
    Exclusive(Connection),
    /// Programs have it open, or may have, and keep running.
    Shared(Box<SharedDb>),
}

/// Opens the databases to remove and to install, and locks those that no program has open.
///
/// # Errors
///
/// A program has a database open that cannot be changed meanwhile. Nothing was changed.
pub(super) fn open_and_lock(
    ui: &Ui,
    sh: &Shell,
    store: &Store,
    wait: Duration,
    remove: &[String],
    install: &[String],
) -> Result<Vec<LockedDb>> {
    let staged = store.state_dir().join(STAGED);
    let removed = remove.iter().map(|name| (name, None));
    let installed = install.iter().map(|name| (name, Some(staged.join(name))));
    let wanted: Vec<_> = removed.chain(installed).collect();
    let paths: Vec<_> = wanted.iter().map(|(name, _)| store.dir.join(name)).collect();
    let open_each = || -> Result<Vec<LockedDb>> {
        // A database to be removed must not be open at all.
        let mut programs = open_files::persistent(sh, &paths[..remove.len()])?;
        programs.extend(open_files::programs(sh, &paths[remove.len()..]));
        let each = wanted.iter().zip(&paths).zip(programs);
        each.map(|(((name, staged), path), programs)| {
            let access = Access::of(path, staged.as_deref(), programs, wait)?;
            let (name, path) = ((*name).clone(), path.clone());
            Ok(LockedDb { name, path, staged: staged.clone(), access })
        })
        .collect()
    };
    let mut locked = all_or_none(Some(ui), wait, open_each)?;
    locked.iter_mut().try_for_each(LockedDb::compare)?;
    Ok(locked)
}

/// Starts to read several databases; retries all while one is locked. In a rollback mode, a program
/// that commits to several databases waits for our readers.
///
/// # Errors
///
/// `read` fails, or a database is locked for longer than `wait`.
pub(super) fn all_or_none<T>(
    ui: Option<&Ui>,
    wait: Duration,
    read: impl Fn() -> Result<T>,
) -> Result<T> {
    let (deadline, mut waiting) = (Instant::now() + wait, None);
    loop {
        match read() {
            Err(error) if sqlite::tells_busy(&error) && Instant::now() < deadline => {
                waiting = waiting.or_else(|| Some(say_waiting(ui?, &[], wait)));
                interrupt::sleep(PAUSE)?;
            }
            outcome => return outcome,
        }
    }
}

impl Access {
    fn of(
        path: &Path,
        staged: Option<&Path>,
        mut programs: Vec<String>,
        wait: Duration,
    ) -> Result<Self> {
        if !path.exists() {
            return Ok(Self::Missing);
        }
        if !path.is_file() {
            let why =
                format!("cannot replace {}: it is not a file; nothing was changed", path.display());
            return Err(Failure::new(why).hint("move it away").into());
        }
        if programs.is_empty() {
            match sqlite::lock_exclusive(path) {
                Ok(Some(db)) => return Self::unless_hidden(path, staged, db, wait),
                Ok(None) => programs.push("another program".to_owned()),
                Err(error) if sqlite::is_damage(&error) || is_never_written(path, &error) => {
                    return Ok(Self::Corrupt);
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot lock {}", path.display()));
                }
            }
        }
        let refused = |why: &str| {
            let programs = escape(&programs.join(", "));
            Failure::new(format!(
                "{} is open in {programs}, and {why}; nothing was changed",
                path.display()
            ))
            .hint("stop it, and run the same command again")
        };
        let Some(staged) = staged else {
            return Err(refused("the new set does not have it").into());
        };
        match SharedDb::new(path, staged, wait, &refused) {
            Ok(shared) => Ok(Self::Shared(Box::new(shared.opened_by(programs)))),
            Err(error) if sqlite::tells_busy(&error) => {
                Err(error.context(still_locked(path, &programs, wait)))
            }
            Err(error) => Err(error.context(format!("cannot read {}", path.display()))),
        }
    }

    /// In a rollback mode a program may have it open without a lock. If that cannot be known, it is
    /// changed as if one had, where that is possible.
    fn unless_hidden(
        path: &Path,
        staged: Option<&Path>,
        db: Connection,
        wait: Duration,
    ) -> Result<Self> {
        let mode: String = db.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
        let Some(staged) = staged.filter(|_| mode != "wal" && open_files::may_be_hidden(path))
        else {
            return Ok(Self::Exclusive(db));
        };
        drop(db);
        match SharedDb::new(path, staged, Duration::ZERO, &|why| Failure::new(why)) {
            Ok(shared) => Ok(Self::Shared(Box::new(shared))),
            Err(error) if sqlite::tells_busy(&error) => {
                Err(error.context(still_locked(path, &[], wait)))
            }
            Err(_) => {
                let db = sqlite::lock_exclusive(path)?;
                Ok(Self::Exclusive(db.ok_or_else(|| still_locked(path, &[], wait))?))
            }
        }
    }

    pub fn shared(&self) -> Option<&SharedDb> {
        if let Self::Shared(shared) = self { Some(shared) } else { None }
    }

    pub fn shared_mut(&mut self) -> Option<&mut SharedDb> {
        if let Self::Shared(shared) = self { Some(shared) } else { None }
    }
}

/// Whether SQLite refuses to write to `path` though its permissions allow it: the file has a newer
/// format.
fn is_never_written(path: &Path, error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::ReadOnly)
        && rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
}

/// Says that a program is waited for: nothing else happens for seconds.
fn say_waiting(ui: &Ui, programs: &[String], wait: Duration) -> Spinner {
    let whose = if programs.is_empty() { "a program".to_owned() } else { programs.join(", ") };
    ui.working("Waiting", format!("for a transaction of {whose}, at most {} s", wait.as_secs()))
}

fn still_locked(path: &Path, programs: &[String], wait: Duration) -> Failure {
    let programs = match programs {
        [] => "a program of another user".to_owned(),
        _ => escape(&programs.join(", ")),
    };
    Failure::new(format!(
        "{} was locked by {programs} for longer than {} s; nothing was changed",
        path.display(),
        wait.as_secs()
    ))
    .hint("let its transaction end, and run the same command again; --wait SECONDS waits longer")
}

/// A database that is only changed in place because nobody knows whether a program has it open.
pub(super) fn unknown(locked: &[LockedDb]) -> Option<&LockedDb> {
    locked.iter().find(|one| one.access.shared().is_some_and(|shared| shared.programs.is_empty()))
}

/// The programs that have one of the databases open, without duplicates.
pub(super) fn programs(locked: &[LockedDb]) -> Vec<String> {
    let mut programs: Vec<_> = locked
        .iter()
        .filter_map(|one| one.access.shared())
        .flat_map(|one| one.programs.clone())
        .collect();
    programs.sort();
    programs.dedup();
    programs
}

/// Lets programs continue that wait for our read transactions, as in a rollback mode.
pub(super) fn end_read_transactions(locked: &[LockedDb]) -> rusqlite::Result<()> {
    locked
        .iter()
        .filter_map(|one| one.access.shared())
        .try_for_each(SharedDb::end_read_transactions)
}

/// Locks the databases against all other writers. All locks are taken or none: a program that has
/// one and waits for another must not be kept waiting.
///
/// # Errors
///
/// A program has a database locked for longer than `wait`.
pub(super) fn lock(locked: &mut [LockedDb], ui: &Ui, wait: Duration) -> Result<()> {
    let (deadline, mut waiting) = (Instant::now() + wait, None);
    end_read_transactions(locked)?;
    loop {
        interrupt::check()?;
        let late = Instant::now() >= deadline;
        let Some((i, error)) = lock_each(locked, !late) else { return Ok(()) };
        if !sqlite::is_busy(&error) {
            return Err(error).with_context(|| format!("cannot lock {}", locked[i].path.display()));
        }
        for one in locked.iter().filter_map(|one| one.access.shared()) {
            one.unlock()?;
        }
        let programs = locked[i].access.shared().map(|one| &one.programs[..]).unwrap_or_default();
        if late {
            return Err(still_locked(&locked[i].path, programs, wait).into());
        }
        waiting.get_or_insert_with(|| say_waiting(ui, programs, wait));
        if i > 0 {
            interrupt::sleep(PAUSE)?;
        }
    }
}

/// The first database that cannot be locked, and the error.
fn lock_each(locked: &mut [LockedDb], patient: bool) -> Option<(usize, rusqlite::Error)> {
    locked.iter_mut().enumerate().find_map(|(i, one)| {
        let locked = one.access.shared_mut()?.lock(patient);
        locked.err().map(|error| (i, error))
    })
}

impl LockedDb {
    fn compare(&mut self) -> Result<()> {
        let Some(shared) = self.access.shared_mut() else { return Ok(()) };
        shared.compare().with_context(|| format!("cannot read {}", self.path.display()))
    }

    /// Removes the sidecars, which must not meet a new database, and the database itself if it is
    /// not replaced.
    pub fn remove_sidecars(&self) -> Result<()> {
        if let Access::Shared(_) = self.access {
            return Ok(());
        }
        if let Access::Exclusive(db) = &self.access {
            let cannot = || format!("cannot close the journal of {}", self.path.display());
            sqlite::leave_wal_mode(db).with_context(cannot)?;
        }
        remove_sidecars(&self.path)?;
        if self.staged.is_none() { fs::remove(&self.path) } else { Ok(()) }
    }

    /// Installs the new database; with `opened`, a program has opened the old one and waits for the
    /// lock. The staged file is gone afterwards. Returns a connection to checkpoint, if any.
    pub fn install(self, opened: bool) -> Result<Option<Connection>> {
        let Some(staged) = &self.staged else { return Ok(None) };
        let cannot = || format!("cannot change {}", self.path.display());
        let writer = match self.access {
            Access::Shared(shared) => Some(shared.commit().with_context(cannot)?),
            // Not renamed away: the program would read the old file for as long as it runs.
            Access::Exclusive(mut db) if opened => {
                replace(&mut db, staged).with_context(cannot)?;
                None
            }
            Access::Missing if self.path.exists() => {
                bail!("another program has created {}", self.path.display())
            }
            // The exclusive connection ends after the rename.
            Access::Exclusive(_) | Access::Corrupt | Access::Missing => {
                fs::rename(staged, &self.path)?;
                return Ok(None);
            }
        };
        fs::remove(staged)?;
        Ok(writer)
    }
}

/// Replaces the content of an exclusively locked database by that of a closed file.
fn replace(db: &mut Connection, by: &Path) -> Result<()> {
    db.execute_batch("PRAGMA journal_mode = DELETE")?;
    sqlite::copy_into(&sqlite::open_closed(by)?, db, || Ok(()))
}

/// Installs all databases. Renames come first, right after a last check which programs have opened
/// the files; checkpoints come when all programs see the new set.
pub(super) fn install(sh: &Shell, mut locked: Vec<LockedDb>) -> Result<()> {
    locked.sort_by_key(|one| one.access.shared().is_some());
    let paths: Vec<_> = locked.iter().map(|one| one.path.clone()).collect();
    let programs = open_files::others(sh, &paths);
    let writers: Vec<_> = locked
        .into_iter()
        .zip(programs)
        .map(|(one, programs)| one.install(!programs.is_empty()))
        .collect::<Result<_>>()?;
    for writer in writers.into_iter().flatten() {
        let _ = checkpoint(&writer);
    }
    Ok(())
}
