//! Ctrl-C, wherever a command is: nothing is left on either side, nothing runs
//! on, and what is said is so.

use std::fs;
use std::path::Path;

use tests::databases;
use tests::env::TestEnv;
use tests::impostor::TAKE_SCRIPT;
use tests::process::{Running, Signal, wait_for};
use tests::pty::CTRL_C;
use tests::pull::{self, NAMES, assert_tidy, production};
use tests::server::Sshd;
use tests::sets::developer;
use tests::shells;
use tests::store;
use tests::world::Faults;

const UNCHANGED: &str = "error: interrupted; nothing was changed\n";

/// A developer with a live set to lose, and more in production than fits into
/// the buffers on the way: the server cannot be done before the client is.
fn pulled() -> (TestEnv, Sshd) {
    let (env, sshd) = production();
    pull::pull(&env, &[]);
    databases::execute(&env.data().join(NAMES[0]), "UPDATE items SET data = 'mine'");
    databases::execute(
        &env.production().join(NAMES[0]),
        "CREATE TABLE noise AS WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 100)
         SELECT randomblob(100000) AS data FROM n",
    );
    (env, sshd)
}

/// In a script: says that it is here, and stays until it is ended.
fn stall(env: &TestEnv) -> String {
    format!(": >'{}'; exec sleep 1000", env.path("held").display())
}

/// Interrupts a command that stalls, by a signal to it alone and then by Ctrl-C on
/// its terminal. Returns what it says the first time.
#[track_caller]
fn interrupt(env: &TestEnv, args: &[&str]) -> String {
    interrupt_when(env, args, "", &|| env.path("held").exists())
}

/// The same of one that has said something, and of which something holds.
#[track_caller]
fn interrupt_when(env: &TestEnv, args: &[&str], says: &str, holds: &dyn Fn() -> bool) -> String {
    let before = (store::fingerprint(&env.data()), store::kinds(&env.data()));
    let check = |code: u32, said: &str| {
        drop(fs::remove_file(env.path("held")));
        assert_eq!(code, 130, "{said}");
        let after = (store::fingerprint(&env.data()), store::kinds(&env.data()));
        assert!(before == after, "the live set or its snapshots changed: {after:?}");
        assert_tidy(env);
        // The second time, what arrived is to arrive again.
        if let Some(leftover) = store::leftover(&env.data()) {
            fs::remove_dir_all(leftover).expect("remove");
        }
        wait_for("all to end", || env.processes().is_empty().then_some(()));
    };
    let mut xtask = env.start_xtask(args);
    xtask.wait_for("it to be held", |xtask| xtask.stderr_so_far().contains(says) && holds());
    xtask.interrupt_alone();
    let output = xtask.wait();
    check(output.code.unwrap_or_default().cast_unsigned(), &output.stderr);

    let session = env.xtask_on_pty(args);
    session.wait_for(|screen| screen.contains(says) && holds(), "it to be held");
    session.send(CTRL_C);
    let code = session.wait_exit();
    let last = output.stderr.lines().last().expect("it says something").to_owned();
    if code == 130 {
        session.wait_for_text(&last);
    }
    check(code, &session.screen());
    assert!(session.shows_cursor());
    output.stderr
}

#[track_caller]
fn ends_with(said: &str, end: &str) {
    assert!(said.ends_with(end), "no {end:?} at the end of\n{said}");
}

#[test]
fn while_another_command_is_waited_for() {
    let env = developer();
    let lock = fs::File::options().write(true).open(env.data().join(".xtask/lock"));
    let lock = lock.expect("there was a pull");
    lock.lock().expect("nobody else has it");
    let via = format!("local:{}", env.production().display());
    for args in [
        &["snapshots", "create"][..],
        &["restore-db", "--latest", "--yes"],
        &["pull-db", "--via", &via],
    ] {
        let said = interrupt_when(&env, args, "Waiting for another command in ", &|| true);
        ends_with(&said, UNCHANGED);
    }
}

#[test]
fn while_the_server_is_silent() {
    let (env, _sshd) = pulled();
    env.replace_fly(&format!(": >'{}'; exec cat >/dev/null", env.path("held").display()));
    for args in [&["pull-db"][..], &["pull-db", "--offline-ok"], &["pull-db", "--sftp"]] {
        ends_with(&interrupt(&env, args), UNCHANGED);
    }
}

#[test]
fn while_the_server_does_not_even_listen() {
    let (env, _sshd) = pulled();
    env.replace_fly(&stall(&env));
    // More than a pipe holds.
    let long = "x".repeat(200_000);
    env.db_toml(&format!("[[sanitize]]\ntable = 'items'\nset = {{ data = \"'{long}'\" }}\n"));
    ends_with(&interrupt(&env, &["pull-db"]), UNCHANGED);
}

#[test]
fn while_fly_is_waited_for() {
    let (env, _sshd) = pulled();
    let stall = stall(&env);
    let stall_at = |what: &str, stall: &str| {
        env.replace_fly(&format!(
            "case \"$*\" in *'{what}'*) {stall};; esac; exec standin-fly \"$@\""
        ));
    };
    stall_at("sftp get", &stall);
    ends_with(&interrupt(&env, &["pull-db", "--sftp"]), UNCHANGED);
    stall_at("machine list", &stall);
    let said = interrupt(&env, &["pull-db", "--start"]);
    ends_with(&said, UNCHANGED);
    env.edit_world(|world| {
        let machines = world.apps.get_mut("upflow").expect("the app exists");
        "stopped".clone_into(&mut machines[0].state);
    });
    for stall in [&stall, &format!(": >'{}'; exit", env.path("held").display())] {
        stall_at("machine start", stall);
        let said = interrupt(&env, &["pull-db", "--start"]);
        assert!(said.contains("Stopping machine 48ed667c733018 of upflow"), "{said}");
        ends_with(&said, UNCHANGED);
    }
}

#[test]
fn while_the_server_copies_and_sanitizes() {
    let env = TestEnv::new();
    let bin = shells::debian(&env.path(""), &["sqlite3", "dd"]);
    let _sshd = env.start_server(&env.server_environment().set("PATH", &bin));
    for name in ["data.db", "old.db"] {
        databases::create(&env.production().join(name), 100, 1);
    }
    databases::execute(&env.production().join("old.db"), "PRAGMA journal_mode = DELETE");
    env.db_toml("[[sanitize]]\ntable = 'items'\nset = { value = 'NULL' }\n");
    let stall = stall(&env);
    for (program, what, says) in [
        ("dd", "*/data.db*", "Copying"),
        ("sqlite3", "*' '-readonly' '*", "Copying"),
        ("sqlite3", "*' '0.db", "Masking"),
    ] {
        for other in ["dd", "sqlite3"] {
            let begins = if other == program { what } else { "''" };
            let real = shells::find(other);
            let body =
                format!("case \"$*\" in {begins}) {stall};; esac; exec {} \"$@\"", real.display());
            shells::script(&bin, other, &body);
        }
        let held = || env.path("held").exists();
        ends_with(&interrupt_when(&env, &["pull-db"], says, &held), UNCHANGED);
    }
}

#[test]
fn while_databases_arrive() {
    let (env, _sshd) = pulled();
    env.edit_world(|world| {
        world.faults = Faults { stall_after_bytes: Some(300_000), ..Faults::default() };
    });
    let said = interrupt_when(&env, &["pull-db", "--full"], "", &|| {
        store::has_arrived(&env.data(), NAMES[0], 100_000)
    });
    ends_with(&said, &format!("{UNCHANGED}hint: the next pull resumes from what arrived\n"));
}

/// A server, the copies of which are compared with what was pulled from it, and where a
/// program stalls when its arguments are such.
fn comparing(program: &str, arguments: &str) -> (TestEnv, Sshd) {
    let env = TestEnv::new();
    let bin = shells::debian(&env.path(""), &[program]);
    let real = shells::find(program).display().to_string();
    shells::script(&bin, program, &format!("exec {real} \"$@\""));
    let sshd = env.start_server(&env.server_environment().set("PATH", &bin));
    for (seed, name) in (1..).zip(NAMES) {
        databases::create(&env.production().join(name), 400, seed);
    }
    pull::pull(&env, &[]);
    databases::execute(&env.production().join(NAMES[0]), "UPDATE items SET value = -1");
    let stall = stall(&env);
    let body = format!("case \"$*\" in {arguments}) {stall};; esac; exec {real} \"$@\"");
    shells::script(&bin, program, &body);
    (env, sshd)
}

#[test]
fn while_hashes_are_made_and_nobody_takes_them() {
    let (env, _sshd) = pulled();
    // Of so much, the hashes are more than anything on the way holds.
    let snapshot = pull::snapshot(&env);
    let base = fs::File::options().write(true).open(snapshot.path.join(NAMES[2]));
    base.and_then(|base| base.set_len(4 << 30)).expect("make it longer");
    let mut meta = snapshot.json;
    meta["databases"][2]["bytes"] = (4_u64 << 30).into();
    fs::write(snapshot.path.join("snapshot.json"), meta.to_string()).expect("write");
    let take = "while read -r line && [ \"$line\" != end ]; do :; done";
    env.replace_fly(&format!("{TAKE_SCRIPT}; {take}; {}", stall(&env)));
    ends_with(&interrupt(&env, &["pull-db"]), UNCHANGED);
}

#[test]
fn while_the_server_compares() {
    for (program, arguments) in [("dd", "*of=new.*"), ("sha256sum", "0.db*")] {
        let (env, _sshd) = comparing(program, arguments);
        ends_with(&interrupt(&env, &["pull-db"]), UNCHANGED);
    }
}

#[test]
fn while_a_migration_of_a_fixture_runs() {
    let env = tests::fixtures::developer();
    // Not by exec: what the command has started must end too.
    let held = env.path("held").display().to_string();
    env.write("repo/migrate.sh", &format!(": >'{held}'; sleep 1000; echo"));
    env.git(&["add", "--all"]);
    env.git(&["commit", "--quiet", "--no-verify", "--message=stall"]);
    fixtures_stay(&env, &|| env.path("held").exists());
}

/// It is ended by the terminal, and is not what has failed.
#[test]
fn while_git_is_at_work() {
    let env = tests::fixtures::developer();
    let (stall, git) = (stall(&env), shells::find("git"));
    env.replace_git(&format!(
        "case \"$*\" in *ls-files*) {stall};; esac; exec {} \"$@\"",
        git.display()
    ));
    let session = env.xtask_on_pty(["refresh-fixtures"]);
    session.wait_for(|_| env.path("held").exists(), "git to be held");
    session.send(CTRL_C);
    assert_eq!(session.wait_exit(), 130, "{}", session.screen());
    session.wait_for_text(UNCHANGED.trim());
}

#[test]
fn while_a_fixture_is_cut() {
    let env = tests::fixtures::developer();
    let endless = "id > (WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n) \
                   SELECT count(*) FROM n)";
    env.db_toml(&tests::fixtures::SETTINGS.replace("id > 10", endless));
    env.git(&["add", "--all"]);
    env.git(&["commit", "--quiet", "--no-verify", "--message=endless"]);
    fixtures_stay(&env, &|| true);
}

#[track_caller]
fn fixtures_stay(env: &TestEnv, held: &dyn Fn() -> bool) {
    for args in [&["refresh-fixtures"][..], &["refresh-fixtures", "--staged"]] {
        if args.len() == 2 {
            tests::fixtures::migration(env, 2, tests::fixtures::ADD_NOTE);
        }
        let status = tests::fixtures::status(env);
        ends_with(&interrupt_when(env, args, "Cutting", held), UNCHANGED);
        assert_eq!(tests::fixtures::status(env), status);
    }
}

#[test]
fn while_the_app_sets_its_databases_up() {
    let env = developer();
    env.db_toml("setup = 'sh setup.sh'\n");
    env.write("repo/setup.sh", &stall(&env));
    // What was live is saved before; the second time, it is saved already.
    env.xtask(["snapshots", "create"]).ok();
    let said = interrupt(&env, &["setup-db"]);
    let so = "error: the setup command was interrupted, and may have changed the current data\n  \
              caused by: interrupted\nhint: cargo xtask restore-db --undo brings back the previous \
              data\n";
    ends_with(&said, so);
}

#[test]
fn when_the_app_has_set_its_databases_up_all_the_same() {
    let env = developer();
    env.db_toml("setup = 'sh setup.sh'\n");
    let held = env.path("held").display().to_string();
    let wait = "while [ ! -e done ]; do sleep 0.02; done";
    env.write("repo/setup.sh", &format!("trap ': >done' INT; : >'{held}'; {wait}; exit 0"));
    let mut xtask = env.start_xtask(["setup-db"]);
    xtask.wait_for("the command to run", |_| env.path("held").exists());
    xtask.interrupt();
    xtask
        .wait()
        .fails(130)
        .stderr_has("\nwarning: interrupted, but the command had already finished\n");
}

/// A fly that heeds nothing, and goes on with a pull when `gate` is there.
fn deaf_fly(env: &TestEnv) -> impl Fn(&Running) -> bool {
    let (held, gate) = (env.path("held"), env.path("gate"));
    env.replace_fly(&format!(
        "trap '' INT TERM HUP; : >'{}'; while [ ! -e '{}' ]; do sleep 0.02; done; \
         exec standin-fly \"$@\"",
        held.display(),
        gate.display()
    ));
    move |_| held.exists()
}

#[cfg(target_os = "linux")]
#[test]
fn the_second_time_nothing_is_waited_for() {
    let (env, _sshd) = pulled();
    let held = deaf_fly(&env);
    let mut xtask = env.start_xtask(["pull-db"]);
    xtask.wait_for("fly to be held", held);
    let fly = wait_for("fly to be found", || {
        env.processes().into_iter().find(|(_, name)| name == "fly").map(|(pid, _)| pid)
    });
    let open = || pipes(&format!("/proc/{}/fd", xtask.id()));
    let before = open();
    xtask.interrupt_alone();
    // The pipes to fly are closed, and from then on its end is waited for.
    wait_for("the connection to be closed", || (open() < before).then_some(()));
    xtask.interrupt_alone();
    wait_for("xtask to end", || xtask.has_exited().then_some(()));
    assert!(Path::new(&format!("/proc/{fly}")).exists(), "fly was waited for");
}

#[cfg(target_os = "linux")]
fn pipes(dir: &str) -> usize {
    let links = fs::read_dir(dir).into_iter().flatten().flatten();
    let links = links.filter_map(|entry| fs::read_link(entry.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("pipe:")).count()
}

#[test]
fn every_signal_that_ends_a_program_ends_it_tidily() {
    let (env, _sshd) = pulled();
    env.replace_fly(&format!(": >'{}'; exec cat >/dev/null", env.path("held").display()));
    for signal in [Signal::TERM, Signal::HUP] {
        let mut xtask = env.start_xtask(["pull-db"]);
        xtask.wait_for("it to be held", |_| env.path("held").exists());
        xtask.signal(signal);
        ends_with(&xtask.wait().fails(130).stderr, UNCHANGED);
        fs::remove_file(env.path("held")).expect("it was held");
        assert_tidy(&env);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_that_nohup_ignores_ends_nothing() {
    let (env, _sshd) = pulled();
    let held = deaf_fly(&env);
    let mut nohup = env.command("nohup");
    nohup.arg(tests::binaries::xtask()).arg("pull-db");
    let mut xtask = Running::start(nohup.env("CARGO_MANIFEST_DIR", env.path("repo/xtask")));
    xtask.wait_for("fly to be held", held);
    xtask.signal(Signal::HUP);
    env.write("gate", "");
    xtask.wait().ok().stderr_has("Pulled 3 databases");
    assert_tidy(&env);
}
