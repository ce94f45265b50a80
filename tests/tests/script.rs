//! `prepare-pull.sh` by hand, as an operator runs it, in the shells that
//! production images have.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};
use tests::databases::{self, STRANGE_NAMES};
use tests::env::TestEnv;
use tests::long::depth;
use tests::output::Output;
use tests::process::{Running, command, wait_for};
use tests::sets::{assert_same, content};
use tests::shells::{self, find};
use tests::store::fingerprint;

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops-remote/prepare-pull.sh")
}

struct Shell {
    name: &'static str,
    /// The program, and what makes it behave like a `sh`.
    argv: Vec<PathBuf>,
    path: OsString,
}

/// A machine with a shell, its PATH, and a data directory.
struct Server {
    env: TestEnv,
    shell: Shell,
}

impl Server {
    /// The same machine with each of the shells.
    fn each() -> Vec<Server> {
        ["dash", "bash", "busybox"].into_iter().map(Server::new).collect()
    }

    fn new(name: &'static str) -> Server {
        let env = TestEnv::new();
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let (argv, path) = match name {
            "bash" => (vec![find("bash"), "--posix".into()], inherited),
            "busybox" => {
                let bin = shells::busybox(&env.path(""), &["sqlite3"]);
                (vec![bin.join("sh")], bin.into_os_string())
            }
            other => (vec![find(other)], inherited),
        };
        Server { env, shell: Shell { name, argv, path } }
    }

    fn data(&self) -> PathBuf {
        self.env.production()
    }

    /// The script in this shell, without its argument.
    fn script(&self) -> Command {
        self.command(&script())
    }

    /// What a client sends.
    fn pull_script(&self) -> Command {
        self.command(&shells::pull_script(&self.env.path(".")))
    }

    fn command(&self, script: &Path) -> Command {
        let mut command = self.env.command(&self.shell.argv[0]);
        command.args(&self.shell.argv[1..]).arg(script);
        command.env("PATH", &self.shell.path).env("TMPDIR", self.env.path("tmp"));
        command
    }

    #[track_caller]
    fn run(&self) -> Output {
        Running::start(self.script().arg(self.data())).wait()
    }

    /// The directory into which the archive of a run was unpacked.
    #[track_caller]
    fn unpack(&self, output: &Output) -> PathBuf {
        let text = output.stdout();
        let path = text.strip_prefix("---ARCHIVE---\n").and_then(|rest| rest.split('\n').next());
        let archive = Path::new(path.expect("the archive's path is announced"));
        assert_eq!(archive.parent(), Some(&*self.env.path("tmp")), "{output}");
        let mode = fs::metadata(archive).expect("the archive is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let to = self.env.path("unpacked");
        drop(fs::remove_dir_all(&to));
        fs::create_dir(&to).expect("make a directory");
        let status = command("tar").arg("-xzf").arg(archive).arg("-C").arg(&to).status();
        assert!(status.is_ok_and(|status| status.success()), "tar reads the archive");
        fs::remove_file(archive).expect("remove the archive");
        to
    }

    /// What is left below TMPDIR.
    fn left(&self) -> Vec<String> {
        databases::files(&self.env.path("tmp"))
    }

    /// `dd` that stops before it copies, until the file `go` is there.
    fn block(&mut self) {
        let body = format!(
            "case \" $TEST_BLOCK $* \" in \" yes \"*' of=0.db '*)\n: >'{}'\n\
             while [ ! -e '{}' ]; do sleep 0.01; done ;; esac\nexec '{}' \"$@\"",
            self.env.path("blocked").display(),
            self.env.path("go").display(),
            find("dd").display(),
        );
        let bin = self.env.path("blocking-bin");
        shells::script(&bin, "dd", &body);
        let paths = std::env::split_paths(&self.shell.path).collect::<Vec<_>>();
        let paths = std::iter::once(bin).chain(paths);
        self.shell.path = std::env::join_paths(paths).expect("no colon");
    }

    /// Starts a run that is in the middle of its work.
    #[track_caller]
    fn start_blocked(
        &self,
        mut script: Command,
        start: impl FnOnce(&mut Command) -> Running,
    ) -> Running {
        drop(fs::remove_file(self.env.path("blocked")));
        let mut running = start(script.arg(self.data()).env("TEST_BLOCK", "yes"));
        running.wait_for("the copying to begin", |_| self.env.path("blocked").exists());
        assert_eq!(self.left().len(), 1, "{:?}", self.left());
        running
    }

    fn request(&self) -> String {
        let directory = self.data().display().to_string();
        format!("nonce 00\nmode stream\ndirectory {directory}\ninclude *.db\nend\n")
    }
}

fn signal(running: &Running, signal: Signal) {
    let pid = i32::try_from(running.id()).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, signal).expect("it runs");
}

/// A script around a command, which it has as its arguments.
fn wrapped(script: &str, command: &Command) -> Command {
    let mut outer = tests::process::command("/bin/sh");
    outer.args(["-c", script, "sh"]).arg(command.get_program()).args(command.get_args());
    outer.current_dir(command.get_current_dir().expect("the repository")).env_clear();
    outer.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    outer
}

#[test]
fn an_operator_gets_an_archive_and_the_names() {
    for server in Server::each() {
        databases::create(&server.data().join("data.db"), 30, 1);
        databases::create(&server.data().join("tenant_iris.db"), 300, 2);
        databases::execute(&server.data().join("data.db"), "PRAGMA journal_mode = DELETE");
        server.env.write("production/notes.txt", "not a database");
        let before = fingerprint(&server.data());
        let output = server.run().ok().stderr_has("the archive holds production data");
        let text = server.env.normalize(&output.stdout());
        let (head, tail) = text.split_once(".tar.gz\n").expect("an archive");
        assert!(head.starts_with("---ARCHIVE---\n<ROOT>/tmp/xtask-databases-"), "{output}");
        assert_eq!(tail, "---FILES---\ndata.db\ntenant_iris.db\n---DONE---\n");
        let unpacked = server.unpack(&output);
        assert_same(&content(&unpacked), &content(&server.data()));
        assert_eq!(databases::files(&unpacked), ["data.db", "tenant_iris.db"]);
        assert_eq!(server.left(), [""; 0], "{}", server.shell.name);
        let mut after = fingerprint(&server.data());
        after.retain(|name, _| !name.ends_with("-wal") && !name.ends_with("-shm"));
        assert_eq!(after, before, "production is only read");
    }
}

#[test]
fn every_name_that_a_file_system_allows_is_copied() {
    let long = format!("{}.db", "long".repeat(50));
    let mut names: Vec<&[u8]> = vec![
        b"new\nline.db",
        b"\n.shell touch pwned #.db",
        b"$(touch pwned).db",
        b"`touch pwned`.db",
        b"back\\slash\\n.db",
        b"\xff\xfe not UTF-8.db",
        b"file:x?mode=ro.db",
        b"-n.db",
        b"--.db",
        b"%s.db",
        b"tab\t.db",
        b" & ; | < > ( ) {}.db",
        b"'; ATTACH 'x.db",
        b"~.db",
        b"CON.DB.db",
        long.as_bytes(),
    ];
    names.extend(STRANGE_NAMES.iter().map(|name| name.as_bytes()));
    names.sort_unstable();
    for server in Server::each() {
        let plain = server.env.path("plain.db");
        let mut wanted = Vec::new();
        for (seed, name) in (1..).zip(&names) {
            databases::create(&plain, 10, seed);
            wanted.push(databases::content(&plain));
            fs::rename(&plain, server.data().join(OsStr::from_bytes(name))).expect("rename");
        }
        let output = server.run().ok();
        let listed = [b"---FILES---\n", &names.join(&b'\n')[..], b"\n---DONE---\n"].concat();
        assert!(output.stdout.ends_with(&listed), "{output}");
        let unpacked = server.unpack(&output);
        for (name, wanted) in names.iter().zip(wanted) {
            fs::rename(unpacked.join(OsStr::from_bytes(name)), &plain).expect("it was copied");
            assert!(databases::content(&plain) == wanted, "{:?}", OsStr::from_bytes(name));
            fs::remove_file(&plain).expect("remove");
        }
        assert_eq!(databases::files(&unpacked), [""; 0], "nothing else was packed");
        assert_eq!(server.left(), [""; 0]);
    }
}

#[test]
fn databases_of_every_kind_are_copied() {
    for server in Server::each() {
        let data = server.data();
        fs::write(data.join("empty.db"), "").expect("write");
        databases::execute(&data.join("nothing.db"), "PRAGMA user_version = 0; VACUUM");
        for (name, first) in [
            ("small.db", "PRAGMA page_size = 512"),
            ("large.db", "PRAGMA page_size = 65536"),
            ("vacuum.db", "PRAGMA auto_vacuum = FULL"),
        ] {
            let rows = "CREATE TABLE items (a); INSERT INTO items VALUES ('ä'), (zeroblob(9000))";
            databases::execute(&data.join(name), &format!("{first}; {rows}"));
        }
        // The rows of a killed program are in the -wal only.
        databases::create(&server.env.path("killed.db"), 10, 1);
        let writer = Connection::open(server.env.path("killed.db")).expect("open");
        databases::insert(&writer, 50, 2);
        for end in ["", "-wal"] {
            let name = format!("killed.db{end}");
            fs::copy(server.env.path(&name), data.join(&name)).expect("copy");
        }
        drop(writer);
        let unpacked = server.unpack(&server.run().ok());
        for name in ["empty.db", "nothing.db"] {
            assert_eq!(databases::count(&unpacked.join(name), "sqlite_schema"), 0, "{name}");
        }
        databases::assert_same(&unpacked.join("killed.db"), &server.env.path("killed.db"));
        for name in ["small.db", "large.db", "vacuum.db"] {
            databases::assert_same(&unpacked.join(name), &data.join(name));
        }
    }
}

#[test]
fn databases_of_several_groups_keep_their_names() {
    for server in Server::each() {
        for number in 0..depth(12, 60) {
            databases::create(&server.data().join(format!("tenant_{number}.db")), number, number);
        }
        let unpacked = server.unpack(&server.run().ok());
        assert_same(&content(&unpacked), &content(&server.data()));
    }
}

#[test]
fn what_is_wrong_is_named() {
    for mut server in Server::each() {
        let empty = server.data().display().to_string();
        let failed = |output: Output, text: &str| {
            output.fails(1).stdout_is("").stderr_has(&format!("prepare-pull: {text}"));
            assert_eq!(server.left(), [""; 0]);
        };
        failed(server.run(), &format!("no database in {empty} matches"));
        let missing = Running::start(server.script().arg("/no such/directory")).wait();
        failed(missing, "there is no directory /no such/directory on the server");
        databases::create(&server.data().join("a.db"), 10, 1);
        server.env.write("production/junk.db", &"this is not a database ".repeat(200));
        failed(server.run(), &format!("{empty}/junk.db has no SQLite header"));
        let without = match server.shell.name {
            "busybox" => {
                fs::create_dir(server.env.path("bare")).expect("make a directory");
                shells::busybox(&server.env.path("bare"), &[])
            }
            _ => shells::debian(&server.env.path(""), &["sqlite3"]),
        };
        server.shell.path = without.into_os_string();
        let output = server.run().fails(1).stdout_is("");
        output.stderr_is("prepare-pull: sqlite3 is not installed on the server\n");
    }
}

#[test]
fn a_signal_leaves_nothing_behind() {
    for mut server in Server::each() {
        databases::create(&server.data().join("a.db"), 10, 1);
        server.block();
        for (name, code) in
            [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::INT, 130), (Signal::PIPE, 141)]
        {
            let running = server.start_blocked(server.script(), Running::start);
            signal(&running, name);
            running.wait().fails(code).stdout_is("");
            assert_eq!(server.left(), [""; 0], "{} after {name:?}", server.shell.name);
        }
    }
}

#[test]
fn a_client_that_is_gone_leaves_nothing_behind() {
    for mut server in Server::each() {
        databases::create(&server.data().join("a.db"), 10, 1);
        server.block();
        server.env.write("request", &server.request());
        // The client says no more, and its end comes while the copying goes on.
        let client = "{ cat ../request; until [ -e ../gone ]; do sleep 0.01; done; } | \
                      XTASK_REQUEST=1 \"$@\"";
        let begin = |command: &mut Command| Running::start(&mut wrapped(client, command));
        let running = server.start_blocked(server.pull_script(), begin);
        server.env.write("gone", "");
        running.wait().fails(143).stdout_has("\nXTASK-DB-STATUS 1 00 copying 1 ");
        assert_eq!(server.left(), [""; 0], "{}", server.shell.name);
        let cut = server.request().replace("end\n", "");
        let mut half = server.pull_script();
        Running::start_with_stdin(half.env("XTASK_REQUEST", "1"), cut)
            .wait()
            .fails(1)
            .stdout_has("\nXTASK-DB-FAILED 1 00 request ");
    }
}

#[test]
fn a_reader_that_is_gone_leaves_nothing_behind() {
    for server in Server::each() {
        // More than a pipe holds, and nothing that a compressor makes small.
        let rows = "WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 40)
                    INSERT INTO t SELECT randomblob(50000) FROM n";
        databases::execute(&server.data().join("a.db"), &format!("CREATE TABLE t (a); {rows}"));
        server.env.write("request", &server.request());
        // Whoever has a FIFO open both ways never sees its end.
        let pipe = "mkfifo fifo && exec 9<>fifo && cat ../request >&9 && \
                    XTASK_REQUEST=1 \"$@\" <&9 | head -c 1000 | grep -c 'XTASK-DB 1 00'";
        let mut outer = wrapped(pipe, &server.pull_script());
        Running::start(&mut outer).wait().ok().stdout_is("1\n");
        assert_eq!(server.left(), [""; 0], "{}", server.shell.name);
    }
}

#[test]
fn what_a_killed_run_left_is_removed_and_a_living_one_is_left_alone() {
    for mut server in Server::each() {
        databases::create(&server.data().join("a.db"), 10, 1);
        server.block();
        let mut killed = server.start_blocked(server.script(), Running::start);
        killed.kill();
        drop(killed);
        assert_eq!(server.left().len(), 1);
        server.unpack(&server.run().ok());
        assert_eq!(server.left(), [""; 0], "{}", server.shell.name);
        let living = server.start_blocked(server.script(), Running::start);
        server.unpack(&server.run().ok());
        assert_eq!(server.left().len(), 1);
        server.env.write("go", "");
        let unpacked = server.unpack(&living.wait().ok());
        databases::assert_same(&unpacked.join("a.db"), &server.data().join("a.db"));
    }
}

const INSERT: &str = "INSERT INTO items (key) VALUES (hex(randomblob(16)))";

/// Commits to each of these databases in turn, until `work` is done.
fn while_written<T>(paths: &[PathBuf], work: impl FnOnce() -> T) -> T {
    let open = |path: &PathBuf| {
        let connection = Connection::open(path).expect("open");
        connection.execute_batch("PRAGMA synchronous = OFF").expect("faster");
        connection.busy_timeout(Duration::from_secs(60)).expect("a timeout");
        connection
    };
    let (done, begun) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let connections: Vec<Connection> = paths.iter().map(open).collect();
            while !done.load(Ordering::SeqCst) {
                for connection in &connections {
                    connection.execute_batch(INSERT).expect("insert a row");
                }
                begun.store(true, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(5));
            }
        });
        wait_for("the writer", || begun.load(Ordering::SeqCst).then_some(()));
        let result = work();
        done.store(true, Ordering::SeqCst);
        result
    })
}

#[test]
fn a_copy_of_what_is_written_ends_and_is_of_one_moment() {
    for server in Server::each() {
        let paths = ["a.db", "b.db"].map(|name| server.data().join(name));
        // Large enough that copying one after the other would show.
        let rows = depth(10_000, 60_000);
        databases::create(&paths[0], rows, 1);
        databases::create(&paths[1], rows, 1);
        for mode in ["WAL", "DELETE"] {
            paths.iter().for_each(|path| {
                databases::execute(path, &format!("PRAGMA journal_mode = {mode}"));
            });
            let output = while_written(&paths, || server.run());
            let unpacked = server.unpack(&output.ok());
            let counts = ["a.db", "b.db"].map(|name| {
                databases::assert_whole(&unpacked.join(name));
                databases::count(&unpacked.join(name), "items")
            });
            let skew = (counts[0] - counts[1]).abs();
            assert!(counts[0] > i64::from(rows) && skew <= 2, "{mode}: {counts:?}");
        }
    }
}

#[test]
fn a_pull_works_in_each_shell() {
    for server in Server::each() {
        let env = &server.env;
        databases::create(&server.data().join("data.db"), 30, 1);
        databases::create(&server.data().join("Größe 'x'.db"), 30, 2);
        let bin = env.path("sh-bin");
        let exec = server.shell.argv.iter().map(|word| format!("'{}' ", word.display()));
        shells::script(&bin, "sh", &format!("exec {}\"$@\"", exec.collect::<String>()));
        let mut path = bin.into_os_string();
        path.push(":");
        path.push(&server.shell.path);
        let via = format!("local:{}", server.data().display());
        let mut pull = env.xtask_command(["pull-db", "--via", &via]);
        Running::start(pull.env("PATH", path)).wait().ok();
        assert_same(&content(&env.data()), &content(&server.data()));
    }
}
