//! Databases that arrive as they were sent, and were made to do harm: each is
//! refused, or put in place byte by byte without any of its code having run.

use std::fs;

use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;
use tests::env::TestEnv;
use tests::forge::{Codec, members, stream};
use tests::impostor::{Impostor, assert_harmless};
use tests::process::Running;

const PAGE: usize = 4096;

/// A database made by these statements, with whatever a program of theirs may
/// have: its functions, and the right to write the schema by hand.
fn made(sql: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a temp dir");
    let path = dir.path().join("made.db");
    let db = Connection::open(&path).expect("create a database");
    for name in ["evil", "writefile"] {
        let flags = FunctionFlags::SQLITE_UTF8
            | FunctionFlags::SQLITE_DETERMINISTIC
            | FunctionFlags::SQLITE_INNOCUOUS;
        db.create_scalar_function(name, -1, flags, |_| Ok(1)).expect("a function");
    }
    db.execute_batch("PRAGMA writable_schema = ON; CREATE TABLE t (a); INSERT INTO t VALUES (1)")
        .expect("the schema may be written");
    db.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    drop(db);
    fs::read(path).expect("read a database")
}

fn patched(mut bytes: Vec<u8>, at: usize, with: &[u8]) -> Vec<u8> {
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes
}

/// A row of the schema, written by hand.
fn schema(kind: &str, name: &str, root: i64, sql: &str) -> Vec<u8> {
    made(&format!(
        "INSERT INTO sqlite_schema VALUES ('{kind}', '{name}', '{name}', {root}, '{}')",
        sql.replace('\'', "''")
    ))
}

/// With many pages, some of them free.
fn large() -> Vec<u8> {
    made(
        "WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 40)
         INSERT INTO t SELECT zeroblob(3000) FROM n;
         CREATE TABLE gone (a); INSERT INTO gone SELECT a FROM t; DROP TABLE gone",
    )
}

/// A table that was made by the first statement, and filled, as if by the second.
fn redefined(created: &str, filled: &str, sql: &str) -> Vec<u8> {
    let sql = sql.replace('\'', "''");
    made(&format!("{created}; {filled}; UPDATE sqlite_schema SET sql = '{sql}' WHERE name = 'u'"))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Refused,
    Placed,
    /// Where there is little memory, refused.
    Either,
}
use Fate::{Either, Placed, Refused};

/// What is wrong with the file itself.
fn files() -> Vec<(&'static str, Vec<u8>, Fate)> {
    let good = || made("");
    // A row that goes on over page 3 and those behind it.
    let overflow = made("INSERT INTO t VALUES (zeroblob(50000))");
    assert_eq!(overflow[PAGE * 2..PAGE * 2 + 4], [0, 0, 0, 4]);
    let free = u32::from_be_bytes(large()[32..36].try_into().expect("four bytes")) as usize;
    assert!(free > 1);
    let trunk = (free - 1) * PAGE;
    let root = large()[PAGE..PAGE + 12].to_vec();
    assert_eq!(root[0], 5, "an inner page");
    vec![
        ("an empty file", vec![], Placed),
        ("one byte", vec![b'S'], Placed),
        ("no header", vec![0; PAGE], Refused),
        ("half a header", good()[..50].to_vec(), Refused),
        ("a header alone", good()[..100].to_vec(), Refused),
        ("half a file", large()[..PAGE * 9].to_vec(), Refused),
        ("half a page", large()[..PAGE * 9 + 100].to_vec(), Refused),
        ("pages of no byte", patched(good(), 16, &[0, 0]), Refused),
        ("pages of one byte", patched(good(), 16, &[0, 2]), Refused),
        ("pages of an odd size", patched(good(), 16, &[0x10, 1]), Refused),
        ("pages of 65536 bytes", patched(good(), 16, &[0, 1]), Refused),
        ("pages of 512 bytes", patched(good(), 16, &[2, 0]), Refused),
        ("pages that are reserved", patched(good(), 20, &[0xff]), Refused),
        ("a format to come", patched(good(), 18, &[9, 9]), Refused),
        ("a format that is not written", patched(good(), 18, &[9, 1]), Placed),
        ("fractions that are none", patched(good(), 21, &[0, 0, 0]), Refused),
        ("an encoding that is none", patched(good(), 56, &[0, 0, 0, 9]), Placed),
        ("a schema to come", patched(good(), 44, &[0, 0, 0, 99]), Refused),
        ("a size beyond the file", patched(good(), 28, &[0x7f, 0xff, 0xff, 0xff]), Refused),
        ("a free page beyond the file", patched(good(), 32, &[0, 0, 9, 9, 0, 0, 0, 1]), Refused),
        ("free pages in a loop", patched(large(), trunk, &(free as u32).to_be_bytes()), Refused),
        ("a free page with all", patched(large(), trunk + 4, &[0xff; 4]), Refused),
        ("a row in a loop", patched(overflow.clone(), PAGE * 5, &[0, 0, 0, 3]), Refused),
        ("a row that ends in nothing", patched(overflow, PAGE * 5, &[0x7f; 4]), Refused),
        ("a tree in a loop", patched(large(), PAGE + 8, &[0, 0, 0, 2]), Refused),
        ("a tree into nothing", patched(large(), PAGE + 8, &[0x7f; 4]), Refused),
        ("a page of no kind", patched(good(), PAGE, &[7]), Refused),
        ("cells beyond the page", patched(good(), PAGE + 3, &[0xff, 0xff]), Refused),
        ("a cell beyond the page", patched(good(), PAGE + 8, &[0xff, 0xfe]), Refused),
        ("a cell of all there is", patched(good(), PAGE * 2 - 4, &[0xff; 4]), Refused),
    ]
}

/// What its schema says.
fn schemas() -> Vec<(&'static str, Vec<u8>, Fate)> {
    let view = |sql: &str| made(&format!("CREATE VIEW v AS {sql}"));
    vec![
        ("a view of itself", view("SELECT * FROM v"), Placed),
        (
            "views of each other",
            made("CREATE VIEW v AS SELECT * FROM w; CREATE VIEW w AS SELECT * FROM v"),
            Placed,
        ),
        (
            "a view without end",
            view("WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n"),
            Placed,
        ),
        (
            "a view that writes",
            view("SELECT writefile('canary', 'x'), load_extension('x')"),
            Placed,
        ),
        (
            "triggers in a cycle",
            made(
                "CREATE TABLE u (a);
                 CREATE TRIGGER a AFTER INSERT ON t BEGIN INSERT INTO u VALUES (1); END;
                 CREATE TRIGGER b AFTER INSERT ON u BEGIN INSERT INTO t VALUES (1); END",
            ),
            Placed,
        ),
        (
            "a trigger that writes",
            made(
                "CREATE TRIGGER a BEFORE DELETE ON t
                 BEGIN SELECT writefile('canary', 'x'), load_extension('x'), evil(); END",
            ),
            Placed,
        ),
        (
            "a default that writes",
            made("CREATE TABLE u (a DEFAULT (writefile('canary', 'x'))); INSERT INTO u VALUES (1)"),
            Placed,
        ),
        (
            "a column that writes",
            made(
                "CREATE TABLE u (a, b AS (writefile('canary', 'x')) NOT NULL); INSERT INTO u VALUES (1)",
            ),
            Refused,
        ),
        (
            "a check that writes",
            made("CREATE TABLE u (a CHECK (writefile('canary', a))); INSERT INTO u VALUES (1)"),
            Placed,
        ),
        ("an index that writes", made("CREATE INDEX i ON t (writefile('canary', a))"), Placed),
        ("a part of an index that writes", made("CREATE INDEX i ON t (a) WHERE evil(a)"), Placed),
        (
            "a check that takes memory",
            redefined(
                "CREATE TABLE u (a)",
                "INSERT INTO u VALUES (1)",
                "CREATE TABLE u (a CHECK (length(hex(zeroblob(450000000))) > a))",
            ),
            Either,
        ),
        (
            "a check that takes time",
            redefined(
                "CREATE TABLE u (a)",
                &format!("INSERT INTO u VALUES ('{}')", "a".repeat(9000)),
                "CREATE TABLE u (a CHECK (a NOT LIKE '%a%a%a%a%a%a%a%a%b'))",
            ),
            Either,
        ),
        (
            "a column that takes time",
            redefined(
                "CREATE TABLE u (a)",
                &format!("INSERT INTO u VALUES ('{}')", "a".repeat(9000)),
                "CREATE TABLE u (a, b AS (a LIKE '%a%a%a%a%a%a%a%a%b') NOT NULL)",
            ),
            Either,
        ),
        (
            "a column that takes memory",
            redefined(
                "CREATE TABLE u (a)",
                "INSERT INTO u VALUES (1)",
                "CREATE TABLE u (a, b AS (hex(zeroblob(450000000))) NOT NULL)",
            ),
            Either,
        ),
        (
            "a check that loads",
            schema("table", "u", 2, "CREATE TABLE u (a CHECK (load_extension('x', a)))"),
            Refused,
        ),
        (
            "a check with a tokenizer",
            schema("table", "u", 2, "CREATE TABLE u (a CHECK (fts3_tokenizer('simple', a)))"),
            Refused,
        ),
        ("a table that does not parse", schema("table", "u", 2, "CREATE TABLE u ("), Refused),
        ("a table that is a statement", schema("table", "u", 2, "DROP TABLE t"), Refused),
        ("a table that attaches", schema("view", "u", 0, "ATTACH 'canary' AS c"), Refused),
        ("a kind that is none", schema("evil", "u", 2, "CREATE TABLE u (a)"), Refused),
        ("a root that is none", schema("table", "u", 0, "CREATE TABLE u (a)"), Refused),
        ("a root below nothing", schema("table", "u", -1, "CREATE TABLE u (a)"), Refused),
        ("a root beyond the end", schema("table", "u", 999_999, "CREATE TABLE u (a)"), Refused),
        ("a root beyond all", schema("table", "u", i64::MAX, "CREATE TABLE u (a)"), Refused),
        ("a root of the schema", schema("table", "u", 1, "CREATE TABLE u (a)"), Refused),
        ("a root of two", schema("table", "u", 2, "CREATE TABLE u (a)"), Refused),
        ("an index without SQL", schema("index", "i", 2, ""), Refused),
        (
            "a schema that is no text",
            made("UPDATE sqlite_schema SET sql = x'00ff', name = x'ff', type = 7.5"),
            Refused,
        ),
        (
            "a module that is none",
            schema("table", "u", 0, "CREATE VIRTUAL TABLE u USING csv(filename='/etc/passwd')"),
            Placed,
        ),
        (
            "a text index with another's tables",
            made(
                "CREATE VIRTUAL TABLE f USING fts5(a); INSERT INTO f VALUES ('x');
                  UPDATE f_data SET block = randomblob(3000); UPDATE f_config SET v = 99",
            ),
            Refused,
        ),
        (
            "a tree index with another's tables",
            made(
                "CREATE VIRTUAL TABLE r USING rtree(i, a, b); INSERT INTO r VALUES (1, 2, 3);
                  UPDATE r_node SET data = zeroblob(9)",
            ),
            Refused,
        ),
        (
            "statistics that are none",
            made("CREATE INDEX i ON t (a); ANALYZE; UPDATE sqlite_stat1 SET stat = '-1 9e999 x'"),
            Placed,
        ),
        (
            "an expression that is deep",
            view(&format!("SELECT {}1{}", "(".repeat(900), ")".repeat(900))),
            Placed,
        ),
        (
            "an expression that is too deep",
            schema("view", "v", 0, &format!("CREATE VIEW v AS SELECT {}1", "(".repeat(1 << 20))),
            Refused,
        ),
        (
            "columns without end",
            schema("table", "u", 2, &format!("CREATE TABLE u (a{})", ", a".repeat(1 << 20))),
            Refused,
        ),
        ("a schema of 100 MB", view(&format!("SELECT 1 /*{}*/", "x".repeat(100 << 20))), Either),
        (
            "a collation that is none",
            schema("index", "i", 3, "CREATE INDEX i ON t (a COLLATE evil)"),
            Refused,
        ),
    ]
}

#[track_caller]
fn meets_its_fate(cases: Vec<(&'static str, Vec<u8>, Fate)>) {
    let impostor = Impostor::new();
    let honest = made("");
    let mut odd = Vec::new();
    for (name, bytes, fate) in cases {
        let before = tests::impostor::stamps(&impostor.env.data());
        impostor.sends(&stream(Codec::Zstd, &members(&[("data.db", bytes.clone())])));
        let output = impostor.pull(&[]);
        let placed = output.code == Some(0);
        if (fate != Either && placed != (fate == Placed))
            || output.code.is_none()
            || output.code > Some(1)
        {
            odd.push(format!("{name}: {output}"));
        }
        assert_harmless(name, &output);
        impostor.assert_tidy(name);
        if placed {
            let live = fs::read(impostor.env.data().join("data.db")).expect("read a database");
            assert!(live == bytes, "{name}: it is not what was sent");
            // It is saved, and the way back is open.
            impostor.sends(&stream(Codec::Zstd, &members(&[("data.db", honest.clone())])));
            let output = impostor.pull(&[]).ok();
            assert_harmless(name, &output);
            looked_at(&impostor.env, name);
        } else {
            let after = tests::impostor::stamps(&impostor.env.data());
            assert!(before == after, "{name}: the data directory was touched\n{output}");
        }
        for place in [impostor.env.repo(), impostor.env.data()] {
            assert!(!place.join("canary").exists(), "{name}: its code has run");
        }
    }
    assert!(odd.is_empty(), "{}", odd.join("\n"));
}

/// The commands that look at snapshots do so in no time, too.
fn looked_at(env: &TestEnv, name: &str) {
    let listed = Running::start(&mut env.xtask_command(["restore-db", "--list"])).wait();
    assert_eq!(listed.code, Some(0), "{name}\n{listed}");
}

#[test]
fn a_file_that_is_broken_is_refused() {
    meets_its_fate(files());
}

#[test]
fn a_schema_that_would_do_harm_does_not() {
    meets_its_fate(schemas());
}
