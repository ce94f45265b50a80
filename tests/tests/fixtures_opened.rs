//! What programs do to a fixture that they open: nothing, as `docs/fixtures.md` opens it;
//! otherwise a commit says how to bring it back.

use std::error::Error;
use std::path::Path;
use std::time::SystemTime;

use rusqlite::{Connection, OpenFlags};
use tests::databases;
use tests::env::TestEnv;
use tests::fixtures::{LOCK, ORDERS, assert_fresh, commit, committed, developer, status};
use tests::process::Running;

const OPENED: &str = "tests/fixtures/orders.db: a program has opened it in WAL mode, which changes its header; no row differs";

/// What a test leaves that opens the fixture itself in WAL mode, and ends or is killed.
fn open_in_wal_mode(env: &TestEnv, is_killed: bool) {
    let fixture = env.repo().join(ORDERS);
    databases::execute(&fixture, "PRAGMA journal_mode = WAL");
    if is_killed {
        let (copy, db) = (env.path("copy.db"), Connection::open(&fixture).unwrap());
        db.execute_batch("UPDATE orders SET total = 0").unwrap();
        let files = ["", "-wal", "-shm"].map(|end| {
            let (from, to) = (format!("{ORDERS}{end}"), format!("{}{end}", copy.display()));
            std::fs::copy(env.repo().join(&from), &to).unwrap();
            (env.repo().join(from), to)
        });
        drop(db);
        for (to, from) in files {
            std::fs::copy(from, to).unwrap();
        }
    }
}

fn in_work_tree(env: &TestEnv) -> Vec<String> {
    databases::files(&env.repo().join("tests/fixtures"))
}

/// Types what a hint says, up to its semicolon.
fn type_hint(env: &TestEnv, stderr: &str) {
    let hint = stderr.lines().find_map(|line| line.strip_prefix("hint: ")).unwrap();
    let command = hint.split(';').next().unwrap();
    Running::start(env.command("sh").args(["-c", command])).wait().ok();
}

#[test]
fn a_commit_of_a_fixture_that_was_opened_in_wal_mode_says_how_to_bring_it_back() {
    for is_killed in [false, true] {
        let env = developer();
        env.write("repo/.gitignore", "/data\n/target\n*-wal\n*-shm\n");
        env.git(&["commit", "--quiet", "--all", "--message=x"]);
        let before = (std::fs::read(env.repo().join(ORDERS)).unwrap(), in_work_tree(&env));
        for stages in [false, true] {
            open_in_wal_mode(&env, is_killed);
            env.write("repo/notes.txt", if stages { "staged" } else { "changed" });
            if stages {
                env.git(&["add", "--all"]);
            }
            let stopped = commit(&env, &["--all"]).fails(1);
            let rm = format!("rm {ORDERS}-wal {ORDERS}-shm && ");
            let stopped = stopped.stderr_has(OPENED).stderr_has(&format!(
                "hint: {}git checkout HEAD -- {ORDERS}\nhint: let tests open a copy",
                if is_killed { &*rm } else { "" }
            ));
            type_hint(&env, &stopped.stderr);
            assert!(
                before == (std::fs::read(env.repo().join(ORDERS)).unwrap(), in_work_tree(&env))
            );
            commit(&env, &["--all"]).ok();
            assert_eq!(committed(&env), ["notes.txt"]);
        }
    }
}

#[test]
fn where_it_was_committed_without_the_hook_a_refresh_brings_it_back() {
    for is_killed in [false, true] {
        let env = developer();
        let before = std::fs::read(env.repo().join(ORDERS)).unwrap();
        open_in_wal_mode(&env, is_killed);
        env.git(&["commit", "--quiet", "--no-verify", "--all", "--message=x"]);
        env.xtask(["refresh-fixtures", "--check"]).fails(1).stderr_has(OPENED);
        env.xtask(["refresh-fixtures"]).ok().stderr_has("Refreshed tests/fixtures/orders.db");
        assert!(before == std::fs::read(env.repo().join(ORDERS)).unwrap());
        assert_eq!(status(&env), [format!(" M {ORDERS}")], "no -wal is left, and {LOCK} stays");
        commit(&env, &["--all"]).ok();
        assert_fresh(&env);
    }
}

#[test]
fn rows_that_a_program_wrote_in_wal_mode_are_an_edit() {
    let env = developer();
    let sql = "PRAGMA journal_mode = WAL; UPDATE orders SET total = 0";
    databases::execute(&env.repo().join(ORDERS), sql);
    commit(&env, &["--all"]).fails(1).stderr_has("it was edited by hand").stderr_lacks("WAL");
}

/// The blocks of a language in the page, as (to write, to read).
fn blocks(language: &str) -> [String; 2] {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/fixtures.md");
    let page = std::fs::read_to_string(page).expect("read");
    let start = format!("```{language}\n");
    let blocks = page.split(&start).skip(1);
    let blocks = blocks.map(|rest| rest.split("```").next().expect("it ends").to_owned());
    blocks.collect::<Vec<_>>().try_into().expect("there are two blocks")
}

/// A repository with the fixture of the page.
fn with_fixture() -> TestEnv {
    let env = TestEnv::new();
    std::fs::create_dir_all(env.repo().join("tests/fixtures")).unwrap();
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/tenant.db");
    std::fs::copy(ours, env.repo().join("tests/fixtures/tenant.db")).unwrap();
    env
}

/// All that a program could change: bytes, time and names.
fn state(env: &TestEnv) -> (Vec<u8>, SystemTime, Vec<String>) {
    let fixture = env.repo().join("tests/fixtures/tenant.db");
    let modified = fixture.metadata().unwrap().modified().unwrap();
    (std::fs::read(&fixture).unwrap(), modified, in_work_tree(env))
}

const WRITE: &str = "PRAGMA journal_mode = WAL; CREATE TABLE new AS SELECT * FROM repositories";

#[test]
fn python_opens_a_fixture_as_the_page_says_and_leaves_it_alone() {
    let env = with_fixture();
    let before = state(&env);
    let [writes, reads] = blocks("python");
    let count = "print(db.execute('SELECT count(*) FROM repositories').fetchone()[0])\n";
    for (block, then) in
        [(writes, format!("db.executescript('{WRITE}')\n")), (reads, String::new())]
    {
        let program = format!("{block}{then}{count}");
        let run = Running::start(env.command("python3").args(["-c", &program])).wait();
        run.ok().stdout_is("14\n");
        assert!(state(&env) == before);
    }
}

/// The lines of the page, which are those below.
#[test]
fn rust_opens_a_fixture_as_the_page_says_and_leaves_it_alone() {
    let env = with_fixture();
    let before = state(&env);
    let path = env.repo().join("tests/fixtures/tenant.db");
    for (block, open) in blocks("rust").iter().zip([open_copy, open_immutable]) {
        let code = block.split_once('\n').expect("the first line names the fixture").1;
        let source: String = include_str!("fixtures_opened.rs")
            .lines()
            .map(|line| line.trim().to_owned() + "\n")
            .collect();
        assert!(source.contains(code), "this does not run:\n{code}");
        open(path.to_str().unwrap()).unwrap();
        assert!(state(&env) == before);
    }
}

fn open_copy(fixture: &str) -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    std::fs::copy(fixture, dir.path().join("tenant.db"))?;
    let db = Connection::open(dir.path().join("tenant.db"))?;
    Ok(db.execute_batch(WRITE)?)
}

fn open_immutable(fixture: &str) -> Result<(), Box<dyn Error>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let db = Connection::open_with_flags(format!("file:{fixture}?immutable=1"), flags)?;
    let n: i64 = db.query_row("SELECT count(*) FROM repositories", [], |row| row.get(0))?;
    assert_eq!(n, 14);
    assert!(Path::new(fixture).exists() && db.execute_batch(WRITE).is_err());
    Ok(())
}
