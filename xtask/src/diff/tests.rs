//! The difference that is found from pages, against one that is found from all rows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use rusqlite::Connection;
use rusqlite::types::Value;

use super::scan::{Scan, scans};
use super::schema::Schema;
use super::{Changes, Source, compare, source};

/// The tables, each with its key; `c` has none.
const TABLES: [(&str, &str); 6] = [
    ("c", "(a, b, n DEFAULT 0)"),
    ("k", "(k TEXT PRIMARY KEY, a, b, n DEFAULT 0)"),
    ("m", "(k TEXT COLLATE NOCASE, j INT, a, b, n DEFAULT 0, PRIMARY KEY (j, k)) WITHOUT ROWID"),
    ("r", "(k INTEGER PRIMARY KEY, a, b, n DEFAULT 0)"),
    ("u", "(a, b, n DEFAULT 0, k INT NOT NULL UNIQUE)"),
    ("w", "(k BLOB PRIMARY KEY, a, b, n DEFAULT 0) WITHOUT ROWID"),
];

#[derive(Clone, Debug)]
enum Step {
    Insert {
        table: usize,
        from: u32,
        rows: u32,
        bytes: u32,
    },
    Delete {
        table: usize,
        from: u32,
        rows: u32,
    },
    Update {
        table: usize,
        from: u32,
        rows: u32,
        bytes: u32,
    },
    /// Changes the end of values, whose length stays.
    Overwrite {
        table: usize,
        from: u32,
        rows: u32,
    },
    Renumber {
        table: usize,
        by: u32,
    },
    Recreate {
        table: usize,
    },
    AddColumn {
        table: usize,
    },
    Index {
        table: usize,
    },
    Vacuum,
}

impl Step {
    fn run(&self, db: &Connection) {
        let sql = match *self {
            Self::Insert { table, from, rows, bytes } => insert(table, from, rows, bytes),
            Self::Delete { table, from, rows } => {
                format!("DELETE FROM {} WHERE n >= {from} AND n < {from} + {rows}", name(table))
            }
            Self::Update { table, from, rows, bytes } => format!(
                "UPDATE {} SET b = substr(hex(zeroblob({bytes})), 1 + n % 7), a = a || '.' WHERE n >= {from} AND n < {from} + {rows}",
                name(table)
            ),
            Self::Overwrite { table, from, rows } => format!(
                "UPDATE {} SET b = substr(b, 1, length(b) - 1) || 'x' WHERE length(b) > 0 AND n >= {from} AND n < {from} + {rows}",
                name(table)
            ),
            Self::Renumber { table: table @ (0 | 1 | 4), by } => {
                format!("UPDATE OR IGNORE {} SET rowid = rowid + {by}", name(table))
            }
            Self::Recreate { table } => {
                format!("DROP TABLE {0}; CREATE TABLE {0} {1}", name(table), TABLES[table].1)
            }
            Self::AddColumn { table } => {
                format!("ALTER TABLE {} ADD COLUMN extra DEFAULT 7", name(table))
            }
            Self::Index { table } => format!("CREATE INDEX {0}_b ON {0} (b)", name(table)),
            Self::Renumber { .. } => return,
            Self::Vacuum => "VACUUM; PRAGMA incremental_vacuum".to_owned(),
        };
        // A column or index may be there already.
        let _ = db.execute_batch(&sql);
    }
}

fn name(table: usize) -> &'static str {
    TABLES[table].0
}

fn insert(table: usize, from: u32, rows: u32, bytes: u32) -> String {
    let numbers = format!(
        "WITH i(i) AS (SELECT {from} UNION ALL SELECT i + 1 FROM i WHERE i < {from} + {rows})"
    );
    let (columns, key) = match name(table) {
        "c" => ("", ""),
        "k" => ("k, ", "'key' || (i * 7919 % 1000), "),
        "m" => ("k, j, ", "'Key' || (i % 50), i / 50, "),
        "w" => ("k, ", "CAST(i * 7919 % 1000 AS BLOB), "),
        _ => ("k, ", "i, "),
    };
    format!(
        "INSERT OR IGNORE INTO {} ({columns}a, b, n) {numbers}
         SELECT {key}i, substr(hex(zeroblob({bytes})), 1 + i % 5), i FROM i",
        name(table)
    )
}

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let (table, from, rows) = (0..TABLES.len(), 0..400u32, 1..120u32);
    let few = 1..4u32;
    let bytes = prop_oneof![0..30u32, 200..700u32, 3000..9000u32];
    let step = prop_oneof![
        4 => (table.clone(), from.clone(), rows.clone(), bytes.clone())
            .prop_map(|(table, from, rows, bytes)| Step::Insert { table, from, rows, bytes }),
        2 => (table.clone(), from.clone(), rows)
            .prop_map(|(table, from, rows)| Step::Delete { table, from, rows }),
        3 => (table.clone(), from.clone(), few.clone(), bytes)
            .prop_map(|(table, from, rows, bytes)| Step::Update { table, from, rows, bytes }),
        3 => (table.clone(), from.clone(), few)
            .prop_map(|(table, from, rows)| Step::Overwrite { table, from, rows }),
        1 => (table.clone(), from).prop_map(|(table, by)| Step::Renumber { table, by }),
        1 => table.clone().prop_map(|table| Step::Recreate { table }),
        1 => table.clone().prop_map(|table| Step::AddColumn { table }),
        1 => table.prop_map(|table| Step::Index { table }),
        1 => Just(Step::Vacuum),
    ];
    vec(step, 1..most)
}

/// The values of a row, without those of columns that not both have, by its key.
type Rows = BTreeMap<String, Vec<Value>>;

fn rows(path: &Path, table: usize, is_keyed: bool) -> (Rows, BTreeMap<String, i64>) {
    let db = crate::sqlite::open_closed(path).unwrap();
    let key = match name(table) {
        "c" => "rowid",
        "m" => "j || '/' || lower(k)",
        _ => "quote(k)",
    };
    let all = if is_keyed { "k, a, b, n" } else { "a, b, n" };
    let mut statement =
        db.prepare(&format!("SELECT {key} || '', {all} FROM {}", name(table))).unwrap();
    let columns = statement.column_count();
    let mut found = (Rows::new(), BTreeMap::new());
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let values: Vec<Value> = (1..columns).map(|i| row.get(i).unwrap()).collect();
        *found.1.entry(format!("{values:?}")).or_default() += 1;
        found.0.insert(row.get(0).unwrap(), values);
    }
    found
}

/// What a comparison of all rows finds: added, removed and changed. Of a table without a key only
/// the sums with changed rows are certain.
fn naive(a: &Path, b: &Path, table: usize) -> (u64, u64, u64) {
    let is_keyed = name(table) != "c";
    let ((x, in_x), (y, in_y)) = (rows(a, table, is_keyed), rows(b, table, is_keyed));
    if is_keyed {
        let only = |x: &Rows, y: &Rows| x.keys().filter(|key| !y.contains_key(*key)).count() as u64;
        let changed = x.iter().filter(|(key, row)| y.get(*key).is_some_and(|it| it != *row));
        return (only(&y, &x), only(&x, &y), changed.count() as u64);
    }
    let all: BTreeSet<_> = in_x.keys().chain(in_y.keys()).collect();
    let more = |x: &BTreeMap<String, i64>, y: &BTreeMap<String, i64>| {
        let of = |map: &BTreeMap<String, i64>, key: &String| map.get(key).copied().unwrap_or(0);
        all.iter().map(|key| (of(x, key) - of(y, key)).max(0).cast_unsigned()).sum()
    };
    (more(&in_y, &in_x), more(&in_x, &in_y), 0)
}

fn changes(a: &Source, b: &Source) -> Changes {
    compare(a, b, None, &mut |_, _, _, _| Ok(())).unwrap()
}

#[track_caller]
fn assert_complete(a: &Path, b: &Path, found: &Changes) {
    for (i, (name, _)) in TABLES.iter().enumerate() {
        let change = found.tables.iter().find(|change| change.name == *name);
        let found = change.map_or((0, 0, 0), |it| (it.added, it.removed, it.changed));
        let found = match (*name, found) {
            ("c", (added, removed, changed)) => (added + changed, removed + changed, 0),
            (_, found) => found,
        };
        assert_eq!(found, naive(a, b, i), "{name}");
    }
}

fn create(path: &Path, page_size: u32, vacuum: u32, encoding: &str) -> Connection {
    let db = Connection::open(path).unwrap();
    db.execute_batch(&format!(
        "PRAGMA page_size = {page_size}; PRAGMA auto_vacuum = {vacuum}; PRAGMA encoding = '{encoding}';
         PRAGMA synchronous = OFF"
    ))
    .unwrap();
    for (name, columns) in TABLES {
        db.execute_batch(&format!("CREATE TABLE {name} {columns}")).unwrap();
    }
    db
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn all_differences_are_found(
        first in steps(12),
        second in steps(8),
        page_size in prop::sample::select(&[512, 1024, 4096]),
        vacuum in 0..3u32,
        encoding in prop::sample::select(&["UTF-8", "UTF-8", "UTF-16le"]),
        is_open in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let (a, b, copy) = (path("a.db"), path("b.db"), path("copy.db"));
        let db = create(&a, page_size, vacuum, encoding);
        first.iter().for_each(|step| step.run(&db));
        drop(db);
        std::fs::copy(&a, &b).unwrap();
        let db = Connection::open(&b).unwrap();
        if is_open {
            db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 20").unwrap();
        }
        second.iter().for_each(|step| step.run(&db));
        db.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
        let kept = is_open.then_some(&db);
        if kept.is_none() {
            db.close().unwrap();
            let (a, b) = (Source::closed(&a).unwrap(), Source::closed(&b).unwrap());
            assert_complete(&path("a.db"), &copy, &changes(&a, &b));
            assert_complete(&copy, &path("a.db"), &changes(&b, &a));
        } else {
            let (a, b) = (Source::closed(&a).unwrap(), Source::shared(&b, Duration::ZERO).unwrap());
            assert_complete(&path("a.db"), &copy, &changes(&a, &b));
            assert_complete(&copy, &path("a.db"), &changes(&b, &a));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    /// It ends with an error, or with what SQLite can still read.
    #[test]
    fn a_damaged_file_ends_a_comparison(
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..60),
        small in any::<bool>(),
    ) {
        let first = "CREATE TABLE t (id INTEGER PRIMARY KEY, v); CREATE TABLE u (k TEXT PRIMARY KEY, v) WITHOUT ROWID;
            WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 900)
            INSERT INTO t SELECT i, zeroblob(i * 7 % 3000) FROM n; INSERT INTO u SELECT id || 'k', v FROM t WHERE id < 99";
        let two = Two::new(&format!("PRAGMA page_size = {}; {first}", if small { 512 } else { 4096 }), "DELETE FROM t WHERE id = 5");
        let path = two.path("b.db");
        let mut bytes = std::fs::read(&path).unwrap();
        for (at, byte) in damage {
            // Not the header, which would make it no database.
            let at = 100 + at.index(bytes.len() - 100);
            bytes[at] = byte;
        }
        std::fs::write(&path, bytes).unwrap();
        let open = |name: &str| Source::closed(&two.path(name));
        if let (Ok(a), Ok(b)) = (open("a.db"), open("b.db")) {
            let _ = compare(&a, &b, None, &mut |_, _, _, _| Ok(()));
            let _ = compare(&b, &a, None, &mut |_, _, _, _| Ok(()));
        }
    }
}

struct Two {
    dir: tempfile::TempDir,
}

impl Two {
    /// Two databases: the second is a copy of the first, and then changed.
    fn new(first: &str, second: &str) -> Self {
        let two = Self { dir: tempfile::tempdir().unwrap() };
        let run =
            |path: &Path, sql: &str| Connection::open(path).unwrap().execute_batch(sql).unwrap();
        run(&two.path("a.db"), first);
        std::fs::copy(two.path("a.db"), two.path("b.db")).unwrap();
        run(&two.path("b.db"), second);
        two
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn sources(&self) -> (Source, Source) {
        (Source::closed(&self.path("a.db")).unwrap(), Source::closed(&self.path("b.db")).unwrap())
    }

    fn changes(&self) -> Vec<(String, u64, u64, u64)> {
        let (a, b) = self.sources();
        let tables = changes(&a, &b).tables.into_iter();
        tables.map(|it| (it.name, it.added, it.removed, it.changed)).collect()
    }

    /// What would be compared of the table `t`.
    fn scan(&self) -> Scan {
        let (a, b) = self.sources();
        let root = |source: &Source| {
            Schema::read(&source.db).unwrap().roots[&("table".to_owned(), "t".to_owned())]
        };
        let differs = source::differing(&a, &b).unwrap();
        scans(&a, &b, &differs, &[(1, 1), (root(&a), root(&b))]).unwrap().remove(1)
    }
}

const MANY: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v);
    WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
    INSERT INTO t SELECT i, hex(zeroblob(40)) FROM n;";

#[test]
fn only_rows_of_pages_that_differ_are_read() {
    let two = Two::new(MANY, "UPDATE t SET v = 'x' || v WHERE id = 12000");
    let Scan::Ranges(ranges) = two.scan() else { panic!("all rows") };
    let rows: i64 = ranges.iter().map(|(first, last)| last - first).sum();
    assert!(ranges.len() == 1 && ranges[0].0 <= 12000 && ranges[0].1 >= 12000, "{ranges:?}");
    assert!(rows < 200, "{ranges:?}");
    assert_eq!(two.changes(), [("t".to_owned(), 0, 0, 1)]);
}

#[test]
fn a_value_that_was_overwritten_in_place_is_found() {
    let many = format!("{MANY} INSERT INTO t VALUES (30000, zeroblob(100000))");
    let two =
        Two::new(&many, "UPDATE t SET v = CAST(zeroblob(99999) || x'01' AS BLOB) WHERE id = 30000");
    let Scan::Ranges(ranges) = two.scan() else { panic!("all rows") };
    assert!(ranges.len() == 1 && ranges[0].0 > 19_000, "{ranges:?}");
    let (a, b) = two.sources();
    let differs = source::differing(&a, &b).unwrap();
    let differing = differs.iter().filter(|differs| **differs).count();
    assert_eq!(differing, 1, "only the last overflow page");
    assert_eq!(two.changes(), [("t".to_owned(), 0, 0, 1)]);
}

#[test]
fn rows_of_a_freed_page_are_gone_although_its_bytes_are_not() {
    let two = Two::new(MANY, "PRAGMA secure_delete = OFF; DELETE FROM t");
    assert_eq!(two.changes(), [("t".to_owned(), 0, 20_000, 0)]);
}

/// No page of rows differs then, but each is one of another table.
#[test]
fn tables_that_swap_their_names_have_each_others_rows() {
    let many =
        format!("{MANY} CREATE TABLE u (id INTEGER PRIMARY KEY, v); INSERT INTO u VALUES (1, 2)");
    let swap = "ALTER TABLE t RENAME TO x; ALTER TABLE u RENAME TO t; ALTER TABLE x RENAME TO u";
    let two = Two::new(&many, swap);
    let expected = [("t".to_owned(), 0, 19_999, 1), ("u".to_owned(), 19_999, 0, 1)];
    assert_eq!(two.changes(), expected);
    let (a, b) = two.sources();
    assert!(changes(&a, &b).schema.is_empty(), "only names have quotes now");
}

#[test]
fn a_vacuum_changes_nothing() {
    let many = "CREATE TABLE t (v); CREATE TABLE u (k TEXT PRIMARY KEY, v);
         CREATE VIRTUAL TABLE f USING fts5 (w);
         WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
         INSERT INTO t SELECT i % 7 FROM n; DELETE FROM t WHERE rowid % 3 = 0;
         INSERT INTO u SELECT rowid || 'k', v FROM t; DELETE FROM u WHERE rowid < 900;
         INSERT INTO f SELECT k FROM u;";
    let two = Two::new(many, "VACUUM; UPDATE u SET rowid = rowid + 5000");
    assert_eq!(two.changes(), []);
    let two = Two::new(
        many,
        "VACUUM; DELETE FROM t WHERE rowid = 17; UPDATE u SET v = 9 WHERE rowid = 901",
    );
    assert_eq!(two.changes(), [("t".to_owned(), 0, 1, 0), ("u".to_owned(), 0, 0, 1)]);
    let two = Two::new(many, "PRAGMA page_size = 8192; VACUUM; INSERT INTO f VALUES ('new')");
    assert_eq!(two.changes(), [("f".to_owned(), 0, 0, 0)]);
}

#[test]
fn the_key_of_the_app_may_need_its_own_collation() {
    let first = "CREATE TABLE t (k TEXT PRIMARY KEY, v); INSERT INTO t VALUES ('a', 1), ('B', 2), ('c', 3);
         PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = 'CREATE TABLE t (k TEXT PRIMARY KEY COLLATE mine, v)' WHERE name = 't'";
    let two = Two::new(
        first,
        "PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = 'CREATE TABLE t (k TEXT PRIMARY KEY, v)' WHERE name = 't'",
    );
    assert_eq!(two.changes(), []);
}

#[test]
fn an_empty_file_is_a_database_without_tables() {
    let two = Two::new("", "CREATE TABLE t (a); INSERT INTO t VALUES (1)");
    assert_eq!(two.changes(), [("t".to_owned(), 1, 0, 0)]);
    let (a, b) = two.sources();
    assert_eq!(changes(&b, &a).schema.len(), 1);
    assert!(changes(&a, &a).is_empty());
}
