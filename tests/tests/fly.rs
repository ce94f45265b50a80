//! What the real `fly` does besides: tunnels that die without a word, reports at its
//! end, and machines that must not be started.

use std::collections::BTreeMap;
use std::fs;

use tests::databases;
use tests::env::TestEnv;
use tests::process::{Running, command, wait_for};
use tests::pull::{NAMES, assert_tidy, production, pull, pull_fails};
use tests::server::Sshd;
use tests::shells;
use tests::store;
use tests::world::Faults;

const NO_SIGN: &str = " bytes: no sign of upflow on Fly.io for 30 s; nothing was changed\nhint: run \
                       the same command again\n";

/// With more in production than the buffers on the way hold.
fn large() -> (TestEnv, Sshd) {
    let (env, sshd) = production();
    pull(&env, &[]);
    databases::execute(
        &env.production().join(NAMES[0]),
        "CREATE TABLE noise AS WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 200)
         SELECT randomblob(100000) AS data FROM n",
    );
    (env, sshd)
}

/// All of them at once, since each takes half a minute: in the middle of the stream, also
/// where a warning would do for no network; before the stream; while an archive is fetched.
#[test]
fn a_tunnel_that_dies_without_a_word_is_a_cut() {
    let cases: [(u64, &[&str]); 4] = [
        (300_000, &["pull-db"]),
        (300_000, &["pull-db", "--offline-ok"]),
        (1, &["pull-db"]),
        (u64::MAX, &["pull-db", "--sftp"]),
    ];
    let begun: Vec<_> = cases.into_iter().map(|(bytes, args)| begin(bytes, args)).collect();
    for (env, _sshd, before, mut xtask) in begun {
        xtask.wait_for("the pull to give up", |xtask| xtask.stderr_so_far().contains("hint: "));
        xtask
            .wait()
            .fails(1)
            .stderr_has("error: the connection was cut after ")
            .stderr_has(NO_SIGN);
        assert_eq!(store::fingerprint(&env.data()), before);
        assert_tidy(&env);
    }
}

fn begin(bytes: u64, args: &[&str]) -> (TestEnv, Sshd, BTreeMap<String, (usize, u64)>, Running) {
    let (env, sshd) = large();
    let before = store::fingerprint(&env.data());
    env.edit_world(|world| {
        world.faults = Faults { stall_after_bytes: Some(bytes), ..Faults::default() };
    });
    let held = env.path("held");
    env.replace_fly(&format!(
        "case $2 in sftp) : >'{}'; exec sleep 1000 ;; esac; exec standin-fly \"$@\"",
        held.display()
    ));
    let xtask = env.start_xtask(args);
    if bytes == u64::MAX {
        wait_for("the archive to be fetched", || held.exists().then_some(()));
        let ssh: Vec<_> = env.processes().into_iter().filter(|(_, name)| name == "ssh").collect();
        assert!(!ssh.is_empty(), "the connection is there");
        for (pid, _) in ssh {
            Running::start(command("kill").args(["-STOP", &pid.to_string()])).wait().ok();
        }
    }
    (env, sshd, before, xtask)
}

/// A remote status other than 0 is an accident to flyctl, which it reports for seconds.
#[test]
fn a_pull_that_succeeds_ends_its_script_with_0() {
    let env = TestEnv::new();
    let bin = shells::debian(&env.path(""), &["sh"]);
    fs::remove_file(bin.join("sh")).expect("it was linked");
    let codes = env.path("codes");
    let record = format!("/bin/sh \"$@\"; code=$?; echo $code >>'{}'; exit $code", codes.display());
    shells::script(&bin, "sh", &record);
    let _sshd = env.start_server(&env.server_environment().set("PATH", &bin));
    databases::create(&env.production().join("data.db"), 400, 1);
    let ways: [&[&str]; 6] =
        [&[], &[], &["--full"], &["--sftp"], &["--dry-run"], &["--only", "d*"]];
    for (ended, args) in (1..).zip(ways) {
        env.xtask([&["pull-db"], args].concat()).ok();
        let codes = wait_for("the script to end", || {
            let codes = fs::read_to_string(&codes).unwrap_or_default();
            (codes.lines().count() == ended).then_some(codes)
        });
        assert_eq!(codes, "0\n".repeat(ended), "{args:?}");
        databases::execute(&env.production().join("data.db"), "UPDATE items SET value = value + 1");
    }
}

#[test]
fn what_fly_does_at_its_end_is_not_waited_for() {
    let (env, _sshd) = production();
    let (live, seen) = (env.data().join(NAMES[0]), env.path("seen"));
    env.replace_fly(&format!(
        "trap '[ ! -e {} ] || : >{}; exit' TERM; exec 3<&0; standin-fly \"$@\" <&3 & wait; \
         while :; do sleep 0.02; done",
        live.display(),
        seen.display()
    ));
    let xtask = env.start_xtask(["pull-db"]);
    wait_for("fly to be ended when all was in place", || seen.exists().then_some(()));
    xtask.wait().ok();
}

#[test]
fn the_heartbeat_is_not_shown() {
    let env = TestEnv::with_database("CREATE TABLE t (a)");
    let output = env.local_pull(&["-v"]).ok();
    assert!(!output.stderr.contains("\n\n"), "{output}");
}

#[test]
fn a_cut_before_the_stream_or_of_a_fetch_is_a_cut() {
    let (env, _sshd) = large();
    for (faults, args, message) in [
        (
            Faults { cut_stdout_after_bytes: Some(0), ..Faults::default() },
            "--full",
            "before any database arrived",
        ),
        (
            Faults { sftp_cut_after_bytes: Some(4000), ..Faults::default() },
            "--sftp",
            "after 4000 bytes",
        ),
    ] {
        env.edit_world(|world| world.faults = faults);
        pull_fails(&env, &[args], 1)
            .stderr_has(&format!("error: the connection was cut {message}; nothing was changed\n"))
            .stderr_has("hint: run the same command again\n");
    }
}

#[test]
fn a_script_that_is_killed_for_memory_is_told_of() {
    let (env, _sshd) = large();
    env.replace_fly(
        "case $2 in console) standin-fly \"$@\" | head -c 100000; \
         echo 'Error: ssh shell: Process exited with status 137 from signal KILL' >&2; exit 1 ;; esac",
    );
    pull_fails(&env, &["--full"], 1)
        .stderr_has("error: the connection was cut after 100000 bytes, ")
        .stderr_has(
            "hint: most likely it ran out of memory: fly logs --app upflow; give the machine more",
        );
}

/// `fly` says which token it takes; logging in would not help.
#[test]
fn a_token_that_is_not_taken_is_named() {
    let (env, _sshd) = production();
    env.replace_fly(
        "printf 'Warning: Metrics token unavailable: x509: none\\n\\033[31mError:\\033[0m get app: \
         server returned a non-200 status code: 401\\n' >&2; exit 1",
    );
    let mut xtask = env.xtask_command(["pull-db"]);
    Running::start(xtask.env("FLY_API_TOKEN", "secret-token"))
        .wait()
        .fails(1)
        .stderr_has("error: fly is not logged in\n  | Error: get app: server returned")
        .stderr_has("hint: Fly.io rejects the token in FLY_API_TOKEN: ")
        .stderr_lacks("secret-token");
}
