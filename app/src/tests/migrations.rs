use std::path::Path;

use rusqlite::Connection;

use super::{assert_sound, column, count, schema};
use crate::migrate::{Kind, Migration, Versions, migrate, user_version};
use crate::{migrate_file, store};

const KINDS: [(Kind, &str); 2] = [(Kind::Shared, "shared"), (Kind::Tenant, "tenant")];

fn memory() -> Connection {
    Connection::open_in_memory().unwrap()
}

#[test]
fn every_file_is_in_the_table_and_in_order() {
    for (kind, dir) in KINDS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(dir);
        let mut files: Vec<String> = std::fs::read_dir(path)
            .unwrap()
            .map(|file| format!("app/migrations/{dir}/{}", file.unwrap().file_name().display()))
            .collect();
        files.sort();
        let table: Vec<&str> = kind.migrations().iter().map(|migration| migration.file).collect();
        assert_eq!(table, files);
        for (number, file) in (1..).zip(table) {
            assert!(file.contains(&format!("/{number:04}_")), "{file} is number {number}");
        }
    }
}

#[test]
fn every_version_reaches_the_newest_and_stays_there() {
    for (kind, _) in KINDS {
        let newest = kind.migrations().len();
        let mut fresh = memory();
        migrate(&mut fresh, kind.migrations()).unwrap();
        for from in 0..=newest {
            let mut conn = memory();
            migrate(&mut conn, &kind.migrations()[..from]).unwrap();
            assert_eq!(user_version(&conn).unwrap(), from);
            assert_eq!(
                migrate(&mut conn, kind.migrations()).unwrap(),
                Versions { from, to: newest }
            );
            assert_eq!(schema(&conn), schema(&fresh));
            assert_sound(&conn);

            let before = conn.total_changes();
            assert_eq!(
                migrate(&mut conn, kind.migrations()).unwrap(),
                Versions { from: newest, to: newest }
            );
            assert_eq!(conn.total_changes(), before);
        }
    }
}

#[test]
fn rows_older_than_the_search_are_found() {
    let mut conn = memory();
    migrate(&mut conn, &Kind::Tenant.migrations()[..2]).unwrap();
    conn.execute_batch(
        "INSERT INTO repositories (id, name) VALUES (1, 'api');
         INSERT INTO pull_requests (repository_id, number, title, body, author) VALUES (1, 1, 'Fix the parser', '', 'ada')",
    )
    .unwrap();
    migrate(&mut conn, Kind::Tenant.migrations()).unwrap();
    assert_eq!(
        count(
            &conn,
            "SELECT count(*) FROM pull_requests_fts WHERE pull_requests_fts MATCH 'parser'"
        ),
        1
    );
}

/// The message of a second migration with this SQL, after which the first is still there.
fn failure(sql: &'static str) -> String {
    let first = Migration {
        file: "0001_a.sql",
        sql: "CREATE TABLE a (id INTEGER PRIMARY KEY, x UNIQUE REFERENCES a);",
    };
    let second = Migration { file: "0002_b.sql", sql };
    let mut conn = memory();
    let error = migrate(&mut conn, &[first, second]).unwrap_err();
    assert_eq!(user_version(&conn).unwrap(), 1);
    assert_eq!(column(&conn, "SELECT name FROM sqlite_schema WHERE type = 'table'"), ["a"]);
    format!("{error:#}")
}

#[test]
fn an_error_names_the_file_and_the_line_and_undoes_the_file() {
    let at = "the migration stopped at user_version 1; what 0002_b.sql did is undone: 0002_b.sql";
    assert_eq!(
        failure("CREATE TABLE b (x);\n\nINSERT INTO b\n  VALUES (nope);"),
        format!("{at}:4: no such column: nope")
    );
    assert_eq!(
        failure("CREATE TABLE b (x);\n-- Twice.\n\nCREATE TABLE a (x);\n"),
        format!("{at}:4: table a already exists")
    );
    assert_eq!(
        failure("INSERT INTO a VALUES (1, NULL);\n\n-- Same key.\nINSERT INTO a VALUES (1, NULL);"),
        format!("{at}:4: UNIQUE constraint failed: a.id: Error code 1555: constraint failed")
    );
    assert_eq!(
        failure("CREATE TABLE b (x);\nINSERT INTO a VALUES (1, 7);"),
        format!("{at}: leaves rows of a that refer to nothing")
    );
}

#[test]
fn a_database_of_a_newer_build_is_refused() {
    let mut conn = memory();
    conn.pragma_update(None, "user_version", 99).unwrap();
    let error = migrate(&mut conn, Kind::Shared.migrations()).unwrap_err();
    assert_eq!(error.to_string(), "its user_version is 99, this build knows 3: update the app");
}

#[test]
fn the_kind_of_a_file_is_told_by_name_then_tables_then_flag() {
    let dir = tempfile::tempdir().unwrap();
    let empty = |name: &str| {
        let path = dir.path().join(name);
        drop(Connection::open(&path).unwrap());
        path
    };
    let has =
        |path: &Path, table: &str| store::connect(path).unwrap().table_exists(None, table).unwrap();

    let tenant = empty("tenant_x.db");
    migrate_file(&tenant, None).unwrap();
    assert!(has(&tenant, "reviews"));
    let shared = empty("data.db");
    migrate_file(&shared, None).unwrap();
    assert!(has(&shared, "members"));

    let renamed = dir.path().join("copy.db");
    std::fs::rename(&tenant, &renamed).unwrap();
    let bytes = std::fs::read(&renamed).unwrap();
    assert_eq!(migrate_file(&renamed, None).unwrap(), Versions { from: 3, to: 3 });
    assert_eq!(std::fs::read(&renamed).unwrap(), bytes);

    let unknown = empty("new.db");
    let error = migrate_file(&unknown, None).unwrap_err().to_string();
    assert!(error.ends_with("pass --kind shared or --kind tenant"), "{error}");
    migrate_file(&unknown, Some(Kind::Tenant)).unwrap();
    assert!(has(&unknown, "reviews"));

    migrate_file(&dir.path().join("absent.db"), Some(Kind::Tenant)).unwrap_err();
    assert!(!dir.path().join("absent.db").exists());
}
