//! The hook where history is rewritten and brought together, and where there are
//! several work trees.

use std::fs;

use tests::env::TestEnv;
use tests::fixtures::{
    ADD_NOTE, LOCK, ORDERS, WITH_NOTE, assert_fresh, columns, commit, committed, committed_columns,
    developer, migration, status,
};
use tests::process::Running;
use tests::{databases, hooks};

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
        .stderr_has("Keeping the rows of tests/fixtures/orders.db")
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
fn a_conflict_is_resolved_without_a_snapshot_as_well() {
    let env = diverged();
    fs::remove_dir_all(env.data()).unwrap();
    conflict(&env, &["merge", "--quiet", "topic"]);
    commit(&env, &[]).ok();
    assert_eq!(committed_columns(&env), "id person total note topic");
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

/// git runs no hook where it picks a commit, and one where a conflict was resolved in a single one.
#[test]
fn picked_commits_bring_their_fixtures_along() {
    let env = developer();
    env.git(&["switch", "--quiet", "--create", "topic"]);
    migration(&env, 2, ADD_NOTE);
    commit(&env, &[]).ok();
    migration(&env, 3, "ALTER TABLE orders ADD COLUMN topic;\n");
    commit(&env, &[]).ok();
    for (branch, bring) in [
        ("picked", &["cherry-pick", "main..topic"][..]),
        ("topic", &["rebase", "--quiet", "moved"]),
    ] {
        env.git(&["switch", "--quiet", "--create", "moved", "main"]);
        env.write("repo/notes.txt", branch);
        commit(&env, &["--all"]).ok();
        match branch {
            "topic" => env.git(&["switch", "--quiet", "topic"]),
            _ => env.git(&["switch", "--quiet", "--create", branch]),
        };
        env.git(bring);
        assert_eq!(committed(&env), ["migrations/3.sql", LOCK, ORDERS]);
        assert_eq!(committed_columns(&env), "id person total note topic");
        assert_fresh(&env);
        env.git(&["branch", "--quiet", "-D", "moved"]);
    }
}

#[test]
fn a_conflict_of_a_picked_commit_is_resolved_by_a_refresh() {
    let env = diverged();
    conflict(&env, &["cherry-pick", "topic"]);
    env.git(&["-c", "core.editor=true", "cherry-pick", "--continue"]);
    assert_eq!(committed_columns(&env), "id person total note topic");
    assert_fresh(&env);
}

/// With the side that is checked out, the hook does the rest, but git runs none in a rebase.
#[test]
fn a_conflict_resolved_by_one_side_is_left_stale_by_a_rebase_alone() {
    for command in ["cherry-pick", "rebase"] {
        let env = diverged();
        if command == "rebase" {
            env.git(&["switch", "--quiet", "topic"]);
        }
        let onto = if command == "rebase" { "main" } else { "topic" };
        Running::start(env.command("git").args([command, onto])).wait().fails(1);
        env.git(&["checkout", "--ours", "--", LOCK, ORDERS]);
        env.git(&["add", "--all"]);
        let mut rest = env.command("git");
        let rest = Running::start(rest.args([command, "--continue"]).env("GIT_EDITOR", "true"));
        let said = rest.wait().ok();
        let check = env.xtask(["refresh-fixtures", "--check"]);
        if command == "rebase" {
            check.fails(1).stderr_has("migrations/3.sql is new");
        } else {
            said.stderr_has("Refreshed tests/fixtures/orders.db");
            assert_eq!(committed_columns(&env), "id person total note topic");
            check.ok();
        }
    }
}
