//! A set that a program has open while it is replaced.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use super::*;

const MODES: [&str; 4] = ["WAL", "DELETE", "TRUNCATE", "PERSIST"];

/// Makes a database, whose writer is gone.
fn make(path: &Path, sql: &str) {
    let _ = std::fs::remove_file(path);
    drop(open(path, sql));
}

fn program(env: &Env, name: &str, mode: &str) -> Connection {
    open(&env.path(name), &format!("PRAGMA journal_mode = {mode}; INSERT INTO t VALUES ('app')"))
}

fn text(db: &Connection, sql: &str) -> String {
    db.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn says(db: &Connection) -> String {
    text(db, "SELECT group_concat(said) FROM t")
}

/// A snapshot whose a.db is made by `sql`.
fn snapshot_of(env: &Env, sql: &str) -> Snapshot {
    let snapshot = env.pulled(&["a.db", "b.db"], None);
    make(&snapshot.path.join("a.db"), sql);
    let mut meta = snapshot.meta.clone().unwrap();
    meta.databases[0] = describe(&snapshot.path.join("a.db"), false, None).unwrap();
    durable::write(&snapshot.path.join("snapshot.json"), &serde_json::to_vec(&meta).unwrap())
        .unwrap();
    env.live.store.find(&snapshot.name).unwrap()
}

/// Replacing by `snapshot` is refused for this reason, and changes nothing.
#[track_caller]
fn assert_refused(env: &Env, snapshot: &Snapshot, why: &str) {
    let dir = &env.live.store.dir;
    let content = |name: &str| {
        let copy = tempfile::tempdir().unwrap().keep().join("x.db");
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
        assert_eq!(replaced.programs.len(), 1, "{mode}");
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
fn another_schema_with_the_same_cookie_is_noticed() {
    for mode in MODES {
        let env = Env::new();
        let tables = |first: &str, second: &str| {
            format!(
                "CREATE TABLE {first} (v); CREATE TABLE {second} (v);
                 INSERT INTO x VALUES ('in x'); INSERT INTO y VALUES ('in y')"
            )
        };
        make(&env.path("a.db"), &tables("x", "y"));
        let snapshot = snapshot_of(&env, &tables("y", "x"));
        let app = open(&env.path("a.db"), &format!("PRAGMA journal_mode = {mode}"));
        let cookie = |db: &Connection| {
            db.pragma_query_value(None, "schema_version", |row| row.get::<_, i64>(0)).unwrap()
        };
        let new = Connection::open(snapshot.path.join("a.db")).unwrap();
        assert_eq!(cookie(&app), cookie(&new), "else it would be noticed anyway");
        drop(new);
        let mut select = app.prepare("SELECT v FROM x").unwrap();
        let mut insert = app.prepare("INSERT INTO x VALUES ('more')").unwrap();
        assert_eq!(select.query_row([], |row| row.get::<_, String>(0)).unwrap(), "in x");
        env.replace(&snapshot);
        assert_eq!(select.query_row([], |row| row.get::<_, String>(0)).unwrap(), "in x", "{mode}");
        insert.execute([]).unwrap();
        assert_eq!(text(&app, "SELECT group_concat(v) FROM x"), "in x,more", "{mode}");
        assert_eq!(text(&app, "SELECT group_concat(v) FROM y"), "in y", "{mode}");
        assert_eq!(text(&app, "PRAGMA integrity_check"), "ok");
    }
}

#[test]
fn larger_and_smaller_databases_of_any_auto_vacuum_fit_into_each_other() {
    let made = |vacuum: u32, rows: u32, deleted: u32| {
        format!(
            "PRAGMA auto_vacuum = {vacuum}; CREATE TABLE t (id INTEGER PRIMARY KEY, said);
             CREATE INDEX i ON t (said);
             WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
             INSERT INTO t SELECT i, hex(randomblob(300)) || hex(zeroblob(i % 9 * 700)) FROM n;
             DELETE FROM t WHERE id % 3 < {deleted}"
        )
    };
    for mode in ["WAL", "DELETE"] {
        for old in 0..3 {
            for new in 0..3 {
                for (before, after) in [(40, 150), (150, 40)] {
                    let env = Env::new();
                    make(&env.path("a.db"), &made(old, before, 1));
                    let snapshot = snapshot_of(&env, &made(new, after, 2));
                    let app = open(&env.path("a.db"), &format!("PRAGMA journal_mode = {mode}"));
                    let what = format!("{mode}, auto_vacuum {old} to {new}, {before} to {after}");
                    let dump = "SELECT group_concat(id || said) FROM t";
                    let old_rows = text(&app, dump);
                    let replaced = env.replace(&snapshot);
                    let pulled = Connection::open(snapshot.path.join("a.db")).unwrap();
                    assert!(text(&app, dump) == text(&pulled, dump), "{what}");
                    assert_eq!(text(&app, "PRAGMA integrity_check"), "ok", "{what}");
                    app.execute_batch(
                        "INSERT INTO t (said) SELECT said || 'x' FROM t; DELETE FROM t WHERE id % 2;
                         PRAGMA incremental_vacuum",
                    )
                    .unwrap();
                    assert_eq!(text(&app, "PRAGMA integrity_check"), "ok", "{what}, then written");
                    let saved = env.path(&replaced.before.unwrap().name).join("a.db");
                    assert!(text(&Connection::open(saved).unwrap(), dump) == old_rows, "{what}");
                }
            }
        }
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
    // It ends when the replacement is at its last: the copies are there.
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
        let hash = durable::sha256(&saved.path.join(&database.name)).unwrap();
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
fn what_sqlite_cannot_change_under_a_program_is_refused() {
    let page_size = "PRAGMA page_size = 8192; CREATE TABLE t (said); INSERT INTO t VALUES ('8k')";
    let utf16 = "PRAGMA encoding = 'UTF-16'; CREATE TABLE t (said)";
    for (sql, mode, why) in [
        (page_size, "WAL", "another page size"),
        (utf16, "WAL", "another text encoding"),
        (utf16, "DELETE", "another text encoding"),
        ("", "WAL", "the new one is empty"),
    ] {
        let env = Env::new();
        let snapshot = snapshot_of(&env, sql);
        let app = program(&env, "a.db", mode);
        assert_refused(&env, &snapshot, why);
        assert_eq!(says(&app), "old a.db,app");
    }
    let env = Env::new();
    let snapshot = env.pulled(&["a.db"], None);
    let app = program(&env, "b.db", "WAL");
    assert_refused(&env, &snapshot, "the new set does not have it");
    assert_eq!(says(&app), "old b.db,app");
}

#[test]
fn another_page_size_fits_where_there_is_no_wal() {
    for (old, new) in [(4096, 1024), (512, 65536), (8192, 4096)] {
        let env = Env::new();
        let sized = |size: u32, said: &str| {
            format!(
                "PRAGMA page_size = {size}; CREATE TABLE t (said); INSERT INTO t VALUES ('{said}')"
            )
        };
        make(&env.path("a.db"), &sized(old, "old a.db"));
        let snapshot = snapshot_of(&env, &sized(new, "new a.db"));
        let app = program(&env, "a.db", "DELETE");
        let replaced = env.replace(&snapshot);
        assert_eq!(says(&app), "new a.db", "{old} to {new}");
        app.execute_batch("INSERT INTO t VALUES ('since')").unwrap();
        drop(app);
        assert_eq!(env.said("a.db"), "new a.db,since");
        let saved = env.path(&replaced.before.unwrap().name).join("a.db");
        assert_eq!(said(&saved), "old a.db,app");
    }
}

#[test]
fn what_a_killed_run_has_changed_under_a_program_keeps_what_was_written_since() {
    for mode in MODES {
        let env = Env::new();
        let snapshot = env.pulled(&["a.db", "b.db"], None);
        let (a, b) = (program(&env, "a.db", mode), program(&env, "b.db", mode));
        // As far as a run gets that is killed between the commits of a.db and b.db.
        let install = ["a.db", "b.db"].map(String::from).to_vec();
        stage(&snapshot, &install, &env.state(STAGED)).unwrap();
        let mut held = env.live.hold(&[], &install).unwrap();
        let mut copies = env.live.copy(&mut held).unwrap();
        hold::lock(&mut held, Duration::ZERO).unwrap();
        let in_place = hold::write(&mut held, copies.as_mut()).unwrap();
        let before = Some(env.live.keep(copies.unwrap(), Kind::BeforeRestore).unwrap().name);
        let state = State { live: Some(snapshot.name.clone()), before };
        let journal = Journal { install, remove: Vec::new(), in_place, state };
        journal.write(&env.live.store).unwrap();
        let kept = std::fs::read(env.state(STAGED).join("a.db")).unwrap();
        let killed = held.pop().unwrap();
        held.pop().unwrap().install().unwrap();
        std::fs::write(env.state(STAGED).join("a.db"), kept).unwrap();
        drop(killed);

        a.execute_batch("INSERT INTO t VALUES ('since'); CREATE TABLE u (a)").unwrap();
        b.execute_batch("INSERT INTO t VALUES ('since')").unwrap();
        env.live.recover().unwrap();
        assert_eq!((says(&a), says(&b)), ("new a.db,since".into(), "new b.db".into()), "{mode}");
        let newest = env.live.store.list().unwrap().remove(0);
        assert_eq!(said(&newest.path.join("b.db")), "old b.db,app,since", "{mode}");
        assert!(env.is_clean());
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
    // No text, as SQLite's own account of the path would have it.
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
