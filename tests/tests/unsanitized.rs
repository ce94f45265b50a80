//! What came with its secrets is marked wherever it goes, and nothing else is.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::*;
use rusqlite::Connection;
use rusqlite::types::Value;
use serde_json::json;
use tests::databases;
use tests::env::TestEnv;
use tests::faults::{Fault, Injection, can_trace, inject};
use tests::long::depth;
use tests::output::Output;
use tests::pty::Session;
use tests::sets::{change, named};
use tests::store::{self, Snapshot};

const SECRET: &str = "hunter2isnosecret";

/// For each database but `other.db`.
const RULES: &str = "
setup = \"true {dir}\"
[[sanitize]]
database = '[dt]*'
table = 'export_settings'
set = { sheet_id = \"''\", client_email = \"''\", private_key = \"''\" }
";

const RAW: [&str; 2] = ["--no-sanitize", "--yes"];
const ALL: [&str; 2] = ["data.db", "tenant.db"];

struct Desk {
    env: TestEnv,
}

impl Desk {
    /// Two databases with secrets and one without, and rules for the two.
    fn new() -> Desk {
        let env = TestEnv::new();
        for name in ALL {
            databases::create(&env.production().join(name), 20, 1);
            databases::create_secrets(&env.production().join(name), 3, SECRET);
        }
        databases::create(&env.production().join("other.db"), 20, 2);
        env.db_toml(RULES);
        Desk { env }
    }

    fn pull_args<'a>(&self, args: &[&'a str], via: &'a mut String) -> Vec<&'a str> {
        *via = format!("local:{}", self.env.production().display());
        [&["pull-db", "--via", via], args].concat()
    }

    #[track_caller]
    fn pull(&self, args: &[&str]) -> Output {
        self.env.xtask(self.pull_args(args, &mut String::new())).ok()
    }

    #[track_caller]
    fn restore(&self, args: &[&str]) -> Output {
        self.env.xtask([&["restore-db", "--yes"], args].concat()).ok()
    }

    fn data(&self, name: &str) -> PathBuf {
        self.env.data().join(name)
    }

    fn newest(&self) -> Snapshot {
        store::snapshots(&self.env.data()).pop().expect("there is a snapshot")
    }

    /// Saves the live set; which of it is marked then.
    #[track_caller]
    fn marks_of_live(&self) -> Vec<String> {
        self.env.xtask(["snapshots", "create"]).ok();
        marks(&self.newest())
    }

    /// The lines of the list, newest first.
    #[track_caller]
    fn lines(&self) -> Vec<String> {
        let listed = self.env.xtask(["snapshots", "list"]).ok();
        String::from_utf8_lossy(&listed.stdout).lines().map(str::to_owned).collect()
    }
}

/// The databases of a snapshot that are marked.
fn marks(snapshot: &Snapshot) -> Vec<String> {
    let databases = snapshot.json["databases"].as_array().expect("an array");
    let marked = databases.iter().filter(|database| database["unsanitized"] == true);
    marked.map(|database| database["name"].as_str().expect("a name").to_owned()).collect()
}

fn has_secret(path: &Path) -> bool {
    let table = "SELECT count(*) FROM sqlite_schema WHERE name = 'export_settings'";
    let secrets = "SELECT count(*) FROM export_settings WHERE private_key <> ''";
    [table, secrets].iter().all(|sql| databases::query(path, sql) != Value::Integer(0))
}

/// Those of these databases of a directory that have secrets.
fn secrets<'a>(directory: &Path, names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let names = names.into_iter().filter(|name| directory.join(name).exists());
    names.filter(|name| has_secret(&directory.join(name))).map(str::to_owned).collect()
}

/// Every snapshot marks exactly what has secrets; so does the state of the live set.
#[track_caller]
fn assert_marks_tell_the_truth(env: &TestEnv) {
    for snapshot in store::snapshots(&env.data()) {
        let secrets = secrets(&snapshot.path, snapshot.databases());
        assert_eq!(marks(&snapshot), secrets, "{} ({})", snapshot.name, snapshot.kind());
    }
    let state = env.data().join(".xtask");
    if !state.join("journal.json").exists()
        && let Ok(text) = fs::read(state.join("state.json"))
    {
        let state: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        let secrets = secrets(&env.data(), ALL);
        let marked = state["unsanitized"].as_array().expect("a list");
        let live =
            marked.iter().filter(|name| env.data().join(name.as_str().expect("a name")).exists());
        assert!(live.eq(&secrets), "{state} has {secrets:?}");
    }
}

#[test]
fn a_pull_without_its_rules_says_so_and_so_does_all_that_shows_it() {
    let desk = Desk::new();
    desk.pull(&[]).stderr_lacks("nmasked");
    let planned = desk.pull(&["--dry-run", "--no-sanitize"]);
    let report = desk.pull(&RAW);
    for output in [&planned, &report] {
        let rows: Vec<_> = output.stderr.lines().map(str::trim).collect();
        for (name, marked) in [("data.db", true), ("tenant.db", true), ("other.db", false)] {
            let of_it = |row: &&&str| row.starts_with(name) && row.contains("  unmasked");
            assert_eq!(rows.iter().any(|row| of_it(&row)), marked, "{name}: {output}");
        }
    }
    report.stderr_has(" Unmasked data.db, tenant.db: secrets included\n");
    change(&desk.data("data.db"));
    let json = desk.pull(&["--json", "--no-sanitize", "--yes"]).json();
    assert_eq!(json["unsanitized_databases"], json!(ALL));
    let of_each = json["databases"].as_array().expect("a list").iter();
    let marked = of_each.filter(|database| database["unsanitized"] == true).count();
    assert_eq!(marked, 2);

    // What was saved before the second raw pull, the two, and what came sanitized.
    let lines = desk.lines();
    let ends = [" unmasked  what --undo brings back", " unmasked  current", " unmasked", "B"];
    assert_eq!(lines.len(), ends.len(), "{lines:#?}");
    for (line, end) in lines.iter().zip(ends) {
        assert!(line.ends_with(end), "{lines:#?}");
        assert!(
            line.split(" unmasked").next().is_some_and(|it| it.chars().count() <= 80),
            "{line}"
        );
    }
    let listed = tests::sets::snapshots(&desk.env);
    let marked: Vec<_> = listed.iter().map(|snapshot| &snapshot["unsanitized"]).collect();
    assert_eq!(marked, [true, true, true, false]);

    let back = desk.restore(&["--undo", "--json"]).json();
    assert_eq!(back["unsanitized_databases"], json!(ALL));
    desk.pull(&["--json"]).stdout_has("\"unsanitized_databases\": []");
    assert_marks_tell_the_truth(&desk.env);
}

#[test]
fn what_is_unmasked_expires_unless_a_person_or_an_undo_wants_it() {
    let desk = Desk::new();
    let limited = || desk.env.db_toml(&format!("unmasked-keep = '7d'\n{RULES}"));
    let prune = || desk.env.xtask(["snapshots", "prune", "--yes"]).ok();
    let line = |name: &str| desk.lines().into_iter().find(|line| line.starts_with(name));
    let ends = |name: &str, end: &str| {
        line(name).is_some_and(|line| (line + "  ").contains(&format!("{end}  ")))
    };
    desk.pull(&[]);
    desk.pull(&RAW);
    change(&desk.data("data.db"));
    desk.pull(&RAW);
    desk.env.xtask(["snapshots", "create"]).ok();
    let of_kind = |kind: &str| named(&desk.env, kind).remove(0);
    let (raw, saved, manual) = (of_kind("pull"), of_kind("before-pull"), of_kind("manual"));
    let first_raw = named(&desk.env, "pull").remove(1);
    change(&desk.env.production().join("other.db"));
    desk.pull(&[]);
    let all = store::snapshots(&desk.env.data());
    let find = |name: &str| all.iter().find(|it| it.name == name).expect("it is listed");
    let date = |name: &str, by: &str| find(name).date(&desk.env.data(), by);
    let (first_raw, saved) = (date(&first_raw, "-8 days"), date(&saved, "-9 days"));
    let manual = date(&manual, "-10 days");

    assert!(ends(&first_raw, " unmasked") && ends(&manual, " unmasked"), "{:#?}", desk.lines());
    prune().stderr_has("Nothing to prune (");
    limited();
    assert!(ends(&first_raw, " unmasked, expired") && ends(&manual, " unmasked, expired"));
    let day = Connection::open_in_memory().expect("SQLite opens");
    let day: String =
        day.query_row("SELECT date('now', '7 days')", [], |row| row.get(0)).expect("a date");
    let until = format!(" unmasked until {day}");
    assert!(ends(&raw, &until), "{:#?}", desk.lines());
    let listed = tests::sets::snapshots(&desk.env);
    let until = |name: &str| listed.iter().find(|it| it["name"] == name).expect("it is listed");
    assert!(until(&raw)["unsanitized_until"].as_str().is_some_and(|text| text.starts_with(&day)));
    assert_eq!(until(&manual)["unsanitized_until"], json!(null));
    prune()
        .stderr_has(&format!("Kept {manual}, which is unmasked and has expired\n"))
        .stderr_has(&format!("hint: if nobody needs it: cargo xtask snapshots rm {manual}\n"))
        .stderr_has(&format!("Removed {first_raw} (pull), unmasked\n"))
        .stderr_has(&format!("Removed {saved} (before-pull), unmasked\n"))
        .stderr_has("Pruned 2 snapshots,");

    // What `--undo` restores stays until a later pull.
    find(&raw).edit(|json| json["time"] = "2026-01-01T00:00:00Z".into());
    prune().stderr_has(&format!("Kept {raw}, which is unmasked and has expired\n"));
    assert!(ends(&raw, " unmasked, expired"));
    desk.restore(&["--undo"]).stderr_has(" Unmasked ");
    desk.pull(&[]);
    assert!(line(&raw).is_some());
    change(&desk.env.production().join("other.db"));
    desk.pull(&[]).stderr_has(&format!("Removed {raw} (pull), unmasked\n"));
    assert_eq!(named(&desk.env, "manual"), [manual]);
    for (limit, why) in [("7", "7\": a duration such as 24h"), ("-7d", "-7d\": a duration such as")]
    {
        desk.env.db_toml(&format!("unmasked-keep = '{limit}'"));
        desk.env.xtask(["snapshots"]).fails(2).stderr_has(&format!("unmasked-keep \"{why}"));
    }
}

#[test]
fn a_question_says_that_secrets_come_back() {
    let desk = Desk::new();
    desk.pull(&RAW);
    desk.pull(&[]);
    let raw = named(&desk.env, "pull").remove(1);
    let ask = |args: &[&str]| -> Session {
        Session::spawn_sized(&desk.env.xtask_command([&["restore-db"], args].concat()), 30, 200)
    };
    let session = ask(&[]);
    session.wait_for_text(" unmasked");
    session.send("unmasked\r");
    session.wait_for_text(", with unmasked secrets? Current ones are saved first. (y/N)");
    session.send("y\r");
    assert_eq!(session.wait_exit(), 0);
    let screen = session.wait_for_text("hint: ");
    assert!(screen.contains(" Unmasked data.db, tenant.db: secrets"), "{screen}");
    change(&desk.data("other.db"));
    for args in [&[&raw[..], "--only", "other.db"][..], &["--latest"]] {
        let session = ask(args);
        let screen = session.wait_for_text("(y/N)");
        assert!(!screen.contains("secrets"), "{screen}");
        session.send("n\r");
        assert_eq!(session.wait_exit(), 130);
    }
}

#[test]
fn a_mark_stays_with_its_database_when_others_come_and_go() {
    let desk = Desk::new();
    desk.pull(&[]);
    let clean = desk.newest().name;
    desk.pull(&["--only", "data.db", "--no-sanitize", "--yes"]);
    assert_eq!(desk.marks_of_live(), ["data.db"]);
    let mixed = desk.newest().name;
    desk.pull(&["--only", "t*"]).stderr_has(" Unmasked data.db: secrets");
    assert_eq!(desk.marks_of_live(), ["data.db"]);
    desk.pull(&["--only", "data.db"]).stderr_lacks("nmasked");
    assert_eq!(desk.marks_of_live(), [""; 0]);
    desk.restore(&["--name", &mixed, "--only", "t*"]).stderr_lacks("nmasked");
    desk.restore(&["--name", &mixed]).stderr_has(" Unmasked data.db: secrets");
    desk.restore(&["--name", &clean, "--only", "t*"]);
    assert_eq!(desk.marks_of_live(), ["data.db"]);
    change(&desk.data("tenant.db"));
    // What the app's own setup leaves there is still what came.
    desk.env.xtask(["setup-db"]).ok();
    assert_eq!(marks(&desk.newest()), ["data.db"], "saved before");
    change(&desk.data("tenant.db"));
    assert_eq!(desk.marks_of_live(), ["data.db"]);
    desk.restore(&["--undo"]);
    assert_eq!(desk.marks_of_live(), ["data.db"]);

    // Gone with the database, and not back with another one.
    fs::remove_file(desk.env.production().join("data.db")).expect("remove");
    desk.pull(&["--no-backup", "--no-sanitize", "--yes"]);
    assert_eq!(desk.marks_of_live(), ALL);
    desk.pull(&[]).stderr_has("Removed data.db");
    databases::create(&desk.data("data.db"), 3, 9);
    databases::create_secrets(&desk.data("data.db"), 0, SECRET);
    assert_eq!(desk.marks_of_live(), [""; 0]);
    assert_marks_tell_the_truth(&desk.env);
}

#[test]
fn a_snapshot_of_the_same_bytes_is_no_substitute_for_a_marked_one_nor_the_reverse() {
    let desk = Desk::new();
    // What has rules that change nothing is no raw one.
    desk.env.db_toml(&RULES.replace("set = ", "where = '0'\nset = "));
    desk.pull(&[]);
    let unmarked = desk.newest().name;
    desk.env.db_toml(RULES);
    desk.pull(&RAW).stderr_has(&format!("Previous data: {unmarked}"));
    let marked = desk.newest().name;
    let is_saved = |restored: &str, held_by: Option<&str>| {
        let output = desk.restore(&["--name", restored]);
        match held_by {
            Some(name) => output.stderr_has(name).stderr_lacks("Saved the previous data"),
            None => output.stderr_has("Saved the previous data as"),
        };
        let saved = desk.newest();
        assert_eq!(saved.kind() == "before-restore", held_by.is_none());
        (marks(&saved), saved)
    };
    // The marked one holds what is live; without it, the unmarked one does not.
    is_saved(&unmarked, Some(&marked));
    is_saved(&marked, Some(&unmarked));
    fs::remove_dir_all(desk.data(&marked)).expect("remove");
    let (saved, again) = is_saved(&unmarked, None);
    assert_eq!(saved, ALL);
    fs::remove_dir_all(desk.data(&unmarked)).expect("remove");
    let (saved, _) = is_saved(&again.name, None);
    assert_eq!(saved, [""; 0]);
    assert_eq!(desk.marks_of_live(), ALL);
}

#[test]
fn where_there_are_no_rules_nothing_is_asked_and_nothing_marked() {
    let desk = Desk::new();
    desk.env.db_toml("");
    desk.pull(&["--no-sanitize"]).stderr_lacks("nmasked");
    assert_eq!(desk.marks_of_live(), [""; 0]);
    // Nor is what rules are not meant for.
    desk.env.db_toml("[[sanitize]]\ndatabase = 'data.db'\ntable = 'items'\ndelete = true\n");
    desk.pull(&RAW).stderr_has(" Unmasked data.db: secrets");
    assert_eq!(desk.marks_of_live(), ["data.db"]);
}

#[test]
fn what_a_killed_restore_leaves_half_done_is_marked_for_what_it_is() {
    if !can_trace() {
        return;
    }
    for to_raw in [true, false] {
        let desk = Desk::new();
        let (before, after) = if to_raw { (&[][..], &RAW[..]) } else { (&RAW[..], &[][..]) };
        desk.pull(before);
        let old = desk.newest().name;
        desk.pull(after);
        desk.restore(&["--name", &old]);
        change(&desk.data("data.db"));
        let restore = ["restore-db", "--latest", "--yes"];
        // Renamed are the save and data.db, and not tenant.db; other.db is the same in both.
        let kill = Injection { syscall: "rename", fault: Fault::Kill, nth: 3 };
        assert!(inject(&desk.env, &restore, &kill).killed());
        assert!(desk.data(".xtask/journal.json").exists());
        let half = if to_raw { "data.db" } else { "tenant.db" };
        assert_eq!(secrets(&desk.env.data(), ALL), [half], "half done");
        assert_eq!(marks(&desk.newest()), if to_raw { &[][..] } else { &ALL }, "saved before");
        for name in ALL {
            change(&desk.data(name));
        }
        desk.env.xtask(["snapshots", "create"]).ok().stderr_has("the writes since then are");
        let since =
            store::snapshots(&desk.env.data()).into_iter().rev().nth(1).expect("a snapshot");
        assert_eq!((since.kind(), marks(&since)), ("before-restore", vec![half.to_owned()]));
        assert_eq!(marks(&desk.newest()), if to_raw { &ALL[..] } else { &[] });
        assert_marks_tell_the_truth(&desk.env);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Pull(Vec<&'static str>),
    Restore(usize, Option<&'static str>),
    Undo,
    Setup,
    Remove(usize),
    /// A developer writes to a database, if it is there.
    Write(usize),
    /// A program has it open until it is closed.
    Open(usize),
    Close,
    /// Production loses a database, or has it again.
    Toggle,
    /// The next pull or restore is killed at this rename.
    Kill(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let only = || prop_oneof![Just(None), Just(Some("data.db")), Just(Some("t*"))];
    let pull = |(only, raw, no_backup): (Option<&'static str>, bool, bool)| {
        let mut args: Vec<_> = only.iter().flat_map(|only| ["--only", only]).collect();
        args.extend(RAW.iter().filter(|_| raw));
        args.extend(["--no-backup"].iter().filter(|_| no_backup));
        Step::Pull(args)
    };
    prop_oneof![
        6 => (only(), any::<bool>(), prop::bool::weighted(0.2)).prop_map(pull),
        5 => (0_usize..6, only()).prop_map(|(nth, only)| Step::Restore(nth, only)),
        2 => Just(Step::Undo),
        1 => Just(Step::Setup),
        2 => (0_usize..6).prop_map(Step::Remove),
        6 => (0_usize..2).prop_map(Step::Write),
        2 => (0_usize..2).prop_map(Step::Open),
        2 => Just(Step::Close),
        1 => Just(Step::Toggle),
        6 => (1_usize..6).prop_map(Step::Kill),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: depth(3, 300),
        max_shrink_iters: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_happens_exactly_what_has_secrets_is_marked(history in vec(step(), 4..16)) {
        let desk = Desk::new();
        let (mut opened, mut kill) = (None, None);
        desk.pull(&[]);
        desk.pull(&RAW);
        for step in history {
            let snapshots = store::snapshots(&desk.env.data());
            let nth = |nth: usize| (snapshots.iter().rev().nth(nth)).map(|it| it.name.as_str());
            let mut via = String::new();
            let args = match &step {
                Step::Pull(args) => desk.pull_args(args, &mut via),
                Step::Restore(n, only) => {
                    let Some(name) = nth(*n) else { continue };
                    let only = only.iter().flat_map(|only| ["--only", only]);
                    ["restore-db", "--yes", "--name", name].into_iter().chain(only).collect()
                }
                Step::Undo => vec!["restore-db", "--yes", "--undo"],
                Step::Setup => vec!["setup-db", "--force"],
                Step::Remove(n) => {
                    let Some(name) = nth(*n) else { continue };
                    vec!["snapshots", "rm", "--yes", name]
                }
                Step::Write(i) => {
                    if desk.data(ALL[*i]).exists() {
                        change(&desk.data(ALL[*i]));
                    }
                    continue;
                }
                Step::Open(i) => {
                    let path = desk.data(ALL[*i]);
                    if path.exists() {
                        change(&path);
                        let program = Connection::open(&path).expect("open");
                        program.execute_batch("SELECT count(*) FROM items").expect("a query");
                        opened = Some(program);
                    }
                    continue;
                }
                Step::Close => {
                    opened = None;
                    continue;
                }
                Step::Toggle => {
                    let (here, away) = (desk.env.production().join(ALL[0]), desk.env.path("away"));
                    let (from, to) = if here.exists() { (here, away) } else { (away, here) };
                    fs::rename(from, to).expect("rename");
                    continue;
                }
                Step::Kill(n) => {
                    kill = Some(*n).filter(|_| can_trace());
                    continue;
                }
            };
            let injection = |nth| Injection { syscall: "rename", fault: Fault::Kill, nth };
            let output = match kill.take() {
                Some(nth) => inject(&desk.env, &args, &injection(nth)).output,
                None => desk.env.xtask(&args),
            };
            let failed = output.code.is_some_and(|code| code != 0);
            // There may be no way back, nothing to pull, and no way to remove what is open.
            let may_fail = args[0] == "restore-db" || args.contains(&"--only") || opened.is_some();
            prop_assert!(!failed || may_fail, "{}", output);
            assert_marks_tell_the_truth(&desk.env);
        }
        drop(opened);
        desk.env.xtask(["snapshots", "create"]).ok();
        assert_marks_tell_the_truth(&desk.env);
    }
}
