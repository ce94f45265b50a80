//! The demo, the installation of what is missing, and what is asked before all tests.

#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

use std::fs;
use std::process::Command;

use tests::binaries;
use tests::env::TestEnv;
use tests::process::{self, Running};
use tests::pty::{ENTER, Session};
use tests::shells::{find, script};

#[test]
fn the_demo_pulls_breaks_restores_and_leaves_nothing() {
    let env = TestEnv::new();
    let output =
        Running::start(env.command(binaries::dev()).args(["demo", "--rows", "300"])).wait();
    let output = output.ok();
    let stdout = output.stdout();
    for shown in ["iris|0|0", "juno|0|0", "300\n300\n", "before-restore", "B  current"] {
        assert!(stdout.contains(shown), "{shown:?} is missing:\n{output}");
    }
    output.stderr_has("Pulled 3 databases").stderr_has("tenant_iris.db is damaged");
    let left: Vec<_> = fs::read_dir(env.path("local-tmp")).expect("read").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_demo_that_is_interrupted_says_so_and_leaves_nothing() {
    let env = TestEnv::new();
    let mut demo = Running::start(env.command(binaries::dev()).arg("demo"));
    demo.wait_for_stderr("Demo A production: ");
    demo.interrupt();
    demo.wait().fails(130).stderr_has("error: interrupted; nothing was changed\n");
    let left: Vec<_> = fs::read_dir(env.path("local-tmp")).expect("read").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn how_long_to_fuzz_is_asked_before_all_else() {
    let env = TestEnv::new();
    let mut test = env.command(binaries::dev());
    test.args(["test", "--long"]).env("XTASK_FUZZ_SECONDS", "a while");
    let output = Running::start(&mut test).wait().fails(2);
    output.stderr_is("error: XTASK_FUZZ_SECONDS=\"a while\" is not a number\n");
}

/// A machine that has nothing but an `apt-get`, which notes how it was called
/// and installs `sqlite3` if `works`.
fn machine(env: &TestEnv, works: bool) -> Command {
    let bin = env.path("few");
    let install = if works {
        format!("ln -sf {} {}/sqlite3", find("sqlite3").display(), bin.display())
    } else {
        "exit 100".to_owned()
    };
    let log = env.path("apt.log");
    script(
        &bin,
        "apt-get",
        &format!("PATH=/usr/bin:/bin\necho \"$*\" >> {}\n{install}", log.display()),
    );
    let mut command = env.command(binaries::dev());
    command.env("PATH", bin).arg("demo");
    command
}

fn asked(env: &TestEnv) -> String {
    fs::read_to_string(env.path("apt.log")).unwrap_or_default()
}

fn is_root() -> bool {
    let is_root = tests::server::login_user() == "root";
    if !is_root {
        println!("skipped: only root may install without asking");
    }
    is_root
}

#[test]
fn what_is_missing_is_installed_at_once_without_a_terminal() {
    let env = TestEnv::new();
    if !is_root() {
        return;
    }
    // It goes on to the next step, for which this machine lacks Cargo.
    let output = Running::start(&mut machine(&env, true)).wait();
    output.fails(1).stderr_has("Installing sqlite3 (apt-get install sqlite3)").stderr_has("cargo");
    assert_eq!(
        asked(&env),
        "update --quiet=2\ninstall --quiet=2 --yes --no-install-recommends sqlite3\n"
    );
}

#[test]
fn an_installation_that_fails_names_the_command() {
    let env = TestEnv::new();
    if !is_root() {
        return;
    }
    let output = Running::start(&mut machine(&env, false)).wait();
    output
        .fails(1)
        .stderr_has("error: this needs sqlite3, which this machine lacks")
        .stderr_has("hint: apt-get install sqlite3");
}

#[test]
fn on_a_terminal_it_asks_before_it_installs() {
    let env = TestEnv::new();
    if !is_root() {
        return;
    }
    let session = Session::spawn(&machine(&env, true));
    session.wait_for_text("Missing: sqlite3. Run `apt-get install sqlite3`?");
    session.send("n");
    session.send(ENTER);
    assert_eq!(session.wait_exit(), 130);
    assert_eq!(asked(&env), "");
}

#[test]
fn who_may_not_install_is_told_what_to_type() {
    let env = TestEnv::new();
    let mut command = machine(&env, true);
    if is_root() {
        // The same as nobody, who has no sudo.
        command = env.command(find("setpriv"));
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(env.path("few/dev")).arg("demo").env("PATH", env.path("few"));
        // The user `nobody` cannot read the target directory. `cp` makes the copy, since a
        // child that another test forks would inherit our open file, and exec would fail.
        let copy = process::command("cp").arg(binaries::dev()).arg(env.path("few/dev")).status();
        assert!(copy.is_ok_and(|status| status.success()), "cp makes a copy");
        open_to_all(&env);
    }
    let output = Running::start(&mut command).wait();
    output.fails(1).stderr_has("hint: sudo apt-get install sqlite3");
    assert_eq!(asked(&env), "");
}

/// A temporary directory is its owner's alone.
fn open_to_all(env: &TestEnv) {
    use std::os::unix::fs::PermissionsExt as _;

    fs::set_permissions(env.path(""), fs::Permissions::from_mode(0o755)).expect("chmod");
}
