//! A schema that calls what the `sqlite3` program has beside SQLite's own, such as
//! `edit()`, which runs a command: it never does, and where rules would touch it, the
//! pull is refused by name.

use std::path::Path;

use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;
use tests::env::TestEnv;

const RULE: &str = "[[sanitize]]\ntable = 'u'\nset = { a = \"'x'\" }\n";
const FIXTURE: &str =
    "[[fixture]]\npath = 'fixture.db'\nfrom = 'data.db'\nrows = { u = 5 }\ninputs = []\n";

/// A production whose database some program has made that has all these functions.
fn production(schema: &str) -> TestEnv {
    let env = TestEnv::new();
    make(&env.production().join("data.db"), schema);
    env
}

fn make(path: &Path, schema: &str) {
    let db = Connection::open(path).expect("create a database");
    for name in ["edit", "writefile", "readfile"] {
        let flags = FunctionFlags::SQLITE_UTF8
            | FunctionFlags::SQLITE_DETERMINISTIC
            | FunctionFlags::SQLITE_INNOCUOUS;
        db.create_scalar_function(name, -1, flags, |_| Ok(1)).expect("a function");
    }
    db.execute_batch("PRAGMA writable_schema = ON").expect("the schema may be written");
    db.execute_batch(schema).unwrap_or_else(|error| panic!("{schema}: {error}"));
}

/// What is in the schema, and what is to be said of it. In columns and indexes, SQLite wants a
/// function that gives the same each time, which none of these is.
fn planted(canary: &str) -> Vec<(String, &'static str)> {
    let edit = format!("edit(a, 'touch {canary} #')");
    let with = |column: &str| format!("CREATE TABLE u (a {column}); INSERT INTO u (a) VALUES (1)");
    let beside = |sql: &str| format!("{}; {sql}", with(""));
    let by_hand = |kind: &str, sql: &str| {
        let sql = sql.replace('\'', "''");
        beside(&format!("INSERT INTO sqlite_schema VALUES ('{kind}', 'v', 'v', 0, '{sql}')"))
    };
    vec![
        (
            with(&format!("CHECK (--table\n {edit} IS NOT NULL)")),
            "u calls edit(), which reaches out of the database\nhint: find out where",
        ),
        (
            with(&format!("CHECK ({} IS NOT NULL)", edit.replace('(', " \u{feff}("))),
            "u calls edit(), which reaches out of the database\nhint: find out where",
        ),
        (
            with(&format!("CHECK ({edit} IS NOT NULL)")),
            "u calls edit(), which reaches out of the database\nhint: find out where",
        ),
        (
            with(&format!("CHECK ({} IS NOT NULL)", edit.replace("edit(", "EDIT\n ("))),
            "u calls edit(), which reaches out of the database\nhint: find out where",
        ),
        (
            with(&format!("CHECK ({} IS NOT NULL)", edit.replace("edit", "\"edit\""))),
            "u calls edit(), which reaches out of the database\nhint: find out where",
        ),
        (
            with(&format!("CHECK ({} IS NOT NULL)", edit.replace("edit(", "[edit]/**/("))),
            "u calls edit(), which reaches out of the database\nhint: find out where",
        ),
        (
            with(&format!(", b DEFAULT ({})", edit.replace("(a", "(1"))),
            "u calls edit(), which reaches out of the database\nhint: find out where",
        ),
        (with(&format!(", b AS ({edit})")), "non-deterministic"),
        (beside(&format!("CREATE INDEX i ON u ({edit})")), "non-deterministic"),
        (beside(&format!("CREATE INDEX i ON u (a) WHERE {edit}")), "non-deterministic"),
        (
            beside(&format!("CREATE VIEW v AS SELECT {edit} FROM u")),
            "v calls edit(), which reaches out of the database\nhint: find out where",
        ),
        (
            beside(&format!("CREATE VIEW v AS SELECT 1 FROM u JOIN u AS x ON {edit}")),
            "v calls edit(), which reaches out of the database\nhint: find out where",
        ),
        (
            beside(&format!(
                "CREATE VIEW v AS SELECT 1 FROM u AS \"create index\" JOIN u AS \"my index\" ON {}",
                edit.replace("(a", "(1")
            )),
            "v calls edit(), which reaches out of the database\nhint: find out where",
        ),
        (
            beside(&format!(
                "CREATE TRIGGER v AFTER UPDATE ON u BEGIN SELECT {}; END",
                edit.replace("(a", "(new.a")
            )),
            "v calls edit(), which reaches out of the database\nhint: find out where",
        ),
        (
            beside(&format!("CREATE VIEW v AS SELECT writefile('{canary}', a) FROM u")),
            "v calls writefile(), which",
        ),
        (
            by_hand("table", "CREATE VIRTUAL TABLE v USING zipfile('/etc/x.zip')"),
            "v calls zipfile(), which",
        ),
        (
            by_hand("view", "CREATE VIEW v AS SELECT name FROM fsdir WHERE path = '/'"),
            "v calls fsdir(), which",
        ),
    ]
}

#[test]
fn a_schema_that_reaches_out_is_refused_by_name_where_rules_would_touch_it() {
    let count = planted("").len();
    for i in 0..count {
        let env = TestEnv::new();
        let canary = env.path("canary");
        let (schema, said) = planted(&canary.display().to_string()).swap_remove(i);
        make(&env.production().join("data.db"), &schema);
        env.db_toml(&format!("{RULE}{FIXTURE}"));
        env.local_pull(&[]).fails(1).stderr_has(said).stderr_has("hint: ");
        assert!(!canary.exists(), "{schema}");
        // Where nothing touches it, it is looked at, and may come, if SQLite here can read it.
        env.db_toml(FIXTURE);
        env.local_pull(&[]);
        env.xtask(["refresh-fixtures"]);
        assert!(!canary.exists(), "{schema}");
    }
}

#[test]
fn tables_and_columns_may_be_called_so() {
    let env = production(
        "CREATE TABLE u (a, edit, zipfile TEXT, edited VARCHAR (5), fsdir DEFAULT 1); INSERT INTO u (a) VALUES (1);
         CREATE TABLE edit (id INTEGER PRIMARY KEY); CREATE TABLE IF NOT EXISTS zipfile (id, edit VARCHAR (5));
         CREATE TABLE \"readfile\" (id REFERENCES edit (id)); CREATE UNIQUE INDEX e ON edit (id); CREATE INDEX edit_id ON \"edit\"(id);
         CREATE TRIGGER t AFTER UPDATE ON u BEGIN INSERT INTO edit(id) VALUES (1); END;
         CREATE VIEW v AS SELECT u.edit, zipfile FROM u",
    );
    env.db_toml(RULE);
    env.local_pull(&[]).ok().stderr_has("1 row masked");
}
