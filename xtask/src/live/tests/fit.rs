//! Writing the pages of one database into another that a program has open.

use super::open::{MODES, assert_refused, make, program, says, snapshot_of, text};
use super::*;

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
                    let size = |path: &Path| path.metadata().unwrap().len();
                    if mode == "DELETE" {
                        let pulled = size(&snapshot.path.join("a.db"));
                        assert_eq!(size(&env.path("a.db")), pulled, "{what}");
                    }
                    app.execute_batch(
                        "INSERT INTO t (said) SELECT said || 'x' FROM t; DELETE FROM t WHERE id % 2;
                         PRAGMA incremental_vacuum",
                    )
                    .unwrap();
                    assert_eq!(text(&app, "PRAGMA integrity_check"), "ok", "{what}, then written");
                    let saved = env.path(&replaced.before.unwrap().name).join("a.db");
                    assert!(text(&Connection::open(saved).unwrap(), dump) == old_rows, "{what}");
                    app.execute_batch("DELETE FROM t; VACUUM").unwrap();
                    drop(app);
                    let left = env.path("a.db").metadata().unwrap().len();
                    assert!(left < 30_000, "{what}: {left} bytes of nothing");
                }
            }
        }
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
        ("", "WAL", "the new database is empty"),
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
fn how_a_database_is_journalled_stays() {
    for (live, new) in [("wal", "delete"), ("delete", "wal")] {
        let env = Env::new();
        let snapshot = snapshot_of(
            &env,
            &format!(
                "PRAGMA journal_mode = {new}; CREATE TABLE t (said); INSERT INTO t VALUES (1)"
            ),
        );
        let app = program(&env, "a.db", live);
        env.replace(&snapshot);
        assert_eq!(says(&app), "1");
        let second = open(&env.path("a.db"), "INSERT INTO t VALUES (2)");
        assert_eq!(says(&app), "1,2");
        drop((app, second));
        assert_eq!(text(&open(&env.path("a.db"), ""), "PRAGMA journal_mode"), live);
    }
}

#[test]
fn a_size_that_old_versions_of_sqlite_do_not_record_is_recorded() {
    let env = Env::new();
    let snapshot =
        snapshot_of(&env, "CREATE TABLE t (said); INSERT INTO t VALUES (hex(randomblob(20000)))");
    // Old versions of SQLite do not record the page count, nor the version that wrote it.
    let path = snapshot.path.join("a.db");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[28..32].copy_from_slice(&1_u32.to_be_bytes());
    bytes[92..96].fill(0);
    std::fs::write(&path, bytes).unwrap();
    let app = program(&env, "a.db", "WAL");
    env.replace(&snapshot);
    assert_eq!(text(&app, "PRAGMA integrity_check"), "ok");
    assert_eq!(text(&app, "SELECT length(said) || '' FROM t"), "40000");
}

#[test]
fn what_follows_the_last_page_is_no_part_of_the_new_database() {
    for mode in MODES {
        let env = Env::new();
        let table = "CREATE TABLE t (said); INSERT INTO t VALUES ('new')";
        let snapshot = snapshot_of(&env, table);
        let path = snapshot.path.join("a.db");
        let file = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&file[..], &[0x55; 3 * 4096]].concat()).unwrap();
        let app = program(&env, "a.db", mode);
        env.replace(&snapshot);
        assert_eq!(says(&app), "new", "{mode}");
        assert_eq!(text(&app, "PRAGMA integrity_check"), "ok", "{mode}");
    }
}

#[test]
fn any_schema_cookie_tells_whether_a_killed_run_has_committed() {
    let cookies = [1, 1 << 30, i32::MAX, i32::MIN, -1_000_000_000, -1];
    for (old, new) in cookies.into_iter().flat_map(|old| cookies.map(|new| (old, new))) {
        let env = Env::new();
        let made = |table: &str, cookie: i32| {
            format!(
                "CREATE TABLE t (said); CREATE TABLE {table} (a); PRAGMA schema_version = {cookie}"
            )
        };
        make(&env.path("a.db"), &made("x", old));
        let snapshot = snapshot_of(&env, &made("y", new));
        let app = open(&env.path("a.db"), "PRAGMA journal_mode = WAL; SELECT * FROM x");
        let (path, staged) = (env.path("a.db"), env.state(STAGED).join("a.db"));
        let install = vec!["a.db".to_owned()];
        stage(&snapshot, &install, &env.state(STAGED)).unwrap();
        let written = || {
            let mut locked = env.live.open_and_lock(&[], &install).unwrap();
            locked_db::lock(&mut locked, env.live.ui, Duration::ZERO).unwrap();
            save::write(&mut locked, None).unwrap();
            locked
        };
        let is_done = || shared_db::is_done(&path, &staged, Duration::ZERO).unwrap();
        drop(written());
        for i in 0..1100 {
            app.execute_batch(&format!("CREATE TABLE z{i} (a)")).unwrap();
            if i == 2 && (old, new) != (1, 1) {
                break;
            }
        }
        assert!(!is_done(), "{old}, {new}");
        let locked = written();
        let kept = std::fs::read(&staged).unwrap();
        locked_db::install(env.live.sh, locked).unwrap();
        std::fs::write(&staged, kept).unwrap();
        assert!(is_done(), "{old}, {new}");
        app.execute_batch("SELECT * FROM y").unwrap();
    }
}
