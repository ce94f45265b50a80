//! `cargo xtask pull-db --if-older AGE`: a pull that is left out, because an
//! earlier one will do.

use std::fs::{self, File};

use serde_json::{Value, json};
use tests::databases;
use tests::env::TestEnv;
use tests::output::Output;
use tests::process::Running;
use tests::pull::{NAMES, assert_tidy, live, production, pull, pull_fails, snapshot};
use tests::server::Sshd;
use tests::store::{self, Snapshot};

/// A hook's call.
const HOOK: [&str; 3] = ["--yes", "--if-older", "24h"];

fn pulled() -> (TestEnv, Sshd) {
    let (env, sshd) = production();
    pull(&env, &[]);
    (env, sshd)
}

/// Makes a snapshot as old as SQLite's `modifier` says, such as `-25 hours`.
fn date(env: &TestEnv, snapshot: &Snapshot, modifier: &str) -> String {
    snapshot.date(&env.data(), modifier)
}

/// Changes what a snapshot says of itself.
fn edit(snapshot: &Snapshot, change: impl FnOnce(&mut Value)) {
    snapshot.edit(change);
}

/// Runs it where an earlier pull will do: nobody is asked, nothing is touched.
#[track_caller]
fn skips(env: &TestEnv, args: &[&str]) -> Output {
    let state = || {
        (env.fly_invocations().len(), store::fingerprint(&env.data()), store::kinds(&env.data()))
    };
    let before = state();
    let output = pull(env, args);
    assert!(state() == before, "something was done\n{output}");
    output
}

/// Runs it where none will do: there is one pull more.
#[track_caller]
fn pulls(env: &TestEnv, args: &[&str]) {
    let count = || store::kinds(&env.data()).iter().filter(|kind| *kind == "pull").count();
    let before = count();
    pull(env, args).stderr_has("Pulled ").stderr_lacks("Skipped");
    assert_eq!(count(), before + 1);
}

#[test]
fn where_the_newest_pull_is_young_nothing_happens_and_that_is_said() {
    let (env, sshd) = pulled();
    let name = date(&env, &snapshot(&env), "-23 hours");
    databases::execute(&env.data().join(NAMES[0]), "UPDATE items SET data = 'mine'");
    let line =
        format!("     Skipped the pull: {name} is fresh (pulled 23 h ago, --if-older 24h)\n");
    skips(&env, &HOOK).stdout_is("").stderr_is(&line);
    skips(&env, &["-q", "--if-older", "24h"]).stdout_is("").stderr_is("");
    let output = skips(&env, &["--json", "--if-older", "24h"]);
    assert_eq!(
        output.json(),
        json!({ "version": 1, "skipped": true, "reason": "young", "snapshot": name })
    );
    assert_eq!((env.fly_invocations().len(), sshd.connections()), (1, 1), "the first pull");
}

#[test]
fn an_ordinary_pull_says_that_it_was_not_skipped() {
    let (env, _sshd) = production();
    assert_eq!(pull(&env, &["--json", "--if-older", "24h"]).json()["skipped"], false);
    assert_eq!(pull(&env, &["--json"]).json()["skipped"], false);
}

#[test]
fn no_other_command_is_waited_for() {
    let (env, _sshd) = pulled();
    let lock = File::open(env.data().join(".xtask/lock")).expect("the first pull made it");
    lock.lock().expect("nobody has it");
    skips(&env, &HOOK).stderr_lacks("Waiting");
}

#[test]
fn an_older_pull_will_not_do() {
    let (env, _sshd) = pulled();
    date(&env, &snapshot(&env), "-25 hours");
    for age in ["25h1m", "1501m", "2d", "2 days", "1d 2h", "1 week"] {
        skips(&env, &["--if-older", age]);
    }
    for age in ["24h", "1 day", "1d", "90m", "1h30m", "1s"] {
        pulls(&env, &["--if-older", age]);
        fs::remove_dir_all(snapshot(&env).path).expect("remove the new one");
    }
}

#[test]
fn what_is_no_age_is_refused_with_an_example() {
    let (env, _sshd) = pulled();
    for age in ["0h", "-1h", "1 month", "1y", "24", "soon", ""] {
        pull_fails(&env, &["--if-older", age], 2)
            .stderr_has("invalid value")
            .stderr_has("such as 24h, 90m, 7d or 1h30m");
    }
    assert_eq!(env.fly_invocations().len(), 1, "the first pull");
}

#[test]
fn a_snapshot_of_the_future_is_not_young_and_hides_none_that_is() {
    let (env, _sshd) = pulled();
    date(&env, &snapshot(&env), "+2 hours");
    pulls(&env, &HOOK);
    skips(&env, &HOOK);
}

#[test]
fn only_a_sound_pull_counts() {
    let (env, _sshd) = production();
    databases::create(&env.make_data().join("mine.db"), 5, 5);
    env.xtask(["snapshots", "create"]).ok();
    pulls(&env, &HOOK);
    // What was saved before the pull is no pull; without a file, one is not sound.
    let path = store::snapshots(&env.data())
        .into_iter()
        .rfind(|snapshot| snapshot.kind() == "pull")
        .expect("it was pulled")
        .path;
    fs::remove_file(path.join(NAMES[1])).expect("it was there");
    pulls(&env, &HOOK);
    skips(&env, &HOOK);
    edit(&snapshot(&env), |json| json["kind"] = "manual".into());
    pulls(&env, &HOOK);
}

#[test]
fn a_pull_of_something_else_does_not_count() {
    let (env, _sshd) = pulled();
    env.edit_world(|world| {
        let machines = world.apps["upflow"].clone();
        world.apps.insert("other".to_owned(), machines);
    });
    let dir = env.path("elsewhere");
    fs::create_dir(&dir).expect("make a directory");
    databases::create(&dir.join("data.db"), 10, 1);
    let dir = dir.display().to_string();
    let local = format!("local:{dir}");

    // A pull from here, in the server's TMPDIR, is of the same app by its settings.
    let from_here = || {
        let mut xtask = env.xtask_command([&["pull-db", "--via", &local], &HOOK[..]].concat());
        Running::start(xtask.env("TMPDIR", env.path("tmp"))).wait().ok()
    };
    from_here().stderr_has("Pulled ");
    from_here().stderr_has("Skipped ");
    for other in [
        &["--app", "other"][..],
        &["--remote-dir", &dir],
        &["--machine", "48ed667c733018"],
        &["--region", "nrt"],
        &["--process-group", "app"],
    ] {
        let call = [&HOOK[..], other].concat();
        pulls(&env, &call);
        skips(&env, &call);
    }
    // Whichever machine it came from will do for a call that names none.
    for snapshot in store::snapshots(&env.data()) {
        if snapshot.json["origin"]["flags"].is_null() {
            fs::remove_dir_all(snapshot.path).expect("remove a snapshot");
        }
    }
    skips(&env, &HOOK);
}

#[test]
fn a_pull_that_does_not_say_where_it_is_from_does_not_count() {
    let (env, _sshd) = pulled();
    let older = |json: &mut Value| {
        json["origin"].as_object_mut().expect("an origin").remove("source").expect("a source");
    };
    edit(&snapshot(&env), older);
    pulls(&env, &HOOK);
}

#[test]
fn some_databases_do_not_stand_for_all_but_all_for_some() {
    let (env, _sshd) = production();
    let only = [&HOOK[..], &["--only", "tenant_*"]].concat();
    pulls(&env, &only);
    skips(&env, &only);
    pulls(&env, &[&HOOK[..], &["--only", "data*"]].concat());
    pulls(&env, &HOOK);
    for snapshot in store::snapshots(&env.data()) {
        if !snapshot.json["only"].is_null() {
            fs::remove_dir_all(snapshot.path).expect("remove a snapshot");
        }
    }
    skips(&env, &HOOK);
    skips(&env, &only);
}

#[test]
fn a_pull_with_other_secrets_in_it_does_not_count() {
    let (env, _sshd) = pulled();
    let rule = |value: &str| {
        env.db_toml(&format!("[[sanitize]]\ntable = 'items'\nset = {{ data = \"'{value}'\" }}\n"));
    };
    rule("one");
    pulls(&env, &HOOK);
    skips(&env, &HOOK);
    rule("two");
    pulls(&env, &HOOK);
    let with_secrets = [&HOOK[..], &["--no-sanitize"]].concat();
    pulls(&env, &with_secrets);
    skips(&env, &with_secrets);
    // Its secrets must not stay because it is young.
    pulls(&env, &HOOK);
    skips(&env, &HOOK);
    env.db_toml("");
    pulls(&env, &HOOK);
    skips(&env, &with_secrets);
}

#[test]
fn of_two_at_once_one_pulls_and_the_other_waits_and_sees_it() {
    let (env, _sshd) = production();
    let (held, gate) = (env.path("held"), env.path("gate"));
    env.replace_fly(&format!(
        ": >{}; while [ ! -e {} ]; do sleep 0.02; done; exec standin-fly \"$@\"",
        held.display(),
        gate.display()
    ));
    let args = ["pull-db", "--if-older", "24h"];
    let mut first = env.start_xtask(args);
    first.wait_for("the connection to be held", |_| held.exists());
    let mut second = env.start_xtask(args);
    second.wait_for_stderr("Waiting for cargo xtask pull-db");
    env.write("gate", "");
    first.wait().ok().stderr_has("Pulled 3 databases");
    second.wait().ok().stderr_has("Skipped the pull: backup_");
    assert_eq!(env.fly_invocations().len(), 1);
    assert_eq!((store::kinds(&env.data()), live(&env).len()), (vec!["pull".to_owned()], 3));
    assert_tidy(&env);
}

#[test]
fn what_a_killed_run_left_is_finished_first() {
    let (env, _sshd) = pulled();
    let staged = env.data().join(".xtask/staged");
    fs::create_dir(&staged).expect("make a directory");
    fs::rename(env.data().join(NAMES[0]), staged.join(NAMES[0])).expect("rename");
    let journal = json!({
        "install": NAMES,
        "remove": [],
        "state": { "live": snapshot(&env).name, "before": null },
    });
    env.write("repo/data/.xtask/journal.json", &journal.to_string());
    pull(&env, &HOOK).stderr_has("that is now finished").stderr_has("Skipped the pull");
    assert_eq!((live(&env).len(), env.fly_invocations().len()), (3, 1));
}
