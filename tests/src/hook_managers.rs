//! The programs with which users run `refresh-fixtures --staged`: git alone or a hook manager, each
//! with its unmodified snippet of `docs/hooks/`.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use crate::env::TestEnv;
use crate::hooks::{self, chmod};
use crate::output::Output;
use crate::process::Running;
use crate::{binaries, databases, python, sets, shells};

const VERSIONS: &str = include_str!("../hook-managers/requirements.txt");

pub const FIXTURE: &str = "tests/fixtures/data.db";
pub const LOCK: &str = "tests/fixtures/fixtures.lock";

/// Applies the migrations that a database lacks.
const MIGRATE: &str = r#"
set -e
number=0
for file in migrations/*.sql; do
  number=$((number + 1))
  [ "$number" -gt "$(sqlite3 "$1" 'PRAGMA user_version')" ] || continue
  sqlite3 -bail "$1" < "$file" || { echo "$file is broken" >&2; exit 1; }
  sqlite3 "$1" "PRAGMA user_version = $number"
done
"#;

#[derive(Clone, Copy, Debug)]
pub enum Manager {
    Git,
    PreCommit,
    Prek,
    Lefthook,
}

impl Manager {
    /// The source and the destination of the snippet.
    fn snippet(self) -> (&'static str, &'static str) {
        match self {
            Manager::Git => ("pre-commit", ".git/hooks/pre-commit"),
            Manager::PreCommit | Manager::Prek => {
                ("pre-commit-config.yaml", ".pre-commit-config.yaml")
            }
            Manager::Lefthook => ("lefthook.yml", "lefthook.yml"),
        }
    }

    fn program(self) -> Option<&'static str> {
        match self {
            Manager::Git => None,
            Manager::PreCommit => Some("pre-commit"),
            Manager::Prek => Some("prek"),
            Manager::Lefthook => Some("lefthook"),
        }
    }
}

/// A developer with a pulled snapshot, a fixture of it and one migration, all committed, and the
/// hook.
pub fn developer(manager: Manager) -> TestEnv {
    let env = TestEnv::new();
    databases::create(&env.production().join("data.db"), 30, 1);
    env.db_toml(&format!(
        "[[fixture]]\npath = '{FIXTURE}'\nfrom = 'data.db'\nrows = {{ items = 5 }}\n\
         migrate = 'sh migrate.sh {{db}}'\ninputs = ['migrations/**', 'migrate.sh']\n"
    ));
    env.write("repo/migrate.sh", MIGRATE);
    env.write("repo/migrations/01.sql", "CREATE TABLE first (id);\n");
    env.write("repo/notes.txt", "one\ntwo\nthree\n");
    sets::pull(&env);
    env.xtask(["refresh-fixtures"]).ok();
    replace_cargo(&env);
    let (from, to) = manager.snippet();
    let snippet = fs::read_to_string(snippets().join(from)).expect("read a snippet");
    env.write(&format!("repo/{to}"), &snippet);
    env.git(&["add", "."]);
    env.git(&["-c", "core.hooksPath=/dev/null", "commit", "--quiet", "--message=first"]);
    match manager.program() {
        None => chmod(&hooks::hook(&env), 0o755),
        Some(program) => {
            let installed = python::programs("hook-managers", VERSIONS).join(program);
            shells::link(&installed, &env.path("bin").join(program));
            Running::start(env.command(program).arg("install")).wait().ok();
        }
    }
    env
}

fn snippets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/hooks")
}

/// Replaces Cargo by a script that knows the alias, and compiles nothing.
fn replace_cargo(env: &TestEnv) {
    let body = format!(
        "[ \"$1\" = xtask ] || exit 99\nshift\n\
         CARGO_MANIFEST_DIR=$PWD/xtask exec '{}' \"$@\"",
        binaries::xtask().display()
    );
    shells::script(&env.path("bin"), "cargo", &body);
}

#[track_caller]
pub fn commit(env: &TestEnv, args: &[&str]) -> Output {
    commit_with(env, args, &[])
}

#[track_caller]
pub fn commit_with(env: &TestEnv, args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut git = env.command("git");
    git.args(["commit", "--quiet", "--message=x"]).args(args).envs(variables.iter().copied());
    Running::start(&mut git).wait()
}

/// Writes a file of the repository and stages it.
pub fn stage(env: &TestEnv, path: &str, text: &str) {
    env.write(&format!("repo/{path}"), text);
    env.git(&["add", "--", path]);
}

/// The files that the last commit changed.
pub fn changed(env: &TestEnv) -> Vec<String> {
    let shown = env.git(&["show", "--format=", "--name-only", "HEAD"]).stdout();
    shown.lines().map(str::to_owned).collect()
}

/// The differences between the last commit, the index and the work tree.
pub fn status(env: &TestEnv) -> String {
    env.git(&["status", "--porcelain"]).stdout()
}

/// The tables of the last commit's fixture, without the table of production.
pub fn tables(env: &TestEnv) -> Vec<String> {
    let copy = env.path("committed.db");
    fs::write(&copy, env.git(&["show", &format!("HEAD:{FIXTURE}")]).stdout).expect("write a copy");
    let connection = Connection::open_with_flags(&copy, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let connection = connection.expect("open the fixture");
    let mut tables = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'items'")
        .expect("read the schema");
    let tables = tables.query_map([], |row| row.get(0)).expect("read the schema");
    tables.collect::<Result<_, _>>().expect("read the schema")
}

/// The state that a stopped commit must not change: the last commit, the index, and the files of
/// the work tree.
pub fn state(env: &TestEnv) -> Vec<String> {
    let ask = |args: &[&str]| env.git(args).stdout();
    let files = ask(&["ls-files", "--cached", "--others", "--exclude-standard"]);
    let work = files.lines().map(|file| {
        let content = fs::read(env.repo().join(file)).unwrap_or_default();
        format!("{file}: {}", String::from_utf8_lossy(&content))
    });
    [ask(&["rev-parse", "HEAD"]), ask(&["ls-files", "--stage"]), ask(&["stash", "list"])]
        .into_iter()
        .chain(work)
        .collect()
}
