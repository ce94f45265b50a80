//! `cargo xtask doctor`: a healthy setup, the ways to the server, the settings, and the forms of the
//! report.

use std::fs;

use tests::databases::{self, STRANGE_NAMES};
use tests::doctor::{doctor, line, local};
use tests::env::TestEnv;
use tests::output::Output;
use tests::process::Running;
use tests::pull::{production, pull};
use tests::server::login_user;
use tests::shells;

/// Everything that differs between machines by a name.
fn normalize(env: &TestEnv, output: &Output) -> String {
    let text =
        env.normalize(&output.stdout()).replace(&format!("as {}\n", login_user()), "as <USER>\n");
    let lines = text.lines().map(|line| match line.split_once("sqlite3 ") {
        Some((before, _)) if line.contains(" there") => format!("{before}sqlite3 <VERSION> there"),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

const HEALTHY: &str = "
 ✓ xtask/db.toml: 0 rules
 ✓ fly 0.4.87, logged in as developer@example.com
 ✓ data is ignored by git
 ⚠ no rule masks anything, and no pull has looked for secrets yet → cargo xtask pull-db --dry-run shows the columns with likely secrets
 ✓ <SIZE> are free for data, and a pull can need <SIZE>
 ✓ upflow on Fly.io: machine 48ed667c733018 in nrt, started, as <USER>
 ✓ <ROOT>/production: 3 databases (WAL), <SIZE>
 ✓ sqlite3 <VERSION> there
 ✓ zstd there
 ✓ the copies in <ROOT>/tmp need <SIZE>, and <SIZE> are free";

#[test]
fn before_the_first_pull_only_the_audit_is_missing_over_one_connection() {
    let (env, sshd) = production();
    let output = doctor(&env, &[]).ok();
    assert_eq!(format!("\n{}", normalize(&env, &output)), HEALTHY);
    let verbs: Vec<_> = env.fly_invocations().into_iter().map(|argv| argv[..2].join(" ")).collect();
    assert_eq!(verbs, ["version --json", "auth whoami", "ssh console"]);
    assert_eq!(sshd.connections(), 1);
    assert_eq!(env.unexpected(), [""; 0]);
    assert!(!env.data().exists(), "nothing is made here");
    assert_eq!(databases::files(&env.path("tmp")), [""; 0]);
}

#[test]
fn after_a_pull_the_snapshots_count() {
    let (env, _sshd) = production();
    pull(&env, &[]);
    let output = doctor(&env, &[]).ok();
    assert!(!output.stdout().contains("no pull has looked for secrets"), "{output}");
    assert!(
        env.normalize(&line(&output, "snapshot")).contains("✓ 1 snapshot in data, <SIZE> on disk")
    );
}

#[test]
fn without_a_way_to_the_server_the_rest_is_checked() {
    let (env, sshd) = production();
    env.edit_world(|world| world.logged_in = false);
    let output = doctor(&env, &[]).fails(1).stderr_has("error: 1 check failed\n");
    line(&output, " ✓ fly 0.4.87");
    line(&output, " ✓ data is ignored by git");
    line(&output, " ✗ fly is not logged in");
    line(&output, "→ fly auth login");

    env.edit_world(|world| {
        world.logged_in = true;
        world.faults.offline = true;
    });
    let output = doctor(&env, &[]).fails(1);
    line(&output, " ✓ data is ignored by git");
    line(&output, " ✗ upflow on Fly.io cannot be reached: no network");

    env.edit_world(|world| {
        world.faults.offline = false;
        world.version = "0.4.79".to_owned();
        let machine = &mut world.apps.get_mut("upflow").expect("it is there")[0];
        "stopped".clone_into(&mut machine.state);
    });
    let output = doctor(&env, &[]).fails(1);
    line(
        &output,
        "⚠ fly 0.4.79, logged in as developer@example.com: it may lose the end of a stream → fly version upgrade",
    );
    line(&output, "machine 48ed667c733018 is stopped → cargo xtask pull-db --start");

    for name in ["fly", "flyctl"] {
        env.uninstall(name);
    }
    let output = doctor(&env, &[]).fails(1);
    line(&output, " ✗ neither `fly` nor `flyctl` is on the PATH → install it");
    line(&output, " - the server was not checked");
    drop(sshd);

    let output = doctor(&env, &["--via", "docker:web"]);
    assert_eq!(output.code, Some(1), "{output}");
    let output = doctor(&env, &["--via", "exec:no-such-program x"]).fails(1);
    line(&output, " ✗ `no-such-program` is not on the PATH → install no-such-program");
}

#[test]
fn of_several_machines_the_one_with_the_volume_is_asked() {
    let (env, sshd) = production();
    env.add_machine(|machine| {
        "e784079b449483".clone_into(&mut machine.id);
        "ams".clone_into(&mut machine.region);
    });
    let output = doctor(&env, &[]).fails(1);
    line(&output, " ✗ upflow has 2 machines, each with files of its own");
    line(&output, "choose one with --machine ID");
    line(&output, "; if all have the same databases: any-machine = true there");
    let output = doctor(&env, &["--machine", "48ed667c733018"]).ok();
    line(&output, "machine 48ed667c733018 in nrt, started");
    let before = sshd.connections();
    env.edit_world(|world| {
        world.apps.get_mut("upflow").expect("it is there")[0].mounts.clear();
    });
    doctor(&env, &[]).ok();
    assert_eq!(sshd.connections() - before, 2, "the first one was the wrong one");
}

#[test]
fn other_ways_are_ways_too() {
    let (env, sshd) = production();
    let output = local(&env, &[]).ok();
    assert!(!output.stdout().contains("fly"), "{output}");
    line(&output, &format!(" ✓ {}, as {}", env.production().display(), login_user()));
    env.write("home/.ssh/config", &sshd.ssh_config());
    let ssh = format!("exec {} -F \"$HOME/.ssh/config\" \"$@\"", shells::find("ssh").display());
    shells::script(&env.path("bin"), "ssh", &ssh);
    let via = format!("ssh:{}@127.0.0.1:{}", login_user(), sshd.port());
    let output = doctor(&env, &["--via", &via]).ok();
    line(&output, " ✓ ssh ");
    line(&output, &format!(" ✓ {}@127.0.0.1, as {}", login_user(), login_user()));
    assert_eq!((env.fly_invocations().len(), sshd.connections()), (0, 1));
    let output = doctor(&env, &["--via", "local:x", "--machine", "x"]).fails(1);
    line(&output, " ✗ --machine works with `fly` only → leave out --machine, or --via");
}

#[test]
fn settings_that_are_wrong_come_first_and_the_rest_goes_on() {
    let (env, _sshd) = production();
    env.db_toml("[audit]\nlevl = 'warn'\n[[sanitize]]\ntable = 'items'\nset = { key = \"''\" }\n");
    let output = doctor(&env, &[]).fails(1);
    let stdout = output.stdout();
    assert!(stdout.starts_with(" ✗ ") && stdout.contains("→ did you mean `level`?\n"), "{output}");
    line(&output, "3 databases (WAL)");
    // Nothing tells any more which server is meant.
    env.db_toml("viaa = 'ssh:me@example.com'\n");
    let output = doctor(&env, &[]).fails(1);
    line(&output, "→ did you mean `via`?");
    line(&output, " - nothing else was checked");
    assert_eq!(output.stdout().lines().filter(|line| line.starts_with(" ✓")).count(), 0);
    fs::remove_file(env.path("repo/xtask/db.toml")).expect("remove");
    let output = doctor(&env, &[]).fails(1);
    line(&output, " ✗ no xtask/db.toml yet");
    env.db_toml("");
    let output = doctor(&env, &["--source", "x"]).fails(1);
    line(&output, " ✗ there is no source \"x\" → add [source.x] to xtask/db.toml");
}

#[test]
fn programs_read_the_checks_as_json() {
    let (env, _sshd) = production();
    env.write("repo/.gitignore", "");
    let output = doctor(&env, &["--json"]).fails(1);
    let json = output.json();
    let checks = json["checks"].as_array().expect("a list");
    let of = |name: &str| checks.iter().find(|check| check["check"] == name).expect("it is there");
    let ignored = of("ignored");
    assert_eq!((&ignored["where"], &ignored["state"]), (&"here".into(), &"error".into()));
    assert_eq!(ignored["fix"], "add a line to .gitignore: /data");
    let databases = of("databases");
    assert_eq!((&databases["where"], &databases["state"]), (&"server".into(), &"ok".into()));
    assert_eq!(databases["fix"], serde_json::Value::Null);
    let keys: Vec<_> = databases.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["check", "fix", "message", "state", "where"]);
    doctor(&env, &["--json", "--fix"]).fails(2).stderr_has("this needs a confirmation");
    let json = doctor(&env, &["--json", "--fix", "--yes"]).ok().json();
    let checks = json["checks"].as_array().expect("a list");
    let ignored = checks.iter().find(|check| check["check"] == "ignored");
    assert_eq!(ignored.expect("it is there")["message"], "added to .gitignore: /data");
}

#[test]
fn names_of_files_cannot_forge_a_line() {
    let (env, _sshd) = production();
    let hostile = ["x\n ✓ all is well.sqlite3", "\u{1b}]0;owned\u{7}.sqlite3", "\u{202e}a.sqlite3"];
    for name in STRANGE_NAMES.iter().chain(&hostile) {
        databases::execute(&env.production().join(name), "CREATE TABLE t (a)");
    }
    databases::execute(&env.production().join("-rf x.sqlite3"), "CREATE TABLE t (a)");
    for busybox in [false, true] {
        if busybox {
            let bin = shells::busybox(&env.path(""), &["sqlite3"]);
            let _other = env.start_server(&env.server_environment().set("PATH", bin));
            let output = doctor(&env, &[]).ok();
            assert!(!output.stdout().contains("\n ✓ all"), "{output}");
        } else {
            let output = doctor(&env, &[]).ok();
            assert!(!output.stdout().contains("\n ✓ all"), "{output}");
            line(&output, "11 databases");
            line(&output, "in no pattern of include: ");
        }
    }
}

#[test]
fn without_utf_8_the_marks_are_ascii() {
    let (env, _sshd) = production();
    env.write("repo/.gitignore", "");
    let via = format!("local:{}", env.production().display());
    let mut xtask = env.xtask_command(["doctor", "--via", &via]);
    let output = Running::start(xtask.env("LC_ALL", "C")).wait().fails(1);
    assert!(output.stdout().is_ascii(), "{output}");
    line(&output, "ok zstd there");
    line(&output, " x git does not ignore all of ");
    line(&output, " -> add a line to .gitignore: /data");
}

/// It knows the nonce, and says something else than our script.
#[test]
fn a_report_that_is_not_the_scripts_is_refused() {
    let (env, _sshd) = production();
    let many = "i=0; while [ $i -lt 1001 ]; do echo \"XTASK-DB-FACT 1 $nonce missed 61\"; i=$((i + 1)); done";
    for (said, why) in [
        (
            "echo \"XTASK-DB-FACT 1 $nonce server 7a7 - -\"",
            "has lines that our script does not write",
        ),
        ("echo \"XTASK-DB-FACT 1 $nonce missed 6z\"", "has lines that our script does not write"),
        (many, "it reports more than 1000 facts"),
        ("head -c 70000 /dev/zero | tr '\\0' x", "sent no databases"),
        (
            "printf 'XTASK-DB-FAILED 1 %s odd \\033[2J\\n ✓ all is well\\n' \"$nonce\"",
            "✗ \\u{1b}[2J",
        ),
        ("exit 0", "ran no script"),
    ] {
        let body = format!(
            "read -r n && dd bs=1 count=\"$n\" >/dev/null 2>&1 && read -r _ nonce\n{said}\n\
             echo \"XTASK-DB-FACTS 1 $nonce\""
        );
        shells::script(&env.path("bin"), "impostor", &body);
        let output = doctor(&env, &["--via", "exec:impostor"]).fails(1);
        line(&output, why);
        assert!(!output.stdout().contains("\n ✓ all"), "{output}");
    }
}
