//! What counts as an input, and as a file of the next commit, is what git takes
//! for one.

use std::fs;

use tests::fixtures::{
    ADD_NOTE, LOCK, ORDERS, PEOPLE, SETTINGS, assert_fresh, commit, committed, developer,
    migration, status,
};

/// Not on macOS, whose file systems refuse such names.
#[cfg(target_os = "linux")]
#[test]
fn names_that_are_not_utf8_stand_in_nobodys_way() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    let env = developer();
    let write = |name: &[u8]| fs::write(env.repo().join(OsStr::from_bytes(name)), "x").unwrap();
    write(b"caf\xe9.txt");
    migration(&env, 2, ADD_NOTE);
    env.git(&["add", "--all"]);
    write(b"not staged \xe9.txt");
    env.write("repo/notes.txt", "not staged\n");
    commit(&env, &[]).ok();
    assert_eq!(committed(&env).len(), 4);
    env.xtask(["refresh-fixtures", "--check"]).ok();
}

#[test]
fn a_file_that_is_only_announced_is_no_input_of_the_commit() {
    let env = developer();
    env.write("repo/migrations/3.sql", "ALTER TABLE orders ADD COLUMN later;\n");
    env.git(&["add", "--intent-to-add", "migrations/3.sql"]);
    migration(&env, 2, ADD_NOTE);
    commit(&env, &[]).ok();
    let lock = fs::read_to_string(env.repo().join(LOCK)).unwrap();
    assert!(lock.contains("migrations/2.sql") && !lock.contains("migrations/3.sql"), "{lock}");
    env.git(&["rm", "--quiet", "--cached", "migrations/3.sql"]);
    fs::remove_file(env.repo().join("migrations/3.sql")).unwrap();
    env.xtask(["refresh-fixtures", "--check"]).ok();
}

/// What a commit records is what `--check` finds in a checkout of it.
#[test]
fn links_submodules_and_line_ends_have_one_id() {
    let env = developer();
    env.write("repo/shared/2.sql", ADD_NOTE);
    std::os::unix::fs::symlink("../shared/2.sql", env.repo().join("migrations/2.sql")).unwrap();
    env.git(&["init", "--quiet", "migrations/more"]);
    let mut inner = vec!["-C", "migrations/more", "-c", "user.name=x", "-c", "user.email=x@y"];
    inner.extend(["commit", "--quiet", "--allow-empty", "--message=x"]);
    env.git(&inner);
    migration(&env, 3, "ALTER TABLE orders ADD COLUMN later;\r\n");
    env.git(&["add", "--all"]);
    commit(&env, &[]).ok();
    // With this, git would store the file otherwise, if it were new.
    env.git(&["config", "core.autocrlf", "true"]);
    env.xtask(["refresh-fixtures", "--check"]).ok();
    assert_eq!(status(&env), Vec::<String>::new());

    // The same before it is staged.
    env.git(&["config", "core.autocrlf", "false"]);
    env.write("repo/migrations/3.sql", "ALTER TABLE orders ADD COLUMN other;\n");
    std::os::unix::fs::symlink("../shared/2.sql", env.repo().join("migrations/4.sql")).unwrap();
    env.write("repo/shared/2.sql", "");
    env.xtask(["refresh-fixtures"]).ok();
    env.git(&["add", "--all"]);
    commit(&env, &[]).ok().stderr_is("");
    env.xtask(["refresh-fixtures", "--check"]).ok();
}

#[test]
fn a_fixture_that_is_ignored_is_in_no_commit() {
    let env = developer();
    env.git(&["rm", "--quiet", "--cached", ORDERS, PEOPLE, LOCK]);
    let ignored = fs::read_to_string(env.repo().join(".gitignore")).unwrap();
    env.write("repo/.gitignore", &format!("{ignored}/tests/fixtures\n"));
    migration(&env, 2, ADD_NOTE);
    env.git(&["add", "--all"]);
    commit(&env, &[]).ok().stderr_is("");
    let left = env.git(&["ls-files", "tests/fixtures"]).stdout();
    assert_eq!(left, "");
}

#[test]
fn a_sparse_checkout_without_the_fixtures_stays_clean() {
    let env = developer();
    env.git(&["sparse-checkout", "set", "--cone", "xtask", "migrations"]);
    assert!(!env.repo().join(LOCK).exists());
    migration(&env, 2, ADD_NOTE);
    commit(&env, &[]).ok();
    assert_eq!(committed(&env), ["migrations/2.sql", LOCK, ORDERS]);
    assert_eq!(status(&env), Vec::<String>::new());
}

#[test]
fn a_lock_file_with_other_line_ends_is_refreshed_in_the_work_tree_too() {
    let env = developer();
    env.write("repo/.gitattributes", "*.lock text eol=crlf\n");
    // As we have written it, it has the line ends that a checkout would not give it.
    migration(&env, 2, ADD_NOTE);
    env.git(&["add", "--all"]);
    commit(&env, &[]).ok().stderr_lacks("in the commit only");
    env.xtask(["refresh-fixtures", "--check"]).ok();
    assert_eq!(status(&env), Vec::<String>::new());
}

#[test]
fn what_a_refresh_writes_is_no_input() {
    let env = developer();
    env.write("repo/run.sh", "sh migrate.sh \"$1\"; date +%s%N >db/schema.rb; date >db/new.rb");
    env.write("repo/db/schema.rb", "");
    env.write("repo/tests/a", "");
    let inputs =
        "inputs = ['migrations/**', 'tests/**', 'db/**', 'db/s*.rb']\noutputs = ['db/*.rb']";
    env.db_toml(
        &SETTINGS
            .replace("sh migrate.sh", "sh run.sh")
            .replace("inputs = ['migrations/**', 'migrate.sh']", inputs),
    );
    env.xtask(["refresh-fixtures"]).ok().stderr_lacks("no file matches");
    env.git(&["add", "--all"]);
    env.xtask(["refresh-fixtures", "--check"]).ok();
    env.git(&["commit", "--quiet", "--no-verify", "--message=x"]);
    migration(&env, 2, ADD_NOTE);
    commit(&env, &[]).ok();
    assert_fresh(&env);
    let lock = fs::read_to_string(env.repo().join(LOCK)).unwrap();
    assert!(lock.contains("\"tests/a\" =") && !lock.contains("schema.rb"), "{lock}");
    env.write("repo/tests/a", "changed");
    env.xtask(["refresh-fixtures", "--check"]).fails(1).stderr_has("tests/a changed");
}
