//! The schema of a database, and how it differs from another one.

use std::collections::BTreeMap;

use anyhow::Result;
use rusqlite::{Connection, Row};

use crate::sql::{self, identifier};

/// Everything that `sqlite_schema` lists, without SQLite's own tables.
pub struct Schema {
    pub tables: Vec<Table>,
    /// The root pages of all tables and indexes, SQLite's own ones included, by type and name.
    pub roots: BTreeMap<(String, String), u32>,
    objects: BTreeMap<(String, String), Object>,
    /// Pragmas that apps use as versions.
    versions: [(&'static str, i64); 2],
}

struct Object {
    table: String,
    sql: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Plain,
    Virtual,
    /// Has the data of this virtual table.
    Shadow(String),
}

pub struct Table {
    pub name: String,
    pub kind: Kind,
    pub columns: Vec<Column>,
    /// What selects the rowid; `None` if there is none, or if columns hide it.
    pub rowid: Option<String>,
    pub key: Key,
    sql: String,
}

impl Table {
    pub fn is_shadow(&self) -> bool {
        matches!(self.kind, Kind::Shadow(_))
    }
}

pub struct Column {
    pub name: String,
    /// Type and constraints.
    pub declared: String,
    pub is_generated: bool,
}

/// The columns that identify a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// An alias of the rowid.
    Integer(String),
    /// A primary key or other unique columns, each with the collation of their index.
    Columns(Vec<(String, String)>),
    None,
}

impl Schema {
    /// # Errors
    ///
    /// The schema is malformed.
    pub fn read(db: &Connection) -> Result<Self> {
        let mut statement = db.prepare(
            "SELECT type, name, tbl_name, coalesce(rootpage, 0), sql FROM sqlite_schema ORDER BY 1, 2",
        )?;
        let mut rows = statement.query([])?;
        let (mut roots, mut objects) = (BTreeMap::new(), BTreeMap::new());
        while let Some(row) = rows.next()? {
            let id: (String, String) = (row.get(0)?, row.get(1)?);
            roots.insert(id.clone(), row.get(3)?);
            if let (Some(sql), false) = (row.get(4)?, id.1.starts_with("sqlite_")) {
                objects.insert(id, Object { table: row.get(2)?, sql });
            }
        }
        roots.retain(|_, root| *root > 0);
        let tables = tables(db)?;
        objects.retain(|(_, name), object| {
            let is_shadow =
                |table: &Table| table.is_shadow() && [name, &object.table].contains(&&table.name);
            !tables.iter().any(is_shadow)
        });
        let version = |name: &'static str| {
            anyhow::Ok((name, db.pragma_query_value(None, name, |row| row.get(0))?))
        };
        let versions = [version("user_version")?, version("application_id")?];
        Ok(Self { tables, roots, objects, versions })
    }

    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name.eq_ignore_ascii_case(name))
    }
}

fn tables(db: &Connection) -> Result<Vec<Table>> {
    let mut statement = db.prepare(
        "SELECT l.name, l.type, l.wr, coalesce(s.sql, '')
           FROM pragma_table_list AS l JOIN sqlite_schema AS s ON s.name = l.name AND s.type = 'table'
          WHERE l.schema = 'main' AND l.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
    )?;
    let each = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
    let found = statement.query_map([], each)?.collect::<Result<Vec<_>, _>>()?;
    let owners: Vec<String> = found
        .iter()
        .filter(|(_, kind, ..): &&(String, String, bool, String)| kind == "virtual")
        .map(|(name, ..)| name.clone())
        .collect();
    let mut tables = Vec::new();
    for (name, kind, without_rowid, sql) in found {
        let is_of = |owner: &&String| {
            let end = name.strip_prefix(owner.as_str());
            end.is_some_and(|end| end.starts_with('_'))
        };
        let owner = owners.iter().filter(is_of).max_by_key(|owner| owner.len());
        let kind = match (kind.as_str(), owner) {
            ("virtual", _) => Kind::Virtual,
            ("shadow", Some(owner)) => Kind::Shadow(owner.clone()),
            _ => Kind::Plain,
        };
        tables.push(Table::read(db, name, kind, without_rowid, sql)?);
    }
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tables)
}

impl Table {
    fn read(
        db: &Connection,
        name: String,
        kind: Kind,
        without_rowid: bool,
        sql: String,
    ) -> Result<Self> {
        let mut table = Self { name, kind, columns: Vec::new(), rowid: None, key: Key::None, sql };
        if table.kind == Kind::Virtual {
            // Its module may be one of the app.
            return Ok(table);
        }
        let mut statement = db.prepare(
            "SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1) ORDER BY cid",
        )?;
        let mut rows = statement.query([&table.name])?;
        let mut primary = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let (name, mut declared): (String, String) = (row.get(0)?, row.get(1)?);
            let (position, hidden): (i64, i64) = (row.get(4)?, row.get(5)?);
            if position > 0 {
                declared += " PRIMARY KEY";
                primary.insert(position, name.clone());
            }
            if row.get(2)? {
                declared += " NOT NULL";
            }
            if let Some(default) = row.get::<_, Option<String>>(3)? {
                declared += &format!(" DEFAULT {default}");
            }
            if hidden > 0 {
                declared += " GENERATED";
            }
            let declared = declared.trim_start().to_owned();
            table.columns.push(Column { name, declared, is_generated: hidden > 0 });
        }
        let is_column =
            |word: &&str| table.columns.iter().any(|c| c.name.eq_ignore_ascii_case(word));
        let word = ["rowid", "_rowid_", "oid"].into_iter().find(|word| !is_column(word));
        let primary: Vec<String> = primary.into_values().collect();
        table.key = key(db, &table.name, &primary, without_rowid)?;
        table.rowid = match (&table.key, word) {
            _ if without_rowid => None,
            (Key::Integer(column), None) => Some(identifier(column)),
            (_, word) => word.map(str::to_owned),
        };
        Ok(table)
    }
}

/// The key of a table, from its primary key and its indexes.
fn key(db: &Connection, table: &str, primary: &[String], without_rowid: bool) -> Result<Key> {
    let mut indexes = db.prepare(
        "SELECT name, origin FROM pragma_index_list(?1)
          WHERE \"unique\" AND NOT partial ORDER BY origin <> 'pk', name",
    )?;
    let indexes = indexes.query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let indexes: Vec<(String, String)> = indexes.collect::<Result<_, _>>()?;
    let has_index = indexes.iter().any(|(_, origin)| origin == "pk");
    if let [column] = primary
        && !has_index
        && !without_rowid
    {
        return Ok(Key::Integer(column.clone()));
    }
    for (index, origin) in indexes {
        // Without the app's own collation, nothing can be found in the index.
        let mut columns = db.prepare(
            "SELECT x.name, coalesce(c.\"notnull\", 0), upper(x.coll)
               FROM pragma_index_xinfo(?1) AS x LEFT JOIN pragma_table_xinfo(?2) AS c ON c.cid = x.cid
              WHERE x.key ORDER BY x.seqno",
        )?;
        let each = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let columns = columns.query_map([&*index, table], each)?;
        let columns: Vec<(Option<String>, bool, String)> = columns.collect::<Result<_, _>>()?;
        let is_key = |(name, is_not_null, collation): &(Option<String>, bool, String)| {
            name.is_some()
                && (*is_not_null || origin == "pk")
                && ["BINARY", "NOCASE", "RTRIM"].contains(&collation.as_str())
        };
        if columns.iter().all(is_key) {
            let columns =
                columns.into_iter().filter_map(|(name, _, collation)| Some((name?, collation)));
            return Ok(Key::Columns(columns.collect()));
        }
    }
    Ok(Key::None)
}

/// A change of the schema.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SchemaChange {
    pub change: Verb,
    /// `table`, `column`, `index`, `view`, `trigger`, or a pragma.
    #[serde(rename = "type")]
    pub kind: String,
    /// Of a column, `table.column`.
    pub name: String,
    /// Of an index or trigger.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// How a column is declared, or the value of a pragma.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

impl SchemaChange {
    fn of(change: Verb, kind: &str, name: String) -> Self {
        Self { change, kind: kind.to_owned(), name, table: None, before: None, after: None }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Verb {
    Added,
    Removed,
    Changed,
}

impl Verb {
    fn of(before: bool, after: bool) -> Self {
        match (before, after) {
            (false, _) => Self::Added,
            (_, false) => Self::Removed,
            _ => Self::Changed,
        }
    }
}

/// The changes from `a` to `b`: tables with their columns, then the rest.
pub fn changes(a: &Schema, b: &Schema) -> Vec<SchemaChange> {
    let mut changes = Vec::new();
    let ids: std::collections::BTreeSet<_> = a.objects.keys().chain(b.objects.keys()).collect();
    for id in ids {
        let (before, after) = (a.objects.get(id), b.objects.get(id));
        if before.map(|it| unquoted(&it.sql)) == after.map(|it| unquoted(&it.sql)) {
            continue;
        }
        let columns = match (a.table(&id.1), b.table(&id.1)) {
            (Some(a), Some(b)) if id.0 == "table" => columns(a, b),
            _ => Vec::new(),
        };
        if columns.is_empty() {
            let change = Verb::of(before.is_some(), after.is_some());
            let (kind, name) = id.clone();
            let is_on_table = ["index", "trigger"].contains(&kind.as_str());
            let table = before.or(after).filter(|_| is_on_table).map(|it| it.table.clone());
            changes.push(SchemaChange { table, ..SchemaChange::of(change, &kind, name) });
        }
        changes.extend(columns);
    }
    changes.sort_by_key(|change| !["table", "column"].contains(&change.kind.as_str()));
    for ((name, before), (_, after)) in a.versions.iter().zip(&b.versions) {
        if before != after {
            changes.push(SchemaChange {
                before: Some(before.to_string()),
                after: Some(after.to_string()),
                ..SchemaChange::of(Verb::Changed, "pragma", (*name).to_owned())
            });
        }
    }
    changes
}

/// SQL without blanks and quotes: `ALTER TABLE … RENAME` adds quotes.
fn unquoted(sql: &str) -> Vec<&str> {
    let tokens = sql::tokens(sql).map(|token| token.trim().trim_matches(['"', '`', '[', ']']));
    let length: usize = sql::tokens(sql).map(str::len).sum();
    // From a quote on that is not closed.
    tokens.filter(|token| !token.is_empty()).chain([&sql[length..]]).collect()
}

fn columns(a: &Table, b: &Table) -> Vec<SchemaChange> {
    let find = |table: &Table, name: &str| {
        let mut columns = table.columns.iter();
        columns.find(|it| it.name.eq_ignore_ascii_case(name)).map(|it| it.declared.clone())
    };
    let gone = a.columns.iter().filter(|it| find(b, &it.name).is_none());
    let all = gone.chain(&b.columns).map(|column| {
        let (before, after) = (find(a, &column.name), find(b, &column.name));
        let name = format!("{}.{}", b.name, column.name);
        let change = Verb::of(before.is_some(), after.is_some());
        SchemaChange { before, after, ..SchemaChange::of(change, "column", name) }
    });
    all.filter(|change| change.before != change.after).collect()
}

/// Whether equal bytes of a row have the same meaning in both tables: one may have more columns at
/// its end, as after `ALTER TABLE … ADD COLUMN`.
pub fn has_same_records(a: &Table, b: &Table) -> bool {
    let columns = || a.columns.iter().zip(&b.columns);
    a.sql == b.sql
        || (a.key == b.key
            && a.rowid.is_some() == b.rowid.is_some()
            && columns().all(|(a, b)| {
                a.name.eq_ignore_ascii_case(&b.name)
                    && a.declared == b.declared
                    && !a.is_generated
                    && !b.is_generated
            }))
}
