//! A production of three databases, in its current state and that of the next day; the same in
//! every run.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use rusqlite::{CachedStatement, Connection};
use serde::Serialize;
use xtask_db::internals::random::Sequence;
use xtask_db::internals::ui::{Ui, bytes};
use xtask_db::internals::{durable, interrupt, pages, sqlite};

/// Increased when a change of this file changes the databases.
pub const VERSION: u32 = 1;

/// The databases, the largest last, each with its part of the total size in percent.
pub const DATABASES: [(&str, u64); 3] =
    [("shared.db", 8), ("tenant_small.db", 27), ("tenant_large.db", 65)];

/// Text, an index in random order and one in order of time, and a full-text index that triggers
/// maintain.
const SCHEMA: &str = "
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

const INSERT: &str = "INSERT INTO documents (key, author, title, body, created_at, updated_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?5)";
const UPDATE: &str = "UPDATE documents SET body = ?2, updated_at = ?3 WHERE id = ?1";

/// Rows per transaction for the initial state. In the day, each row has its own transaction.
const AT_ONCE: u64 = 100;

/// A directory with both states of production, one of which is deployed at a time.
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
                make(&making, seed, name, size * percent / 100)
                    .with_context(|| format!("cannot make {name}"))?;
            }
            durable::rename(&making, &states)?;
        }
        let database = |(name, _)| {
            let path = states.join("after").join(name);
            let rows = sqlite::open_closed(&path)?.query_row(
                "SELECT max(id) FROM documents",
                [],
                |row| row.get::<_, i64>(0),
            )?;
            anyhow::Ok(Database { name, rows: rows.cast_unsigned(), bytes: path.metadata()?.len() })
        };
        let databases = DATABASES.into_iter().map(database).collect::<Result<_>>()?;
        Ok(Self { dir: dir.to_owned(), databases })
    }

    /// The directory to pull from.
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

    /// Verifies that `dir` has the content of production.
    pub fn check(&self, dir: &Path) -> Result<()> {
        for (name, _) in DATABASES {
            if !pages::same_content(&self.production().join(name), &dir.join(name))? {
                bail!("{} is not what production has", dir.join(name).display());
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

/// Writes the database `name` of `size` bytes into `dir/before`, and its next day into `dir/after`.
fn make(dir: &Path, seed: u64, name: &str, size: u64) -> Result<()> {
    let [before, after] = ["before", "after"].map(|state| dir.join(state));
    for dir in [&before, &after] {
        std::fs::create_dir_all(dir)?;
    }
    let mut author = Author::new(seed);
    let rows = build(&before.join(name), true, |db| {
        let mut rows = 0;
        let mut insert = db.prepare_cached(INSERT)?;
        let pages = |db: &Connection| db.pragma_query_value(None, "page_count", |row| row.get(0));
        while pages(db).map(|n: i64| n.cast_unsigned() * 4096)? < size {
            interrupt::check()?;
            db.execute_batch("BEGIN")?;
            for _ in 0..AT_ONCE {
                rows += 1;
                author.insert(&mut insert, rows)?;
            }
            db.execute_batch("COMMIT")?;
        }
        Ok(rows)
    })?;
    std::fs::copy(before.join(name), after.join(name))?;
    build(&after.join(name), false, |db| {
        let mut insert = db.prepare_cached(INSERT)?;
        let mut update = db.prepare_cached(UPDATE)?;
        // Inserts a hundredth, and updates as many of the newest fifth.
        for row in rows + 1..=rows + rows.div_ceil(100) {
            interrupt::check()?;
            author.insert(&mut insert, row)?;
            let changed = rows - author.below(rows.div_ceil(5));
            update.execute((changed.cast_signed(), author.text(30, 160), time(row)))?;
        }
        Ok(())
    })
}

/// Opens a new or closed database, writes to it as fast as possible, and leaves it in WAL mode. An
/// incomplete database is discarded, so it needs no journal.
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

/// Seconds since 1970.
fn time(row: u64) -> i64 {
    1_700_000_000 + row.cast_signed() * 61
}

/// Generates text, the same in every run, with few frequent and many rare words.
struct Author {
    random: Sequence,
    words: Vec<String>,
}

impl Author {
    fn new(seed: u64) -> Self {
        let mut author = Self { random: Sequence::new(seed), words: Vec::new() };
        const SYLLABLES: [&str; 16] = [
            "ba", "con", "de", "er", "fi", "gra", "in", "lo", "men", "no", "per", "re", "sti",
            "ta", "u", "ver",
        ];
        author.words = (0..6000)
            .map(|_| (0..=author.below(3)).map(|_| SYLLABLES[author.below(16) as usize]).collect())
            .collect();
        author
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random.number() % n
    }

    /// Text of `least` words, or more, but less than `most`.
    fn text(&mut self, least: u64, most: u64) -> String {
        let mut text = String::new();
        for i in 0..least + self.below(most - least) {
            if i > 0 {
                text += if self.below(12) == 0 { ". " } else { " " };
            }
            // A product of three uniform numbers makes the first words frequent.
            let n = self.words.len() as u64;
            let (x, y, z) = (self.below(n), self.below(n), self.below(n));
            text += &self.words[(x * y / n * z / n) as usize];
        }
        text
    }

    fn insert(&mut self, insert: &mut CachedStatement<'_>, row: u64) -> Result<()> {
        let key = format!("{:016x}{:08x}", self.random.number(), self.random.number() as u32);
        let author = format!("user{}@example.com", self.below(500));
        let (title, body) = (self.text(3, 10), self.text(30, 160));
        insert.execute((key, author, title, body, time(row)))?;
        Ok(())
    }
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
            Source::prepare(&ui, &dir, 1_000_000, false).unwrap()
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
            assert!(size >= percent * 10_000 && size < percent * 10_000 + 200_000, "{size}");
            assert_eq!(made[0].databases[i].name, name);
            assert!(made[0].databases[i].rows > AT_ONCE);
            sum += size;
        }
        assert!(sum < 1_400_000, "{sum}");

        made[0].deploy(&made[0].state("after")).unwrap();
        made[0].check(&made[0].state("after")).unwrap();
        made[0].check(&made[0].state("before")).unwrap_err();
    }
}
