//! `cargo xtask pull-db` from a container that runs on this machine.

use std::fs;
use std::os::unix::fs::chown;

use tests::container::{APP, Container, DATA, OTHER};
use tests::databases;
use tests::env::TestEnv;
use tests::sets::{assert_same, content, developer, snapshots};
use tests::store;

fn in_data(env: &TestEnv, more: &str) {
    env.db_toml(&format!("remote-dir = '{DATA}'\n{more}"));
}

#[test]
fn docker_exec_is_a_way() {
    let env = developer();
    let Some(container) = Container::start(&env) else { return };
    in_data(&env, "via = 'docker:web'\n");
    env.xtask(["pull-db"]).ok().stderr_has("Pulled 2 databases from container web\n");
    assert_same(&content(&env.data()), &content(&env.production()));
    container.assert_tidy();

    databases::execute(
        &env.production().join("data.db"),
        "CREATE TABLE secrets (secret TEXT); INSERT INTO secrets VALUES ('hunter2')",
    );
    in_data(
        &env,
        "via = 'docker:web'\n[[sanitize]]\ntable = 'secrets'\nset = { secret = \"''\" }\n",
    );
    env.xtask(["pull-db"]).ok().stderr_has("1 row masked\n");
    assert!(databases::bytes_contain(&env.production().join("data.db"), "hunter2"));
    assert_eq!(store::files_with(&env.data(), "hunter2"), Vec::<std::path::PathBuf>::new());
    container.assert_tidy();

    env.xtask(["pull-db", "--via", "docker:wbe"])
        .fails(1)
        .stderr_has("error: container wbe ran no script\n  | Error response from daemon: No such container: wbe\n")
        .stderr_has("hint: docker ps lists the containers that run\n");
}

#[test]
fn a_killed_pull_leaves_nothing_in_a_container() {
    let env = developer();
    let Some(container) = Container::start(&env) else { return };
    in_data(&env, "via = 'docker:web'\n");
    databases::create(&env.production().join("large.db"), 60_000, 5);
    let before = snapshots(&env);
    let mut xtask = env.start_xtask(["pull-db"]);
    xtask.wait_for_stderr("Packing on the server");
    xtask.kill();
    container.assert_tidy();
    assert_eq!(snapshots(&env), before);
}

/// The app's user owns the databases, whoever enters the container.
#[test]
fn the_user_of_the_app_pulls_in_a_container() {
    let env = developer();
    let Some(container) = Container::start(&env) else { return };
    for path in fs::read_dir(env.production()).expect("read").flatten() {
        chown(path.path(), Some(APP), Some(APP)).expect("give it away");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(path.path(), mode).expect("set the mode");
    }
    chown(env.production(), Some(APP), Some(APP)).expect("give it away");
    in_data(&env, "via = 'docker:web'\nas = 'app'\n");
    env.xtask(["pull-db"]).ok();
    assert_same(&content(&env.data()), &content(&env.production()));
    container.assert_tidy();

    let via = format!("exec:{}", container.exec(APP));
    in_data(&env, "");
    env.xtask(["pull-db", "--via", &via]).ok();
    // Another one may not read them, but may become the app's user.
    let via = format!("exec:{}", container.exec(OTHER));
    env.xtask(["pull-db", "--via", &via]).fails(1).stderr_has("user other may not ");
    in_data(&env, "as = 'app'\n");
    env.xtask(["pull-db", "--via", &via])
        .fails(1)
        .stderr_has("error: the script cannot run as app\n  | sudo: ")
        .stderr_has("hint: allow it without a password, in sudoers: ALL=(app) NOPASSWD: /bin/sh\n");
    container.allow_sudo();
    env.xtask(["pull-db", "--via", &via]).ok();
    assert_same(&content(&env.data()), &content(&env.production()));
    container.assert_tidy();
}
