//! `[hooks]` and `compact`: what changes the databases of a snapshot on their way to the app.

use std::fs;

use tests::databases;
use tests::env::TestEnv;
use tests::pull::snapshot;
use tests::shells;
use tests::store::{kinds, left_behind};

const COUNT: &str = "SELECT count(*) FROM items";

fn production() -> TestEnv {
    let env = TestEnv::new();
    for name in ["a.db", "it's b.db"] {
        databases::create(&env.production().join(name), 300, 1);
    }
    env
}

fn script(env: &TestEnv, name: &str, body: &str) {
    shells::script(&env.path("bin"), name, body);
}

/// Deletes an item of each database.
const DELETE_ONE: &str = "printf '%s\\n' \"$XTASK_DATABASES\" | while read -r name; do \
    sqlite3 \"$XTASK_DIR/$name\" 'DELETE FROM items WHERE id = 1'; done; echo said";

#[test]
fn what_prepare_changes_is_current_and_the_snapshot_is_not() {
    let env = production();
    script(&env, "prepare", DELETE_ONE);
    env.db_toml("[hooks]\nprepare = 'prepare them'\n");
    env.local_pull(&[]).ok().stdout_is("").stderr_has("     Running prepare them\nsaid\n");
    let live = env.data().join("it's b.db");
    assert_eq!(databases::query(&live, COUNT), 299.into());
    assert_eq!(databases::query(&snapshot(&env).path.join("it's b.db"), COUNT), 300.into());
    assert_eq!(left_behind(&env.data()), [""; 0]);

    // Nobody has written to it: it is neither saved nor prepared again.
    env.local_pull(&[]).ok().stderr_lacks("Running");
    assert_eq!(kinds(&env.data()), ["pull", "pull"]);
    env.db_toml("[hooks]\nprepare = 'prepare them again'\n");
    env.local_pull(&[]).ok().stderr_has("Running prepare them again");
    assert_eq!(databases::query(&live, COUNT), 299.into());

    // What the app writes is saved, and comes back as it was.
    databases::execute(&live, "DELETE FROM items WHERE id > 9");
    env.local_pull(&[]).ok();
    env.xtask(["restore-db", "--yes", "--undo", "--json"]).ok().json();
    assert_eq!(databases::query(&live, COUNT), 8.into());
}

/// What was current here is what somebody wanted to keep, such as before a migration.
#[test]
fn what_was_saved_here_comes_back_as_it_was_and_a_pull_is_prepared() {
    let env = production();
    script(&env, "prepare", DELETE_ONE);
    env.db_toml("[hooks]\nprepare = 'prepare them'\n");
    env.local_pull(&[]).ok();
    let live = env.data().join("a.db");
    let change = |sql: &str| {
        databases::execute(&live, sql);
        databases::execute(&env.data().join("it's b.db"), sql);
    };
    let restore = |args: &[&str]| env.xtask([&["restore-db", "--yes"], args].concat()).ok();

    // Nobody has written to it, and yet it is not the pull.
    env.xtask(["snapshots", "create", "mine"]).ok();
    env.xtask(["snapshots", "diff", "mine"]).ok().stdout_has("a.db: same");
    change("INSERT INTO items (id, key) VALUES (1, 'mine')");
    env.xtask(["snapshots", "create", "with one"]).ok();
    change("DELETE FROM items WHERE id < 9");
    restore(&["with one"]).stderr_lacks("Running");
    assert_eq!(
        databases::query(&live, "SELECT key FROM items WHERE id = 1"),
        "mine".to_owned().into()
    );
    restore(&["mine"]).stderr_lacks("Running");
    assert_eq!(databases::query(&live, COUNT), 299.into());
    restore(&["--latest"]).stderr_has("Running prepare them");

    // One of them was written to: the other is saved as its pull, and prepared once more.
    databases::execute(&live, "INSERT INTO items (id, key) VALUES (1, 'mine')");
    restore(&["--latest"]);
    change("DELETE FROM items");
    restore(&["--undo"]);
    restore(&["--undo"]);
    restore(&["--undo"]).stderr_has("Running prepare them");
    assert_eq!(databases::query(&env.data().join("it's b.db"), COUNT), 299.into());
}

/// A command that is new changes what a pull has brought before.
#[test]
fn what_a_new_prepare_changes_is_saved_before() {
    let env = production();
    env.local_pull(&[]).ok();
    script(&env, "prepare", DELETE_ONE);
    env.db_toml("[hooks]\nprepare = 'prepare them'\n");
    env.xtask(["restore-db", "--yes", "--latest"])
        .ok()
        .stderr_lacks("up to date")
        .stderr_has("Saved");
    assert_eq!(databases::query(&env.data().join("a.db"), COUNT), 299.into());
    env.xtask(["restore-db", "--yes", "--undo"]).ok().stderr_lacks("Running");
    assert_eq!(databases::query(&env.data().join("a.db"), COUNT), 300.into());
}

#[test]
fn a_prepare_that_fails_or_breaks_a_database_changes_nothing() {
    let env = production();
    env.local_pull(&[]).ok();
    databases::execute(&env.production().join("a.db"), "UPDATE items SET value = 0");
    for (body, said) in [
        ("exit 3", "the prepare command failed; nothing was changed"),
        ("echo rubbish >\"$XTASK_DIR/a.db\"", "a.db was not left as a database"),
        ("rm \"$XTASK_DIR/a.db\"", "a.db was not left as a database"),
    ] {
        script(&env, "prepare", body);
        env.db_toml("[hooks]\nprepare = 'prepare'\n");
        env.local_pull(&[]).fails(1).stderr_has(said);
        assert_eq!(
            databases::query(
                &env.data().join("a.db"),
                "SELECT count(*) FROM items WHERE value = 0"
            ),
            0.into()
        );
        assert_eq!(left_behind(&env.data()), [""; 0]);
    }
}

#[test]
fn what_runs_afterwards_knows_what_was_put_where() {
    let env = production();
    let told = env.path("told");
    let tell = format!(
        "printf '%s\\n' \"$1\" \"$XTASK_DIR\" \"$XTASK_SNAPSHOT\" \"$XTASK_DATABASES\" >'{}'; exit $2",
        told.display()
    );
    script(&env, "tell", &tell);
    let hooks = |code| {
        format!(
            "[hooks]\nafter-pull = 'tell pulled {code}'\nafter-restore = 'tell restored {code}'\n"
        )
    };
    env.db_toml(&hooks(0));
    env.local_pull(&[]).ok();
    let from = snapshot(&env).path;
    let expected = |what: &str| {
        format!("{what}\n{}\n{}\na.db\nit's b.db\n", env.data().display(), from.display())
    };
    assert_eq!(fs::read_to_string(&told).expect("told"), expected("pulled"));
    databases::execute(&env.data().join("a.db"), "DELETE FROM items");
    env.xtask(["restore-db", "--yes", "--latest"]).ok();
    assert_eq!(fs::read_to_string(&told).expect("told"), expected("restored"));

    // As in a shell.
    env.db_toml("[hooks]\nafter-restore = \"WHERE={dir}/a.db sh -c 'echo $WHERE'\"\n");
    databases::execute(&env.data().join("a.db"), "DELETE FROM items");
    let restored = env.xtask(["restore-db", "--yes", "--latest"]).ok();
    restored
        .stderr_has("Running WHERE={dir}/a.db sh -c")
        .stderr_has(&format!("{}/a.db\n", env.data().display()));

    env.db_toml(&hooks(3));
    env.local_pull(&[])
        .fails(1)
        .stderr_has("the after-pull command failed; ")
        .stderr_has(" stays the current data")
        .stderr_has("hint: cargo xtask restore-db --undo");
    env.xtask(["restore-db", "--yes", "--latest"])
        .fails(1)
        .stderr_has("the after-restore command failed; ");
    assert_eq!(databases::query(&env.data().join("a.db"), COUNT), 300.into());
}

#[test]
fn compact_takes_the_free_pages_from_the_current_data_alone() {
    let env = TestEnv::with_database(
        "CREATE TABLE t (a BLOB); CREATE TABLE kept (a); INSERT INTO kept VALUES (1);
         WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 500)
         INSERT INTO t SELECT randomblob(1000) FROM n; DELETE FROM t;",
    );
    env.db_toml("compact = true\n");
    env.local_pull(&[]).ok();
    let size = |path: std::path::PathBuf| fs::metadata(path).expect("it is there").len();
    let (live, kept) = (env.data().join("data.db"), snapshot(&env).path.join("data.db"));
    assert!(size(live.clone()) < 50_000 && size(kept.clone()) > 400_000);
    databases::assert_same(&live, &kept);
    env.local_pull(&[]).ok();
    assert_eq!(kinds(&env.data()), ["pull", "pull"], "it is not saved again");
}

#[test]
fn a_command_that_needs_a_shell_is_refused() {
    let env = TestEnv::new();
    for (command, word) in [
        ("echo a > b", ">"),
        ("a && b", "&&"),
        ("echo $HOME", "$HOME"),
        ("A=$HOME b", "A=$HOME"),
        ("a | b", "|"),
    ] {
        env.db_toml(&format!("[hooks]\nafter-pull = '{command}'\n"));
        env.xtask(["snapshots", "list"])
            .fails(2)
            .stderr_has(&format!("has {word}, and no shell runs it"))
            .stderr_has("hint: sh -c '…' runs it in one\n");
    }
    env.db_toml("[hooks]\nafter-pull = \"sh -c 'echo a && echo $HOME'\"\n");
    env.xtask(["snapshots", "list"]).ok();
}
