//! Several commands at once in one data directory: each waits for its turn, and
//! says for whom.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use tests::databases;
use tests::env::TestEnv;
use tests::process::{Running, command, wait_for};
use tests::sets::{assert_same, change, content, developer, named, snapshots};
use tests::store::left_behind;

/// A developer whose app sets the databases up until `gate` is there.
struct Busy {
    env: TestEnv,
    setup: Running,
}

impl Busy {
    #[track_caller]
    fn new() -> Busy {
        let env = developer();
        env.xtask(["snapshots", "create"]).ok();
        env.db_toml("setup = 'sh setup.sh'\n");
        env.write("repo/setup.sh", ": >held; while [ ! -e gate ]; do sleep 0.02; done");
        let mut setup = env.start_xtask(["setup-db"]);
        setup.wait_for("the app to be at work", |_| env.path("repo/held").exists());
        Busy { env, setup }
    }

    fn who(&self) -> String {
        format!("cargo xtask setup-db (process {})", self.setup.id())
    }

    /// Each command that needs the directory for itself.
    fn commands(&self) -> Vec<Vec<String>> {
        let via = format!("local:{}", self.env.production().display());
        let manual = named(&self.env, "manual").remove(0);
        let commands = [
            &["pull-db", "--via", &via][..],
            &["restore-db", "--latest", "--yes"],
            &["snapshots", "create"],
            &["snapshots", "rm", &manual, "--yes"],
            &["snapshots", "prune", "--yes"],
            &["setup-db"],
        ];
        commands.map(|command| command.iter().map(|word| (*word).to_owned()).collect()).to_vec()
    }
}

#[test]
fn each_command_waits_says_once_for_whom_and_goes_on() {
    let busy = Busy::new();
    let dir = busy.env.data().display().to_string();
    let waiting = format!("     Waiting for {} in {dir}\n", busy.who());
    let mut waiters: Vec<_> =
        busy.commands().iter().map(|command| busy.env.start_xtask(command)).collect();
    for waiter in &mut waiters {
        waiter.wait_for_stderr(&waiting);
    }
    busy.env.write("repo/gate", "");
    busy.setup.wait().ok().stderr_lacks("Waiting");
    for waiter in waiters {
        let output = waiter.wait().ok();
        assert_eq!(output.stderr.matches("Waiting").count(), 1, "{output}");
    }
    assert_eq!(left_behind(&busy.env.data()), [""; 0]);
    let lock = fs::read_to_string(busy.env.data().join(".xtask/lock")).expect("there is a lock");
    assert_eq!(lock, "", "nobody has it");
}

#[test]
fn with_no_wait_each_command_fails_at_once_and_names_the_other() {
    let busy = Busy::new();
    let live = content(&busy.env.data());
    let message = format!(
        "error: {} is running in {}; nothing was changed\n",
        busy.who(),
        busy.env.data().display()
    );
    for command in busy.commands() {
        let mut command = busy.env.xtask_command(command);
        Running::start(command.arg("--no-wait"))
            .wait()
            .fails(1)
            .stderr_has(&message)
            .stderr_has("hint: run the command again later, or without --no-wait\n")
            .stderr_lacks("Waiting");
    }
    assert_same(&content(&busy.env.data()), &live);
    busy.env.write("repo/gate", "");
    busy.setup.wait().ok();
    busy.env.xtask(["snapshots", "create", "--no-wait"]).ok();
}

#[test]
fn what_a_killed_command_has_left_in_the_lock_is_not_believed() {
    let env = developer();
    let path = env.data().join(".xtask/lock");
    let dead = "cargo xtask pull-db (process 2147483647)";
    fs::write(&path, dead).expect("write");
    env.xtask(["snapshots", "create", "--no-wait"]).ok();
    fs::write(&path, dead).expect("write");
    let lock = File::open(&path).expect("open");
    lock.lock().expect("nobody else has it");
    let mut waiter = env.start_xtask(["snapshots", "create"]);
    waiter.wait_for_stderr("Waiting for another command in ");
    drop(lock);
    waiter.wait().ok().stderr_lacks("pull-db");
}

#[test]
fn ten_at_once_all_end_well() {
    let env = developer();
    let first = content(&env.data());
    change(&env.production().join("data.db"));
    let second = content(&env.production());
    let via = format!("local:{}", env.production().display());
    let name = named(&env, "pull").remove(0);
    let commands = [
        &["snapshots", "create"][..],
        &["restore-db", "--yes", "--name", &name],
        &["pull-db", "--via", &via],
    ];
    let running: Vec<_> =
        commands.iter().cycle().take(10).map(|command| env.start_xtask(*command)).collect();
    for one in running {
        one.wait().ok();
    }
    assert_eq!(left_behind(&env.data()), [""; 0]);
    let files = databases::files(&env.data());
    let live: Vec<_> =
        files.iter().filter(|name| !name.starts_with("backup_") && *name != ".xtask").collect();
    assert_eq!(live, ["data.db", "tenant_iris.db"]);
    let live = content(&env.data());
    assert!(live == first || live == second, "the set is of two moments");
    assert!(snapshots(&env).iter().all(|snapshot| snapshot["defect"].is_null()));
    assert_eq!(named(&env, "manual").len(), 4);
}

/// Which one a list reads first is not known, but it waits there for what is said of it.
#[test]
fn what_another_command_removes_is_not_in_a_list() {
    let env = developer();
    let names = ["2026-01-01T00-00-00Z", "2026-01-02T00-00-00Z", "2026-01-03T00-00-00Z"];
    let places = names.map(|name| env.data().join(format!("backup_{name}")));
    for place in &places {
        fs::create_dir(place).expect("make a directory");
        databases::create(&place.join("data.db"), 1, 1);
        let made = command("mkfifo").arg(place.join("snapshot.json")).status();
        assert!(made.is_ok_and(|status| status.success()));
    }
    let list = env.start_xtask(["snapshots", "list"]);
    let open = |place: &PathBuf| {
        let mut fifo = File::options();
        fifo.write(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
        fifo.open(place.join("snapshot.json")).ok()
    };
    let read = wait_for("it to read one", || places.iter().find_map(open));
    for place in &places {
        fs::rename(place, env.path("").join(place.file_name().expect("a name"))).expect("rename");
    }
    drop(read);
    let listed = list.wait().ok().stderr_is("").stdout();
    assert_eq!(listed.lines().count(), 1, "{listed}");
}
