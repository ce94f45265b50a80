//! A database as pages (sqlite.org/fileformat.html): its header, the pages in a `-wal`, and reads
//! and writes of pages through SQLite's `sqlite_dbpage`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use rusqlite::{Connection, OptionalExtension as _};

use crate::error::Failure;
use crate::interrupt;

/// The size of the header at the start of page 1, in bytes.
pub const HEADER: usize = 100;

/// The fields of a header that decide how pages can be exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// In bytes.
    pub page_size: u32,
    /// A program that finds another cookie than before reads the schema again.
    pub schema_cookie: u32,
    /// 1 is UTF-8, 2 and 3 are UTF-16, 0 is undecided.
    pub text_encoding: u32,
    /// The page count; bytes after these pages are not part of the database. `None` if an old
    /// version of SQLite, which did not maintain it, wrote last.
    pub pages: Option<u32>,
}

impl Header {
    /// The header of a file.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or does not begin like a database.
    pub fn of(path: &Path) -> Result<Self> {
        Self::parse(&read_header(path)?).context("it has no header of a database")
    }

    /// `None` if this is not the header of a database.
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

/// Whether a database file has pages that no row is in, as its header says.
pub fn has_free_pages(path: &Path) -> bool {
    let header = read_header(path);
    header.is_ok_and(|header| Header::parse(&header).is_some() && big_endian(&header, 36) > 0)
}

fn read_header(path: &Path) -> io::Result<[u8; HEADER]> {
    let mut header = [0; HEADER];
    File::open(path)?.read_exact(&mut header)?;
    Ok(header)
}

/// Adapts the header of a new page 1 to a database that is open: keeps the live journal mode (bytes
/// 18 and 19), because programs may have its `-wal` open, and sets the page count, which old
/// versions of SQLite did not.
pub fn adapt_header(page: &mut [u8], live: &[u8], pages: u32) {
    page[18..20].copy_from_slice(&live[18..20]);
    page[28..32].copy_from_slice(&pages.to_be_bytes());
}

pub fn set_schema_cookie(page: &mut [u8], cookie: u32) {
    page[40..44].copy_from_slice(&cookie.to_be_bytes());
}

/// Clears the fields that change without a change of content: journal mode, change counter, schema
/// cookie, version-valid-for and version number.
pub fn clear_counters(header: &mut [u8]) {
    for range in [18..20, 24..28, 40..44, 92..HEADER] {
        header[range].fill(0);
    }
}

/// The pages of a closed database file. No connection of this process may have it open.
pub struct PageFile {
    file: File,
    page_size: u32,
}

impl PageFile {
    /// Opens the file for reading, and for writing if `writable`.
    pub fn open(path: &Path, page_size: u32, writable: bool) -> Result<Self> {
        let file = fs_err::OpenOptions::new().read(true).write(writable).open(path)?;
        Ok(Self { file: file.into_file(), page_size })
    }

    /// The number of pages in the file.
    ///
    /// # Errors
    ///
    /// The file's metadata cannot be read.
    pub fn count(&self) -> io::Result<u32> {
        let pages = self.file.metadata()?.len() / u64::from(self.page_size);
        Ok(u32::try_from(pages).unwrap_or(u32::MAX))
    }

    fn offset(&self, page: u32) -> u64 {
        u64::from(page - 1) * u64::from(self.page_size)
    }

    /// Reads a page into `buffer`; returns false if the file ends before its end.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn read(&self, page: u32, buffer: &mut Vec<u8>) -> io::Result<bool> {
        buffer.resize(self.page_size as usize, 0);
        filled(self.file.read_exact_at(buffer, self.offset(page)))
    }

    pub fn write(&self, page: u32, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, self.offset(page))
    }

    /// Truncates or extends the file to `pages` pages.
    ///
    /// # Errors
    ///
    /// The file cannot be resized.
    pub fn truncate(&self, pages: u32) -> io::Result<()> {
        self.file.set_len(self.offset(pages + 1))
    }

    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

/// Whether this is the page without data, on which SQLite places its file locks.
pub fn is_lock_page(page: u32, page_size: u32) -> bool {
    page == (1 << 30) / page_size + 1
}

/// The page count of a database in the connection's transaction.
///
/// # Errors
///
/// SQLite cannot read the header.
pub fn count(db: &Connection) -> Result<u32> {
    Ok(db.pragma_query_value(None, "page_count", |row| row.get(0))?)
}

/// Calls `each` for every page of an open database, in order.
///
/// # Errors
///
/// SQLite cannot read a page, or `each` fails.
pub fn for_each(db: &Connection, mut each: impl FnMut(u32, &[u8]) -> Result<()>) -> Result<()> {
    let mut statement = prepare(db, "SELECT pgno, data FROM sqlite_dbpage")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        each(row.get(0)?, row.get_ref(1)?.as_bytes()?)?;
    }
    Ok(())
}

/// A page of an open database; `None` after its end.
///
/// # Errors
///
/// SQLite cannot read the page.
pub fn read(db: &Connection, page: u32) -> Result<Option<Vec<u8>>> {
    let mut statement = prepare(db, "SELECT data FROM sqlite_dbpage WHERE pgno = ?1")?;
    Ok(statement.query_row([page], |row| row.get(0)).optional()?)
}

/// Writes a page in the connection's transaction.
///
/// # Errors
///
/// SQLite cannot write the page.
pub fn write(db: &Connection, page: u32, data: &[u8]) -> Result<()> {
    prepare(db, "INSERT INTO sqlite_dbpage (pgno, data) VALUES (?1, ?2)")?.execute((page, data))?;
    Ok(())
}

/// Truncates the database to `pages` pages, when the transaction commits. A page that is written
/// after this call is lost.
///
/// # Errors
///
/// SQLite cannot truncate it.
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

/// The pages in a `-wal`, of committed and other transactions. The read disturbs no program: SQLite
/// locks other files.
///
/// # Errors
///
/// The file cannot be read.
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
        // Frames with other salts are from before the last reset.
        while filled(wal.read_exact(&mut frame))? && frame[8..16] == *salts {
            pages.insert(big_endian(&frame, 0));
            wal.seek_relative(page_size.into())?;
        }
        Ok(pages)
    };
    read().with_context(|| format!("cannot read {}", path.display()))
}

/// Whether the buffer was filled.
fn filled(read: io::Result<()>) -> io::Result<bool> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        outcome => outcome.map(|()| true),
    }
}

/// Whether two closed files have the same pages, ignoring the header's counters and journal mode.
///
/// # Errors
///
/// A file cannot be read.
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
