//! Whatever dies on the server, and whenever: the client says that it failed and
//! changes nothing, production stays as it is, and no copy stays behind for
//! longer than until the next pull.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tests::databases;
use tests::env::TestEnv;
use tests::faults::{can_trace, say};
use tests::long::{depth, long, spread};
use tests::process::{Running, command, find_by_environment, wait_for};
use tests::pull::{self, NAMES, assert_tidy, production};
use tests::server::Sshd;
use tests::sets::{Set, assert_same, change, content, developer, pull};
use tests::shells::{self, find};
use tests::store;

const SECRET: &str = "hunter2-hunter2";
/// How the one column of it begins that the rule empties.
const KEY: &str = "hunter2-hunter2-key-";
const RULE: &str = "[[sanitize]]\ntable = 'export_settings'\nset = { private_key = 'NULL' }\n";

/// All that the script starts.
const PROGRAMS: [&str; 19] = [
    "sh",
    "sqlite3",
    "tar",
    "zstd",
    "sha256sum",
    "dd",
    "gzip",
    "mktemp",
    "cat",
    "sed",
    "od",
    "ls",
    "df",
    "tr",
    "rm",
    "head",
    "mkfifo",
    "getconf",
    "sort",
];
/// The programs among them whose output a later step reads.
const WRITERS: [&str; 4] = ["sqlite3", "tar", "sha256sum", "dd"];
/// What the shell does between the programs: one of them is each of its steps.
const STEPS: [&str; 6] = ["clone", "wait4", "write", "openat", "pipe2", "close"];

/// A server whose programs can be made to fail.
struct Server {
    env: TestEnv,
    _sshd: Sshd,
    bin: PathBuf,
    /// The rule that removes a secret; none.
    rule: &'static str,
    /// The production's databases, with the time of their last change.
    before: BTreeMap<PathBuf, (Vec<u8>, SystemTime)>,
}

impl Server {
    fn new(rule: &'static str) -> Server {
        let env = TestEnv::new();
        let bin = shells::debian(&env.path(""), &[]);
        let sshd = env.start_server(&env.server_environment().set("PATH", &bin));
        for (seed, name) in (1..).zip(NAMES) {
            let path = env.production().join(name);
            databases::create(&path, 400, seed);
            databases::create_secrets(&path, 5, SECRET);
        }
        env.db_toml(rule);
        pull::pull(&env, &[]);
        change(&env.production().join(NAMES[0]));
        fs::create_dir(env.path("calls")).expect("make a directory");
        let before = files(&env);
        Server { env, _sshd: sshd, bin, rule, before }
    }

    /// Puts a script in the place of a program; `at` the nth time it is started
    /// does `what` first, which may not come back.
    fn replace(&self, program: &str, nth: usize, what: &str) {
        let calls = self.env.path("calls").join(program);
        let _ = fs::remove_file(&calls);
        let body = format!(
            "printf x >>'{calls}'\n[ \"$(wc -c <'{calls}')\" -ne {nth} ] || {{ {what}\n}}\nexec '{}' \"$@\"",
            real(program).display(),
            calls = calls.display(),
        );
        fs::remove_file(self.bin.join(program)).expect("it is there");
        shells::script(&self.bin, program, &body);
    }

    fn repair(&self, program: &str) {
        let path = self.bin.join(program);
        fs::remove_file(&path).expect("it is there");
        std::os::unix::fs::symlink(real(program), &path).expect("link");
    }

    /// Whether nothing of a session runs any more.
    fn is_idle(&self) -> bool {
        let mark = format!("TMPDIR={}", self.env.path("tmp").display());
        find_by_environment(&mark).is_empty()
    }

    /// How often a pull starts each program, and the shell takes each step.
    fn count(&self) -> (BTreeMap<&'static str, usize>, BTreeMap<&'static str, usize>) {
        let trace = self.env.path("trace");
        for program in PROGRAMS {
            self.replace(program, 0, ":");
        }
        let record = format!("{}; }}; {{ :", strace(&format!("-o '{}'", trace.display()), "sh"));
        self.replace("sh", 1, &record);
        pull::pull(&self.env, &[]);
        change(&self.env.data().join(NAMES[0]));
        let started = |program| {
            let calls = self.env.path("calls").join(program);
            (program, fs::metadata(calls).map_or(0, |calls| calls.len() as usize))
        };
        let starts = PROGRAMS.into_iter().map(started).collect();
        PROGRAMS.into_iter().for_each(|program| self.repair(program));
        let trace = fs::read_to_string(trace).expect("read");
        let taken = |step| {
            let call = format!("{step}(");
            (step, trace.lines().filter(|line| line.starts_with(&call)).count())
        };
        (starts, STEPS.into_iter().map(taken).collect())
    }

    /// A pull during which a program fails. It fails, too, and changes nothing, or
    /// it brings all; whether it failed.
    fn pull(&self, program: &str, nth: usize, what: &str) -> bool {
        let env = &self.env;
        self.replace(program, nth, what);
        let before = (store::fingerprint(&env.data()), store::kinds(&env.data()));
        let output = env.xtask(["pull-db"]);
        self.repair(program);
        let failed = output.code != Some(0);
        let told = format!("{program} {nth}: {what}\n{output}");
        if failed {
            assert_eq!(output.code, Some(1), "{told}");
            assert!(output.stderr.contains("error: "), "{told}");
            assert!(!output.stderr.contains("panicked"), "{told}");
            let after = (store::fingerprint(&env.data()), store::kinds(&env.data()));
            assert!(before == after, "something changed\n{told}");
        } else {
            assert!(content(&env.data()) == self.expected(), "{told}");
            change(&env.data().join(NAMES[0]));
        }
        let secrets = store::files_with(&env.data(), KEY);
        assert!(secrets.is_empty() || self.rule.is_empty(), "a secret is here\n{told}");
        assert_eq!(store::left_behind(&env.data()), [""; 0], "{told}");
        assert!(files(env) == self.before, "production changed\n{told}");
        wait_for("at most the copies of this pull to be there", || {
            (databases::files(&env.path("tmp")).len() <= 1).then_some(())
        });
        wait_for(&format!("all that the server started to end\n{told}"), || {
            self.is_idle().then_some(())
        });
        failed
    }

    /// What a pull of production must bring.
    fn expected(&self) -> Set {
        let directory = self.env.path("expected");
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir(&directory).expect("make a directory");
        for name in NAMES {
            let copy = directory.join(name);
            fs::copy(self.env.production().join(name), &copy).expect("copy");
            if !self.rule.is_empty() {
                databases::execute(&copy, "UPDATE export_settings SET private_key = NULL");
            }
        }
        content(&directory)
    }
}

fn real(program: &str) -> PathBuf {
    find(if program == "sh" { "dash" } else { program })
}

/// Goes on as the program under strace.
fn strace(flags: &str, program: &str) -> String {
    format!("exec strace -qq {flags} '{}' \"$@\"", real(program).display())
}

fn inject(program: &str, syscall: &str, fault: &str) -> String {
    strace(&format!("-o /dev/null -e trace={syscall} -e inject={syscall}:{fault}"), program)
}

/// The databases of production by bytes and time. What a killed reader leaves
/// beside them holds nothing.
fn files(env: &TestEnv) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let names = databases::files(&env.production()).into_iter();
    let paths =
        names.filter(|name| !name.ends_with("-shm")).map(|name| env.production().join(name));
    let read = |path: PathBuf| {
        let changed = fs::metadata(&path).and_then(|metadata| metadata.modified());
        let bytes = fs::read(&path).expect("read");
        (path, (bytes, changed.expect("it has a time")))
    };
    paths.map(read).filter(|(_, (bytes, _))| !bytes.is_empty()).collect()
}

/// All from 1 to `count`, or some of them where there is no time.
fn some(count: usize, sample: usize) -> Vec<usize> {
    spread(count, sample).into_iter().map(|i| i + 1).collect()
}

/// Kills the session that serves this pull, not what runs in it.
const KILL_SESSION: &str = "p=$$; until case $(ps -o comm= -p $p) in sshd*) ;; *) false ;; esac; do
    p=$(ps -o ppid= -p $p | tr -d ' '); done; kill -KILL $p";

/// Tries each of these: a program, which of its starts, and what happens then.
fn try_all(server: &Server, what: &str, trials: &[(&str, usize, String)]) {
    let failed = trials.iter().filter(|(program, nth, what)| server.pull(program, *nth, what));
    let failed = failed.count();
    pull::pull(&server.env, &[]);
    say(&format!("{what}: {} faults, of which {failed} failed the pull", trials.len()));
}

#[test]
fn whichever_step_of_the_script_is_its_last_changes_nothing_here() {
    if !can_trace() {
        return;
    }
    let server = Server::new(RULE);
    let mut trials = Vec::new();
    for (step, count) in server.count().1 {
        assert!(count > 0, "no {step}");
        let at = |nth| ("sh", 1, inject("sh", step, &format!("signal=KILL:when={nth}")));
        trials.extend(some(count, 1).into_iter().map(at));
    }
    for program in ["sqlite3", "tar", "rm"] {
        trials.push((program, 1, KILL_SESSION.to_owned()));
    }
    try_all(&server, "server's script and session", &trials);
}

#[test]
fn a_disk_that_is_full_for_a_moment_takes_nothing_away() {
    if !can_trace() {
        return;
    }
    // Without a rule, nothing else would miss what was not copied.
    let server = Server::new("");
    let (_, steps) = server.count();
    let at = |nth| ("sh", 1, inject("sh", "write", &format!("error=ENOSPC:when={nth}")));
    try_all(
        &server,
        "server's disk, the script",
        &some(steps["write"], 3).into_iter().map(at).collect::<Vec<_>>(),
    );

    // The first start that removes secrets writes what it is about to do, and did.
    let server = Server::new(RULE);
    let at = |nth| ("sqlite3", 4, inject("sqlite3", "write", &format!("error=ENOSPC:when={nth}")));
    try_all(&server, "server's disk, a rule", &some(9, 2).into_iter().map(at).collect::<Vec<_>>());
}

#[test]
fn of_what_the_rules_say_to_sqlite_no_part_goes_missing() {
    let server = Server::new(RULE);
    let (starts, _) = server.count();
    let writers = ["cat", "sed"].into_iter().flat_map(|program| {
        some(starts[program], 8).into_iter().map(move |nth| (program, nth, "exit 1".to_owned()))
    });
    try_all(&server, "server's SQL", &writers.collect::<Vec<_>>());
}

#[test]
fn rules_that_do_not_arrive_are_missed() {
    let server = Server::new(RULE);
    // One start asks what it can, and the next takes the script; so it is with the rules.
    for end in ["kill -KILL $$", "exit 0"] {
        let take = format!("'{}' \"$@\" >/dev/null; {end}", real("dd").display());
        assert!(server.pull("dd", 4, &take));
    }
}

#[test]
fn whatever_program_dies_on_the_server_changes_nothing_here() {
    if !can_trace() {
        return;
    }
    let server = Server::new(RULE);
    let mut trials = Vec::new();
    let (starts, _) = server.count();
    for (program, count) in starts.into_iter().filter(|(program, _)| *program != "sh") {
        for nth in some(count, 1) {
            trials.push((program, nth, "kill -KILL $$".to_owned()));
            if long() {
                trials.push((program, nth, inject(program, "write", "signal=KILL:when=1")));
            }
            // The last one may be ended just when strace begins, which leaves it stopped.
            if program != "head" && (long() || WRITERS.contains(&program)) {
                trials.push((program, nth, inject(program, "write", "error=ENOSPC:when=1+")));
            }
        }
    }
    // It takes the hashes of what the client has.
    trials.push(("head", 1, inject("head", "write", "error=ENOSPC:when=1+")));
    // The first of them copy, the next remove secrets.
    for fault in ["signal=KILL:when=5", "error=ENOSPC:when=5+", "error=EIO:when=5+"] {
        let at = |nth| ("sqlite3", nth, inject("sqlite3", "pwrite64", fault));
        trials.extend(some(9, 1).into_iter().map(at));
    }
    try_all(&server, "server's programs", &trials);
}

/// The shells that write what is compared, and those that wait for it.
#[test]
fn whoever_compares_may_die_and_nobody_waits_for_it() {
    let server = Server::new("");
    let count = server.count().0["sqlite3"];
    let others = "for p in $(ps -o pid= --ppid $PPID); do [ $p = $$ ] || kill -KILL $p; done";
    let mut trials = Vec::new();
    for nth in depth(count - 1, 1)..=count {
        for kill in [others, "kill -KILL $PPID", "kill -KILL $PPID $$"] {
            if nth < count && kill != others && !long() {
                continue;
            }
            trials.push(("sqlite3", nth, kill.to_owned()));
        }
    }
    // The first `head` takes the hashes, the next ones words.
    for nth in 1..=3 {
        let kills = ["kill -KILL $$", "kill -KILL $PPID", "exit 1"];
        for kill in kills.into_iter().cycle().skip(nth).take(depth(1, 3)) {
            trials.push(("head", nth, kill.to_owned()));
        }
    }
    try_all(&server, "server's side of a comparison", &trials);
}

/// A second developer, who pulls from the same server.
fn colleague(env: &TestEnv) -> TestEnv {
    let other = TestEnv::new();
    fs::copy(env.world_path(), other.world_path()).expect("copy");
    other.edit_world(|world| world.log = other.path("fly.log"));
    fs::copy(env.path("repo/fly.toml"), other.path("repo/fly.toml")).expect("copy");
    other
}

#[test]
fn two_who_pull_at_once_do_not_disturb_each_other() {
    let (one, _sshd) = production();
    let two = colleague(&one);
    let rounds = depth(3, 60);
    for _ in 0..rounds {
        change(&one.production().join(NAMES[1]));
        let pulls = [&one, &two].map(|env| env.start_xtask(["pull-db"]));
        for pull in pulls {
            pull.wait().ok();
        }
        let there = content(&one.production());
        for env in [&one, &two] {
            assert_same(&content(&env.data()), &there);
        }
        assert_tidy(&one);
    }
    say(&format!("two at once: {rounds} rounds"));
}

/// A pull on this machine that stops before it copies, and the directory that it made.
fn blocked(env: &TestEnv, wrap: &[&str]) -> (Running, PathBuf) {
    let (held, go) = (env.path("held"), env.path("go"));
    let _ = fs::remove_file(&held);
    let wait = format!(
        "case \" $TEST_BLOCK $* \" in \" yes \"*' of=0.db '*) : >'{}'\nuntil [ -e '{}' ]; do sleep 0.01; done ;; esac\nexec '{}' \"$@\"",
        held.display(),
        go.display(),
        find("dd").display()
    );
    shells::script(&env.path("bin"), "dd", &wait);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../ops-remote/prepare-pull.sh");
    let argv = [wrap, &["dash", script]].concat();
    let mut command = env.command(argv[0]);
    command.args(&argv[1..]).arg(env.production()).env("TEST_BLOCK", "yes");
    let before = databases::files(&env.path("local-tmp"));
    let mut running = Running::start(&mut command);
    running.wait_for("the copying to begin", |_| held.exists());
    let mut made = databases::files(&env.path("local-tmp"));
    made.retain(|name| !before.contains(name));
    (running, env.path("local-tmp").join(made.remove(0)))
}

#[test]
fn copies_are_removed_when_who_made_them_is_gone_and_no_sooner() {
    let env = developer();
    let (mut running, copies) = blocked(&env, &[]);
    pull(&env);
    assert!(copies.exists(), "its owner lives");
    running.kill();
    drop(running);

    // Now another process has the id of its owner, as after a restart.
    let name = copies.file_name().expect("a name").to_string_lossy().into_owned();
    let parts: Vec<&str> = name.split('.').collect();
    let [prefix, _, began, place, random] = parts[..] else { panic!("{name}") };
    if began == "0" {
        return say("skipped: without /proc, one process is not told from another");
    }
    let id = std::process::id();
    let taken = copies.with_file_name(format!("{prefix}.{id}.{began}.{place}.{random}"));
    fs::rename(&copies, &taken).expect("rename");
    // And one is of another boot, or another container: its owner may live.
    let foreign = copies.with_file_name(format!("{prefix}.{id}.{began}.elsewhere.{random}"));
    fs::create_dir(&foreign).expect("make a directory");
    let own = copies.with_file_name("xtask-pull.notes");
    fs::create_dir(&own).expect("make a directory");
    pull(&env);
    assert!(!taken.exists() && foreign.exists());
    let touch = |path: &Path| {
        let old = command("touch").args(["-d", "2 days ago"]).arg(path).status();
        assert!(old.is_ok_and(|status| status.success()), "touch fails");
    };
    touch(&foreign);
    touch(&own);
    pull(&env);
    assert!(!foreign.exists(), "nobody copies for two days");
    assert!(own.exists(), "it is no pull's");
}

#[test]
fn copies_of_another_container_are_not_removed() {
    let env = developer();
    // An id that nobody has out here.
    let far = "echo 4194000 >/proc/sys/kernel/ns_last_pid && \"$@\"; exit";
    let wrap = ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", far, "sh"];
    let can = env.command(wrap[0]).args(&wrap[1..]).arg("true").output();
    if !can.is_ok_and(|output| output.status.success()) {
        return say("skipped: this account makes no namespace of processes");
    }
    let (running, copies) = blocked(&env, &wrap);
    pull(&env);
    assert!(copies.exists(), "its owner lives");
    env.write("go", "");
    running.wait().ok();
    assert!(!copies.exists());
}
