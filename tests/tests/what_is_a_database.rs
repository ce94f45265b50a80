//! What a pull takes for a database, and what it says of what it may not read.

use rusqlite::Connection;
use tests::databases;
use tests::env::TestEnv;
use tests::pull::live;
use tests::secrets::Random;

#[test]
fn all_files_means_all_databases() {
    let env = TestEnv::with_database("PRAGMA journal_mode = WAL; CREATE TABLE t (a)");
    let app = Connection::open(env.production().join("data.db")).expect("open");
    app.execute_batch("INSERT INTO t VALUES (1)").expect("it writes");
    let old = env.production().join("old");
    databases::execute(&old, "PRAGMA journal_mode = PERSIST; CREATE TABLE t (a)");
    env.write("production/notes.txt", "not a database");
    env.write("production/odd-wal", "not a log");
    assert!(databases::files(&env.production()).contains(&"data.db-shm".to_owned()));
    assert!(env.production().join("old-journal").exists(), "it is kept");
    env.write("production/gone.db-journal", "left");
    env.db_toml("include = ['*']\n");
    env.local_pull(&[]).ok();
    assert_eq!(live(&env), ["data.db", "old"]);
}

#[test]
fn what_a_pattern_names_and_is_none_is_an_error() {
    let env = TestEnv::with_database("CREATE TABLE t (a)");
    env.write("production/notes.db", "not a database");
    env.local_pull(&[])
        .fails(1)
        .stderr_has("notes.db has no SQLite header: it is another file\n")
        .stderr_has("hint: add it to exclude in xtask/db.toml, or let include name the others\n");
    env.db_toml("include = ['*', '*.db']\n");
    env.local_pull(&[]).fails(1).stderr_has("notes.db has no SQLite header");
    env.db_toml("exclude = ['notes.db']\n");
    env.local_pull(&[]).ok();
}

/// SQLCipher's salt is where SQLite's header would be.
#[test]
fn an_encrypted_database_is_refused_as_that() {
    let env = TestEnv::with_database("CREATE TABLE t (a)");
    let mut random = Random::new(3);
    let bytes: Vec<u8> = (0..8192).map(|_| random.below(256) as u8).collect();
    let path = env.production().join("secret.db");
    let says = "/secret.db is encrypted, or no SQLite database: only a program with its key can copy it at \
                one moment, and mask it\nhint: add it to exclude in xtask/db.toml; with the key, the app can \
                export it (sqlcipher_export)\n";
    let other = "/secret.db has no SQLite header: it is another file\n";
    let text = "It is plain text. ".repeat(512);
    for (content, said) in [
        (&bytes[..], says),
        (&bytes[..512], says),
        (&bytes[..8000], other),
        (&text.as_bytes()[..8192], other),
    ] {
        std::fs::write(&path, content).expect("write a file");
        for args in [&[][..], &["--no-sanitize", "--yes"]] {
            env.local_pull(args).fails(1).stderr_has(said);
        }
    }
    std::fs::write(&path, bytes).expect("write a file");
    for settings in ["exclude = ['secret.db']\n", "include = ['*']\n"] {
        env.db_toml(settings);
        env.local_pull(&[]).ok();
        assert_eq!(live(&env), ["data.db"]);
    }
}

/// It is checked as far as it can be, named, and put in place like the others.
#[test]
fn what_only_the_app_can_read_is_not_damaged() {
    let env = TestEnv::with_database(
        "CREATE TABLE own (name TEXT, n INT); INSERT INTO own VALUES ('a', 1), ('b', 2);
         CREATE INDEX by_name ON own (name); CREATE VIRTUAL TABLE words USING fts5 (body);
         INSERT INTO words VALUES ('hello'); PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = 'CREATE INDEX by_name ON own (name COLLATE app)'
          WHERE name = 'by_name';
         UPDATE sqlite_schema SET sql = 'CREATE VIRTUAL TABLE words USING fts5 (body, tokenize = app)'
          WHERE name = 'words';
         UPDATE sqlite_schema SET sql = 'CREATE TABLE own (name TEXT CHECK (app(name)), n INT)'
          WHERE name = 'own'",
    );
    databases::execute(&env.production().join("plain.db"), "CREATE TABLE t (a)");
    env.local_pull(&[]).ok().stderr_has(
        "warning: data.db: words could not be checked: a function, collation, module or tokenizer of \
         the app is missing here\n",
    );
    assert_eq!(live(&env), ["data.db", "plain.db"]);
    env.local_pull(&[])
        .ok()
        .stderr_has("Already up to date (")
        .stderr_lacks("could not be checked");
    env.xtask(["restore-db", "--latest", "--yes"]).ok();
}

/// To pass over it would take away what an earlier pull has brought of it.
#[test]
fn a_link_that_leads_nowhere_is_not_passed_over() {
    let env = TestEnv::new();
    databases::execute(&env.production().join("data.db"), "CREATE TABLE t (a)");
    std::os::unix::fs::symlink("/nowhere/other.db", env.production().join("other.db"))
        .expect("make a link");
    env.local_pull(&[])
        .fails(1)
        .stderr_has("/other.db is a dangling symbolic link")
        .stderr_has("exclude in xtask/db.toml");
    env.db_toml("exclude = ['other.db']\n");
    env.local_pull(&[]).ok();
}

#[test]
fn where_none_matches_what_was_asked_for_is_said() {
    let env = TestEnv::new();
    databases::execute(&env.production().join("data.db"), "CREATE TABLE t (a)");
    env.db_toml("include = ['*.sqlite3']\nexclude = ['x*']\n");
    env.local_pull(&["--only", "a*"])
        .fails(1)
        .stderr_has("matches: include = [\"*.sqlite3\"], exclude = [\"x*\"], --only a*\n");
}
