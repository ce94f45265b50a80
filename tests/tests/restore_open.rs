//! A set that programs have open is replaced under them: they see the new data at
//! their next query, and nothing that they wrote is lost.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::types::Value;
use tests::app::App;
use tests::databases;
use tests::env::TestEnv;
use tests::process::{Running, wait_for};
use tests::sets::{assert_same, change, content, developer, named, pull, snapshots};
use tests::shells;
use tests::store::left_behind;

const LATEST: [&str; 3] = ["restore-db", "--latest", "--yes"];
const UNDO: [&str; 3] = ["restore-db", "--undo", "--yes"];
const ORGS: [&str; 2] = ["iris", "juno"];

/// The app of a developer, who has pulled what `rows` rows of seed are.
fn with_app(rows: u32) -> (TestEnv, App) {
    let env = TestEnv::new();
    let production = env.production().display().to_string();
    env.app(["setup", "--data-dir", &production, "--rows", &rows.to_string()]).ok();
    pull(&env);
    let app = env.serve(&env.data());
    (env, app)
}

/// The titles of what the load wrote, in one tenant's database of a directory.
fn written(directory: &Path, org: &str) -> BTreeSet<String> {
    let db = Connection::open(directory.join(format!("tenant_{org}.db"))).expect("open");
    let sql = "SELECT title FROM pull_requests WHERE author = 'load'";
    let mut select = db.prepare(sql).expect("a statement");
    let titles = select.query_map([], |row| row.get(0)).expect("rows");
    titles.map(|title| title.expect("a title")).collect()
}

/// Two databases that a `sqlite3` has open until it is dropped, after it ran `sql`.
fn shell(env: &TestEnv, sql: &str) -> Running {
    let mut shell = env.command("sqlite3");
    shell.arg(env.data().join("data.db")).args([sql, ".shell echo open; exec sleep 1000"]);
    let mut shell = Running::start(&mut shell);
    shell.wait_for("sqlite3 to open", |shell| shell.stdout_so_far().ends_with(b"open\n"));
    shell
}

#[test]
fn an_app_under_load_goes_on_and_no_write_of_it_is_lost() {
    let (env, app) = with_app(500);
    let load = app.load(&ORGS);
    load.wait_for_writes(20);
    for round in 0..6 {
        let output = env.xtask([LATEST, UNDO][round % 2]).ok();
        output
            .stderr_has("     Running app (process ")
            .stderr_has("): sees the new data at its next query\n")
            .stderr_has("its earlier writes are in backup_")
            .stderr_lacks("warning");
        // Whoever asks now, sees it: no restart, no error.
        let (status, stats) = app.client().get("/orgs/iris/stats").expect("the app answers");
        assert_eq!(status, 200, "{stats}");
        load.wait_for_writes(5);
    }
    let report = load.stop();
    for (org, trouble) in &report.trouble {
        assert_eq!(trouble.refused, 0, "{org}: {trouble:?}");
    }
    drop(app);
    let mut places = vec![env.data()];
    places.extend(named(&env, "before-restore").iter().map(|name| env.data().join(name)));
    for org in ORGS {
        let found: BTreeSet<_> = places.iter().flat_map(|place| written(place, org)).collect();
        let all = (0..report.acknowledged[org]).map(|n| format!("load {n}"));
        let lost: Vec<_> = all.filter(|title| !found.contains(title)).collect();
        assert!(lost.is_empty(), "{org}: {lost:?}");
    }
    for place in &places {
        for name in ["data.db", "tenant_iris.db", "tenant_juno.db"] {
            databases::assert_whole(&place.join(name));
        }
    }
    assert!(snapshots(&env).iter().all(|snapshot| snapshot["defect"].is_null()));
    assert_eq!(left_behind(&env.data()), [""; 0]);
}

#[test]
fn a_pull_becomes_the_live_set_of_a_running_app() {
    let (env, app) = with_app(10);
    let count = || app.client().get("/orgs/iris/stats").expect("the app answers").1;
    let before = count();
    let tenant = env.production().join("tenant_iris.db");
    databases::execute(&tenant, "DELETE FROM reviews");
    let via = format!("local:{}", env.production().display());
    let report = env.xtask(["pull-db", "--json", "--via", &via]).ok().json();
    assert!(report["programs"][0].as_str().is_some_and(|name| name.starts_with("app (process ")));
    assert_ne!(count(), before);
    env.xtask(UNDO).ok();
    assert_eq!(count(), before);
}

#[test]
fn a_sqlite_of_the_distribution_sees_the_new_data_too() {
    for mode in ["wal", "delete"] {
        let env = developer();
        databases::execute(&env.data().join("data.db"), &format!("PRAGMA journal_mode = {mode}"));
        change(&env.data().join("tenant_iris.db"));
        let go = env.path("go");
        let mut shell = env.command("sqlite3");
        let wait =
            format!(".shell echo open; until [ -e '{}' ]; do sleep 0.01; done", go.display());
        shell.arg(env.data().join("data.db"));
        shell.args(["INSERT INTO items (key) VALUES ('of the shell')", "SELECT 'before'", &wait]);
        shell.args(["SELECT count(*) FROM items", "PRAGMA integrity_check"]);
        let mut shell = Running::start(&mut shell);
        shell.wait_for("sqlite3 to open", |shell| shell.stdout_so_far().ends_with(b"open\n"));
        env.xtask(LATEST).ok().stderr_has("Running sqlite3 (process ");
        fs::write(go, "").expect("let it go on");
        // What `.shell` prints is not buffered with the rest.
        shell.wait().ok().stdout_is("open\nbefore\n30\nok\n");
        env.xtask(UNDO).ok();
        assert_eq!(databases::count(&env.data().join("data.db"), "items"), 31);
    }
}

/// Its file shrinks to a fraction: a page of the mapping beyond the new end would be a SIGBUS.
#[cfg(target_os = "linux")]
#[test]
fn a_program_that_maps_a_database_goes_on_when_a_far_smaller_one_is_restored() {
    let fill = "WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 200)
                INSERT INTO items (key, data) SELECT 'fill ' || i, randomblob(100000) FROM n";
    let [all, whole] =
        ["SELECT count(*), sum(length(data)) > 20000000 FROM items", "PRAGMA integrity_check"];
    for (mode, reads) in [("wal", false), ("wal", true), ("delete", false)] {
        let env = developer();
        let live = env.data().join("data.db");
        databases::execute(&live, &format!("PRAGMA journal_mode = {mode}; {fill}"));
        let before = fs::metadata(&live).expect("it is there").len();
        let go = env.path("go");
        let wait =
            format!(".shell echo open; until [ -e '{}' ]; do sleep 0.01; done", go.display());
        let mut shell = env.command("sqlite3");
        shell.arg(&live).arg("PRAGMA mmap_size = 1073741824");
        shell.args(reads.then_some("BEGIN")).args([all, whole, &wait]);
        // A transaction that reads goes on to see the old data.
        shell.args(reads.then_some([all, "COMMIT"]).iter().flatten()).args([all, whole]);
        let mut shell = Running::start(&mut shell);
        shell.wait_for("sqlite3 to read", |shell| shell.stdout_so_far().ends_with(b"open\n"));
        let maps = fs::read_to_string(format!("/proc/{}/maps", shell.id())).expect("its maps");
        assert!(maps.contains("/data.db\n"), "{mode}: {maps}");
        env.xtask(LATEST).ok().stderr_has("Running sqlite3 (process ");
        if !reads {
            let after = fs::metadata(&live).expect("it is there").len();
            assert!(after * 100 < before, "{mode}: {after} bytes of {before}");
        }
        fs::write(go, "").expect("let it go on");
        let old = if reads { "230|1\n" } else { "" };
        let said = format!("1073741824\n230|1\nok\n{old}30|0\nok\n");
        let output = shell.wait().ok();
        assert_eq!(output.stdout().replacen("open\n", "", 1), said, "{mode}");
        databases::assert_whole(&live);
    }
}

#[test]
fn a_transaction_that_does_not_end_is_named_after_the_wait() {
    let env = developer();
    change(&env.data().join("data.db"));
    change(&env.data().join("tenant_iris.db"));
    let before = content(&env.data());
    let holder = shell(&env, "BEGIN IMMEDIATE; DELETE FROM items");
    let locked = "data.db was locked by sqlite3 (process ";
    let via = format!("local:{}", env.production().display());
    env.xtask([&LATEST[..], &["--wait", "1"]].concat())
        .fails(1)
        .stderr_has("Waiting for a transaction of sqlite3 (process ")
        .stderr_has("), at most 1 s\n")
        .stderr_has(locked)
        .stderr_has(") for longer than 1 s; nothing was changed\n")
        .stderr_has("hint: ")
        .stderr_has("--wait SECONDS waits longer");
    env.xtask(["pull-db", "--via", &via, "--no-wait"])
        .fails(1)
        .stderr_has(" was pulled, but did not become the current data\n")
        .stderr_has(locked)
        .stderr_has(") for longer than 0 s; nothing was changed\n")
        .stderr_has("--wait SECONDS waits longer")
        .stderr_has("hint: cargo xtask restore-db backup_");
    drop(holder);
    assert_same(&content(&env.data()), &before);
    assert_eq!(named(&env, "before-restore").len() + named(&env, "before-pull").len(), 0);
    assert_eq!(left_behind(&env.data()), [""; 0]);
    env.xtask(LATEST).ok();
}

#[test]
fn what_the_new_set_lacks_is_not_taken_from_a_program() {
    let env = developer();
    let extra = env.data().join("extra.db");
    databases::create(&extra, 3, 3);
    tests::store::brings(&env.data(), "extra.db");
    let before = content(&env.data());
    let holder = Connection::open(&extra).expect("open");
    holder.execute_batch("SELECT * FROM items").expect("read");
    env.xtask(LATEST)
        .fails(1)
        .stderr_has("extra.db is open in ")
        .stderr_has(", and the new set does not have it; nothing was changed\n")
        .stderr_has("hint: stop it, and run the same command again");
    drop(holder);
    assert_same(&content(&env.data()), &before);
    env.xtask(LATEST).ok().stderr_has("Removed extra.db");
    assert!(!extra.exists());
}

/// git is asked for the commit when nobody else may open the set any more.
#[cfg(target_os = "linux")]
#[test]
fn who_opens_a_database_just_before_it_is_replaced_writes_to_the_new_one() {
    for mode in ["wal", "delete"] {
        let env = developer();
        let live = env.data().join("data.db");
        databases::execute(&live, &format!("PRAGMA journal_mode = {mode}"));
        change(&live);
        change(&env.data().join("tenant_iris.db"));
        let said = env.path("said");
        env.replace_git(&format!(
            "[ -e '{said}' ] || {{
                setsid sqlite3 -cmd '.timeout 60000' '{live}' \
                    \"INSERT INTO items (key) VALUES ('late')\" \"SELECT count(*) FROM items\" >'{said}' 2>&1 &
                until ls -l /proc/$!/fd | grep -q 'data.db'; do sleep 0.01; done
             }}
             exec {git} \"$@\"",
            said = said.display(),
            live = live.display(),
            git = shells::find("git").display()
        ));
        env.xtask(LATEST).ok();
        let said = wait_for("sqlite3 to write", || {
            fs::read_to_string(&said).ok().filter(|said| !said.is_empty())
        });
        assert_eq!(said, "31\n", "{mode}");
        let late = "SELECT count(*) FROM items WHERE key = 'late'";
        assert_eq!(databases::query(&live, late), Value::Integer(1), "{mode}");
        databases::assert_whole(&live);
    }
}

/// As with an app in a container: `/proc` hides its files, and in a rollback mode an idle connection
/// holds no lock.
#[test]
fn an_app_of_another_user_that_cannot_be_seen_sees_the_new_data() {
    const DEVELOPER: u32 = 1000;
    let env = TestEnv::new();
    databases::create(&env.production().join("data.db"), 200, 1);
    pull(&env);
    let live = env.data().join("data.db");
    databases::execute(&live, "PRAGMA journal_mode = DELETE; DELETE FROM items");
    if !give_to(&env, DEVELOPER) {
        return;
    }
    // In a namespace of its own, with an open connection that has read.
    let (say, ask) = (env.path("ask"), "SELECT 'rows ' || count(*) FROM items;");
    let script = format!(
        "mkfifo '{0}'; exec 3<>'{0}'; unshare --pid --fork sqlite3 '{1}' <&3",
        say.display(),
        live.display()
    );
    let mut app = Running::start(env.command("sh").args(["-c", &script]));
    app.wait_for("the pipe", |_| say.exists());
    let tell = |text: &str| fs::write(&say, format!("{text}\n")).expect("it reads");
    tell(ask);
    app.wait_for("the app to have read", |app| app.stdout_so_far().ends_with(b"rows 0\n"));

    let as_developer = |args: &[&str]| {
        let xtask = env.xtask_command(args);
        let id = DEVELOPER.to_string();
        let mut command = env.command("setpriv");
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).arg(xtask.get_program());
        command.args(xtask.get_args()).env("CARGO_MANIFEST_DIR", env.repo().join("xtask"));
        Running::start(&mut command).wait()
    };
    let output = as_developer(&LATEST).ok();
    output.stderr_has(
        "hint: whether a program of another user, such as one in a container, has data.db open cannot \
         be seen: it is changed in place, and such a program sees the new data\n",
    );
    tell(ask);
    app.wait_for("the new data", |app| app.stdout_so_far().ends_with(b"rows 200\n"));
    tell(".quit");
    app.wait().ok();

    // Without such a program it is replaced as a file, and nothing is said.
    as_developer(&UNDO).ok().stderr_lacks("another user");
    assert_eq!(databases::count(&live, "items"), 0);
    assert_eq!(left_behind(&env.data()), [""; 0]);
}

/// Makes a user the owner of all; only root can.
fn give_to(env: &TestEnv, uid: u32) -> bool {
    if !rustix::process::geteuid().is_root() {
        return false;
    }
    let id = format!("{uid}:{uid}");
    Running::start(env.command("chown").args(["-R", &id]).arg(env.path("."))).wait().ok();
    true
}
