//! The databases of a data directory: where they are, how they are opened, and
//! the connections that a running service keeps.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rusqlite::{Connection, OpenFlags};

use crate::migrate::{self, Kind, Versions};

/// A migrated database.
pub struct Database {
    pub conn: Connection,
    pub created: bool,
    pub versions: Versions,
}

impl Database {
    /// Opens a database of the service and brings it to the newest schema.
    pub fn open(path: &Path, kind: Kind) -> Result<Self> {
        let opened = || -> Result<Self> {
            let mut conn = connect(path)?;
            conn.pragma_update(None, "journal_mode", "WAL")?;
            // In WAL mode this cannot corrupt; a power cut may undo the last commits.
            conn.pragma_update(None, "synchronous", "NORMAL")?;
            let versions = migrate::migrate(&mut conn, kind.migrations())?;
            Ok(Self { conn, created: false, versions })
        };
        opened().with_context(|| format!("cannot open {}", path.display()))
    }

    pub fn open_or_create(path: &Path, kind: Kind) -> Result<Self> {
        let created =
            create_private(path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self { created, ..Self::open(path, kind)? })
    }
}

/// Opens a database that exists, and changes nothing in it.
pub fn connect(path: &Path) -> Result<Connection> {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    conn.busy_timeout(Duration::from_secs(5))?;
    Ok(conn)
}

/// Creates an empty file that only its owner reads, because SQLite itself would
/// follow the umask. The `-wal` and `-shm` files inherit the mode. A file that
/// exists isn't opened: closing it would drop this process's locks on it.
fn create_private(path: &Path) -> Result<bool> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error.into()),
    }
}

pub fn shared_path(dir: &Path) -> PathBuf {
    dir.join("data.db")
}

pub fn tenant_path(dir: &Path, id: &str) -> PathBuf {
    dir.join(format!("tenant_{id}.db"))
}

/// An id becomes part of a file name, so nothing else is let through.
pub fn is_valid_id(id: &str) -> bool {
    (1..=32).contains(&id.len())
        && id.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

/// The connections of a running service: one for each database, opened at its
/// first use and kept.
pub struct Store {
    dir: PathBuf,
    shared: Mutex<Connection>,
    tenants: Mutex<HashMap<String, Arc<Mutex<Connection>>>>,
}

impl Store {
    pub fn open(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let shared = Database::open_or_create(&shared_path(dir), Kind::Shared)?;
        Ok(Self { dir: dir.to_owned(), shared: Mutex::new(shared.conn), tenants: Mutex::default() })
    }

    pub fn shared(&self) -> MutexGuard<'_, Connection> {
        lock(&self.shared)
    }

    /// The caller has checked the id.
    pub fn create_tenant(&self, id: &str) -> Result<()> {
        Database::open_or_create(&tenant_path(&self.dir, id), Kind::Tenant)?;
        Ok(())
    }

    /// The database of a tenant that exists. Where its file is gone this fails: an
    /// empty one in its place would hide the loss.
    pub fn tenant(&self, id: &str) -> Result<Arc<Mutex<Connection>>> {
        let mut tenants = lock(&self.tenants);
        if let Some(tenant) = tenants.get(id) {
            return Ok(Arc::clone(tenant));
        }
        let database = Database::open(&tenant_path(&self.dir, id), Kind::Tenant)?;
        let tenant = Arc::new(Mutex::new(database.conn));
        tenants.insert(id.to_owned(), Arc::clone(&tenant));
        Ok(tenant)
    }
}

/// A panic leaves no half of a change behind in a connection: its transaction was
/// rolled back when it was dropped. So a poisoned lock is used on.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
