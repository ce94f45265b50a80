//! Fixtures of the databases of real frameworks, through the hook: a commit with a migration brings
//! the fixture that the framework's own `migrate` makes, which has nothing to do once more.
//! `tests/frameworks/<name>/project` is the project, `later` what the last migration adds.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::types::Value;
use tests::env::TestEnv;
use tests::fixtures::{assert_fresh, commit, committed, hooked};
use tests::output::Output;
use tests::process::Running;
use tests::{databases, python, sets, tree};

const VERSIONS: &str = concat!(
    include_str!("../frameworks/requirements.txt"),
    include_str!("../frameworks/package-lock.json")
);

const FIXTURE: &str = "tests/fixtures/app.sqlite3";

struct Framework {
    name: &'static str,
    /// A program that the tests have installed, or one that is on PATH.
    program: &'static str,
    arguments: &'static str,
    /// The variable that has the database, whose path is `{db}`.
    variable: (&'static str, &'static str),
    migrations: &'static str,
    bookkeeping: &'static [&'static str],
    /// The fixture's setting that is needed.
    references: &'static str,
    /// The times in the bookkeeping tables, and what they are in a fixture.
    times: (&'static str, &'static str),
}

const DEFAULT: Framework = Framework {
    name: "",
    program: "node",
    arguments: "",
    variable: ("DATABASE", "{db}"),
    migrations: "migrations",
    bookkeeping: &[],
    references: "",
    times: ("SELECT 'none'", "none"),
};

const ALEMBIC: Framework = Framework {
    name: "alembic",
    program: "alembic",
    arguments: "upgrade head",
    variable: ("DATABASE_URL", "sqlite:///{db}"),
    bookkeeping: &["alembic_version"],
    ..DEFAULT
};

const DRIZZLE: Framework = Framework {
    name: "drizzle",
    arguments: "migrate.js",
    migrations: "drizzle",
    bookkeeping: &["__drizzle_migrations"],
    ..DEFAULT
};

const KNEX: Framework = Framework {
    name: "knex",
    arguments: "node_modules/.bin/knex migrate:latest",
    bookkeeping: &["knex_migrations", "knex_migrations_lock"],
    times: (
        "SELECT group_concat(migration_time, ' ') FROM knex_migrations",
        "946684801000 946684802000 946684803000",
    ),
    ..DEFAULT
};

/// Rails declares no foreign key for `t.references`.
const RAILS: Framework = Framework {
    name: "rails",
    program: "ruby",
    arguments: "bin/rails db:migrate",
    migrations: "db/migrate",
    bookkeeping: &["schema_migrations", "ar_internal_metadata"],
    references: "references = ['posts.user_id -> users.id']\n",
    times: (
        "SELECT value || ' ' || created_at FROM ar_internal_metadata WHERE key = 'environment'",
        "development 2000-01-01 00:00:01",
    ),
    ..DEFAULT
};

const SQLX: Framework = Framework {
    name: "sqlx",
    program: "migrate",
    variable: ("DATABASE_URL", "sqlite:{db}"),
    bookkeeping: &["_sqlx_migrations"],
    times: (
        "SELECT group_concat(installed_on || ' ' || execution_time, ', ') FROM _sqlx_migrations",
        "2000-01-01 00:00:01 0, 2000-01-01 00:00:02 0, 2000-01-01 00:00:03 0",
    ),
    ..DEFAULT
};

impl Framework {
    fn sources(&self, part: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("frameworks").join(self.name).join(part)
    }

    fn program(&self) -> PathBuf {
        let programs = python::programs("frameworks", VERSIONS);
        match self.program {
            "ruby" => "ruby".into(),
            "migrate" => programs.join("../../sqlx/debug/migrate"),
            program => programs.join(program),
        }
    }

    /// Copies a part of the project, which has Node's packages beside it.
    fn copy(&self, part: &str, to: &Path) {
        tree::copy(&self.sources(part), to);
        let modules = to.join("node_modules");
        if self.program == "node" && !modules.exists() {
            let installed = python::programs("frameworks", VERSIONS).join("../../node_modules");
            std::os::unix::fs::symlink(installed, modules).expect("link");
        }
    }

    /// The framework's own `migrate`, in the project in `dir`.
    #[track_caller]
    fn migrate(&self, env: &TestEnv, dir: &Path, database: &Path) -> Output {
        let (name, value) = self.variable;
        let mut command = env.command(self.program());
        command
            .current_dir(dir)
            .args(self.arguments.split_whitespace())
            .env(name, value.replace("{db}", &database.display().to_string()));
        Running::start(&mut command).wait().ok()
    }

    /// The settings, with `migrate` as one writes it.
    fn settings(&self) -> String {
        let (name, value) = self.variable;
        format!(
            "include = ['*.sqlite3']\naudit.allow = ['users.*']\n[[fixture]]\npath = '{FIXTURE}'\nfrom = 'app.sqlite3'\n\
             rows = {{ posts = 2, '*' = 0 }}\n{}migrate = {{ run = '{} {}', env = {{ {name} = '{value}' }} }}\n\
             inputs = ['{}/**']\n",
            self.references,
            self.program().display(),
            self.arguments,
            self.migrations,
        )
    }

    /// A developer with the project, a pull of a production of the same code, and the hook.
    fn developer(&self) -> TestEnv {
        let env = TestEnv::new();
        let (deployed, live) = (env.path("deployed"), env.production().join("app.sqlite3"));
        self.copy("project", &deployed);
        self.migrate(&env, &deployed, &live);
        databases::execute(
            &live,
            "INSERT INTO users (id, email) VALUES (1, 'a@x'), (2, 'b@x'), (3, 'c@x'), (4, 'd@x');
             INSERT INTO posts (id, user_id, title) VALUES (1, 3, 'first'), (2, 4, 'second'), (3, 1, 'third')",
        );
        self.copy("project", &env.repo());
        env.write("repo/.gitignore", "/data\n/node_modules\n/target\n/log\n/tmp\n__pycache__\n");
        env.db_toml(&self.settings());
        sets::pull(&env);
        let report = env.xtask(["refresh-fixtures"]).ok();
        let tables = self.bookkeeping.join(", ");
        report.stderr_has(&format!("with all rows of {tables}"));
        hooked(env)
    }

    fn check(&self) {
        let env = self.developer();
        let path = env.repo().join(FIXTURE);
        let names = || databases::query(&path, "SELECT group_concat(name, ', ') FROM users");
        assert_eq!(databases::count(&path, "posts"), 2);

        self.copy("later", &env.repo());
        env.git(&["add", "--all"]);
        commit(&env, &[]).ok();
        assert!(committed(&env).iter().any(|file| file == FIXTURE));
        assert_fresh(&env);
        // The users of the two posts, with what the migration gave them.
        assert_eq!(names(), Value::Text("user 3, user 4".to_owned()));
        let (times, fixed) = self.times;
        assert_eq!(databases::query(&path, times), Value::Text(fixed.to_owned()));

        let bytes = fs::read(&path).expect("read");
        fs::remove_file(&path).expect("remove");
        env.xtask(["refresh-fixtures"]).ok();
        assert_eq!(fs::read(&path).expect("read"), bytes, "the same bytes once more");

        let copy = env.path("copy.sqlite3");
        fs::copy(&path, &copy).expect("copy");
        self.migrate(&env, &env.repo(), &copy);
        databases::assert_same(&path, &copy);
    }
}

#[test]
fn alembic_accepts_a_fixture() {
    ALEMBIC.check();
}

#[test]
fn drizzle_accepts_a_fixture() {
    DRIZZLE.check();
}

#[test]
fn knex_accepts_a_fixture() {
    KNEX.check();
}

#[test]
fn rails_accepts_a_fixture() {
    RAILS.check();
}

#[test]
fn sqlx_accepts_a_fixture() {
    SQLX.check();
}
