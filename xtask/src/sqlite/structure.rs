//! Checks whether a database is corrupt, even if it needs functions, collations, modules or
//! tokenizers that only its app has.

use anyhow::{Result, bail};
use rusqlite::{Connection, params_from_iter};

use crate::sql::identifier;

/// The number of faults after which SQLite's check ends.
const MOST: usize = 100;

/// What is said of a table that is not corrupt.
#[derive(Default)]
pub struct Checked {
    /// Tables that cannot be checked without functions of the app.
    pub unchecked: Vec<String>,
    /// Full-text indexes that do not match their text: only newer versions of SQLite notice that, and
    /// the app can rebuild them.
    pub stale: Vec<String>,
}

/// Checks everything that can be checked without the app.
///
/// # Errors
///
/// The database is corrupt, or cannot be read.
pub fn check(db: &Connection) -> Result<Checked> {
    // The structure does not depend on the order of text, so any collation will do.
    db.collation_needed(|db, name| db.create_collation(name, Ord::cmp))?;
    match verdict(db, None) {
        Err(error) if is_of_the_app(&error) => each_table(db),
        Ok(stale) if stale.len() >= MOST => each_table(db),
        outcome => outcome.map(|stale| Checked { stale, ..Checked::default() }),
    }
}

/// Checks each table separately, because a missing function of the app stops the check.
fn each_table(db: &Connection) -> Result<Checked> {
    // A CHECK may call any function, and is not part of the structure.
    db.pragma_update(None, "ignore_check_constraints", true)?;
    let mut tables =
        db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1")?;
    let tables = tables.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    let mut checked = Checked::default();
    for table in tables {
        match verdict(db, Some(&table)) {
            Err(error) if is_of_the_app(&error) => checked.unchecked.push(table),
            outcome => checked.stale.extend(outcome?),
        }
    }
    Ok(checked)
}

/// The stale full-text indexes, if nothing is corrupt.
fn verdict(db: &Connection, table: Option<&str>) -> Result<Vec<String>> {
    let mut check = db.prepare(match table {
        None => "SELECT * FROM pragma_quick_check",
        Some(_) => "SELECT * FROM pragma_quick_check(?1)",
    })?;
    let lines = check.query_map(params_from_iter(table), |row| row.get(0))?;
    let lines = lines.collect::<Result<Vec<String>, _>>()?;
    let faults = || lines.iter().filter(|line| *line != "ok" && stale(line).is_none());
    if let Some(fault) = faults().find(|line| missing_in_index(db, line).is_none()) {
        bail!("{fault}");
    }
    match faults().find_map(|line| missing_in_index(db, line)) {
        Some(missing) => Err(missing.into()),
        None => Ok(lines.iter().filter_map(|line| stale(line)).map(str::to_owned).collect()),
    }
}

/// The full-text index that a line says does not match its text.
fn stale(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("malformed inverted index for FTS")?;
    Some(rest.split_once(" table main.")?.1)
}

/// The missing function or collation of an index that seems to have too few entries: without it,
/// SQLite cannot know the right number.
fn missing_in_index(db: &Connection, fault: &str) -> Option<rusqlite::Error> {
    let index = fault.strip_prefix("wrong # of entries in index ")?;
    // The statement is only prepared: that already needs everything that the index uses.
    db.prepare(&format!("REINDEX {}", identifier(index))).err()
}

/// Functions of the `sqlite3` program with effects outside the database: no honest app has them in
/// its schema.
const REACHING_OUT: [&str; 5] = ["edit", "readfile", "writefile", "load_extension", "fsdir"];

/// SQLite's messages about missing objects.
const MISSING: [&str; 6] = [
    "no such function: ",
    "unknown function: ",
    "no such module: ",
    "no such tokenizer: ",
    "unknown tokenizer: ",
    "error in tokenizer",
];

/// Our own statement is valid, so an error in it comes from the schema.
fn is_of_the_app(error: &anyhow::Error) -> bool {
    let said = error.to_string().to_lowercase();
    // The message about a missing tokenizer has no details.
    let missing = said == "sql logic error" || MISSING.iter().any(|words| said.contains(words));
    missing && !REACHING_OUT.iter().any(|name| said.contains(&format!("function: {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite;

    const SOUND: &str = "CREATE TABLE sound (a, b); CREATE INDEX i ON sound (a);
        WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 500)
        INSERT INTO sound SELECT i, hex(randomblob(20)) FROM n;";

    /// A schema that only an app can create.
    fn of_an_app(sql: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let db = Connection::open(dir.path().join("a.db")).unwrap();
        db.execute_batch(SOUND).unwrap();
        db.execute_batch("PRAGMA writable_schema = ON").unwrap();
        let page = db
            .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'i'", [], |row| {
                row.get::<_, i64>(0)
            })
            .unwrap();
        db.execute_batch("CREATE TABLE own (a TEXT, b)").unwrap();
        db.execute_batch(&sql.replace("@I", &page.to_string())).unwrap();
        dir
    }

    fn own(sql: &str) -> String {
        format!("UPDATE sqlite_schema SET sql = '{}' WHERE name = 'own'", sql.replace('\'', "''"))
    }

    #[test]
    fn what_only_the_app_has_is_not_damage() {
        let cases = [
            (own("CREATE TABLE own (a TEXT NOT NULL COLLATE mine, b)"), vec![]),
            (own("CREATE TABLE own (a TEXT, b AS (mine(a)))"), vec![]),
            (own("CREATE TABLE own (a TEXT, b NOT NULL AS (mine(a)))"), vec!["own"]),
            (own("CREATE TABLE own (a TEXT CHECK (mine(a)), b)"), vec![]),
            (own("CREATE TABLE own (a TEXT DEFAULT (mine()), b)"), vec![]),
            ("UPDATE sqlite_schema SET sql = 'CREATE INDEX i ON sound (a COLLATE mine)' WHERE name = 'i'".to_owned(), vec![]),
            ("UPDATE sqlite_schema SET sql = 'CREATE INDEX i ON sound (mine(a))' WHERE name = 'i'".to_owned(), vec![]),
            ("CREATE INDEX m ON sound (b) WHERE 0;
              UPDATE sqlite_schema SET sql = 'CREATE INDEX m ON sound (mine(b))' WHERE name = 'm'".to_owned(), vec!["sound"]),
            ("CREATE VIRTUAL TABLE f USING fts5 (t);
              UPDATE sqlite_schema SET sql = 'CREATE VIRTUAL TABLE f USING fts5 (t, tokenize = mine)' WHERE name = 'f'".to_owned(), vec![]),
            ("CREATE VIRTUAL TABLE f USING fts4 (t);
              UPDATE sqlite_schema SET sql = 'CREATE VIRTUAL TABLE f USING fts4 (t, tokenize=icu)' WHERE name = 'f'".to_owned(), vec!["f"]),
            ("INSERT INTO sqlite_schema VALUES ('table', 'v', 'v', 0, 'CREATE VIRTUAL TABLE v USING vec0 (a)')".to_owned(), vec![]),
        ];
        for (sql, wanted) in cases {
            let dir = of_an_app(&sql);
            let found = sqlite::check(&dir.path().join("a.db"));
            let found = found.unwrap_or_else(|error| panic!("{sql}: {error:#}"));
            assert_eq!(found.checked.unchecked, wanted, "{sql}");
        }
    }

    #[test]
    fn a_full_text_index_that_does_not_match_its_text_is_stale() {
        let dir = of_an_app(
            "CREATE VIRTUAL TABLE f USING fts5 (t); INSERT INTO f VALUES ('hello');
             DELETE FROM f_docsize; CREATE VIRTUAL TABLE \"o p\" USING fts4 (t);
             INSERT INTO \"o p\" VALUES ('hello'); DELETE FROM \"o p_segdir\"",
        );
        let mut found = sqlite::check(&dir.path().join("a.db")).unwrap().checked.stale;
        found.sort();
        assert_eq!(found, ["f", "o p"]);
    }

    /// SQLite's check ends after a hundred faults.
    #[test]
    fn stale_indexes_hide_no_damage() {
        let stale = (0..MOST).map(|i| {
            format!("CREATE VIRTUAL TABLE f{i} USING fts5 (t); INSERT INTO f{i} VALUES ('a'); DELETE FROM f{i}_docsize;")
        });
        let fault = "CREATE TABLE z (a NOT NULL); INSERT INTO z VALUES (1);
             UPDATE sqlite_schema SET sql = 'CREATE TABLE z (b, a NOT NULL)' WHERE name = 'z'";
        for (fault, is_damaged) in [("", false), (fault, true)] {
            let dir = of_an_app(&(stale.clone().collect::<String>() + fault));
            let found = sqlite::check(&dir.path().join("a.db"));
            assert_eq!(found.is_err(), is_damaged);
            assert!(found.is_err() || found.unwrap().checked.stale.len() == MOST);
        }
    }

    #[test]
    fn an_index_that_lacks_entries_is_damaged() {
        let dir = of_an_app(
            "CREATE INDEX m ON sound (b) WHERE 0;
             UPDATE sqlite_schema SET sql = 'CREATE INDEX m ON sound (lower(b))' WHERE name = 'm'",
        );
        let error = sqlite::check(&dir.path().join("a.db")).err().unwrap();
        assert!(format!("{error:#}").contains("wrong # of entries in index m"), "{error:#}");
    }

    #[test]
    fn damage_beside_what_only_the_app_has_is_found() {
        let dir = of_an_app(&own("CREATE TABLE own (a TEXT, b NOT NULL AS (mine(a)))"));
        let path = dir.path().join("a.db");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[2 * 4096..3 * 4096].fill(0xa5);
        std::fs::write(&path, bytes).unwrap();
        assert!(sqlite::check(&path).is_err());
    }
}
