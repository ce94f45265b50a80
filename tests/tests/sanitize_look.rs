//! After its rules, the server looks for what they removed in the bytes of its
//! copy. Where nothing is found, every page stays where it was.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use rusqlite::types::Value;
use tests::databases;
use tests::disk::SmallDisk;
use tests::env::TestEnv;
use tests::output::Output;
use tests::process::Running;
use tests::shells::{self, find};
use tests::store;

const SECRET: &str = "hunter2isnosecret";

/// What was deleted before, so that there are free pages: a copy that is written
/// anew has none.
const FREE_PAGES: &str = "PRAGMA secure_delete = OFF; CREATE TABLE gone (t);
     WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
     INSERT INTO gone SELECT 'of no interest ' || i FROM n; DELETE FROM gone;";

/// The secret in a row, and a second time in a free page.
fn planted() -> String {
    format!(
        "{FREE_PAGES} CREATE TABLE tokens (id INTEGER PRIMARY KEY, token);
         CREATE TABLE old (t); INSERT INTO old VALUES ('{SECRET}'); DROP TABLE old;
         INSERT INTO tokens (token) VALUES ('{SECRET}'), ('short');"
    )
}

const RULE: &str = "[[sanitize]]\ntable = 'tokens'\nset = { token = 'NULL' }\n";

/// A production with one database.
fn production(sql: &str, rules: &str) -> TestEnv {
    let env = TestEnv::new();
    databases::execute(&env.production().join("data.db"), sql);
    env.db_toml(rules);
    env
}

/// A pull from a server that has these programs, or all.
fn run(env: &TestEnv, path: Option<OsString>) -> Output {
    let via = format!("local:{}", env.production().display());
    let mut pull = env.xtask_command(["pull-db", "--via", &via]);
    pull.envs(path.map(|path| ("PATH", path)));
    Running::start(&mut pull).wait()
}

/// The bytes of the database as it was pulled.
#[track_caller]
fn pulled(env: &TestEnv) -> Vec<u8> {
    run(env, None).ok();
    let newest = store::snapshots(&env.data()).pop().expect("there is a snapshot");
    fs::read(newest.path.join("data.db")).expect("read a snapshot")
}

fn live(env: &TestEnv) -> std::path::PathBuf {
    env.data().join("data.db")
}

#[track_caller]
fn is_vacuumed(env: &TestEnv) -> bool {
    databases::assert_whole(&live(env));
    databases::query(&live(env), "PRAGMA freelist_count") == Value::Integer(0)
}

#[test]
fn a_copy_that_no_rule_changes_is_the_plain_one_byte_for_byte() {
    for mode in ["WAL", "DELETE"] {
        let env = production(
            &format!(
                "PRAGMA journal_mode = {mode}; {FREE_PAGES} CREATE TABLE empty (t);
                 CREATE TABLE notes (body); INSERT INTO notes VALUES ('something to keep');
                 CREATE VIRTUAL TABLE f USING fts5 (body, content = 'notes');
                 CREATE VIRTUAL TABLE g USING fts5 (body, content = '')"
            ),
            "[[sanitize]]\ntable = 'empty'\ndelete = true\n\
             [[sanitize]]\ntable = 'notes'\nset = { body = \"''\" }\nwhere = \"body = 'x'\"\n\
             [[sanitize]]\nsql = 'DELETE FROM notes WHERE body IS NULL; UPDATE empty SET t = 1'\n",
        );
        let plain = env.path("plain.db");
        let mut sqlite3 = env.command("sqlite3");
        sqlite3.arg("-readonly").arg(env.production().join("data.db"));
        Running::start(sqlite3.arg(format!(".backup '{}'", plain.display()))).wait().ok();
        assert!(pulled(&env) == fs::read(plain).expect("read"), "{mode}");
    }
}

#[test]
fn the_copy_of_tomorrow_has_the_pages_of_today_where_they_were() {
    const PAGE: usize = 4096;
    let grow = |from: u32, to: u32| {
        format!(
            "WITH n(i) AS (VALUES ({from}) UNION ALL SELECT i + 1 FROM n WHERE i < {to})
             INSERT INTO first SELECT i, 'the text of row ' || i, hex(zeroblob(50)) FROM n;
             WITH n(i) AS (VALUES ({from}) UNION ALL SELECT i + 1 FROM n WHERE i < {to})
             INSERT INTO users SELECT i, 'person' || i || '@mail.test', 'name' || i FROM n
              WHERE i % 50 = 0;"
        )
    };
    let env = production(
        &format!(
            "PRAGMA journal_mode = WAL; {FREE_PAGES}
             CREATE TABLE first (id INTEGER PRIMARY KEY, text, more);
             CREATE TABLE users (id INTEGER PRIMARY KEY, email UNIQUE, name);
             CREATE TABLE sessions (user, token); CREATE TABLE last (id INTEGER PRIMARY KEY, data);
             {} INSERT INTO last SELECT id, text || more FROM first;
             CREATE INDEX last_data ON last (data);
             CREATE VIRTUAL TABLE f USING fts5 (data, content = 'last', content_rowid = 'id');
             INSERT INTO f (f) VALUES ('rebuild');
             INSERT INTO sessions SELECT email, 'the token of ' || id FROM users",
            grow(1, 20_000)
        ),
        // What is deleted is in part what another table has, and keeps.
        "[[sanitize]]\ntable = 'users'\nset = { name = \"'user ' || id\" }\n\
         [[sanitize]]\ntable = 'sessions'\ndelete = true\n",
    );
    let today = pulled(&env);
    databases::execute(&env.production().join("data.db"), &grow(20_001, 20_200));
    let tomorrow = pulled(&env);
    let pages = today.chunks(PAGE).zip(tomorrow.chunks(PAGE));
    let same = pages.filter(|(today, tomorrow)| today == tomorrow).count();
    let of = tomorrow.len() / PAGE;
    assert!(of > 2000 && same > of * 95 / 100, "{same} of {of} pages are the same");
}

/// 4,000 of 40 letters each.
fn secrets() -> Vec<String> {
    (1_u64..=4000)
        .map(|i| {
            let mut state = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let letters = (0..40).map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                char::from(b'a' + u8::try_from((state >> 33) % 26).expect("a letter"))
            });
            letters.collect()
        })
        .collect()
}

/// How many pieces of eight letters of one of them are in there, in either case.
fn pieces_left(secrets: &[String], bytes: &[u8]) -> usize {
    let pieces: HashSet<&[u8]> = secrets.iter().flat_map(|s| s.as_bytes().windows(8)).collect();
    bytes.to_ascii_lowercase().windows(8).filter(|window| pieces.contains(window)).count()
}

#[test]
fn of_thousands_of_secrets_no_piece_is_left_in_row_index_or_words() {
    let secrets = secrets();
    let rows: String = (secrets.iter().enumerate())
        .map(|(i, secret)| format!("INSERT INTO users VALUES ({i}, '{secret}', 'note {i}');\n"))
        .collect();
    let env = production(
        &format!(
            "PRAGMA journal_mode = WAL; CREATE TABLE users (id INTEGER PRIMARY KEY, secret, note);
             CREATE INDEX by_secret ON users (secret);
             BEGIN; {rows} COMMIT; CREATE TABLE wr (k PRIMARY KEY, secret) WITHOUT ROWID;
             INSERT INTO wr SELECT hex(id * 7919 % 4001), secret FROM users;
             CREATE VIRTUAL TABLE f USING fts5 (secret, note, content = 'users', content_rowid = 'id');
             INSERT INTO f (f) VALUES ('rebuild');
             CREATE VIRTUAL TABLE own USING fts5 (secret); INSERT INTO own SELECT secret FROM users"
        ),
        "[[sanitize]]\ntable = 'users'\nset = { secret = \"''\" }\n\
         [[sanitize]]\ntable = 'own'\nset = { secret = \"'x'\" }\n\
         [[sanitize]]\ntable = 'wr'\nset = { secret = \"'x'\" }\n",
    );
    let path = env.production().join("data.db");
    assert!(pieces_left(&secrets, &fs::read(path).expect("read")) > 4 * 4000);
    assert_eq!(pieces_left(&secrets, &pulled(&env)), 0);
    databases::assert_whole(&live(&env));
}

/// What an index makes of a value is not what is looked for. Each of these would
/// leave a piece in another way.
#[test]
fn an_index_of_an_expression_is_made_anew() {
    let secrets = secrets();
    let rows: String = (secrets.iter().enumerate())
        .map(|(i, secret)| format!("INSERT INTO users VALUES ({i}, upper('{secret}'));\n"))
        .collect();
    let long = format!("lower(secret || '{}')", ".".repeat(49));
    for (index, set) in
        [("lower(secret)", "'x'"), ("lower(secret), id", "'x'"), (&long, "'x' || id")]
    {
        let schema =
            "PRAGMA secure_delete = ON; CREATE TABLE users (id INTEGER PRIMARY KEY, secret)";
        let rule = format!("[[sanitize]]\ntable = 'users'\nset = {{ secret = \"{set}\" }}\n");
        let env = production(
            &format!("{schema}; CREATE INDEX i ON users ({index}); BEGIN; {rows} COMMIT"),
            &format!("{rule}where = 'id % 7 <> 0'\n{rule}"),
        );
        assert_eq!(pieces_left(&secrets, &pulled(&env)), 0, "{index}");
        let env = production(
            &format!("{schema}; CREATE INDEX i ON users ({index}); BEGIN; {rows} COMMIT"),
            &rule,
        );
        assert_eq!(pieces_left(&secrets, &pulled(&env)), 0, "{index}, at once");
    }
}

#[test]
fn what_is_found_again_has_the_copy_written_anew_and_what_is_not_has_not() {
    let env = production(&planted(), RULE);
    run(&env, None).ok();
    assert!(is_vacuumed(&env) && !databases::bytes_contain(&live(&env), SECRET));

    let sql =
        format!("{FREE_PAGES} CREATE TABLE tokens (token); INSERT INTO tokens VALUES ('{SECRET}')");
    let env = production(&sql, RULE);
    run(&env, None).ok();
    assert!(!is_vacuumed(&env) && !databases::bytes_contain(&live(&env), SECRET));
}

#[test]
fn what_stays_by_the_rules_is_not_looked_for() {
    for rule in [
        "table = 't'\nset = { a = \"'new'\" }\nwhere = 'id = 1'",
        "table = 't'\nset = { a = 'a' }",
        "table = 't'\ndelete = true\nwhere = 'id = 1'",
        // Only the beginning is the same.
        "table = 'v'\nset = { c = \"'new'\" }\nwhere = 'id = 1'",
        // The value is a key of another table.
        "table = 'u'\ndelete = true",
    ] {
        let env = production(
            &format!(
                "{FREE_PAGES} CREATE TABLE t (id, a); INSERT INTO t VALUES (1, '{SECRET}'), (2, '{SECRET}');
                 CREATE TABLE u (b); INSERT INTO u VALUES ('{SECRET}'); CREATE TABLE v (id, c);
                 INSERT INTO v VALUES (1, '{SECRET} of one'), (2, '{SECRET} of two')"
            ),
            &format!("[[sanitize]]\n{rule}\n"),
        );
        run(&env, None).ok();
        assert!(!is_vacuumed(&env), "{rule}");
    }
}

/// A value of each kind, which is also in a table that no rule names.
#[test]
fn a_value_of_any_form_and_any_table_is_found() {
    let pem = "'-----BEGIN KEY-----' || char(10) || 'hunter2isnosecret' || char(13, 10) || '==='";
    let text = format!("'{SECRET}'");
    let blob = format!("CAST('{SECRET}' AS BLOB)");
    for (schema, value, rule) in [
        ("t (a)", text.as_str(), "table = 't'\nset = { a = '1' }"),
        ("T (A)", &text, "table = 't'\nset = { a = '1' }"),
        ("t (a)", &text, "table = 't'\ndelete = true"),
        ("t (a)", &text, "table = 't'\nset = { a = '1' }\nwhere = '1 -- all'"),
        ("t (a)", &blob, "table = 't'\nset = { a = '1' }"),
        ("t (a)", pem, "table = 't'\nset = { a = '1' }"),
        (
            "t (a)",
            "CAST(x'0a00' || 'hunter2isnosecret' || x'00ff' AS BLOB)",
            "table = 't'\ndelete = true",
        ),
        ("t (a)", "CAST(x'0001020300040506' AS BLOB)", "table = 't'\ndelete = true"),
        ("\"t'\"\"`[\" (\"a'\"\"b\")", &text, "table = 't''\"`['\nset = { \"a'\\\"b\" = '1' }"),
        ("t (a PRIMARY KEY) WITHOUT ROWID", &text, "table = 't'\nset = { a = '1' }"),
        (
            "t (a, g AS (a || 'x') STORED)",
            "substr('hunter2isnosecret', 1, 7)",
            "table = 't'\nset = { a = '1' }",
        ),
        ("t (a)", &text, "sql = \"UPDATE t SET a = 1\""),
        ("t (a)", &text, "sql = \"DROP TABLE t\""),
        ("t (a)", &text, "table = 't'\nset = { a = '1' }\nwhere = \"rowid > total_changes()\""),
    ] {
        let rule = rule.replace("table = 't''\"`['", "table = \"t'\\\"`[\"");
        let name = schema.split(" (").next().expect("a name");
        let moody = rule.contains("total_changes");
        let rows = if moody { 5000 } else { 1 };
        let kept = if schema.contains("STORED") {
            "substr('hunter2isnosecret', 1, 7) || 'x'"
        } else {
            value
        };
        let env = production(
            &format!(
                "{FREE_PAGES} CREATE TABLE {schema}; CREATE TABLE gone2 (t);
                 WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
                 INSERT INTO {name} SELECT {value} FROM n;
                 INSERT INTO gone2 SELECT {kept}; DROP TABLE gone2"
            ),
            &format!("[[sanitize]]\n{rule}\n"),
        );
        run(&env, None).ok();
        assert!(is_vacuumed(&env), "{schema}: {value}: {rule}");
    }
}

#[test]
fn text_of_two_bytes_a_character_is_removed_without_looking() {
    let env = production(&format!("PRAGMA encoding = 'UTF-16le'; {}", planted()), RULE);
    let path = env.production().join("data.db");
    let secret: Vec<u8> = SECRET.bytes().flat_map(|byte| [byte, 0]).collect();
    let has = |path: &Path| {
        let bytes = fs::read(path).expect("read");
        bytes.windows(secret.len()).any(|window| window == secret)
    };
    assert!(has(&path));
    run(&env, None).ok();
    assert!(is_vacuumed(&env) && !has(&live(&env)));
}

#[test]
fn where_nobody_can_look_the_copy_is_written_anew() {
    let version = format!("[ \"$1\" != --version ] || exec {} --version;", find("grep").display());
    for (grep, is_left) in [
        ("exit 2", false),
        ("kill -KILL $$", false),
        ("exit 0", false),
        // One that says that there is nothing: this is how the secret would stay.
        ("exit 1", true),
    ] {
        let env = production(&planted(), RULE);
        shells::script(&env.path("bin"), "grep", &format!("{version} {grep}"));
        run(&env, None).ok();
        assert_eq!(databases::bytes_contain(&live(&env), SECRET), is_left, "{grep}");
    }
    let env = production(&planted(), RULE);
    let other = "[ \"$1\" != --version ] || echo 'grep (BSD grep) 2.6'; exit 1";
    shells::script(&env.path("bin"), "grep", other);
    run(&env, None).ok();
    assert!(!databases::bytes_contain(&live(&env), SECRET), "another grep");
    let bins: [fn(&TestEnv) -> std::path::PathBuf; 2] = [
        |env| shells::debian(&env.path(""), &["grep"]),
        |env| shells::busybox(&env.path(""), &["sqlite3"]),
    ];
    for bin in bins {
        let env = production(&planted(), RULE);
        let bin = bin(&env);
        run(&env, Some(bin.clone().into_os_string())).ok();
        assert!(!databases::bytes_contain(&live(&env), SECRET), "{}", bin.display());
    }
}

#[test]
fn each_shell_looks() {
    for (shell, words) in [("dash", ""), ("bash", "--posix"), ("busybox", "sh")] {
        for (sql, vacuumed) in [
            (planted(), true),
            (
                format!(
                    "{FREE_PAGES} CREATE TABLE tokens (token); INSERT INTO tokens VALUES ('{SECRET}')"
                ),
                false,
            ),
        ] {
            let env = production(&format!("PRAGMA journal_mode = WAL; {sql}"), RULE);
            let exec = format!("exec {} {words} \"$@\"", find(shell).display());
            shells::script(&env.path("bin"), "sh", &exec);
            let copy = pulled(&env);
            assert_eq!(copy[18..20], [2, 2], "{shell}: it is in WAL mode again");
            assert_eq!(is_vacuumed(&env), vacuumed, "{shell}");
            assert!(!databases::bytes_contain(&live(&env), SECRET), "{shell}");
        }
    }
}

/// sqlite3 does not say so: with half of the values, nothing would be found.
#[test]
fn a_disk_that_is_full_when_the_values_are_written_stops_the_pull() {
    let env = production(&planted(), RULE);
    let small = env.path("small");
    let Some(_disk) = SmallDisk::mount(&small, 4000) else { return };
    env.db_toml(&format!("staging-dir = '{}'\n{RULE}", small.display()));
    let sed = "sed -e '/SELECT coalesce(writefile/i .shell cat /dev/zero >filler 2>/dev/null' \
               -e '/^\\.output 0.remake/i .shell rm filler'";
    let real = find("sqlite3");
    let real = real.display();
    let body =
        format!("case $* in *0.db) {sed} | exec {real} \"$@\" ;; *) exec {real} \"$@\" ;; esac");
    shells::script(&env.path("bin"), "sqlite3", &body);
    run(&env, None).fails(1).stderr_has("free some, or set staging-dir").stderr_lacks(SECRET);
    assert!(databases::files(&small).is_empty(), "no value is left there");
}

#[test]
fn only_the_index_of_words_that_have_changed_is_made_anew() {
    let table = |name: &str, fts: &str| {
        format!(
            "CREATE TABLE \"{name}\" (body);
             CREATE VIRTUAL TABLE \"{name}_f\" USING {fts} (body, content=\"{name}\");
             INSERT INTO \"{name}\" VALUES ('never indexed');"
        )
    };
    let tables = [table("My notes", "fts5"), table("mails", "fts4"), table("other", "fts5")];
    let view = "CREATE VIEW v AS SELECT rowid AS id, body FROM mails;
                CREATE VIRTUAL TABLE v_f USING fts5 (body, content = 'v', content_rowid = 'id');";
    let env = production(
        &format!("{} {view}", tables.concat()),
        "[[sanitize]]\ntable = 'MY notes'\nset = { body = \"'indexed'\" }\n\
         [[sanitize]]\ntable = 'mails'\nset = { body = \"'indexed'\" }\n\
         [[sanitize]]\ntable = 'other'\nset = { body = \"''\" }\nwhere = '0'\n",
    );
    run(&env, None).ok();
    for (fts, rows) in [("My notes_f", 1), ("mails_f", 1), ("v_f", 1), ("other_f", 0)] {
        let sql = format!("SELECT count(*) FROM \"{fts}\" WHERE \"{fts}\" MATCH 'indexed'");
        assert_eq!(databases::query(&live(&env), &sql), Value::Integer(rows), "{fts}");
    }
}

/// Rows that grow leave copies behind: the table is put together again.
#[test]
fn a_table_that_is_put_together_again_has_its_rows_and_their_numbers() {
    for (columns, vacuumed) in [
        (
            "(id INTEGER PRIMARY KEY AUTOINCREMENT, a, n REAL, s AS (n || a) STORED, v AS (n))",
            false,
        ),
        ("(a TEXT CHECK (length(a) > 3), n NUMERIC, rowid)", false),
        ("(a, n BLOB UNIQUE) STRICT", false),
        ("(n PRIMARY KEY, a) WITHOUT ROWID", false),
        // The number of a row goes by another name.
        ("(a, n, _rowid_)", true),
    ] {
        let numbered = !columns.contains("ROWID");
        let sql = format!(
            "{FREE_PAGES} CREATE TABLE \"t'x\" {columns}; CREATE INDEX by_a ON \"t'x\" (a);
             WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
             INSERT INTO \"t'x\" (a, n) SELECT '{SECRET} ' || (i * 7919 % 5003), CAST(i / 2.0 AS BLOB) FROM n;"
        );
        let sql = if columns.contains("STRICT") {
            sql.replace("(a, n BLOB", "(a ANY, n BLOB")
        } else {
            sql
        };
        let rule =
            "UPDATE \"t'x\" SET a = 'much longer than before ' || n || '...................'";
        let env = production(
            &format!("{sql} DELETE FROM \"t'x\" WHERE n IN (1, '3.5')"),
            "[[sanitize]]\ntable = \"t'x\"\nset = { a = \"'much longer than before ' || n || '...................'\" }\n",
        );
        run(&env, None).ok();
        assert_eq!(is_vacuumed(&env), vacuumed, "{columns}");
        assert!(!databases::bytes_contain(&live(&env), SECRET), "{columns}");
        let path = env.production().join("data.db");
        databases::execute(&path, rule);
        databases::assert_same(&path, &live(&env));
        if numbered {
            let sum = "SELECT group_concat(oid || n) FROM \"t'x\"";
            assert_eq!(databases::query(&path, sum), databases::query(&live(&env), sum));
        }
    }
}
