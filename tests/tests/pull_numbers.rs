//! What programs of a server print where a number belongs is none, or more than a shell can
//! count: the pull goes on where it can do without, else it says which program that was.

use tests::databases;
use tests::env::TestEnv;
use tests::long::depth;
use tests::output::Output;
use tests::sets::{assert_same, content};
use tests::shells::{find, script};

/// No shell counts so far.
const TOO_MUCH: &str = "18446744073709551615";

/// A server with a database from which a rule removes rows, pulled once.
fn pulled() -> TestEnv {
    let env = TestEnv::new();
    databases::create(&env.production().join("data.db"), 300, 1);
    env.db_toml("[[sanitize]]\ntable = 'items'\ndelete = true\nwhere = 'id > 280'\n");
    env.local_pull(&[]).ok();
    databases::execute(&env.production().join("data.db"), "UPDATE items SET value = -1");
    env
}

/// A pull where `program` runs this when it gets such arguments (of `case`).
fn pull_where(env: &TestEnv, program: &str, arguments: &str, does: &str, args: &[&str]) -> Output {
    let real = find(program);
    let body = format!(
        "case \"$*\" in {arguments}) {does} ;; *) exec '{}' \"$@\" ;; esac",
        real.display()
    );
    script(&env.path("bin"), program, &body);
    let output = env.local_pull(args);
    std::fs::remove_file(env.path("bin").join(program)).expect("it was put there");
    // In the words of dash, bash and busybox.
    for complaint in ["rithmetic", "llegal number", "nteger expression", "bad number", "syntax"] {
        assert!(!output.stderr.contains(complaint), "{program}: {complaint}\n{output}");
    }
    output
}

#[test]
fn where_the_room_is_not_known_the_pull_goes_on() {
    let env = pulled();
    let line = |free: &str| {
        format!("echo 'Filesystem 1024-blocks Used Available'; echo '/dev/x 1 2 {free} 5% /'")
    };
    for df in [
        // Of busybox, in a chroot.
        "echo \"df: can't find mount point\" >&2; exit 1",
        ":",
        &line("-"),
        &line(""),
        &line(TOO_MUCH),
    ] {
        pull_where(&env, "df", "*", df, &[]).ok().stderr_has("Pulled 1 database");
    }
    pull_where(&env, "df", "*", &line("10"), &[])
        .fails(1)
        .stderr_has(" has 10 KiB free, and copying the databases needs ");
}

#[test]
fn how_many_cores_there_are_need_not_be_known() {
    let env = pulled();
    script(&env.path("bin"), "nproc", "echo many");
    for said in ["undefined", "", "0", "-1", TOO_MUCH].into_iter().step_by(depth(2, 1)) {
        pull_where(&env, "getconf", "*", &format!("echo {said}"), &[]).ok();
    }
    databases::execute(&env.production().join("data.db"), "DELETE FROM items WHERE id > 280");
    assert_same(&content(&env.data()), &content(&env.production()));
}

#[test]
fn a_program_that_prints_no_number_is_named() {
    let env = pulled();
    let before = content(&env.data());
    for said in ["", "x", "08", TOO_MUCH].into_iter().step_by(depth(3, 1)) {
        let echo = format!("echo {said}");
        let row = format!("echo -rw 1 0 0 {said} Jan 1 00:00 x");
        for (program, arguments, does, args, what) in [
            ("ls", "-lnLd*", &row, &[][..], "the size of "),
            ("ls", "-ln\\ ?.db*", &row, &[], "the size of 0.db"),
            ("od", "-An\\ -v\\ -tu1", &echo, &[], "the header of 0.db"),
            ("sqlite3", "*julianday*", &echo, &[], "the time"),
            ("wc", "-c", &echo, &["--dry-run"], "the bytes that would be sent"),
        ] {
            let output = pull_where(&env, program, arguments, does, args).fails(1);
            output
                .stderr_has(&format!("error: {program} printed no number for {what}"))
                .stderr_has("hint: ");
        }
    }
    assert_same(&content(&env.data()), &before);
}

/// An app that ends takes its log away, maybe right after that was seen.
#[test]
fn a_log_that_goes_meanwhile_has_no_size() {
    let env = pulled();
    let (log, seen) = (env.production().join("data.db-wal"), env.path("seen"));
    std::fs::write(&log, "").expect("write");
    let does = format!(": >'{}'; rm '{}'; exit 2", seen.display(), log.display());
    pull_where(&env, "ls", "*-wal", &does, &[]).ok().stderr_has("Pulled 1 database");
    assert!(seen.exists(), "it was not asked for");
}

/// The copies on a tmpfs take memory, which the app may need.
#[test]
fn copies_that_would_fill_the_memory_are_refused() {
    let env = pulled();
    // Where that is not a tmpfs, it says it is one.
    let stat = find("stat");
    let fake = |kind: &str| {
        let real = format!("exec '{}' \"$@\"", stat.display());
        script(
            &env.path("bin"),
            "stat",
            &format!("case \"$*\" in '-f -c %t .') echo {kind} ;; *) {real} ;; esac"),
        );
    };
    fake("1021994");
    env.local_pull(&[]).ok();
    // A sparse file of more than any memory, with the header of a database.
    let large = env.production().join("large.db");
    std::fs::copy(env.production().join("data.db"), &large).expect("copy");
    std::fs::File::options()
        .write(true)
        .open(&large)
        .expect("open")
        .set_len(1 << 44)
        .expect("extend");
    let df = "echo 'Filesystem 1024-blocks Used Available'; echo '/dev/x 1 2 99999999999999 5% /'";
    script(&env.path("bin"), "df", df);
    env.local_pull(&[])
        .fails(1)
        .stderr_has(" is in memory, of which ")
        .stderr_has("hint: set staging-dir in xtask/db.toml");
}
