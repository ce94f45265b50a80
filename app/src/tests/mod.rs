mod http;
mod migrations;
mod seeding;
mod text;

use std::fmt::Write as _;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::types::Value;

/// A virtual table has no rows of its own; what FTS5 keeps in its shadow tables is dumped.
const TABLES: &str = "SELECT name FROM sqlite_schema
    WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%' AND name NOT LIKE 'sqlite_%' ORDER BY name";

/// All rows of all tables, in the order of their keys.
fn dump(path: &Path) -> String {
    let conn = Connection::open(path).unwrap();
    let mut text = String::new();
    for table in column(&conn, TABLES) {
        let mut select = conn.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = select.column_count();
        let mut rows = select.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let values: Vec<Value> = (0..columns).map(|i| row.get(i).unwrap()).collect();
            writeln!(text, "{table} {values:?}").unwrap();
        }
    }
    text
}

fn schema(conn: &Connection) -> Vec<String> {
    column(
        conn,
        "SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_schema ORDER BY 1",
    )
}

fn column(conn: &Connection, sql: &str) -> Vec<String> {
    conn.prepare(sql)
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

fn count(conn: &Connection, sql: &str) -> i64 {
    conn.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn assert_sound(conn: &Connection) {
    assert_eq!(column(conn, "PRAGMA integrity_check"), ["ok"]);
    assert_eq!(column(conn, "SELECT \"table\" FROM pragma_foreign_key_check"), [""; 0]);
}
