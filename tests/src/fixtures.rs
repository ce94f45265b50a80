//! A repository with fixtures, migrations, and the hook that keeps both consistent.

use std::path::PathBuf;

use crate::env::TestEnv;
use crate::output::Output;
use crate::process::Running;
use crate::{binaries, databases, sets, shells};

/// The two fixtures, both cut from one database.
pub const ORDERS: &str = "tests/fixtures/orders.db";
pub const PEOPLE: &str = "tests/fixtures/people.db";
pub const LOCK: &str = "tests/fixtures/fixtures.lock";

/// The schema of production: the first migration.
const FIRST: &str = "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, token TEXT);
CREATE TABLE orders (id INTEGER PRIMARY KEY, person REFERENCES people, total INTEGER);
";

/// Applies the migrations that the database lacks, each file in a transaction. An error names the
/// file and the line.
pub const MIGRATE: &str = r#"set -u
version=$(sqlite3 "$1" 'PRAGMA user_version')
for file in "$(dirname "$0")"/migrations/*.sql; do
  number=$(basename "$file" .sql)
  [ "$number" -gt "$version" ] || continue
  said=$( { printf 'BEGIN; '; cat "$file"; echo "PRAGMA user_version = $number; COMMIT;"; } |
    sqlite3 -bail "$1" 2>&1 ) && continue
  echo "migrations/$number.sql:$said" | sed 's/:.*near line \([0-9]*\)/:\1/' >&2
  exit 1
done"#;

pub const SETTINGS: &str = "[audit]
allow = ['people.name']

[[sanitize]]
table = 'people'
set = { token = \"''\" }

[[fixture]]
path = 'tests/fixtures/orders.db'
from = 'shop.db'
rows = { orders = 'id > 10 ORDER BY id LIMIT 20' }
migrate = 'sh migrate.sh {db}'
inputs = ['migrations/**', 'migrate.sh']

[[fixture]]
path = 'tests/fixtures/people.db'
from = 'shop.db'
rows = { people = 3 }
";

/// A second migration, and the columns of `orders` after it.
pub const ADD_NOTE: &str = "ALTER TABLE orders ADD COLUMN note TEXT;\n";
pub const WITH_NOTE: &str = "id person total note";

/// A developer with a pull, and no fixtures yet.
pub fn pulled() -> TestEnv {
    let env = TestEnv::new();
    let shop = env.production().join("shop.db");
    databases::execute(
        &shop,
        &format!(
            "PRAGMA journal_mode = WAL; PRAGMA user_version = 1; {FIRST}
             INSERT INTO people WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 40)
               SELECT i, 'person ' || i, 'TOKEN-' || i FROM n;
             INSERT INTO orders SELECT p.id + 40 * q.id - 40, p.id, p.id * 10
               FROM people AS p, people AS q WHERE q.id <= 5;"
        ),
    );
    env.db_toml(SETTINGS);
    env.write("repo/migrate.sh", MIGRATE);
    env.write("repo/migrations/1.sql", FIRST);
    sets::pull(&env);
    env
}

/// A developer with fresh committed fixtures, and the hook.
pub fn developer() -> TestEnv {
    let env = pulled();
    env.xtask(["refresh-fixtures"]).ok();
    hooked(env)
}

/// Commits everything and installs the hook, which runs xtask through Cargo.
pub fn hooked(env: TestEnv) -> TestEnv {
    env.write("repo/notes.txt", "one\ntwo\nthree\n");
    env.git(&["add", "--all"]);
    env.git(&["commit", "--quiet", "--message=first"]);
    // The hook checks whether Cargo would have to compile.
    env.write("repo/target/xtask/xtask", "");
    let xtask = binaries::xtask().display();
    let cargo = format!("shift\nCARGO_MANIFEST_DIR=\"$PWD/xtask\" exec '{xtask}' \"$@\"");
    shells::script(&env.path("bin"), "cargo", &cargo);
    env.xtask(["install-hooks"]).ok();
    env
}

/// Writes the migration of this number and stages it.
pub fn migration(env: &TestEnv, number: u32, sql: &str) {
    let path = format!("migrations/{number}.sql");
    env.write(&format!("repo/{path}"), sql);
    env.git(&["add", &path]);
}

/// Runs `git commit` like a user, and returns its output.
#[track_caller]
pub fn commit(env: &TestEnv, args: &[&str]) -> Output {
    let args = [&["commit", "--quiet", "--message=next"], args].concat();
    Running::start(env.command("git").args(args)).wait()
}

/// The files that the last commit changed.
#[track_caller]
pub fn committed(env: &TestEnv) -> Vec<String> {
    let names = env.git(&["show", "--format=", "--name-only"]).stdout();
    names.lines().map(str::to_owned).collect()
}

/// The files that are neither committed nor ignored.
#[track_caller]
pub fn status(env: &TestEnv) -> Vec<String> {
    let listed = env.git(&["status", "--porcelain"]).stdout();
    listed.lines().map(str::to_owned).collect()
}

/// The columns of `orders` in the work tree's fixture.
pub fn columns(env: &TestEnv) -> String {
    column_names(&env.repo().join(ORDERS))
}

/// The columns of `orders` in the last commit's fixture.
#[track_caller]
pub fn committed_columns(env: &TestEnv) -> String {
    let path: PathBuf = env.path("committed.db");
    let blob = Running::start(env.command("git").args(["show", &format!("HEAD:{ORDERS}")]));
    std::fs::write(&path, blob.wait().ok().stdout).expect("write a file");
    column_names(&path)
}

fn column_names(path: &std::path::Path) -> String {
    let sql = "SELECT group_concat(name, ' ') FROM pragma_table_info('orders')";
    match databases::query(path, sql) {
        rusqlite::types::Value::Text(names) => names,
        other => panic!("{other:?} are no names"),
    }
}

/// Asserts that the fixtures match the last commit, and that no other files exist.
#[track_caller]
pub fn assert_fresh(env: &TestEnv) {
    env.xtask(["refresh-fixtures", "--check"]).ok();
    assert_eq!(status(env), Vec::<String>::new());
}
