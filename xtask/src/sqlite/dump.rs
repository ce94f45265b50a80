//! A closed database as text that gives small diffs: the schema, then a line per row, in a stable
//! order.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, Result};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode};

use crate::fixtures::full_text::{self, Content};
use crate::sql::identifier;
use crate::ui::escape;
use crate::{fs, sqlite};

/// Bytes. A longer blob is shown by its size and its hash.
const MAX_BLOB: usize = 64;

/// The samples of ANALYZE differ from run to run; the other two tables are the schema, which is
/// shown anyway.
const LEFT_OUT: &str = "'sqlite_schema', 'sqlite_temp_schema', 'sqlite_stat4'";

/// Writes the whole database. A file that is not a database, or corrupt, gives a line that changes
/// with the file.
///
/// # Errors
///
/// The file cannot be opened, or the output cannot be written.
pub fn dump(path: &Path, out: &mut impl Write) -> Result<()> {
    let db =
        sqlite::open_closed(path).with_context(|| format!("cannot open {}", path.display()))?;
    let trouble = match everything(&db, out) {
        Ok(None) => None,
        Ok(Some(error)) => Some(error),
        Err(error) => Some(error.downcast::<rusqlite::Error>()?),
    };
    drop(db);
    if let Some(error) = trouble {
        let what = match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => "not a SQLite database".to_owned(),
            _ => format!("-- not all of it can be read: {}", message(&error)),
        };
        let bytes = path.metadata()?.len();
        writeln!(out, "{what}: {bytes} bytes, sha256 {}", fs::sha256(path)?)?;
    }
    Ok(out.flush()?)
}

/// Returns the error of an unreadable table after all other tables.
fn everything(db: &Connection, out: &mut impl Write) -> Result<Option<rusqlite::Error>> {
    let pragma = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let version = pragma("user_version")?;
    writeln!(out, "PRAGMA user_version = {version};")?;
    let application = pragma("application_id")?;
    if application != 0 {
        writeln!(out, "PRAGMA application_id = {application};")?;
    }
    let tables = tables(db)?;
    schema(db, &tables, out)?;
    let mut unread = None;
    for table in tables.iter().filter(|table| table.has_rows(&tables)) {
        if let Err(error) = rows(db, &table.name, out) {
            let error = error.downcast::<rusqlite::Error>()?;
            writeln!(out, "-- {}: {}", shown_name(&table.name), message(&error))?;
            unread = Some(error);
        }
    }
    Ok(unread)
}

struct Table {
    name: String,
    /// `table`, `view`, `virtual`, or `shadow` for a shadow table.
    kind: String,
    sql: String,
}

impl Table {
    /// A virtual table may show anything. It is dumped if it stores its content in shadow tables,
    /// which are left out.
    fn has_rows(&self, all: &[Table]) -> bool {
        let keeps = |suffix: &str| {
            let name = format!("{}{suffix}", self.name);
            all.iter().any(|table| table.kind == "shadow" && table.name == name)
        };
        match &*self.kind {
            "table" => true,
            "virtual" => match full_text::kind(&self.sql) {
                // An external content table may be a view that never ends.
                Some(content) => content == Content::Own && keeps("_content"),
                // An R*Tree.
                None => keeps("_rowid"),
            },
            _ => false,
        }
    }
}

fn tables(db: &Connection) -> rusqlite::Result<Vec<Table>> {
    let sql = format!(
        "SELECT name, type, coalesce((SELECT sql FROM sqlite_schema AS s WHERE s.name = l.name), '')
           FROM pragma_table_list AS l
          WHERE schema = 'main' AND name NOT IN ({LEFT_OUT}) ORDER BY name"
    );
    let mut statement = db.prepare(&sql)?;
    let table = |row: &rusqlite::Row<'_>| {
        Ok(Table { name: row.get(0)?, kind: row.get(1)?, sql: row.get(2)? })
    };
    statement.query_map([], table)?.collect()
}

/// The CREATE statements, tables first.
fn schema(db: &Connection, tables: &[Table], out: &mut impl Write) -> Result<()> {
    let mut statement = db.prepare(
        "SELECT tbl_name, sql FROM sqlite_schema
         WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
         ORDER BY type <> 'table', type, name",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let table = row.get_ref(0)?.as_bytes().unwrap_or_default();
        let of_this = |other: &&Table| other.name.as_bytes() == table;
        if tables.iter().find(of_this).is_none_or(|table| table.kind != "shadow") {
            let sql = String::from_utf8_lossy(row.get_ref(1)?.as_bytes().unwrap_or_default());
            let lines: Vec<String> = sql.split('\t').map(escape).collect();
            writeln!(out, "{};", lines.join("\t"))?;
        }
    }
    Ok(())
}

fn rows(db: &Connection, table: &str, out: &mut impl Write) -> Result<()> {
    let from = format!("FROM main.{}", identifier(table));
    let columns = columns(db, table)?;
    let names: Vec<String> = columns.iter().map(|column| identifier(&column.name)).collect();
    let select = format!("SELECT {} {from}", names.join(", "));
    // Rows may share a key of NULL, a table may lack a rowid, and a key may need a collation of the
    // app.
    let mut statement = Err(rusqlite::Error::InvalidQuery);
    let key = match key(&columns) {
        // ANALYZE writes its rows in the order of its work.
        none if none.is_empty() && table.starts_with("sqlite_") => "1, 2, ".to_owned(),
        key => key,
    };
    for order in [format!("{key}rowid"), format!("{key}1"), "rowid".to_owned(), "1".to_owned()] {
        statement = db.prepare(&format!("{select} ORDER BY {order}"));
        if statement.is_ok() {
            break;
        }
    }
    let mut statement = statement?;
    let count: i64 = db.query_row(&format!("SELECT count(*) {from}"), [], |row| row.get(0))?;
    let table = shown_name(table);
    writeln!(out, "-- {table} ({count} {})", if count == 1 { "row" } else { "rows" })?;
    let names: Vec<String> = columns.iter().map(|column| shown_name(&column.name)).collect();
    let mut rows = statement.query([])?;
    let mut line = String::new();
    while let Some(row) = rows.next()? {
        line.clear();
        for (i, name) in names.iter().enumerate() {
            let _ = write!(line, "{} {name}=", if i == 0 { ":" } else { "," });
            value(row.get_ref(i)?, &mut line);
        }
        writeln!(out, "{table}{line}")?;
    }
    Ok(())
}

struct Column {
    name: String,
    /// The position in the primary key, from 1; 0 if it is not part of it.
    key: u32,
}

/// The columns without generated ones.
fn columns(db: &Connection, table: &str) -> rusqlite::Result<Vec<Column>> {
    let mut statement = db.prepare(
        "SELECT name, pk FROM pragma_table_xinfo(?1, 'main') WHERE hidden = 0 ORDER BY cid",
    )?;
    let column = |row: &rusqlite::Row<'_>| Ok(Column { name: row.get(0)?, key: row.get(1)? });
    statement.query_map([table], column)?.collect()
}

/// The columns of the primary key, each followed by a comma.
fn key(columns: &[Column]) -> String {
    let mut key: Vec<&Column> = columns.iter().filter(|column| column.key > 0).collect();
    key.sort_by_key(|column| column.key);
    key.iter().map(|column| identifier(&column.name) + ", ").collect()
}

/// The name without quotes, if SQL allows that.
fn shown_name(name: &str) -> String {
    let bare = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    if bare && !name.is_empty() { name.to_owned() } else { identifier(&one_line(name)) }
}

/// Escapes text for one line of a terminal; different texts stay different.
fn one_line(text: &str) -> String {
    let text = text.replace('\\', "\\\\");
    escape(&text.replace('\n', "\\n").replace('\t', "\\t").replace('\r', "\\r"))
}

fn value(value: ValueRef<'_>, line: &mut String) {
    // Writing to a string cannot fail.
    let _ = match value {
        ValueRef::Null => write!(line, "NULL"),
        ValueRef::Integer(n) => write!(line, "{n}"),
        // With a decimal point, to distinguish 1.0 from 1.
        ValueRef::Real(n) => write!(line, "{n:?}"),
        ValueRef::Text(bytes) => match str::from_utf8(bytes) {
            Ok(text) => write!(line, "'{}'", one_line(text).replace('\'', "''")),
            Err(_) => {
                let _ = write!(line, "text ");
                blob(bytes, line)
            }
        },
        ValueRef::Blob(bytes) => blob(bytes, line),
    };
}

fn blob(bytes: &[u8], line: &mut String) -> std::fmt::Result {
    if bytes.len() <= MAX_BLOB {
        return write!(line, "x'{}'", fs::hex(bytes));
    }
    let hash = fs::sha256_of(bytes);
    write!(line, "<{} bytes, sha256 {hash}>", bytes.len())
}

fn message(error: &rusqlite::Error) -> String {
    one_line(&error.to_string())
}
