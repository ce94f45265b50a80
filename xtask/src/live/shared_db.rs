//! A database that programs have open, changed page by page through SQLite: at
//! their next query they see the new one, whole.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rusqlite::Connection;

use crate::error::Failure;
use crate::pages::{self, HEADER, Header, PageFile};
use crate::sqlite::sidecar;
use crate::{interrupt, sqlite};

/// How far the schema cookie is set above that of the old one. Programs
/// notice that by; and by it the next command sees whether the transaction of a
/// killed run was committed, even if a program has changed its schema since.
const COOKIE_LEAP: u32 = 1 << 20;

/// How often a lock is tried for while those of other databases are kept.
const POLLS: i32 = 200;
const POLL: Duration = Duration::from_millis(1);

/// How the new content gets in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The pages that differ, in one transaction.
    Pages,
    /// All of it through the backup API, which alone changes the page size; it
    /// cannot in WAL mode.
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
                Err(refused("the new one has another text encoding"))
            }
            Some(old) if old.page_size == new.page_size => Ok(Self::Pages),
            _ if wal => Err(refused("the new one has another page size")),
            _ => Ok(Self::Backup),
        }
    }
}

pub(super) struct SharedDb {
    pub programs: Vec<String>,
    way: Way,
    wal: bool,
    path: PathBuf,
    /// What is to be in place.
    staged: PageFile,
    staged_path: PathBuf,
    new: Header,
    /// Of each page of `staged` whether the live database has another.
    differs: Vec<bool>,
    /// Reads what was live at one moment. In WAL mode it does so to the end: as
    /// long as it does, the `-wal` has every page that others change.
    pub reader: Connection,
    writer: Connection,
    /// Of the writer, not after the reader's moment.
    version: i64,
}

impl SharedDb {
    /// Opens `path`, which is to become what is `staged`, while programs go on.
    ///
    /// # Errors
    ///
    /// It can only be replaced when they are stopped; `refused` says so.
    pub fn new(
        path: &Path,
        staged: &Path,
        wait: Duration,
        refused: &dyn Fn(&str) -> Failure,
    ) -> Result<Self> {
        let new = header(staged)?.ok_or_else(|| refused("the new one is empty"))?;
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
            // Only what its header counts: what may follow is no part of it.
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

    /// Finds the pages that differ from what is staged.
    ///
    /// # Errors
    ///
    /// Those of reading.
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

    /// In a rollback mode a reader keeps writers from committing.
    pub fn end_read_transactions(&self) -> rusqlite::Result<()> {
        if self.wal || self.reader.is_autocommit() {
            return Ok(());
        }
        self.reader.execute_batch("COMMIT")
    }

    /// Locks it for everyone who writes, and in a rollback mode reads; waits for a
    /// moment if `patient`.
    ///
    /// # Errors
    ///
    /// A transaction of a program has not ended by then.
    pub fn lock(&mut self, patient: bool) -> rusqlite::Result<()> {
        // More often than SQLite would: a program that writes without a pause
        // leaves short gaps.
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

    /// Looks again at what programs have written between the reader's moment and
    /// the lock; whether there was something that `saved` did not have, and has now.
    pub fn catch_up(&mut self, saved: Option<&PageFile>) -> Result<bool> {
        let live = pages::count(&self.writer)?;
        let touched: Box<dyn Iterator<Item = u32>> = if self.wal {
            // Beside the file itself, where `path` is a link to it.
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

    /// Writes the pages that differ, for no one to see before [`commit`](Self::commit).
    pub fn write(&mut self) -> Result<()> {
        let (live, new) = (pages::count(&self.writer)?, self.differs.len() as u32);
        if live == new && !self.differs.contains(&true) {
            return Ok(());
        }
        let old = pages::read(&self.writer, 1)?.unwrap_or_default();
        let old_cookie = Header::parse(&old).map_or(0, |old| old.schema_cookie);
        let cookie = match self.way {
            Way::Pages => old_cookie.wrapping_add(COOKIE_LEAP),
            // That of the backup API.
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
        // At the commit, a connection that knows of `auto_vacuum = FULL` would move
        // pages by the old numbers.
        self.writer.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
        let mut buffer = Vec::new();
        for (number, differs) in (1..).zip(&self.differs) {
            if number > 1 && *differs && !pages::is_lock_page(number, self.new.page_size) {
                interrupt::check()?;
                self.staged.read(number, &mut buffer)?;
                pages::write(&self.writer, number, &buffer)?;
            }
        }
        // Last: with it the schema changes. At the next statement this connection
        // would read it, and take the old number of pages for true; so its cookie follows.
        pages::set_schema_cookie(&mut page, old_cookie);
        pages::write(&self.writer, 1, &page)?;
        if live > new {
            pages::truncate(&self.writer, new)?;
        }
        // It takes a signed number.
        self.writer.pragma_update(None, "schema_version", cookie.cast_signed())?;
        Ok(())
    }

    /// From now on everyone sees the new one. In WAL mode it is in the `-wal`, for
    /// [`checkpoint`] of what is returned to take from there.
    pub fn commit(self) -> Result<Connection> {
        let Self { way, staged_path, reader, mut writer, .. } = self;
        drop(reader);
        match way {
            Way::Pages => writer.execute_batch("COMMIT")?,
            Way::Backup => {
                // The lock is kept beyond the end of its transaction.
                writer.execute_batch("PRAGMA locking_mode = EXCLUSIVE; COMMIT")?;
                let source = sqlite::open_closed(&staged_path)?;
                sqlite::copy_into(&source, &mut writer, || Ok(()))?;
            }
        }
        Ok(writer)
    }
}

/// One that reads what is live now, and one that is going to write, with its
/// version not after that.
fn connect(path: &Path, wait: Duration) -> rusqlite::Result<(Connection, Connection, i64)> {
    let (reader, writer) = (sqlite::open_existing(path)?, sqlite::open_existing(path)?);
    for db in [&reader, &writer] {
        db.busy_timeout(wait.min(POLL * POLLS as u32))?;
        sqlite::distrust_schema(db)?;
    }
    // The pages that wait for the commit are on the disk by then, not in memory.
    writer.execute_batch("PRAGMA cache_size = 100; PRAGMA synchronous = FULL")?;
    // Asked first: while the reader reads, a program that is about to commit
    // lets no other one begin.
    let version = sqlite::data_version(&writer)?;
    reader.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema")?;
    Ok((reader, writer, version))
}

/// So that the `-wal` does not stay as large as what was written; another one's
/// reader may still need it.
pub(super) fn checkpoint(writer: &Connection) -> rusqlite::Result<()> {
    writer.busy_timeout(Duration::ZERO)?;
    writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

/// Whether a closed file has this page, but for the counters of its header.
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

/// The header of a closed file; none of an empty one.
fn header(path: &Path) -> Result<Option<Header>> {
    let mut page = Vec::new();
    let read = PageFile::open(path, HEADER as u32, false)?.read(1, &mut page);
    let read = read.with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Header::parse(&page).filter(|_| read))
}

/// Whether what is staged for `path` has been committed there by a run that was
/// killed right after. What is damaged is replaced in any case.
///
/// # Errors
///
/// One of them cannot be read, or a program has it locked for longer than `wait`:
/// to take that for a no would replace what was written since.
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
