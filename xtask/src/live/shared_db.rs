//! A database that programs have open, changed page by page through SQLite: at their next query
//! they see all of the new data.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rusqlite::Connection;

use crate::error::Failure;
use crate::pages::{self, HEADER, Header, PageFile};
use crate::sqlite::sidecar;
use crate::{interrupt, sqlite};

/// Added to the schema cookie of the old database. Programs notice the change by it, and the next
/// command sees whether the transaction of a killed run was committed, even if a program has
/// changed the schema since.
const COOKIE_LEAP: u32 = 1 << 20;

/// How often to try for a lock while locks on other databases are held.
const POLLS: i32 = 200;
const POLL: Duration = Duration::from_millis(1);

/// How the new content is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Writes the pages that differ, in one transaction.
    Pages,
    /// Writes everything through the backup API: only this can change the page size. Not possible
    /// in WAL mode.
    Backup,
}

impl Way {
    fn of(
        old: Option<Header>,
        new: Header,
        wal: bool,
        refused: &dyn Fn(&str) -> Failure,
    ) -> Result<Self, Failure> {
        match old {
            Some(old) if old.text_encoding != new.text_encoding && old.text_encoding != 0 => {
                Err(refused("the new database has another text encoding"))
            }
            Some(old) if old.page_size == new.page_size => Ok(Self::Pages),
            _ if wal => Err(refused("the new database has another page size")),
            _ => Ok(Self::Backup),
        }
    }
}

pub(super) struct SharedDb {
    /// Empty if none is known.
    pub programs: Vec<String>,
    way: Way,
    wal: bool,
    path: PathBuf,
    /// The new content.
    staged: PageFile,
    staged_path: PathBuf,
    new: Header,
    /// For each page of `staged`, whether the live database has another one.
    differs: Vec<bool>,
    /// Reads the live database at one moment. In WAL mode it stays open to the end: as long as it
    /// does, the `-wal` is not reset and has every page that others change.
    pub reader: Connection,
    writer: Connection,
    /// The writer's data version, from before the reader's moment.
    version: i64,
}

impl SharedDb {
    /// Opens `path`, to be replaced by `staged`, while programs keep running.
    ///
    /// # Errors
    ///
    /// The programs must be stopped first; `refused` gives the reason.
    pub fn new(
        path: &Path,
        staged: &Path,
        wait: Duration,
        refused: &dyn Fn(&str) -> Failure,
    ) -> Result<Self> {
        let new = header(staged)?.ok_or_else(|| refused("the new database is empty"))?;
        let pages = PageFile::open(staged, new.page_size, true)?;
        let (reader, writer, version) = match connect(path, wait) {
            Err(error) if sqlite::is_damage(&error) => {
                return Err(error).context(refused("it is damaged"));
            }
            connected => connected?,
        };
        let mode: String = reader.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        let wal = mode == "wal";
        let old = pages::read(&reader, 1)?.and_then(|page| Header::parse(&page));
        let way = Way::of(old, new, wal, refused)?;
        Ok(Self {
            programs: Vec::new(),
            way,
            wal,
            path: path.to_owned(),
            // The page count of its header: bytes after that are not part of the database.
            differs: vec![true; pages.count()?.min(new.pages.unwrap_or(u32::MAX)) as usize],
            staged: pages,
            staged_path: staged.to_owned(),
            new,
            reader,
            writer,
            version,
        })
    }

    pub fn opened_by(self, programs: Vec<String>) -> Self {
        Self { programs, ..self }
    }

    /// Finds the pages that differ from the staged file.
    ///
    /// # Errors
    ///
    /// The database or the staged file cannot be read.
    pub fn compare(&mut self) -> Result<()> {
        if self.way == Way::Backup {
            return Ok(());
        }
        let (staged, differs) = (&self.staged, &mut self.differs);
        let mut buffer = Vec::new();
        pages::for_each(&self.reader, |page, data| {
            interrupt::check()?;
            if let Some(differs) = differs.get_mut(page as usize - 1) {
                *differs = !is_same(staged, page, data, &mut buffer)?;
            }
            Ok(())
        })
    }

    /// In a rollback mode a read transaction keeps writers from committing.
    pub fn end_read_transactions(&self) -> rusqlite::Result<()> {
        if self.wal || self.reader.is_autocommit() {
            return Ok(());
        }
        self.reader.execute_batch("COMMIT")
    }

    /// Locks it against all other writers, and in a rollback mode readers; retries for a moment if
    /// `patient`.
    ///
    /// # Errors
    ///
    /// A transaction of a program has not ended by then.
    pub fn lock(&mut self, patient: bool) -> rusqlite::Result<()> {
        // More often than SQLite's own busy handler: a program that writes continuously leaves only
        // short gaps.
        let poll = |tries| {
            std::thread::sleep(POLL);
            tries < POLLS
        };
        self.writer.busy_handler(patient.then_some(poll))?;
        self.writer.execute_batch("BEGIN EXCLUSIVE")
    }

    pub fn unlock(&self) -> rusqlite::Result<()> {
        if self.writer.is_autocommit() { Ok(()) } else { self.writer.execute_batch("ROLLBACK") }
    }

    pub fn page_size(&self) -> Result<u32> {
        Ok(self.writer.pragma_query_value(None, "page_size", |row| row.get(0))?)
    }

    /// Copies all pages, as they are now that it is locked.
    pub fn copy_to(&self, copy: &PageFile) -> Result<()> {
        pages::for_each(&self.writer, |page, data| {
            interrupt::check()?;
            Ok(copy.write(page, data)?)
        })?;
        Ok(copy.sync()?)
    }

    /// Compares again the pages that programs wrote between the reader's moment and the lock.
    /// Returns whether `saved` lacked some; they are added to it.
    pub fn catch_up(&mut self, saved: Option<&PageFile>) -> Result<bool> {
        let live = pages::count(&self.writer)?;
        let touched: Box<dyn Iterator<Item = u32>> = if self.wal {
            // The sidecars are beside the file itself, if `path` is a link.
            let wal = sidecar(&self.path.canonicalize()?, "-wal");
            Box::new(pages::in_wal(&wal)?.into_iter())
        } else if sqlite::data_version(&self.writer)? == self.version {
            Box::new(std::iter::empty())
        } else {
            Box::new(1..=live)
        };
        let (mut news, mut buffer) = (false, Vec::new());
        for page in touched {
            let Some(data) = pages::read(&self.writer, page)? else { continue };
            if let Some(saved) = saved
                && !is_same(saved, page, &data, &mut buffer)?
            {
                saved.write(page, &data)?;
                news = true;
            }
            if self.way == Way::Pages
                && let Some(differs) = self.differs.get_mut(page as usize - 1)
            {
                *differs = !is_same(&self.staged, page, &data, &mut buffer)?;
            }
        }
        let behind = self.differs.iter_mut().skip(live as usize);
        behind.for_each(|differs| *differs = true);
        if let Some(saved) = saved {
            if saved.count()? != live {
                saved.truncate(live)?;
                news = true;
            }
            if news {
                saved.sync()?;
            }
        }
        Ok(news)
    }

    /// Writes the pages that differ; not visible before [`commit`](Self::commit).
    pub fn write(&mut self) -> Result<()> {
        let (live, new) = (pages::count(&self.writer)?, self.differs.len() as u32);
        if live == new && !self.differs.contains(&true) {
            return Ok(());
        }
        let old = pages::read(&self.writer, 1)?.unwrap_or_default();
        let old_cookie = Header::parse(&old).map_or(0, |old| old.schema_cookie);
        let cookie = match self.way {
            Way::Pages => old_cookie.wrapping_add(COOKIE_LEAP),
            // The backup API sets this value.
            Way::Backup => old_cookie.wrapping_add(1),
        };
        let mut page = Vec::new();
        self.staged.read(1, &mut page)?;
        if !old.is_empty() {
            pages::adapt_header(&mut page, &old, new);
        }
        pages::set_schema_cookie(&mut page, cookie);
        self.staged.write(1, &page)?;
        self.staged.sync()?;
        if self.way == Way::Backup {
            let mode: String =
                self.writer.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
            if mode == "wal" {
                bail!("a program has just changed its journal mode; nothing was changed");
            }
            return Ok(());
        }
        // With `auto_vacuum = FULL`, this connection would move pages at the commit, by the old
        // page count.
        self.writer.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
        let mut buffer = Vec::new();
        for (number, differs) in (1..).zip(&self.differs) {
            if number > 1 && *differs && !pages::is_lock_page(number, self.new.page_size) {
                interrupt::check()?;
                self.staged.read(number, &mut buffer)?;
                pages::write(&self.writer, number, &buffer)?;
            }
        }
        // Page 1 comes last, because it changes the schema. At its next statement this connection
        // would reread the schema and use the old page count, so the cookie is changed afterwards.
        pages::set_schema_cookie(&mut page, old_cookie);
        pages::write(&self.writer, 1, &page)?;
        if live > new {
            pages::truncate(&self.writer, new)?;
        }
        // The pragma takes a signed number.
        self.writer.pragma_update(None, "schema_version", cookie.cast_signed())?;
        Ok(())
    }

    /// Makes the new content visible to all programs. In WAL mode it is in the `-wal`, for
    /// [`checkpoint`] of the returned connection.
    pub fn commit(self) -> Result<Connection> {
        let Self { way, staged_path, reader, mut writer, .. } = self;
        drop(reader);
        match way {
            Way::Pages => writer.execute_batch("COMMIT")?,
            Way::Backup => {
                // The lock must outlive the transaction.
                writer.execute_batch("PRAGMA locking_mode = EXCLUSIVE; COMMIT")?;
                let source = sqlite::open_closed(&staged_path)?;
                sqlite::copy_into(&source, &mut writer, || Ok(()))?;
            }
        }
        Ok(writer)
    }
}

/// A connection that reads the current content, and one that will write, with its data version from
/// before that moment.
fn connect(path: &Path, wait: Duration) -> rusqlite::Result<(Connection, Connection, i64)> {
    let (reader, writer) = (sqlite::open_existing(path)?, sqlite::open_existing(path)?);
    for db in [&reader, &writer] {
        db.busy_timeout(wait.min(POLL * POLLS as u32))?;
        sqlite::distrust_schema(db)?;
    }
    // Spills the uncommitted pages to disk instead of keeping them in memory.
    writer.execute_batch("PRAGMA cache_size = 100; PRAGMA synchronous = FULL")?;
    // Before the reader's transaction: while that is open, a program that is about to commit keeps
    // all others from starting one.
    let version = sqlite::data_version(&writer)?;
    reader.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema")?;
    Ok((reader, writer, version))
}

/// Truncates the `-wal`. A busy database is not an error: another process may still read the
/// `-wal`.
pub(super) fn checkpoint(writer: &Connection) -> rusqlite::Result<()> {
    writer.busy_timeout(Duration::ZERO)?;
    writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

/// Whether a closed file has this page, ignoring the counters of the header.
fn is_same(staged: &PageFile, page: u32, data: &[u8], buffer: &mut Vec<u8>) -> Result<bool> {
    if !staged.read(page, buffer)? {
        return Ok(false);
    }
    if page > 1 {
        return Ok(*buffer == *data || pages::is_lock_page(page, data.len() as u32));
    }
    let mut first = data.to_vec();
    for header in [&mut first, buffer] {
        pages::clear_counters(&mut header[..HEADER]);
    }
    Ok(first == *buffer)
}

/// The header of a closed file; `None` if it is empty.
fn header(path: &Path) -> Result<Option<Header>> {
    let mut page = Vec::new();
    let read = PageFile::open(path, HEADER as u32, false)?.read(1, &mut page);
    let read = read.with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Header::parse(&page).filter(|_| read))
}

/// Whether the staged file was already committed to `path` by a run that was killed right after. A
/// corrupt database counts as not done.
///
/// # Errors
///
/// A file cannot be read, or a program has the database locked for longer than `wait`: to assume
/// `false` would overwrite later writes.
pub(super) fn is_done(path: &Path, staged: &Path, wait: Duration) -> Result<bool> {
    let Some(new) = header(staged)?.filter(|_| path.is_file()) else { return Ok(false) };
    let read = || -> Result<_> {
        let db = sqlite::open_existing(path)?;
        db.busy_timeout(wait)?;
        sqlite::distrust_schema(&db)?;
        pages::read(&db, 1)
    };
    let page = match read() {
        Err(error) if sqlite::tells_damage(&error) => return Ok(false),
        page => page.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let Some(live) = page.and_then(|page| Header::parse(&page)) else { return Ok(false) };
    let ahead = live.schema_cookie.wrapping_sub(new.schema_cookie);
    Ok(live.page_size == new.page_size && ahead < 1 << 31)
}
