//! `cargo xtask pull-db` removes secrets on the server, before anything is sent.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use tests::databases;
use tests::env::TestEnv;
use tests::process::{Running, command};
use tests::pull::{live, pull, pull_fails, recorded, snapshot};
use tests::secrets::{Random, Secrets};
use tests::server::Sshd;
use tests::store;

const SECRET: &str = "hunter2isnosecret";

const RULES: &str = "
[[sanitize]]
table = 'export_settings'
set = { sheet_id = \"''\", client_email = \"''\", private_key = \"''\" }
";

/// Two databases with secrets, and one without such a table.
fn production() -> (TestEnv, Sshd) {
    let (env, sshd) = TestEnv::with_server();
    for name in ["data.db", "tenant.db"] {
        databases::create(&env.production().join(name), 50, 1);
        databases::create_secrets(&env.production().join(name), 30, SECRET);
    }
    databases::create(&env.production().join("other.db"), 50, 1);
    (env, sshd)
}

/// Keeps a copy of all that `fly` passes on.
fn tap(env: &TestEnv) -> PathBuf {
    let captured = env.path("captured");
    env.replace_fly(&format!("standin-fly \"$@\" | tee {}", captured.display()));
    captured
}

/// The captured stream, unpacked.
fn unpacked(env: &TestEnv) -> PathBuf {
    let stream = fs::read(env.path("captured")).expect("it was captured");
    let magic = [0x28, 0xb5, 0x2f, 0xfd];
    let start = stream.windows(4).position(|window| window == magic).expect("a zstd stream");
    fs::write(env.path("captured.zst"), &stream[start..]).expect("write a file");
    let unpacked = env.path("captured.tar");
    let mut zstd = command("zstd");
    zstd.args(["-q", "-d", "-f", "-o"]).arg(&unpacked).arg(env.path("captured.zst"));
    Running::start(&mut zstd).wait().ok();
    unpacked
}

#[track_caller]
fn assert_secret_is_nowhere(env: &TestEnv, secret: &str) {
    let found = store::files_with(&env.data(), secret);
    assert!(found.is_empty(), "{secret} is in {found:?}");
    assert!(!databases::bytes_contain(&unpacked(env), secret), "{secret} was sent");
}

#[test]
fn what_a_rule_sets_leaves_no_byte_behind_and_production_as_it_is() {
    let (env, _sshd) = production();
    env.db_toml(RULES);
    tap(&env);
    let path = env.production().join("data.db");
    // Old versions of the rows are in the file, too.
    databases::execute(&path, "UPDATE export_settings SET sheet_id = sheet_id || ' again'");
    // And so are whole pages of rows that are no more.
    databases::execute(
        &path,
        &format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
             INSERT INTO export_settings (private_key) SELECT '{SECRET}' || i FROM n;
             DELETE FROM export_settings WHERE id > 20"
        ),
    );
    let before = fs::read(&path).expect("read");
    let output = pull(&env, &[]);

    assert_secret_is_nowhere(&env, SECRET);
    assert_eq!(fs::read(&path).expect("read"), before, "production is not touched");
    let lines: Vec<&str> = output.stderr.lines().map(str::trim).collect();
    assert!(
        lines.iter().any(|line| line.starts_with("data.db") && line.ends_with("20 rows masked"))
    );
    assert!(
        lines.iter().any(|line| line.starts_with("tenant.db") && line.ends_with("30 rows masked"))
    );
    assert!(lines.iter().any(|line| line.starts_with("other.db") && line.ends_with("kB")));
    output.stderr_has("     Masking the copies on the server\n");
    databases::assert_same(&env.production().join("other.db"), &env.data().join("other.db"));
    for (name, rows) in [("data.db", 20), ("tenant.db", 30)] {
        let live = env.data().join(name);
        databases::assert_whole(&live);
        assert_eq!(databases::count(&live, "export_settings"), rows, "the rows stay");
        assert_eq!(databases::count(&live, "items"), 50);
    }
    assert_eq!(recorded(&env, "/origin/sanitize_rules").as_str().map(str::len), Some(64));
}

#[test]
fn the_capture_would_show_a_secret() {
    let (env, _sshd) = production();
    tap(&env);
    pull(&env, &[]);
    assert!(databases::bytes_contain(&unpacked(&env), SECRET));
    assert!(!store::files_with(&env.data(), SECRET).is_empty());
}

#[test]
fn rules_set_delete_run_sql_and_choose_rows_and_databases() {
    let (env, _sshd) = production();
    env.db_toml(
        "[[sanitize]]
         database = 'ten*.db'
         table = 'export_settings'
         set = { private_key = \"'k' || id\" }
         where = 'id > 10'
         [[sanitize]]
         database = 'data.db'
         table = 'EXPORT_SETTINGS'
         delete = true
         where = \"sheet_id LIKE '%-1_'\"
         [[sanitize]]
         database = '[!dt]*.db'
         sql = '''UPDATE items SET key = 'it''s ' || id -- all
         WHERE id <= 7'''",
    );
    pull(&env, &[]);
    let count = |name: &str, sql: &str| {
        let sql = format!("SELECT count(*) FROM {sql}");
        databases::query(&env.data().join(name), &sql)
    };
    let integer = databases::query(&env.data().join("data.db"), "SELECT 20");
    assert_eq!(count("tenant.db", "export_settings WHERE private_key = 'k' || id"), integer);
    assert_eq!(count("data.db", "export_settings"), integer);
    let json = pull(&env, &["--json"]).json();
    assert_eq!(json["sanitized_rows"], 20 + 10 + 7);
    let text = databases::query(&env.data().join("other.db"), "SELECT key FROM items WHERE id = 7");
    assert_eq!(text, "it's 7".to_owned().into());
    databases::assert_whole(&env.data().join("other.db"));
}

#[test]
fn the_words_of_a_full_text_index_go_with_their_rows() {
    let (env, _sshd) = TestEnv::with_server();
    let path = env.production().join("data.db");
    databases::execute(
        &path,
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT);
         CREATE VIRTUAL TABLE notes_fts USING fts5 (body, content = 'notes', content_rowid = 'id');
         CREATE VIRTUAL TABLE own_fts USING fts5 (body);
         CREATE TRIGGER notes_insert AFTER INSERT ON notes BEGIN
             INSERT INTO notes_fts (rowid, body) VALUES (new.id, new.body);
         END;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
         INSERT INTO notes (body) SELECT 'hunter2isnosecret' || (i % 7) || ' word' || i FROM n;
         INSERT INTO own_fts SELECT body FROM notes;",
    );
    env.db_toml(
        "[[sanitize]]
         table = 'notes'
         set = { body = \"'nothing to see'\" }
         [[sanitize]]
         table = 'own_fts'
         set = { body = \"'nothing either'\" }",
    );
    tap(&env);
    pull(&env, &[]);
    // A full-text index stores each word without what it shares with the one before.
    for secret in [SECRET, "hunter2", "isnosecret"] {
        assert_secret_is_nowhere(&env, secret);
    }
    let live = env.data().join("data.db");
    databases::assert_whole(&live);
    for (table, word, rows) in
        [("notes_fts", "see", 500), ("own_fts", "either", 500), ("notes_fts", "word9", 0)]
    {
        let found = databases::query(
            &live,
            &format!("SELECT count(*) FROM {table} WHERE {table} MATCH '{word}'"),
        );
        assert_eq!(found, i64::from(rows).into(), "{word}");
    }
}

#[test]
fn without_sanitizing_needs_a_yes_and_is_recorded() {
    let (env, _sshd) = production();
    env.db_toml(RULES);
    pull(&env, &[]);
    pull_fails(&env, &["--no-sanitize"], 2)
        .stderr_has("error: this needs a confirmation, and there is no terminal\n")
        .stderr_has("hint: add --yes\n");
    assert_eq!(env.fly_invocations().len(), 1, "fly is not run a second time");
    for (args, unsanitized) in [(&[][..], false), (&["--no-sanitize"], true)] {
        let plan = pull(&env, &[&["--dry-run", "--json"], args].concat()).json();
        assert_eq!(plan["databases"][0]["unsanitized"], unsanitized, "{plan}");
    }
    pull(&env, &["--no-sanitize", "--yes"]).stderr_lacks("Masking");
    let pulled = store::snapshots(&env.data()).into_iter().filter(|s| s.kind() == "pull");
    let recorded: Vec<Value> =
        pulled.map(|snapshot| snapshot.json["origin"]["sanitize_rules"].clone()).collect();
    assert_eq!(recorded.len(), 2);
    assert!(recorded[0].is_string() && recorded[1].is_null(), "{recorded:?}");
    databases::assert_same(&env.production().join("data.db"), &env.data().join("data.db"));
}

#[test]
fn a_person_at_a_terminal_can_decline_to_take_the_secrets() {
    let (env, _sshd) = production();
    env.db_toml(RULES);
    let session = env.xtask_on_pty(["pull-db", "--no-sanitize"]);
    session.wait_for_text("Pull production data without masking its secrets?");
    session.send("n");
    session.send(tests::pty::ENTER);
    assert_eq!(session.wait_exit(), 130);
    assert_eq!((env.fly_invocations().len(), live(&env)), (0, vec![]));
}

#[test]
fn a_rule_that_fails_stops_the_pull_and_nothing_is_sent() {
    for rule in [
        "table = 'export_settings'\nset = { sheet_id = 'no_such_function(1)' }",
        "table = 'items'\nset = { key = \"'same'\" }",
        "sql = 'DELETE FROM no_such_table'",
        "sql = 'DELETE FROM'",
    ] {
        let (env, _sshd) = production();
        pull(&env, &[]);
        env.db_toml(&format!("{RULES}\n[[sanitize]]\n{rule}\n"));
        let captured = tap(&env);
        // Which database is the first, among several at a time, is not said.
        pull_fails(&env, &[], 1)
            .stderr_has("error: masking ")
            .stderr_has(".db failed: rule 2: ")
            .stderr_has("hint: edit rule 2");
        assert!(!databases::bytes_contain(&captured, "XTASK-DB 1 "), "no stream begins");
        assert_eq!(snapshot(&env).kind(), "pull");
    }
}

#[test]
fn a_rule_that_means_nothing_is_refused_before_anyone_connects() {
    let (env, _sshd) = production();
    for (rule, said) in [
        ("table = 'export_settings'", "a rule is `table` with `set` or `delete = true`"),
        ("tabel = 'export_settings'\ndelete = true", "did you mean `table`?"),
        ("sql = \".shell touch owned\"", "must not begin with a dot"),
        ("database = '../*.db'\ntable = 'x'\ndelete = true", "is not a pattern of file names"),
    ] {
        env.db_toml(&format!("[[sanitize]]\n{rule}\n"));
        pull_fails(&env, &[], 2).stderr_has(said).stderr_has("db.toml");
    }
    assert_eq!(env.fly_invocations().len(), 0);
}

/// The text of a value is quoted for TOML, and people forget that SQL wants quotes too.
#[test]
fn sql_that_cannot_be_parsed_is_refused_before_anyone_connects() {
    let (env, _sshd) = production();
    let quote = "hint: text is quoted twice, for TOML and for SQL: \"'text'\"\n";
    for (keys, said, hint) in [
        (
            "set = { name = \"'x'\", password_hash = '' }",
            "users.password_hash = \"\" is not SQL",
            "hint: for empty text write \"''\"\n",
        ),
        (
            "set = { name = 'John Doe' }",
            "users.name = \"John Doe\" is not SQL: near \"Doe\": syntax error",
            quote,
        ),
        (
            "set = { mail = 'a@example.com' }",
            "users.mail = \"a@example.com\" is not SQL: near \"@example\": syntax error",
            quote,
        ),
        (
            "delete = true\nwhere = 'id ='",
            "where = \"id =\" is not SQL: incomplete input",
            "hint: such as where = \"email <> ''\"\n",
        ),
    ] {
        let rules = "[[sanitize]]\ntable = 'items'\nset.key = \"''\"\n\n";
        env.db_toml(&format!("{rules}[[sanitize]]\ntable = 'users'\n{keys}\n"));
        let error = format!("error: xtask/db.toml:5: rule 2: {said}\n{hint}");
        pull_fails(&env, &[], 2).stderr_is(&error);
    }
    assert_eq!(env.fly_invocations().len(), 0);
}

/// Of a long value, pages are left that its beginning was never on.
#[test]
fn of_a_long_value_no_remainder_is_left() {
    let mut secrets = Secrets::default();
    let long = Random::new(1).long_secret(&mut secrets, 99_999);
    for (bytes, from, left) in
        [(10_000, 5000, 3000), (10_000, 9900, 100), (120, 100, 20), (99_999, 5000, 100)]
    {
        let env = TestEnv::with_database(&format!(
            "CREATE TABLE tokens (token); CREATE TABLE old (t);
             INSERT INTO old VALUES ('{}'); INSERT INTO tokens VALUES ('{}'); DROP TABLE old",
            &long[from..from + left],
            &long[..bytes],
        ));
        env.db_toml("[[sanitize]]\ntable = 'tokens'\nset = { token = 'NULL' }");
        env.local_pull(&[]).ok();
        let copy = fs::read(env.data().join("data.db")).expect("read");
        secrets.assert_not_in(&format!("{left} of {bytes} bytes"), &copy);
    }
}
