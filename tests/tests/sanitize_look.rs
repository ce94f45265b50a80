//! After its rules, the server removes what they left in the bytes of its copy, where
//! every page stays where it was, and looks for what is still in another column.

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
fn what_stays_by_the_rules_is_not_looked_for() {
    for rule in [
        "table = 't'\nset = { a = \"'new'\" }\nwhere = 'id = 1'",
        "table = 't'\nset = { a = 'a' }",
        "table = 't'\ndelete = true\nwhere = 'id = 1'",
        // Only the beginning is the same.
        "table = 'v'\nset = { c = \"'new'\" }\nwhere = 'id = 1'",
        // The value is a key of another table.
        "table = 'u'\ndelete = true",
        // The same day is in another table; the schema has the word.
        "table = 'w'\nset = { day = \"'2001-02-03'\", word = 'NULL' }",
        "table = 'x'\nset = { a = 'NULL' }\nlook = false",
    ] {
        let env = production(
            &format!(
                "{FREE_PAGES} CREATE TABLE t (id, a); INSERT INTO t VALUES (1, '{SECRET}'), (2, '{SECRET}');
                 CREATE TABLE u (b); INSERT INTO u VALUES ('{SECRET}'); CREATE TABLE v (id, c);
                 INSERT INTO v VALUES (1, '{SECRET} of one'), (2, '{SECRET} of two');
                 CREATE TABLE w (day, word DEFAULT 'unassigned'); INSERT INTO w VALUES ('1990-12-24', 'unassigned');
                 CREATE TABLE days (d); INSERT INTO days VALUES ('on 1990-12-24 10:00');
                 CREATE TABLE x (a); INSERT INTO x VALUES ('{SECRET}')"
            ),
            &format!("[[sanitize]]\n{rule}\n"),
        );
        run(&env, None).ok();
        assert!(!is_vacuumed(&env), "{rule}");
    }
}

/// A value of each kind, which is also in another table.
#[test]
fn a_value_of_any_form_that_another_column_has_stops_the_pull() {
    let pem = "'-----BEGIN KEY-----' || char(10) || 'hunter2isnosecret' || char(13, 10) || '==='";
    let text = format!("'{SECRET}'");
    let long = format!("'{SECRET}' || hex(zeroblob(9000))");
    let blob = format!("CAST('{SECRET}' AS BLOB)");
    for (schema, value, rule) in [
        ("t (a)", text.as_str(), "table = 't'\nset = { a = '1' }"),
        ("T (A)", &text, "table = 't'\nset = { a = '1' }"),
        ("t (a)", &text, "table = 't'\ndelete = true\nlook = true"),
        ("t (a)", &text, "table = 't'\nset = { a = '1' }\nwhere = '1 -- all'"),
        ("t (a)", &long, "table = 't'\nset = { a = '1' }"),
        ("t (a)", &blob, "table = 't'\nset = { a = '1' }"),
        ("t (a)", pem, "table = 't'\nset = { a = '1' }"),
        (
            "t (a)",
            "CAST(x'0a00' || 'hunter2isnosecret' || x'00ff' AS BLOB)",
            "table = 't'\ndelete = true\nlook = true",
        ),
        ("t (a)", "CAST(x'0a0102030405060708' AS BLOB)", "table = 't'\nset = { a = '1' }"),
        ("\"t'\"\"`[\" (\"a'\"\"b\")", &text, "table = \"t'\\\"`[\"\nset = { \"a'\\\"b\" = '1' }"),
        ("t (a PRIMARY KEY) WITHOUT ROWID", &text, "table = 't'\nset = { a = '1' }"),
    ] {
        let name = schema.split(" (").next().expect("a name");
        for (other, copy, place) in [
            ("audit (\"o'\"\"[\")", "value", "audit.o'\"["),
            ("audit (old)", "'it was ' || value || '.'", "audit.old"),
            ("audit (old)", "CAST(x'00' || value || x'0a00' AS BLOB)", "audit.old"),
            ("audit (id PRIMARY KEY, old) WITHOUT ROWID", "1, value", "audit.old"),
            ("audit (now, old AS (now || '!') STORED)", "value", "audit.now"),
            ("VIRTUAL audit USING fts5 (old)", "value", "audit"),
            ("VIRTUAL audit USING fts4 (old)", "value", "audit"),
        ] {
            let other = match other.strip_prefix("VIRTUAL ") {
                Some(other) => format!("VIRTUAL TABLE {other}"),
                None => format!("TABLE {other}"),
            };
            let copy = copy.replace("value", &format!("({value})"));
            let env = production(
                &format!(
                    "CREATE TABLE {schema}; INSERT INTO {name} VALUES ({value});
                     CREATE {other}; INSERT INTO audit VALUES ({copy})"
                ),
                &format!("[[sanitize]]\n{rule}\n"),
            );
            let place = format!(" is still in {place}");
            let output = run(&env, None).fails(1).stderr_has("in data.db, what a rule removes of ");
            output.stderr_has(&place).stderr_has("look = false").stderr_lacks(SECRET);
            assert!(!live(&env).exists(), "{schema}: {copy}: {rule}");
        }
    }
}

/// By its own mistake, or by what comes behind it.
#[test]
fn a_rule_that_keeps_what_it_removes_stops_the_pull() {
    for set in ["a = \"'x' || a\"", "b = 'a', a = 'NULL'"] {
        let env = production(
            &format!("CREATE TABLE t (a, b); INSERT INTO t VALUES ('{SECRET}', 1)"),
            &format!("[[sanitize]]\ntable = 't'\nset = {{ {set} }}\n"),
        );
        run(&env, None).fails(1).stderr_has("what a rule removes of t.a is still in t.");
    }
}

#[test]
fn text_of_two_bytes_a_character_is_removed_and_looked_for() {
    for (copy, found) in [(format!("SELECT '{SECRET}'"), true), ("SELECT 1".to_owned(), false)] {
        let env = production(
            &format!(
                "PRAGMA encoding = 'UTF-16le'; {} CREATE TABLE audit (old); INSERT INTO audit {copy}",
                planted()
            ),
            RULE,
        );
        let path = env.production().join("data.db");
        let secret: Vec<u8> = SECRET.bytes().flat_map(|byte| [byte, 0]).collect();
        let has = |path: &Path| {
            let bytes = fs::read(path).expect("read");
            bytes.windows(secret.len()).any(|window| window == secret)
        };
        assert!(has(&path));
        let output = run(&env, None);
        if found {
            output.fails(1).stderr_has("tokens.token is still in audit.old");
        } else {
            output.ok();
            assert!(!is_vacuumed(&env) && !has(&live(&env)));
        }
    }
}

/// Without GNU grep, pieces cannot be looked for, but whole values can.
#[test]
fn where_grep_cannot_look_whole_values_are_found() {
    const OTHER: &str = "[ \"$1\" != --version ] || echo 'grep (BSD grep) 2.6'; exit 1";
    let servers: [fn(&TestEnv) -> Option<OsString>; 3] = [
        |env| {
            shells::script(&env.path("bin"), "grep", OTHER);
            None
        },
        |env| Some(shells::debian(&env.path(""), &["grep"]).into_os_string()),
        |env| Some(shells::busybox(&env.path(""), &["sqlite3"]).into_os_string()),
    ];
    for server in servers {
        for (copy, found) in [("token", true), ("1", false)] {
            let env = production(
                &format!(
                    "{} CREATE TABLE audit (old); INSERT INTO audit SELECT {copy} FROM tokens",
                    planted()
                ),
                RULE,
            );
            let output = run(&env, server(&env));
            if found {
                output.fails(1).stderr_has("tokens.token is still in audit.old");
            } else {
                output.ok().stderr_has("hint: the server has no GNU grep");
                assert!(!databases::bytes_contain(&live(&env), SECRET));
            }
        }
    }
}

#[test]
fn a_grep_that_fails_stops_the_pull() {
    let version = format!("[ \"$1\" != --version ] || exec {} --version;", find("grep").display());
    for grep in ["echo no memory >&2; exit 2", "kill -KILL $$"] {
        let env = production(&planted(), RULE);
        shells::script(&env.path("bin"), "grep", &format!("{version} {grep}"));
        run(&env, None).fails(1).stderr_has("looking for what rules remove from data.db failed");
    }
}

#[test]
fn each_shell_removes_and_looks() {
    for (shell, words) in [("dash", ""), ("bash", "--posix"), ("busybox", "sh")] {
        for (copy, found) in [("token", true), ("1", false)] {
            let env = production(
                &format!(
                    "PRAGMA journal_mode = WAL; {} CREATE TABLE audit (old);
                     INSERT INTO audit SELECT {copy} FROM tokens",
                    planted()
                ),
                RULE,
            );
            let exec = format!("exec {} {words} \"$@\"", find(shell).display());
            shells::script(&env.path("bin"), "sh", &exec);
            if found {
                run(&env, None).fails(1).stderr_has("tokens.token is still in audit.old");
                continue;
            }
            let copy = pulled(&env);
            assert_eq!(copy[18..20], [2, 2], "{shell}: it is in WAL mode again");
            assert!(!is_vacuumed(&env), "{shell}");
            assert!(!databases::bytes_contain(&live(&env), SECRET), "{shell}");
        }
    }
}

/// More values than grep can take are looked for as whole ones.
#[test]
fn of_very_many_values_one_that_another_column_has_is_found() {
    let env = production(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a);
         WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 40000)
         INSERT INTO t SELECT i, 'the secret number ' || i FROM n;
         CREATE TABLE audit (old); INSERT INTO audit VALUES ('the secret number 31415')",
        "[[sanitize]]\ntable = 't'\nset = { a = \"''\" }\n",
    );
    run(&env, None).fails(1).stderr_has("t.a is still in audit.old");
    databases::execute(&env.production().join("data.db"), "DELETE FROM audit");
    run(&env, None).ok();
}

/// sqlite3 does not say so: with half of the values, nothing would be found.
#[test]
fn a_disk_that_is_full_when_the_values_are_written_stops_the_pull() {
    let env = production(&planted(), RULE);
    let small = env.path("small");
    let Some(_disk) = SmallDisk::mount(&small, 4000) else { return };
    env.db_toml(&format!("staging-dir = '{}'\n{RULE}", small.display()));
    let sed = "sed -e '/SELECT coalesce(writefile/i .shell cat /dev/zero >filler 2>/dev/null' \
               -e '/^\\.output 0.look.whole/i .shell rm filler'";
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
