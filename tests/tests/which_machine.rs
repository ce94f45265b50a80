//! `cargo xtask pull-db` from an app with several machines, or with one that does not run.

use std::fs;

use tests::databases;
use tests::env::TestEnv;
use tests::process::{Running, command};
use tests::pty::{DOWN, ENTER};
use tests::pull::{
    NAMES, assert_live_equals_production, assert_tidy, production, pull, pull_fails,
};
use tests::server::Sshd;
use tests::world::{Machine, Mount};

const FIRST: &str = "48ed667c733018";
const SECOND: &str = "e784079b449483";

/// Two started machines; `change` gets both.
fn two(change: impl FnOnce(&mut Machine, &mut Machine)) -> (TestEnv, Sshd) {
    let (env, sshd) = production();
    env.add_machine(|machine| {
        SECOND.clone_into(&mut machine.id);
        "calm-sea-5678".clone_into(&mut machine.name);
        "ams".clone_into(&mut machine.region);
        "vol_2222222222".clone_into(&mut machine.mounts[0].volume);
    });
    env.edit_world(|world| {
        let [first, second] = &mut world.apps.get_mut("upflow").expect("the app exists")[..] else {
            panic!("two machines")
        };
        change(first, second);
    });
    (env, sshd)
}

/// What `fly` was asked to do, with the machine.
fn verbs(env: &TestEnv) -> Vec<String> {
    let argv = env.fly_invocations().into_iter().map(|argv| {
        let machine = argv.iter().position(|arg| arg == "--machine");
        let machine = machine.map(|at| argv[at..at + 2].join(" "));
        [argv[..2].join(" "), machine.unwrap_or_default()].join(" ").trim_end().to_owned()
    });
    argv.collect()
}

fn set_state(env: &TestEnv, id: &str, state: &str) {
    env.edit_world(|world| {
        for machine in world.apps.values_mut().flatten().filter(|one| one.id == id) {
            state.clone_into(&mut machine.state);
        }
    });
}

fn state_of(env: &TestEnv, id: &str) -> String {
    let mut state = String::new();
    env.edit_world(|world| {
        let one = world.apps["upflow"].iter().find(|one| one.id == id);
        one.expect("it exists").state.clone_into(&mut state);
    });
    state
}

#[test]
fn without_a_choice_the_machines_are_named_and_nothing_is_pulled() {
    let (env, _sshd) = two(|_, second| "worker".clone_into(&mut second.process_group));
    for args in [&[][..], &["--yes"], &["--dry-run"], &["--sftp"]] {
        pull_fails(&env, args, 2)
            .stderr_has(
                "error: upflow has 2 machines, each with files of its own; nothing was changed\n  \
                 48ed667c733018  quiet-river-1234, nrt, started, volume vol_1234567890\n  \
                 e784079b449483  calm-sea-5678, ams, started, volume vol_2222222222, group worker\n",
            )
            .stderr_has("hint: choose one with --machine ID, or with `machine` or `region` in xtask/db.toml\n")
            .stderr_has("hint: if all have the same databases: any-machine = true there\n");
    }
}

#[test]
fn a_choice_in_a_flag_or_the_settings_is_not_questioned() {
    let (machine, region) = (["--machine", SECOND], ["--region", "ams"]);
    for (settings, args, passed) in [
        ("", &machine[..], &machine[..]),
        ("", &region, &region),
        ("machine = 'e784079b449483'", &[], &machine),
        ("region = 'ams'", &[], &region),
        ("any-machine = true", &[], &[]),
        // Flags go over settings.
        ("machine = 'x'\nany-machine = true", &region, &region),
        ("region = 'x'", &machine, &machine),
        ("machine = 'x'\n[source.two]\nregion = 'ams'", &["--source", "two"], &region),
        ("machine = 'x'\n[source.two]\nany-machine = true", &["--source", "two"], &[]),
    ] {
        let (env, _sshd) = two(|_, _| ());
        env.db_toml(settings);
        pull(&env, args);
        let argv = env.fly_invocations();
        assert_eq!(argv.len(), 1, "{settings} {args:?}: {argv:?}");
        let at = argv[0].iter().position(|arg| arg == "--command").expect("it runs a command");
        assert_eq!(argv[0][4..at], *passed, "{settings} {args:?}");
    }
    let (env, _sshd) = production();
    env.db_toml("machine = '--x'");
    pull_fails(&env, &[], 2).stderr_has("machine in xtask/db.toml: ");
}

#[test]
fn of_several_the_one_that_holds_the_databases_is_taken() {
    // flyctl takes the first: it is the right one, or it has no volume, or one of something else.
    let other = || Mount { volume: "vol_3333333333".to_owned(), path: "/cache".to_owned() };
    let (env, _sshd) = two(|_, second| second.mounts = vec![other()]);
    pull(&env, &[]);
    assert_eq!(verbs(&env), ["ssh console", "machine list"]);
    assert_live_equals_production(&env, &NAMES);

    for mounts in [vec![], vec![other()]] {
        let (env, _sshd) = two(|first, _| first.mounts = mounts);
        pull(&env, &[])
            .stderr_has(&format!("Choosing machine {SECOND}, which has the databases\n"));
        let again = format!("ssh console --machine {SECOND}");
        assert_eq!(verbs(&env), ["ssh console", "machine list", &again]);
        assert_live_equals_production(&env, &NAMES);
    }
    // Nor is a directory of the volume a choice.
    let (env, _sshd) = two(|first, second| {
        first.mounts.clear();
        second.mounts[0].path = format!("{}", std::env::temp_dir().display());
    });
    pull(&env, &[]).stderr_has(SECOND);
}

#[test]
fn a_replica_of_litefs_leads_to_the_primary() {
    // Both see one directory here: the marker is gone by the time of the second look.
    let (env, _sshd) = two(|_, _| ());
    let marker = env.production().join(".primary");
    fs::write(&marker, SECOND).expect("write");
    env.replace_fly(&format!(
        "case $* in *--machine*) rm -f '{}' ;; esac; exec standin-fly \"$@\"",
        marker.display()
    ));
    // The primary may be in another region.
    pull(&env, &["--region", "nrt"])
        .stderr_has(&format!("Choosing machine {SECOND}, which has the databases\n"));
    assert_live_equals_production(&env, &NAMES);

    // Who names the replica gets it.
    fs::write(&marker, "elsewhere\n").expect("write");
    env.xtask(["pull-db", "--via", &format!("local:{}", env.production().display())]).ok();
    env.replace_fly("exec standin-fly \"$@\"");
    pull(&env, &["--machine", FIRST]);
    pull_fails(&env, &[], 1)
        .stderr_has("error: LiteFS names elsewhere as the primary, which is no machine of upflow\n")
        .stderr_has("hint: name the primary's machine with --machine\n");
    fs::write(&marker, "a\u{1b}[2Jb\n").expect("write");
    pull_fails(&env, &[], 1).stderr_has("LiteFS names a\\u{1b}[2Jb as the primary");
}

/// A mount is named by its device, as LiteFS names its own.
#[test]
fn the_primary_of_litefs_needs_no_choice() {
    let (env, _sshd) = two(|_, _| ());
    let at = env.production();
    let mut mount = command("mount");
    mount.args(["-t", "tmpfs", "litefs"]).arg(&at);
    if Running::start(&mut mount).wait().code != Some(0) {
        return;
    }
    databases::create(&at.join("data.db"), 10, 1);
    let output = env.xtask(["pull-db"]);
    Running::start(command("umount").arg("--lazy").arg(&at)).wait().ok();
    output.ok();
    assert_eq!(verbs(&env), ["ssh console"]);
    assert_eq!(databases::count(&env.data().join("data.db"), "items"), 10);
}

#[test]
fn on_a_terminal_a_machine_is_chosen_and_remembered() {
    let (env, _sshd) = two(|_, _| ());
    env.db_toml("# Ours\nkeep = 3\n");
    let pull = |keys: &[&str], wanted: &str| {
        let session = env.xtask_on_pty(["pull-db"]);
        session.wait_for_text("Pull from which machine of upflow?");
        session.wait_for_text("e784079b449483  calm-sea-5678, ams, started, volume vol_2222222222");
        keys.iter().for_each(|key| session.send(key));
        session.wait_for_text("Write machine = ");
        session.send(wanted);
        session.send(ENTER);
        assert_eq!(session.wait_exit(), 0, "{}", session.screen());
    };
    pull(&[ENTER], "n");
    assert_eq!(verbs(&env)[2..], [format!("ssh console --machine {FIRST}")]);
    let db_toml = || fs::read_to_string(env.repo().join("xtask/db.toml")).expect("read");
    assert_eq!(db_toml(), "# Ours\nkeep = 3\n");
    env.touch_production();
    pull(&[DOWN, ENTER], "y");
    assert_eq!(db_toml(), format!("machine = \"{SECOND}\"\n# Ours\nkeep = 3\n"));
    let before = verbs(&env).len();
    env.xtask(["pull-db"]).ok();
    assert_eq!(verbs(&env)[before..], [format!("ssh console --machine {SECOND}")]);
    assert_tidy(&env);
}

#[test]
fn on_a_terminal_a_machine_is_started_if_the_user_agrees() {
    let (env, _sshd) = two(|first, _| first.mounts.clear());
    set_state(&env, SECOND, "suspended");
    // The other one runs, but has no volume.
    env.replace_fly(&format!(
        "case $* in *--machine*|machine*) exec standin-fly \"$@\" ;; esac
         mv '{0}' '{0}.away'; standin-fly \"$@\"; code=$?; mv '{0}.away' '{0}'; exit $code",
        env.production().display()
    ));
    for (answer, code) in [("n", 130), ("y", 0)] {
        let session = env.xtask_on_pty(["pull-db"]);
        session.wait_for(
            |screen| {
                screen.replace('\n', "").contains(&format!("Start machine {SECOND} for this pull"))
            },
            "the question",
        );
        session.send(answer);
        session.send(ENTER);
        assert_eq!(session.wait_exit(), code, "{}", session.screen());
        assert_eq!(state_of(&env, SECOND), "suspended");
        assert_eq!(verbs(&env).iter().any(|verb| verb == "machine start"), answer == "y");
    }
    assert_live_equals_production(&env, &NAMES);
    // Nothing is asked without a terminal.
    pull_fails(&env, &[], 1)
        .stderr_has(&format!("no machine of upflow has started: machine {SECOND} is suspended\n"))
        .stderr_has("hint: cargo xtask pull-db --start\n");
    assert_eq!(state_of(&env, SECOND), "suspended");
}

#[test]
fn of_several_that_are_stopped_none_is_started_by_chance() {
    let (env, _sshd) = two(|first, second| {
        "stopped".clone_into(&mut first.state);
        "stopped".clone_into(&mut second.state);
    });
    pull_fails(&env, &["--start"], 2)
        .stderr_has("error: upflow has 2 machines, each with files of its own");
    assert!(!verbs(&env).iter().any(|verb| verb == "machine start"), "{:?}", verbs(&env));
    pull(&env, &["--start", "--machine", SECOND]);
    assert_eq!([FIRST, SECOND].map(|id| state_of(&env, id)), ["stopped", "stopped"]);

    let session = env.xtask_on_pty(["pull-db"]);
    session.wait_for(
        |screen| screen.replace('\n', "").contains("Start a machine for this pull"),
        "a question",
    );
    session.send("y");
    session.send(ENTER);
    session.wait_for_text("Pull from which machine of upflow?");
    session.send(DOWN);
    session.send(ENTER);
    session.wait_for_text("Write machine = ");
    session.send(ENTER);
    assert_eq!(session.wait_exit(), 0, "{}", session.screen());
    assert!(
        verbs(&env).iter().filter(|verb| *verb == "machine start").count() == 2,
        "{:?}",
        verbs(&env)
    );
    assert_eq!([FIRST, SECOND].map(|id| state_of(&env, id)), ["stopped", "stopped"]);
}

/// Fly.io stops a machine without requests also while somebody is connected.
#[test]
fn a_pull_that_was_cut_because_the_machine_stopped_says_so() {
    let cut = || {
        let (env, sshd) = production();
        env.edit_world(|world| world.faults.cut_stdout_after_bytes = Some(2000));
        (env, sshd)
    };
    let (env, _sshd) = cut();
    pull_fails(&env, &[], 1).stderr_has("hint: run the same command again\n");
    let (env, _sshd) = cut();
    env.replace_fly(
        "if [ -e \"$HOME/cut\" ]; then echo '[{\"id\":\"48ed667c733018\",\"state\":\"stopped\",\"config\":{}}]'; exit; fi
         standin-fly \"$@\"; code=$?; touch \"$HOME/cut\"; exit $code",
    );
    pull_fails(&env, &[], 1)
        .stderr_has("bytes, before the end record: machine 48ed667c733018 is stopped; nothing was changed\n")
        .stderr_has("hint: Fly.io stops a machine without requests (auto_stop_machines in fly.toml); ")
        .stderr_has("cargo xtask pull-db --start\n");
}

#[test]
fn another_fly_configuration_is_named_or_found() {
    let (env, _sshd) = production();
    let toml = fs::read_to_string(env.repo().join("fly.toml")).expect("read");
    fs::remove_file(env.repo().join("fly.toml")).expect("remove");
    pull_fails(&env, &["--app", "upflow"], 2).stderr_has("hint: set `remote-dir` in xtask/db.toml");
    env.write("repo/fly.production.toml", &toml);
    env.write("repo/fly.staging.json", "{\"app\": \"upflow-staging\"}");
    pull_fails(&env, &[], 2).stderr_has("remote-dir is not set (often \"/data\")\n").stderr_has(
        "hint: there is fly.production.toml, fly.staging.json: fly-config = \"fly.production.toml\" \
         in xtask/db.toml uses it\n",
    );
    env.db_toml(
        "fly-config = 'fly.production.toml'\n[source.staging]\nfly-config = 'fly.staging.json'\n",
    );
    pull(&env, &[]);
    assert_live_equals_production(&env, &NAMES);
    // The app of a source's file goes over that of the others, and its directory is as above.
    let staging = pull_fails(&env, &["--source", "staging"], 1);
    staging.stderr_has("there is no app upflow-staging");
    env.db_toml("fly-config = 'fly.none.toml'");
    pull_fails(&env, &[], 2)
        .stderr_has("there is no fly-config ")
        .stderr_has("hint: there is fly.production.toml");
}

/// A question may come after the start.
#[test]
fn what_was_started_is_stopped_after_a_question_too() {
    let (env, _sshd) = production();
    set_state(&env, FIRST, "stopped");
    databases::execute(
        &env.production().join("data.db"),
        "PRAGMA journal_mode = DELETE; CREATE TABLE large AS SELECT zeroblob(20000000) AS body",
    );
    env.db_toml("max-lock = '1ms'");
    let session = env.xtask_on_pty(["pull-db", "--start"]);
    session.wait_for_text("Pull it nevertheless?");
    session.send("y");
    session.send(ENTER);
    assert_eq!(session.wait_exit(), 0, "{}", session.screen());
    assert_eq!(verbs(&env).iter().filter(|verb| *verb == "machine start").count(), 1);
    assert_eq!(state_of(&env, FIRST), "stopped");
}

/// Names are not trusted: a line of the list must not look like another.
#[test]
fn what_a_machine_is_called_stays_on_its_line() {
    let (env, _sshd) =
        two(|_, second| "calm\nhint: run this\u{1b}[2J".clone_into(&mut second.name));
    pull_fails(&env, &[], 2)
        .stderr_has("  calm?hint: run this\\u{1b}[2J, ams, started")
        .is_harmless();
}
