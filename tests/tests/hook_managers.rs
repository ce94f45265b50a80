//! The snippets of `docs/hooks/`, each run by what it is for.

use std::fs;

use tests::hook_managers::{
    FIXTURE, LOCK, Manager, changed, commit, commit_with, developer, stage, state, status, tables,
};
use tests::process::{Running, command};
use tests::shells;
use tests::world::WORLD_VARIABLE;

const SECOND: &str = "CREATE TABLE second (id);\n";
const PLACE: &str = "migrations/02.sql";

/// Each scenario with each of them.
macro_rules! with_each_manager {
    ($($scenario:ident)*) => {
        with_each_manager!(git, Git, $($scenario)*);
        with_each_manager!(pre_commit, PreCommit, $($scenario)*);
        with_each_manager!(prek, Prek, $($scenario)*);
        with_each_manager!(lefthook, Lefthook, $($scenario)*);
    };
    ($module:ident, $manager:ident, $($scenario:ident)*) => {
        mod $module {
            $(#[test]
            fn $scenario() {
                super::$scenario(super::Manager::$manager);
            })*
        }
    };
}

with_each_manager! {
    a_commit_takes_the_fixtures_along_that_it_makes_stale
    a_commit_of_other_files_is_left_alone
    a_broken_migration_stops_the_commit
    what_is_not_staged_survives_and_does_not_count
    skip_fixtures_skips_it
    commit_all_works_and_a_commit_of_paths_is_refused
    a_fixture_refreshed_but_not_staged_can_be_committed
    a_client_without_cargo_on_its_path_commits
}

fn a_commit_takes_the_fixtures_along_that_it_makes_stale(manager: Manager) {
    let env = developer(manager);
    stage(&env, PLACE, SECOND);
    commit(&env, &[]).ok().stderr_has(&format!("Refreshed {FIXTURE}"));
    assert_eq!(changed(&env), [PLACE, FIXTURE, LOCK]);
    assert_eq!((status(&env).as_str(), tables(&env)), ("", names(&["first", "second"])));
    env.xtask(["refresh-fixtures", "--check"]).ok();

    // A commit that only deletes has no files that a manager would look at.
    env.git(&["rm", "--quiet", PLACE]);
    commit(&env, &[]).ok();
    assert_eq!(changed(&env), [PLACE, FIXTURE, LOCK]);
    assert_eq!((status(&env).as_str(), tables(&env)), ("", names(&["first"])));
}

fn a_commit_of_other_files_is_left_alone(manager: Manager) {
    let env = developer(manager);
    stage(&env, "notes.txt", "other\n");
    commit(&env, &[]).ok().stderr_lacks(FIXTURE);
    assert_eq!((changed(&env), status(&env).as_str()), (names(&["notes.txt"]), ""));
    assert_eq!(tables(&env), ["first"]);
}

fn a_broken_migration_stops_the_commit(manager: Manager) {
    let env = developer(manager);
    stage(&env, PLACE, "CREATE TALE second (id);\n");
    env.write("repo/notes.txt", "not staged\n");
    // Mended in the work tree is not mended in the commit.
    env.write(&format!("repo/{PLACE}"), SECOND);
    let before = state(&env);
    commit(&env, &[])
        .fails(1)
        .stderr_has(&format!("cannot refresh {FIXTURE}; nothing was changed"))
        .stderr_has(&format!("{PLACE} is broken"))
        .stderr_has("SKIP_FIXTURES=1 git commit");
    assert_eq!(state(&env), before);
    stage(&env, PLACE, SECOND);
    commit(&env, &[]).ok();
    assert_eq!(tables(&env), ["first", "second"]);
}

fn what_is_not_staged_survives_and_does_not_count(manager: Manager) {
    let env = developer(manager);
    stage(&env, PLACE, SECOND);
    let unstaged = [
        (PLACE, "CREATE TABLE second (id, name);\nCREATE TABLE unstaged (id);\n"),
        ("notes.txt", "not staged\n"),
        ("migrations/03.sql", "CREATE TABLE untracked (id);\n"),
    ];
    for (path, text) in unstaged {
        env.write(&format!("repo/{path}"), text);
    }
    let before = status(&env);
    assert_eq!(before, format!("AM {PLACE}\n M notes.txt\n?? migrations/03.sql\n"));
    commit(&env, &[]).ok();
    assert_eq!(changed(&env), [PLACE, FIXTURE, LOCK]);
    assert_eq!(tables(&env), ["first", "second"]);
    assert_eq!(status(&env), format!(" M {PLACE}\n M notes.txt\n?? migrations/03.sql\n"));
    for (path, text) in unstaged {
        assert_eq!(fs::read_to_string(env.repo().join(path)).expect("it is there"), text);
    }
}

fn skip_fixtures_skips_it(manager: Manager) {
    let env = developer(manager);
    stage(&env, PLACE, "CREATE TALE second (id);\n");
    commit_with(&env, &[], &[("SKIP_FIXTURES", "1")]).ok();
    assert_eq!((changed(&env), status(&env).as_str()), (names(&[PLACE]), ""));
    assert_eq!(tables(&env), ["first"]);
}

fn commit_all_works_and_a_commit_of_paths_is_refused(manager: Manager) {
    let env = developer(manager);
    let edited = "CREATE TABLE edited (id);\n";
    env.write("repo/migrations/01.sql", edited);
    stage(&env, "notes.txt", "other\n");
    let before = state(&env);
    commit(&env, &["migrations/01.sql"])
        .fails(1)
        .stderr_has("git add PATH, and commit without a path");
    assert_eq!(state(&env), before);
    commit(&env, &["--all"]).ok();
    assert_eq!(changed(&env), ["migrations/01.sql", "notes.txt", FIXTURE, LOCK]);
    assert_eq!((status(&env).as_str(), tables(&env)), ("", names(&["edited"])));

    env.write("repo/notes.txt", "once more\n");
    commit(&env, &["notes.txt"]).ok();
    assert_eq!((changed(&env), status(&env).as_str()), (names(&["notes.txt"]), ""));
}

/// A developer has refreshed it by hand, and forgotten to stage it. pre-commit
/// and prek set that aside, and cannot bring it back over what the hook wrote.
fn a_fixture_refreshed_but_not_staged_can_be_committed(manager: Manager) {
    let env = developer(manager);
    stage(&env, PLACE, SECOND);
    env.xtask(["refresh-fixtures"]).ok();
    let run = commit(&env, &[]);
    if let Manager::PreCommit | Manager::Prek = manager {
        run.fails(1).stderr_has("conflicted with");
        // What the comment in the snippet says.
        env.git(&["add", FIXTURE, LOCK]);
        commit(&env, &[]).ok();
    } else {
        run.ok();
    }
    assert_eq!(changed(&env), [PLACE, FIXTURE, LOCK]);
    assert_eq!((status(&env).as_str(), tables(&env)), ("", names(&["first", "second"])));
}

/// A GUI client has a home, and the PATH of the system: Cargo is in neither.
fn a_client_without_cargo_on_its_path_commits(manager: Manager) {
    let env = developer(manager);
    let bin = env.path("home/.cargo/bin");
    fs::create_dir_all(&bin).expect("make a directory");
    fs::rename(env.path("bin/cargo"), bin.join("cargo")).expect("move cargo");
    let path = shells::debian(&env.path(""), &["cargo"]);
    let commit = || {
        let mut git = command(path.join("git"));
        git.current_dir(env.repo()).args(["commit", "--quiet", "--message=x"]).env_clear();
        git.env("HOME", env.path("home")).env("PATH", &path).env(WORLD_VARIABLE, env.world_path());
        Running::start(&mut git).wait()
    };
    stage(&env, PLACE, SECOND);
    commit().ok().stderr_has(&format!("Refreshed {FIXTURE}"));
    assert_eq!(changed(&env), [PLACE, FIXTURE, LOCK]);
    fs::remove_file(bin.join("cargo")).expect("remove cargo");
    stage(&env, "migrations/03.sql", "");
    commit().fails(1).stderr_has("cargo");
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
