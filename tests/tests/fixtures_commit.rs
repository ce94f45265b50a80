//! The hook at work: real commits, with all that git lets a user do.

use std::fs;

use tests::databases;
use tests::env::TestEnv;
use tests::fixtures::{
    LOCK, ORDERS, PEOPLE, SETTINGS, columns, commit, committed, committed_columns, developer,
    hooked, migration, pulled, status,
};
use tests::hooks;
use tests::process::Running;

const ADD_NOTE: &str = "ALTER TABLE orders ADD COLUMN note TEXT;\n";
const WITH_NOTE: &str = "id person total note";

#[track_caller]
fn assert_fresh(env: &TestEnv) {
    env.xtask(["refresh-fixtures", "--check"]).ok();
    assert_eq!(status(env), Vec::<String>::new());
}

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
        .stderr_has(
            "hint: mend that, `git add` it and commit again; or SKIP_FIXTURES=1 git commit",
        );
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
fn an_amended_commit_has_the_fixture_of_its_content() {
    let env = developer();
    migration(&env, 2, ADD_NOTE);
    commit(&env, &[]).ok();
    migration(&env, 2, "ALTER TABLE orders ADD COLUMN remark TEXT;\n");
    commit(&env, &["--amend"]).ok();
    assert_eq!(committed(&env), ["migrations/2.sql", LOCK, ORDERS]);
    assert_eq!(committed_columns(&env), "id person total remark");
    assert_fresh(&env);
    // To reword it is nobody's business.
    commit(&env, &["--amend", "--message=other"]).ok().stderr_is("");
}

/// Two branches with a migration each, and `main` checked out.
fn diverged() -> TestEnv {
    let env = developer();
    env.git(&["switch", "--quiet", "--create", "topic"]);
    migration(&env, 3, "ALTER TABLE orders ADD COLUMN topic;\n");
    commit(&env, &[]).ok();
    env.git(&["switch", "--quiet", "main"]);
    migration(&env, 2, ADD_NOTE);
    commit(&env, &[]).ok();
    env
}

fn conflict(env: &TestEnv, args: &[&str]) {
    Running::start(env.command("git").args(args)).wait().fails(1);
    assert_eq!(
        status(env),
        ["A  migrations/3.sql", &format!("UU {LOCK}"), &format!("UU {ORDERS}")]
    );
    env.xtask(["refresh-fixtures", "--check"]).fails(1).stderr_has("it has merge conflicts");
    env.xtask(["refresh-fixtures"]).ok();
    env.git(&["add", "--all"]);
}

#[test]
fn a_merge_conflict_is_resolved_by_a_refresh() {
    let env = diverged();
    conflict(&env, &["merge", "--quiet", "topic"]);
    commit(&env, &[]).ok().stderr_is("");
    assert_eq!(committed_columns(&env), "id person total note topic");
    assert_fresh(&env);
}

#[test]
fn a_merge_conflict_resolved_by_one_side_is_mended_by_the_hook() {
    let env = diverged();
    Running::start(env.command("git").args(["merge", "--quiet", "topic"])).wait().fails(1);
    env.git(&["checkout", "--ours", "--", LOCK, ORDERS]);
    env.git(&["add", "--all"]);
    commit(&env, &[]).ok().stderr_has("Refreshed");
    assert_eq!(committed_columns(&env), "id person total note topic");
    assert_fresh(&env);
}

#[test]
fn a_rebase_conflict_is_resolved_by_a_refresh() {
    let env = diverged();
    env.git(&["switch", "--quiet", "topic"]);
    conflict(&env, &["rebase", "--quiet", "main"]);
    let mut rest = env.command("git");
    rest.args(["rebase", "--continue"]).env("GIT_EDITOR", "true");
    Running::start(&mut rest).wait().ok();
    assert_eq!(committed_columns(&env), "id person total note topic");
    assert_fresh(&env);
}

#[test]
fn a_merge_without_conflict_stays_fresh() {
    let env = developer();
    env.git(&["switch", "--quiet", "--create", "topic"]);
    migration(&env, 2, ADD_NOTE);
    commit(&env, &[]).ok();
    env.git(&["switch", "--quiet", "main"]);
    env.write("repo/notes.txt", "else\n");
    commit(&env, &["--all"]).ok();
    env.git(&["merge", "--quiet", "--no-edit", "topic"]);
    assert_fresh(&env);
}

#[test]
fn a_linked_worktree_without_data_migrates_what_is_committed() {
    let env = developer();
    env.git(&["worktree", "add", "--quiet", "-b", "other", "../other tree"]);
    let git = |args: &[&str]| {
        Running::start(env.command("git").current_dir(env.path("other tree")).args(args)).wait()
    };
    env.write("other tree/migrations/2.sql", ADD_NOTE);
    git(&["add", "--all"]).ok();
    git(&["commit", "--quiet", "--message=next"])
        .ok()
        .stderr_has("Migrating tests/fixtures/orders.db")
        .stderr_has("Refreshed tests/fixtures/orders.db");
    git(&["status", "--porcelain"]).ok().stdout_is("");
    assert_eq!(status(&env), Vec::<String>::new());
    env.git(&["merge", "--quiet", "other"]);
    assert_eq!(columns(&env), WITH_NOTE);
    // The same bytes as from the snapshot.
    env.xtask(["refresh-fixtures"]).ok().stderr_has("Unchanged tests/fixtures/orders.db");
    assert_fresh(&env);
}

#[test]
fn a_fixture_edited_by_hand_stops_the_commit() {
    let env = developer();
    databases::execute(&env.repo().join(ORDERS), "UPDATE orders SET total = 0");
    let edited = fs::read(env.repo().join(ORDERS)).unwrap();
    env.git(&["add", "--all"]);
    commit(&env, &[])
        .fails(1)
        .stderr_has("tests/fixtures/orders.db: it was edited by hand")
        .stderr_has("`cargo xtask refresh-fixtures` makes it anew");
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
        .stderr_has("`git commit PATH` cannot take along the fixtures")
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
fn the_first_commit_of_a_repository_makes_its_fixtures() {
    let env = hooked(pulled());
    env.git(&["update-ref", "-d", "HEAD"]);
    commit(&env, &[]).ok().stderr_has("Refreshed tests/fixtures/people.db");
    assert!(committed(&env).contains(&ORDERS.to_owned()));
    assert_fresh(&env);
}

/// In a repository of several projects, with a linked work tree of it as well.
#[test]
fn xtask_may_lie_below_the_top_of_the_work_tree() {
    let env = developer();
    fs::create_dir_all(env.path("mono/a part")).unwrap();
    for name in ["xtask", "migrations", "migrate.sh", "tests", "target", ".gitignore"] {
        fs::rename(env.repo().join(name), env.path("mono/a part").join(name)).unwrap();
    }
    let git = |dir: &str, args: &[&str]| {
        Running::start(env.command("git").current_dir(env.path(dir)).args(args)).wait()
    };
    git("mono", &["init", "--quiet", "--initial-branch=main"]).ok();
    for (key, value) in [("user.name", "Test"), ("user.email", "test@example.com")] {
        git("mono", &["config", key, value]).ok();
    }
    git("mono", &["add", "--all"]).ok();
    git("mono", &["commit", "--quiet", "--message=first"]).ok();
    hooks::install_in(&env, "mono/a part").ok();
    git("mono", &["worktree", "add", "--quiet", "-b", "other", "../linked"]).ok();
    for (top, number) in [("mono", 2), ("linked", 3)] {
        let path = format!("{top}/a part/migrations/{number}.sql");
        env.write(&path, ADD_NOTE);
        git(top, &["add", "--all"]).ok();
        env.write(&path, "not staged");
        git(top, &["commit", "--quiet", "--message=next"])
            .ok()
            .stderr_has("Refreshed tests/fixtures/orders.db");
        let staged = git(top, &["show", "--format=", "--name-only"]).ok().stdout();
        let of = |path: &str| format!("a part/{path}\n");
        assert_eq!(staged, of(&format!("migrations/{number}.sql")) + &of(LOCK) + &of(ORDERS));
        git(top, &["status", "--porcelain"])
            .ok()
            .stdout_is(format!(" M \"a part/migrations/{number}.sql\"\n"));
        let fixture = env.path(top).join("a part").join(ORDERS);
        databases::query(&fixture, "SELECT note FROM orders");
    }
}
