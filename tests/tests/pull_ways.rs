//! `cargo xtask pull-db`: other ways to the server, and other servers and
//! databases than the usual.

use std::fs;

use tests::databases::{self, STRANGE_NAMES};
use tests::env::TestEnv;
use tests::process::Running;
use tests::pull::{
    NAMES, assert_live_equals_production, assert_tidy, live, production, pull, pull_fails,
    recorded, snapshot,
};

use tests::server::{QUIET_OPTIONS, login_user};
use tests::sets::{assert_same, content, developer};
use tests::shells;
use tests::sqlite3::Build;

#[test]
fn sftp_takes_two_connections_to_one_machine_and_removes_the_archive() {
    let (env, _sshd) = production();
    env.db_toml("any-machine = true");
    env.add_machine(|machine| "other".clone_into(&mut machine.id));
    pull(&env, &["--sftp"]);
    assert_live_equals_production(&env, &NAMES);
    let log = env.fly_invocations();
    assert_eq!(log.len(), 2, "{log:?}");
    assert_eq!(log[0][..5], ["ssh", "console", "--app", "upflow", "--command"]);
    let get = ["ssh", "sftp", "get", "--app", "upflow", "--machine", "48ed667c733018"];
    assert_eq!(log[1][..7], get, "the machine that has the archive");
    assert!(log[1][7].starts_with(&env.path("tmp").display().to_string()), "{log:?}");
    assert!(recorded(&env, "/origin/wire_bytes").as_u64() > Some(1000));
}

#[test]
fn a_broken_sftp_changes_nothing_and_removes_the_archive_too() {
    let (env, _sshd) = production();
    pull(&env, &[]);
    env.edit_world(|world| world.faults.sftp_cut_after_bytes = Some(5000));
    // What differs from the first pull would be there before that.
    pull_fails(&env, &["--sftp", "--full"], 1).stderr_has("cut after 5000 bytes");
    env.edit_world(|world| world.faults.sftp_cut_after_bytes = None);
    pull(&env, &["--sftp"]);
}

#[test]
fn plain_ssh_is_a_way_too() {
    let (env, sshd) = production();
    // ssh asks the password database for its user's home, not $HOME.
    let config: String = (QUIET_OPTIONS.iter())
        .map(|option| option.replacen('=', " ", 1) + "\n")
        .chain([format!("IdentityFile {}\n", sshd.key().display())])
        .collect();
    env.write("home/.ssh/config", &config);
    shells::script(
        &env.path("bin"),
        "ssh",
        &format!("exec {} -F \"$HOME/.ssh/config\" \"$@\"", shells::find("ssh").display()),
    );
    let via = format!("ssh:{}@127.0.0.1:{}", login_user(), sshd.port());
    let host = format!("{}@127.0.0.1", login_user());
    pull(&env, &["--via", &via]).stderr_has(&format!("3 databases from {host}, machine 48ed"));
    assert_live_equals_production(&env, &NAMES);
    assert_eq!((env.fly_invocations().len(), sshd.connections()), (0, 1));
    pull_fails(&env, &["--via", &via, "--sftp"], 2).stderr_has("--sftp works with `fly` only");
    drop(sshd);
    pull_fails(&env, &["--via", &via], 1)
        .stderr_has(&format!("error: ssh cannot connect to {host}\n"))
        .stderr_has("Connection refused");
}

#[test]
fn a_local_directory_is_a_way_too() {
    let (env, sshd) = production();
    fs::rename(env.production(), env.path("a dir's")).expect("rename");
    let via = format!("local:{}", env.path("a dir's").display());
    let mut xtask = env.xtask_command(["pull-db", "--via", &via]);
    Running::start(xtask.env("TMPDIR", env.path("tmp"))).wait().ok();
    assert_tidy(&env);
    for name in NAMES {
        databases::assert_same(&env.path("a dir's").join(name), &env.data().join(name));
    }
    assert_eq!((env.fly_invocations().len(), sshd.connections()), (0, 0));
}

/// Such as `docker compose exec -T web` or `kubectl exec -i deploy/web --`.
#[test]
fn any_command_that_runs_another_one_is_a_way() {
    let env = developer();
    let script = |name: &str, body: &str| shells::script(&env.path("bin"), name, body);
    let seen = env.path("seen");
    // As those do: it takes its own words, and runs the others where the databases are.
    let record = format!("printf '%s\\n' \"$1\" \"$2\" \"$3\" >'{}'", seen.display());
    script("in the container", &format!("{record}; shift 3; exec \"$@\""));
    let via = "via = \"exec:'in the container' -T web 'two words'\"\n";
    let directory = format!("remote-dir = '{}'\n", env.production().display());
    env.db_toml(&(via.to_owned() + &directory));
    for _ in 0..2 {
        env.xtask(["pull-db"])
            .ok()
            .stderr_has("Connecting to 'in the container' -T web 'two words'\n");
        assert_eq!(fs::read_to_string(&seen).expect("it ran"), "-T\nweb\ntwo words\n");
    }
    assert_same(&content(&env.data()), &content(&env.production()));

    // Without `-i` no input arrives, and the program says why.
    script("in the container", "echo 'the input device is not a TTY' >&2; exit 1");
    env.xtask(["pull-db"])
        .fails(1)
        .stderr_has("error: `'in the container' -T web 'two words'` ran no script")
        .stderr_has("| the input device is not a TTY")
        .stderr_has("hint: it has to pass its input on");
    script("in the container", "shift 3; exec \"$@\" </dev/null");
    env.xtask(["pull-db"]).fails(1).stderr_has("ran no script");
    env.xtask(["pull-db", "--via", "exec:not-there"]).fails(1).stderr_has("not-there");
    env.xtask(["pull-db", "--via", "exec:a 'b"]).fails(2).stderr_has("has an open quote");
}

/// `sudo` is a stand-in: it gets `-n -u USER` and a command, and says `sudo: a password is required`.
#[test]
fn the_script_runs_as_another_user() {
    let env = developer();
    let (seen, whoever) = (
        env.path("seen"),
        format!("via = 'local:{}'\nas = 'app.user'\n", env.production().display()),
    );
    env.db_toml(&whoever);
    let script = |name: &str, body: &str| shells::script(&env.path("bin"), name, body);
    script("id", "case $* in -u) echo 1000 ;; *) echo 33 ;; esac");
    script("sudo", &format!("echo \"$1 $2 $3 $4 $5\" >'{}'; shift 3; exec \"$@\"", seen.display()));
    env.xtask(["pull-db"]).ok();
    assert_eq!(fs::read_to_string(&seen).expect("it ran"), "-n -u app.user sh -c\n");
    script("sudo", "echo 'sudo: a password is required' >&2; exit 1");
    env.xtask(["pull-db"])
        .fails(1)
        .stderr_has("error: the script cannot run as app.user")
        .stderr_has(
            "hint: allow it without a password, in sudoers: ALL=(app.user) NOPASSWD: /bin/sh",
        );

    script("id", "case $* in -u) echo 0 ;; *) echo 33 ;; esac");
    let record = format!(
        "case $1 in --reuid=0) exit ;; esac; echo \"$1 $2 $3\" >'{}'; shift 3; exec \"$@\"",
        seen.display()
    );
    script("setpriv", &record);
    env.xtask(["pull-db"]).ok();
    assert_eq!(
        fs::read_to_string(&seen).expect("it ran"),
        "--reuid=app.user --regid=33 --init-groups\n"
    );
    script("setpriv", "exit 1");
    script("su", &format!("echo \"$1 $2 $3 $4\" >'{}'; shift 3; exec sh \"$@\"", seen.display()));
    env.xtask(["pull-db"]).ok();
    assert_eq!(fs::read_to_string(&seen).expect("it ran"), "-s /bin/sh app.user -c\n");
    // A container may not change its user.
    script("su", "echo 'su: cannot set groups: Operation not permitted' >&2; exit 1");
    env.xtask(["pull-db"])
        .fails(1)
        .stderr_has("error: the script cannot run as app.user\n  | su: cannot set groups")
        .stderr_has("hint: leave out `as`, and enter as that user: `via` can name it\n");
    env.db_toml("as = 'a b'\n");
    env.xtask(["pull-db"]).fails(2).stderr_has("as = \"a b\"");
}

#[test]
fn an_image_without_a_shell_is_told_of() {
    let env = developer();
    let image = env.path("image");
    fs::create_dir(&image).expect("make a directory");
    let via = format!("exec:chroot {}", image.display());
    let output = env.xtask(["pull-db", "--via", &via, "--remote-dir", "/data"]).fails(1);
    // Only root may enter another tree.
    if !output.stderr.contains("Operation not permitted") {
        output
            .stderr_has("error: there is no shell: chroot ")
            .stderr_has("hint: the pull runs sh and sqlite3 there");
    }
}

/// `STRICT` is of SQLite 3.37.
#[test]
fn a_schema_that_is_newer_than_the_sqlite3_there_is_not_taken_for_damage() {
    let rule = "[[sanitize]]\ntable = 'users'\nset = { name = \"'x'\" }\n";
    for (mode, settings) in [("DELETE", ""), ("DELETE", rule), ("WAL", rule)] {
        let env = TestEnv::with_database(&format!(
            "PRAGMA journal_mode = {mode}; CREATE TABLE users (name TEXT) STRICT; INSERT INTO users VALUES ('a')"
        ));
        env.db_toml(settings);
        Build::Old.install(&env.path("bin"));
        env.local_pull(&[])
            .fails(1)
            .stderr_has("sqlite3 3.34.1 is too old for the schema of ")
            .stderr_has("/data.db: near \"STRICT\": syntax error\n")
            .stderr_has("hint: install a newer sqlite3 in the image");
    }
}

#[test]
fn a_server_without_zstd_sends_gzip() {
    let env = TestEnv::new();
    let bin = shells::debian(&env.path(""), &["zstd"]);
    let _sshd = env.start_server(&env.server_environment().set("PATH", &bin));
    let gzipped = env.path("gzipped");
    databases::create(&env.production().join("data.db"), 2000, 1);
    fs::remove_file(bin.join("gzip")).expect("Debian has gzip");
    let real = shells::find("gzip");
    shells::script(
        &bin,
        "gzip",
        &format!("case $1 in -1) : >{} ;; esac; exec {} \"$@\"", gzipped.display(), real.display()),
    );
    pull(&env, &[]);
    assert!(gzipped.exists(), "gzip packed it");
    assert_live_equals_production(&env, &["data.db"]);
}

#[test]
fn a_busybox_server_will_do() {
    let env = TestEnv::new();
    let bin = shells::busybox(&env.path(""), &["sqlite3"]);
    let _sshd = env.start_server(&env.server_environment().set("PATH", &bin));
    for (seed, name) in (1..).zip(NAMES) {
        databases::create(&env.production().join(name), 300, seed);
    }
    for args in [&[][..], &["--sftp"]] {
        pull(&env, args);
        assert_live_equals_production(&env, &NAMES);
    }
}

#[test]
fn strange_file_names_arrive_as_they_are() {
    let (env, _sshd) = TestEnv::with_server();
    for (seed, name) in (1..).zip(STRANGE_NAMES) {
        databases::create(&env.production().join(name), 20, seed);
    }
    pull(&env, &[]);
    let mut names = STRANGE_NAMES.to_vec();
    names.sort_unstable();
    assert_eq!(live(&env), names);
    let mut recorded = snapshot(&env).json["databases"].as_array().cloned().unwrap_or_default();
    recorded.sort_by_key(|database| database["name"].as_str().map(str::to_owned));
    assert!(recorded.iter().map(|database| &database["name"]).eq(&names), "{recorded:?}");
    assert_live_equals_production(&env, &names);

    // A pattern with such a name takes this one alone.
    databases::execute(&env.production().join("per%20cent#.db"), "DELETE FROM items");
    pull(&env, &["--only", "per%20cent#.db"]);
    assert_eq!(databases::count(&env.data().join("per%20cent#.db"), "items"), 0);
    assert_eq!(live(&env), names);
}

#[test]
fn a_name_that_no_terminal_can_show_is_refused_by_name() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    for (name, said) in [
        (&b"bell\x07.db"[..], "\\u{7}"),
        (b"escape\x1b[2J.db", "\\u{1b}[2J"),
        (b"two\nlines.db", "two lines.db has a backslash or a control character"),
        (b"latin\xe9.db", "is not UTF-8"),
    ] {
        let (env, _sshd) = production();
        pull(&env, &[]);
        let path = env.production().join(OsStr::from_bytes(name));
        // SQLite takes no name that is not UTF-8.
        fs::copy(env.production().join(NAMES[0]), path).expect("copy a database");
        let output = pull_fails(&env, &[], 1).stderr_has("hint: ");
        assert!(output.stderr.contains(said), "{output}");
        assert!(!output.stderr.contains(['\x07', '\x1b']), "{output}");
    }
}

#[test]
fn an_empty_file_is_an_empty_database() {
    let (env, _sshd) = production();
    env.write("production/empty.db", "");
    pull(&env, &[]);
    assert_eq!(live(&env), ["data.db", "empty.db", "tenant_iris.db", "tenant_juno.db"]);
    // SQLite's backup writes the one page that an empty database has.
    assert_live_equals_production(&env, &["empty.db"]);
    assert_eq!(fs::metadata(env.production().join("empty.db")).expect("it stays").len(), 0);
    pull(&env, &[]).stderr_has("Already up to date (backup_");
}

#[test]
fn more_databases_than_one_connection_can_attach_arrive() {
    let (env, sshd) = TestEnv::with_server();
    let names: Vec<String> = (0..25).map(|i| format!("tenant_{i:02}.db")).collect();
    for (rows, name) in (1..).zip(&names) {
        databases::create(&env.production().join(name), rows, rows);
    }
    pull(&env, &[]);
    assert_eq!(live(&env), names);
    for (rows, name) in (1..).zip(&names) {
        assert_eq!(databases::count(&env.data().join(name), "items"), rows);
    }
    assert_eq!(sshd.connections(), 1);
}

#[test]
fn databases_in_every_text_encoding_arrive_together() {
    let (env, _sshd) = production();
    let encodings = ["UTF-8", "UTF-16le", "UTF-16be"];
    for encoding in encodings {
        let schema = "CREATE TABLE items (name); INSERT INTO items VALUES ('naïve 東京')";
        let path = env.production().join(format!("{encoding}.db"));
        databases::execute(&path, &format!("PRAGMA encoding = '{encoding}'; {schema}"));
    }
    pull(&env, &[]);
    for encoding in encodings {
        let name = format!("{encoding}.db");
        assert_live_equals_production(&env, &[&name, NAMES[0]]);
        let found = databases::query(&env.data().join(&name), "PRAGMA encoding");
        assert_eq!(found, rusqlite::types::Value::from(encoding.to_owned()));
    }
}

#[test]
fn start_wakes_a_stopped_machine_and_leaves_a_started_one_alone() {
    let (env, _sshd) = production();
    let states = |state: &str| {
        env.edit_world(|world| {
            world.apps.values_mut().flatten().for_each(|m| m.state = state.to_owned());
        });
    };
    let verbs = || -> Vec<String> {
        env.fly_invocations().iter().map(|argv| argv[..2].join(" ")).collect()
    };
    states("stopped");
    pull_fails(&env, &[], 1).stderr_has("hint: cargo xtask pull-db --start");
    pull_fails(&env, &["--start", "--region", "xyz"], 1).stderr_has("has no such machine");
    pull(&env, &["--start"]);
    assert!(verbs().contains(&"machine start".to_owned()), "{:?}", verbs());
    assert_live_equals_production(&env, &NAMES);
    let before = verbs().len();
    states("started");
    pull(&env, &["--start"]);
    assert_eq!(verbs()[before..], ["machine list", "ssh console"]);
}

#[test]
fn every_page_size_and_both_journal_modes_stay_what_they_are() {
    let (env, _sshd) = TestEnv::with_server();
    let sizes: Vec<u32> = (9..=16).map(|power| 1 << power).collect();
    for size in &sizes {
        for mode in ["wal", "delete"] {
            let path = env.production().join(format!("{mode}-{size}.db"));
            databases::execute(
                &path,
                &format!(
                    "PRAGMA page_size = {size}; PRAGMA journal_mode = {mode};
                     CREATE TABLE items (data); INSERT INTO items VALUES (zeroblob(100000))"
                ),
            );
        }
    }
    pull(&env, &[]);
    let json = snapshot(&env).json;
    let databases = json["databases"].as_array().expect("an array");
    for size in sizes {
        for (mode, version) in [("wal", 2), ("delete", 1)] {
            let name = format!("{mode}-{size}.db");
            assert_live_equals_production(&env, &[&name]);
            let header = fs::read(env.data().join(&name)).expect("it came");
            assert_eq!(header[18..20], [version, version], "journal mode of {name}");
            let found = databases.iter().find(|database| database["name"] == name);
            assert_eq!(found.map(|database| &database["page_size"]), Some(&size.into()));
        }
    }
}
