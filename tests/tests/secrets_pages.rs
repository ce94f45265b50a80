//! Sanitizing leaves the pages where they are: what comes on the second day is not much
//! more than without rules.

use std::fs;
use std::path::Path;

use tests::databases;
use tests::delta::{Report, Scene};
use tests::long::depth;

const ROWS: u32 = 8_000;

/// What differs between the pulls of two days.
#[derive(Debug)]
struct Delta {
    /// As the pull says.
    changed: u64,
    /// By the files.
    pages: usize,
}

/// Accounts from number `from` to `to`, and their notes. Tokens are random, and so are the
/// places of the rows in all indexes over them.
fn insert(from: u32, to: u32) -> String {
    format!(
        "WITH n(i) AS (VALUES ({from}) UNION ALL SELECT i + 1 FROM n WHERE i < {to})
         INSERT INTO accounts SELECT i, 'name ' || i, hex(randomblob(8)) || '@mail.test', hex(randomblob(20)),
                hex(randomblob(20)), i % 5, hex(zeroblob(60)) FROM n;
         INSERT INTO notes SELECT id, 'some words ' || hex(randomblob(6)) || ' more ' || hex(randomblob(6)) || id
           FROM accounts WHERE id BETWEEN {from} AND {to};"
    )
}

/// A hundredth is new, and as much of what is recent differs.
fn a_day(tables: &str) -> String {
    let (last, recent) = (ROWS + ROWS / 100, ROWS - ROWS / 10);
    format!(
        "{} UPDATE accounts SET token = hex(randomblob(20)), visits = visits + 1
         WHERE id > {recent} AND id % 10 = 0; DELETE FROM accounts WHERE id % 2000 = 7; {tables}",
        insert(ROWS + 1, last)
    )
}

/// The second day of two, with these rules. The production is the same for all.
fn second_day(days: &[Vec<u8>; 2], rules: &str) -> Delta {
    let scene = Scene::new();
    scene.env.db_toml(rules);
    let put = |day: &Vec<u8>| fs::write(scene.path("data.db"), day).expect("write a database");
    let file = |report: &Report| scene.env.data().join(report.text("snapshot")).join("data.db");
    put(&days[0]);
    let first = scene.report(&[]);
    put(&days[1]);
    let second = scene.report(&[]);
    databases::assert_whole(&file(&second));
    Delta {
        changed: second.changed("data.db").expect("the first is a base"),
        pages: differing(&file(&first), &file(&second)),
    }
}

fn differing(left: &Path, right: &Path) -> usize {
    const PAGE: usize = 4096;
    let [left, right] = [left, right].map(|path| fs::read(path).expect("read"));
    let more = left.len().abs_diff(right.len()) / PAGE;
    let pairs = left.chunks_exact(PAGE).zip(right.chunks_exact(PAGE));
    more + pairs.filter(|(left, right)| left != right).count()
}

fn production(schema: &str, each_day: &str) -> [Vec<u8>; 2] {
    let scene = Scene::new();
    let path = scene.path("data.db");
    let tables =
        "CREATE TABLE accounts (id INTEGER PRIMARY KEY, name, email, token, secret, visits, more);
                  CREATE TABLE notes (id INTEGER PRIMARY KEY, body);";
    databases::execute(
        &path,
        &format!("PRAGMA secure_delete = OFF; {tables} {schema} {} {each_day}", insert(1, ROWS)),
    );
    let first = fs::read(&path).expect("read");
    databases::execute(&path, &format!("PRAGMA secure_delete = OFF; {}", a_day(each_day)));
    [first, fs::read(&path).expect("read")]
}

/// How many times as many pages come with these rules as without.
#[track_caller]
fn assert_ratio(what: &str, days: &[Vec<u8>; 2], plain: &Delta, rules: &str, limit: f64) {
    let sanitized = second_day(days, rules);
    let said = sanitized.changed as f64 / plain.changed as f64;
    let ratio = said.max(sanitized.pages as f64 / plain.pages as f64);
    assert!(ratio <= limit, "{what}: {ratio:.2}, {plain:?} without, {sanitized:?} with rules");
}

const INDEXES: &str =
    "CREATE INDEX by_token ON accounts (token); CREATE UNIQUE INDEX by_email ON accounts (email);
                       CREATE INDEX by_visits ON accounts (visits, name);";

/// Values that are as long as before or shorter, in a table or in its indexes.
#[test]
fn hardly_more_pages_come_than_without_rules() {
    let days = production(INDEXES, "");
    let plain = second_day(&days, "");
    let sets = [
        "token = \"''\"",
        "secret = \"'secret ' || id\"",
        "secret = \"''\"",
        "secret = \"printf('%040d', id)\"",
        "token = \"substr(hex(zeroblob(40)), 1, length(token))\"",
        "token = 'NULL', secret = 'NULL'",
    ];
    for set in &sets[..depth(2, sets.len())] {
        let rules = format!("[[sanitize]]\ntable = 'accounts'\nset = {{ {set} }}\n");
        assert_ratio(set, &days, &plain, &rules, 1.2);
    }
    let rules = "[[sanitize]]\ntable = 'accounts'\ndelete = true\nwhere = 'id < 6000'\n";
    assert_ratio("delete", &days, &plain, rules, 1.2);
}

/// Where pages are split or merged, or rows come into another order, later ones get other
/// numbers: what is asserted is what was measured, and that it is still a delta.
#[test]
fn where_rows_move_more_pages_come_but_not_all() {
    let days = production(INDEXES, "");
    let plain = second_day(&days, "");
    for set in ["secret = \"printf('%090d', id)\"", "email = \"'user' || id || '@example.com'\""] {
        let rules = format!("[[sanitize]]\ntable = 'accounts'\nset = {{ {set} }}\n");
        assert_ratio(set, &days, &plain, &rules, 4.5);
    }
    let rules = "[[sanitize]]\ntable = 'accounts'\ndelete = true\nwhere = 'id % 3 = 0'\n";
    assert_ratio("delete", &days, &plain, rules, 4.5);
}

#[test]
fn an_index_of_words_that_is_made_anew_comes_in_part() {
    for words in
        ["fts5 (body, content = 'notes', content_rowid = 'id')", "fts4 (content=\"notes\", body)"]
    {
        let schema = format!("CREATE VIRTUAL TABLE words USING {words};");
        let days = production(&schema, "INSERT INTO words (words) VALUES ('rebuild');");
        let plain = second_day(&days, "");
        let sets = ["body = \"'some words ' || id\"", "body = \"''\""];
        for set in &sets[..depth(1, sets.len())] {
            let rules = format!("[[sanitize]]\ntable = 'notes'\nset = {{ {set} }}\n");
            assert_ratio(&format!("{words}: {set}"), &days, &plain, &rules, 1.2);
        }
    }
}
