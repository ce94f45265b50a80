//! The database that fixtures are cut from: the pull requests of many
//! organizations, the same at every run.

use std::fs::File;
use std::path::Path;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use rusqlite::{Connection, named_params};

use crate::durable;
use crate::snapshots::{Database, Kind, LockedStore, Meta, Origin, Snapshot};
use crate::sqlite;
use crate::ui::{Ui, bytes};

/// Counts the changes of this file that make another database of it.
pub const VERSION: u32 = 1;

/// The name of the database in its snapshot.
pub const NAME: &str = "source.db";

/// All tables, and how many rows of each belong to one organization.
pub const TABLES: [(&str, u32); 10] = [
    ("organizations", 1),
    ("users", 10),
    ("repositories", 3),
    ("labels", 12),
    ("pull_requests", 36),
    ("pull_request_labels", 54),
    ("reviews", 72),
    ("comments", 144),
    ("reactions", 72),
    ("events", 96),
];

/// All rows of an organization.
pub const ROWS_OF_ONE: u32 = 500;

/// References are four deep, without `events` and `reactions`; four of them have no index.
const SCHEMA: &str = "
CREATE TABLE organizations (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, plan TEXT NOT NULL);
CREATE TABLE users (
    id INTEGER PRIMARY KEY, organization_id INTEGER NOT NULL REFERENCES organizations,
    login TEXT NOT NULL, email TEXT NOT NULL, bio TEXT);
CREATE TABLE repositories (
    id INTEGER PRIMARY KEY, organization_id INTEGER NOT NULL REFERENCES organizations (id),
    name TEXT NOT NULL, description TEXT);
CREATE TABLE labels (
    id INTEGER PRIMARY KEY, repository_id INTEGER NOT NULL REFERENCES repositories (id),
    name TEXT NOT NULL);
CREATE TABLE pull_requests (
    id INTEGER PRIMARY KEY, repository_id INTEGER NOT NULL REFERENCES repositories (id),
    author_id INTEGER NOT NULL REFERENCES users (id), number INTEGER NOT NULL,
    title TEXT NOT NULL, body TEXT NOT NULL, created_at INTEGER NOT NULL);
CREATE TABLE pull_request_labels (
    pull_request_id INTEGER NOT NULL REFERENCES pull_requests (id),
    label_id INTEGER NOT NULL REFERENCES labels (id),
    PRIMARY KEY (pull_request_id, label_id)) WITHOUT ROWID;
CREATE TABLE reviews (
    id INTEGER PRIMARY KEY, pull_request_id INTEGER NOT NULL REFERENCES pull_requests (id),
    reviewer_id INTEGER NOT NULL REFERENCES users (id), state TEXT NOT NULL, body TEXT);
CREATE TABLE comments (
    id INTEGER PRIMARY KEY, review_id INTEGER NOT NULL REFERENCES reviews (id),
    author_id INTEGER NOT NULL REFERENCES users (id), parent_id INTEGER REFERENCES comments (id),
    body TEXT NOT NULL, created_at INTEGER NOT NULL);
CREATE TABLE reactions (
    id INTEGER PRIMARY KEY, comment_id INTEGER NOT NULL REFERENCES comments (id),
    user_id INTEGER NOT NULL REFERENCES users (id), emoji TEXT NOT NULL);
CREATE TABLE events (
    id INTEGER PRIMARY KEY, pull_request_id INTEGER NOT NULL REFERENCES pull_requests (id),
    actor_id INTEGER NOT NULL REFERENCES users (id), kind TEXT NOT NULL, at INTEGER NOT NULL);
";

/// Made when the rows are there, which is faster.
const INDEXES: &str = "
CREATE INDEX users_organization ON users (organization_id);
CREATE INDEX repositories_organization ON repositories (organization_id);
CREATE INDEX labels_repository ON labels (repository_id);
CREATE INDEX pull_requests_repository ON pull_requests (repository_id, number);
CREATE INDEX pull_requests_author ON pull_requests (author_id);
CREATE INDEX reviews_pull_request ON reviews (pull_request_id);
CREATE INDEX reviews_reviewer ON reviews (reviewer_id);
CREATE INDEX comments_review ON comments (review_id);
CREATE INDEX reactions_comment ON reactions (comment_id);
CREATE INDEX reactions_user ON reactions (user_id);
CREATE INDEX events_pull_request ON events (pull_request_id);
CREATE VIRTUAL TABLE titles USING fts5 (title, content = 'pull_requests', content_rowid = 'id');
INSERT INTO titles (titles) VALUES ('rebuild');
";

/// Row `i`, from 0, is the one numbered `k` of organization `o`: the rows of one
/// lie scattered over each table, as those that come in over the years do. The
/// id of the row numbered `n` of the same organization is `n * :all + o + 1`.
const ROWS: &str = "WITH n(i) AS (VALUES (0) UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :rows),
    r AS (SELECT i, i + 1 AS id, i % :all AS o, i / :all AS k FROM n)
    SELECT ";

/// What is selected into each of [`TABLES`]. Comments are threads of four, each
/// one an answer to the one before.
const COLUMNS: [&str; 10] = [
    "id, 'organization ' || id, iif(o % 7, 'free', 'paid')",
    "id, o + 1, 'user' || id, 'user' || id || '@example.com', substr(:text, i % 700, i % 90)",
    "id, o + 1, 'repository-' || id, substr(:text, i % 500, 80)",
    "id, k % 3 * :all + o + 1, substr(:text, 10 * k, 9)",
    "id, k % 3 * :all + o + 1, k % 10 * :all + o + 1, k / 3 + 1,
     substr(:text, i * 13 % 700, 20 + i % 40), substr(:text, i * 29 % 600, 80 + i * 7 % 300),
     1700000000 + i * 61",
    "k % 36 * :all + o + 1, (k % 3 + (k / 36 + k) % 4 * 3) * :all + o + 1",
    "id, k % 36 * :all + o + 1, (k + k / 36 + 1) % 10 * :all + o + 1,
     iif(k % 3, 'approved', 'changes requested'), substr(:text, i * 17 % 700, i * 11 % 110)",
    "id, k / 4 * 2 * :all + o + 1, k * 7 % 10 * :all + o + 1, iif(k % 4, id - :all, NULL),
     substr(:text, i * 31 % 600, 60 + i * 19 % 240), 1700000000 + i * 17",
    "id, k * 2 * :all + o + 1, k * 3 % 10 * :all + o + 1, iif(k % 2, '👍', '🎉')",
    "id, k % 36 * :all + o + 1, k % 10 * :all + o + 1,
     substr('opened  pushed  reviewedmerged', k % 4 * 8 + 1, 8), 1700000000 + i * 23",
];

const WORDS: [&str; 12] = [
    "the cache of pull requests is read",
    "once a day, and then",
    "données",
    "replace the index with one that has both columns;",
    "what if two of them come at the same moment?",
    "東京",
    "I would rather not, since",
    "a reader has to know it from elsewhere",
    "(see above)",
    "tests pass here",
    "please say why in a comment",
    "and rebase",
];

/// The newest sound snapshot that an earlier run made; else a new one.
///
/// # Errors
///
/// It cannot be made.
pub fn prepare(ui: &Ui, store: &LockedStore, rows: u32, fresh: bool) -> Result<Snapshot> {
    for old in store.list()? {
        if !fresh && old.defect.is_none() {
            return Ok(old);
        }
        store.remove(&old)?;
    }
    ui.status("Making", format!("a source with {rows} rows in {}", store.dir.display()));
    let incoming = store.begin()?;
    let path = incoming.path().join(NAME);
    generate(&path, rows).with_context(|| format!("cannot make {}", path.display()))?;
    let origin = Origin {
        app: Some("bench".to_owned()),
        source: None,
        flags: Vec::new(),
        machine: None,
        region: None,
        sanitize_rules: None,
        seconds: 0.0,
        wire_bytes: 0,
    };
    let snapshot = incoming.commit(Meta {
        version: 1,
        kind: Kind::Pull,
        time: Timestamp::now(),
        origin: Some(origin),
        git_commit: None,
        only: None,
        databases: vec![describe(&path)?],
    })?;
    ui.status("Made", format!("{NAME} ({})", bytes(snapshot.bytes())));
    Ok(snapshot)
}

fn describe(path: &Path) -> Result<Database> {
    let found = sqlite::describe(path)?;
    Ok(Database {
        name: NAME.to_owned(),
        bytes: path.metadata()?.len(),
        sha256: Some(durable::sha256(path)?),
        page_size: found.page_size,
        user_version: found.user_version,
        schema: found.schema,
        damaged: false,
    })
}

/// Writes the new file `path` with `rows` rows, rounded to whole organizations.
fn generate(path: &Path, rows: u32) -> Result<()> {
    drop(durable::create(path)?);
    let mut db = sqlite::open_existing(path)?;
    // Nothing is lost with a file that is thrown away when its making fails.
    db.execute_batch(
        "PRAGMA page_size = 4096; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
         PRAGMA foreign_keys = OFF; PRAGMA locking_mode = EXCLUSIVE; PRAGMA cache_size = -64000",
    )?;
    let transaction = db.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    fill(&transaction, rows / ROWS_OF_ONE)?;
    transaction.execute_batch(INDEXES)?;
    transaction.commit()?;
    drop(db);
    File::open(path)?.sync_all()?;
    Ok(())
}

fn fill(db: &Connection, organizations: u32) -> Result<()> {
    let text = WORDS.join(" ").repeat(3);
    for ((table, rows), columns) in TABLES.into_iter().zip(COLUMNS) {
        let sql = format!("INSERT INTO {table} {ROWS} {columns} FROM r");
        let mut insert = db.prepare(&sql)?;
        let rows = rows * organizations;
        // Not every table needs each of them.
        for (name, value) in named_params! { ":rows": rows, ":all": organizations, ":text": text } {
            if let Some(i) = insert.parameter_index(name)? {
                insert.raw_bind_parameter(i, value)?;
            }
        }
        insert.raw_execute().with_context(|| format!("rows of {table}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_same_each_time_and_nothing_refers_to_what_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let made = ["a.db", "b.db"].map(|name| {
            let path = dir.path().join(name);
            generate(&path, 2_600).unwrap();
            path
        });
        assert_eq!(durable::sha256(&made[0]).unwrap(), durable::sha256(&made[1]).unwrap());
        sqlite::check(&made[0]).unwrap();
        let db = sqlite::open_closed(&made[0]).unwrap();
        let number =
            |sql: &str| -> i64 { db.query_row(sql, [], |row| row.get(0)).expect("a number") };
        assert_eq!(number("SELECT count(*) FROM pragma_foreign_key_check"), 0);
        assert_eq!(number("SELECT count(*) FROM titles WHERE titles MATCH 'cache'").min(1), 1);
        let mut sum = 0;
        for (table, rows) in TABLES {
            assert_eq!(number(&format!("SELECT count(*) FROM {table}")), i64::from(rows * 5));
            sum += rows;
        }
        assert_eq!(sum, ROWS_OF_ONE);
        // Also what has no index: else a cut could leave it out unnoticed.
        for column in ["parent_id", "author_id"] {
            let used = format!("SELECT count(DISTINCT {column}) FROM comments");
            assert!(number(&used) >= 50, "{column}");
        }
    }
}
