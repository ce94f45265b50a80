//! Replacing a set that a program has open.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use super::*;

pub(super) const MODES: [&str; 4] = ["WAL", "DELETE", "TRUNCATE", "PERSIST"];

/// Creates a database and closes it.
pub(super) fn make(path: &Path, sql: &str) {
    let _ = std::fs::remove_file(path);
    drop(open(path, sql));
}

pub(super) fn program(env: &Env, name: &str, mode: &str) -> Connection {
    open(&env.path(name), &format!("PRAGMA journal_mode = {mode}; INSERT INTO t VALUES ('app')"))
}

pub(super) fn text(db: &Connection, sql: &str) -> String {
    db.query_row(sql, [], |row| row.get(0)).unwrap()
}

pub(super) fn says(db: &Connection) -> String {
    text(db, "SELECT group_concat(said) FROM t")
}

/// A snapshot whose a.db is made by `sql`.
pub(super) fn snapshot_of(env: &Env, sql: &str) -> Snapshot {
    let snapshot = env.pulled(&["a.db", "b.db"], None);
    make(&snapshot.path.join("a.db"), sql);
    let mut meta = snapshot.meta.clone().unwrap();
    meta.databases[0] = describe(&snapshot.path, "a.db", false, None).unwrap();
    fs::write(&snapshot.path.join("snapshot.json"), &serde_json::to_vec(&meta).unwrap()).unwrap();
    env.live.store.find(&snapshot.name).unwrap()
}

/// Asserts that replacing by `snapshot` fails for this reason, and changes nothing.
#[track_caller]
pub(super) fn assert_refused(env: &Env, snapshot: &Snapshot, why: &str) {
    let dir = &env.live.store.dir;
    let content = |name: &str| {
        let scratch = tempfile::tempdir().unwrap();
        let copy = scratch.path().join("x.db");
        sqlite::backup(&sqlite::pin(&dir.join(name)).unwrap(), &copy).unwrap();
        std::fs::read(copy).unwrap()
    };
    let before = ["a.db", "b.db"].map(content);
    let error = env.run(&env.replacement(snapshot)).err().unwrap();
    let message = format!("{error:#}");
    assert!(message.contains(why) && message.contains("nothing was changed"), "{message}");
    assert!(crate::error::hint(&error).is_some());
    assert!(["a.db", "b.db"].map(content) == before);
    assert!(env.is_clean());
    assert_eq!(env.live.store.list().unwrap().len(), 1, "nothing was saved for nothing");
}

#[test]
fn a_program_sees_the_new_data_at_its_next_query() {
    for mode in MODES {
        let env = Env::new();
        let snapshot = env.pulled(&["a.db", "b.db"], None);
        let app = program(&env, "b.db", mode);
        let replaced = env.replace(&snapshot);
        assert_eq!(says(&app), "new b.db", "{mode}");
        // Other tests fork, and a child has inherited files open for a moment.
        let own = format!("(process {})", std::process::id());
        assert!(replaced.programs.iter().any(|program| program.ends_with(&own)), "{mode}");
        app.execute_batch("INSERT INTO t VALUES ('since')").unwrap();
        drop(app);
        assert_eq!(env.said("b.db"), "new b.db,since", "{mode}");
        assert_eq!(env.said("a.db"), "new a.db", "{mode}");
        let saved = env.live.store.find(&replaced.before.unwrap().name).unwrap();
        assert_eq!(said(&saved.path.join("b.db")), "old b.db,app", "{mode}");
        assert!(env.is_clean());
    }
}

#[test]
fn a_reader_keeps_what_it_reads_or_is_waited_for() {
    let env = Env::new();
    let snapshot = env.pulled(&["a.db", "b.db"], None);
    let app = program(&env, "a.db", "WAL");
    app.execute_batch("BEGIN; SELECT * FROM t").unwrap();
    env.replace(&snapshot);
    assert_eq!(says(&app), "old a.db,app");
    let error = app.execute_batch("INSERT INTO t VALUES ('late')").unwrap_err();
    assert!(sqlite::is_busy(&error), "it has read what is no more: {error}");
    app.execute_batch("COMMIT").unwrap();
    assert_eq!(says(&app), "new a.db");
    drop(app);

    let env = Env::new();
    let snapshot = env.pulled(&["a.db", "b.db"], None);
    let app = program(&env, "a.db", "DELETE");
    app.execute_batch("BEGIN; SELECT * FROM t").unwrap();
    assert_refused(&env, &snapshot, "a.db was locked by ");
    app.execute_batch("COMMIT").unwrap();
    env.replace(&snapshot);
    assert_eq!(says(&app), "new a.db");
}

#[test]
fn a_writer_that_does_not_end_stops_all_of_it() {
    for mode in MODES {
        let env = Env::new();
        let snapshot = env.pulled(&["a.db", "b.db"], None);
        let (first, app) = (program(&env, "a.db", mode), program(&env, "b.db", mode));
        app.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES ('half')").unwrap();
        assert_refused(&env, &snapshot, "b.db was locked by ");
        app.execute_batch("INSERT INTO t VALUES ('other half'); COMMIT").unwrap();
        first.execute_batch("INSERT INTO t VALUES ('at once')").unwrap();
        let replaced = env.replace(&snapshot);
        assert_eq!((says(&first), says(&app)), ("new a.db".into(), "new b.db".into()));
        let saved = env.path(&replaced.before.unwrap().name);
        assert_eq!(said(&saved.join("a.db")), "old a.db,app,at once");
        assert_eq!(said(&saved.join("b.db")), "old b.db,app,half,other half");
    }
}

#[test]
fn a_writer_that_ends_in_time_is_waited_for() {
    let mut env = Env::new();
    env.live.wait = Duration::from_secs(60);
    let snapshot = env.pulled(&["a.db", "b.db"], None);
    let app = program(&env, "b.db", "WAL");
    app.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES ('late')").unwrap();
    // The program ends at the last step of the replacement, when the copies exist.
    let state = env.live.store.state_dir();
    let saving = move || {
        let entries = state.read_dir().unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.join("b.db").exists()).count() > 1
    };
    let app = std::thread::spawn(move || {
        while !saving() {
            std::thread::yield_now();
        }
        app.execute_batch("COMMIT").unwrap();
    });
    let replaced = env.replace(&snapshot);
    app.join().unwrap();
    assert_eq!(env.said("b.db"), "new b.db");
    let saved = env.live.store.find(&replaced.before.unwrap().name).unwrap();
    assert_eq!(said(&saved.path.join("b.db")), "old b.db,app,late");
    for database in saved.meta.unwrap().databases {
        let hash = fs::sha256(&saved.path.join(&database.name)).unwrap();
        assert_eq!(database.sha256, Some(hash), "also of what changed while it was saved");
    }
}

#[test]
fn every_write_that_was_accepted_is_in_the_save_or_in_the_new_data() {
    for mode in MODES {
        let mut env = Env::new();
        env.live.wait = Duration::from_secs(60);
        let big = "INSERT INTO t SELECT hex(randomblob(2000)) FROM n";
        let many = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)";
        drop(open(&env.path("a.db"), &format!("PRAGMA journal_mode = {mode}; {many} {big}")));
        let snapshot = env.pulled(&["a.db", "b.db"], None);
        let path = env.path("a.db");
        let (begun, done) = (AtomicBool::new(false), AtomicBool::new(false));
        let (accepted, replaced) = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let app = open(&path, "PRAGMA synchronous = OFF");
                app.busy_timeout(Duration::from_secs(60)).unwrap();
                let mut accepted = Vec::new();
                for i in 0.. {
                    let number = format!("write {i}");
                    app.execute("INSERT INTO t VALUES (?1)", [&number]).unwrap();
                    accepted.push(number);
                    begun.store(true, SeqCst);
                    if done.load(SeqCst) {
                        break;
                    }
                }
                accepted
            });
            while !begun.load(SeqCst) {
                std::thread::yield_now();
            }
            let replaced = env.replace(&snapshot);
            done.store(true, SeqCst);
            (writer.join().unwrap(), replaced)
        });
        let saved = env.path(&replaced.before.unwrap().name).join("a.db");
        let lines = |path: &Path| {
            let db = Connection::open(path).unwrap();
            let mut select = db.prepare("SELECT said FROM t WHERE said LIKE 'write %'").unwrap();
            let rows = select.query_map([], |row| row.get::<_, String>(0)).unwrap();
            rows.map(Result::unwrap).collect::<Vec<_>>()
        };
        let found: Vec<_> = lines(&saved).into_iter().chain(lines(&path)).collect();
        assert!(found == accepted, "{mode}: {} of {}", found.len(), accepted.len());
    }
}

#[test]
fn what_a_killed_run_has_changed_under_a_program_keeps_what_was_written_since() {
    for mode in MODES {
        let mut env = Env::new();
        let snapshot = env.pulled(&["a.db", "b.db"], None);
        let (a, b) = (program(&env, "a.db", mode), program(&env, "b.db", mode));
        // The state after a run that was killed between the commits of a.db and b.db.
        let install = ["a.db", "b.db"].map(String::from).to_vec();
        stage(&snapshot, &install, &env.state(STAGED)).unwrap();
        let mut locked = env.live.open_and_lock(&[], &install).unwrap();
        let mut copies = env
            .live
            .saver()
            .copy(Kind::BeforePull, env.live.databases().unwrap(), &mut locked)
            .unwrap();
        locked_db::lock(&mut locked, env.live.ui, Duration::ZERO).unwrap();
        let in_place = save::write(&mut locked, copies.as_mut()).unwrap();
        let before =
            Some(env.live.saver().keep(copies.unwrap(), Kind::BeforeRestore).unwrap().name);
        let live = Some(snapshot.name.clone());
        let state = State { live, before, ..State::default() };
        let journal = Journal { install, remove: Vec::new(), in_place, save: true, state };
        journal.write(&env.live.store).unwrap();
        let kept = std::fs::read(env.state(STAGED).join("a.db")).unwrap();
        let killed = locked.pop().unwrap();
        locked.pop().unwrap().install(false).unwrap();
        std::fs::write(env.state(STAGED).join("a.db"), kept).unwrap();
        drop(killed);

        a.execute_batch("INSERT INTO t VALUES ('since'); CREATE TABLE u (a)").unwrap();
        b.execute_batch("INSERT INTO t VALUES ('since')").unwrap();
        // While a.db is locked, its cookie cannot be read; the recovery waits.
        env.live.wait = Duration::from_secs(60);
        a.execute_batch("BEGIN EXCLUSIVE").unwrap();
        let a = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            a.execute_batch("COMMIT").unwrap();
            a
        });
        env.live.recover().unwrap();
        let a = a.join().unwrap();
        assert_eq!((says(&a), says(&b)), ("new a.db,since".into(), "new b.db".into()), "{mode}");
        let newest = env.live.store.list().unwrap().remove(0);
        assert_eq!(said(&newest.path.join("b.db")), "old b.db,app,since", "{mode}");
        assert!(env.is_clean());
    }
}

/// Replaces a.db by `snapshot`, and calls `between` when the set has been copied and compared but
/// is not locked yet. Returns the path of the save.
fn replace_around(env: &Env, snapshot: &Snapshot, between: impl FnOnce()) -> PathBuf {
    let install = vec!["a.db".to_owned()];
    stage(snapshot, &install, &env.state(STAGED)).unwrap();
    let mut locked = env.live.open_and_lock(&[], &install).unwrap();
    let mut copies = env
        .live
        .saver()
        .copy(Kind::BeforePull, env.live.databases().unwrap(), &mut locked)
        .unwrap();
    let reader = &locked[0].access.shared().unwrap().reader;
    // In a rollback mode a program can only write without a reader, which is closed before the
    // lock.
    if text(reader, "PRAGMA journal_mode") != "wal" {
        reader.execute_batch("COMMIT; BEGIN").unwrap();
    }
    between();
    locked_db::lock(&mut locked, env.live.ui, Duration::ZERO).unwrap();
    let in_place = save::write(&mut locked, copies.as_mut()).unwrap();
    let saved = env.live.saver().keep(copies.unwrap(), Kind::BeforeRestore).unwrap().name;
    let (live, before) = (Some(snapshot.name.clone()), Some(saved.clone()));
    let state = State { live, before, ..State::default() };
    let journal = Journal { install, remove: Vec::new(), in_place, save: true, state };
    journal.write(&env.live.store).unwrap();
    journal.commit(&env.live.store, env.live.sh, locked).unwrap();
    env.path(&saved).join("a.db")
}

#[test]
fn what_a_program_does_at_the_last_moment_is_saved_and_replaced() {
    let rows = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60)
                INSERT INTO t SELECT hex(randomblob(1000)) FROM n";
    let table = "CREATE TABLE t (said)";
    for mode in MODES {
        for change in [
            "",
            "INSERT INTO t VALUES ('one more')",
            "DELETE FROM t WHERE rowid > 3; VACUUM",
            "INSERT INTO t SELECT said || 'x' FROM t; CREATE TABLE u (a)",
            "UPDATE t SET said = 'short'; VACUUM; INSERT INTO t SELECT hex(randomblob(3000)) FROM t",
        ] {
            let env = Env::new();
            make(&env.path("a.db"), &format!("{table}; {rows}"));
            let snapshot = snapshot_of(&env, &format!("{table}; {rows}; {rows}"));
            let app = open(&env.path("a.db"), &format!("PRAGMA journal_mode = {mode}"));
            let all = "SELECT count(*) || group_concat(said) FROM t";
            let mut last = String::new();
            let saved = replace_around(&env, &snapshot, || {
                app.execute_batch(change).unwrap();
                last = text(&app, all);
            });
            let what = format!("{mode}: {change}");
            for (path, rows) in [
                (&saved, last),
                (&env.path("a.db"), text(&open(&snapshot.path.join("a.db"), ""), all)),
            ] {
                let db = open(path, "");
                assert!(text(&db, all) == rows, "{what}");
                assert_eq!(text(&db, "PRAGMA integrity_check"), "ok", "{what}");
            }
            let pages = |path: &Path| {
                open(path, "").pragma_query_value(None, "page_count", |row| row.get::<_, u32>(0))
            };
            assert_eq!(
                saved.metadata().unwrap().len(),
                u64::from(pages(&saved).unwrap()) * 4096,
                "{what}"
            );
        }
    }
}

#[test]
fn ten_programs_go_on_at_once() {
    let env = Env::new();
    let snapshot = env.pulled(&["a.db", "b.db"], None);
    let apps: Vec<_> = (0..10).map(|i| program(&env, ["a.db", "b.db"][i % 2], "WAL")).collect();
    env.replace(&snapshot);
    for (i, app) in apps.iter().enumerate() {
        assert_eq!(says(app), ["new a.db", "new b.db"][i % 2]);
    }
}

#[test]
fn a_link_to_a_database_elsewhere_stays_one() {
    use std::os::unix::ffi::OsStringExt as _;
    let env = Env::new();
    let snapshot = env.pulled(&["a.db", "b.db"], None);
    // SQLite reports paths as text, which this path is not.
    let elsewhere = tempfile::tempdir().unwrap();
    let name = std::ffi::OsString::from_vec(b"not \xff UTF-8.db".to_vec());
    let real = elsewhere.path().join(name);
    std::fs::rename(env.path("a.db"), &real).unwrap();
    std::os::unix::fs::symlink(&real, env.path("a.db")).unwrap();
    let app = program(&env, "a.db", "WAL");
    let replaced = env.replace(&snapshot);
    assert_eq!(says(&app), "new a.db");
    assert!(env.path("a.db").is_symlink());
    let saved = env.path(&replaced.before.unwrap().name).join("a.db");
    assert_eq!(said(&saved), "old a.db,app");
}

#[test]
fn what_was_the_same_until_a_program_cut_it_off_comes_back() {
    for mode in MODES {
        let env = Env::new();
        make(
            &env.path("a.db"),
            "CREATE TABLE t (said); WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60)
             INSERT INTO t SELECT hex(randomblob(1000)) FROM n",
        );
        let app = open(&env.path("a.db"), &format!("PRAGMA journal_mode = {mode}"));
        let snapshot = env.save(Kind::Manual).unwrap();
        let snapshot = env.live.store.find(&snapshot.name).unwrap();
        let before = says(&app);
        replace_around(&env, &snapshot, || {
            app.execute_batch("DELETE FROM t WHERE rowid > 3; VACUUM").unwrap();
        });
        assert!(says(&app) == before, "{mode}");
        assert_eq!(text(&app, "PRAGMA integrity_check"), "ok", "{mode}");
    }
}
