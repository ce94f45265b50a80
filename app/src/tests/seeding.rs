use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tempfile::TempDir;

use super::{assert_sound, column, count, dump};
use crate::setup;

const FILES: [&str; 3] = ["data.db", "tenant_iris.db", "tenant_juno.db"];

fn seed(rows: u32) -> (TempDir, [PathBuf; 3]) {
    let dir = tempfile::tempdir().unwrap();
    setup(dir.path(), rows);
    let files = FILES.map(|file| dir.path().join(file));
    (dir, files)
}

fn setup(dir: &Path, rows: u32) -> String {
    let mut out = Vec::new();
    setup::run(dir, rows, &mut out).unwrap();
    String::from_utf8(out).unwrap().replace(&format!("{}/", dir.display()), "")
}

#[test]
fn the_seed_is_the_same_each_time() {
    let (_a, a) = seed(200);
    let (_b, b) = seed(200);
    for (a, b) in a.iter().zip(&b) {
        assert!(dump(a) == dump(b), "{}", a.display());
    }
    assert!(dump(&a[1]) != dump(&a[2]), "each tenant has rows of its own");
}

#[test]
fn the_seed_is_sound_private_and_complete() {
    let (_dir, files) = seed(200);
    for file in &files {
        assert_sound(&Connection::open(file).unwrap());
        assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let shared = Connection::open(&files[0]).unwrap();
    assert_eq!(
        column(&shared, "SELECT id || pull_request_count FROM organizations"),
        ["iris200", "juno200"]
    );
    assert_eq!(
        count(&shared, "SELECT count(*) FROM members WHERE password_hash LIKE '$argon2id$%$FAKE%'"),
        50
    );
    assert_eq!(
        count(&shared, "SELECT count(*) FROM integrations WHERE access_token LIKE '%FAKE%'"),
        4
    );
    assert_eq!(
        count(
            &shared,
            "SELECT count(*) FROM export_settings WHERE private_key LIKE '%PRIVATE KEY%FAKE%'"
        ),
        2
    );
    let tenant = Connection::open(&files[1]).unwrap();
    assert_eq!(count(&tenant, "SELECT count(*) FROM repositories"), 20);
    assert_eq!(count(&tenant, "SELECT count(*) FROM pull_requests"), 200);
    assert!((300..500).contains(&count(&tenant, "SELECT count(*) FROM reviews")));
}

#[test]
fn setup_again_adds_only_what_is_missing() {
    let (dir, files) = seed(30);
    let before = files.each_ref().map(|file| dump(file));
    assert_eq!(
        setup(dir.path(), 500),
        "tenant_iris.db: exists, at version 3, kept 30 pull requests\n\
         tenant_juno.db: exists, at version 3, kept 30 pull requests\n\
         data.db: exists, at version 3, added 0 organizations\n"
    );
    assert!(files.each_ref().map(|file| dump(file)) == before);

    std::fs::remove_file(&files[2]).unwrap();
    assert_eq!(
        setup(dir.path(), 30),
        "tenant_iris.db: exists, at version 3, kept 30 pull requests\n\
         tenant_juno.db: created, migrated from version 0 to 3, added 30 pull requests\n\
         data.db: exists, at version 3, added 0 organizations\n"
    );
    assert!(files.each_ref().map(|file| dump(file)) == before);
}

#[test]
fn what_a_killed_setup_left_is_completed() {
    let (dir, files) = seed(30);
    let before = files.each_ref().map(|file| dump(file));
    // The tenants are committed before data.db is.
    std::fs::remove_file(&files[0]).unwrap();
    assert!(setup(dir.path(), 30).ends_with("added 2 organizations\n"));
    assert!(files.each_ref().map(|file| dump(file)) == before);
}

#[test]
fn the_search_follows_updates_and_deletes() {
    let (_dir, files) = seed(100);
    let conn = Connection::open(&files[1]).unwrap();
    let found = |word: &str| {
        count(
            &conn,
            &format!(
                "SELECT count(*) FROM pull_requests_fts WHERE pull_requests_fts MATCH '{word}'"
            ),
        )
    };
    let titled = |word: &str| {
        count(&conn, &format!("SELECT count(*) FROM pull_requests WHERE title LIKE '%{word}%'"))
    };

    conn.execute_batch("UPDATE pull_requests SET title = 'Feed the zebra' WHERE id % 7 = 0")
        .unwrap();
    assert_eq!(found("zebra"), 14);
    conn.execute_batch("DELETE FROM pull_requests WHERE id % 14 = 0").unwrap();
    assert_eq!(found("zebra"), 7);
    for word in ["deadlock", "dashboard", "webhook", "invoice"] {
        assert_eq!(found(word), titled(word), "{word}");
    }
    // With rank 1 the check also compares the index with the titles.
    conn.execute_batch(
        "INSERT INTO pull_requests_fts (pull_requests_fts, rank) VALUES ('integrity-check', 1)",
    )
    .unwrap();
    assert_sound(&conn);
    assert_eq!(count(&conn, "SELECT count(*) FROM reviews WHERE pull_request_id % 14 = 0"), 0);
}
