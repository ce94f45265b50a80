//! `cargo xtask pull-db --offline-ok`: where there is no network a warning will
//! do, and where something else is wrong it will not.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::databases;
use tests::env::TestEnv;
use tests::output::Output;
use tests::process::Running;
use tests::pull::{NAMES, assert_tidy, production, pull, pull_fails, snapshot};
use tests::server::Sshd;
use tests::shells;
use tests::store;
use tests::world::Faults;

const LOOKUP: &str = "  | Error: get app: Post \"https://api.fly.io/graphql\": dial tcp: lookup \
                      api.fly.io on 127.0.0.53:53: server misbehaving\n";

/// A developer with a live set to lose, who has gone offline.
fn offline() -> (TestEnv, Sshd) {
    let (env, sshd) = production();
    pull(&env, &[]);
    databases::execute(&env.data().join(NAMES[0]), "UPDATE items SET data = 'mine'");
    env.edit_world(|world| world.faults.offline = true);
    (env, sshd)
}

/// A run that only warns, and changes nothing.
#[track_caller]
fn warns(env: &TestEnv, args: &[&str]) -> Output {
    let state = || (store::fingerprint(&env.data()), store::kinds(&env.data()));
    let before = state();
    let output = env.xtask([&["pull-db", "--offline-ok"], args].concat()).ok();
    assert!(state() == before, "something changed\n{output}");
    assert_tidy(env);
    output.stderr_lacks("error: ")
}

#[test]
fn without_the_flag_it_is_an_error_that_says_what_is_missing() {
    let (env, _sshd) = offline();
    pull_fails(&env, &[], 1)
        .stderr_has(&format!("error: upflow on Fly.io cannot be reached: no network\n{LOOKUP}"))
        .stderr_has("\nhint: try again with a network; cargo xtask restore-db --latest restores the newest pull without one\n");
    pull_fails(&env, &["--if-older", "1ms"], 1).stderr_has("cannot be reached: no network\n");
}

#[test]
fn with_it_a_warning_says_so_and_what_there_is() {
    let (env, _sshd) = offline();
    let name = snapshot(&env).name;
    let warning = format!(
        "warning: upflow on Fly.io cannot be reached: no network\n{LOOKUP}  nothing was changed; \
         the newest pull is {name}, just now\n"
    );
    warns(&env, &["--yes", "--if-older", "1ms"]).stdout_is("").stderr_has(&warning);
    warns(&env, &["-q"]).stdout_is("").stderr_is(&warning);
    let json = warns(&env, &["--json"]).json();
    assert_eq!(
        json,
        json!({ "version": 1, "skipped": true, "reason": "offline", "snapshot": name })
    );

    // One of another app is no news of this one.
    fs::remove_dir_all(snapshot(&env).path).expect("remove a snapshot");
    warns(&env, &[]).stderr_has("nothing was changed; there is no earlier pull of it\n");
    assert_eq!(warns(&env, &["--json"]).json()["snapshot"], Value::Null);
}

#[test]
fn a_young_pull_makes_the_network_unimportant() {
    let (env, _sshd) = offline();
    env.xtask(["pull-db", "--if-older", "24h"]).ok().stderr_has("Skipped ");
    assert_eq!(env.fly_invocations().len(), 1, "the first pull");
}

#[test]
fn whatever_else_is_wrong_stays_an_error() {
    let (env, sshd) = offline();
    env.edit_world(|world| world.faults.offline = false);
    let fails = |args: &[&str], message: &str| {
        pull_fails(&env, &[&["--offline-ok"], args].concat(), 1).stderr_has(message);
    };
    fails(&["--app", "nope"], "there is no app nope");
    fails(&["--only", "nope*"], "--only 'nope*' matches none of: ");
    for (faults, message) in [
        (Faults { cut_stdout_after_bytes: Some(0), ..Faults::default() }, "was cut before "),
        (Faults { cut_stdout_after_bytes: Some(900), ..Faults::default() }, "was cut after "),
        (Faults { flip_byte_at: Some(5000), ..Faults::default() }, "; nothing was changed"),
    ] {
        env.edit_world(|world| world.faults = faults);
        // What differs from the earlier pull would be over before that.
        fails(&["--full"], message);
    }
    env.edit_world(|world| {
        world.faults = Faults::default();
        let machine = &mut world.apps.get_mut("upflow").expect("the app exists")[0];
        "stopped".clone_into(&mut machine.state);
    });
    fails(&[], "the app upflow has no started machine");
    env.edit_world(|world| {
        let machine = &mut world.apps.get_mut("upflow").expect("the app exists")[0];
        "started".clone_into(&mut machine.state);
    });
    drop(sshd);
    fails(&[], "its SSH server does not answer\n  | Error: error connecting to SSH server");
    env.edit_world(|world| world.logged_in = false);
    fails(&[], "fly is not logged in");
    env.uninstall("fly");
    env.uninstall("flyctl");
    fails(&[], "neither `fly` nor `flyctl` is on the PATH");
}

/// `fly` may be run more than once for one pull: with a network, and then without.
#[test]
fn a_network_that_goes_in_the_middle_is_an_error() {
    let (env, _sshd) = offline();
    let offline = "Error: failed: Get \"https://api.machines.dev/v1\": dial tcp: lookup \
                   api.machines.dev: no such host";
    env.edit_world(|world| {
        world.faults.offline = false;
        let machine = &mut world.apps.get_mut("upflow").expect("the app exists")[0];
        "stopped".clone_into(&mut machine.state);
    });
    let offline_at = |commands: &str| {
        let body = format!("case \"$1 $2\" in {commands}) echo '{offline}' >&2; exit 1 ;; esac");
        shells::script(&env.path("bin"), "fly", &format!("{body}\nexec standin-fly \"$@\""));
    };
    env.replace_fly("");
    offline_at("'machine start' | 'ssh sftp'");
    pull_fails(&env, &["--offline-ok", "--start"], 1)
        .stderr_has("machine 48ed667c733018 was told to start, but did not report that it has\n")
        .stderr_has("no such host\n")
        .stderr_has("hint: fly machine status 48ed667c733018 --app upflow\n");
    env.edit_world(|world| {
        let machine = &mut world.apps.get_mut("upflow").expect("the app exists")[0];
        "started".clone_into(&mut machine.state);
    });
    pull_fails(&env, &["--offline-ok", "--sftp"], 1)
        .stderr_has("cannot resolve a host name of Fly.io\n");
    // There was a network for the list of machines, or to choose one.
    offline_at("'ssh console'");
    pull_fails(&env, &["--offline-ok", "--start"], 1)
        .stderr_has("cannot resolve a host name of Fly.io\n");
    let chose = "echo No machine specified, using x in region nrt";
    shells::script(&env.path("bin"), "fly", &format!("{chose}; echo '{offline}' >&2; exit 1"));
    pull_fails(&env, &["--offline-ok"], 1).stderr_has("cannot resolve a host name of Fly.io\n");
}

#[test]
fn looking_for_a_machine_to_start_takes_a_network_too() {
    let (env, _sshd) = offline();
    warns(&env, &["--start"])
        .stderr_has("cannot be reached: no network\n  | Error: failed to list");
}

#[test]
fn ssh_is_understood_too() {
    let env = TestEnv::new();
    let nowhere = ["--via", "ssh:me@nowhere.invalid", "--remote-dir", "/data"];
    let said = "me@nowhere.invalid cannot be reached: no network\n  | ssh: Could not resolve host";
    pull_fails(&env, &nowhere, 1).stderr_has(said);
    warns(&env, &nowhere).stderr_has(said).stderr_has("there is no earlier pull of it\n");

    let refused = ["--via", "ssh:me@127.0.0.1:1", "--remote-dir", "/data", "--offline-ok"];
    pull_fails(&env, &refused, 1).stderr_has("Connection refused");
}

#[test]
fn ssh_is_given_a_limit_where_a_warning_will_do() {
    let env = TestEnv::new();
    shells::script(&env.path("bin"), "ssh", "echo \"$*\" >&2; exit 255");
    let args = ["pull-db", "--via", "ssh:me@host", "--remote-dir", "/data"];
    let limit = "-o ConnectTimeout=30 ";
    env.xtask(args).fails(1).stderr_lacks(limit);
    env.xtask([&args[..], &["--offline-ok"]].concat()).fails(1).stderr_has(limit);
}

/// Where packets vanish, `fly` alone would try for minutes.
#[test]
fn a_fly_that_never_says_a_word_is_given_up_where_a_warning_will_do() {
    let (env, _sshd) = offline();
    env.replace_fly("cat >/dev/null");
    let other = TestEnv::new();
    other.replace_fly("cat >/dev/null");
    let mut patient = other.start_xtask(["pull-db"]);
    let start = Instant::now();
    let output = env.xtask(["pull-db", "--offline-ok"]).ok();
    assert!(!patient.has_exited(), "without the flag it may take its time");
    output
        .stderr_has("warning: upflow on Fly.io cannot be reached: no sign of it for 30 s\n")
        .stderr_has("nothing was changed; the newest pull is backup_");
    let waited = start.elapsed();
    assert!(waited > Duration::from_secs(29) && waited < Duration::from_secs(60), "{waited:?}");
    assert_tidy(&env);
}

#[test]
fn a_fly_that_takes_its_time_but_connects_is_waited_for() {
    let (env, _sshd) = offline();
    env.edit_world(|world| world.faults.offline = false);
    env.replace_fly("echo 'Automatically updating' >&2; exec standin-fly \"$@\"");
    let mut xtask = env.xtask_command(["pull-db", "--offline-ok"]);
    Running::start(&mut xtask).wait().ok().stderr_has("Pulled 3 databases");
}
