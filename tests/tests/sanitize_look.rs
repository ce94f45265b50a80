//! After its rules, the server looks for what they removed: it must be in no other column.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use tests::databases;
use tests::disk::SmallDisk;
use tests::env::TestEnv;
use tests::faults::can_trace;
use tests::planted::{
    FREE_PAGES, RULE, SECRET, is_vacuumed, live, planted, production, pulled, run,
};
use tests::shells::{self, find};

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
        ("t (a)", &text, "table = 't'\ndelete = true\nleak-check = true"),
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
        let places = [
            ("audit (\"o'\"\"[\")", "value", "audit.o'\"["),
            ("audit (old)", "'it was ' || value || '.'", "audit.old"),
            ("audit (old)", "CAST(x'00' || value || x'0a00' AS BLOB)", "audit.old"),
            ("audit (id PRIMARY KEY, old) WITHOUT ROWID", "1, value", "audit.old"),
            ("audit (now, old AS (now || '!') STORED)", "value", "audit.now"),
            ("VIRTUAL audit USING fts5 (old)", "value", "audit"),
            ("VIRTUAL audit USING fts4 (old)", "value", "audit"),
        ];
        // Each value once, and in each form of place one that is hard to find in it.
        let hard = value.contains("x'0a00'") || value.contains("9000");
        for (other, copy, place) in places.into_iter().take(if hard { 7 } else { 1 }) {
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
            let place = format!(", which are still in {place}");
            let output =
                run(&env, None).fails(1).stderr_has("in data.db, a rule removes values of ");
            output.stderr_has(&place).stderr_has("leak-check = false").stderr_lacks(SECRET);
            assert!(!live(&env).exists(), "{schema}: {copy}: {rule}");
        }
    }
}

/// It may have what was found.
#[test]
fn a_column_that_cannot_be_read_stops_the_pull() {
    let env = production(
        &format!(
            "CREATE TABLE tokens (token); INSERT INTO tokens VALUES ('{SECRET}');
             CREATE TABLE audit (old); INSERT INTO audit (old) VALUES ('{SECRET}')"
        ),
        RULE,
    );
    let sqlite3 = find("sqlite3");
    let fails = "case $* in *'-readonly 0.db') echo no sqlite3 >&2 && exit 1 ;; esac";
    let body = format!("{fails}; exec {} \"$@\"", sqlite3.display());
    shells::script(&env.path("bin"), "sqlite3", &body);
    run(&env, None)
        .fails(1)
        .stderr_has("searching data.db for removed values failed: no sqlite3\n")
        .stderr_lacks(SECRET);
}

/// By its own mistake, or by what comes behind it.
#[test]
fn a_rule_that_keeps_what_it_removes_stops_the_pull() {
    for set in ["a = \"'x' || a\"", "b = 'a', a = 'NULL'"] {
        let env = production(
            &format!("CREATE TABLE t (a, b); INSERT INTO t VALUES ('{SECRET}', 1)"),
            &format!("[[sanitize]]\ntable = 't'\nset = {{ {set} }}\n"),
        );
        run(&env, None).fails(1).stderr_has("a rule removes values of t.a, which are still in t.");
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
            output.fails(1).stderr_has("tokens.token, which are still in audit.old");
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
            databases::execute(&env.production().join("other.db"), &planted());
            let output = run(&env, server(&env));
            if found {
                output.fails(1).stderr_has("tokens.token, which are still in audit.old");
            } else {
                let hints = output.ok().stderr.matches("only: the server has no GNU grep").count();
                assert_eq!(hints, 1, "of two databases");
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
        run(&env, None).fails(1).stderr_has("searching data.db for removed values failed");
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
                run(&env, None).fails(1).stderr_has("tokens.token, which are still in audit.old");
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
    run(&env, None).fails(1).stderr_has("t.a, which are still in audit.old");
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
    run(&env, None).fails(1).stderr_has("free space, or set staging-dir").stderr_lacks(SECRET);
    assert!(databases::files(&small).is_empty(), "no value is left there");
}

/// Of each of these, a text that stays has a piece as well.
#[test]
fn of_values_with_the_same_middle_each_is_looked_for() {
    let photos = "https://example.com/photos/";
    for (values, kept, copy) in [
        // The last of very many.
        (
            format!(
                "WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 1500)
                 SELECT printf('user %05d {photos}%05d.png', i, i) FROM n"
            ),
            photos,
            format!("user 01500 {photos}01500.png"),
        ),
        // grep sees the first of two that overlap.
        (
            "VALUES ('at Upper Lindenstrasse 4 in Ulm'), ('strasse 4 of Bonn')".to_owned(),
            "Upper Lindenstrasse 4",
            "Upper Lindenstrasse 4 of Bonn".to_owned(),
        ),
    ] {
        let env = production(
            &format!(
                "CREATE TABLE t (a); INSERT INTO t {values}; CREATE TABLE kept (a);
                 INSERT INTO kept VALUES ('{kept}'); CREATE TABLE audit (old)"
            ),
            "[[sanitize]]\ntable = 't'\nset = { a = \"''\" }\n",
        );
        run(&env, None).ok();
        let copy = format!("INSERT INTO audit VALUES ('{copy}')");
        databases::execute(&env.production().join("data.db"), &copy);
        run(&env, None)
            .fails(1)
            .stderr_has("a rule removes values of t.a, which are still in audit.old");
    }
}

#[test]
fn the_only_values_of_two_columns_are_told_apart() {
    let env = production(
        "CREATE TABLE t (a, b); INSERT INTO t VALUES ('the one of a', 'the one of b');
         CREATE TABLE audit (old, other); INSERT INTO audit SELECT b, a FROM t",
        "[[sanitize]]\ntable = 't'\nset = { a = \"''\", b = \"''\" }\n",
    );
    let both = "t.b, which are still in audit.old, and of t.a, which are still in audit.other";
    run(&env, None).fails(1).stderr_has(both);
}

/// The bytes have it in two pieces.
#[test]
fn a_value_that_goes_on_in_the_next_page_is_found() {
    let schema = "CREATE TABLE tokens (token); CREATE TABLE audit (old);";
    // So many bytes fill pages, but for a part of the value.
    let audit = format!(
        "INSERT INTO audit VALUES (hex(zeroblob(1500)) || '{SECRET}' || substr(hex(zeroblob(2046)), 9))"
    );
    let value = format!("INSERT INTO tokens VALUES ('{SECRET}');");
    let env = production(&format!("{schema} {audit}"), RULE);
    let path = env.production().join("data.db");
    assert!(!databases::bytes_contain(&path, &SECRET[1..]), "it is in one page");
    databases::execute(&path, &value);
    run(&env, None)
        .fails(1)
        .stderr_has("tokens.token, which are still in audit.old")
        .stderr_lacks(SECRET);
    // What fails to read the table must not pass for finding nothing.
    let real = find("sqlite3");
    let body = format!(
        "read -r line; case $line in *' TABLE xtask_most '*) exit 1 ;; esac\n\
         {{ printf '%s\\n' \"$line\"; exec cat; }} | {} \"$@\"",
        real.display()
    );
    shells::script(&env.path("bin"), "sqlite3", &body);
    run(&env, None).fails(1).stderr_has("searching data.db for removed values failed");
}

#[test]
fn a_condition_that_does_not_fit_names_its_rule() {
    let rule = "[[sanitize]]\ntable = 'tokens'\nset = { token = 'NULL' }\nwhere = 'nosuch = 1'\n";
    let env = production(&planted(), &[RULE, rule].concat());
    run(&env, None).fails(1).stderr_has("rule 2: ").stderr_has("nosuch");
}

/// What sqlite3 could not write must not pass for what there is to do.
#[test]
fn a_disk_that_takes_nothing_of_what_was_noted_stops_the_pull() {
    if !can_trace() {
        return;
    }
    let copy = format!("CREATE TABLE audit (old); INSERT INTO audit VALUES ('{SECRET}');");
    for (file, schema) in [
        ("scrub", planted()),
        ("holes", planted()),
        ("spilled", planted()),
        ("look.found", format!("PRAGMA encoding = 'UTF-16le'; {} {copy}", planted())),
    ] {
        let env = production(&schema, RULE);
        let body = format!(
            "exec strace -o /dev/null -e trace=write -P \"$PWD/0.{file}\" -e inject=write:error=ENOSPC '{}' \"$@\"",
            find("sqlite3").display()
        );
        shells::script(&env.path("bin"), "sqlite3", &body);
        let output = run(&env, None);
        if output.code == Some(0) {
            let bytes = fs::read(live(&env)).expect("read");
            assert!(!bytes.windows(SECRET.len()).any(|piece| piece == SECRET.as_bytes()), "{file}");
        } else {
            output.fails(1).stderr_lacks(SECRET);
        }
    }
}

/// Where `df` says nothing, only what fails tells that the disk is too small.
#[test]
fn on_a_disk_of_any_size_all_is_removed_or_the_pull_fails() {
    let env = production(
        &format!(
            "PRAGMA page_size = 512; PRAGMA secure_delete = OFF; {} CREATE TABLE old (t);
             WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 4000)
             INSERT INTO old SELECT i || '{SECRET}{SECRET}{SECRET}{SECRET}{SECRET}{SECRET}' FROM n;
             DROP TABLE old",
            planted()
        ),
        RULE,
    );
    shells::script(&env.path("bin"), "df", "exit 1");
    let bytes = fs::metadata(env.production().join("data.db")).expect("it is there").len();
    let small = env.path("small");
    env.db_toml(&format!("staging-dir = '{}'\n{RULE}", small.display()));
    let mut failed = 0;
    for more in (0..8).map(|step| 20 + 25 * step) {
        let kibibytes = u32::try_from(bytes / 1024).expect("it is small") + more;
        let Some(_disk) = SmallDisk::mount(&small, kibibytes) else { return };
        let output = run(&env, None);
        if output.code != Some(0) {
            failed += 1;
            continue;
        }
        let bytes = fs::read(live(&env)).expect("read");
        assert!(
            !bytes.windows(SECRET.len()).any(|piece| piece == SECRET.as_bytes()),
            "{kibibytes} KiB\n{output}"
        );
    }
    assert!(failed > 0, "there was room at once");
}

/// The script's own tables are temporary ones, which come before others of that name.
#[test]
fn tables_and_columns_may_be_called_as_the_script_calls_its_own() {
    for (table, column) in [
        ("xtask_database", "name"),
        ("xtask_rule", "pattern"),
        ("xtask_set", "value"),
        ("xtask_schema", "version"),
        ("xtask_changed", "tbl"),
        ("xtask_count", "rows"),
        ("xtask_todo", "sql"),
        ("xtask_old", "line"),
        ("xtask_scope", "col"),
        ("xtask_statement", "sql"),
    ] {
        let env = production(
            &format!(
                "CREATE TABLE {table} (id, {column}); INSERT INTO {table} VALUES (1, '{SECRET}');
                 CREATE TABLE plan (most, bytes, note); INSERT INTO plan VALUES (1, 2, hex(zeroblob(9000)))"
            ),
            &format!("[[sanitize]]\ntable = '{table}'\nset = {{ {column} = \"''\" }}\n"),
        );
        run(&env, None).ok();
        let emptied = format!("SELECT count(*) FROM {table} WHERE {column} = ''");
        assert_eq!(databases::query(&live(&env), &emptied), 1.into(), "{table}");
    }
    let copy = format!(
        "CREATE TABLE tokens (token); INSERT INTO tokens VALUES ('{SECRET}');
         CREATE TABLE xtask_old (id, body); INSERT INTO xtask_old VALUES (1, '{SECRET}')"
    );
    run(&production(&copy, RULE), None).fails(1).stderr_has("which are still in xtask_old.body");
}
