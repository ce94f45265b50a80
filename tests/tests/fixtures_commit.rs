//! The hook at work: real commits, with all that git lets a user do.

use std::fs;

use tests::databases;
use tests::fixtures::{
    ADD_NOTE, LOCK, ORDERS, PEOPLE, SETTINGS, WITH_NOTE, assert_fresh, columns, commit, committed,
    committed_columns, developer, hooked, migration, pulled, status,
};
use tests::process::Running;

#[test]
fn a_commit_of_something_else_is_left_alone() {
    let env = developer();
    env.write("repo/notes.txt", "changed\n");
    // Stale, but not this commit's matter.
    env.write("repo/migrations/2.sql", ADD_NOTE);
    commit(&env, &["notes.txt"]).ok().stderr_is("");
    assert_eq!(committed(&env), ["notes.txt"]);
    assert_eq!(columns(&env), "id person total");
}

#[test]
fn a_migration_takes_the_fixture_along() {
    let env = developer();
    migration(&env, 2, ADD_NOTE);
    let output = commit(&env, &[]).ok();
    output.stderr_has("Refreshed tests/fixtures/orders.db").stderr_lacks(PEOPLE);
    assert_eq!(committed(&env), ["migrations/2.sql", LOCK, ORDERS]);
    assert_eq!((columns(&env), committed_columns(&env)), (WITH_NOTE.into(), WITH_NOTE.into()));
    assert_fresh(&env);
}

#[test]
fn only_what_is_staged_counts() {
    let env = developer();
    // Of two statements one is staged, as with `git add -p`, and of two files one.
    migration(&env, 2, ADD_NOTE);
    env.write(
        "repo/migrations/2.sql",
        &format!("{ADD_NOTE}ALTER TABLE orders ADD COLUMN later;\n"),
    );
    env.write("repo/migrations/3.sql", "ALTER TABLE orders ADD COLUMN untracked;\n");
    env.write("repo/notes.txt", "not staged\n");
    commit(&env, &[]).ok();
    assert_eq!(committed(&env), ["migrations/2.sql", LOCK, ORDERS]);
    assert_eq!(committed_columns(&env), WITH_NOTE);
    assert_eq!(status(&env), [" M migrations/2.sql", " M notes.txt", "?? migrations/3.sql"]);
    // The rest follows with its own commit.
    env.git(&["add", "--all"]);
    commit(&env, &[]).ok();
    assert_eq!(committed_columns(&env), "id person total note later untracked");
}

#[test]
fn the_staged_settings_count() {
    let env = developer();
    env.db_toml(&SETTINGS.replace("LIMIT 20", "LIMIT 5"));
    env.git(&["add", "xtask/db.toml"]);
    env.db_toml("nonsense = 1");
    commit(&env, &[]).ok().stderr_has("Refreshed tests/fixtures/orders.db (");
    assert_eq!(databases::count(&env.repo().join(ORDERS), "orders"), 5);
    assert_eq!(status(&env), [" M xtask/db.toml"]);
}

#[test]
fn settings_that_change_no_fixture_change_none() {
    let env = developer();
    env.db_toml(&format!("keep = 3\n{SETTINGS}"));
    commit(&env, &["--all"]).ok().stderr_is("");
    assert_eq!(committed(&env), ["xtask/db.toml"]);
}

#[test]
fn fixtures_come_and_go_with_the_settings() {
    let env = developer();
    let (orders, people) = SETTINGS.split_at(SETTINGS.rfind("[[fixture]]").unwrap());
    env.db_toml(orders);
    env.git(&["rm", "--quiet", PEOPLE]);
    commit(&env, &["--all"]).ok();
    assert_eq!(committed(&env), [LOCK, PEOPLE, "xtask/db.toml"]);
    assert!(!env.repo().join(PEOPLE).exists());
    assert_fresh(&env);

    let strange = people.replace("people.db", "two words.db");
    env.db_toml(&format!("{orders}{strange}"));
    commit(&env, &["--all"]).ok();
    assert_eq!(committed(&env), [LOCK, "tests/fixtures/two words.db", "xtask/db.toml"]);
    assert_fresh(&env);
}

/// Also where a lock file has only fixtures that are gone.
#[test]
fn the_lock_file_goes_with_the_last_fixture() {
    let env = developer();
    let (rules, fixtures) = SETTINGS.split_at(SETTINGS.find("[[fixture]]").unwrap());
    env.write("repo/vendor/fixtures.lock", "nonsense");
    env.write(
        "repo/vendor/a/tests/fixtures/fixtures.lock",
        &fs::read_to_string(env.repo().join(LOCK)).unwrap(),
    );
    env.db_toml(&format!("{rules}{}", fixtures.replace("tests/fixtures", "spec")));
    env.xtask(["refresh-fixtures", "--check"])
        .fails(1)
        .stderr_has(&format!("{LOCK}: it has {ORDERS}, which is not in db.toml"))
        .stderr_lacks("vendor");
    env.xtask(["refresh-fixtures"]).ok();
    assert!(!env.repo().join(LOCK).exists() && env.repo().join("spec/fixtures.lock").exists());
    env.git(&["rm", "--quiet", ORDERS, PEOPLE]);
    env.git(&["add", "--all"]);
    commit(&env, &[]).ok();
    assert_fresh(&env);

    env.db_toml(rules);
    env.xtask(["refresh-fixtures", "--check"]).fails(1).stderr_has("which is not in db.toml");
    env.git(&["rm", "--quiet", "spec/orders.db", "spec/people.db"]);
    env.git(&["add", "--all"]);
    commit(&env, &[]).ok();
    assert_fresh(&env);
    let gone = ["spec/fixtures.lock", "spec/orders.db", "spec/people.db", "xtask/db.toml"];
    assert_eq!(committed(&env), gone);
    env.xtask(["refresh-fixtures"]).fails(2).stderr_has("no [[fixture]] in the config file");
}

#[test]
fn a_broken_migration_stops_the_commit_and_changes_nothing() {
    let env = developer();
    let before = env.git(&["rev-parse", "HEAD"]).stdout();
    migration(&env, 2, "-- more to come\nALTER TABEL orders ADD COLUMN note;\n");
    let staged = status(&env);
    let output = commit(&env, &[]).fails(1);
    output
        .stderr_has("error: cannot refresh tests/fixtures/orders.db; nothing was changed")
        .stderr_has("migrations/2.sql:2: ")
        .stderr_has("hint: fix the cause, `git add` the fix and commit again; or SKIP_FIXTURES=1 git commit");
    assert_eq!(env.git(&["rev-parse", "HEAD"]).stdout(), before);
    assert_eq!(status(&env), staged);
    assert_eq!(columns(&env), "id person total");
    assert!(databases::files(&env.path("local-tmp")).is_empty(), "nothing is left in TMPDIR");
}

#[test]
fn skipping_is_possible_and_seen_later() {
    let env = developer();
    migration(&env, 2, ADD_NOTE);
    let mut skipped = env.command("git");
    skipped.args(["commit", "--quiet", "--message=x"]).env("SKIP_FIXTURES", "1");
    Running::start(&mut skipped).wait().ok().stderr_is("");
    assert_eq!(committed(&env), ["migrations/2.sql"]);
    env.xtask(["refresh-fixtures", "--check"])
        .fails(1)
        .stderr_has("tests/fixtures/orders.db: migrations/2.sql is new");
}

#[test]
fn a_fixture_edited_by_hand_stops_the_commit() {
    let env = developer();
    databases::execute(&env.repo().join(ORDERS), "UPDATE orders SET total = 0");
    let edited = fs::read(env.repo().join(ORDERS)).unwrap();
    env.git(&["add", "--all"]);
    commit(&env, &[])
        .fails(1)
        .stderr_has("tests/fixtures/orders.db: it differs from fixtures.lock: ")
        .stderr_has("hint: cargo xtask refresh-fixtures, then git add tests/fixtures/orders.db tests/fixtures/fixtures.lock;");
    assert_eq!(fs::read(env.repo().join(ORDERS)).unwrap(), edited);
    env.xtask(["refresh-fixtures"]).ok().stderr_has("Refreshed tests/fixtures/orders.db");
    assert_eq!(status(&env), [format!("MM {ORDERS}")]);
    env.git(&["add", "--all"]);
    assert_fresh(&env);
}

#[test]
fn a_foreign_hook_runs_after_ours() {
    let env = developer();
    let hook = env.repo().join(".git/hooks/pre-commit");
    let ours = fs::read_to_string(&hook).unwrap();
    fs::write(&hook, format!("{ours}\ngit diff --cached --name-only >&2\nexec false\n")).unwrap();
    migration(&env, 2, ADD_NOTE);
    commit(&env, &[]).fails(1).stderr_has(&format!("migrations/2.sql\n{LOCK}\n{ORDERS}\n"));
}

#[test]
fn a_commit_of_paths_says_that_it_cannot_take_the_fixture_along() {
    let env = developer();
    migration(&env, 2, ADD_NOTE);
    commit(&env, &["migrations/2.sql"])
        .fails(1)
        .stderr_has("`git commit PATH` cannot include the fixtures")
        .stderr_has("hint: git add PATH, and commit without a path");
    assert_eq!(status(&env), ["A  migrations/2.sql"]);
    commit(&env, &["--all"]).ok();
    assert_eq!(committed(&env), ["migrations/2.sql", LOCK, ORDERS]);
    assert_fresh(&env);
}

#[test]
fn a_fixture_with_changes_that_are_not_staged_is_left_alone_in_the_work_tree() {
    let env = developer();
    databases::execute(&env.repo().join(ORDERS), "UPDATE orders SET total = 77");
    let mine = fs::read(env.repo().join(ORDERS)).unwrap();
    migration(&env, 2, ADD_NOTE);
    commit(&env, &[]).ok().stderr_has("orders.db was refreshed in the commit only");
    assert_eq!(committed_columns(&env), WITH_NOTE);
    assert!(fs::read(env.repo().join(ORDERS)).unwrap() == mine);
    assert_eq!(status(&env), [format!(" M {ORDERS}")]);
}

#[test]
fn a_refresh_by_hand_that_is_not_staged_is_taken() {
    let env = developer();
    migration(&env, 2, ADD_NOTE);
    env.xtask(["refresh-fixtures"]).ok();
    assert_eq!(
        status(&env),
        ["A  migrations/2.sql", &format!(" M {LOCK}"), &format!(" M {ORDERS}")]
    );
    commit(&env, &[]).ok();
    assert_eq!(committed(&env), ["migrations/2.sql", LOCK, ORDERS]);
    assert_fresh(&env);
}

#[test]
fn a_fixture_cannot_be_removed_while_the_settings_have_it() {
    let env = developer();
    env.git(&["rm", "--quiet", PEOPLE]);
    commit(&env, &[])
        .fails(1)
        .stderr_has("tests/fixtures/people.db is removed, but db.toml still has it")
        .stderr_has("hint: remove its [[fixture]] from db.toml too");
}

#[test]
fn what_was_stale_before_is_another_commits_matter() {
    let env = developer();
    let people = "rows = { people = 3 }\ninputs = ['people/**']\n";
    env.db_toml(&SETTINGS.replace("rows = { people = 3 }\n", people));
    env.write("repo/people/1", "");
    commit(&env, &["--all"]).ok();
    env.git(&["add", "--all"]);
    commit(&env, &[]).ok();
    // Left out once, and then not made up for by a commit about something else.
    env.write("repo/people/2", "");
    env.git(&["add", "--all"]);
    let mut skipped = env.command("git");
    skipped.args(["commit", "--quiet", "--message=x"]).env("SKIP_FIXTURES", "1");
    Running::start(&mut skipped).wait().ok();
    migration(&env, 2, ADD_NOTE);
    commit(&env, &[]).ok().stderr_lacks(PEOPLE);
    assert_eq!(committed(&env), ["migrations/2.sql", LOCK, ORDERS]);
    env.xtask(["refresh-fixtures", "--check"]).fails(1).stderr_has("people.db: people/2 is new");
}

/// A migration that is not tracked is none of the commit, even when nothing else differs.
#[test]
fn an_untracked_input_is_not_seen() {
    let env = developer();
    migration(&env, 2, ADD_NOTE);
    env.write("repo/migrations/3.sql", "nonsense");
    commit(&env, &[]).ok();
    assert_eq!(committed_columns(&env), WITH_NOTE);
}

/// `migrate` may need what git ignores, and must not get at the data.
#[test]
fn the_checkout_has_what_is_ignored_but_no_data() {
    for (ignored, local_dir) in [("/data\n", "data"), ("/data/*\n", "data"), ("/var\n", "var/data")]
    {
        let env = developer();
        env.write("repo/.gitignore", &format!("{ignored}/target\n/deps\n"));
        env.db_toml(&format!("local-dir = '{local_dir}'\n{SETTINGS}"));
        env.write("repo/deps/lib.sh", "echo deps");
        env.write(
            "repo/migrate.sh",
            // On one line: of more, only the last are shown.
            "{ . ./deps/lib.sh; pwd; ls -RL .; env | grep ^GIT_INDEX; } 2>&1 | tr '\\n' ' '; exit 3",
        );
        if local_dir != "data" {
            fs::create_dir(env.repo().join("var")).unwrap();
            fs::rename(env.data(), env.repo().join(local_dir)).unwrap();
        }
        env.git(&["add", "--all"]);
        env.write("repo/notes.txt", "not staged");
        commit(&env, &[])
            .fails(1)
            .stderr_has("deps")
            .stderr_has("xtask-staged")
            .stderr_lacks("snapshot.json")
            .stderr_lacks("shop.db:")
            .stderr_lacks("GIT_INDEX_FILE");
        let tree = env.repo().join(".git/xtask-staged/tree");
        assert!(tree.join("deps/lib.sh").exists());
        assert!(
            !tree.join(local_dir).join("shop.db").exists()
                && !tree.join(local_dir).join(".xtask").exists()
        );
    }
}

/// The data directory may have the code in it, or be in a directory with more than data.
#[test]
fn only_data_is_missing_in_the_checkout() {
    for (ignored, local_dir, deps) in [
        ("/*.db*\n/backup_*/\n/.xtask/\n/.venv/\n", ".", ".venv"),
        ("/data\n", "data", "data/cache"),
        ("/var\n", "var/data", "var/deps"),
        ("/link\n/var\n", "link", "var/deps"),
    ] {
        let env = developer();
        env.write("repo/.gitignore", &format!("{ignored}/target\n"));
        env.db_toml(&format!("local-dir = '{local_dir}'\n{SETTINGS}"));
        let place = if local_dir == "link" { "var/data" } else { local_dir };
        if local_dir == "." {
            for entry in fs::read_dir(env.data()).unwrap().map(Result::unwrap) {
                fs::rename(entry.path(), env.repo().join(entry.file_name())).unwrap();
            }
        } else if place != "data" {
            fs::create_dir(env.repo().join("var")).unwrap();
            fs::rename(env.data(), env.repo().join(place)).unwrap();
        }
        if local_dir == "link" {
            std::os::unix::fs::symlink("var/data", env.repo().join("link")).unwrap();
        }
        env.write(&format!("repo/{deps}/lib.sh"), "echo deps: there");
        env.write(
            "repo/migrate.sh",
            &format!("{{ . ./{deps}/lib.sh; pwd; find -L . ! -path './.git/*'; }} 2>&1 | tr '\\n' ' '; exit 3"),
        );
        env.git(&["add", "--all"]);
        env.write("repo/notes.txt", "not staged");
        commit(&env, &[])
            .fails(1)
            .stderr_has("deps: there")
            .stderr_has("xtask-staged")
            .stderr_lacks("/shop.db")
            .stderr_lacks("snapshot.json")
            .stderr_lacks(".xtask/");
    }
}

/// As with Git LFS: what git keeps is not what is in the work tree.
#[test]
fn filters_of_git_are_applied() {
    let env = developer();
    env.write("repo/.gitattributes", "*.db filter=turn\n");
    for (key, value) in [
        ("filter.turn.clean", "base64"),
        ("filter.turn.smudge", "base64 -d"),
        ("filter.turn.required", "true"),
    ] {
        env.git(&["config", key, value]);
    }
    env.git(&["add", "--renormalize", "."]);
    env.git(&["add", ".gitattributes"]);
    commit(&env, &[]).ok().stderr_is("");
    migration(&env, 2, ADD_NOTE);
    commit(&env, &[]).ok();
    assert_eq!(committed(&env), ["migrations/2.sql", LOCK, ORDERS]);
    assert_eq!(columns(&env), WITH_NOTE);
    assert_fresh(&env);
    // Where they fail, it is not as if there were no fixture.
    env.git(&["config", "filter.turn.smudge", "false"]);
    migration(&env, 3, "ALTER TABLE orders ADD COLUMN more;");
    commit(&env, &[]).fails(1).stderr_has("cat-file").stderr_has("SKIP_FIXTURES=1");
}

#[test]
fn the_first_commit_of_a_repository_makes_its_fixtures() {
    let env = hooked(pulled());
    env.git(&["update-ref", "-d", "HEAD"]);
    commit(&env, &[]).ok().stderr_has("Refreshed tests/fixtures/people.db");
    assert!(committed(&env).contains(&ORDERS.to_owned()));
    assert_fresh(&env);
}
