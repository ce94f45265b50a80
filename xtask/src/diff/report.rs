//! What is printed of a comparison.

use serde::Serialize;
use serde_json::{Map, Value};

use anyhow::Result;
use rusqlite::Row;

use super::rows::Pair;
use super::schema::{SchemaChange, Verb};
use super::values::{self, shorten};
use super::{Changes, TableChange};
use crate::error::chain;
use crate::ui::{bytes, count, on_one_line};

/// Printed with `--json`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "snapshots-diff"))]
pub struct Report {
    pub a: String,
    pub b: String,
    pub databases: Vec<Compared>,
}

/// The outcome for a database.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "ComparedDatabase"))]
pub struct Compared {
    pub name: String,
    pub status: Status,
    /// Whether a rule is meant for it that was not applied, in either set.
    pub unmasked: bool,
    #[serde(flatten)]
    pub changes: Changes,
    /// Of a database that only one set has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Status {
    Same,
    Changed,
    Added,
    Removed,
    /// It could not be compared.
    Failed,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Content {
    pub tables: usize,
    pub bytes: u64,
}

impl Compared {
    pub fn failed(name: String, unmasked: bool, error: &anyhow::Error) -> Self {
        let (changes, content) = (Changes::default(), None);
        Self {
            name,
            status: Status::Failed,
            unmasked,
            changes,
            content,
            error: Some(chain(error).join(": ")),
        }
    }
}

impl Report {
    /// The lines of a database.
    pub fn lines(&self, database: &Compared, is_summary: bool) -> Vec<String> {
        let name = on_one_line(&database.name);
        let content = database.content.as_ref().map_or_else(String::new, |content| {
            format!(" ({}, {})", count(content.tables, "table"), bytes(content.bytes))
        });
        let Changes { schema, tables } = &database.changes;
        match database.status {
            Status::Same => vec![format!("{name}: same")],
            Status::Added => vec![format!("{name}: only in {}{content}", self.b)],
            Status::Removed => vec![format!("{name}: only in {}{content}", self.a)],
            Status::Failed => vec![format!("{name}: not compared")],
            Status::Changed if is_summary => {
                vec![format!("{name}: {}", summary(&database.changes))]
            }
            Status::Changed => {
                let mut lines = Vec::new();
                if !schema.is_empty() {
                    lines.push(format!("{name}: schema"));
                    lines.extend(schema.iter().map(schema_line));
                }
                if !tables.is_empty() {
                    lines.push(format!("{name}: rows"));
                    lines.extend(table_lines(tables));
                }
                lines
            }
        }
    }
}

fn summary(changes: &Changes) -> String {
    let mut parts = Vec::new();
    if !changes.schema.is_empty() {
        parts.push(count(changes.schema.len(), "change") + " of the schema");
    }
    if !changes.tables.is_empty() {
        let mut all = TableChange::default();
        for table in &changes.tables {
            all.added += table.added;
            all.removed += table.removed;
            all.changed += table.changed;
        }
        let numbers = numbers(&all).into_iter().filter(|number| !number.is_empty());
        let numbers = numbers.fold(String::new(), |text, number| text + " " + &number);
        parts.push(format!("{}{numbers}", count(changes.tables.len(), "table")));
    }
    parts.join("; ")
}

fn sign(verb: Verb) -> char {
    match verb {
        Verb::Added => '+',
        Verb::Removed => '-',
        Verb::Changed => '~',
    }
}

fn schema_line(change: &SchemaChange) -> String {
    let SchemaChange { change: verb, kind, name, table, before, after } = change;
    let mut line = format!("{kind} {name}");
    if let Some(table) = table {
        line += &format!(" on {table}");
    }
    let declared: Vec<&str> = before.iter().chain(after).map(String::as_str).collect();
    line += &format!(" {}", declared.join(" → "));
    format!("  {} {}", sign(*verb), shorten(&on_one_line(line.trim_end()), WIDTH - 4))
}

/// The numbers of added, removed and changed rows.
fn numbers(table: &TableChange) -> [String; 3] {
    [('+', table.added), ('-', table.removed), ('~', table.changed)]
        .map(|(sign, rows)| if rows == 0 { String::new() } else { format!("{sign}{rows}") })
}

/// A line per table, with its numbers in columns.
fn table_lines(tables: &[TableChange]) -> Vec<String> {
    let name = |table: &TableChange| shorten(&on_one_line(&table.name), 40);
    let widest = tables.iter().map(|table| name(table).chars().count()).max().unwrap_or(0);
    let widths =
        [0, 1, 2].map(|i| tables.iter().map(|table| numbers(table)[i].len()).max().unwrap_or(0));
    let line = |table: &TableChange| {
        let mut line = format!("  {:<widest$}", name(table));
        for (number, width) in numbers(table).iter().zip(widths).filter(|(_, width)| *width > 0) {
            line += &format!("  {number:>width$}");
        }
        match table.note {
            Some(note) => format!("  {:<widest$}  {note}", name(table)),
            None => line.trim_end().to_owned(),
        }
    };
    tables.iter().map(line).collect()
}

/// The columns of a terminal that wide enough lines are made for.
const WIDTH: usize = 80;

/// What is shown of rows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    Values,
    /// Keys and the names of changed columns.
    Names,
    /// Also no key that may be secret.
    Masked,
}

/// A row that differs.
pub struct RowChange<'a> {
    pub pair: &'a Pair,
    pub verb: Verb,
    pub before: Option<&'a Row<'a>>,
    pub after: Option<&'a Row<'a>>,
    pub shown: Shown,
}

impl RowChange<'_> {
    /// The name and value of each part of the key; `rowid` if no column is one.
    fn key(&self) -> Result<Vec<(&str, rusqlite::types::ValueRef<'_>)>> {
        use rusqlite::types::ValueRef::Integer;

        let Some(row) = self.before.or(self.after) else { return Ok(Vec::new()) };
        let part = |i: &usize| Ok((self.pair.columns[0][*i].as_str(), row.get_ref(i + 1)?));
        let key = self.pair.key.iter().map(part).collect::<rusqlite::Result<Vec<_>>>()?;
        let is_harmless =
            self.shown != Shown::Masked || key.iter().all(|(_, value)| matches!(value, Integer(_)));
        if !key.is_empty() && is_harmless {
            return Ok(key);
        }
        let rowid = row.get_ref(0)?;
        Ok(if matches!(rowid, Integer(_)) { vec![("rowid", rowid)] } else { Vec::new() })
    }

    /// The positions of the columns that differ.
    fn changed(&self) -> Result<Vec<usize>> {
        let (Some(x), Some(y)) = (self.before, self.after) else { return Ok(Vec::new()) };
        let mut changed = Vec::new();
        for i in 0..self.pair.common {
            if x.get_ref(i + 1)? != y.get_ref(i + 1)? {
                changed.push(i);
            }
        }
        Ok(changed)
    }

    /// The row as text of one line or more.
    ///
    /// # Errors
    ///
    /// SQLite cannot convert a value.
    pub fn text(&self) -> Result<String> {
        let key = self.key()?;
        let part = |(name, value): &(&str, _)| format!("{name} {}", values::text(*value, 36));
        let key: Vec<String> = key.iter().map(part).collect();
        let key = if key.is_empty() { "(its key is not shown)".to_owned() } else { key.join(", ") };
        let mut items = Vec::new();
        let changed = self.changed()?;
        for i in &changed {
            let name = &self.pair.columns[0][*i];
            let width = (WIDTH - 11).saturating_sub(name.chars().count()).max(20) / 2;
            items.push(match (self.before, self.after) {
                (Some(x), Some(y)) if self.shown == Shown::Values => {
                    format!("{name} {}", values::both(x.get_ref(i + 1)?, y.get_ref(i + 1)?, width))
                }
                _ => name.clone(),
            });
        }
        if let (true, Some((row, columns))) = (self.shown == Shown::Values, self.whole()) {
            for (i, name) in columns.iter().enumerate().filter(|(i, _)| !self.pair.key.contains(i))
            {
                items.push(format!("{name} {}", values::text(row.get_ref(i + 1)?, 24)));
            }
        }
        let is_cut = changed.is_empty();
        Ok(wrapped(&format!("  {} {key}", sign(self.verb)), &items, is_cut))
    }

    /// The only row, with the names of its columns.
    fn whole(&self) -> Option<(&Row<'_>, &[String])> {
        match (self.before, self.after) {
            (Some(row), None) => Some((row, &self.pair.columns[0])),
            (None, Some(row)) => Some((row, &self.pair.columns[1])),
            _ => None,
        }
    }

    /// The row as JSON.
    ///
    /// # Errors
    ///
    /// SQLite cannot convert a value.
    pub fn json(&self, database: &str) -> Result<Value> {
        let key = self.key()?.into_iter();
        let key = key.map(|(name, value)| (name.to_owned(), values::to_json(value))).collect();
        let changed = self.changed()?;
        let side = |row: Option<&Row<'_>>, columns: &[String]| {
            let Some(row) = row.filter(|_| self.shown == Shown::Values) else { return Ok(None) };
            let columns = columns.iter().enumerate();
            let shown = columns.filter(|(i, _)| changed.is_empty() || changed.contains(i));
            let values =
                shown.map(|(i, name)| Ok((name.clone(), values::to_json(row.get_ref(i + 1)?))));
            values.collect::<Result<_>>().map(Some)
        };
        Ok(serde_json::to_value(ChangedRow {
            database,
            change: self.verb,
            key,
            columns: changed.iter().map(|i| self.pair.columns[0][*i].as_str()).collect(),
            before: side(self.before, &self.pair.columns[0])?,
            after: side(self.after, &self.pair.columns[1])?,
        })?)
    }
}

/// A row that differs, as JSON. A blob is `{"blob": "<hex>"}`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ChangedRow<'a> {
    database: &'a str,
    change: Verb,
    /// The columns of the key, or `rowid`.
    key: Map<String, Value>,
    /// The columns that differ; none of an added or removed row.
    columns: Vec<&'a str>,
    /// Of a changed row, the columns that differ; else all.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Map<String, Value>>,
}

/// Items after a head, on as many lines as they need, or on one that is cut.
fn wrapped(head: &str, items: &[String], is_cut: bool) -> String {
    let mut text = on_one_line(head);
    let mut width = text.chars().count();
    for (i, item) in items.iter().enumerate() {
        let item = on_one_line(item);
        let length = item.chars().count() + 2;
        let separator = if i == 0 { ":" } else { "," };
        if width + length <= WIDTH {
            text += &format!("{separator} {item}");
            width += length;
        } else if is_cut {
            return text + if i == 0 { ": …" } else { ", …" };
        } else {
            text += &format!("{separator}\n      {item}");
            width = 4 + length;
        }
    }
    text
}
