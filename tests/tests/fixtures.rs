//! `cargo xtask refresh-fixtures` without a commit: what it makes, what it says,
//! and what it leaves alone.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tests::databases;
use tests::env::TestEnv;
use tests::fixtures::{LOCK, MIGRATE, ORDERS, PEOPLE, SETTINGS, columns, pulled, status};
use tests::{sets, store};

fn bytes(env: &TestEnv, path: &str) -> Vec<u8> {
    fs::read(env.repo().join(path)).unwrap_or_default()
}

#[track_caller]
fn check(env: &TestEnv, problems: &[&str]) {
    let output = env.xtask(["refresh-fixtures", "--check"]).stdout_is("");
    let expected: String =
        problems.iter().map(|problem| format!("warning: tests/fixtures/{problem}\n")).collect();
    if problems.is_empty() {
        output.ok().stderr_is("       Fresh 2 fixtures\n");
    } else {
        output
            .fails(1)
            .stderr_has(&expected)
            .stderr_has("error: fixtures are stale: ")
            .stderr_has("hint: cargo xtask refresh-fixtures");
    }
}

#[test]
fn fixtures_are_made_once_and_then_are_as_they_are() {
    let env = pulled();
    check(&env, &["orders.db: it is missing", "people.db: it is missing"]);
    let output = env.xtask(["refresh-fixtures"]).ok().stdout_is("");
    assert_eq!(
        env.normalize(&output.stderr),
        "     Cutting tests/fixtures/orders.db from shop.db of backup_<TIME>
     Running sh migrate.sh {db}
     Cutting tests/fixtures/people.db from shop.db of backup_<TIME>
   Refreshed tests/fixtures/orders.db (<SIZE>, 40 rows)
   Refreshed tests/fixtures/people.db (<SIZE>, 3 rows)
"
    );
    check(&env, &[]);
    let fixture = env.repo().join(ORDERS);
    assert_eq!(databases::count(&fixture, "orders"), 20);
    assert_eq!(databases::count(&fixture, "people"), 20);
    databases::assert_whole(&fixture);
    let before = [ORDERS, PEOPLE, LOCK].map(|path| (bytes(&env, path), modified(&env, path)));
    env.xtask(["refresh-fixtures"]).ok().stderr_lacks("Refreshed").stderr_has("Unchanged");
    let after = [ORDERS, PEOPLE, LOCK].map(|path| (bytes(&env, path), modified(&env, path)));
    assert!(before == after, "something was written");
    // All of it is for others to read, as git makes files.
    for path in [ORDERS, LOCK] {
        let mode = env.repo().join(path).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o644, 0o644, "{path}: {mode:o}");
    }
    assert_eq!(databases::files(&env.path("local-tmp")), [""; 0], "nothing is left in TMPDIR");
}

fn modified(env: &TestEnv, path: &str) -> std::time::SystemTime {
    env.repo().join(path).metadata().unwrap().modified().unwrap()
}

#[test]
fn another_machine_makes_the_same_bytes() {
    let [here, there] = [pulled(), pulled()];
    here.xtask(["refresh-fixtures"]).ok();
    // Its own pull, of a production with another past; another time zone and umask.
    let shop = there.production().join("shop.db");
    databases::execute(
        &shop,
        "PRAGMA journal_mode = DELETE; PRAGMA page_size = 1024; VACUUM;
         CREATE TABLE more (a); DROP TABLE more; UPDATE people SET token = 'other-' || id;",
    );
    sets::pull(&there);
    let mut command = there.xtask_command(["refresh-fixtures"]);
    command.env("TZ", "Asia/Tokyo").env("LC_ALL", "de_DE.UTF-8");
    tests::process::Running::start(&mut command).wait().ok();
    for path in [ORDERS, PEOPLE] {
        assert!(bytes(&here, path) == bytes(&there, path), "{path} differs");
    }
    // That is recorded; the databases that they were cut from differ.
    let lock = |env: &TestEnv| {
        let text = String::from_utf8(bytes(env, LOCK)).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with("from_sha256"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(lock(&here), lock(&there));
}

#[test]
fn secrets_of_a_set_that_was_not_sanitized_do_not_get_in() {
    let env = pulled();
    let via = format!("local:{}", env.production().display());
    env.xtask(["pull-db", "--no-sanitize", "--yes", "--via", &via]).ok();
    assert!(!store::files_with(&env.data(), "TOKEN-3").is_empty());
    env.xtask(["refresh-fixtures"]).ok();
    assert!(store::files_with(&env.repo().join("tests"), "TOKEN-").is_empty());
    env.db_toml(&SETTINGS.replace("token", "name"));
    env.xtask(["refresh-fixtures"]).ok();
    assert!(!store::files_with(&env.repo().join("tests"), "TOKEN-").is_empty());
}

#[test]
fn check_says_what_is_stale_and_needs_no_snapshot() {
    let env = pulled();
    env.xtask(["refresh-fixtures"]).ok();
    fs::remove_dir_all(env.data()).unwrap();
    check(&env, &[]);

    env.write("repo/migrations/2.sql", "ALTER TABLE orders ADD COLUMN note;");
    env.write("repo/migrations/1.sql", "-- edited");
    fs::remove_file(env.repo().join("migrate.sh")).unwrap();
    databases::execute(&env.repo().join(PEOPLE), "DELETE FROM people");
    check(
        &env,
        &[
            "orders.db: migrations/1.sql changed",
            "orders.db: migrations/2.sql is new",
            "orders.db: migrate.sh is gone",
            "people.db: it differs from fixtures.lock: it was edited by hand, or only one of the two is staged",
        ],
    );
    let json = &env.xtask(["refresh-fixtures", "--check", "--json"]).fails(1).json()["problems"];
    assert_eq!(json[1]["path"], ORDERS);
    assert_eq!(json[1]["why"], "migrations/2.sql is new");
    assert_eq!(json.as_array().unwrap().len(), 5);
}

#[test]
fn check_tells_rules_from_what_does_not_matter() {
    let env = pulled();
    env.xtask(["refresh-fixtures"]).ok();
    env.db_toml(&format!(
        "keep = 2\n{}",
        SETTINGS.replace("path = 'tests", "max-bytes = 90000\npath = 'tests")
    ));
    check(&env, &[]);
    for (old, new) in [
        ("LIMIT 20", "LIMIT 21"),
        ("sh migrate.sh", "sh ./migrate.sh"),
        ("inputs =", "children = true\ninputs ="),
    ] {
        env.db_toml(&SETTINGS.replace(old, new));
        check(&env, &["orders.db: its rules in db.toml changed"]);
    }
    env.db_toml(&SETTINGS.replace("token", "name"));
    check(
        &env,
        &["orders.db: its rules in db.toml changed", "people.db: its rules in db.toml changed"],
    );
    env.db_toml(&SETTINGS.replace("people.db", "persons.db"));
    check(
        &env,
        &[
            "persons.db: it is missing",
            "fixtures.lock: it has tests/fixtures/people.db, which is not in db.toml",
        ],
    );
}

#[test]
fn a_snapshot_can_be_named() {
    let env = pulled();
    let first = store::snapshots(&env.data())[0].name.clone();
    databases::execute(&env.production().join("shop.db"), "UPDATE people SET name = 'newer'");
    sets::pull(&env);
    let name = |path: &str| databases::query(&env.repo().join(path), "SELECT name FROM people");
    env.xtask(["refresh-fixtures"]).ok();
    assert_eq!(name(PEOPLE), "newer".to_owned().into());
    env.xtask(["refresh-fixtures", "--from", &first]).ok().stderr_has(&first);
    assert_eq!(name(PEOPLE), "person 1".to_owned().into());
    env.xtask(["refresh-fixtures", "--from", "nonsense"]).fails(1).stderr_has("nonsense");

    fs::create_dir_all(env.data().join("backup_2020-01-01T00-00-00-000Z")).unwrap();
    databases::create(&env.data().join("backup_2020-01-01T00-00-00-000Z/other.db"), 1, 1);
    env.xtask(["refresh-fixtures", "--from", "2020"])
        .fails(1)
        .stderr_has("caused by: that snapshot has no shop.db");
    assert_eq!(name(PEOPLE), "person 1".to_owned().into());
}

#[test]
fn a_snapshot_that_cannot_be_used_is_passed_over() {
    let env = pulled();
    databases::execute(&env.production().join("shop.db"), "UPDATE people SET name = 'newer'");
    sets::pull(&env);
    // The newest is damaged, as far as its size tells, and the one before is by hand.
    let newest = store::snapshots(&env.data()).pop().unwrap().name;
    fs::write(env.data().join(newest).join("shop.db"), "damaged").unwrap();
    env.xtask(["snapshots", "create"]).ok();
    env.xtask(["refresh-fixtures"]).ok();
    let name = databases::query(&env.repo().join(PEOPLE), "SELECT name FROM people");
    assert_eq!(name, "person 1".to_owned().into());
}

#[test]
fn without_a_snapshot_what_is_committed_moves_on() {
    let env = pulled();
    env.xtask(["refresh-fixtures"]).ok();
    env.git(&["add", "--all"]);
    env.git(&["commit", "--quiet", "--message=x"]);
    fs::rename(env.data(), env.path("elsewhere")).unwrap();
    env.xtask(["refresh-fixtures"])
        .ok()
        .stderr_has("Unchanged tests/fixtures/orders.db (no pulled snapshot has shop.db)");
    assert_eq!(status(&env), [""; 0]);

    env.write("repo/migrations/2.sql", "ALTER TABLE orders ADD COLUMN note DEFAULT 'none';\n");
    // Not what was edited by hand is brought forward, but what was recorded.
    databases::execute(&env.repo().join(ORDERS), "UPDATE orders SET total = 1");
    env.xtask(["refresh-fixtures"]).ok().stderr_has("Refreshed tests/fixtures/orders.db");
    let in_place = bytes(&env, ORDERS);
    assert_eq!(columns(&env), "id person total note");
    check(&env, &[]);
    // And that is what the snapshot gives.
    fs::rename(env.path("elsewhere"), env.data()).unwrap();
    env.xtask(["refresh-fixtures"]).ok();
    assert!(in_place == bytes(&env, ORDERS), "the ways give different bytes");
}

#[test]
fn without_a_snapshot_a_migration_that_changed_runs_on_what_was_before_it() {
    let env = pulled();
    env.xtask(["refresh-fixtures"]).ok();
    let commit = || {
        env.git(&["add", "--all"]);
        env.git(&["commit", "--quiet", "--message=x"]);
    };
    commit();
    fs::rename(env.data(), env.path("elsewhere")).unwrap();
    let write = |name| {
        let sql = format!("ALTER TABLE orders ADD COLUMN {name};\n");
        env.write("repo/migrations/2.sql", &sql);
        env.xtask(["refresh-fixtures"]).ok().stderr_lacks("warning");
        assert_eq!(columns(&env), format!("id person total {name}"));
    };
    write("one");
    write("two");
    commit();
    write("three");
    // Of what is in all versions none is without it.
    env.write("repo/migrate.sh", &format!("{MIGRATE}\n"));
    env.xtask(["refresh-fixtures"]).ok().stderr_has(
        "warning: tests/fixtures/orders.db may already have the migrations that changed",
    );
}

#[test]
fn without_a_snapshot_rules_cannot_change() {
    let env = pulled();
    env.xtask(["refresh-fixtures"]).ok();
    let before = bytes(&env, ORDERS);
    fs::remove_dir_all(env.data()).unwrap();
    env.db_toml(&SETTINGS.replace("LIMIT 20", "LIMIT 5"));
    env.xtask(["refresh-fixtures"])
        .fails(1)
        .stderr_has("error: cannot refresh tests/fixtures/orders.db; nothing was changed")
        .stderr_has("its rules in db.toml changed, and there is no pulled snapshot with shop.db")
        .stderr_has("hint: cargo xtask pull-db");
    assert!(before == bytes(&env, ORDERS));
    env.db_toml(SETTINGS);
    // Not committed yet, and edited: nothing is left to go back to.
    databases::execute(&env.repo().join(ORDERS), "UPDATE orders SET total = 1");
    env.xtask(["refresh-fixtures"]).fails(1).stderr_has("hint: git checkout HEAD -- ");
}

#[test]
fn a_misspelt_database_of_a_fixture_is_named() {
    let env = pulled();
    let (from, near) = ("from = 'shop.db'", "from = 'shpo.db'");
    assert!(SETTINGS.contains(from));
    env.db_toml(&SETTINGS.replace(from, near));
    env.xtask(["refresh-fixtures"]).fails(1).stderr_has(
        "hint: did you mean shop.db? Edit `from` in xtask/db.toml\nhint: cargo xtask pull-db\n",
    );
}

#[test]
fn one_that_fails_leaves_all_as_they_are() {
    let env = pulled();
    env.xtask(["refresh-fixtures"]).ok();
    let before = [ORDERS, PEOPLE, LOCK].map(|path| bytes(&env, path));
    // The first could be written, the second is too large.
    env.db_toml(&format!("{}max-bytes = 5000\n", SETTINGS.replace("LIMIT 20", "LIMIT 10")));
    env.xtask(["refresh-fixtures"])
        .fails(1)
        .stderr_has("error: cannot refresh tests/fixtures/people.db; nothing was changed")
        .stderr_has("bytes, but max-bytes is 5000")
        .stderr_has("hint: select fewer `rows`, or raise `max-bytes`");
    assert!(before == [ORDERS, PEOPLE, LOCK].map(|path| bytes(&env, path)));
}

#[test]
fn a_large_one_is_said_to_be() {
    let env = pulled();
    databases::execute(
        &env.production().join("shop.db"),
        "UPDATE people SET name = printf('%.*c', 400000, id)",
    );
    sets::pull(&env);
    env.xtask(["refresh-fixtures"])
        .ok()
        .stderr_has("warning: tests/fixtures/people.db has 1.2 MB, and every clone will have it")
        .stderr_has("hint: select fewer `rows`");
}

#[test]
fn rows_that_refer_to_nothing_are_left_out_with_a_warning() {
    let env = pulled();
    databases::execute(
        &env.production().join("shop.db"),
        "PRAGMA foreign_keys = OFF; UPDATE orders SET person = 999 WHERE id = 15",
    );
    sets::pull(&env);
    env.xtask(["refresh-fixtures"]).ok().stderr_has(
        "warning: tests/fixtures/orders.db: 1 of the rows of orders refer to rows of people that do not exist",
    );
    assert_eq!(databases::count(&env.repo().join(ORDERS), "orders"), 19);
}

#[test]
fn what_cannot_be_done_is_said() {
    let env = pulled();
    for (settings, code, said) in [
        ("", 2, "error: no [[fixture]] in the config file"),
        ("[[fixture]]\npath = 'x.db'\nform = 'a.db'", 2, "hint: did you mean `from`?"),
        ("[[fixture]]\npath = 'x.db'\nfrom = 'gone.db'", 1, "hint: cargo xtask pull-db"),
        ("[[fixture]]\npath = '../x.db'\nfrom = 'shop.db'", 2, "[[fixture]] number 1"),
        (
            "[[fixture]]\npath = 'x.db'\nfrom = 'shop.db'\nrows = { ordres = 1 }",
            2,
            "hint: did you mean `orders`?",
        ),
        (
            "[[fixture]]\npath = 'x.db'\nfrom = 'shop.db'\nmigrate = 'no-such-program {db}'",
            1,
            "caused by: cannot run `no-such-program ",
        ),
    ] {
        env.db_toml(settings);
        env.xtask(["refresh-fixtures"]).fails(code).stderr_has(said);
    }
    env.db_toml(SETTINGS);
    fs::remove_dir_all(env.repo().join(".git")).unwrap();
    env.xtask(["refresh-fixtures"])
        .fails(1)
        .stderr_has("is not in the work tree of a git repository")
        .stderr_has("hint: git init");
    assert!(!env.repo().join("tests").exists());
}

#[test]
fn an_input_that_is_no_file_is_said() {
    let env = pulled();
    env.db_toml(&SETTINGS.replace("'migrate.sh'", "'migrations/[2-9].sql'"));
    let said = "warning: tests/fixtures/orders.db: no file matches its input migrations/[2-9].sql";
    env.xtask(["refresh-fixtures"]).ok().stderr_has(said);
    env.xtask(["refresh-fixtures", "--check"]).fails(1).stderr_has(said);
}

#[test]
fn inputs_are_the_same_in_the_work_tree_and_staged() {
    let env = pulled();
    // A link is where it leads; a submodule is no file; a name need not be UTF-8.
    env.write("repo/elsewhere.sql", "-- first");
    std::os::unix::fs::symlink("../elsewhere.sql", env.repo().join("migrations/link.txt")).unwrap();
    env.git(&["init", "--quiet", "migrations/sub"]);
    env.git(&[
        "-C",
        "migrations/sub",
        "-c",
        "user.name=x",
        "-c",
        "user.email=y",
        "commit",
        "--quiet",
        "--allow-empty",
        "--message=x",
    ]);
    let name = std::ffi::OsStr::from_bytes(b"repo/migrations/\xff.txt");
    fs::write(env.path(name), "x").unwrap();
    env.xtask(["refresh-fixtures"]).ok();
    env.git(&["-c", "advice.addEmbeddedRepo=false", "add", "--all"]);
    env.git(&["commit", "--quiet", "--message=x"]);
    check(&env, &[]);
    env.write("repo/elsewhere.sql", "-- second");
    check(&env, &[]);
    fs::remove_file(env.repo().join("migrations/link.txt")).unwrap();
    std::os::unix::fs::symlink("../notes", env.repo().join("migrations/link.txt")).unwrap();
    check(&env, &["orders.db: migrations/link.txt changed"]);
    env.xtask(["refresh-fixtures"]).ok();
    let in_work_tree = bytes(&env, LOCK);
    env.git(&["add", "--all"]);
    env.git(&["commit", "--quiet", "--message=y"]);
    check(&env, &[]);
    assert!(bytes(&env, LOCK) == in_work_tree);
}

#[test]
fn a_repository_that_git_does_not_trust_is_named_as_such() {
    let env = pulled();
    env.replace_git(
        "echo \"fatal: detected dubious ownership in repository at 'x'\" >&2; exit 128",
    );
    env.xtask(["refresh-fixtures", "--check"])
        .fails(1)
        .stderr_has("caused by: detected dubious ownership in repository at 'x'")
        .stderr_lacks("git init");
}

#[test]
fn a_lock_file_that_is_nonsense_is_named() {
    let env = pulled();
    env.xtask(["refresh-fixtures"]).ok();
    env.write("repo/tests/fixtures/fixtures.lock", "fixture = 3");
    for args in [&["refresh-fixtures"][..], &["refresh-fixtures", "--check"]] {
        env.xtask(args)
            .fails(1)
            .stderr_has("error: tests/fixtures/fixtures.lock is malformed")
            .stderr_has(
                "hint: restore it with `git checkout HEAD -- tests/fixtures/fixtures.lock`",
            );
    }
}

/// This repository's own fixtures come out of the app's seed, to the byte.
#[test]
fn the_fixtures_of_this_repository_are_those_of_the_seed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let env = TestEnv::new();
    env.app(["setup", "--data-dir", &env.production().display().to_string()]).ok();
    let config = root.join("xtask/db.toml");
    let run = |args: &[&str]| {
        let mut command = env.command(tests::binaries::xtask());
        command.args(args).arg("--config").arg(&config).arg("--local-dir").arg(env.data());
        tests::process::Running::start(&mut command).wait()
    };
    run(&["pull-db", "--via", &format!("local:{}", env.production().display())]).ok();
    let names = ["data.db", "tenant.db", "fixtures.lock"];
    let read = || names.map(|name| fs::read(root.join("tests/fixtures").join(name)).unwrap());
    let before = read();
    let report = &run(&["refresh-fixtures", "--json"]).ok().json()["fixtures"];
    assert!(before == read(), "refresh-fixtures wrote something");
    assert_eq!(report[0]["changed"], false);
    assert_eq!(report[0]["rows"]["members"], 25);
}
