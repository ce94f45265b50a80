//! `cargo xtask pull-db --start`: which machine, and what becomes of it.

use tests::env::TestEnv;
use tests::pull::{
    NAMES, assert_live_equals_production, assert_tidy, production, pull, pull_fails,
};
use tests::server::Sshd;
use tests::world::Machine;

const ID: &str = "48ed667c733018";

/// A production whose only machine is in this state.
fn in_state(state: &str) -> (TestEnv, Sshd) {
    let (env, sshd) = production();
    set_state(&env, state);
    (env, sshd)
}

fn set_state(env: &TestEnv, state: &str) {
    env.edit_world(|world| {
        world.apps.values_mut().flatten().for_each(|machine| machine.state = state.to_owned());
    });
}

/// The machines of the app, whatever has become of them.
fn machines(env: &TestEnv) -> Vec<Machine> {
    let mut machines = Vec::new();
    env.edit_world(|world| machines = world.apps["upflow"].clone());
    machines
}

/// What `fly` was asked to do, without the app.
fn verbs(env: &TestEnv) -> Vec<String> {
    let argv = env.fly_invocations();
    argv.iter()
        .map(|argv| argv[..3].join(" ").replace(" --app", "").replace(" --json", ""))
        .collect()
}

#[test]
fn what_was_started_is_stopped_or_suspended_again() {
    for (state, verb) in [("stopped", "stop"), ("suspended", "suspend"), ("created", "stop")] {
        let (env, _sshd) = in_state(state);
        pull(&env, &["--start"]);
        assert_live_equals_production(&env, &NAMES);
        let wanted = [
            "machine list".to_owned(),
            format!("machine start {ID}"),
            "machine list".to_owned(),
            "ssh console".to_owned(),
            format!("machine {verb} {ID}"),
        ];
        assert_eq!(verbs(&env), wanted, "{state}");
    }
}

#[test]
fn one_that_was_started_before_stays_started() {
    let (env, _sshd) = production();
    pull(&env, &["--start"]);
    assert_eq!(verbs(&env), ["machine list", "ssh console"]);
}

#[test]
fn it_is_stopped_again_also_after_a_failure_and_a_dry_run() {
    let (env, _sshd) = in_state("stopped");
    pull_fails(&env, &["--start", "--only", "nope*"], 1).stderr_has("matches none of: ");
    assert_eq!(machines(&env)[0].state, "stopped");
    env.xtask(["pull-db", "--start", "--dry-run"]).ok();
    assert_eq!(machines(&env)[0].state, "stopped");
    assert_tidy(&env);
}

#[test]
fn where_it_cannot_be_stopped_a_warning_says_how() {
    let (env, _sshd) = in_state("stopped");
    env.replace_fly("case \"$1 $2\" in 'machine stop') exit 1 ;; esac; exec standin-fly \"$@\"");
    pull(&env, &["--start"])
        .stderr_has(&format!("warning: machine {ID} of upflow could not be stopped again: "))
        .stderr_has(&format!("\nhint: fly machine stop {ID} --app upflow\n"));
}

/// Starting the first would run the migrations of a release once more.
#[test]
fn a_machine_of_a_release_or_a_console_is_never_started() {
    for group in ["fly_app_release_command", "fly_app_console"] {
        let (env, _sshd) = in_state("stopped");
        env.edit_world(|world| {
            let machines = world.apps.get_mut("upflow").expect("the app exists");
            let mut reserved = machines[0].clone();
            "e784079b449483".clone_into(&mut reserved.id);
            group.clone_into(&mut reserved.process_group);
            machines.insert(0, reserved);
        });
        pull(&env, &["--start"]);
        assert!(verbs(&env).contains(&format!("machine start {ID}")), "{:?}", verbs(&env));

        env.edit_world(|world| {
            world.apps.get_mut("upflow").expect("the app exists").truncate(1);
        });
        let asked = verbs(&env).len();
        pull_fails(&env, &["--start"], 1)
            .stderr_has("error: the app upflow has no such machine\n")
            .stderr_has("hint: fly machine list --app upflow\n");
        assert_eq!(verbs(&env)[asked..], ["machine list"]);
    }
}

/// One that is on its way to be stopped is waited for, and then started.
#[test]
fn a_machine_that_is_stopping_is_waited_for() {
    let (env, _sshd) = in_state("stopping");
    let mut xtask = env.start_xtask(["pull-db", "--start"]);
    xtask.wait_for("the second look", |_| verbs(&env).len() >= 2);
    set_state(&env, "stopped");
    xtask.wait().ok();
    assert!(verbs(&env).contains(&format!("machine start {ID}")), "{:?}", verbs(&env));
    assert_eq!(machines(&env)[0].state, "stopped");
}

#[test]
fn each_state_has_its_sentence_and_its_next_step() {
    let start = "cargo xtask pull-db --start";
    let again = "run the same command again in a moment";
    for (state, is, hint) in [
        ("created", "was created and never started", start),
        ("starting", "is starting", again),
        ("stopping", "is stopping", start),
        ("stopped", "is stopped", start),
        ("suspending", "is being suspended", start),
        ("suspended", "is suspended", start),
        ("replacing", "is being replaced by a deploy", "wait for it: fly status --app upflow"),
        ("failed", "has failed to start", "fly logs --app upflow --machine 48ed667c733018"),
        (
            "x\u{1b}[2J",
            "is in the state x\\u{1b}[2J",
            "fly machine status 48ed667c733018 --app upflow",
        ),
    ] {
        let (env, _sshd) = in_state(state);
        for args in [&[][..], &["--machine", ID]] {
            pull_fails(&env, args, 1)
                .stderr_has(&format!("\n  machine {ID} {is}\n"))
                .stderr_has(&format!("hint: {hint}\n"));
        }
    }
    for state in ["destroying", "destroyed"] {
        let (env, _sshd) = in_state(state);
        pull_fails(&env, &["--start"], 1).stderr_has("error: the app upflow has no such machine\n");
    }
    for (state, is) in [("failed", "has failed to start"), ("lost", "is in the state lost")] {
        let (env, _sshd) = in_state(state);
        pull_fails(&env, &["--start"], 1)
            .stderr_has(&format!("no machine of upflow has started: machine {ID} {is}\n"));
    }
}
