//! SQLite databases with known content, and queries to inspect them.
//!
//! Closing a plain file drops the POSIX locks that SQLite holds on it in this process. So no helper
//! here may read the bytes of a database while this process has a `Connection` to it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};

/// File names that a shell, `tar`, a glob or a URI could misread.
pub const STRANGE_NAMES: [&str; 8] = [
    "with space.db",
    "-dash.db",
    "quote'quote.db",
    "double\"quote.db",
    "dollar$HOME.db",
    "star*[x]?.db",
    "per%20cent#.db",
    "Größe→漢字.db",
];

/// Creates a database in WAL mode with one table `items`, two indexes and `rows` rows, the same for
/// the same `seed`.
pub fn create(path: &Path, rows: u32, seed: u32) {
    let connection = Connection::open(path).expect("create a database");
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL;
             CREATE TABLE items (id INTEGER PRIMARY KEY, key TEXT UNIQUE, value REAL, data BLOB);
             CREATE INDEX items_by_value ON items (value);",
        )
        .expect("create the schema");
    insert(&connection, rows, seed);
}

/// Adds rows after the existing ones.
pub fn insert(connection: &Connection, rows: u32, seed: u32) {
    connection
        .execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
             INSERT INTO items (key, value, data)
             SELECT printf('%08x-%d-%d', (i * 2654435761 + ?2) % 4294967296, ?2, i),
                    i / 7.0,
                    CAST(printf('%.*c', i % 100, 'x') AS BLOB)
             FROM n WHERE ?1 > 0",
            [rows, seed],
        )
        .expect("insert rows");
}

/// Creates a table for a sanitize rule, with this secret in each row.
pub fn create_secrets(path: &Path, rows: u32, secret: &str) {
    let connection = Connection::open(path).expect("open a database");
    connection
        .execute_batch(
            "CREATE TABLE export_settings (id INTEGER PRIMARY KEY, sheet_id TEXT,
                                           client_email TEXT, private_key TEXT);",
        )
        .expect("create the table");
    for row in 0..rows {
        connection
            .execute(
                "INSERT INTO export_settings (sheet_id, client_email, private_key)
                 VALUES (?1 || '-sheet-' || ?2, ?1 || '@example.com', ?1 || '-key-' || ?2)",
                (secret, row),
            )
            .expect("insert a secret");
    }
}

/// Runs statements on a database and closes it.
pub fn execute(path: &Path, sql: &str) {
    let connection = Connection::open(path).expect("open a database");
    connection.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// The first column of the first row.
pub fn query(path: &Path, sql: &str) -> Value {
    open(path)
        .query_row(sql, [], |row| row.get(0))
        .unwrap_or_else(|error| panic!("{}: {sql}: {error}", path.display()))
}

pub fn count(path: &Path, table: &str) -> i64 {
    match query(path, &format!("SELECT count(*) FROM \"{table}\"")) {
        Value::Integer(count) => count,
        other => panic!("count(*) gave {other:?}"),
    }
}

/// Every table's rows in a fixed order, and the schema as `sqlite_schema`.
pub type Content = BTreeMap<String, Vec<String>>;

pub fn content(path: &Path) -> Content {
    let connection = open(path);
    let tables = rows(&connection, "SELECT name FROM sqlite_schema WHERE type = 'table'", text);
    let mut content = Content::new();
    for table in tables {
        let quoted = table.replace('"', "\"\"");
        content.insert(table, rows(&connection, &format!("SELECT * FROM \"{quoted}\""), all));
    }
    let schema = "SELECT type, name, tbl_name, sql FROM sqlite_schema";
    content.insert("sqlite_schema".to_owned(), rows(&connection, schema, all));
    for version in ["user_version", "application_id"] {
        content.insert(version.to_owned(), rows(&connection, &format!("PRAGMA {version}"), all));
    }
    content
}

#[track_caller]
pub fn assert_same(left: &Path, right: &Path) {
    assert_whole(left);
    assert_whole(right);
    let (left_content, right_content) = (content(left), content(right));
    for (table, rows) in &left_content {
        let other = right_content.get(table).map(Vec::as_slice).unwrap_or_default();
        let odd = rows.iter().find(|row| other.binary_search(row).is_err());
        let odd = odd.or_else(|| other.iter().find(|row| rows.binary_search(row).is_err()));
        let (left, right) = (left.display(), right.display());
        assert!(
            rows == other,
            "{left} and {right} differ in {table}: {} and {} rows, such as {odd:?}",
            rows.len(),
            other.len()
        );
    }
    assert_eq!(left_content.len(), right_content.len(), "one has more tables");
}

#[track_caller]
pub fn assert_whole(path: &Path) {
    let found = rows(&open(path), "PRAGMA integrity_check", text);
    assert_eq!(found, ["ok"], "integrity_check of {}", path.display());
}

/// Whether the file contains these bytes anywhere: in a row, a free page or a gap. The database
/// must not be open in this process.
pub fn bytes_contain(path: &Path, needle: &str) -> bool {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
}

/// The names of the files in a directory, stray sidecars included.
pub fn files(directory: &Path) -> Vec<String> {
    let entries =
        fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("read a directory").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The paths of the files in a directory and below it, without hidden directories and snapshots.
pub fn files_below(directory: &Path) -> Vec<String> {
    let mut paths = Vec::new();
    for name in files(directory) {
        let path = directory.join(&name);
        if !path.is_dir() {
            paths.push(name);
        } else if !name.starts_with('.') && !name.starts_with("backup_") {
            paths.extend(files_below(&path).into_iter().map(|below| format!("{name}/{below}")));
        }
    }
    paths
}

/// Opens a closed database as immutable, because even a reader would leave a `-wal` in WAL mode,
/// for which tests look.
fn open(path: &Path) -> Connection {
    assert!(path.exists(), "{} does not exist", path.display());
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    let mut journal = path.as_os_str().to_owned();
    journal.push("-journal");
    let in_use = PathBuf::from(wal).exists() || PathBuf::from(journal).exists();
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let opened = if in_use {
        Connection::open(path)
    } else {
        Connection::open_with_flags(immutable_uri(path), flags)
    };
    opened.unwrap_or_else(|error| panic!("open {}: {error}", path.display()))
}

fn immutable_uri(path: &Path) -> String {
    let path = path.display().to_string();
    let path = path.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    format!("file:{path}?immutable=1")
}

fn rows(
    connection: &Connection,
    sql: &str,
    each: fn(&rusqlite::Row<'_>) -> rusqlite::Result<String>,
) -> Vec<String> {
    let read = || -> rusqlite::Result<Vec<String>> {
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query_map([], each)?.collect::<Result<Vec<_>, _>>()?;
        rows.sort();
        Ok(rows)
    };
    read().unwrap_or_else(|error| panic!("{sql}: {error}"))
}

fn text(row: &rusqlite::Row<'_>) -> rusqlite::Result<String> {
    row.get(0)
}

fn all(row: &rusqlite::Row<'_>) -> rusqlite::Result<String> {
    let columns = row.as_ref().column_count();
    let values: Vec<Value> = (0..columns).map(|i| row.get(i)).collect::<Result<_, _>>()?;
    Ok(format!("{values:?}"))
}
