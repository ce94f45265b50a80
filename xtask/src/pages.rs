//! A database as pages (sqlite.org/fileformat.html): what its header says, what
//! is in a `-wal`, and pages read and written through SQLite's `sqlite_dbpage`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use rusqlite::{Connection, OptionalExtension as _};

use crate::error::Failure;
use crate::interrupt;

/// The first bytes of page 1.
pub const HEADER: usize = 100;

/// What a header says, as far as it decides how pages can be exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// In bytes.
    pub page_size: u32,
    /// Programs that find another one than they know read the schema again.
    pub schema_cookie: u32,
    /// 1 is UTF-8, 2 and 3 are UTF-16, 0 is not decided yet.
    pub text_encoding: u32,
    /// How many there are; what follows them is no part of the database. None where
    /// an older version of SQLite wrote last, which did not say so.
    pub pages: Option<u32>,
}

impl Header {
    /// None where it is not the header of a database.
    pub fn parse(page: &[u8]) -> Option<Self> {
        let header = page.get(..HEADER)?;
        let page_size = match u16::from_be_bytes([header[16], header[17]]) {
            1 => 1 << 16,
            size => size.into(),
        };
        let valid = header.starts_with(b"SQLite format 3\0")
            && page_size >= 512
            && u32::is_power_of_two(page_size);
        valid.then(|| Self {
            page_size,
            schema_cookie: big_endian(header, 40),
            text_encoding: big_endian(header, 56),
            pages: Some(big_endian(header, 28))
                .filter(|pages| *pages > 0 && header[24..28] == header[92..96]),
        })
    }
}

fn big_endian(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Makes the header of a new page 1 fit for a database that is open: how it is
/// journalled stays (bytes 18 and 19: some have its `-wal` open), and the number
/// of pages is said, which older versions of SQLite did not.
pub fn adapt_header(page: &mut [u8], live: &[u8], pages: u32) {
    page[18..20].copy_from_slice(&live[18..20]);
    page[28..32].copy_from_slice(&pages.to_be_bytes());
}

pub fn set_schema_cookie(page: &mut [u8], cookie: u32) {
    page[40..44].copy_from_slice(&cookie.to_be_bytes());
}

/// The header's counters and its journal mode change without a change of
/// content: change counter, schema cookie, version-valid-for, version number.
pub fn clear_counters(header: &mut [u8]) {
    for range in [18..20, 24..28, 40..44, 92..HEADER] {
        header[range].fill(0);
    }
}

/// A closed database file as pages. No connection of this process may have it open.
pub struct PageFile {
    file: File,
    page_size: u32,
}

impl PageFile {
    /// # Errors
    ///
    /// It cannot be opened, or read and written if it is to be `writable`.
    pub fn open(path: &Path, page_size: u32, writable: bool) -> Result<Self> {
        let file = fs_err::OpenOptions::new().read(true).write(writable).open(path)?;
        Ok(Self { file: file.into_file(), page_size })
    }

    /// # Errors
    ///
    /// Those of asking for its length.
    pub fn count(&self) -> io::Result<u32> {
        let pages = self.file.metadata()?.len() / u64::from(self.page_size);
        Ok(u32::try_from(pages).unwrap_or(u32::MAX))
    }

    fn offset(&self, page: u32) -> u64 {
        u64::from(page - 1) * u64::from(self.page_size)
    }

    /// Fills `buffer` with a page; false where the file ends before it does.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub fn read(&self, page: u32, buffer: &mut Vec<u8>) -> io::Result<bool> {
        buffer.resize(self.page_size as usize, 0);
        filled(self.file.read_exact_at(buffer, self.offset(page)))
    }

    /// # Errors
    ///
    /// Those of writing.
    pub fn write(&self, page: u32, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, self.offset(page))
    }

    /// Cuts or extends the file to so many pages.
    ///
    /// # Errors
    ///
    /// Those of writing.
    pub fn truncate(&self, pages: u32) -> io::Result<()> {
        self.file.set_len(self.offset(pages + 1))
    }

    /// # Errors
    ///
    /// Those of syncing.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

/// The page that holds no data, because SQLite locks bytes there.
pub fn is_lock_page(page: u32, page_size: u32) -> bool {
    page == (1 << 30) / page_size + 1
}

/// How many pages a database has, in the connection's transaction.
///
/// # Errors
///
/// Those of SQLite.
pub fn count(db: &Connection) -> Result<u32> {
    Ok(db.pragma_query_value(None, "page_count", |row| row.get(0))?)
}

/// Hands every page of an open database to `each`, in their order.
///
/// # Errors
///
/// Those of SQLite and of `each`.
pub fn for_each(db: &Connection, mut each: impl FnMut(u32, &[u8]) -> Result<()>) -> Result<()> {
    let mut statement = prepare(db, "SELECT pgno, data FROM sqlite_dbpage")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        each(row.get(0)?, row.get_ref(1)?.as_bytes()?)?;
    }
    Ok(())
}

/// A page of an open database; none behind its end.
///
/// # Errors
///
/// Those of SQLite.
pub fn read(db: &Connection, page: u32) -> Result<Option<Vec<u8>>> {
    let mut statement = prepare(db, "SELECT data FROM sqlite_dbpage WHERE pgno = ?1")?;
    Ok(statement.query_row([page], |row| row.get(0)).optional()?)
}

/// Writes a page within the connection's transaction.
///
/// # Errors
///
/// Those of SQLite.
pub fn write(db: &Connection, page: u32, data: &[u8]) -> Result<()> {
    prepare(db, "INSERT INTO sqlite_dbpage (pgno, data) VALUES (?1, ?2)")?.execute((page, data))?;
    Ok(())
}

/// Ends the database behind so many pages, when the transaction ends. No page
/// may be written after that: it would be forgotten.
///
/// # Errors
///
/// Those of SQLite.
pub fn truncate(db: &Connection, pages: u32) -> Result<()> {
    prepare(db, "INSERT INTO sqlite_dbpage (pgno, data) VALUES (?1, NULL)")?
        .execute([pages + 1])?;
    Ok(())
}

fn prepare<'a>(db: &'a Connection, sql: &str) -> Result<rusqlite::CachedStatement<'a>> {
    db.prepare_cached(sql).map_err(|error| {
        let missing = error.to_string().contains("no such table: sqlite_dbpage");
        let error = anyhow::Error::new(error);
        if !missing {
            return error;
        }
        error.context(
            Failure::new(
                "this xtask was built without sqlite_dbpage, which changes open databases",
            )
            .hint("copy the section [env] of .cargo/config.toml too, and build again"),
        )
    })
}

/// The pages that a `-wal` has, of transactions that were committed or not.
/// Reading it disturbs nobody: SQLite's locks are on other files.
///
/// # Errors
///
/// It cannot be read.
pub fn in_wal(path: &Path) -> Result<BTreeSet<u32>> {
    let read = || -> io::Result<BTreeSet<u32>> {
        let mut pages = BTreeSet::new();
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(pages),
            file => file?,
        };
        let mut wal = BufReader::with_capacity(1 << 16, file);
        let mut header = [0; 32];
        if !filled(wal.read_exact(&mut header))? {
            return Ok(pages);
        }
        let (page_size, salts) = (big_endian(&header, 8), &header[16..24]);
        let mut frame = [0; 24];
        // What follows with other salts is of an earlier use of the file.
        while filled(wal.read_exact(&mut frame))? && frame[8..16] == *salts {
            pages.insert(big_endian(&frame, 0));
            wal.seek_relative(page_size.into())?;
        }
        Ok(pages)
    };
    read().with_context(|| format!("cannot read {}", path.display()))
}

/// Whether there was as much to read as there should be.
fn filled(read: io::Result<()>) -> io::Result<bool> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        outcome => outcome.map(|()| true),
    }
}

/// Whether two closed files hold the same pages, but for the header's counters
/// and its journal mode, which change without a change of content.
///
/// # Errors
///
/// One of them cannot be read.
pub fn same_content(a: &Path, b: &Path) -> Result<bool> {
    let (mut left, mut right) = (fs_err::File::open(a)?, fs_err::File::open(b)?);
    if left.metadata()?.len() != right.metadata()?.len() {
        return Ok(false);
    }
    let (mut x, mut y) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut first = true;
    loop {
        interrupt::check()?;
        let n = read_full(&mut left, &mut x)?;
        if read_full(&mut right, &mut y)? != n {
            return Ok(false);
        }
        if std::mem::take(&mut first) && n >= HEADER {
            for buffer in [&mut x, &mut y] {
                clear_counters(&mut buffer[..HEADER]);
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

fn read_full(file: &mut fs_err::File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}
