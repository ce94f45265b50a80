//! A pull as another user than the app's: nothing appears, stays or changes beside
//! production's databases, and the app can write at every moment.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{self, TryRecvError};
use std::thread;

use tests::databases;
use tests::env::TestEnv;
use tests::process::{Running, command, wait_for};
use tests::shells::{self, find};

/// The app's user, whose group may write as well.
const APP: u32 = 1000;
/// Who pulls: root, the app's user, and another one of its group.
const PULLERS: [u32; 3] = [0, APP, 2312];

struct Production {
    env: TestEnv,
}

/// How a database is found.
#[derive(Clone, Copy, Debug)]
enum Found {
    Closed,
    Open,
    /// Its app was killed, and has left what it had committed beside it.
    Killed,
}

impl Production {
    /// None where this account cannot be somebody else.
    fn new(mode: u32) -> Option<Production> {
        if !rustix::process::geteuid().is_root() {
            let _ = writeln!(std::io::stderr(), "skipped: only root can be another user");
            return None;
        }
        let env = TestEnv::new();
        // Not only root may come through it.
        set_mode(&env.path("."), 0o711);
        chown(env.production(), Some(APP), Some(APP)).expect("give it away");
        set_mode(&env.production(), mode);
        for uid in PULLERS {
            let own = env.path(format!("of-{uid}"));
            fs::create_dir(&own).expect("make a directory");
            chown(own, Some(uid), Some(APP)).expect("give it away");
        }
        let production = Production { env };
        production.app("data.db", "PRAGMA journal_mode = WAL; CREATE TABLE t (a)", Found::Closed);
        production.app("old.db", "CREATE TABLE t (a)", Found::Closed);
        for name in ["data.db", "old.db"] {
            set_mode(&production.env.production().join(name), 0o664);
        }
        Some(production)
    }

    fn run_as(&self, uid: u32, program: &Path) -> Command {
        let mut command = self.env.command(find("setpriv"));
        command
            .args([format!("--reuid={uid}"), format!("--regid={APP}"), "--clear-groups".into()])
            .arg(program)
            .current_dir("/")
            .env("TMPDIR", self.env.path(format!("of-{uid}")));
        command
    }

    /// The app: it runs this, and then it is as it is to be found.
    fn app(&self, name: &str, sql: &str, found: Found) -> Option<Child> {
        let mut sqlite3 = self.run_as(APP, &find("sqlite3"));
        sqlite3.arg("-bail").arg(self.env.production().join(name));
        let mut child =
            sqlite3.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sqlite3 starts");
        let done = self.env.path("of-1000/done");
        let said = format!("{sql};\n.shell : >'{}'\n", done.display());
        let mut stdin = child.stdin.take().expect("it is a pipe");
        stdin.write_all(said.as_bytes()).expect("it reads");
        wait_for("the app to have written", || done.exists().then_some(()));
        fs::remove_file(done).expect("it is there");
        match found {
            Found::Closed => drop(stdin),
            Found::Killed => child.kill().expect("it is ours"),
            Found::Open => {
                child.stdin = Some(stdin);
                return Some(child);
            }
        }
        child.wait().expect("it is ours");
        None
    }

    /// All that is beside the databases, and whose it is.
    fn look(&self) -> BTreeMap<PathBuf, (u32, u32, u32, u64)> {
        let entries = fs::read_dir(self.env.production()).expect("read").map(|entry| {
            let entry = entry.expect("read");
            let found = entry.metadata().expect("it is there");
            (entry.path(), (found.uid(), found.gid(), found.mode(), found.ino()))
        });
        entries.collect()
    }

    fn script(&self, uid: u32) -> Command {
        for part in ["find.sh", "copy.sh", "prepare-pull.sh"] {
            let script = format!("{}/../ops-remote/{part}", env!("CARGO_MANIFEST_DIR"));
            let copy = self.env.path(part);
            fs::copy(script, &copy).expect("copy");
            set_mode(&copy, 0o644);
        }
        let mut command = self.run_as(uid, &find("dash"));
        command.arg(self.env.path("prepare-pull.sh")).arg(self.env.production());
        command
    }

    /// How many rows arrive of each.
    fn pull(&self, uid: u32) -> [i64; 2] {
        let output = Running::start(&mut self.script(uid)).wait().ok();
        let text = output.stdout();
        let archive = text.lines().nth(1).expect("the archive's path");
        let to = self.env.path("unpacked");
        let _ = fs::remove_dir_all(&to);
        fs::create_dir(&to).expect("make a directory");
        let tar = command("tar").args(["-xzf", archive, "-C"]).arg(&to).status();
        assert!(tar.is_ok_and(|status| status.success()), "tar reads the archive");
        fs::remove_file(archive).expect("remove the archive");
        ["data.db", "old.db"].map(|name| {
            databases::assert_whole(&to.join(name));
            databases::count(&to.join(name), "t")
        })
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set a mode");
}

#[test]
fn whoever_pulls_leaves_nothing_beside_a_database_and_the_app_can_write() {
    for mode in [0o775, 0o2775] {
        let Some(production) = Production::new(mode) else { return };
        let mut rows = 0;
        for found in [Found::Closed, Found::Killed, Found::Open] {
            for uid in PULLERS {
                let app = production.app("data.db", "INSERT INTO t VALUES (1)", found);
                rows += 1;
                let before = production.look();
                let context = format!("{mode:o}, {found:?}, user {uid}");
                assert_eq!(production.pull(uid), [rows, 0], "{context}");
                assert!(production.look() == before, "{context}: {:?}", production.look());
                // The one that has it open, and one that comes now.
                if let Some(mut app) = app {
                    let mut stdin = app.stdin.take().expect("it is open");
                    stdin.write_all(b"INSERT INTO t VALUES (2);\n").expect("it reads");
                    drop(stdin);
                    assert!(app.wait().is_ok_and(|status| status.success()), "{context}");
                    rows += 1;
                }
                production.app("data.db", "INSERT INTO t VALUES (3)", Found::Closed);
                rows += 1;
            }
        }
    }
}

#[test]
fn a_pull_that_is_killed_leaves_nothing_beside_a_database_either() {
    let Some(production) = Production::new(0o775) else { return };
    let bin = production.env.path("held-bin");
    for (program, call) in
        [("dd", "*' of=0.db '*"), ("dd", "*' of=0.db-wal '*"), ("sqlite3", "*' 0.db '*")]
    {
        for uid in PULLERS {
            let held = production.env.path(format!("of-{uid}/held"));
            let app = production.app("data.db", "INSERT INTO t VALUES (1)", Found::Open);
            let before = production.look();
            let body = format!(
                "case \" $* \" in {call}) : >'{}'; exec sleep 1000 ;; esac\nexec '{}' \"$@\"",
                held.display(),
                find(program).display()
            );
            let _ = fs::remove_dir_all(&bin);
            shells::script(&bin, program, &body);
            let mut script = production.script(uid);
            let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("a PATH"));
            let mut running = Running::start(script.env("PATH", path));
            running.wait_for("it to be held", |_| held.exists());
            running.kill();
            drop(running);
            fs::remove_file(held).expect("it is there");
            assert!(production.look() == before, "{program}, user {uid}");
            drop(app.map(|mut app| app.wait()));
            production.app("data.db", "INSERT INTO t VALUES (1)", Found::Closed);
        }
    }
}

#[test]
fn an_app_that_writes_all_the_time_never_fails_and_its_rows_arrive() {
    let Some(production) = Production::new(0o775) else { return };
    let mut pulled = 0;
    for uid in PULLERS {
        // A checkpoint comes now and then, and not faster than a database can be copied.
        let begin = "PRAGMA synchronous = OFF; PRAGMA wal_autocheckpoint = 20000";
        let mut app = production.app("data.db", begin, Found::Open).expect("it is open");
        let mut stdin = app.stdin.take().expect("it is a pipe");
        let mut stdout = BufReader::new(app.stdout.take().expect("it is a pipe")).lines();
        let committed = AtomicU64::new(0);
        let (alive, gone) = mpsc::channel::<()>();
        thread::scope(|scope| {
            // Also where a pull fails.
            let _alive = alive;
            let count = &committed;
            scope.spawn(move || {
                while gone.try_recv() == Err(TryRecvError::Empty) {
                    stdin
                        .write_all(b"INSERT INTO t VALUES (1);\nSELECT 'done';\n")
                        .expect("it reads");
                    while stdout.next().expect("it answers").expect("it is text") != "done" {}
                    count.fetch_add(1, SeqCst);
                }
            });
            for _ in 0..3 {
                let before = committed.load(SeqCst);
                wait_for("a commit", || (committed.load(SeqCst) > before).then_some(()));
                let rows = production.pull(uid)[0];
                assert!(rows > pulled, "user {uid}: {rows} rows after {pulled}");
                pulled = rows;
            }
        });
        assert!(app.wait().is_ok_and(|status| status.success()), "user {uid}: a write failed");
    }
}

/// Each time the main file has been copied, the app begins its -wal anew.
#[test]
fn what_is_never_still_is_pinned_by_its_owner_and_refused_to_others() {
    let Some(production) = Production::new(0o775) else { return };
    let env = &production.env;
    let _app = production.app("data.db", "INSERT INTO t VALUES (1)", Found::Open);
    let sql = "PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t VALUES (2)";
    let body = format!(
        "'{}' \"$@\" || exit; case \" $* \" in *'/data.db of=0.db '*) \"$0.app\" ;; esac",
        find("dd").display()
    );
    shells::script(&env.path("bin"), "dd", &body);
    let write = format!(
        "[ $(id -u) -ne 0 ] || set -- setpriv --reuid={APP} --regid={APP} --clear-groups\n\
         exec \"$@\" '{}' '{}' '{sql}' >/dev/null",
        find("sqlite3").display(),
        env.production().join("data.db").display()
    );
    shells::script(&env.path("bin"), "dd.app", &write);
    let before = production.look();
    env.local_pull(&[])
        .fails(1)
        .stderr_has(&format!(
            "{}/data.db is written faster than it can be",
            env.production().display()
        ))
        .stderr_has("its owner, user 1000\n")
        .stderr_has("hint: connect as that user, or pull while less is written\n");
    assert!(production.look() == before);
    let path = format!("{}:{}", env.path("bin").display(), std::env::var("PATH").expect("a PATH"));
    let output = Running::start(production.script(APP).env("PATH", path)).wait().ok();
    assert!(production.look() == before, "{output}");
}

/// Who may not read something is told what, and as whom to come; nothing is said to be
/// missing, or to be left out.
#[test]
fn what_a_user_may_not_read_is_named() {
    let Some(production) = Production::new(0o775) else { return };
    let env = &production.env;
    let program = env.path("xtask");
    // By another process: a test that forks meanwhile would have it open for writing.
    let copied = command("cp").arg(tests::binaries::xtask()).arg(&program).status();
    assert!(copied.is_ok_and(|status| status.success()), "cp copies");
    for directory in ["repo", "repo/xtask", "home"] {
        chown(env.path(directory), Some(2312), Some(APP)).expect("give it away");
    }
    let pull = || {
        let mut command = production.run_as(2312, &program);
        command.args(["pull-db", "--via", &format!("local:{}", env.production().display())]);
        command.env("CARGO_MANIFEST_DIR", env.path("repo/xtask"));
        Running::start(command.current_dir(env.repo())).wait()
    };
    pull().ok();
    let data = env.production().join("data.db");
    let (file, directory) = (data.display().to_string(), env.production().display().to_string());
    let hint =
        "hint: connect as the app's user or as root, such as with --via ssh:root@HOST, or let";
    let refused = |path: &Path, mode: u32, said: &str| {
        let before = fs::metadata(path).expect("it is there").permissions();
        set_mode(path, mode);
        pull().fails(1).stderr_has(&format!("error: user 2312 may not {said}\n")).stderr_has(hint);
        fs::set_permissions(path, before).expect("set a mode");
    };
    refused(&data, 0o600, &format!("read {file}"));
    refused(&env.production(), 0o700, &format!("enter {directory}"));
    refused(&env.production(), 0o711, &format!("list {directory}"));
    let _app = production.app("data.db", "INSERT INTO t VALUES (1)", Found::Open);
    refused(&env.production().join("data.db-wal"), 0o600, &format!("read {file}-wal"));
    pull().ok();
    // The same here: what another user has made must not be removed.
    let state = env.data().join(".xtask/state.json");
    chown(&state, Some(0), Some(0)).expect("take it");
    pull()
        .fails(1)
        .stderr_has(&format!("failed to open file `{}`: ", state.display()))
        .stderr_has("hint: this user has no permission: run the command as the owner of that file (ls -l), or change")
        .stderr_lacks("remove ");
}
