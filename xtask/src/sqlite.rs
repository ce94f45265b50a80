//! SQLite as this tool uses it: closed files are opened immutable and
//! distrusted, open databases are copied through the backup API.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use sha2::{Digest as _, Sha256};

use crate::{durable, interrupt};

/// How long another program's lock is waited for.
const BUSY: Duration = Duration::from_secs(10);
/// How many pages are copied at a time.
const PAGES: i32 = 1000;

/// What SQLite keeps beside a database, by how its name ends.
pub const SIDECARS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// What is recorded of a closed database file.
#[derive(Default)]
pub struct Description {
    pub page_size: u32,
    pub user_version: i64,
    /// sha256 of the schema's SQL, in hex.
    pub schema: String,
}

/// Opens a file that no program has open. Nothing is locked, no file is made
/// beside it, and nothing that its schema says is trusted.
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

/// How a file that no program has open is named to SQLite, so that it is only
/// read and no file is made beside it.
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

/// A name within SQL.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text within SQL.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Opens a database that other programs may have open too; it is not created.
///
/// # Errors
///
/// Those of SQLite.
pub fn open_existing(path: &Path) -> rusqlite::Result<Connection> {
    Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
}

/// Nothing that the schema of a database from elsewhere says is trusted.
pub fn distrust(db: &Connection) -> Result<()> {
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    db.pragma_update(None, "cell_size_check", true)?;
    Ok(())
}

/// Checks the structure of a closed file, and describes it.
///
/// # Errors
///
/// It is not a database, or a damaged one; the path is named.
pub fn check(path: &Path) -> Result<Description> {
    let check = || -> Result<Description> {
        let db = open_closed(path)?;
        let verdict: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            bail!("{verdict}");
        }
        description(&db)
    };
    check().with_context(|| format!("{} is damaged", path.display()))
}

/// Describes a closed file without looking at all of it.
///
/// # Errors
///
/// It is not a database; the path is named.
pub fn describe(path: &Path) -> Result<Description> {
    open_closed(path)
        .and_then(|db| description(&db))
        .with_context(|| format!("{} is damaged", path.display()))
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
        schema: durable::hex(&hash.finalize()),
    })
}

/// Copies databases that other programs may have open, each whole and all of
/// one moment: a read transaction on every one begins before the first copy.
/// Returns the indexes of those that another program has written meanwhile.
///
/// # Errors
///
/// The index of the database, and why it cannot be copied.
pub fn backup_set(pairs: &[(&Path, &Path)]) -> Result<Vec<usize>, (usize, anyhow::Error)> {
    let mut sources = Vec::new();
    for (i, (from, _)) in pairs.iter().enumerate() {
        sources.push(pin(from).map_err(|error| (i, error))?);
    }
    for (i, ((source, _), (_, to))) in sources.iter().zip(pairs).enumerate() {
        backup(source, to).map_err(|error| (i, error))?;
    }
    let mut written = Vec::new();
    for (i, (source, version)) in sources.iter().enumerate() {
        let now = source.execute_batch("COMMIT").and_then(|()| data_version(source));
        if now.map_err(|error| (i, error.into()))? != *version {
            written.push(i);
        }
    }
    Ok(written)
}

fn pin(path: &Path) -> Result<(Connection, i64)> {
    let db = open_existing(path)?;
    db.busy_timeout(BUSY)?;
    db.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema")?;
    let version = data_version(&db)?;
    Ok((db, version))
}

/// Changes when another connection commits.
fn data_version(db: &Connection) -> rusqlite::Result<i64> {
    db.pragma_query_value(None, "data_version", |row| row.get(0))
}

fn backup(source: &Connection, to: &Path) -> Result<()> {
    drop(durable::create(to)?);
    let mut target = open_existing(to)?;
    // The copy is synced once, by its owner, and thrown away after a crash.
    target.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")?;
    let deadline = Instant::now() + BUSY;
    let backup = Backup::new(source, &mut target)?;
    loop {
        interrupt::check()?;
        // Pinned, the source is not begun again between two steps.
        match backup.step(PAGES)? {
            StepResult::Done => return Ok(()),
            StepResult::More => {}
            _ if Instant::now() > deadline => bail!("it stayed locked for {} s", BUSY.as_secs()),
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Whether a connection other than ours has the database open: any connection
/// in WAL mode, one within a transaction in a rollback mode. A file that is no
/// database is not in use.
///
/// # Errors
///
/// The file cannot be opened.
pub fn in_use(path: &Path) -> Result<bool> {
    let db = open_existing(path)?;
    db.busy_timeout(Duration::ZERO)?;
    let probe = db.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; ROLLBACK");
    Ok(matches!(
        probe.map_err(|error| error.sqlite_error_code()),
        Err(Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
    ))
}

/// Brings the database, which no program has open, and the `-wal` or hot
/// `-journal` beside it together into the one file.
///
/// # Errors
///
/// It cannot be opened or is locked.
pub fn absorb_journal(path: &Path) -> Result<()> {
    let db = Connection::open(path)?;
    distrust(&db)?;
    // Reading rolls a hot journal back; a -wal is only taken in at a checkpoint.
    db.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(())
}

/// Whether two closed files hold the same pages, but for the header's counters
/// and its journal mode, which change without a change of content.
///
/// # Errors
///
/// One of them cannot be read.
pub fn same_content(a: &Path, b: &Path) -> Result<bool> {
    let (mut left, mut right) = (File::open(a)?, File::open(b)?);
    if left.metadata()?.len() != right.metadata()?.len() {
        return Ok(false);
    }
    let (mut x, mut y) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut first = true;
    loop {
        let n = read_full(&mut left, &mut x)?;
        if read_full(&mut right, &mut y)? != n {
            return Ok(false);
        }
        if std::mem::take(&mut first) && n >= 100 {
            for buffer in [&mut x, &mut y] {
                clear_counters(&mut buffer[..100]);
            }
        }
        if x[..n] != y[..n] {
            return Ok(false);
        }
        if n < x.len() {
            return Ok(true);
        }
    }
}

/// Journal mode, change counter, schema cookie, version-valid-for, version
/// number: sqlite.org/fileformat.html, 1.3.
fn clear_counters(header: &mut [u8]) {
    for range in [18..20, 24..28, 40..44, 92..100] {
        header[range].fill(0);
    }
}

fn read_full(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            backup_set(&[(&path("a.db"), &path(name))]).unwrap();
            check(&path(name)).unwrap();
        }
        assert!(same_content(&path("b.db"), &path("c.db")).unwrap());
        app.execute_batch("INSERT INTO t VALUES (2)").unwrap();
        backup_set(&[(&path("a.db"), &path("d.db"))]).unwrap();
        assert!(!same_content(&path("b.db"), &path("d.db")).unwrap());
    }

    #[test]
    fn an_idle_connection_is_seen_in_wal_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let app = database(&path, "PRAGMA journal_mode = WAL; CREATE TABLE t (a)");
        assert!(in_use(&path).unwrap());
        drop(app);
        assert!(!in_use(&path).unwrap());
        std::fs::write(&path, "no database").unwrap();
        assert!(!in_use(&path).unwrap());
    }

    #[test]
    fn what_is_written_while_it_is_copied_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let app = database(
            &path("a.db"),
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; CREATE TABLE t (a);
             WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 400)
             INSERT INTO t SELECT zeroblob(50000) FROM n",
        );
        let begun = std::sync::atomic::AtomicBool::new(false);
        let done = std::sync::atomic::AtomicBool::new(false);
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let app = app;
                while !done.load(relaxed) {
                    app.execute_batch("INSERT INTO t VALUES (1)").unwrap();
                    begun.store(true, relaxed);
                }
            });
            while !begun.load(relaxed) {
                std::thread::yield_now();
            }
            let written = backup_set(&[(&path("a.db"), &path("b.db"))]).unwrap();
            done.store(true, relaxed);
            assert_eq!(written, [0]);
        });
        assert!(backup_set(&[(&path("a.db"), &path("c.db"))]).unwrap().is_empty());
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
