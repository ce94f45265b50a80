//! `cargo xtask doctor`: what it says of this machine and of leftovers, and what `--fix` does.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tests::databases;
use tests::doctor::{doctor, line, local, with_programs};
use tests::env::TestEnv;
use tests::process::command;
use tests::pull::{production, pull};
use tests::{fixtures, shells};

/// Also where the copies are of another boot or container.
fn leave_copies(directory: &Path) -> PathBuf {
    let old = directory.join("xtask-pull.4194000.7.elsewhere.Abc123");
    fs::create_dir(&old).expect("make a directory");
    fs::write(old.join("0.db"), vec![1; 40_000]).expect("write");
    let touched = command("touch").args(["-d", "2 days ago"]).arg(&old).status();
    assert!(touched.is_ok_and(|status| status.success()), "touch fails");
    old
}

#[test]
fn leftovers_on_the_server_are_removed_over_the_same_connection() {
    for busybox in [false, true] {
        let (env, sshd) = with_programs(|env| match busybox {
            true => shells::busybox(&env.path(""), &["sqlite3"]),
            false => shells::debian(&env.path(""), &[]),
        });
        let old = leave_copies(&env.path("tmp"));
        let fresh = env.path("tmp").join("xtask-pull.4194000.7.elsewhere.Fresh1");
        fs::create_dir(&fresh).expect("make a directory");
        let output = doctor(&env, &[]).ok();
        let said = line(&output, "killed pulls left");
        assert!(
            said.contains("Abc123 → the next pull removes them") && !said.contains("Fresh"),
            "{output}"
        );
        assert!(old.exists(), "it only looks");
        let output = doctor(&env, &["--fix", "--yes"]).ok();
        line(&output, " ✓ removed what killed pulls left on the server");
        assert!(!old.exists() && fresh.exists());
        assert_eq!(sshd.connections(), 2);
        assert!(!doctor(&env, &["--fix", "--yes"]).ok().stdout().contains("killed"));
        assert_eq!(env.unexpected(), [""; 0]);
    }
}

#[test]
fn leftovers_here_are_told_and_removed() {
    let (env, _sshd) = production();
    pull(&env, &[]);
    let old = env.data().join(".xtask/incoming-x");
    fs::create_dir(&old).expect("make a directory");
    let output = local(&env, &[]).ok();
    line(
        &output,
        "⚠ killed commands left data/.xtask/incoming-x → cargo xtask doctor --fix removes them",
    );
    assert!(old.exists());
    // While a command runs, it may be what that is making.
    let lock = fs::File::open(env.data().join(".xtask/lock")).expect("open");
    lock.lock().expect("nobody has it");
    assert!(!local(&env, &[]).ok().stdout().contains("killed"));
    drop(lock);
    let output = local(&env, &["--fix"]).fails(2);
    assert_eq!(output.stdout(), "");
    let output = local(&env, &["--fix", "--yes"]).ok();
    line(&output, " ✓ finished or removed what killed commands left here");
    assert!(!old.exists());
}

#[test]
fn what_git_and_docker_would_take_is_ignored_by_fix() {
    let (env, _sshd) = production();
    env.write("repo/.gitignore", "/target");
    env.write("repo/Dockerfile", "FROM debian\n");
    let output = local(&env, &[]).fails(1).stderr_has("error: 2 checks failed\n");
    line(&output, "→ add a line to .gitignore: /data");
    line(
        &output,
        "✗ a Docker image that is built here could contain production data → add a line to .dockerignore: data",
    );
    let output = local(&env, &["--fix", "--yes"]).ok();
    line(&output, " ✓ added to .gitignore: /data");
    let read = |name: &str| fs::read_to_string(env.repo().join(name)).expect("read");
    assert_eq!(
        (read(".gitignore"), read(".dockerignore")),
        ("/target\n/data\n".into(), "data\n".into())
    );
    let output = local(&env, &[]).ok();
    line(&output, " ✓ data is ignored by git and docker");
    assert!(!env.data().exists());
}

#[test]
fn a_question_is_asked_before_anything_is_fixed() {
    let (env, _sshd) = production();
    env.write("repo/.gitignore", "");
    let session = env.xtask_on_pty(["doctor", "--fix"]);
    session.wait_for_text("Fix 1 of these?");
    session.send("n\r");
    assert_eq!(session.wait_exit(), 130);
    assert_eq!(fs::read_to_string(env.repo().join(".gitignore")).expect("read"), "");
    let session = env.xtask_on_pty(["doctor", "--fix"]);
    session.wait_for_text("Fix 1 of these?");
    session.send("y\r");
    assert_eq!(session.wait_exit(), 0);
    assert_eq!(fs::read_to_string(env.repo().join(".gitignore")).expect("read"), "/data\n");
}

#[test]
fn a_hook_that_is_missing_is_installed_by_fix() {
    let env = fixtures::pulled();
    let output = local(&env, &[]);
    line(&output, "⚠ no pre-commit hook refreshes the fixtures → cargo xtask install-hooks");
    let output = local(&env, &["--fix", "--yes"]);
    line(&output, " ✓ installed the pre-commit hook");
    line(&local(&env, &[]), " ✓ commits refresh the fixtures");
    env.xtask(["install-hooks"])
        .ok()
        .stderr_has("Kept the pre-commit hook")
        .stderr_has("Kept git diff");
    env.xtask(["install-hooks", "--uninstall"]).ok();
    env.write(
        "repo/lefthook.yml",
        "pre-commit: { jobs: [{ run: cargo xtask refresh-fixtures --staged }] }",
    );
    line(&local(&env, &[]), " ✓ commits refresh the fixtures");
}

/// Waits until the server takes the file for settled, and so lets the client record the findings.
fn settle(path: &Path) {
    let changed = fs::metadata(path).expect("it is there").ctime();
    let since = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    while since() < Duration::from_secs(changed as u64 + 4) {
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn columns_and_rules_of_the_newest_pull_are_told() {
    let env = TestEnv::with_database(
        "CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT, password TEXT, phone TEXT);
         INSERT INTO users VALUES (1, 'a@example.com', 'x', '1')",
    );
    let database = env.production().join("data.db");
    settle(&database);
    let via = format!("local:{}", env.production().display());
    env.xtask(["pull-db", "--via", &via]).ok();
    let output = local(&env, &[]).fails(1);
    line(
        &output,
        "✗ 3 columns with likely secrets are not masked: users.email, users.password, users.phone → cargo xtask init adds a rule for each",
    );
    let rules = "[audit]\nallow = ['users.phone']\n[[sanitize]]\ntable = 'users'\nset = { password = \"''\" }\n";
    env.db_toml(rules);
    let output = local(&env, &[]).fails(1);
    line(&output, "✗ a column with likely secrets is not masked: users.email");
    line(&output, "⚠ the current data is unmasked: data.db → cargo xtask pull-db");
    line(&output, " is unmasked, of ");
    env.db_toml(&format!("{rules}[[sanitize]]\ntable = 'user'\ndelete = true\n"));
    let output = local(&env, &[]).fails(1);
    line(
        &output,
        "✗ rule 2: none of the databases has a table user → did you mean `users`? Edit rule 2",
    );
    env.db_toml("omit = ['logs*']\n[audit]\nlevel = 'off'\n");
    let output = local(&env, &[]).ok();
    line(&output, "⚠ omit: no database has a table logs*");
}

#[test]
fn a_pull_that_was_cut_is_told() {
    let (env, _sshd) = production();
    let sql =
        "CREATE TABLE noise AS WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 90)
               SELECT randomblob(100000) AS data FROM n";
    databases::execute(&env.production().join("data.db"), sql);
    env.edit_world(|world| world.faults.cut_stdout_after_bytes = Some(4_000_000));
    env.xtask(["pull-db"]).fails(1);
    env.edit_world(|world| world.faults.cut_stdout_after_bytes = None);
    let output = doctor(&env, &[]).ok();
    line(&output, " had arrived → cargo xtask pull-db resumes it");
}
