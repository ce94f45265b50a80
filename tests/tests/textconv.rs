//! Fixtures in `git diff`: a row a line, and something for every file.

use std::fs;
use std::path::Path;

use tests::env::TestEnv;
use tests::hooks::{add_xtask, developer, hook, install_in};
use tests::output::Output;
use tests::process::Running;
use tests::{binaries, databases, shells};

const FIXTURE: &str = "repo/tests/fixtures/a.db";

/// A repository whose `cargo xtask` is the program under test, with one fixture.
fn with_fixture(sql: &str) -> TestEnv {
    let env = developer();
    // The argument that Cargo takes as its alias is not for the program.
    let xtask = binaries::xtask().display();
    shells::script(&env.path("bin"), "cargo", &format!("shift\nexec '{xtask}' \"$@\""));
    env.xtask(["install-hooks"]).ok();
    remove_hook(&env);
    fixture(&env, FIXTURE, sql);
    env
}

/// A fixture here is made by hand, which a commit is not to fix.
fn remove_hook(env: &TestEnv) {
    fs::remove_file(hook(env)).expect("it was installed");
}

fn fixture(env: &TestEnv, file: &str, sql: &str) {
    env.write(file, "");
    databases::execute(&env.path(file), sql);
    env.git(&["add", "--all"]);
    env.git(&["commit", "--quiet", "--message=fixture"]);
}

/// The lines of a diff that say what changed.
fn changed(output: Output) -> Vec<String> {
    let sign = |line: &&str| line.starts_with(['+', '-']) && !line.starts_with("+++ ");
    let output = output.ok().stderr_is("").stdout();
    let lines = output.lines().filter(sign).filter(|line| !line.starts_with("--- "));
    lines.map(str::to_owned).collect()
}

#[track_caller]
fn dump(env: &TestEnv, sql: &str) -> String {
    let path = env.path("dumped.db");
    let _ = fs::remove_file(&path);
    databases::execute(&path, sql);
    textconv(env, &path).stdout()
}

const MEMBERS: &str = "
    CREATE TABLE members (id INTEGER PRIMARY KEY, email TEXT, password_hash TEXT);
    INSERT INTO members WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 50)
        SELECT i, 'user' || i || '@example.com', '' FROM n;";

#[test]
fn a_diff_shows_the_row_that_changed() {
    let env = with_fixture(MEMBERS);
    let path = env.path(FIXTURE);
    databases::execute(&path, "UPDATE members SET email = 'x@y' WHERE id = 20");
    let wanted = [
        "-members: id=20, email='user20@example.com', password_hash=''",
        "+members: id=20, email='x@y', password_hash=''",
    ];
    let diff = env.git(&["diff"]).stdout_has("@@ -- members (50 rows)\n");
    assert_eq!(changed(diff), wanted);
    let below = env.path("repo/tests").display().to_string();
    assert_eq!(changed(env.git(&["-C", &below, "diff"])), wanted);
    env.git(&["commit", "--quiet", "--all", "--message=x"]);
    assert_eq!(changed(env.git(&["show"])), wanted);
    // As a new file, of whose rows each is one that was added.
    let log = env.git(&["log", "--patch", "--reverse", "--", "tests/fixtures/a.db"]);
    assert_eq!(changed(log).iter().filter(|line| line.starts_with("+members: ")).count(), 51);

    databases::execute(&path, "VACUUM; PRAGMA user_version = 4; CREATE INDEX e ON members(email)");
    let wanted = [
        "-PRAGMA user_version = 0;",
        "+PRAGMA user_version = 4;",
        "+CREATE INDEX e ON members(email);",
    ];
    assert_eq!(changed(env.git(&["diff"])), wanted);
    assert_eq!(databases::files(&env.path("repo/tests/fixtures")), ["a.db"]);
}

#[test]
fn a_file_that_is_no_database_has_a_line_of_its_own() {
    let env = with_fixture(MEMBERS);
    env.write(FIXTURE, "a pointer to somewhere\n");
    let diff = changed(env.git(&["diff"]));
    assert_eq!(
        diff.last().map(String::as_str),
        Some(
            "+not a SQLite database: 23 bytes, sha256 \
             149dc22433acf7f43516becea18ec2d170573192dfd8ed5373ca8bd85eaf944c"
        )
    );
    assert!(diff.contains(&"-PRAGMA user_version = 0;".to_owned()), "{diff:?}");
}

#[test]
fn where_xtask_cannot_help_git_shows_a_line() {
    let env = with_fixture(MEMBERS);
    let old = env.git(&["rev-parse", "HEAD:tests/fixtures/a.db"]).stdout();
    databases::execute(&env.path(FIXTURE), "DELETE FROM members WHERE id > 1");
    let new = env.git(&["hash-object", "tests/fixtures/a.db"]).stdout();
    let wanted = [
        format!("-cargo xtask textconv cannot show blob {}", old.trim()),
        format!("+cargo xtask textconv cannot show blob {}", new.trim()),
    ];
    // One that is too old to know the command; then none.
    shells::script(&env.path("bin"), "cargo", "echo no such command >&2; exit 2");
    assert_eq!(changed(env.git(&["diff"])), wanted);
    // What another repository calls xtask is not asked.
    shells::script(&env.path("bin"), "cargo", "echo something else");
    fs::remove_file(env.path("repo/xtask/db.toml")).expect("remove a file");
    assert_eq!(changed(env.git(&["diff", "tests"])), wanted);
    env.uninstall("cargo");
    let mut git = env.command("git");
    git.arg("diff").arg("tests").env("PATH", shells::debian(&env.path(""), &["cargo"]));
    assert_eq!(changed(Running::start(git.env_remove("CARGO_HOME")).wait()), wanted);
}

#[test]
fn xtask_may_lie_below_the_top_and_files_have_strange_names() {
    let env = with_fixture(MEMBERS);
    env.xtask(["install-hooks", "--uninstall"]).ok();
    add_xtask(&env, "repo/it's 1");
    install_in(&env, "repo/it's 1").ok();
    remove_hook(&env);
    for name in ["-a b.db", "q'\"?#%41.db", "é.db"] {
        let file = format!("repo/it's 1/tests/fixtures/{name}");
        fixture(&env, &file, "CREATE TABLE t (a); INSERT INTO t VALUES (1)");
        databases::execute(&env.path(&file), "UPDATE t SET a = 2");
        assert_eq!(changed(env.git(&["diff"])), ["-t: a=1", "+t: a=2"], "{name}");
        env.git(&["commit", "--quiet", "--all", "--message=x"]);
    }
}

#[test]
fn every_kind_of_table_and_value_is_shown() {
    let env = TestEnv::new();
    let text = dump(
        &env,
        "PRAGMA application_id = 7; PRAGMA user_version = 3;
         CREATE VIEW v AS SELECT 1;
         CREATE TABLE t (a, b REAL, \"c d\", g AS (a || 'x') VIRTUAL, s AS (b) STORED) ;
         CREATE TABLE w (k TEXT PRIMARY KEY, v INT) WITHOUT ROWID, STRICT;
         CREATE TABLE k (a, b, PRIMARY KEY (b, a));
         INSERT INTO k VALUES (1, 2), (2, 1);
         CREATE TABLE r (\"rowid\", oid TEXT PRIMARY KEY);
         CREATE TABLE \"se\"\"q\" (id INTEGER PRIMARY KEY AUTOINCREMENT);
         CREATE TRIGGER g AFTER INSERT ON t BEGIN
         \tSELECT 1; END;
         INSERT INTO t VALUES (NULL, 1, x'00ff'), (2, 0.1, 'it''s'),
             (CAST(x'ff' AS TEXT), 1e300, zeroblob(65)),
             ('a\\n' || char(10, 9, 27, 0x202e), NULL, zeroblob(64));
         INSERT INTO w VALUES ('b', 1), ('a', 2);
         INSERT INTO r VALUES (1, 'z'), (2, 'y'), (4, NULL), (3, NULL);
         INSERT INTO \"se\"\"q\" VALUES (9);",
    );
    let blob = "00".repeat(64);
    let wanted = format!(
        "PRAGMA user_version = 3;\n\
         PRAGMA application_id = 7;\n\
         CREATE TABLE k (a, b, PRIMARY KEY (b, a));\n\
         CREATE TABLE r (\"rowid\", oid TEXT PRIMARY KEY);\n\
         CREATE TABLE \"se\"\"q\" (id INTEGER PRIMARY KEY AUTOINCREMENT);\n\
         CREATE TABLE t (a, b REAL, \"c d\", g AS (a || 'x') VIRTUAL, s AS (b) STORED);\n\
         CREATE TABLE w (k TEXT PRIMARY KEY, v INT) WITHOUT ROWID, STRICT;\n\
         CREATE TRIGGER g AFTER INSERT ON t BEGIN\n         \tSELECT 1; END;\n\
         CREATE VIEW v AS SELECT 1;\n\
         -- k (2 rows)\n\
         k: a=2, b=1\n\
         k: a=1, b=2\n\
         -- r (4 rows)\n\
         r: rowid=3, oid=NULL\n\
         r: rowid=4, oid=NULL\n\
         r: rowid=2, oid='y'\n\
         r: rowid=1, oid='z'\n\
         -- \"se\"\"q\" (1 row)\n\
         \"se\"\"q\": id=9\n\
         -- sqlite_sequence (1 row)\n\
         sqlite_sequence: name='se\"q', seq=9\n\
         -- t (4 rows)\n\
         t: a=NULL, b=1.0, \"c d\"=x'00ff'\n\
         t: a=2, b=0.1, \"c d\"='it''s'\n\
         t: a=text x'ff', b=1e300, \"c d\"=<65 bytes, sha256 \
         98ce42deef51d40269d542f5314bef2c7468d401ad5d85168bfab4c0108f75f7>\n\
         t: a='a\\\\n\\n\\t\\u{{1b}}\\u{{202e}}', b=NULL, \"c d\"=x'{blob}'\n\
         -- w (2 rows)\n\
         w: k='a', v=2\n\
         w: k='b', v=1\n"
    );
    assert!(text == wanted, "{text}");
}

#[test]
fn what_sqlite_keeps_for_itself_is_left_out() {
    let env = TestEnv::new();
    let text = dump(
        &env,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT);
         CREATE INDEX i ON t (body);
         INSERT INTO t VALUES (2, 'b'), (1, 'a');
         CREATE VIRTUAL TABLE own USING fts5 (body);
         INSERT INTO own VALUES ('two'), ('one');
         CREATE VIRTUAL TABLE theirs USING fts5 (body, content = t, content_rowid = id);
         CREATE VIRTUAL TABLE place USING rtree (id, low, high);
         INSERT INTO place VALUES (1, 2, 3);
         CREATE TABLE a (id INTEGER PRIMARY KEY);
         INSERT INTO a VALUES (1);
         ANALYZE t; ANALYZE a;",
    );
    let wanted = "PRAGMA user_version = 0;\n\
                  CREATE TABLE a (id INTEGER PRIMARY KEY);\n\
                  CREATE VIRTUAL TABLE own USING fts5 (body);\n\
                  CREATE VIRTUAL TABLE place USING rtree (id, low, high);\n\
                  CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT);\n\
                  CREATE VIRTUAL TABLE theirs USING fts5 (body, content = t, content_rowid = id);\n\
                  CREATE INDEX i ON t (body);\n\
                  -- a (1 row)\na: id=1\n\
                  -- own (2 rows)\nown: body='two'\nown: body='one'\n\
                  -- place (1 row)\nplace: id=1, low=2.0, high=3.0\n\
                  -- sqlite_stat1 (2 rows)\nsqlite_stat1: tbl='a', idx=NULL, stat='1'\n\
                  sqlite_stat1: tbl='t', idx='i', stat='2 1'\n\
                  -- t (2 rows)\nt: id=1, body='a'\nt: id=2, body='b'\n";
    assert!(text == wanted, "{text}");
}

#[test]
fn what_can_be_read_of_a_damaged_database_is_shown() {
    let env = TestEnv::new();
    let path = env.path("damaged.db");
    databases::execute(
        &path,
        "CREATE TABLE a (x); CREATE TABLE b (x);
         INSERT INTO a VALUES (1); INSERT INTO b VALUES (2);",
    );
    let mut bytes = fs::read(&path).expect("read");
    bytes[4096..4196].fill(0x55);
    fs::write(&path, bytes).expect("write");
    let said = textconv(&env, &path);
    said.stdout_has("-- a: database disk image is malformed")
        .stdout_has("\n-- b (1 row)\nb: x=2\n-- not all of it can be read: ")
        .stdout_has(": 12288 bytes, sha256 ");
    // A collation that only the app has orders nothing here.
    let path = env.path("collated.db");
    databases::execute(
        &path,
        "CREATE TABLE t (k TEXT PRIMARY KEY); INSERT INTO t VALUES ('b'), ('a');
         PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = 'CREATE TABLE t (k TEXT COLLATE app PRIMARY KEY)'
             WHERE name = 't';",
    );
    textconv(&env, &path).stdout_has("-- t (2 rows)\nt: k='b'\nt: k='a'\n");
    let missing = textconv_of(&env, &env.path("missing.db")).fails(1);
    missing.stderr_has("error: cannot open ").stderr_has("missing.db");
}

fn textconv(env: &TestEnv, path: &Path) -> Output {
    textconv_of(env, path).ok().stderr_is("")
}

fn textconv_of(env: &TestEnv, path: &Path) -> Output {
    env.xtask(["textconv".as_ref(), path.as_os_str()])
}

#[test]
fn it_is_for_git_and_not_in_the_help() {
    let env = TestEnv::new();
    env.xtask(["--help"]).ok().stdout_has("install-hooks");
    let help = env.xtask(["--help"]).stdout();
    assert!(!help.contains("textconv"), "{help}");
}

/// A branch of somebody else may hold anything.
#[test]
fn a_view_without_end_is_not_read() {
    let env = TestEnv::new();
    let hostile = env.path("repo/hostile.db");
    databases::execute(
        &hostile,
        "CREATE VIEW endless AS WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n)
           SELECT i AS rowid, i AS body FROM n;
         CREATE VIRTUAL TABLE f USING fts5 (body, content = 'endless');
         CREATE TABLE f_content (a);",
    );
    let shown = env.xtask(["textconv", &hostile.display().to_string()]).ok();
    shown.stdout_has("CREATE VIRTUAL TABLE f").stdout_has("CREATE VIEW endless");
}
