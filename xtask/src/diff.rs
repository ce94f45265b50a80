//! The difference between two databases: of their schemas and of their rows, without reading the
//! rows of pages that are the same in both.

mod btree;
pub mod report;
mod rows;
mod scan;
mod schema;
pub mod sides;
mod source;
mod values;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use rusqlite::Row;
use serde::Serialize;

pub use self::rows::Pair;
use self::scan::Scan;
use self::schema::{Kind, Schema, Table, has_same_records};
pub use self::schema::{SchemaChange, Verb};
pub use self::source::Source;
use crate::sql::identifier;

/// How the second of two databases differs from the first.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Changes {
    pub schema: Vec<SchemaChange>,
    pub tables: Vec<TableChange>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.schema.is_empty() && self.tables.is_empty()
    }
}

/// How many rows of a table differ.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TableChange {
    pub name: String,
    pub added: u64,
    pub removed: u64,
    pub changed: u64,
    /// Said instead of the numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
}

impl TableChange {
    fn noted(name: &str, note: &'static str) -> Self {
        Self { name: name.to_owned(), note: Some(note), ..Self::default() }
    }

    fn is_empty(&self) -> bool {
        self.added + self.removed + self.changed == 0 && self.note.is_none()
    }

    fn add(&mut self, verb: Verb, rows: u64) {
        let count = match verb {
            Verb::Added => &mut self.added,
            Verb::Removed => &mut self.removed,
            Verb::Changed => &mut self.changed,
        };
        *count += rows;
    }
}

/// Called for each row that differs.
pub type EachRow<'a> =
    dyn FnMut(&Pair, Verb, Option<&Row<'_>>, Option<&Row<'_>>) -> Result<()> + 'a;

/// Compares two databases; with `only`, one of their tables.
///
/// # Errors
///
/// A database is damaged, or this process was asked to end.
pub fn compare(
    a: &Source,
    b: &Source,
    only: Option<&str>,
    each: &mut EachRow<'_>,
) -> Result<Changes> {
    let differs = a.is_like(b).then(|| source::differing(a, b)).transpose()?;
    if differs.as_ref().is_some_and(|differs| !differs.contains(&true)) {
        return Ok(Changes::default());
    }
    let (in_a, in_b) = (Schema::read(&a.db)?, Schema::read(&b.db)?);
    let scans = match differs {
        Some(differs) => scans(a, b, &differs, &in_a, &in_b)?,
        None => BTreeMap::new(),
    };
    let both = Both { a, b, in_a, in_b, scans };
    let schema = schema::changes(&both.in_a, &both.in_b);
    Ok(Changes {
        schema: if only.is_none() { schema } else { Vec::new() },
        tables: both.tables(only, each)?,
    })
}

/// The names of the tables, without those in which virtual ones have their data.
///
/// # Errors
///
/// The schema cannot be read.
pub fn tables(source: &Source) -> Result<Vec<String>> {
    let tables = Schema::read(&source.db)?.tables.into_iter();
    Ok(tables.filter(|table| !table.is_shadow()).map(|table| table.name).collect())
}

/// What to compare of the tables of the first database.
fn scans(
    a: &Source,
    b: &Source,
    differs: &[bool],
    in_a: &Schema,
    in_b: &Schema,
) -> Result<BTreeMap<String, Scan>> {
    // The schema is a table too, of which no row is looked at here.
    let mut roots = vec![(1, 1)];
    roots.extend(
        in_a.roots.iter().map(|(id, root)| (*root, in_b.roots.get(id).copied().unwrap_or(0))),
    );
    let scans = scan::scans(a, b, differs, &roots)?.into_iter().skip(1);
    let ids = in_a.roots.keys().zip(scans);
    Ok(ids
        .filter(|((kind, _), _)| kind == "table")
        .map(|((_, name), scan)| (name.clone(), scan))
        .collect())
}

struct Both<'a> {
    a: &'a Source,
    b: &'a Source,
    in_a: Schema,
    in_b: Schema,
    /// All rows are compared of a table that has none.
    scans: BTreeMap<String, Scan>,
}

impl Both<'_> {
    fn tables(&self, only: Option<&str>, each: &mut EachRow<'_>) -> Result<Vec<TableChange>> {
        let is_wanted = |name: &str| only.is_none_or(|only| only.eq_ignore_ascii_case(name));
        let mut changes = Vec::new();
        let mut indexes = BTreeSet::new();
        for x in &self.in_a.tables {
            let y = self.in_b.table(&x.name);
            let why = || format!("cannot read the table {}", x.name);
            match &x.kind {
                // One that comes or goes does so with its owner.
                Kind::Shadow(owner) if is_wanted(owner) => {
                    let Some(y) = y else { continue };
                    let change = self.rows(x, y, &mut |_, _, _, _| Ok(())).with_context(why)?;
                    indexes.extend((!change.is_empty()).then(|| owner.clone()));
                }
                Kind::Plain if is_wanted(&x.name) => changes.push(
                    match y {
                        Some(y) => self.rows(x, y, each),
                        None => count(self.a, x, Verb::Removed),
                    }
                    .with_context(why)?,
                ),
                _ => {}
            }
        }
        let new = self.in_b.tables.iter().filter(|table| self.in_a.table(&table.name).is_none());
        for table in new.filter(|table| table.kind == Kind::Plain && is_wanted(&table.name)) {
            let why = || format!("cannot read the table {}", table.name);
            changes.push(count(self.b, table, Verb::Added).with_context(why)?);
        }
        changes.extend(indexes.iter().map(|name| TableChange::noted(name, "its index differs")));
        changes.retain(|change| !change.is_empty());
        changes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(changes)
    }

    fn rows(&self, x: &Table, y: &Table, each: &mut EachRow<'_>) -> Result<TableChange> {
        let mut change = TableChange { name: y.name.clone(), ..TableChange::default() };
        let scan = self.scans.get(&x.name).filter(|_| x.name == y.name && has_same_records(x, y));
        let scan = scan.unwrap_or(&Scan::All);
        if scan.is_empty() {
            return Ok(change);
        }
        let Some(pair) = Pair::new(x, y) else {
            return Ok(TableChange::noted(
                &y.name,
                "not compared: nothing identifies its rows in both",
            ));
        };
        pair.compare(&self.a.db, &self.b.db, scan, &mut |verb, x, y| {
            change.add(verb, 1);
            each(&pair, verb, x, y)
        })?;
        Ok(change)
    }
}

/// All rows of a table that only one database has.
fn count(source: &Source, table: &Table, verb: Verb) -> Result<TableChange> {
    let sql = format!("SELECT count(*) FROM main.{}", identifier(&table.name));
    let rows: i64 = source.db.query_row(&sql, [], |row| row.get(0))?;
    let mut change = TableChange { name: table.name.clone(), ..TableChange::default() };
    change.add(verb, rows.cast_unsigned());
    Ok(change)
}

#[cfg(test)]
mod tests;
