//! SQLite as this tool uses it: closed files are opened as immutable and untrusted, open databases
//! are copied through the backup API.

pub mod dump;
mod structure;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use sha2::{Digest as _, Sha256};

pub use structure::Checked;

use crate::{fs, interrupt};

/// How long to wait for another program's lock.
pub const BUSY: Duration = Duration::from_secs(10);
/// The number of pages that are copied at a time.
const PAGES: i32 = 1000;

/// The time limit of a check, plus a second per MiB: expressions in an untrusted schema may never
/// end.
const CHECK: Duration = Duration::from_secs(30);
/// SQLite checks the clock after this number of its instructions.
const OPERATIONS: i32 = 1000;

/// The suffixes of the files that SQLite keeps beside a database.
pub const SIDECARS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// The recorded facts about a closed database file.
#[derive(Default)]
pub struct Description {
    pub page_size: u32,
    pub user_version: i64,
    /// sha256 of the schema's SQL, in hex.
    pub schema: String,
    /// Empty without a full check.
    pub checked: Checked,
}

/// Opens a file that no program has open. No lock is taken, no sidecar is created, and the schema
/// is not trusted.
///
/// # Errors
///
/// The path is not UTF-8, or the file cannot be opened.
pub fn open_closed(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(closed_uri(path)?, flags)?;
    distrust(&db)?;
    Ok(db)
}

/// The URI that opens a closed file as immutable.
///
/// # Errors
///
/// The path is not UTF-8.
pub fn closed_uri(path: &Path) -> Result<String> {
    let mut uri = "file:".to_owned();
    for byte in path.to_str().context("a path that is not UTF-8")?.bytes() {
        match byte {
            b'%' | b'?' | b'#' | 0x80.. => uri += &format!("%{byte:02x}"),
            _ => uri.push(byte.into()),
        }
    }
    Ok(uri + "?immutable=1&mode=ro")
}

/// The path of a sidecar; `end` is one of [`SIDECARS`].
pub fn sidecar(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Removes all sidecars of a database.
///
/// # Errors
///
/// A file cannot be removed.
pub fn remove_sidecars(path: &Path) -> Result<()> {
    SIDECARS.iter().try_for_each(|end| fs::remove(&sidecar(path, end)))
}

/// Opens a database that other programs may have open too, without creating it.
///
/// # Errors
///
/// The file does not exist or cannot be opened.
pub fn open_existing(path: &Path) -> rusqlite::Result<Connection> {
    Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
}

/// Makes SQLite distrust the schema of a database from elsewhere.
///
/// # Errors
///
/// SQLite refuses a setting.
pub fn distrust(db: &Connection) -> rusqlite::Result<()> {
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    distrust_schema(db)
}

/// Like [`distrust`], for a connection that writes pages, which defensive mode forbids.
///
/// # Errors
///
/// SQLite refuses a setting.
pub fn distrust_schema(db: &Connection) -> rusqlite::Result<()> {
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    db.pragma_update(None, "cell_size_check", true)
}

/// Checks the structure of a closed file, and describes it.
///
/// # Errors
///
/// The file is not a database, is corrupt, or a check takes too long; the message has the path.
pub fn check(path: &Path) -> Result<Description> {
    let mebibytes = path.metadata().map_or(0, |metadata| metadata.len() >> 20);
    check_within(path, CHECK + Duration::from_secs(mebibytes))
}

fn check_within(path: &Path, limit: Duration) -> Result<Description> {
    let check = || -> Result<Description> {
        let mut db = open_closed(path)?;
        let deadline = Instant::now() + limit;
        let late = move || interrupt::is_asked() || Instant::now() > deadline;
        db.progress_handler(OPERATIONS, Some(late))?;
        let checked = structure::check(&db)?;
        Ok(Description { checked, ..description(&db)? })
    };
    check().map_err(|error| unreadable(path, error))
}

/// Describes a closed file without a full check.
///
/// # Errors
///
/// The file is not a database; the message has the path.
pub fn describe(path: &Path) -> Result<Description> {
    open_closed(path).and_then(|db| description(&db)).map_err(|error| unreadable(path, error))
}

/// The failure for a file that cannot be read, though SQLite may find no corruption.
fn unreadable(path: &Path, error: anyhow::Error) -> anyhow::Error {
    let code = error.downcast_ref().and_then(rusqlite::Error::sqlite_error_code);
    let disk = matches!(code, Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen));
    let what = if disk { "cannot be read" } else { "is damaged" };
    error.context(format!("{} {what}", path.display()))
}

fn description(db: &Connection) -> Result<Description> {
    let pragma = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let mut hash = Sha256::new();
    let mut schema =
        db.prepare("SELECT type || char(0) || name || char(0) || coalesce(sql, '') FROM sqlite_schema ORDER BY 1")?;
    let mut rows = schema.query([])?;
    while let Some(row) = rows.next()? {
        hash.update(row.get_ref(0)?.as_bytes()?);
        hash.update([0]);
    }
    Ok(Description {
        page_size: u32::try_from(pragma("page_size")?)?,
        user_version: pragma("user_version")?,
        schema: fs::hex(&hash.finalize()),
        checked: Checked::default(),
    })
}

/// Opens a database that programs may have open, and starts a read transaction: it sees the current
/// content until it ends.
///
/// # Errors
///
/// The file cannot be opened, or is still locked after a short wait.
pub fn pin(path: &Path) -> rusqlite::Result<Connection> {
    let db = open_existing(path)?;
    db.busy_timeout(BUSY / 50)?;
    distrust(&db)?;
    db.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema")?;
    Ok(db)
}

/// A number that changes when another connection commits.
///
/// # Errors
///
/// SQLite cannot read the database.
pub fn data_version(db: &Connection) -> rusqlite::Result<i64> {
    db.pragma_query_value(None, "data_version", |row| row.get(0))
}

/// Copies the content of `source`'s transaction into a new file, without a sync.
///
/// # Errors
///
/// The file exists or cannot be written, `source` cannot be read, or this process was asked to end.
pub fn backup(source: &Connection, to: &Path) -> Result<()> {
    drop(fs::create(to)?);
    let mut target = open_existing(to)?;
    // The copy is synced once, by its owner, and discarded after a crash.
    target.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")?;
    copy_into(source, &mut target, || Ok(interrupt::check()?))
}

/// Replaces the content of `target` by that of `source`, in one transaction. Calls `roll_forward`
/// between steps.
///
/// # Errors
///
/// SQLite cannot read or write, or `roll_forward` fails.
pub fn copy_into(
    source: &Connection,
    target: &mut Connection,
    roll_forward: impl Fn() -> Result<()>,
) -> Result<()> {
    let deadline = Instant::now() + BUSY;
    let backup = Backup::new(source, target)?;
    loop {
        roll_forward()?;
        // A pinned source cannot change between two steps, which would restart the copy.
        match backup.step(PAGES)? {
            StepResult::Done => return Ok(()),
            StepResult::More => {}
            _ if Instant::now() > deadline => bail!("it stayed locked for {} s", BUSY.as_secs()),
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Whether the file is not a database, is corrupt, or has a newer schema format, for which SQLite
/// has only a message.
pub fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
        || error.to_string().contains("unsupported file format")
}

/// Like [`is_damage`], for any error.
pub fn tells_damage(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(is_damage)
}

/// Whether another connection holds a lock.
pub fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Like [`is_busy`], for any error.
pub fn tells_busy(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(is_busy)
}

/// A connection that reads the database and locks out all others as long as it lives. `None` if
/// another one has it open in WAL mode, or is in a transaction in a rollback mode.
///
/// # Errors
///
/// The file is not a database, or cannot be locked.
pub fn lock_exclusive(path: &Path) -> rusqlite::Result<Option<Connection>> {
    let db = open_existing(path)?;
    db.busy_timeout(Duration::ZERO)?;
    distrust_schema(&db)?;
    // In this mode the lock outlives the transaction.
    let locked = db.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; ROLLBACK;
         BEGIN; SELECT count(*) FROM sqlite_schema",
    );
    match locked {
        Ok(()) => Ok(Some(db)),
        Err(error) if is_busy(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Moves all data into the main file and removes the sidecars, while [`lock_exclusive`] locks
/// others out. A program that opened the old file before the rename then finds it moved, and SQLite
/// refuses to write to it, which it would not do in WAL mode.
///
/// # Errors
///
/// SQLite cannot checkpoint, or change the mode.
pub fn leave_wal_mode(db: &Connection) -> Result<()> {
    db.execute_batch("COMMIT")?;
    let mode: String = db.query_row("PRAGMA journal_mode = MEMORY", [], |row| row.get(0))?;
    if mode == "memory" { Ok(()) } else { bail!("its journal mode stays {mode}") }
}

/// Merges the `-wal` or hot `-journal` of a database that no program has open into the main file.
///
/// # Errors
///
/// The database cannot be opened, or is locked.
pub fn recover_journal(path: &Path) -> Result<()> {
    let db = Connection::open(path)?;
    distrust(&db)?;
    // A read rolls back a hot journal; a -wal is only merged by a checkpoint.
    db.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(())
}

/// Removes the free pages of a database that no program has open. If that fails, it is as it was.
///
/// # Errors
///
/// The schema needs something of the app, such as a collation, or the disk is full.
pub fn compact(path: &Path) -> Result<()> {
    let db = Connection::open(path)?;
    distrust(&db)?;
    db.execute_batch("VACUUM")?;
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::same_content;

    fn database(path: &Path, sql: &str) -> Connection {
        let db = Connection::open(path).unwrap();
        db.execute_batch(sql).unwrap();
        db
    }

    #[test]
    fn a_closed_file_with_any_name_is_checked_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.db", "50% é?#.db", "file:x.db"] {
            let path = dir.path().join(name);
            drop(database(
                &path,
                "PRAGMA journal_mode = WAL; PRAGMA user_version = 7; CREATE TABLE t (a)",
            ));
            let found = check(&path).unwrap();
            assert_eq!((found.page_size, found.user_version), (4096, 7));
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3, "no -wal, no -shm");
        let junk = dir.path().join("junk.db");
        std::fs::write(&junk, [b'x'; 5000]).unwrap();
        assert!(format!("{:#}", check(&junk).err().unwrap()).contains("not a database"));
    }

    #[test]
    fn a_backup_has_what_the_wal_holds_and_equals_a_second_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let app = database(
            &path("a.db"),
            "PRAGMA journal_mode = WAL; CREATE TABLE t (a); INSERT INTO t VALUES (1)",
        );
        for name in ["b.db", "c.db"] {
            backup(&pin(&path("a.db")).unwrap(), &path(name)).unwrap();
            check(&path(name)).unwrap();
        }
        assert!(same_content(&path("b.db"), &path("c.db")).unwrap());
        app.execute_batch("INSERT INTO t VALUES (2)").unwrap();
        backup(&pin(&path("a.db")).unwrap(), &path("d.db")).unwrap();
        assert!(!same_content(&path("b.db"), &path("d.db")).unwrap());
    }

    fn in_use(path: &Path) -> bool {
        matches!(lock_exclusive(path), Ok(None))
    }

    #[test]
    fn an_idle_connection_is_seen_in_wal_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let app = database(&path, "PRAGMA journal_mode = WAL; CREATE TABLE t (a)");
        assert!(in_use(&path));
        drop(app);
        assert!(!in_use(&path));
        std::fs::write(&path, "no database").unwrap();
        assert!(!in_use(&path));
    }

    #[test]
    fn a_check_of_what_computes_without_end_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let endless = "CREATE TABLE t (a, b AS (length(hex(zeroblob(5000000 + a)))) NOT NULL)";
        drop(database(
            &path,
            &format!(
                "CREATE TABLE t (a); WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n
                 WHERE i < 9000) INSERT INTO t SELECT i FROM n;
                 PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = '{endless}'"
            ),
        ));
        let error = check_within(&path, Duration::from_millis(100)).err().unwrap();
        assert!(format!("{error:#}").ends_with("interrupted"), "{error:#}");
    }

    #[test]
    fn a_closed_file_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        drop(database(&dir.path().join("a.db"), "CREATE TABLE t (a)"));
        let db = open_closed(&dir.path().join("a.db")).unwrap();
        assert!(db.db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE).unwrap());
        assert!(!db.db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA).unwrap());
    }
}
