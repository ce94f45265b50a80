//! Of what rules remove, the server leaves nothing in the bytes of its copy, where every
//! page stays where it was.

use std::fs;
use std::path::Path;

use rusqlite::types::Value;
use tests::databases;
use tests::planted::{
    FREE_PAGES, RULE, SECRET, is_vacuumed, live, planted, production, pulled, run,
};
use tests::secrets::{Random, Secrets};

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
        let plain = fs::read(env.production().join("data.db")).expect("read");
        assert!(pulled(&env) == plain, "{mode}");
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

/// 4,000 of 40 letters each, and what finds them again.
fn secrets() -> (Vec<String>, Secrets) {
    let (mut random, mut secrets) = (Random::new(5), Secrets::default());
    ((0..4000).map(|_| random.long_secret(&mut secrets, 40)).collect(), secrets)
}

#[test]
fn of_thousands_of_secrets_no_piece_is_left_in_row_index_or_words() {
    let (values, secrets) = secrets();
    let rows: String = (values.iter().enumerate())
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
    assert!(secrets.found_in(&fs::read(path).expect("read")).len() > 4 * 4000);
    secrets.assert_not_in("the copy", &pulled(&env));
    databases::assert_whole(&live(&env));
}

/// What an index makes of a value is not what is looked for. Each of these would
/// leave a piece in another way.
#[test]
fn an_index_of_an_expression_keeps_no_piece() {
    let (values, secrets) = secrets();
    let rows: String = (values.iter().enumerate())
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
        secrets.assert_not_in(index, &pulled(&env));
        let env = production(
            &format!("{schema}; CREATE INDEX i ON users ({index}); BEGIN; {rows} COMMIT"),
            &rule,
        );
        secrets.assert_not_in(&format!("{index}, at once"), &pulled(&env));
    }
}

#[test]
fn what_is_left_in_a_free_page_goes_and_no_page_moves() {
    for mode in ["WAL", "DELETE"] {
        let env = production(&format!("PRAGMA journal_mode = {mode}; {}", planted()), RULE);
        let pages = |path: &Path| {
            databases::query(path, "SELECT group_concat(name || pageno) FROM dbstat ORDER BY 1")
        };
        let path = env.production().join("data.db");
        run(&env, None).ok();
        assert!(!databases::bytes_contain(&live(&env), SECRET));
        assert!(!is_vacuumed(&env) && pages(&live(&env)) == pages(&path), "{mode}");
    }
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
        "[[sanitize]]\ntable = 'MY notes'\nset = { body = \"'indexed'\" }\nlook = false\n\
         [[sanitize]]\ntable = 'mails'\nset = { body = \"'indexed'\" }\nlook = false\n\
         [[sanitize]]\ntable = 'other'\nset = { body = \"''\" }\nwhere = '0'\n",
    );
    run(&env, None).ok();
    for (fts, rows) in [("My notes_f", 1), ("mails_f", 1), ("v_f", 1), ("other_f", 0)] {
        let sql = format!("SELECT count(*) FROM \"{fts}\" WHERE \"{fts}\" MATCH 'indexed'");
        assert_eq!(databases::query(&live(&env), &sql), Value::Integer(rows), "{fts}");
    }
}

/// Its header says that its rows begin at 65536, which is zero in two bytes.
#[test]
fn an_empty_page_of_the_largest_size_is_filled_as_well() {
    let env = production(
        &format!(
            "PRAGMA page_size = 65536; PRAGMA secure_delete = OFF;
             CREATE TABLE t (a); CREATE INDEX i ON t (a); INSERT INTO t VALUES ('{SECRET}');
             DELETE FROM t WHERE a <> ''; CREATE TABLE kept (a); INSERT INTO kept VALUES ('kept')"
        ),
        "scrub = 'deleted-rows'\n",
    );
    assert!(databases::bytes_contain(&env.production().join("data.db"), SECRET));
    run(&env, None).ok();
    assert!(!databases::bytes_contain(&live(&env), SECRET));
    databases::assert_same(&live(&env), &env.production().join("data.db"));
}

/// An index of words keeps those of deleted rows until it happens to merge its parts.
#[test]
fn words_of_deleted_rows_are_no_longer_in_the_index() {
    const WORD: &[u8] = b"isnosecret"; // Its beginning is another word's as well.
    for fts in ["fts5 (a)", "fts5 (a, content = '')", "fts5 (a, content = 't')", "fts4 (a)"] {
        let delete = match fts {
            "fts5 (a)" | "fts4 (a)" => "DELETE FROM f WHERE rowid = 1".to_owned(),
            _ => format!("INSERT INTO f (f, rowid, a) VALUES ('delete', 1, '{SECRET}')"),
        };
        let env = production(
            &format!(
                "CREATE TABLE t (a); INSERT INTO t VALUES ('{SECRET}'), ('a kept word');
                 CREATE VIRTUAL TABLE f USING {fts}; INSERT INTO f (rowid, a) SELECT rowid, a FROM t;
                 {delete}; DELETE FROM t WHERE rowid = 1"
            ),
            "scrub = 'deleted-rows'\n",
        );
        let has = |path: &Path| {
            let bytes = fs::read(path).expect("read");
            bytes.windows(WORD.len()).any(|window| window == WORD)
        };
        assert!(has(&env.production().join("data.db")), "{fts}");
        run(&env, None).ok();
        assert!(!has(&live(&env)), "{fts}");
        let sql = "SELECT count(*) FROM f WHERE f MATCH 'kept'";
        assert_eq!(databases::query(&live(&env), sql), Value::Integer(1), "{fts}");
    }
}

/// Values of an index are also where ANALYZE has put some of them.
#[test]
fn samples_of_what_rules_remove_are_gone() {
    let tokens = "WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 100)
                  INSERT INTO t SELECT i, 'token ' || i || ' of many' FROM n;";
    for rule in [
        "[[sanitize]]\ntable = 't'\ndelete = true\n",
        "[[sanitize]]\ntable = 't'\nset = { token = 'id' }\n",
        "[[sanitize]]\nsql = 'UPDATE t SET token = id'\n",
    ] {
        let env = production(
            &format!(
                "CREATE TABLE t (id INTEGER PRIMARY KEY, token TEXT); CREATE INDEX i ON t (token);
                 {tokens} ANALYZE"
            ),
            rule,
        );
        let samples = "SELECT count(*) FROM sqlite_stat4";
        let count = |path: &Path| databases::query(path, samples);
        assert_ne!(count(&env.production().join("data.db")), Value::Integer(0));
        run(&env, None).ok();
        assert!(!databases::bytes_contain(&live(&env), " of many"), "{rule}");
        assert_eq!(count(&live(&env)), Value::Integer(0), "{rule}");
    }
}
