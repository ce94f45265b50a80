//! The stand-in `fly` does what flyctl does: each of these tests holds a fact
//! that `xtask` has to survive.

use std::fs;
use std::process::Stdio;

use tests::env::TestEnv;
use tests::output::Output;
use tests::process::{Running, wait_for};
use tests::pty::{CTRL_C, Session};
use tests::server::{Environment, Sshd};
use tests::world::{Container, Faults, Machine};

fn console(env: &TestEnv, rest: &[&str]) -> Output {
    env.fly(&[&["ssh", "console", "-a", "upflow"], rest].concat())
}

fn start(env: &TestEnv, command: &str) -> Running {
    Running::start(env.command("fly").args(["ssh", "console", "-q", "-C", command]))
}

fn with_faults(faults: Faults) -> (TestEnv, Sshd) {
    let (env, sshd) = TestEnv::with_server();
    env.edit_world(|world| world.faults = faults);
    (env, sshd)
}

/// Adds another machine, which differs from the first as `change` says.
fn add_machine(env: &TestEnv, change: impl Fn(&mut Machine)) {
    env.edit_world(|world| {
        let machines = world.apps.get_mut("upflow").expect("the app exists");
        let mut machine = machines[0].clone();
        change(&mut machine);
        machines.push(machine);
    });
}

#[test]
fn no_shell_is_around_the_command() {
    let (env, _sshd) = TestEnv::with_server();
    let command = r#"echo a && b | c ; $HOME 'd  e' "f'g" * > h"#;
    console(&env, &["-C", command]).ok().stdout_is("a && b | c ; $HOME d  e f'g * > h\n");
    console(&env, &["-C", "sh -c 'echo a && echo $((1+1))'"]).ok().stdout_is("a\n2\n");
    console(&env, &["-C", "echo 'unclosed"]).fails(1).stderr_has("Error: ");
}

#[test]
fn every_failure_exits_1() {
    let (env, _sshd) = TestEnv::with_server();
    for status in [1, 3, 127, 255] {
        console(&env, &["-C", &format!("sh -c 'echo out; echo err >&2; exit {status}'")])
            .fails(1)
            .stdout_is("out\n")
            .stderr_has("err\n")
            .stderr_has(&format!("Error: ssh shell: Process exited with status {status}\n"));
    }
    console(&env, &["-C", "sh -c 'kill -9 $$'"]).fails(1).stderr_has("status 137");
    console(&env, &["--no-such-flag"]).fails(1).stderr_has("Error: ");
}

#[test]
fn connecting_is_said_on_stderr_unless_quiet() {
    let (env, _sshd) = TestEnv::with_server();
    let line = "Connecting to fdaa:0:1a2b:a7b:1f60:1:2d3e:2... complete\n";
    let loud = console(&env, &["-C", "true"]).ok().stdout_is("");
    assert_eq!(loud.stderr, line);
    let quiet = console(&env, &["-q", "-C", "true"]).ok().stdout_is("");
    assert_eq!(quiet.stderr, "");
}

#[test]
fn a_session_has_the_environment_of_the_machine() {
    let (env, sshd) = TestEnv::with_server();
    let tmp = env.path("tmp").display().to_string();
    console(&env, &["-C", "sh -c 'echo $FLY_APP_NAME $FLY_MACHINE_ID $FLY_REGION $TMPDIR'"])
        .ok()
        .stdout_is(format!("upflow 48ed667c733018 nrt {tmp}\n"));
    assert_eq!(sshd.connections(), 1);
}

#[test]
fn binary_data_passes_both_ways_and_so_does_the_end_of_file() {
    let (env, _sshd) = TestEnv::with_server();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i * 7 % 251 + i / 65536) as u8).collect();
    for command in ["cat", "sh -c cat", "sh -c 'exec cat'"] {
        let mut fly = env.command("fly");
        fly.args(["ssh", "console", "-C", command]);
        Running::start_with_stdin(&mut fly, bytes.clone()).wait().ok().stdout_is(&bytes);
    }
    let mut fly = env.command("fly");
    fly.args(["ssh", "console", "-C", "sh -s one two"]);
    let script = "echo $1 $2; read line || echo end";
    Running::start_with_stdin(&mut fly, script).wait().ok().stdout_is("one two\nend\n");
}

#[test]
fn inherited_stdin_is_eaten() {
    let (env, _sshd) = TestEnv::with_server();
    let mut sh = env.command("sh");
    sh.args(["-c", "fly ssh console -q -C cat; echo \"left: $(cat)\""]);
    let output = Running::start_with_stdin(&mut sh, "for the caller\n").wait();
    output.ok().stdout_is("for the caller\nleft: \n");
}

#[test]
fn bare_shells_get_a_pty() {
    let (env, _sshd) = TestEnv::with_server();
    let probe = "test -t 1 && echo pty; exit\n";
    for arguments in [
        &["-C", "sh"][..],
        &["-C", "/bin/sh"],
        &["-C", "bash"],
        &["-C", "/bin/bash"],
        &[],
        &["--pty", "-C", "sh -s"],
    ] {
        let mut fly = env.command("fly");
        fly.args(["ssh", "console", "-q"]).args(arguments);
        let output = Running::start_with_stdin(&mut fly, probe).wait();
        output.stdout_has("pty\r\n");
    }
    for command in ["sh -s", "bash -s"] {
        let mut fly = env.command("fly");
        fly.args(["ssh", "console", "-q", "-C", command]);
        Running::start_with_stdin(&mut fly, "test -t 1 || echo none\n")
            .wait()
            .ok()
            .stdout_is("none\n");
    }
    console(&env, &["-q", "--pty", "-C", "printf 'a\\nb\\n'"])
        .ok()
        .stdout_is("a\r\nb\r\n")
        .stderr_is("");
}

#[test]
fn several_machines_make_it_talk_on_stdout() {
    let (env, _sshd) = TestEnv::with_server();
    let other = Sshd::start(&Environment::fly("upflow", "other", "fra"));
    add_machine(&env, |machine| {
        "other".clone_into(&mut machine.id);
        "fra".clone_into(&mut machine.region);
        "worker".clone_into(&mut machine.process_group);
        "fdaa::2".clone_into(&mut machine.private_ip);
    });
    let talk = "No machine specified, using 48ed667c733018 in region nrt\n";
    console(&env, &["-q", "-C", "echo mine"]).ok().stdout_is(format!("{talk}mine\n"));
    console(&env, &["-s", "-C", "true"]).fails(1).stderr_has("Error: prompt: non interactive");

    // Both machines would let the first one's key in; it has only one world.
    let port = other.port();
    env.edit_world(|world| {
        world.apps.get_mut("upflow").expect("the app exists")[1].port = port;
        world.ssh_key = other.key();
    });
    for flags in [["--machine", "other"], ["-r", "fra"], ["-g", "worker"], ["-A", "fdaa::2"]] {
        console(&env, &[flags[0], flags[1], "-C", "printenv FLY_MACHINE_ID"])
            .ok()
            .stdout_is("other\n")
            .stderr_has(&format!("Connecting to {}", "fdaa::2"));
    }
}

#[test]
fn a_machine_that_cannot_be_chosen_is_an_error() {
    let (env, _sshd) = TestEnv::with_server();
    add_machine(&env, |machine| {
        "idle".clone_into(&mut machine.id);
        "stopped".clone_into(&mut machine.state);
    });
    // The stopped one does not count: nothing is said on stdout.
    console(&env, &["-C", "echo one"]).ok().stdout_is("one\n");
    for (flags, message) in [
        (["--machine", "idle"], "Error: --machine=\"idle\" not found/started\n"),
        (["--machine", "nope"], "Error: --machine=\"nope\" not found/started\n"),
        (["--region", "syd"], "Error: app upflow has no VMs in region syd\n"),
        (["--process-group", "cron"], "Error: app upflow has no VMs in process group cron\n"),
        (["--container", "db"], "Error: container db not present\n"),
        (["--address", "fdaa::9"], "Error: error connecting to SSH server"),
    ] {
        console(&env, &[flags[0], flags[1], "-C", "true"]).fails(1).stderr_has(message);
    }
}

#[test]
fn several_containers_make_it_talk_on_stdout() {
    let (env, sshd) = TestEnv::with_server();
    let port = sshd.port();
    env.edit_world(|world| {
        let machine = &mut world.apps.get_mut("upflow").expect("the app exists")[0];
        machine.containers = (["web", "sidecar"].iter())
            .map(|name| Container { name: (*name).to_owned(), port })
            .collect();
    });
    console(&env, &["-q", "-C", "echo x"]).ok().stdout_is("No container specified, using web\nx\n");
    console(&env, &["--container", "sidecar", "-C", "echo x"]).ok().stdout_is("x\n");
}

#[test]
fn a_stopped_machine_is_started_only_when_asked() {
    let (env, _sshd) = TestEnv::with_server();
    env.edit_world(|world| {
        let machine = &mut world.apps.get_mut("upflow").expect("the app exists")[0];
        "stopped".clone_into(&mut machine.state);
    });
    let failed = console(&env, &["-C", "true"]).fails(1).stdout_is("");
    assert_eq!(
        failed.stderr,
        "Error: app upflow has no started VMs.\nIt may be unhealthy or not have been deployed \
         yet.\nTry the following command to verify:\n\nfly status\n"
    );
    env.fly(&["machine", "start", "nope", "-a", "upflow"]).fails(1).stderr_has("not found");
    env.fly(&["machine", "start", "48ed667c733018", "-a", "upflow"]).ok();
    console(&env, &["-C", "echo up"]).ok().stdout_is("up\n");
    let log = env.fly_invocations();
    assert_eq!(log.len(), 4);
    assert_eq!(log[2], ["machine", "start", "48ed667c733018", "-a", "upflow"]);
}

#[test]
fn machines_are_listed_as_json() {
    let (env, _sshd) = TestEnv::with_server();
    let list = env.fly(&["machine", "list", "-a", "upflow", "--json"]).ok().json();
    assert_eq!(list[0]["id"], "48ed667c733018");
    assert_eq!(list[0]["state"], "started");
    assert_eq!(list[0]["config"]["mounts"][0]["path"], env.production().display().to_string());
    assert_eq!(list[0]["config"]["env"]["FLY_PROCESS_GROUP"], "app");
    for field in ["name", "region", "private_ip", "created_at"] {
        assert!(list[0][field].is_string(), "{field} in {list}");
    }
}

#[test]
fn the_app_comes_from_flag_then_environment_then_file() {
    let (env, _sshd) = TestEnv::with_server();
    env.fly(&["ssh", "console", "-C", "echo file"]).ok().stdout_is("file\n");
    let in_environment =
        |args: &[&str]| Running::start(env.command("fly").env("FLY_APP", "nope").args(args)).wait();
    let error = "Error: get app: Could not find App \"nope\"\n";
    in_environment(&["ssh", "console", "-C", "true"]).fails(1).stderr_has(error);
    in_environment(&["ssh", "console", "-a", "upflow", "-C", "true"]).ok();
    fs::remove_file(env.path("repo/fly.toml")).expect("it was there");
    env.fly(&["machine", "list"]).fails(1).stderr_has("missing an app name");
}

#[test]
fn version_and_login() {
    let env = TestEnv::new();
    env.fly(&["version"]).ok().stdout_has("fly v0.4.87 linux/amd64 Commit: ");
    assert_eq!(env.fly(&["version", "--json"]).ok().json()["Version"], "0.4.87");
    env.fly(&["auth", "whoami"]).ok().stdout_is("developer@example.com\n");
    env.edit_world(|world| world.logged_in = false);
    let error = "Error: no access token available. Please login with 'flyctl auth login'\n";
    for args in [&["auth", "whoami"][..], &["machine", "list"], &["ssh", "console", "-C", "true"]] {
        env.fly(args).fails(1).stderr_has(error);
    }
    env.fly(&["version"]).ok();
}

#[test]
fn without_a_network_the_lookup_of_its_api_fails() {
    let (env, sshd) = with_faults(Faults { offline: true, ..Faults::default() });
    console(&env, &["-C", "true"]).fails(1).stdout_is("").stderr_has(
        "Error: get app: Post \"https://api.fly.io/graphql\": dial tcp: lookup api.fly.io on ",
    );
    env.fly(&["machine", "list"]).fails(1).stderr_has("dial tcp: lookup api.machines.dev on ");
    env.fly(&["version"]).ok();
    assert_eq!(sshd.connections(), 0);
}

#[test]
fn an_interrupt_exits_127_and_ends_the_session() {
    let (env, _sshd) = TestEnv::with_server();
    let mut fly = start(&env, "sh -c 'echo $$; exec sleep 1000'");
    fly.wait_for("the pid", |fly| fly.stdout_so_far().ends_with(b"\n"));
    fly.interrupt_alone();
    fly.wait().fails(127);

    // At a terminal the interrupt reaches also the ssh behind the stand-in.
    let mut fly = start(&env, "sh -c 'echo up; exec sleep 1000'");
    fly.wait_for("output", |fly| fly.stdout_so_far() == b"up\n");
    fly.interrupt();
    fly.wait().fails(127);

    let session = Session::spawn(env.command("fly").args(["ssh", "console", "-C", "sleep 1000"]));
    session.wait_for_text("complete");
    session.send(CTRL_C);
    assert_eq!(session.wait_exit(), 127);
}

#[test]
fn a_killed_fly_takes_its_connection_along() {
    let (env, _sshd) = TestEnv::with_server();
    // The remote notices by its broken pipe, as it does on a real machine.
    let end = env.path("tmp/end");
    let script = format!("while echo tick; do sleep 0.02; done; echo > {}", end.display());
    let mut fly = start(&env, &format!("sh -c 'trap \"\" PIPE; {script}'"));
    fly.wait_for("output", |fly| !fly.stdout_so_far().is_empty());
    fly.kill();
    let output = fly.wait();
    assert_eq!(output.code, None, "{output}");
    wait_for("the remote to end", || end.exists().then_some(()));
}

#[test]
fn a_failing_local_write_is_dropped_silently() {
    let (env, _sshd) = TestEnv::with_server();
    let full = fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    let mut fly = env.command("fly");
    fly.args(["ssh", "console", "-q", "-C", "head -c 300000 /dev/zero"]);
    let output = fly.stdin(Stdio::null()).stdout(full).output().expect("fly runs");
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[test]
fn a_refused_connection_is_an_error() {
    let (env, sshd) = TestEnv::with_server();
    drop(sshd);
    console(&env, &["-C", "true"]).fails(1).stderr_has("Error: error connecting to SSH server");
}

#[test]
fn a_dead_server_is_a_success_with_cut_output() {
    let (env, sshd) = TestEnv::with_server();
    let mut fly = start(&env, "sh -c 'echo begun; sleep 1000; echo done'");
    fly.wait_for("output", |fly| fly.stdout_so_far() == b"begun\n");
    drop(sshd);
    fly.wait().ok().stdout_is("begun\n");
}

#[test]
fn faults_cut_lose_flip_and_kill_with_exit_0() {
    let counting = "seq 1 20000";
    let whole: String = (1..=20_000).map(|i| format!("{i}\n")).collect();
    let cut = Faults { cut_stdout_after_bytes: Some(70_001), ..Faults::default() };
    let (env, _sshd) = with_faults(cut);
    start(&env, counting).wait().ok().stdout_is(&whole[..70_001]);

    env.edit_world(|world| {
        world.faults = Faults { lose_last_bytes: Some(9), ..Faults::default() };
    });
    start(&env, counting).wait().ok().stdout_is(&whole[..whole.len() - 9]);
    console(&env, &["-C", "echo short"]).ok().stdout_is("");

    env.edit_world(|world| {
        world.faults = Faults { flip_byte_at: Some(70_000), ..Faults::default() };
    });
    let mut flipped = whole.clone().into_bytes();
    flipped[70_000] ^= 0xff;
    start(&env, counting).wait().ok().stdout_is(&flipped);

    env.edit_world(|world| {
        world.faults = Faults { kill_ssh_after_bytes: Some(1000), ..Faults::default() };
    });
    let killed = start(&env, "cat /dev/zero").wait().ok();
    assert!(killed.stdout.len() >= 1000);
}

#[test]
fn a_stalled_connection_waits_until_it_is_killed() {
    let (env, _sshd) = with_faults(Faults { stall_after_bytes: Some(3), ..Faults::default() });
    let mut fly = start(&env, "echo stalled");
    fly.wait_for("the first bytes", |fly| fly.stdout_so_far() == b"sta");
    assert!(!fly.has_exited());
    fly.interrupt_alone();
    fly.wait().fails(127).stdout_is("sta");
}

#[test]
fn sftp_get_never_overwrites() {
    let (env, _sshd) = TestEnv::with_server();
    env.write("production/a *b.tar", "0123456789");
    let remote = env.path("production/a *b.tar").display().to_string();
    let get = ["ssh", "sftp", "get", "-a", "upflow", &remote, "local"];
    env.fly(&get).ok().stdout_is("10 bytes written to local\n");
    assert_eq!(fs::read(env.path("repo/local")).expect("it came"), b"0123456789");
    let refused = env.fly(&get).fails(1).stdout_is("");
    assert_eq!(
        refused.stderr,
        "Error: file local is already there. `fly ssh` doesn't override existing files for \
         safety.\n"
    );
    // Without LOCAL, the name is the remote's.
    env.fly(&get[..6]).ok().stdout_is("10 bytes written to a *b.tar\n");
    env.fly(&["ssh", "sftp", "get", "/no/such/file", "other"])
        .fails(1)
        .stderr_has("Error: get: remote file /no/such/file: file does not exist\n");
    assert!(!env.path("repo/other").exists());
}

#[test]
fn a_failed_sftp_get_leaves_the_partial_file() {
    let (env, _sshd) = with_faults(Faults { sftp_cut_after_bytes: Some(4), ..Faults::default() });
    env.write("production/a.tar", "0123456789");
    let remote = env.path("production/a.tar").display().to_string();
    let get = ["ssh", "sftp", "get", "-a", "upflow", "--machine", "48ed667c733018", &remote, "l"];
    env.fly(&get).fails(1).stdout_is("").stderr_has("Error: ");
    assert_eq!(fs::read(env.path("repo/l")).expect("it stays"), b"0123");
    env.fly(&get).fails(1).stderr_has("already there");
}

#[test]
fn a_full_pipe_does_not_stop_the_talk_on_stderr() {
    let (env, _sshd) = TestEnv::with_server();
    let mut fly = env.command("fly");
    fly.args(["ssh", "console", "-q", "-C", "sh -c 'seq 1 9999 >&2; cat'"]);
    let output = Running::start_with_stdin(&mut fly, "end").wait().ok().stdout_is("end");
    assert!(output.stderr.ends_with("9999\n"), "{output}");
}
