//! `migrate` as people write it, and what it writes beside the fixture.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use tests::databases;
use tests::env::TestEnv;
use tests::fixtures::{
    ADD_NOTE, LOCK, ORDERS, SETTINGS, assert_fresh, commit, committed, developer, migration,
    pulled, status,
};

/// The settings with another `migrate`, and keys beside it.
fn with_migrate(migrate: &str) -> String {
    SETTINGS.replace("migrate = 'sh migrate.sh {db}'", migrate)
}

#[test]
fn variables_and_a_directory_belong_to_the_command() {
    for migrate in [
        "migrate = \"DATABASE_URL=file:{db} OTHER='a b' sh backend/run.sh\"",
        "migrate = { run = 'sh run.sh', env = { DATABASE_URL = 'file:{db}', OTHER = 'a b' }, dir = 'backend' }",
        "migrate = { run = 'OTHER=\"a b\" sh run.sh', env = { DATABASE_URL = 'file:{db}' }, dir = 'backend' }",
    ] {
        let env = pulled();
        env.db_toml(&with_migrate(migrate));
        let body = "[ \"$OTHER\" = 'a b' ] || exit 1
             sh \"$(dirname \"$0\")/../migrate.sh\" \"${DATABASE_URL#file:}\"";
        env.write("repo/backend/run.sh", body);
        env.write("repo/migrations/2.sql", ADD_NOTE);
        env.xtask(["refresh-fixtures"]).ok().stderr_has("Running ").stderr_has("OTHER=a b");
        assert_eq!(databases::count(&env.repo().join(ORDERS), "orders"), 20);
        assert!(databases::bytes_contain(&env.repo().join(ORDERS), "note TEXT"), "{migrate}");
    }
    let env = pulled();
    for (migrate, why) in [
        ("migrate = 'A={db}'", "has no program"),
        ("migrate = 'sh run.sh'", "must contain {db}"),
        ("migrate = { run = 'sh {db}', dir = '../x' }", "must be a path within the repository"),
        ("migrate = { run = 'sh {db}', env = { 'A B' = 'x' } }", "is no name of a variable"),
        ("migrate = { rnu = 'sh {db}' }", "a command, or { run = "),
    ] {
        env.db_toml(&with_migrate(migrate));
        env.xtask(["refresh-fixtures"]).fails(2).stderr_has(why);
    }
}

#[test]
fn of_a_long_traceback_the_last_lines_are_shown() {
    let env = pulled();
    env.write("repo/migrate.sh", "i=0; while [ $i -lt 40 ]; do i=$((i + 1)); echo \"  File line $i\"; done; echo; echo 'KeyError: x' >&2; exit 1");
    let output = env.xtask(["refresh-fixtures"]).fails(1);
    output
        .stderr_has("`sh migrate.sh {db}` failed\n")
        .stderr_has("File line 40\n    KeyError: x\n    (-v shows all of it)\n")
        .stderr_lacks("File line 30");
    env.xtask(["refresh-fixtures", "-v"]).fails(1).stderr_has("File line 1\n");
}

/// Migrations also write rows, with the time of day.
#[test]
fn what_a_migration_adds_is_masked_and_has_no_time() {
    let env = pulled();
    env.write(
        "repo/migrations/2.sql",
        "CREATE TABLE schema_migrations (version TEXT PRIMARY KEY, inserted_at TEXT);
         INSERT INTO schema_migrations VALUES ('1', datetime('now')), ('2', strftime('%Y-%m-%dT%H:%M:%fZ', 'now'));
         INSERT INTO people VALUES (4711, 'the admin', 'TOKEN-of-the-admin');
         ALTER TABLE people RENAME COLUMN name TO full_name;",
    );
    // One that no longer fits has done its work before.
    let rule = "\n[[sanitize]]\ntable = 'people'\nset = { name = \"'p' || id\" }\n";
    env.db_toml(
        &(SETTINGS.replace(
            "[[fixture]]\npath = 'tests/fixtures/people.db'",
            "[[fixture]]\nmigrate = 'sh migrate.sh {db}'\npath = 'tests/fixtures/people.db'",
        ) + rule),
    );
    env.xtask(["refresh-fixtures"]).ok();
    let people = env.repo().join("tests/fixtures/people.db");
    let first = fs::read(&people).expect("read");
    assert!(!databases::bytes_contain(&people, "TOKEN-"));
    assert_eq!(
        databases::query(&people, "SELECT group_concat(inserted_at, ' | ') FROM schema_migrations"),
        rusqlite::types::Value::Text("2000-01-01 00:00:01 | 2000-01-01T00:00:02Z".to_owned())
    );
    fs::remove_file(&people).expect("remove");
    env.xtask(["refresh-fixtures"]).ok();
    assert_eq!(fs::read(&people).expect("read"), first);
}

#[test]
fn a_dump_of_the_schema_stays_as_it_was_unless_outputs_names_it() {
    let writes = "sh migrate.sh \"$1\"; for file in db/schema.rb doc/tables.md; do date +%s%N >\"$file\"; done";
    let dumps = |env: &TestEnv| {
        ["db/schema.rb", "doc/tables.md"]
            .map(|path| fs::read_to_string(env.repo().join(path)).expect("read"))
    };
    let env = developer();
    env.write("repo/run.sh", writes);
    env.write("repo/db/schema.rb", "before\n");
    env.write("repo/doc/tables.md", "before\n");
    env.db_toml(&with_migrate("migrate = 'sh run.sh {db}'"));
    env.git(&["add", "--all"]);
    commit(&env, &[]).ok();
    assert_eq!(dumps(&env)[0], "before\n");
    assert_ne!(dumps(&env)[1], "before\n", "only dumps that are known are put back");
    env.git(&["checkout", "--quiet", "doc"]);

    env.db_toml(&with_migrate("migrate = 'sh run.sh {db}'\noutputs = ['db/*', 'doc/']"));
    env.git(&["add", "--all"]);
    migration(&env, 2, ADD_NOTE);
    commit(&env, &[]).ok();
    assert_eq!(
        committed(&env),
        ["db/schema.rb", "doc/tables.md", "migrations/2.sql", LOCK, ORDERS, "xtask/db.toml"]
    );
    assert_eq!(status(&env), [""; 0]);
    assert_fresh(&env);
}

#[test]
fn two_configurations_share_a_directory_of_fixtures() {
    let env = pulled();
    let (orders, people) = SETTINGS.split_at(SETTINGS.rfind("[[fixture]]").expect("two"));
    let rules = &SETTINGS[..SETTINGS.find("[[fixture]]").expect("two")];
    env.db_toml(orders);
    env.write("repo/other.toml", &format!("{rules}{people}"));
    let other = ["--config", "other.toml"];
    for _ in 0..2 {
        env.xtask(["refresh-fixtures"]).ok();
        env.xtask([&other[..], &["refresh-fixtures"]].concat()).ok();
    }
    for config in [&[][..], &other] {
        env.xtask([config, &["refresh-fixtures", "--check"]].concat()).ok();
    }
    // What is gone from one is still told, and goes.
    env.write("repo/other.toml", rules);
    let people_is_gone = || {
        env.xtask([&other[..], &["refresh-fixtures", "--check"]].concat())
            .fails(1)
            .stderr_has("it has tests/fixtures/people.db, which is not in db.toml")
            .stderr_lacks("orders.db");
    };
    people_is_gone();
    env.write("repo/other.toml", &format!("{rules}{}", people.replace("people.db", "few.db")));
    people_is_gone();
}

#[test]
fn references_are_suggested_with_the_share_of_values_that_match() {
    let env = pulled();
    databases::execute(
        &env.production().join("shop.db"),
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, order_id, person_id);
         INSERT INTO notes VALUES (1, 1, 1), (2, 4711, 2), (3, 2, NULL)",
    );
    env.local_pull(&[]).ok();
    env.xtask(["refresh-fixtures", "--suggest"]).ok().stdout_is(
        "references = [\n  \"notes.order_id -> orders.id\",  # 2 of 3 values are there\n  \
         \"notes.person_id -> people.id\",  # 2 of 2 values are there\n]\n",
    );
    let json = &env.xtask(["refresh-fixtures", "--suggest", "--json"]).ok().json()["references"];
    assert_eq!(json[0]["reference"], "notes.order_id -> orders.id");
    // What is printed can be used.
    env.db_toml(&format!(
        "references = ['notes.order_id -> orders.id']\n{}",
        SETTINGS.replace("orders = 'id > 10 ORDER BY id LIMIT 20'", "notes = 1")
    ));
    env.xtask(["refresh-fixtures"]).ok();
    assert_eq!(databases::count(&env.repo().join(ORDERS), "orders"), 1);
    assert!(!env.repo().join("tests/fixtures/orders.db-wal").exists());
}

#[test]
fn a_reference_for_all_fixtures_that_fits_none_is_told() {
    let env = pulled();
    env.db_toml(&format!(
        "references = ['orders.persn -> people.id', 'orders.person -> people.id']\n{SETTINGS}"
    ));
    env.xtask(["refresh-fixtures"])
        .ok()
        .stderr_has("warning: references: orders.persn -> people.id: no fixture's database has both columns\n")
        .stderr_lacks("references: orders.person ");
}

#[test]
fn a_program_that_is_not_there_and_an_input_that_no_file_matches_are_named() {
    let env = pulled();
    env.db_toml(&with_migrate("migrate = { run = '.venv/bin/python m.py {db}' }"));
    let output = env.xtask(["refresh-fixtures"]).fails(1);
    let repo = env.repo().display().to_string();
    output.stderr_has(&format!("there is no .venv/bin/python, from {repo}\n"));
    env.db_toml(&SETTINGS.replace("migrations/**", "migration/**"));
    env.xtask(["refresh-fixtures"]).ok();
    env.xtask(["refresh-fixtures", "--check"])
        .fails(1)
        .stderr_has("hint: correct `inputs` in xtask/db.toml\n");
}

/// The settings whose `migrate` also runs `writes`, with `outputs`.
fn that_writes(env: &TestEnv, writes: &str) {
    env.write("repo/run.sh", &format!("sh migrate.sh \"$1\" || exit 1\n{writes}"));
    env.db_toml(&with_migrate("migrate = 'sh run.sh {db}'\noutputs = ['db/**']"));
}

/// Those of the last commit, with their modes.
fn modes(env: &TestEnv) -> Vec<String> {
    let tree = env.git(&["ls-tree", "-r", "HEAD", "db/"]).stdout();
    let shown = |line: &str| Some(format!("{} {}", &line[..6], line.rsplit_once('\t')?.1));
    tree.lines().filter_map(shown).collect()
}

#[test]
fn what_migrate_has_written_goes_when_it_fails() {
    let env = developer();
    for file in ["schema.rb", "gone.rb"] {
        env.write(&format!("repo/db/{file}"), "before\n");
    }
    std::os::unix::fs::symlink("schema.rb", env.repo().join("db/link")).expect("link");
    let writes = "echo after >db/schema.rb; chmod +x db/schema.rb; mkdir db/new; echo new >db/new/x
        rm db/gone.rb db/link; ln -s nowhere db/link\n[ -e good ] || exit 1";
    that_writes(&env, writes);
    env.git(&["add", "--all"]);
    let staged = status(&env);
    for _ in 0..2 {
        commit(&env, &[]).fails(1).stderr_has("nothing was changed");
        assert_eq!(status(&env), staged);
    }
    env.xtask(["refresh-fixtures"]).fails(1);
    assert_eq!(status(&env), staged);
    assert!(!env.repo().join("db/new").exists());
    // Also when it is another fixture that fails.
    env.write("repo/good", "");
    let settings = fs::read_to_string(env.repo().join("xtask/db.toml")).expect("read");
    let after = |last: &str| env.db_toml(&format!("{settings}{last}"));
    after("migrate = 'sh -c \"exit 1\" {db}'\n");
    env.git(&["add", "--all"]);
    let staged = status(&env);
    commit(&env, &[]).fails(1).stderr_has("people.db; nothing was changed");
    assert_eq!(status(&env), staged);
    // And when it is interrupted.
    after("migrate = 'sh -c \"touch .git/started; sleep 600\" {db}'\n");
    let staged = status(&env);
    let mut refresh = env.start_xtask(["refresh-fixtures"]);
    refresh.wait_for("the second command", |_| env.repo().join(".git/started").exists());
    refresh.interrupt();
    refresh.wait().fails(130).stderr_has("error: interrupted; nothing was changed");
    assert_eq!(status(&env), staged);
}

#[test]
fn new_and_deleted_outputs_and_their_modes_are_committed() {
    for is_partial in [false, true] {
        let env = developer();
        for file in ["tool", "gone.rb"] {
            env.write(&format!("repo/db/{file}"), "before\n");
        }
        std::os::unix::fs::symlink("tool", env.repo().join("db/link")).expect("link");
        let tool = env.repo().join("db/tool");
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).expect("chmod");
        that_writes(&env, "");
        env.git(&["add", "--all"]);
        commit(&env, &[]).ok();
        that_writes(
            &env,
            "echo new >db/schema.rb; rm -f db/gone.rb; echo after >db/tool; ln -sf schema.rb db/link",
        );
        env.git(&["add", "--all"]);
        if is_partial {
            env.write("repo/notes.txt", "not staged\n");
        }
        migration(&env, 2, ADD_NOTE);
        commit(&env, &[]).ok().stderr_lacks("warning");
        assert_eq!(modes(&env), ["120000 db/link", "100644 db/schema.rb", "100755 db/tool"]);
        let expected: &[&str] = if is_partial { &[" M notes.txt"] } else { &[] };
        assert_eq!(status(&env), expected);
        assert_eq!(fs::read_to_string(&tool).expect("read"), "after\n");
    }
}

#[test]
fn what_migrate_leaves_must_be_a_closed_database() {
    let env = pulled();
    for (writes, why) in [
        ("rm \"$1\"", "`migrate` has removed the database"),
        ("seq 9999 >\"$1\"", "`migrate` has left a file that is not a database"),
        (
            "{ (echo 'BEGIN EXCLUSIVE; SELECT 1;'; exec sleep 60) | sqlite3 \"$1\" & } | read -r _",
            "`migrate` still has the database open",
        ),
    ] {
        env.write("repo/migrate.sh", writes);
        env.xtask(["refresh-fixtures"])
            .fails(1)
            .stderr_has("cannot refresh tests/fixtures/orders.db; nothing was changed")
            .stderr_has(why);
    }
    // It is told what has gone, as it may be meant.
    for writes in [": >\"$1\"", "sqlite3 \"$1\" 'DELETE FROM orders; DELETE FROM people'"] {
        env.write("repo/migrate.sh", writes);
        env.xtask(["refresh-fixtures"]).ok().stderr_has(
            "warning: tests/fixtures/orders.db: `migrate` has removed all rows of orders, people\n",
        );
    }
}

#[test]
fn a_program_that_migrate_starts_and_leaves_is_not_waited_for() {
    let env = pulled();
    let body = "(until [ -e end ]; do sleep 0.1; done) & echo $! >started; echo done";
    env.write("repo/migrate.sh", body);
    env.xtask(["refresh-fixtures", "-v"]).ok().stderr_has("done\n");
    let started = fs::read_to_string(env.repo().join("started")).expect("read");
    let started: u32 = started.trim().parse().expect("a number");
    assert!(env.processes().iter().any(|(id, _)| *id == started));
    env.write("repo/end", "");
}

#[test]
fn the_rows_that_a_framework_misses_are_named() {
    let env = pulled();
    databases::execute(
        &env.production().join("shop.db"),
        "CREATE TABLE \"my migrations\" (id); INSERT INTO \"my migrations\" VALUES (1)",
    );
    env.local_pull(&[]).ok();
    env.write("repo/migrate.sh", "echo 'Error: table orders already exists' >&2; exit 1");
    env.xtask(["refresh-fixtures"]).fails(1).stderr_has(
        "hint: the fixture has no row of my migrations; if the migrations that have run are in it, \
         add rows = { \"my migrations\" = '*' } to its [[fixture]]\n",
    );
    env.db_toml(&SETTINGS.replace("rows = { orders", "rows = { 'my migrations' = '*', orders"));
    env.xtask(["refresh-fixtures"]).fails(1).stderr_has("hint: fix the cause");
}
