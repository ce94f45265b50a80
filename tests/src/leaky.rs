//! A production with secrets in every place where SQLite stores a value, and the check that a pull
//! copies no part of them.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rusqlite::{Connection, params};

use crate::databases;
use crate::env::TestEnv;
use crate::long::depth;
use crate::output::Output;
use crate::pull::assert_tidy;
use crate::secrets::{Random, Secrets};
use crate::server::Sshd;
use crate::sqlite3::Build;

pub const NAMES: [&str; 4] = ["large.db", "main.db", "small.db", "wide.db"];

/// Rules of all kinds, for the columns of each place.
pub const RULES: &str = "
[[sanitize]]
table = 'users'
set = { email = \"'user' || id || '@example.com'\", token = \"''\", note = 'NULL' }

[[sanitize]]
table = 'keys'
set = { name = \"'key'\", secret = \"printf('%0100d', owner)\" }
where = 'owner > 10'

[[sanitize]]
table = 'letters'
set = { body = \"substr(hex(zeroblob(4000)), 1, length(body))\", raw = 'NULL' }

[[sanitize]]
table = 'pems'
set = { pem = \"'none'\" }

[[sanitize]]
table = 'notes'
set = { body = \"'nothing to see'\" }

[[sanitize]]
table = 'own5'
set = { body = \"'of its own'\" }

[[sanitize]]
table = 'own4'
set = { body = \"'of its own'\" }

[[sanitize]]
table = 'sessions'
delete = true
where = 'user % 4 <> 0'

[[sanitize]]
database = 'main.db'
sql = \"UPDATE extra SET value = upper(hex(randomblob(8))); DELETE FROM extra WHERE id > 40\"
";

/// A rule for the table to which a trigger has copied values.
pub const AUDIT_RULE: &str = "
[[sanitize]]
table = 'audit'
set = { old = 'NULL' }
";

const SCHEMA: &str = "
CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, email TEXT UNIQUE, token TEXT, note TEXT, plan INTEGER,
    label TEXT GENERATED ALWAYS AS (token || ':' || plan) STORED,
    short TEXT GENERATED ALWAYS AS (substr(token, 1, 20)) VIRTUAL);
CREATE INDEX users_token ON users (token);
CREATE INDEX users_partial ON users (note) WHERE plan > 2;
CREATE INDEX users_lower ON users (lower(token));
CREATE INDEX users_covering ON users (plan, token, name);
CREATE INDEX users_label ON users (label);
CREATE INDEX users_short ON users (short, id);
CREATE TABLE audit (id INTEGER PRIMARY KEY, user INTEGER, old TEXT);
CREATE TRIGGER users_audit AFTER UPDATE OF token ON users
    BEGIN INSERT INTO audit (user, old) VALUES (old.id, old.token); END;
CREATE TABLE keys (name TEXT, owner INTEGER, secret TEXT, kept TEXT, PRIMARY KEY (name, owner)) WITHOUT ROWID;
CREATE INDEX keys_secret ON keys (secret);
CREATE TABLE letters (id INTEGER PRIMARY KEY, body TEXT, raw BLOB, kept TEXT);
CREATE TABLE pems (id INTEGER PRIMARY KEY, pem TEXT);
CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT);
CREATE VIRTUAL TABLE notes5 USING fts5 (body, content = 'notes', content_rowid = 'id');
CREATE VIRTUAL TABLE notes4 USING fts4 (content=\"notes\", body);
CREATE VIRTUAL TABLE bare5 USING fts5 (body, content = '');
CREATE VIRTUAL TABLE own5 USING fts5 (body);
CREATE VIRTUAL TABLE own4 USING fts4 (body);
CREATE TABLE sessions (id INTEGER PRIMARY KEY, user INTEGER, token TEXT);
CREATE INDEX sessions_token ON sessions (token);
CREATE TABLE extra (id INTEGER PRIMARY KEY, value TEXT);
CREATE TABLE events (id INTEGER PRIMARY KEY, kept TEXT);
CREATE INDEX events_kept ON events (kept);
WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
INSERT INTO events (kept) SELECT printf('%08d event', i * 2654435761 % 100000000) FROM n;
";

/// A production on a real server, and its developer.
pub struct Leaky {
    pub env: TestEnv,
    sshd: Sshd,
    pub secrets: Secrets,
    pub random: Random,
}

/// Made once for all tests: the bytes of each database, and the secrets.
struct Made {
    databases: Vec<(&'static str, Vec<u8>)>,
    secrets: Secrets,
    random: Random,
}

fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a temp dir");
        let (mut secrets, mut random) = (Secrets::default(), Random::new(4));
        let make = |name| {
            let path = directory.path().join(name);
            let connection = open(&path);
            connection.execute_batch(SCHEMA).expect("create the schema");
            insert(&connection, users(), &mut random, &mut secrets);
            drop(connection);
            (name, fs::read(path).expect("read a database"))
        };
        let databases = NAMES.map(make).into();
        Made { databases, secrets, random }
    })
}

/// The number of users in each database; each user has about seven secrets.
fn users() -> u32 {
    depth(60, 150)
}

/// Opens or creates a database with its own page size, encoding and modes. Deleted values are
/// overwritten, as far as SQLite does that.
fn open(path: &Path) -> Connection {
    let connection = Connection::open(path).expect("open");
    let modes = match path.file_name().and_then(|name| name.to_str()) {
        Some("large.db") => "page_size = 65536; PRAGMA auto_vacuum = 2; PRAGMA journal_mode = WAL",
        Some("small.db") => "page_size = 512; PRAGMA auto_vacuum = 1",
        Some("wide.db") => "encoding = 'UTF-16le'",
        _ => "journal_mode = WAL",
    };
    connection
        .execute_batch(&format!("PRAGMA {modes}; PRAGMA secure_delete = ON;"))
        .expect("set the modes");
    connection
}

impl Leaky {
    /// A scene with a server that has this `sqlite3`, and hundreds of secrets in each database.
    pub fn new(build: Build) -> Leaky {
        let env = TestEnv::new();
        let sshd = env.start_server(&env.server_environment().set("PATH", build.path()));
        let Made { databases, secrets, random } = made();
        for (name, bytes) in databases {
            fs::write(env.production().join(name), bytes).expect("write a database");
        }
        let leaky = Leaky { env, sshd, secrets: secrets.clone(), random: random.clone() };
        leaky.env.db_toml(&[RULES, AUDIT_RULE].concat());
        leaky.tap();
        leaky
    }

    pub fn open(&self, name: &str) -> Connection {
        open(&self.env.production().join(name))
    }

    /// Inserts users and their data: about seven secrets each.
    pub fn insert(&mut self, db: &Connection, users: u32) {
        insert(db, users, &mut self.random, &mut self.secrets);
    }

    /// Inserts and deletes secrets without `secure_delete`: leaves full pages of them, and gaps in
    /// other pages.
    pub fn insert_and_delete(&mut self, db: &Connection) {
        db.execute_batch("PRAGMA secure_delete = OFF").expect("set a mode");
        let last = |table: &str| -> i64 {
            let sql = format!("SELECT coalesce(max(rowid), 0) FROM {table}");
            db.query_row(&sql, [], |row| row.get(0)).expect("query")
        };
        let tables = ["users", "letters", "pems", "notes", "sessions", "audit"];
        let before = tables.map(last);
        self.insert(db, 60);
        for (table, before) in tables.iter().zip(before) {
            let sql = format!(
                "DELETE FROM {table} WHERE rowid > {before} + 9;
                 DELETE FROM {table} WHERE rowid > {before}"
            );
            db.execute_batch(&sql).expect("delete");
        }
        db.execute_batch("DELETE FROM keys WHERE owner NOT IN (SELECT id FROM users)")
            .expect("delete");
    }

    /// Records the whole output of `fly`.
    fn tap(&self) {
        fs::create_dir(self.captured()).expect("make a directory");
        self.env.replace_fly(&format!(
            "captured=$(mktemp -p '{}')\n\
             case \"$*\" in\n\
             *' sftp '*) standin-fly \"$@\"; code=$?; for last; do :; done; cp \"$last\" \"$captured\"; exit $code ;;\n\
             *) standin-fly \"$@\" | tee \"$captured\" ;;\n\
             esac",
            self.captured().display()
        ));
    }

    fn captured(&self) -> PathBuf {
        self.env.path("captured")
    }

    /// The recorded streams, raw and decompressed.
    pub fn streams(&self) -> Vec<Vec<u8>> {
        let names = databases::files(&self.captured());
        let streams = names.iter().map(|name| fs::read(self.captured().join(name)).expect("read"));
        streams.flat_map(|stream| [unpacked(&stream), stream]).collect()
    }

    /// A successful verbose pull; asserts that no part of a secret is anywhere but in production.
    #[track_caller]
    pub fn pull(&self, args: &[&str]) -> Output {
        let output = self.env.xtask([&["pull-db", "--yes", "-v"], args].concat()).ok();
        assert_tidy(&self.env);
        self.assert_no_secret(&output);
        output
    }

    #[track_caller]
    pub fn assert_no_secret(&self, output: &Output) {
        self.secrets.assert_not_in("standard output", &output.stdout);
        self.secrets.assert_not_in("standard error", output.stderr.as_bytes());
        self.secrets.assert_not_in("the log of sshd", self.sshd.log().as_bytes());
        for stream in self.streams() {
            self.secrets.assert_not_in("what fly brought", &stream);
        }
        // `bin` has programs, which contain any letters by chance.
        let except = [self.env.production(), self.captured(), self.env.path("bin")];
        self.secrets.assert_not_below(&self.env.path(""), &except);
    }
}

/// Inserts users and their data.
fn insert(db: &Connection, users: u32, random: &mut Random, secrets: &mut Secrets) {
    let sql = |sql: &str, values: &[&dyn rusqlite::ToSql]| {
        db.prepare_cached(sql).and_then(|mut s| s.execute(values)).expect("insert a row");
    };
    db.execute_batch("BEGIN").expect("begin");
    for i in 0..users {
        let [email, token, note] = [0; 3].map(|_| random.secret(secrets));
        sql(
            "INSERT INTO users (name, email, token, note, plan) VALUES (?1, ?2 || '@mail.test', ?3, ?4, ?5)",
            params![format!("name {i}"), email, token, note, i % 5],
        );
        let user = db.last_insert_rowid();
        if i % 3 == 0 {
            // The trigger copies the old value.
            let token = random.secret(secrets);
            sql("UPDATE users SET token = ?1 WHERE id = ?2", params![token, user]);
        }
        let key = "INSERT INTO keys VALUES (?1, ?2, ?3, 'a key')";
        match user {
            ..=10 => sql(key, params!["public", user, "known to all"]),
            _ => sql(key, params![random.secret(secrets), user, random.secret(secrets)]),
        }
        let body = random.secret(secrets);
        sql("INSERT INTO notes (body) VALUES (?1)", params![body]);
        let note = db.last_insert_rowid();
        for index in ["notes5", "notes4", "bare5"] {
            let insert = format!("INSERT INTO {index} (rowid, body) VALUES (?1, ?2)");
            sql(&insert, params![note, body]);
        }
        let own = format!("INSERT INTO own{} (body) VALUES (?1)", 4 + i % 2);
        sql(&own, params![format!("{} and some words", random.secret(secrets))]);
        let session = "INSERT INTO sessions (user, token) VALUES (?1, ?2)";
        match user % 4 {
            0 => sql(session, params![user, format!("session {user}")]),
            _ => sql(session, params![user, random.secret(secrets)]),
        }
        if i % 8 == 0 {
            let [body, raw] = [0; 2].map(|_| random.long_secret(secrets, 6000));
            let letter =
                "INSERT INTO letters (body, raw, kept) VALUES (?1, CAST(?2 AS BLOB), 'a letter')";
            sql(letter, params![body, raw]);
            sql("INSERT INTO pems (pem) VALUES (?1)", params![random.key(secrets)]);
            if db.path().is_some_and(|path| path.ends_with("main.db")) {
                let value = random.secret(secrets);
                sql("INSERT INTO extra (value) VALUES (?1)", params![value]);
            }
        }
    }
    db.execute_batch("COMMIT").expect("commit");
}

/// The decompressed part of a stream, as far as it was received.
fn unpacked(stream: &[u8]) -> Vec<u8> {
    let magic = [0x28, 0xb5, 0x2f, 0xfd];
    let mut bytes = Vec::new();
    if let Some(start) = stream.windows(4).position(|window| window == magic)
        && let Ok(mut decoder) = zstd::Decoder::new(&stream[start..])
    {
        // A truncated stream ends with an error after its last byte.
        let _ = decoder.read_to_end(&mut bytes);
    }
    bytes
}
