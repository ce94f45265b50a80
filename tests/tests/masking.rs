//! The expressions of `docs/masking.md`, each through a pull: what the page shows is
//! what comes of it.

use std::fs;
use std::path::Path;

use rusqlite::types::Value;
use tests::env::TestEnv;
use tests::{databases, docs, sets};

/// The row whose results the page shows.
const SHOWN: i64 = 7;

/// The expressions, and the rules with a salt.
fn blocks() -> [String; 2] {
    ["Masking expressions\n", "Pseudonyms with a salt\n"]
        .map(|heading| docs::settings("masking.md", heading))
}

/// A value, the column that it is in, and what becomes of it, as SQL.
struct Example {
    column: String,
    before: String,
    after: String,
}

fn examples(block: &str) -> Vec<Example> {
    let mut shown = None;
    let mut examples = Vec::new();
    for line in block.lines() {
        if let Some((before, after)) = line.strip_prefix("# ").and_then(|l| l.split_once(" → ")) {
            shown = Some((before.to_owned(), after.to_owned()));
        } else if let Some(assignment) = line.strip_prefix("set.") {
            let column = assignment.split_once(" = ").expect("it is set").0.to_owned();
            let (before, after) = shown.take().unwrap_or_else(|| panic!("{column} is not shown"));
            examples.push(Example { column, before, after });
        }
    }
    examples
}

/// The page's `people`: two dozen of them with what it shows, and one of NULLs.
fn people(path: &Path, examples: &[Example]) {
    let list =
        |part: fn(&Example) -> &str| examples.iter().map(part).collect::<Vec<_>>().join(", ");
    let columns = list(|example| &example.column);
    databases::execute(
        path,
        &format!(
            "CREATE TABLE people (id INTEGER PRIMARY KEY, {columns});
             WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 24)
             INSERT INTO people (id, {columns}) SELECT i, {} FROM n;
             UPDATE people SET login = login || id, email = id || email WHERE id <> {SHOWN};
             CREATE UNIQUE INDEX by_login ON people (login);
             CREATE UNIQUE INDEX by_email ON people (email);
             INSERT INTO people (id) VALUES (25);
             CREATE TABLE posts (author); INSERT INTO posts SELECT login FROM people;",
            list(|example| &example.before)
        ),
    );
}

/// The same rule for another table and column.
const POSTS: &str = "
    [[sanitize]]
    table = 'posts'
    where = \"author NOT GLOB 'u_????????????????'\"
    set.author = \"'u_' || lower(substr(hex(sha3(author)), 1, 16))\"\n";

const FIXTURES: &str = "
    [[fixture]]
    path = 'tests/fixtures/people.db'
    from = 'people.db'
    rows = { '*' = 'WHERE true' }\n";

#[test]
fn each_expression_gives_what_is_shown_and_a_null_stays_one() {
    let env = TestEnv::new();
    let [rules, _] = blocks();
    let examples = examples(&rules);
    assert_eq!(examples.len(), 10);
    people(&env.production().join("people.db"), &examples);
    env.db_toml(&format!("{rules}{POSTS}"));
    sets::pull(&env);
    let live = env.data().join("people.db");
    for Example { column, after, .. } in &examples {
        let value = |id| format!("(SELECT {column} FROM people WHERE id = {id})");
        let found = databases::query(&live, &format!("SELECT quote({})", value(SHOWN)));
        let shown = databases::query(&live, &format!("SELECT quote({after})"));
        assert_eq!(found, shown, "{column}");
        let null = if after == "''" { "" } else { "NULL" };
        let sql = format!("SELECT iif({0} IS NULL, 'NULL', {0})", value(25));
        assert_eq!(databases::query(&live, &sql), Value::Text(null.to_owned()), "{column}");
    }
    for (sql, expected) in [
        ("SELECT count(*) FROM posts JOIN people ON author = login", 24),
        ("SELECT count(DISTINCT name) > 4 AND count(DISTINCT born) > 12 FROM people", 1),
        ("SELECT count(*) FROM people WHERE substr(born, 11) <> 'T07:30:00+09:00'", 0),
    ] {
        let found = databases::query(&live, sql);
        assert_eq!(found, Value::Integer(expected), "{sql}");
    }
}

/// Days of a month, from its first to its last second.
#[test]
fn a_shifted_date_stays_in_its_month_with_its_time() {
    let env = TestEnv::new();
    let [rules, _] = blocks();
    let path = env.production().join("people.db");
    people(&path, &examples(&rules));
    databases::execute(
        &path,
        "DELETE FROM people;
         WITH n(i) AS (VALUES (0) UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
         INSERT INTO people (id, seen, born)
         SELECT i, t, strftime('%Y-%m-%d %H:%M:%S', t, 'unixepoch')
           FROM (SELECT i, i * 86399 - 86400 * 1000 AS t FROM n)",
    );
    env.db_toml(&rules);
    sets::pull(&env);
    let connection = rusqlite::Connection::open(&path).expect("open");
    let attach = format!("ATTACH '{}' AS pulled", env.data().join("people.db").display());
    connection.execute_batch(&attach).expect("attach");
    let (rows, kept, moved, days): (i64, i64, i64, i64) = connection
        .query_row(
            "SELECT count(*),
                    sum(strftime('%Y-%m', o.seen, 'unixepoch') = strftime('%Y-%m', n.seen, 'unixepoch')
                        AND time(o.seen, 'unixepoch') = time(n.seen, 'unixepoch')
                        AND substr(o.born, 1, 7) = substr(n.born, 1, 7) AND time(o.born) = time(n.born)
                        AND date(n.born) = substr(n.born, 1, 10) AND typeof(n.seen) = 'integer'),
                    sum(o.seen <> n.seen), count(DISTINCT substr(n.born, 9, 2))
               FROM main.people AS o JOIN pulled.people AS n USING (id)",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        )
        .expect("compare");
    assert_eq!((rows, kept, days), (3001, 3001, 28));
    assert!(moved > 2800, "{moved}");
}

#[test]
fn a_fixture_has_the_pseudonyms_of_the_pull_whatever_it_is_cut_from() {
    let [rules, salted] = blocks();
    let examples = examples(&rules);
    // The address is in the profile as well.
    let profile = "[[sanitize]]\ntable = 'people'\nset.profile = 'NULL'\n";
    for rules in [format!("{rules}{POSTS}"), format!("{salted}{profile}")] {
        let env = TestEnv::new();
        let path = env.production().join("people.db");
        people(&path, &examples);
        databases::execute(
            &path,
            "CREATE TABLE secrets (key); INSERT INTO secrets VALUES ('a long salt')",
        );
        env.db_toml(&format!("{rules}{FIXTURES}"));
        sets::pull(&env);
        let live = env.data().join("people.db");
        let fixture = env.repo().join("tests/fixtures/people.db");
        let pulled = databases::content(&live);
        env.xtask(["refresh-fixtures"]).ok();
        assert!(databases::content(&fixture) == pulled, "of what the rules have seen");
        let cut = fs::read(&fixture).expect("read");
        env.local_pull(&["--no-sanitize", "--yes"]).ok();
        databases::assert_same(&live, &path);
        env.xtask(["refresh-fixtures"]).ok();
        assert!(fs::read(&fixture).expect("read") == cut, "of what they have not");
    }
}

#[test]
fn a_salt_is_used_before_it_is_removed() {
    let [_, rules] = blocks();
    let pseudonyms = |salt: &str| {
        let env = TestEnv::new();
        let path = env.production().join("people.db");
        databases::execute(
            &path,
            &format!(
                "CREATE TABLE people (id INTEGER PRIMARY KEY, email UNIQUE);
                 INSERT INTO people (email) VALUES ('ada@iris.example'), ('bela@iris.example'), (NULL);
                 CREATE TABLE secrets (key); INSERT INTO secrets VALUES ('{salt}')"
            ),
        );
        env.db_toml(&rules);
        sets::pull(&env);
        let live = env.data().join("people.db");
        assert!(!databases::bytes_contain(&live, salt));
        assert_eq!(databases::query(&live, "SELECT key FROM secrets"), Value::Text(String::new()));
        let nulls = databases::query(&live, "SELECT count(*) FROM people WHERE email IS NULL");
        assert_eq!(nulls, Value::Integer(1));
        databases::query(
            &live,
            "SELECT group_concat(email) FROM people WHERE email GLOB 'user_*@example.com'",
        )
    };
    let one = pseudonyms("salt of a production");
    assert_eq!(one, pseudonyms("salt of a production"));
    assert_ne!(one, pseudonyms("salt of another one"));
    assert!(matches!(one, Value::Text(text) if text.len() == 2 * 33 + 1));
}

#[test]
fn the_fixtures_of_this_repository_have_no_address_or_secret_of_its_seed() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    for name in ["data.db", "tenant.db"] {
        for word in ["@iris", "FAKE", "gserviceaccount"] {
            assert!(!databases::bytes_contain(&fixtures.join(name), word), "{word} is in {name}");
        }
    }
}
