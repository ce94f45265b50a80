//! One database of a comparison, in one consistent state: a closed file, or the one that a read
//! transaction sees.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};

use crate::pages::HEADER;
use crate::sqlite::sidecar;
use crate::{fs, interrupt, pages, sqlite};

/// The offset in the header of the number of bytes that each page reserves at its end.
const RESERVED: usize = 20;

pub struct Source {
    /// Declared before `file`, so that it is closed first: the end of a plain file drops the locks
    /// that SQLite has on it in this process.
    pub db: Connection,
    file: File,
    /// The pages that are in the `-wal`: only SQLite knows which version of them is valid.
    in_wal: BTreeSet<u32>,
    /// In bytes, and without the reserved ones.
    pub page_size: usize,
    pub usable: usize,
    /// The page count.
    pub pages: u32,
    pub encoding: String,
}

impl Source {
    /// Opens a file that nobody writes to. No lock is taken, and no file appears beside it.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is not a database.
    pub fn closed(path: &Path) -> Result<Self> {
        let file = fs_err::File::open(path)?.into_file();
        Self::new(sqlite::open_closed(path)?, file, BTreeSet::new())
    }

    /// Opens a database that programs may have open, in a read transaction.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is not a database, or stays locked for longer than `wait`.
    pub fn shared(path: &Path, wait: Duration) -> Result<Self> {
        // The sidecars are beside the file itself, if `path` is a link.
        let path =
            &path.canonicalize().with_context(|| format!("cannot read {}", path.display()))?;
        let file = fs_err::File::open(path)?.into_file();
        let db = match pin(path, wait) {
            // A reader would have to make files where it may not.
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::CannotOpen) && !has_wal(path) =>
            {
                sqlite::open_closed(path)?
            }
            pinned => pinned?,
        };
        // Later than the transaction, which keeps newer pages out of the file.
        let in_wal = pages::in_wal(&sidecar(path, "-wal"))?;
        Self::new(db, file, in_wal)
    }

    fn new(mut db: Connection, file: File, in_wal: BTreeSet<u32>) -> Result<Self> {
        interrupt::run_interruptibly(&mut db)?;
        // The order of text is never relied on, so any collation of the app will do.
        db.collation_needed(|db, name| db.create_collation(name, Ord::cmp))?;
        let page_size: u32 = db.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let encoding = db.pragma_query_value(None, "encoding", |row| row.get(0))?;
        let pages = pages::count(&db)?;
        let page_size = page_size as usize;
        let mut source = Self { db, file, in_wal, page_size, usable: page_size, pages, encoding };
        let mut header = Vec::new();
        if pages > 0 {
            source.read(1, &mut header)?;
            source.usable = page_size.saturating_sub(header[RESERVED].into());
        }
        Ok(source)
    }

    /// Reads a page into `buffer`.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn read(&self, page: u32, buffer: &mut Vec<u8>) -> Result<()> {
        if self.in_wal.contains(&page) {
            let found = pages::read(&self.db, page)?;
            *buffer = found.with_context(|| format!("page {page} is missing"))?;
            return Ok(());
        }
        buffer.resize(self.page_size, 0);
        let offset = (u64::from(page) - 1) * self.page_size as u64;
        self.file.read_exact_at(buffer, offset).with_context(|| format!("cannot read page {page}"))
    }

    /// The size of the database in bytes.
    pub fn bytes(&self) -> u64 {
        self.page_size as u64 * u64::from(self.pages)
    }

    /// Whether SQLite finds a fault in it.
    pub fn is_damaged(&self) -> bool {
        let check = |row: &rusqlite::Row<'_>| row.get::<_, String>(0);
        self.db.query_row("PRAGMA quick_check(1)", [], check).map_or(true, |found| found != "ok")
    }

    /// Whether the pages of both can be compared.
    pub fn is_like(&self, other: &Self) -> bool {
        (self.page_size, self.usable, &self.encoding)
            == (other.page_size, other.usable, &other.encoding)
    }
}

/// The bytes of a chunk of pages: large enough for the disk, and small enough for the CPU's cache.
const CHUNK: usize = 1 << 18;
/// More threads than this wait for memory.
const THREADS: usize = 4;

/// For each page number, whether the page differs; page 0 does not exist. Counters in the header are
/// ignored, and pages of which there is only one differ.
///
/// # Errors
///
/// A file cannot be read, or this process was asked to end.
pub fn differing(a: &Source, b: &Source) -> Result<Vec<bool>> {
    let common = a.pages.min(b.pages) as usize;
    let mut differs = vec![true; a.pages.max(b.pages) as usize + 1];
    differs[0] = false;
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(THREADS));
    let part = common.div_ceil(threads).max(1);
    let (x, y, size) = (&a.file, &b.file, a.page_size);
    std::thread::scope(|scope| {
        let parts = differs[1..=common].chunks_mut(part).enumerate();
        let parts =
            parts.map(|(i, part_of)| scope.spawn(move || compare(x, y, size, i * part, part_of)));
        let running: Vec<_> = parts.collect();
        running.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| anyhow::bail!("a thread panicked"))
        })
    })?;
    let (mut x, mut y) = (Vec::new(), Vec::new());
    let again = a.in_wal.union(&b.in_wal).copied().chain([1]);
    for page in again.filter(|page| (1..=common).contains(&(*page as usize))) {
        a.read(page, &mut x)?;
        b.read(page, &mut y)?;
        if page == 1 {
            pages::clear_counters(&mut x[..HEADER]);
            pages::clear_counters(&mut y[..HEADER]);
        }
        differs[page as usize] = x != y && !pages::is_lock_page(page, a.page_size as u32);
    }
    Ok(differs)
}

/// Compares the pages of the files from the one with this index on.
fn compare(a: &File, b: &File, page: usize, first: usize, differs: &mut [bool]) -> Result<()> {
    let (mut x, mut y) = (vec![0; CHUNK.max(page)], vec![0; CHUNK.max(page)]);
    let pages = x.len() / page;
    for (i, differs) in differs.chunks_mut(pages).enumerate() {
        interrupt::check()?;
        let offset = (first + i * pages) * page;
        let length = differs.len() * page;
        let read = fs::read_at(a, &mut x[..length], offset as u64)?.min(fs::read_at(
            b,
            &mut y[..length],
            offset as u64,
        )?);
        if read == length && x[..length] == y[..length] {
            differs.fill(false);
            continue;
        }
        for (i, differs) in differs.iter_mut().enumerate() {
            let bytes = i * page..(i + 1) * page;
            *differs = bytes.end > read || x[bytes.clone()] != y[bytes];
        }
    }
    Ok(())
}

/// A connection in a read transaction, whose end leaves a `-wal` that was there before as it is.
fn pin(path: &Path, wait: Duration) -> rusqlite::Result<Connection> {
    let db = sqlite::open_existing(path)?;
    db.busy_timeout(wait)?;
    sqlite::distrust(&db)?;
    if has_wal(path) {
        // Else the last connection moves it into the file and removes it.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        if !sidecar(path, "-shm").exists() {
            // Nobody has it open, and in this mode no `-shm` is needed, which would stay.
            db.execute_batch("PRAGMA locking_mode = EXCLUSIVE")?;
        }
    }
    db.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema")?;
    Ok(db)
}

fn has_wal(path: &Path) -> bool {
    sidecar(path, "-wal").metadata().is_ok_and(|wal| wal.len() > 0)
}
