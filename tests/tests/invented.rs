//! `fake()` in a rule: what `docs/masking.md` shows comes of every sqlite3, and in fixtures.

use std::fs;

use rusqlite::Connection;
use rusqlite::types::Value;
use tests::databases;
use tests::env::TestEnv;
use tests::sqlite3::Build;

const FIXTURE: &str = "
    [[fixture]]
    path = 'tests/fixtures/data.db'
    from = 'data.db'
    rows = { '*' = 'WHERE true' }\n";

/// The kinds of the page, and the value of each in row 7.
fn kinds() -> Vec<(String, String)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/masking.md");
    let page = fs::read_to_string(path).expect("read");
    let section = page.split("## Invented values\n").nth(1).expect("the section is there");
    let table = section.split("| --- | --- | --- |\n").nth(1).expect("it has a table");
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.split('`').map(str::to_owned).collect::<Vec<_>>());
    cells.map(|cells| (cells[1].clone(), cells[3].clone())).collect()
}

/// Tables with a column for each kind: `p` has a rowid, `q` has none and a key of another type. Some
/// rows are NULL or empty.
fn tables(kinds: &[(String, String)], encoding: &str) -> String {
    let columns: Vec<_> = kinds.iter().map(|(kind, _)| format!("\"{kind}\"")).collect();
    let columns = columns.join(", ");
    let values: Vec<_> = kinds.iter().map(|(kind, _)| format!("'hunter2 {kind} ' || i")).collect();
    format!(
        "PRAGMA encoding = '{encoding}';
         CREATE TABLE p (id INTEGER PRIMARY KEY, {columns}, UNIQUE (email), UNIQUE (username), UNIQUE (iban), UNIQUE (ipv6));
         CREATE TABLE q (id, {columns}, PRIMARY KEY (id), UNIQUE (email), UNIQUE (username), UNIQUE (iban)) WITHOUT ROWID;
         WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
         INSERT INTO p SELECT i, {} FROM n;
         INSERT INTO q SELECT CASE id % 3 WHEN 0 THEN id WHEN 1 THEN 'ключ ' || id ELSE CAST('k' || char(0) || id AS BLOB) END, {columns} FROM p;
         UPDATE p SET name = NULL, city = '', email = NULL WHERE id = 9;",
        values.join(", ")
    )
}

fn rules(kinds: &[(String, String)]) -> String {
    let rule = |table: &str, key: &str| {
        let sets = kinds.iter().map(|(kind, _)| format!("set.{kind} = \"fake({kind}{key})\"\n"));
        format!("[[sanitize]]\ntable = '{table}'\n{}", sets.collect::<String>())
    };
    format!("{}{}{FIXTURE}", rule("p", ""), rule("q", ", id"))
}

#[test]
fn each_kind_gives_what_is_shown_with_every_sqlite3_and_in_fixtures() {
    let kinds = kinds();
    assert_eq!(kinds.len(), 15);
    for encoding in ["UTF-8", "UTF-16le"] {
        let env = TestEnv::with_database(&tables(&kinds, encoding));
        env.db_toml(&rules(&kinds));
        let live = env.data().join("data.db");
        let mut seen = None;
        for build in Build::versions() {
            build.install(&env.path("bin"));
            env.local_pull(&["--full"]).ok().stderr_lacks("warning");
            let content = databases::content(&live);
            assert!(
                *seen.get_or_insert_with(|| content.clone()) == content,
                "{build:?} {encoding}"
            );
        }
        assert!(!databases::bytes_contain(&live, "hunter2"));
        for (kind, shown) in &kinds {
            let sql = format!("SELECT \"{kind}\" FROM p WHERE id = 7");
            assert_eq!(databases::query(&live, &sql), Value::Text(shown.clone()), "{kind}");
        }
        let kept = "SELECT name IS NULL AND city = '' AND email IS NULL AND username <> '' FROM p WHERE id = 9";
        assert_eq!(databases::query(&live, kept), Value::Integer(1));

        let fixture = env.repo().join("tests/fixtures/data.db");
        for unmasked in [false, true] {
            if unmasked {
                env.local_pull(&["--no-sanitize", "--yes"]).ok();
            }
            env.xtask(["refresh-fixtures"]).ok();
            let same = seen.as_ref().is_some_and(|seen| *seen == databases::content(&fixture));
            assert!(same, "unmasked: {unmasked}, {encoding}");
        }
    }
}

/// Else all of its pages would come again.
#[test]
fn a_row_has_the_same_value_in_each_pull() {
    let kinds = kinds();
    let env = TestEnv::with_database(&tables(&kinds, "UTF-8"));
    env.db_toml(&rules(&kinds));
    env.local_pull(&[]).ok();
    let production = env.production().join("data.db");
    databases::execute(
        &production,
        "UPDATE p SET email = 'hunter2 else' || id WHERE email NOTNULL; CREATE TABLE new (a)",
    );
    env.local_pull(&[]).ok();
    let two =
        "SELECT count(DISTINCT email) FROM (SELECT email FROM p UNION ALL SELECT email FROM old.p)";
    let snapshots = env.data().read_dir().expect("read").filter_map(|entry| {
        let path = entry.expect("an entry").path().join("data.db");
        path.exists().then_some(path)
    });
    let (mut compared, live) = (0, Connection::open(env.data().join("data.db")).expect("open"));
    for snapshot in snapshots {
        live.execute("ATTACH ?1 AS old", [snapshot.display().to_string()]).expect("attach");
        let distinct: u32 = live.query_row(two, [], |row| row.get(0)).expect("query");
        assert_eq!(distinct, 299);
        live.execute("DETACH old", []).expect("detach");
        compared += 1;
    }
    assert!(compared > 1);
}

#[test]
fn a_table_without_a_rowid_needs_a_key() {
    let env = TestEnv::with_database(
        "CREATE TABLE q (id TEXT PRIMARY KEY, email) WITHOUT ROWID; INSERT INTO q VALUES ('a', 'hunter2isno')",
    );
    let rule = |value: &str| {
        env.db_toml(&format!("[[sanitize]]\ntable = 'q'\nset = {{ email = '{value}' }}\n"));
    };
    for build in Build::versions() {
        build.install(&env.path("bin"));
        rule("fake(email)");
        env.local_pull(&[]).fails(1).stderr_has("no such column: rowid\n").stderr_has(
            "hint: a table WITHOUT ROWID has only its primary key: name that, such as fake(email, id); nothing was sent\n",
        );
    }
    for (value, error) in [
        (
            "fake(emial, id)",
            "there is no fake(emial)\nhint: did you mean `fake(email)`? there are name, first_name, ",
        ),
        (
            "fake(email, email)",
            "fake(email, email): a rule replaces that column: a list of likely values would \
                                reveal the old ones\nhint: the key is a column that stays as it is, such as the primary key\n",
        ),
    ] {
        rule(value);
        env.local_pull(&[]).fails(2).stderr_has(error);
    }
    rule("fake(email, id)");
    env.local_pull(&[]).ok();
}

/// Production has every first name, last name and city of the lists, in other rows and tables than
/// the copy.
#[test]
fn an_invented_value_is_no_leak_of_the_same_old_value() {
    let rule = "set = { first_name = 'fake(first_name)', last_name = 'fake(last_name)', city = 'fake(city)' }\n";
    let rules = format!(
        "[[sanitize]]\ntable = 'people'\n{rule}[[sanitize]]\ntable = 'contacts'\n{rule}{FIXTURE}"
    );
    let env = TestEnv::with_database(
        "CREATE TABLE people (id INTEGER PRIMARY KEY, first_name, last_name, city);
         CREATE TABLE contacts (id INTEGER PRIMARY KEY, first_name, last_name, city);
         WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
         INSERT INTO people SELECT i, 'a', 'b', 'c' FROM n;",
    );
    env.db_toml(&rules);
    env.local_pull(&[]).ok();
    let production = Connection::open(env.production().join("data.db")).expect("open");
    let live = env.data().join("data.db").display().to_string();
    production.execute("ATTACH ?1 AS live", [live]).expect("attach");
    production
        .execute_batch(
            "INSERT INTO contacts SELECT * FROM live.people WHERE id <= 3;
             UPDATE contacts SET (first_name, last_name, city) = (SELECT group_concat(DISTINCT first_name || ' '),
                group_concat(DISTINCT last_name || ' '), group_concat(DISTINCT city || ' ') FROM live.people) WHERE id = 1;
             DELETE FROM people WHERE id > 3;
             INSERT INTO contacts SELECT id, first_name, last_name, city FROM live.people WHERE id > 3;",
        )
        .expect("fill");
    drop(production);
    env.local_pull(&[]).ok();
    env.xtask(["refresh-fixtures"]).ok();
}
