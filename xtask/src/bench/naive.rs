//! What one would do without this tool: copy the whole database, delete what is
//! not wanted, and shrink the file.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use serde::Serialize;

use super::cuts::{Measured, ORGANIZATION};
use crate::{durable, sqlite};

#[derive(Debug, Serialize)]
pub struct Naive {
    pub seconds: f64,
    pub rows: u64,
    pub bytes: u64,
}

/// From the parents to the children, which only works by hand and for this schema.
const DELETE: &str = "
DELETE FROM repositories WHERE organization_id NOT IN (SELECT id FROM organizations);
DELETE FROM users WHERE organization_id NOT IN (SELECT id FROM organizations);
DELETE FROM labels WHERE repository_id NOT IN (SELECT id FROM repositories);
DELETE FROM pull_requests WHERE repository_id NOT IN (SELECT id FROM repositories);
DELETE FROM pull_request_labels WHERE pull_request_id NOT IN (SELECT id FROM pull_requests);
DELETE FROM reviews WHERE pull_request_id NOT IN (SELECT id FROM pull_requests);
DELETE FROM comments WHERE review_id NOT IN (SELECT id FROM reviews);
DELETE FROM reactions WHERE comment_id NOT IN (SELECT id FROM comments);
DELETE FROM events WHERE pull_request_id NOT IN (SELECT id FROM pull_requests);
INSERT INTO titles (titles) VALUES ('rebuild');
";

/// Makes of `source` the new file `to`, with the same rows that `cut` has.
///
/// # Errors
///
/// It fails, or comes out with other rows.
pub fn measure(source: &Path, to: &Path, cut: &Measured) -> Result<Naive> {
    durable::remove(to)?;
    let started = Instant::now();
    std::fs::copy(source, to)?;
    let db = sqlite::open_existing(to)?;
    // As fast as it can be: without a way back, and without waiting for the disk.
    db.execute_batch(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF; BEGIN",
    )?;
    db.execute("DELETE FROM organizations WHERE id <> ?1", [ORGANIZATION])?;
    db.execute_batch(DELETE)?;
    db.execute_batch("COMMIT; VACUUM")?;
    let seconds = started.elapsed().as_secs_f64();
    let mut rows = 0;
    for (table, wanted) in &cut.tables {
        let sql = format!("SELECT count(*) FROM {}", sqlite::identifier(table));
        let found = db.query_row(&sql, [], |row| row.get::<_, i64>(0))?.cast_unsigned();
        if found != *wanted {
            bail!("copying and deleting leaves {found} rows of {table}, and the cut has {wanted}");
        }
        rows += found;
    }
    drop(db);
    let bytes = to.metadata()?.len();
    durable::remove(to)?;
    Ok(Naive { seconds, rows, bytes })
}
