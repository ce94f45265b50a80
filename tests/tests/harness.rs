//! The harness itself: a test that relies on it must not be fooled by it.

use std::time::Instant;

use rusqlite::Connection;
use tests::databases::{self, STRANGE_NAMES};
use tests::env::TestEnv;
use tests::process::{Running, command, kill_tree, wait_for};
use tests::pty::{ENTER, Session};
use tests::shells;

#[test]
fn a_developers_machine_is_hermetic() {
    let env = TestEnv::new();
    let names = Running::start(&mut env.command("env")).wait().ok().stdout();
    let names: Vec<&str> = names.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    for name in ["HOME", "PATH", "TMPDIR", "TZ", "NO_COLOR", "STANDIN_FLY_WORLD"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    for name in ["USER", "FLY_APP", "FLY_API_TOKEN", "SSH_AUTH_SOCK", "CARGO_PKG_NAME"] {
        assert!(!names.contains(&name), "{name} in {names:?}");
    }
    let which = |name: &str| {
        let output = Running::start(env.command("which").arg(name)).wait();
        env.normalize(&output.stdout())
    };
    assert_eq!(which("fly"), "<ROOT>/bin/fly\n");
    env.uninstall("fly");
    assert_eq!(which("fly") + &which("flyctl"), "<ROOT>/bin/flyctl\n");
    env.git(&["status", "--porcelain"]);
}

#[test]
fn a_busybox_server_has_only_applets() {
    let env = TestEnv::new();
    let bin = shells::busybox(&env.path(""), &["sqlite3"]);
    let _sshd = env.start_server(&env.server_environment().set("PATH", &bin));
    let remote = |script: &str| env.fly(&["ssh", "console", "-q", "-C", script]);
    remote("sh -c 'command -v sqlite3 tar gzip'").ok();
    remote("sqlite3 :memory: 'select 6 * 7'").ok().stdout_is("42\n");
    remote("sh -c 'readlink $(command -v sh)'").ok().stdout_has("busybox");
    for missing in ["zstd", "split", "python3", "perl", "bash"] {
        let applets = command("busybox").arg("--list").output().expect("busybox runs").stdout;
        if !String::from_utf8_lossy(&applets).lines().any(|applet| applet == missing) {
            remote(&format!("sh -c 'command -v {missing}'")).fails(1).stdout_is("");
        }
    }
}

#[test]
fn a_debian_server_can_lack_a_program() {
    let env = TestEnv::new();
    let bin = shells::debian(&env.path(""), &["zstd"]);
    let broken = env.path("broken-bin");
    shells::script(&broken, "gzip", "echo 'gzip: no space left' >&2; exit 1");
    let path = format!("{}:{}", broken.display(), bin.display());
    let _sshd = env.start_server(&env.server_environment().set("PATH", &path));
    let remote = |script: &str| env.fly(&["ssh", "console", "-q", "-C", script]);
    remote("sh -c 'command -v zstd'").fails(1);
    remote("sh -c 'readlink $(command -v sh)'").ok().stdout_has("dash");
    remote("gzip").fails(1).stderr_has("gzip: no space left");
}

#[test]
fn a_screen_shows_what_a_user_sees() {
    let env = TestEnv::new();
    let script = "printf 'one\\ntwo\\033[1A\\rONE'; read x; echo; echo \"got <$x>\"; exit 7";
    let session = Session::spawn(env.command("sh").args(["-c", script]));
    assert_eq!(session.wait_for_text("ONE"), "ONE\ntwo");
    session.send("hello");
    session.send(ENTER);
    session.wait_for_text("got <hello>");
    assert_eq!(session.wait_exit(), 7);
}

#[test]
fn databases_are_compared_by_content() {
    let env = TestEnv::new();
    for (number, name) in (1..).zip(STRANGE_NAMES) {
        let (left, right) = (env.path("production").join(name), env.path("tmp").join(name));
        databases::create(&left, 300, number);
        databases::execute(
            &left,
            &format!("VACUUM INTO '{}'", right.display().to_string().replace('\'', "''")),
        );
        databases::assert_same(&left, &right);
        databases::execute(&right, "UPDATE items SET value = -1 WHERE id = 300");
        assert_ne!(databases::content(&left), databases::content(&right));
        assert_eq!(databases::count(&left, "items"), 300);
    }
    let mut names = STRANGE_NAMES.map(str::to_owned).to_vec();
    names.sort();
    assert_eq!(databases::files(&env.path("production")), names, "looking leaves no -wal");
}

#[test]
fn a_live_wal_is_part_of_the_content() {
    let env = TestEnv::new();
    let path = env.path("production/live.db");
    databases::create(&path, 10, 1);
    let writer = Connection::open(&path).expect("open");
    databases::insert(&writer, 5, 2);
    assert_eq!(databases::count(&path, "items"), 15);
}

#[test]
fn secrets_are_found_in_the_bytes() {
    let env = TestEnv::new();
    let path = env.path("production/tenant.db");
    databases::create_secrets(&path, 50, "hunter2");
    assert!(databases::bytes_contain(&path, "hunter2"));
    databases::execute(&path, "DELETE FROM export_settings; VACUUM");
    assert!(!databases::bytes_contain(&path, "hunter2"));
}

#[test]
fn a_tree_is_killed_across_sessions() {
    let env = TestEnv::new();
    let script = "setsid sleep 1000 & echo $!; wait";
    let mut parent = Running::start(env.command("sh").args(["-c", script]));
    parent.wait_for("the child's id", |parent| parent.stdout_so_far().ends_with(b"\n"));
    kill_tree(parent.id());
    // The child holds the pipes: had it survived, this would fail.
    let begun = Instant::now();
    assert_eq!(parent.wait().code, None);
    assert!(begun.elapsed().as_secs() < 10);
}

#[test]
fn a_session_without_a_connection_ends_with_its_server() {
    let (env, sshd) = TestEnv::with_server();
    let mut fly = Running::start(env.command("fly").args([
        "ssh",
        "console",
        "-q",
        "-C",
        "sh -c 'echo $$; exec sleep 1000'",
    ]));
    fly.wait_for("the session's id", |fly| fly.stdout_so_far().ends_with(b"\n"));
    let session = String::from_utf8_lossy(&fly.stdout_so_far()).trim().to_owned();
    fly.kill();
    drop(sshd);
    wait_for("the session to end", || {
        let probe = command("kill").args(["-0", &session]).output().expect("kill runs");
        (!probe.status.success()).then_some(())
    });
}

#[test]
fn an_app_under_load_counts_what_it_acknowledged() {
    let env = TestEnv::new();
    let data = env.path("production").display().to_string();
    env.app(["setup", "--data-dir", &data, "--rows", "10"]).ok();
    let app = env.serve(&env.production());
    let before = databases::count(&env.path("production/tenant_iris.db"), "pull_requests");
    let load = app.load(&["iris", "juno"]);
    load.wait_for_writes(5);
    let report = load.stop();
    let acknowledged = i64::try_from(report.acknowledged["iris"]).expect("a small number");
    let after = databases::count(&env.path("production/tenant_iris.db"), "pull_requests");
    assert_eq!(after - before, acknowledged, "{:?}", report.trouble);
    let (status, orgs) = app.client().get("/orgs").expect("the app answers");
    assert_eq!(status, 200, "{orgs}");
    let (status, body) = app.client().get("/orgs/nobody/stats").expect("the app answers");
    assert_eq!(status, 404, "{body}");
    app.kill();
    databases::assert_whole(&env.path("production/tenant_iris.db"));
}
