//! Full-text indexes with a tokenizer or module that the server's `sqlite3` lacks: a rule empties
//! them, and the app, which has the tokenizer, finds a valid index and rebuilds it. And declarations
//! that are hard to read, of these and of others: no index keeps masked words.

use std::fs;

use rusqlite::Connection;
use rusqlite::types::Value;
use tests::databases;
use tests::env::TestEnv;
use tests::output::Output;
use tests::secrets::{Random, Secrets};
use tests::sqlite3::Build;

/// How an app may declare the index `f` over the column `body` of `notes`.
const EXTERNAL: [&str; 5] = [
    "fts5 (body, content = 'notes', content_rowid = 'id', tokenize = 'unicode61')",
    "fts5 (body, content = 'notes', content_rowid = 'id', columnsize = 0, prefix = '2 3', tokenize = 'unicode61')",
    "fts5 (body, content = 'notes', content_rowid = 'id', detail = none, tokenize = 'unicode61')",
    "fts4 (content=\"notes\", body, tokenize=unicode61)",
    "fts4 (content=\"notes\", body, prefix=\"2,4\", matchinfo=fts3, tokenize=unicode61)",
];
const OWN: [&str; 3] = [
    "fts5 (body, title UNINDEXED, tokenize = 'unicode61')",
    "fts4 (body, title, tokenize=unicode61)",
    "fts3 (body, title, tokenize=unicode61)",
];
const CONTENTLESS: [&str; 8] = [
    "fts5 (body, content = '', tokenize = 'unicode61')",
    "fts5 (body, content = '', contentless_delete = 1, tokenize = 'unicode61')",
    "fts4 (content=\"\", body, tokenize=unicode61)",
    "fts5 (body, content=[], tokenize = 'unicode61')",
    "fts5 (body, CONT = `` /* content = other */, tokenize = 'unicode61')",
    "fts4 (content=, body, tokenize=unicode61)",
    "fts4 (content=``, body, tokenize=unicode61)",
    "fts4 (content=[], body, tokenize=unicode61)",
];
/// Other objects of the schema, and an index over `notes` that is easily taken for another one.
const HARD_TO_READ: [(&str, &str); 12] = [
    (
        "CREATE VIEW f_content AS SELECT id, body FROM notes",
        "fts5 (body, content = 'f_content', content_rowid = 'id', tokenize = 'unicode61')",
    ),
    (
        "CREATE VIEW f_content AS SELECT id AS rowid, body FROM notes",
        "fts4 (content=\"f_content\", body, tokenize=unicode61)",
    ),
    ("CREATE INDEX f_content ON notes (id)", EXTERNAL[0]),
    ("CREATE TRIGGER f_content DELETE ON notes BEGIN SELECT 1; END", EXTERNAL[0]),
    ("CREATE TABLE f_content (docid INTEGER PRIMARY KEY, a)", EXTERNAL[3]),
    ("CREATE TABLE f_content (id INTEGER PRIMARY KEY, c0)", EXTERNAL[0]),
    (
        "",
        "fts5 (body /* was: body,content=other, */, content='notes' /* note */, content_rowid='id', tokenize = 'unicode61')",
    ),
    (
        "",
        "fts5 (body, -- the \"old one: ,content=other,\n content = 'notes', content_rowid = 'id', tokenize = 'unicode61')",
    ),
    (
        "",
        "fts5 (body, CON = \"notes\", content_rowid = 'id', tokenize = \"unicode61 separators ',content=other,'\")",
    ),
    (
        "CREATE TABLE f_config (k, v); CREATE TABLE f_data (id INTEGER PRIMARY KEY, block)",
        EXTERNAL[3],
    ),
    ("CREATE TABLE f_config (k, v)", EXTERNAL[4]),
    ("CREATE TABLE f_segdir (a); CREATE TABLE f_segments (a)", EXTERNAL[0]),
];

/// What the server lacks of an index.
#[derive(Clone, Copy, Debug)]
enum Lacks {
    Tokenizer,
    Module,
    Nothing,
}

impl Lacks {
    /// The declaration as the server sees it.
    fn of(self, using: &str) -> String {
        match self {
            Lacks::Tokenizer => using.replace("unicode61", "ours"),
            Lacks::Module => using.replacen("fts", "ours", 1),
            Lacks::Nothing => using.to_owned(),
        }
    }
}

const NOTES: &str = "[[sanitize]]\ntable = 'notes'\nset.body = \"'masked'\"\n";
const INDEX: &str = "[[sanitize]]\ntable = 'F'\nset.body = \"'masked'\"\nwhere = 'rowid > 1'\n";
const NO_AUDIT: &str = "[audit]\nlevel = 'off'\n";

/// A production with secrets in `notes`, and in the index `f`.
struct Production {
    env: TestEnv,
    secrets: Secrets,
    using: &'static str,
}

impl Production {
    fn new(using: &'static str, lacks: Lacks) -> Production {
        Production::beside("", using, lacks)
    }

    /// A production with other objects in the schema.
    fn beside(schema: &str, using: &'static str, lacks: Lacks) -> Production {
        let (env, mut secrets) = (TestEnv::new(), Secrets::default());
        let mut random = Random::new(7);
        let path = env.production().join("data.db");
        let db = Connection::open(&path).expect("open");
        db.execute_batch(&format!(
            "CREATE TABLE notes (id INTEGER PRIMARY KEY, body); CREATE TABLE other (a); {schema};
             CREATE VIRTUAL TABLE f USING {using}; INSERT INTO other VALUES ('kept'); BEGIN"
        ))
        .expect("the schema");
        for id in 1..200 {
            let body = [0; 5].map(|_| random.secret(&mut secrets)).join(" ");
            db.execute("INSERT INTO notes VALUES (?1, ?2)", (id, &body)).expect("a row");
            db.execute("INSERT INTO f (rowid, body) VALUES (?1, ?2)", (id, &body)).expect("a row");
        }
        db.execute_batch("COMMIT").expect("commit");
        drop(db);
        declare(&path, &lacks.of(using));
        Production { env, secrets, using }
    }

    #[track_caller]
    fn pull(&self, rules: &str) -> Output {
        self.env.db_toml(rules);
        self.env.local_pull(&["--full"]).ok()
    }

    /// No byte of a secret has arrived.
    #[track_caller]
    fn assert_masked(&self) {
        self.secrets.assert_not_below(&self.env.data(), &[]);
    }

    /// What has arrived, as the app opens it.
    fn as_app(&self) -> Connection {
        let path = self.env.path("app.db");
        fs::copy(self.env.data().join("data.db"), &path).expect("copy");
        declare(&path, self.using);
        Connection::open(path).expect("open")
    }
}

/// Writes another declaration of the index into the schema.
fn declare(path: &std::path::Path, using: &str) {
    let db = Connection::open(path).expect("open");
    db.pragma_update(None, "writable_schema", true).expect("set it");
    let sql = format!("CREATE VIRTUAL TABLE f USING {using}");
    db.execute("UPDATE sqlite_schema SET sql = ?1 WHERE name = 'f'", [sql]).expect("update");
}

#[track_caller]
fn count(db: &Connection, sql: &str) -> i64 {
    db.query_row(sql, [], |row| row.get(0)).expect(sql)
}

/// The warning for an index that can be rebuilt.
const WARNING: &str = "warning: the full-text index f in data.db is empty here: the server's sqlite3 lacks its \
                       tokenizer or module; rebuild it in your app: INSERT INTO f(f) VALUES ('rebuild')\n";

const FAULTS: &str = "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'";
const MATCH: &str = "SELECT count(*) FROM f WHERE f MATCH 'masked'";

#[test]
fn an_index_over_a_masked_table_is_emptied_and_the_app_rebuilds_it() {
    for (using, lacks) in EXTERNAL
        .into_iter()
        .map(|using| (using, Lacks::Tokenizer))
        .chain([(EXTERNAL[0], Lacks::Module), (EXTERNAL[3], Lacks::Module)])
    {
        let production = Production::new(using, lacks);
        production.pull(NOTES).stderr_has(WARNING);
        production.assert_masked();
        let app = production.as_app();
        assert_eq!(count(&app, MATCH), 0, "{using}");
        app.execute_batch("INSERT INTO f (f) VALUES ('rebuild')").expect(using);
        assert_eq!(count(&app, MATCH), 199, "{using}");
        app.execute_batch("INSERT INTO f (f) VALUES ('integrity-check')").expect(using);
        assert_eq!(count(&app, FAULTS), 0, "{using}");
    }
}

/// Each version opens and probes it in its own way.
#[test]
fn with_every_version_of_sqlite3_nothing_leaks() {
    for &build in Build::versions() {
        for using in [EXTERNAL[0], EXTERNAL[3]] {
            let production = Production::new(using, Lacks::Tokenizer);
            build.install(&production.env.path("bin"));
            production.pull(NOTES).stderr_has(WARNING);
            production.assert_masked();
        }
        for using in OWN {
            let production = Production::new(using, Lacks::Tokenizer);
            build.install(&production.env.path("bin"));
            production.pull(&[NOTES, INDEX].concat()).stderr_has("with its text");
            production.assert_masked();
        }
    }
}

/// What is not known to be unchanged is rebuilt, or emptied if it cannot be opened.
#[test]
fn no_other_object_comment_or_option_makes_an_index_look_unchanged() {
    for (schema, using) in HARD_TO_READ {
        for &build in Build::versions() {
            let production = Production::beside(schema, using, Lacks::Tokenizer);
            build.install(&production.env.path("bin"));
            production.pull(&[NO_AUDIT, NOTES].concat()).stderr_has(WARNING);
            production.assert_masked();

            let production = Production::beside(schema, using, Lacks::Nothing);
            build.install(&production.env.path("bin"));
            production.pull(&[NO_AUDIT, NOTES].concat()).stderr_lacks("is empty here");
            production.assert_masked();
            assert_eq!(count(&production.as_app(), MATCH), 199, "{using} beside {schema}");
        }
    }
}

/// The table in which another index keeps its text changes with that index.
#[test]
fn an_index_over_the_text_of_another_index_is_rebuilt_with_it() {
    let env = TestEnv::new();
    databases::execute(
        &env.production().join("data.db"),
        "CREATE VIRTUAL TABLE g USING fts5 (a); INSERT INTO g VALUES ('zsecretword');
         CREATE VIRTUAL TABLE f USING fts5 (c0, content = 'g_content', content_rowid = 'id');
         INSERT INTO f (f) VALUES ('rebuild')",
    );
    env.db_toml("[[sanitize]]\ntable = 'g'\nset.a = \"'masked'\"\n");
    env.local_pull(&["--full"]).ok();
    let path = env.data().join("data.db");
    assert!(!databases::bytes_contain(&path, "secretword"));
    assert_eq!(databases::query(&path, MATCH), Value::Integer(1));
}

#[test]
fn a_table_beside_another_virtual_table_makes_no_full_text_index_of_it() {
    let env = TestEnv::new();
    databases::execute(
        &env.production().join("data.db"),
        "CREATE VIRTUAL TABLE sensors USING rtree (id, low, high); INSERT INTO sensors VALUES (1, 2, 3);
         CREATE TABLE sensors_config (api_token); INSERT INTO sensors_config VALUES ('any');
         CREATE TABLE notes (body); INSERT INTO notes VALUES ('a note of the user')",
    );
    env.db_toml(&[NOTES, "[audit]\nlevel = 'fail'\n"].concat());
    env.local_pull(&[]).fails(1).stderr_has("sensors_config.api_token");
    env.db_toml(&[NO_AUDIT, NOTES].concat());
    env.local_pull(&[]).ok();
    assert_eq!(databases::count(&env.data().join("data.db"), "sensors"), 1);
}

/// Also a name that no argument of a dot-command can contain, and no line.
#[test]
fn an_index_of_any_name_is_emptied() {
    let names = ["it's", "a\"b", "a\tb", "a\nb\\n", "a b;", "x using fts4(", "~", "$x`id`", "- -"];
    let production = Production::new(EXTERNAL[0], Lacks::Tokenizer);
    let path = production.env.production().join("data.db");
    for name in names {
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        let db = Connection::open(&path).expect("open");
        db.execute_batch(&format!(
            "CREATE VIRTUAL TABLE {quoted} USING {}; INSERT INTO {quoted} ({quoted}) VALUES ('rebuild');
             PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, 'unicode61', 'ours')",
            EXTERNAL[0]
        ))
        .expect(name);
    }
    let mut output = production.pull(NOTES);
    for name in names {
        let shown = name.replace(['\t', '\n'], " ");
        output =
            output.stderr_has(&format!("the full-text index {shown} in data.db is empty here"));
    }
    production.assert_masked();
}

/// A rule for the index cannot run: its text stays on the server.
#[test]
fn an_index_with_its_own_text_is_emptied_with_it_by_a_rule_for_it() {
    for (using, lacks) in OWN
        .into_iter()
        .map(|using| (using, Lacks::Tokenizer))
        .chain([(OWN[0], Lacks::Module), (OWN[1], Lacks::Module)])
    {
        let production = Production::new(using, lacks);
        production
            .pull(&[NOTES, INDEX, "[audit]\nlevel = 'fail'\nallow = ['notes.*', 'other.*']\n"].concat())
            .stderr_has(
                "warning: the full-text index f in data.db is empty here, with its text: a rule is for it, \
                 and the server's sqlite3 lacks its tokenizer or module\n",
            )
            .stderr_has("398 rows masked")
            .stderr_lacks("rebuild");
        production.assert_masked();
        let app = production.as_app();
        assert_eq!(count(&app, "SELECT count(*) FROM f"), 0, "{using}");
        app.execute_batch("INSERT INTO f (body, title) VALUES ('masked', 'b')").expect(using);
        assert_eq!(count(&app, MATCH), 1, "{using}");
        assert_eq!(count(&app, FAULTS), 0, "{using}");
    }
}

/// The server may say what a rule has to name.
#[test]
fn text_of_an_index_that_a_rule_for_another_table_removes_is_found_there() {
    let production = Production::new(OWN[0], Lacks::Tokenizer);
    production.env.db_toml(NOTES);
    production
        .env
        .local_pull(&[])
        .fails(1)
        .stderr_has("values of notes.body, which are still in f\n");
    production.env.db_toml(&[NOTES, INDEX].concat());
    production.env.local_pull(&[]).ok();
    production.assert_masked();
}

/// SQL of a rule may change the tables in which the index keeps its text.
#[test]
fn text_that_sql_masks_stays_and_the_app_rebuilds_the_words() {
    for (using, column) in [(OWN[0], "c0"), (OWN[1], "c0body"), (OWN[2], "c0body")] {
        for lacks in [Lacks::Tokenizer, Lacks::Module] {
            let production = Production::new(using, lacks);
            production
                .pull(&format!(
                    "{NO_AUDIT}[[sanitize]]\nsql = \"UPDATE notes SET body = 'masked'; UPDATE f_content SET {column} = 'masked'\"\n"
                ))
                .stderr_has(WARNING);
            production.assert_masked();
            let app = production.as_app();
            app.execute_batch("INSERT INTO f (f) VALUES ('rebuild')").expect(using);
            assert_eq!(count(&app, MATCH), 199, "{using}");
        }
    }
    let production = Production::new(OWN[0], Lacks::Tokenizer);
    production.env.db_toml("[[sanitize]]\nsql = \"UPDATE f SET body = 'masked'\"\n");
    production.env.local_pull(&[]).fails(1).stderr_has("no such tokenizer: ours\n").stderr_has(
        "hint: name the table instead of `sql` (`table = \"…\"` with `set` or `delete`)",
    );
}

#[test]
fn a_contentless_index_is_emptied_as_with_its_tokenizer_and_takes_new_rows() {
    for using in CONTENTLESS {
        for &build in Build::versions() {
            let production = Production::new(using, Lacks::Nothing);
            build.install(&production.env.path("bin"));
            production.pull(NOTES).stderr_lacks("warning: the full-text");
            production.assert_masked();
        }
        let production = Production::new(using, Lacks::Tokenizer);
        production.pull(NOTES).stderr_lacks("warning: the full-text");
        production.assert_masked();
        let app = production.as_app();
        let row = using.replace("fts4", "");
        let id = if row == using { "rowid" } else { "docid" };
        app.execute_batch(&format!("INSERT INTO f ({id}, body) VALUES (3, 'masked')"))
            .expect(using);
        assert_eq!(count(&app, MATCH), 1, "{using}");
        if using.contains("contentless_delete") {
            app.execute_batch("DELETE FROM f WHERE rowid = 3").expect(using);
            assert_eq!(count(&app, MATCH), 0, "{using}");
        }
    }
}

#[test]
fn without_a_rule_that_touches_it_an_index_stays_as_it_is() {
    let words = |production: &Production| {
        let path = production.env.data().join("data.db");
        ["f_data", "f_segdir", "f_segments", "f_docsize"]
            .iter()
            .map(|table| {
                let exists = format!("SELECT count(*) FROM sqlite_schema WHERE name = '{table}'");
                match databases::query(&path, &exists) {
                    Value::Integer(1) => databases::count(&path, table),
                    _ => 0,
                }
            })
            .sum::<i64>()
    };
    for using in [EXTERNAL[0], EXTERNAL[3], OWN[0], OWN[1]] {
        let production = Production::new(using, Lacks::Tokenizer);
        for rules in ["", "[[sanitize]]\ntable = 'other'\nset.a = \"'x'\"\n"] {
            production.pull(&[NO_AUDIT, rules].concat()).stderr_lacks("is empty here");
            assert!(words(&production) > 3, "{using}: {rules}");
        }
        // Deleted rows may have words in it.
        production.pull(&["scrub = 'deleted-rows'\n", NO_AUDIT].concat()).stderr_has(WARNING);
        assert!(words(&production) < 3, "{using}");
        production.pull(&["omit = ['f']\n", NO_AUDIT].concat()).stderr_lacks("is empty here");
        assert!(words(&production) < 3, "{using}");
    }
}

#[test]
fn a_warning_has_a_line_for_each_index_in_however_many_databases() {
    let production = Production::new(EXTERNAL[0], Lacks::Tokenizer);
    let path = production.env.production();
    for name in ["a.db", "z.db"] {
        fs::copy(path.join("data.db"), path.join(name)).expect("copy");
    }
    let output = production.pull(NOTES);
    output.stderr_has("index f in a.db and 2 more databases is empty here: ");
}
