//! Any schema, history and rules: what a rule removes is gone, and the rest is there.

use std::fs;

use rusqlite::Connection;
use tests::databases;
use tests::env::TestEnv;
use tests::long::depth;
use tests::process::Running;
use tests::secrets::{Random, Secrets};
use tests::sqlite3::Build;

const INDEXES: [&str; 7] = [
    "CREATE INDEX i1 ON t (a)",
    "CREATE INDEX i2 ON t (b, k)",
    "CREATE INDEX i3 ON t (a) WHERE k < 2",
    "CREATE INDEX i4 ON t (lower(a))",
    "CREATE INDEX i5 ON t (k, pad)",
    "CREATE UNIQUE INDEX i6 ON t (b, id)",
    "CREATE INDEX i7 ON t (kept) WHERE a > 'm'",
];

const WORDS: [&str; 6] = [
    "",
    "CREATE VIRTUAL TABLE f USING fts5 (a)",
    "CREATE VIRTUAL TABLE f USING fts5 (a, content = 't', content_rowid = 'id')",
    "CREATE VIRTUAL TABLE f USING fts5 (a, content = '')",
    "CREATE VIRTUAL TABLE f USING fts4 (a)",
    "CREATE VIRTUAL TABLE f USING fts4 (content=\"t\", a)",
];

const VALUES: [&str; 6] = [
    "''",
    "NULL",
    "'user' || id || '@example.com'",
    "upper(hex(zeroblob(4)))",
    "printf('%0100d', id)",
    "substr(hex(zeroblob(9000)), 1, length(VALUE))",
];

/// What one seed makes.
struct Case {
    env: TestEnv,
    random: Random,
    secrets: Secrets,
    words: &'static str,
}

impl Case {
    fn new(seed: u64) -> Case {
        let (env, secrets, mut random) = (TestEnv::new(), Secrets::default(), Random::new(seed));
        let words = random.pick(&WORDS);
        Case { env, random, secrets, words }
    }

    fn secret(&mut self, longest: usize) -> String {
        let bytes = 8 + self.random.below(longest);
        self.random.long_secret(&mut self.secrets, bytes)
    }

    /// Rows that come, grow, shrink, change and go. All that is ever in `a` and `b` is a
    /// secret: the rules are about all rows, and what was there before is wiped with it.
    fn build(&mut self) {
        let db = Connection::open(self.env.production().join("data.db")).expect("open");
        let page = self.random.pick(&[512, 1024, 4096, 4096, 8192, 65536]);
        let vacuum = self.random.below(3);
        let wiping = self.random.pick(&["OFF", "OFF", "ON", "FAST"]);
        let journal = self.random.pick(&["WAL", "DELETE"]);
        let encoding = self.random.pick(&["UTF-8", "UTF-8", "UTF-8", "UTF-16le", "UTF-16be"]);
        let external = self.words.contains("content");
        let rowid = if !external && self.random.below(4) == 0 { " WITHOUT ROWID" } else { "" };
        let made =
            self.random.pick(&["", ", g TEXT AS (a || '/x') STORED", ", g TEXT AS (a || '/x')"]);
        let run = |sql: &str| db.execute_batch(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
        run(&format!(
            "PRAGMA encoding = '{encoding}'; PRAGMA page_size = {page}; PRAGMA auto_vacuum = {vacuum};
             PRAGMA journal_mode = {journal}; PRAGMA secure_delete = {wiping};
             CREATE TABLE t (id INTEGER PRIMARY KEY, k INTEGER, pad TEXT, a, b, kept TEXT{made}){rowid}; {}",
            self.words
        ));
        for index in INDEXES {
            if self.random.below(3) == 0 {
                run(index);
            }
        }
        let longest = self.random.pick(&[12, 80, 900, 15_000]);
        let steps = if longest > 1000 { 150 } else { 600 };
        for id in 1..=steps {
            let old = 1 + self.random.below(id);
            let pad = "7".repeat(self.random.pick(&[0, 3, 30, 200, 3000]));
            let [a, b] = [0; 2].map(|_| self.secret(longest));
            let cast = if self.random.below(4) == 0 { "BLOB" } else { "TEXT" };
            match self.random.below(10) {
                0..6 => {
                    run(&format!(
                        "INSERT INTO t (id, k, pad, a, b, kept) VALUES ({id}, {}, '{pad}', '{a}', CAST('{b}' AS {cast}), 'kept {id}')",
                        id % 5
                    ));
                    match self.words {
                        "" => {}
                        words if words.contains("content=") || words.contains("'t'") => {}
                        words if words.contains("content") => {
                            run(&format!("INSERT INTO f (rowid, a) VALUES ({id}, '{a}')"));
                        }
                        _ => run(&format!("INSERT INTO f (rowid, a) VALUES ({id}, '{b} {id}')")),
                    }
                }
                6 => run(&format!("UPDATE t SET pad = '{pad}' WHERE id = {old}")),
                7 => run(&format!("UPDATE t SET a = '{a}' WHERE id = {old}")),
                8 => run(&format!("DELETE FROM t WHERE id = {old}")),
                _ if self.words.contains("content=") || self.words.contains("'t'") => {
                    run("INSERT INTO f (f) VALUES ('rebuild')");
                }
                _ => run(&format!("DELETE FROM t WHERE id BETWEEN {old} AND {old} + 20")),
            }
        }
        if self.words.contains("content=") || self.words.contains("'t'") {
            run("INSERT INTO f (f) VALUES ('rebuild')");
        }
    }

    fn rules(&mut self) -> String {
        let set = |random: &mut Random, column: &str| {
            let value = random.pick(&VALUES).replace("VALUE", column);
            format!("{column} = \"{value}\"")
        };
        let both = [set(&mut self.random, "a"), set(&mut self.random, "b")].join(", ");
        let mut rules = match self.random.below(4) {
            0 => "[[sanitize]]\ntable = 't'\ndelete = true\nwhere = 'id % 2'\n".to_owned(),
            _ => String::new(),
        };
        rules += &format!("[[sanitize]]\ntable = 't'\nset = {{ {both} }}\n");
        if !self.words.is_empty() && !self.words.contains("content") {
            rules += "[[sanitize]]\ntable = 'f'\nset = { a = \"'zz'\" }\n";
        }
        rules
    }
}

/// Each build in turn. A seed that fails is named, and fails again.
#[test]
fn nothing_is_left_of_any_history() {
    let seeds = depth(2, 600);
    for seed in 1..=seeds {
        let build = Build::all()[seed as usize % Build::all().len()];
        let mut case = Case::new(seed);
        case.build();
        let rules = case.rules();
        case.env.db_toml(&rules);
        let mut pull = case.env.local_pull_command(&["--yes", "-v"]);
        let inherited = format!("{}:{}", case.env.path("bin").display(), build.path());
        let output = Running::start(pull.env("PATH", inherited)).wait();
        let (live, production) =
            (case.env.data().join("data.db"), case.env.production().join("data.db"));
        assert_eq!(output.code, Some(0), "seed {seed}: {}\n{rules}\n{output}", case.words);
        let what = format!("seed {seed}, {build:?}: {}\n{rules}", case.words);
        case.secrets.assert_not_in(&what, &fs::read(&live).expect("read"));
        case.secrets
            .assert_not_below(&case.env.path(""), &[case.env.production(), case.env.path("bin")]);
        databases::assert_whole(&live);
        let odd = if rules.contains("delete") { "WHERE id % 2 = 0" } else { "" };
        let kept = format!(
            "SELECT group_concat(id || kept || pad || k) FROM (SELECT * FROM t {odd} ORDER BY id)"
        );
        assert!(databases::query(&live, &kept) == databases::query(&production, &kept), "{what}");
    }
}
