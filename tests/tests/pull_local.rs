//! Pulls without Fly.io, from a directory or over ssh.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;

use tests::databases;
use tests::env::TestEnv;
use tests::process::Running;
use tests::sets::{assert_same, change, content, developer, pull};
use tests::shells;
use tests::store::snapshots;

#[test]
fn a_database_in_the_working_directory_and_a_directory_called_so_do_no_harm() {
    let env = developer();
    env.write("repo/zzz.db", "");
    fs::create_dir(env.production().join("dir.db")).expect("make a directory");
    pull(&env);
}

#[test]
fn what_the_server_calls_itself_cannot_break_the_index() {
    let env = developer();
    let via = format!("local:{}", env.production().display());
    let mut xtask = env.xtask_command(["pull-db", "--via", &via]);
    Running::start(xtask.env("FLY_REGION", "a\"b\\").env("FLY_MACHINE_ID", "x y")).wait().ok();
}

/// GNU's programs take units and options from there.
#[test]
fn what_the_server_has_in_its_environment_for_its_users_changes_nothing() {
    let env = developer();
    let via = format!("local:{}", env.production().display());
    let units =
        ["BLOCK_SIZE", "BLOCKSIZE", "DF_BLOCK_SIZE", "LS_BLOCK_SIZE"].map(|key| (key, "1M"));
    let mut xtask = env.xtask_command(["pull-db", "--via", &via]);
    xtask.envs(units).env("TAR_OPTIONS", "--exclude=0.db").env("POSIXLY_CORRECT", "1");
    Running::start(&mut xtask).wait().ok();
}

#[test]
fn a_failure_is_one_line_whatever_it_is_about() {
    let env = developer();
    env.write("production/two\nlines.db", &"no database at all ".repeat(99));
    let via = format!("local:{}", env.production().display());
    env.xtask(["pull-db", "--via", &via]).fails(1).stderr_has("two lines.db has a");
}

#[test]
fn git_is_asked_about_all_that_a_commit_could_take() {
    let env = developer();
    let via = format!("local:{}", env.production().display());
    let warns = |ignored: &str| {
        env.write("repo/.gitignore", ignored);
        let output = env.xtask(["pull-db", "--via", &via]).ok();
        output.stderr.contains("git does not ignore all of")
    };
    assert!(!warns("/data\n"));
    assert!(warns("*.db\n"), "a -wal is not ignored");
    assert!(!warns("*.db\n*.db-wal\n*.db-shm\n"));
    env.db_toml("include = ['*.db', '*.sqlite']\n");
    assert!(warns("*.db\n*.db-wal\n*.db-shm\n"), "nor is what the next pull may bring");
    env.db_toml("");
    env.git(&["add", "--force", "data/data.db"]);
    assert!(warns("/data\n"), "what is tracked is not ignored");
}

#[test]
fn what_is_proposed_for_gitignore_ignores_the_data_and_no_code() {
    for dir in ["data", "backend/data", "django", ".", "we [i]rd* #dir"] {
        let env = TestEnv::new();
        databases::create(&env.production().join("data.db"), 30, 1);
        env.db_toml(&format!("local-dir = '{dir}'\n"));
        env.write("repo/.gitignore", "/target");
        env.write("repo/django/manage.py", "code");
        env.git(&["add", "--all"]);
        let first = env.local_pull(&[]).ok();
        let (_, hint) = first.stderr.split_once("hint: add ").expect("there is a hint");
        // The last of them is followed by what the pull goes on to say.
        let lines = hint.split_once(".gitignore:").expect("it names the file").1;
        let lines = lines.lines().map(str::trim).skip_while(|line| line.is_empty());
        let lines: Vec<_> = lines.take_while(|line| line.starts_with('/')).collect();
        env.write("repo/.gitignore", &lines.join("\n"));
        env.local_pull(&[]).ok().stderr_lacks("git does not ignore");
        let code = ["check-ignore", "--no-index", "django/manage.py", "django/new.py", "app.py"];
        let ignored = Running::start(env.command("git").args(code)).wait();
        ignored.fails(1).stdout_is("");
    }
}

#[test]
fn the_app_of_fly_toml_is_not_said_to_be_that_of_a_pull_from_elsewhere() {
    let env = developer();
    let snapshot = snapshots(&env.data()).remove(0);
    assert!(snapshot.json["origin"]["source"].is_string(), "{}", snapshot.json);
    assert!(snapshot.json["origin"]["app"].is_null(), "{}", snapshot.json);
}

#[test]
fn what_is_tracked_already_is_not_ignored_but_taken_out() {
    let env = developer();
    env.write("repo/.gitignore", "/data\n");
    env.git(&["add", "--force", "data/data.db"]);
    let command = format!("git rm --cached {}", env.data().join("data.db").display());
    env.local_pull(&[]).ok().stderr_has(&format!("hint: {command}\n")).stderr_lacks(".gitignore");
    env.git(&command.split(' ').skip(1).collect::<Vec<_>>());
    env.local_pull(&[]).ok().stderr_lacks("git does not ignore");
}

#[test]
fn what_only_fly_knows_is_refused_elsewhere() {
    let env = developer();
    for flag in
        ["--sftp", "--start", "--machine=1", "--region=a", "--process-group=a", "--container=a"]
    {
        let name = flag.split('=').next().unwrap_or_default();
        env.xtask(["pull-db", "--via", "local:x", flag])
            .fails(2)
            .stderr_has(&format!("{name} works with `fly` only"));
    }
    env.db_toml("keep = 0\n");
    env.xtask(["pull-db", "--via", "local:x"]).fails(2).stderr_has("keep must be at least 1");
}

/// As the master of a shared ssh connection does.
#[test]
fn a_program_that_is_left_behind_does_not_hold_up_the_error() {
    let env = developer();
    shells::script(
        &env.path("bin"),
        "ssh",
        "sleep 600 >/dev/null 2>&1 <&- & exec 3>&2; sleep 600 2>&3 >/dev/null &\necho refused >&2; exit 255",
    );
    let output = env.xtask(["pull-db", "--via", "ssh:me@host", "--remote-dir", "/data"]).fails(1);
    output.stderr_has("error: ssh cannot connect to me@host\n  | refused\n");
}

#[test]
fn the_settings_may_say_how_to_reach_the_server() {
    let env = developer();
    change(&env.production().join("data.db"));
    env.db_toml("via = 'local:../production'\nstaging-dir = '../local-tmp'\n");
    env.xtask(["pull-db"]).ok();
    assert_same(&content(&env.data()), &content(&env.production()));
    assert_eq!(databases::files(&env.path("local-tmp")), [""; 0]);
}

#[test]
fn a_clock_that_is_set_back_is_no_reason_to_refuse() {
    let env = developer();
    let real = shells::find("sqlite3");
    // The clock of the script goes backwards, an hour at each look.
    let body = format!(
        "case \"$*\" in *julianday*) n=$(cat {0} 2>/dev/null || echo 9); echo $((n - 1)) >{0}; \
         echo $((n * 3600000)) ;; *) exec {1} \"$@\" ;; esac",
        env.path("clock").display(),
        real.display()
    );
    shells::script(&env.path("bin"), "sqlite3", &body);
    pull(&env);
}

/// A framework's own databases are beside production's, by the same pattern.
#[test]
fn databases_that_no_pull_has_brought_stay() {
    let env = TestEnv::new();
    env.db_toml("include = ['*.sqlite3']\nkeep = 1\n");
    env.write("repo/data/.keep", "");
    for name in ["production.sqlite3", "queue.sqlite3"] {
        databases::create(&env.production().join(name), 10, 1);
    }
    for name in ["development.sqlite3", "test.sqlite3"] {
        databases::create(&env.data().join(name), 20, 2);
    }
    let own = "development.sqlite3, test.sqlite3, which no pull has brought\n";
    env.local_pull(&["--dry-run"]).ok().stderr_lacks("Would remove");
    env.local_pull(&[]).ok().stderr_has(own).stderr_lacks("Removed");
    fs::remove_file(env.production().join("queue.sqlite3")).expect("remove");
    let removes = "Would remove queue.sqlite3, which the server does not have\n";
    env.local_pull(&["--dry-run"]).ok().stderr_has(removes);
    let plan = env.local_pull(&["--dry-run", "--json"]).ok().json();
    assert_eq!(plan["removes"], serde_json::json!(["queue.sqlite3"]));
    for _ in 0..3 {
        databases::execute(
            &env.production().join("production.sqlite3"),
            "DELETE FROM items WHERE id = (SELECT max(id) FROM items)",
        );
        env.local_pull(&[]).ok().stderr_lacks("development.sqlite3");
    }
    env.xtask(["restore-db", "--undo", "--yes"]).ok().stderr_lacks("Removed");
    assert!(!env.data().join("queue.sqlite3").exists());
    for name in ["development.sqlite3", "test.sqlite3"] {
        assert_eq!(databases::count(&env.data().join(name), "items"), 20);
    }
}

/// It concerns no fixture, no snapshot and no other server.
#[test]
fn a_broken_fly_toml_stops_only_who_needs_it() {
    let env = developer();
    env.write("repo/fly.toml", "app = 'x\n");
    for args in
        [&["refresh-fixtures", "--staged"][..], &["restore-db", "--list"], &["snapshots", "list"]]
    {
        env.xtask(args).ok();
        let mut odd = env.xtask_command(args);
        odd.env("FLY_APP", OsStr::from_bytes(b"\xff"));
        Running::start(&mut odd).wait().ok();
    }
    env.local_pull(&[]).ok();
    env.xtask(["pull-db"]).fails(2).stderr_has("fly.toml: TOML parse error");
}

/// As on macOS: its tar is libarchive's, and its stat knows none of GNU's options.
#[test]
fn a_pull_needs_neither_tar_nor_stat_of_gnu() {
    let env = developer();
    let tar = format!("exec '{}' \"$@\"", shells::find("bsdtar").display());
    shells::script(&env.path("bin"), "tar", &tar);
    shells::script(&env.path("bin"), "stat", "echo 'stat: illegal option -- c' >&2; exit 1");
    for args in [&[][..], &["--full"]] {
        change(&env.production().join("data.db"));
        let via = format!("local:{}", env.production().display());
        env.xtask([&["pull-db", "--via", &via][..], args].concat()).ok();
        assert_same(&content(&env.data()), &content(&env.production()));
    }
}
