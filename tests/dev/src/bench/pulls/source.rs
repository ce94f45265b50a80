//! A production of three databases, in its current state and that of the next day; the same in
//! every run.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use rusqlite::Connection;
use serde::Serialize;
use xtask_db::internals::ui::{Ui, bytes};
use xtask_db::internals::{durable, interrupt, pages, sqlite};

use super::author::{Author, INSERT_ACCOUNT, INSERT_DOCUMENT, UPDATE_ACCOUNT, UPDATE_DOCUMENT};

/// Counts the changes of this file and of `author.rs` that make other databases.
pub const VERSION: u32 = 2;

/// The databases, the largest last, each with its part of the total size in percent.
pub const DATABASES: [(&str, u64); 3] =
    [("shared.db", 8), ("tenant_small.db", 27), ("tenant_large.db", 65)];

/// Accounts, six columns of which rules sanitize; text, an index in random order and one in
/// that of time, and a full-text index that triggers keep.
const SCHEMA: &str = "
CREATE TABLE accounts (
    id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE, name TEXT NOT NULL, phone TEXT NOT NULL,
    api_token TEXT, password_hash TEXT NOT NULL, address TEXT NOT NULL,
    created_at INTEGER NOT NULL);
CREATE TABLE documents (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, author TEXT NOT NULL, title TEXT NOT NULL,
    body TEXT NOT NULL, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL);
CREATE UNIQUE INDEX documents_key ON documents (key);
CREATE INDEX documents_updated ON documents (updated_at);
CREATE VIRTUAL TABLE search USING fts5 (title, body, content = 'documents', content_rowid = 'id');
CREATE TRIGGER inserted AFTER INSERT ON documents BEGIN
    INSERT INTO search (rowid, title, body) VALUES (new.id, new.title, new.body);
END;
CREATE TRIGGER updated AFTER UPDATE ON documents BEGIN
    INSERT INTO search (search, rowid, title, body) VALUES ('delete', old.id, old.title, old.body);
    INSERT INTO search (rowid, title, body) VALUES (new.id, new.title, new.body);
END;
";

/// Accounts of each database of the set.
const ACCOUNTS: u64 = 238;

/// Documents of one transaction while the years pass; in a day, each has its own.
const AT_ONCE: u64 = 100;

/// How large a database is made.
#[derive(Clone, Copy)]
pub struct Extent {
    pub bytes: u64,
    pub accounts: u64,
    /// Documents of one transaction: the size is exact to that many.
    pub at_once: u64,
}

/// A directory with both states of production, of which one is there at a time.
pub struct Source {
    dir: PathBuf,
    pub databases: Vec<Database>,
}

/// A database on the next day.
#[derive(Debug, Serialize)]
pub struct Database {
    pub name: &'static str,
    pub rows: u64,
    pub bytes: u64,
}

impl Source {
    /// Makes both states below `dir`, each `size` bytes in total, unless they exist.
    pub fn prepare(ui: &Ui, dir: &Path, size: u64, fresh: bool) -> Result<Self> {
        let (states, making) = (dir.join("states"), dir.join("making"));
        for old in [fresh.then_some(&states), Some(&making)].into_iter().flatten() {
            remove(old)?;
        }
        if !states.exists() {
            ui.status("Making", format!("a production of {} in {}", bytes(size), dir.display()));
            for (seed, (name, percent)) in (1..).zip(DATABASES) {
                let bytes = size * percent / 100;
                let extent = Extent { bytes, accounts: ACCOUNTS, at_once: AT_ONCE };
                make(&making, seed, name, extent).with_context(|| format!("cannot make {name}"))?;
            }
            durable::rename(&making, &states)?;
        }
        let database = |(name, _)| {
            let path = states.join("after").join(name);
            let rows = number(&sqlite::open_closed(&path)?, "SELECT max(id) FROM documents")?;
            anyhow::Ok(Database { name, rows, bytes: path.metadata()?.len() })
        };
        let databases = DATABASES.into_iter().map(database).collect::<Result<_>>()?;
        Ok(Self { dir: dir.to_owned(), databases })
    }

    /// The size of the set after a day.
    pub fn bytes(&self) -> u64 {
        self.databases.iter().map(|database| database.bytes).sum()
    }

    /// The directory that is pulled from.
    pub fn production(&self) -> PathBuf {
        self.dir.join("production")
    }

    /// One of the states: `before` or `after`.
    pub fn state(&self, name: &str) -> PathBuf {
        self.dir.join("states").join(name)
    }

    /// Deploys the databases in `dir` as production.
    pub fn deploy(&self, dir: &Path) -> Result<()> {
        durable::remove(&self.production())?;
        std::os::unix::fs::symlink(dir, self.production())?;
        Ok(())
    }

    /// Copies the databases of a state into the new directory `to`, with yesterday's date.
    pub fn copy(&self, state: &str, to: &Path) -> Result<()> {
        remove(to)?;
        std::fs::create_dir_all(to)?;
        for (name, _) in DATABASES {
            std::fs::copy(self.state(state).join(name), to.join(name))?;
            // rsync skips files of the same size and modification time.
            let yesterday = SystemTime::now() - Duration::from_secs(86_400);
            File::options().write(true).open(to.join(name))?.set_modified(yesterday)?;
        }
        Ok(())
    }

    /// Checks that two directories have databases of the same content.
    ///
    /// # Errors
    ///
    /// They have not.
    pub fn check(&self, expected: &Path, dir: &Path) -> Result<()> {
        for Database { name, .. } in &self.databases {
            if !pages::same_content(&expected.join(name), &dir.join(name))? {
                bail!("{} is not {}", dir.join(name).display(), expected.join(name).display());
            }
        }
        Ok(())
    }
}

/// Removes a directory, if it exists.
pub fn remove(dir: &Path) -> Result<()> {
    if dir.exists() {
        std::fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    Ok(())
}

/// Writes the database `name` into `dir/before`, and what a day makes of it into `dir/after`.
fn make(dir: &Path, seed: u64, name: &str, extent: Extent) -> Result<()> {
    let [before, after] = ["before", "after"].map(|state| dir.join(state));
    for dir in [&before, &after] {
        std::fs::create_dir_all(dir)?;
    }
    create(&before.join(name), seed, extent)?;
    std::fs::copy(before.join(name), after.join(name))?;
    live_a_day(&after.join(name), seed + (1 << 32))
}

/// Writes a new database.
///
/// # Errors
///
/// It cannot be written.
pub fn create(path: &Path, seed: u64, extent: Extent) -> Result<()> {
    let mut author = Author::new(seed);
    build(path, true, |db| {
        let mut insert = db.prepare_cached(INSERT_ACCOUNT)?;
        db.execute_batch("BEGIN")?;
        for row in 1..=extent.accounts {
            author.insert_account(&mut insert, row)?;
        }
        db.execute_batch("COMMIT")?;
        let mut insert = db.prepare_cached(INSERT_DOCUMENT)?;
        let mut rows = 0;
        while number(db, "PRAGMA page_count")? * 4096 < extent.bytes {
            interrupt::check()?;
            db.execute_batch("BEGIN")?;
            for _ in 0..extent.at_once {
                rows += 1;
                author.insert_document(&mut insert, rows)?;
            }
            db.execute_batch("COMMIT")?;
        }
        Ok(())
    })
}

/// Inserts a hundredth of the rows, and updates as many of the latest fifth.
///
/// # Errors
///
/// The database cannot be written.
pub fn live_a_day(path: &Path, seed: u64) -> Result<()> {
    let mut author = Author::new(seed);
    build(path, false, |db| {
        let rows = number(db, "SELECT max(id) FROM documents")?;
        let mut insert = db.prepare_cached(INSERT_DOCUMENT)?;
        let mut update = db.prepare_cached(UPDATE_DOCUMENT)?;
        for row in rows + 1..=rows + rows.div_ceil(100) {
            interrupt::check()?;
            author.insert_document(&mut insert, row)?;
            let changed = rows - author.below(rows.div_ceil(5));
            author.update_document(&mut update, changed, row)?;
        }
        let rows = number(db, "SELECT max(id) FROM accounts")?;
        let mut insert = db.prepare_cached(INSERT_ACCOUNT)?;
        let mut update = db.prepare_cached(UPDATE_ACCOUNT)?;
        for row in rows + 1..=rows + rows.div_ceil(100) {
            author.insert_account(&mut insert, row)?;
            let changed = rows - author.below(rows.div_ceil(5));
            author.update_account(&mut update, changed)?;
        }
        Ok(())
    })
}

/// Replaces the accounts and some of the documents of a copy, so that it is another tenant's.
///
/// # Errors
///
/// The database cannot be written.
pub fn vary(path: &Path, seed: u64) -> Result<()> {
    let mut author = Author::new(seed);
    build(path, false, |db| {
        let accounts = number(db, "SELECT max(id) FROM accounts")?;
        let documents = number(db, "SELECT max(id) FROM documents")?;
        db.execute_batch("BEGIN; DELETE FROM accounts")?;
        let mut insert = db.prepare_cached(INSERT_ACCOUNT)?;
        for row in 1..=accounts {
            author.insert_account(&mut insert, row)?;
        }
        let mut update = db.prepare_cached(UPDATE_DOCUMENT)?;
        for row in (1..=documents).step_by(4) {
            author.update_document(&mut update, row, row)?;
        }
        db.execute_batch("COMMIT")?;
        Ok(())
    })
}

fn number(db: &Connection, sql: &str) -> Result<u64> {
    Ok(db.query_row(sql, [], |row| row.get::<_, i64>(0))?.cast_unsigned())
}

/// Opens a database, new or closed, lets it be written as fast as can be, and
/// leaves it in WAL mode. Nothing is lost with one whose making fails.
fn build<T>(path: &Path, new: bool, write: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    if new {
        drop(durable::create(path)?);
    }
    let db = sqlite::open_existing(path)?;
    db.execute_batch(
        "PRAGMA page_size = 4096; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
         PRAGMA locking_mode = EXCLUSIVE; PRAGMA cache_size = -100000",
    )?;
    if new {
        db.execute_batch(SCHEMA)?;
    }
    let written = write(&db)?;
    db.flush_prepared_statement_cache();
    db.close().map_err(|(_, error)| error)?;
    let db = sqlite::open_existing(path)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_same_each_time_and_a_day_changes_some_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let ui = Ui::new(true, false, false, false);
        let made = ["a", "b"].map(|name| {
            let dir = dir.path().join(name);
            Source::prepare(&ui, &dir, 3_000_000, false).unwrap()
        });
        let file = |source: &Source, state: &str, name: &str| source.state(state).join(name);
        let mut sum = 0;
        for (i, (name, percent)) in DATABASES.into_iter().enumerate() {
            for state in ["before", "after"] {
                let [a, b] = [&made[0], &made[1]].map(|source| file(source, state, name));
                assert_eq!(durable::sha256(&a).unwrap(), durable::sha256(&b).unwrap());
                sqlite::check(&a).unwrap();
                let header = std::fs::read(&a).unwrap();
                assert_eq!(header[18..20], [2, 2], "WAL mode");
            }
            let [before, after] = ["before", "after"].map(|s| file(&made[0], s, name));
            assert!(!pages::same_content(&before, &after).unwrap());
            let size = before.metadata().unwrap().len();
            assert!(size >= percent * 30_000 && size < percent * 30_000 + 200_000, "{size}");
            assert_eq!(made[0].databases[i].name, name);
            assert!(made[0].databases[i].rows > AT_ONCE);
            sum += size;
        }
        assert!(sum < 3_600_000, "{sum}");

        let [before, after] = ["before", "after"].map(|state| made[0].state(state));
        made[0].deploy(&after).unwrap();
        made[0].check(&made[0].production(), &after).unwrap();
        made[0].check(&made[0].production(), &before).unwrap_err();
    }

    #[test]
    fn tenants_differ_and_days_add_a_few_rows() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = ["a.db", "b.db"].map(|name| dir.path().join(name));
        create(&a, 1, Extent { bytes: 200_000, accounts: 24, at_once: 10 }).unwrap();
        std::fs::copy(&a, &b).unwrap();
        vary(&b, 2).unwrap();
        let rows = |path: &Path, table: &str| {
            let db = sqlite::open_closed(path).unwrap();
            let sql = format!(
                "SELECT count(*), max(CASE WHEN id = 1 THEN {} END) FROM {table}",
                if table == "accounts" { "email" } else { "body" }
            );
            db.query_row(&sql, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))
                .unwrap()
        };
        for table in ["accounts", "documents"] {
            let [one, other] = [&a, &b].map(|path| rows(path, table));
            assert_eq!(one.0, other.0);
            assert_ne!(one.1, other.1);
        }
        let before = rows(&b, "accounts").0;
        live_a_day(&b, 3).unwrap();
        live_a_day(&b, 4).unwrap();
        assert_eq!(rows(&b, "accounts").0, before + 2);
        sqlite::check(&b).unwrap();
    }
}
