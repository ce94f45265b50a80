//! Databases in directories below the data directory: one for each tenant.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tests::databases;
use tests::env::TestEnv;
use tests::sets::snapshots;
use tests::store::left_behind;

const INCLUDE: &str = "include = ['*.sqlite3', 'tenants/*/main.sqlite3']\n";
const NAMES: [&str; 3] =
    ["shared.sqlite3", "tenants/acme/main.sqlite3", "tenants/umbrella/main.sqlite3"];
const SECRET: &str = "hunter2-hunter2";

/// A production with tenants, and what is no database of the app.
fn production() -> TestEnv {
    let env = TestEnv::new();
    env.db_toml(INCLUDE);
    for name in NAMES {
        create(&env, name);
    }
    for other in [
        "tenants/main.sqlite3",
        "tenants/acme/old/main.sqlite3",
        "tenants/acme/other.sqlite3",
        "tenants/.hidden/main.sqlite3",
        "backup_tenants/acme/main.sqlite3",
        ".xtask/acme/main.sqlite3",
    ] {
        create(&env, other);
    }
    env
}

fn create(env: &TestEnv, name: &str) {
    let path = env.production().join(name);
    fs::create_dir_all(path.parent().expect("a directory")).expect("make directories");
    databases::create(&path, 200, 1);
    databases::execute(
        &path,
        &format!("CREATE TABLE secrets (value TEXT); INSERT INTO secrets VALUES ('{SECRET}')"),
    );
}

fn change(env: &TestEnv, name: &str) {
    databases::execute(&env.production().join(name), "UPDATE items SET value = value + 1");
}

/// The files below a directory, without those of the tool and of SQLite.
fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(one) = left.pop() {
        for entry in fs::read_dir(&one).expect("a directory") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(directory).expect("below").to_str().expect("UTF-8");
            let is_ours = name.starts_with(".xtask") || name.starts_with("backup_");
            if path.is_dir() && !is_ours {
                left.push(path);
            } else if path.is_file() && !name.ends_with("-shm") && !name.ends_with("-wal") {
                found.push(name.to_owned());
            }
        }
    }
    found.sort();
    found
}

fn newest(env: &TestEnv) -> PathBuf {
    tests::pull::snapshot(env).path
}

fn assert_pulled(env: &TestEnv, names: &[&str]) {
    for name in names {
        databases::assert_same(&env.data().join(name), &env.production().join(name));
        databases::assert_same(&newest(env).join(name), &env.production().join(name));
    }
    assert_eq!(left_behind(&env.data()), [""; 0]);
}

#[test]
fn each_tenant_is_pulled_and_restored_where_it_is() {
    let env = production();
    env.local_pull(&[]).ok().stderr_has("tenants/umbrella/main.sqlite3 ");
    assert_eq!(files(&env.data()), NAMES);
    assert_pulled(&env, &NAMES);
    let first = snapshots(&env)[0]["name"].as_str().expect("a name").to_owned();

    // A later pull brings what differs.
    change(&env, NAMES[1]);
    env.local_pull(&[]).ok();
    assert_pulled(&env, &NAMES);

    // An earlier one is put in its place, also of a single tenant, and back.
    env.xtask(["restore-db", "--yes", "--name", &first, "--only", NAMES[1]]).ok();
    databases::assert_same(&env.data().join(NAMES[1]), &env.data().join(&first).join(NAMES[1]));
    env.xtask(["restore-db", "--yes", "--undo"]).ok();
    assert_pulled(&env, &NAMES);

    // What was written here is saved by its path, and comes back.
    for name in NAMES {
        databases::execute(
            &env.data().join(name),
            &format!("INSERT INTO secrets VALUES ('{name}')"),
        );
    }
    env.local_pull(&[]).ok();
    env.xtask(["restore-db", "--list"]).ok().stdout_has("before-pull     3 db");
    env.xtask(["restore-db", "--yes", "--undo"]).ok();
    for name in NAMES {
        let sql = format!("SELECT count(*) FROM secrets WHERE value = '{name}'");
        assert_eq!(databases::query(&env.data().join(name), &sql), 1.into());
    }
    env.xtask(["snapshots", "create"]).ok();
    env.xtask(["restore-db", "--list"]).ok().stdout_has("manual          3 db");
}

/// A directory that is not the app's is nobody's business, and one that is must be writable before
/// anything changes.
#[test]
fn directories_of_others_are_not_entered_and_those_of_databases_are_looked_at_first() {
    let env = production();
    env.local_pull(&[]).ok();
    let before = databases::content(&env.data().join(NAMES[0]));
    for name in NAMES {
        change(&env, name);
    }
    let mode = |path: &str, mode| {
        use std::os::unix::fs::PermissionsExt as _;
        let path = env.data().join(path);
        fs::create_dir_all(&path).expect("make a directory");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set a mode");
    };
    mode("others", 0o000);
    mode("tenants/umbrella", 0o555);
    let output = env.local_pull(&[]);
    // Root may do all.
    if output.code != Some(0) {
        output.stderr_has("/tenants/umbrella cannot be written; nothing was changed");
        assert!(databases::content(&env.data().join(NAMES[0])) == before);
    }
    mode("tenants/umbrella", 0o755);
    env.local_pull(&[]).ok();
    assert_pulled(&env, &NAMES);
    mode("others", 0o755);
}

#[test]
fn of_a_tenant_that_is_gone_only_the_database_goes() {
    let env = production();
    env.local_pull(&[]).ok();
    env.write("repo/data/tenants/acme/logo.png", "not ours");
    for tenant in ["acme", "umbrella"] {
        fs::remove_dir_all(env.production().join("tenants").join(tenant)).expect("remove");
    }
    env.local_pull(&[]).ok().stderr_has("Removed ");
    assert_eq!(files(&env.data()), ["shared.sqlite3", "tenants/acme/logo.png"]);
    assert!(!env.data().join("tenants/umbrella").exists(), "apps list directories");
    env.xtask(["restore-db", "--yes", "--undo"]).ok();
    let all = [&NAMES[..1], &["tenants/acme/logo.png"], &NAMES[1..]].concat();
    assert_eq!(files(&env.data()), all);
}

#[test]
fn a_pattern_of_a_file_name_is_for_all_directories_and_one_with_a_slash_for_its_own() {
    let masked = |rule: &str| {
        let env = production();
        env.db_toml(&format!(
            "{INCLUDE}[[sanitize]]\n{rule}table = 'secrets'\nset = {{ value = \"'x'\" }}\n"
        ));
        env.local_pull(&[]).ok();
        NAMES.map(|name| !databases::bytes_contain(&newest(&env).join(name), SECRET))
    };
    assert_eq!(masked(""), [true; 3]);
    assert_eq!(masked("database = '*'\n"), [true; 3]);
    assert_eq!(masked("database = 'main.sqlite3'\n"), [false, true, true]);
    assert_eq!(masked("database = 'tenants/*/main.sqlite3'\n"), [false, true, true]);
    assert_eq!(masked("database = 'tenants/acme/*'\n"), [false, true, false]);
    assert_eq!(masked("database = '**/*.sqlite3'\n"), [true; 3]);

    // A star stops at a slash, so this one is for nothing.
    let env = production();
    env.db_toml(&format!(
        "{INCLUDE}[[sanitize]]\ndatabase = 'tenants/*.sqlite3'\ntable = 'secrets'\ndelete = true\n"
    ));
    env.local_pull(&[]).fails(1).stderr_has("rule 1: no database has a name");
}

#[test]
fn two_stars_are_any_directories_and_links_to_directories_are_none_of_them() {
    let env = production();
    symlink("tenants", env.production().join("again")).expect("link");
    symlink("..", env.production().join("tenants/up")).expect("link");
    env.db_toml("include = ['**/*.sqlite3']\nexclude = ['other.sqlite3']\n");
    env.local_pull(&[]).ok();
    let all = [
        "shared.sqlite3",
        "tenants/acme/main.sqlite3",
        "tenants/acme/old/main.sqlite3",
        "tenants/main.sqlite3",
        "tenants/umbrella/main.sqlite3",
    ];
    assert_eq!(files(&env.data()), all);
    assert_pulled(&env, &all);
    env.local_pull(&["--only", "tenants/**/main.sqlite3"]).ok().stderr_has("Pulled 4 databases");
    env.local_pull(&["--only", "shared*"]).ok().stderr_has("Pulled 1 database");
}

#[test]
fn nothing_is_written_through_a_link_of_the_data_directory() {
    let env = production();
    let elsewhere = env.path("elsewhere");
    fs::create_dir(&elsewhere).expect("make a directory");
    symlink(&elsewhere, env.make_data().join("tenants")).expect("link");
    env.local_pull(&[]).fails(1).stderr_has("/tenants is not a directory").stderr_has("hint: ");
    assert_eq!(files(&elsewhere), [""; 0]);
    assert_eq!(left_behind(&env.data()), [""; 0]);
}

#[test]
fn a_fixture_is_cut_from_a_tenant_and_its_audit_knows_the_rules() {
    let env = production();
    let rule =
        "[[sanitize]]\ndatabase = 'tenants/acme/*'\ntable = 'secrets'\nset = { value = \"'x'\" }\n";
    let fixture = "[[fixture]]\npath = 'tests/acme.db'\nfrom = 'tenants/acme/main.sqlite3'\nrows = { items = 3 }\n";
    env.db_toml(&format!("{INCLUDE}{rule}{fixture}"));
    env.local_pull(&[]).ok();
    env.xtask(["refresh-fixtures"]).ok().stderr_lacks("warning");
    assert_eq!(databases::count(&env.repo().join("tests/acme.db"), "items"), 3);
}
