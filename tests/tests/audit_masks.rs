//! The rules that the audit's hint proposes: with them in `db.toml`, the next pull
//! succeeds, nothing of what they hide comes, and nothing is found any more.

use std::collections::BTreeMap;

use tests::databases;
use tests::env::TestEnv;
use tests::sqlite3::Build;

/// What a table is behind its first bracket, what a rule is to set `token` to, and the rest of the schema. The
/// table is `t` and a number, and gets rows of an `id` and a `token`.
type Case = (&'static str, Option<&'static str>, &'static str);

const ROW: Option<&str> = Some("'masked-' || rowid");
const NULL: Option<&str> = Some("NULL");
const EMPTY: Option<&str> = Some("''");
const RANDOM: Option<&str> = Some("'masked-' || hex(randomblob(8))");

const ORDINARY: [Case; 20] = [
    ("id INTEGER PRIMARY KEY, token)", EMPTY, ""),
    ("id, token TEXT NOT NULL)", EMPTY, ""),
    ("id, token VARCHAR(40) UNIQUE)", NULL, ""),
    ("id, token TEXT NOT NULL UNIQUE)", ROW, ""),
    ("id, token TEXT PRIMARY KEY)", ROW, ""),
    ("id, token TEXT PRIMARY KEY) WITHOUT ROWID", RANDOM, ""),
    ("id PRIMARY KEY, token TEXT UNIQUE) WITHOUT ROWID", NULL, ""),
    ("id, token TEXT NOT NULL, UNIQUE (id, token))", ROW, ""),
    ("id, token, PRIMARY KEY (id, token)) WITHOUT ROWID", RANDOM, ""),
    ("id, rowid, token TEXT NOT NULL UNIQUE)", RANDOM, ""),
    ("id, token BLOB NOT NULL)", Some("x''"), ""),
    ("id, token BLOB NOT NULL UNIQUE)", Some("CAST('masked-' || rowid AS BLOB)"), ""),
    ("id, \"Token\" NOT NULL)", None, "CREATE UNIQUE INDEX i12 ON t12 (lower(token), id)"),
    ("id, token NOT NULL)", ROW, "CREATE UNIQUE INDEX i13 ON t13 (token) WHERE token <> ''"),
    ("id, token NOT NULL)", None, "CREATE UNIQUE INDEX i14 ON t14 (0 * id) WHERE token = ''"),
    ("id, token CHECK (length(token) > 8))", NULL, ""),
    ("id, token, CHECK (length(/* it's, */ \"token\") > 8))", NULL, ""),
    ("id, token REFERENCES t0 (id))", NULL, ""),
    ("id, token TEXT NOT NULL, low AS (substr(token, 1, 8)))", EMPTY, ""),
    ("id, token TEXT, low AS (lower(token)) STORED)", NULL, ""),
];

/// What older versions cannot read, and what has no token in its name.
const STRICT: [Case; 6] = [
    ("id INT, token TEXT NOT NULL) STRICT", EMPTY, ""),
    ("id INT, token BLOB) STRICT", EMPTY_BLOB, ""),
    ("id INT, token BLOB NOT NULL UNIQUE) STRICT", Some("CAST('masked-' || rowid AS BLOB)"), ""),
    ("id INT, token ANY NOT NULL) STRICT", EMPTY, ""),
    ("id INT, token ANY PRIMARY KEY) STRICT, WITHOUT ROWID", RANDOM, ""),
    ("id INT, token TEXT NOT NULL UNIQUE) STRICT", ROW, ""),
];
const EMPTY_BLOB: Option<&str> = Some("x''");

fn schema(cases: &[Case]) -> String {
    let table = |(i, (columns, _, more)): (usize, &Case)| {
        let value = match columns.contains("BLOB") {
            true => format!("CAST('hunter2-{i}-secret-' || i AS BLOB)"),
            false => format!("'hunter2-{i}-secret-' || i"),
        };
        format!(
            "CREATE TABLE t{i} ({columns}; {more};
             WITH n(i) AS (VALUES (1), (2), (3)) INSERT INTO t{i} (id, token) SELECT i, {value} FROM n;\n"
        )
    };
    let tables: String = cases.iter().enumerate().map(table).collect();
    format!("PRAGMA foreign_keys = OFF; {tables}")
}

/// What is proposed for each table, and the rules as they are printed.
fn proposed(env: &TestEnv) -> (BTreeMap<String, Option<String>>, String) {
    let output = env.local_pull(&["--json", "--dry-run"]).ok();
    let json = output.json();
    let found = json["audit"].as_array().expect("an array").iter().map(|found| {
        let table = found["table"].as_str().expect("a name").to_owned();
        (table, found["set"].as_str().map(str::to_owned))
    });
    let found: BTreeMap<_, _> = found.collect();
    let rules = output.stderr.split("adds a rule for each:\n").nth(1).expect("there are rules");
    (found, rules.split("\ncolumns that are fine").next().expect("a part").to_owned())
}

fn what_is_proposed_fits(build: Build, cases: &[Case]) {
    let env = TestEnv::with_database(&schema(cases));
    build.install(&env.path("bin"));
    let (sets, rules) = proposed(&env);
    for (i, (columns, set, _)) in cases.iter().enumerate() {
        assert_eq!(sets[&format!("t{i}")].as_deref(), *set, "{columns}");
    }
    let open: Vec<_> = (cases.iter().enumerate())
        .filter(|(_, (_, set, _))| set.is_none())
        .map(|(i, _)| format!("'t{i}.token'"))
        .collect();
    env.db_toml(&format!("{rules}\n[audit]\nlevel = 'fail'\nallow = [{}]\n", open.join(", ")));
    env.local_pull(&[]).ok().stderr_lacks("warning");
    let path = env.data().join("data.db");
    for (i, (columns, set, _)) in cases.iter().enumerate() {
        assert_eq!(databases::count(&path, &format!("t{i}")), 3, "{columns}");
        let left = databases::bytes_contain(&path, &format!("hunter2-{i}-secret-2"));
        assert_eq!(left, set.is_none(), "{columns}");
    }
    databases::assert_whole(&path);
}

#[test]
fn what_is_proposed_for_a_column_fits_its_constraints() {
    for build in Build::versions() {
        what_is_proposed_fits(*build, &ORDINARY);
    }
    what_is_proposed_fits(Build::Machine, &STRICT);
}

#[test]
fn numbers_stay_numbers_and_json_stays_json() {
    let env = TestEnv::with_database(
        "CREATE TABLE ids (ssn INTEGER PRIMARY KEY);
         CREATE TABLE a (phone INTEGER NOT NULL UNIQUE); CREATE TABLE b (phone INT NOT NULL) STRICT;
         CREATE TABLE c (phone REAL); CREATE TABLE d (pin INT PRIMARY KEY, x) WITHOUT ROWID;
         CREATE TABLE e (secrets TEXT NOT NULL CHECK (json_valid(secrets)));
         CREATE TABLE f (secrets TEXT NOT NULL); CREATE INDEX i ON f (json_extract(secrets, '$.a'));
         INSERT INTO a VALUES (-2), (-3), (-1), (7); INSERT INTO b VALUES (5), (6);
         INSERT INTO c VALUES (1.5); INSERT INTO d VALUES (1234, 0), (2, 0);
         INSERT INTO e VALUES ('{\"a\": \"hunter2isno\"}'); INSERT INTO f SELECT * FROM e;",
    );
    let (sets, rules) = proposed(&env);
    let wanted = [
        ("a", Some("-1000000000000000 - rowid")),
        ("b", Some("0")),
        ("c", NULL),
        ("d", Some("random()")),
        ("e", Some("'{}'")),
        ("f", Some("'{}'")),
        ("ids", None),
    ];
    let wanted = wanted.map(|(table, set)| (table.to_owned(), set.map(str::to_owned)));
    assert_eq!(sets, wanted.into());
    env.db_toml(&format!("{rules}\n[audit]\nlevel = 'fail'\nallow = ['ids.ssn']\n"));
    env.local_pull(&[]).ok().stderr_lacks("warning");
    assert!(!databases::bytes_contain(&env.data().join("data.db"), "hunter2"));
}

#[test]
fn personal_data_becomes_invented_data_that_fits() {
    let cases = [
        ("email TEXT NOT NULL UNIQUE", "fake(email)"),
        ("username TEXT UNIQUE", "fake(username)"),
        ("full_name TEXT UNIQUE", "fake(name) || ' ' || rowid"),
        ("firstName TEXT NOT NULL", "fake(first_name)"),
        ("surname", "fake(last_name)"),
        ("phone TEXT UNIQUE", "fake(phone) || ' x' || rowid"),
        ("last_ip TEXT UNIQUE", "fake(ipv6)"),
        ("ip TEXT", "fake(ip)"),
        ("address", "fake(street)"),
        ("zip_code", "fake(postcode)"),
        ("dob DATE", "fake(birthday)"),
        ("iban TEXT NOT NULL UNIQUE", "fake(iban)"),
        ("email_address TEXT CHECK (email_address <> 'x')", "NULL"),
        ("passport TEXT", "''"),
    ];
    let table = |(i, (column, _)): (usize, &(&str, &str))| {
        format!(
            "CREATE TABLE t{i} ({column}); INSERT INTO t{i} VALUES ('hunter2isno'), ('hunter2@isyes');"
        )
    };
    let env = TestEnv::with_database(&cases.iter().enumerate().map(table).collect::<String>());
    let (sets, rules) = proposed(&env);
    for (i, (column, set)) in cases.iter().enumerate() {
        assert_eq!(sets[&format!("t{i}")].as_deref(), Some(*set), "{column}");
    }
    env.db_toml(&format!("{rules}\n[audit]\nlevel = 'fail'\n"));
    env.local_pull(&[]).ok().stderr_lacks("warning");
    assert!(!databases::bytes_contain(&env.data().join("data.db"), "hunter2"));
}

/// Nothing is known of what an expression makes of a value, nor in which form JSON has to be.
#[test]
fn where_no_value_is_known_to_fit_none_is_proposed() {
    let env = TestEnv::with_database(
        "CREATE TABLE a (token TEXT NOT NULL); CREATE UNIQUE INDEX i ON a (substr(token, 1, 6));
         CREATE TABLE b (token TEXT NOT NULL, low AS (substr(token, 1, 6)) UNIQUE);
         CREATE TABLE c (secrets BLOB NOT NULL CHECK (json_valid(secrets)));
         CREATE TABLE d (secrets TEXT NOT NULL, kind AS (json_extract(secrets, '$.kind')) NOT NULL);
         INSERT INTO a VALUES ('hunter2isno'), ('unter2isno'); INSERT INTO b SELECT * FROM a;
         INSERT INTO c VALUES ('{\"a\": 1}'); INSERT INTO d VALUES ('{\"kind\": 1}');",
    );
    let output = env.local_pull(&["--json", "--dry-run"]).ok().stderr_lacks("such as");
    let json = output.json();
    let found = json["audit"].as_array().expect("an array");
    assert!(found.len() >= 4 && found.iter().all(|found| found["set"].is_null()), "{json}");
}

/// The same column, of which one database has another.
#[test]
fn what_is_proposed_fits_every_database() {
    let env =
        TestEnv::with_database("CREATE TABLE t (token TEXT); INSERT INTO t VALUES ('hunter2isno')");
    databases::execute(
        &env.production().join("other.db"),
        "CREATE TABLE t (token TEXT NOT NULL); CREATE UNIQUE INDEX i ON t (token);
         INSERT INTO t VALUES ('hunter2isno'), ('hunter2isyes')",
    );
    let (sets, rules) = proposed(&env);
    assert_eq!(sets["t"].as_deref(), ROW);
    env.db_toml(&format!("{rules}\n[audit]\nlevel = 'fail'\n"));
    env.local_pull(&[]).ok().stderr_lacks("warning");
}

#[test]
fn a_generated_column_names_what_it_is_made_of_and_a_rule_for_that_covers_it() {
    let env = TestEnv::with_database(
        "CREATE TABLE users (a TEXT, b TEXT DEFAULT 'a, (b', \"c d\" TEXT, -- it's (
             email AS (upper(twice)), twice AS (a || \"c d\") STORED);
         INSERT INTO users VALUES ('hunter2isno', 'b', 'hunter2isyes');",
    );
    for build in Build::versions() {
        build.install(&env.path("bin"));
        env.db_toml("[audit]\nlevel = 'fail'");
        env.local_pull(&[])
            .fails(1)
            .stderr_has("\n  users.email  in data.db, 1 row, generated from a, c d\n")
            .stderr_has(
                "hint: add a rule for the columns that it is generated from\ncolumns that are fine",
            )
            .stderr_lacks("[[sanitize]]");
        let rule = "[[sanitize]]\ntable = 'users'\nset = { a = 'NULL' }\n";
        env.db_toml(&format!("[audit]\nlevel = 'fail'\n{rule}"));
        env.local_pull(&[]).fails(1).stderr_has("generated from a, c d\n");
        env.db_toml(&format!(
            "[audit]\nlevel = 'fail'\n{}",
            rule.replace(" }", ", 'c d' = 'NULL' }")
        ));
        env.local_pull(&[]).ok().stderr_lacks("warning");
    }
}
