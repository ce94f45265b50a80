//! Pages in which no row is take no room here: not in a snapshot, not in the live set, not in what
//! is saved of that.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use tests::databases;
use tests::env::TestEnv;
use tests::faults::say;
use tests::store::snapshots;

/// A table with 8 MB, all rows of which the rule deletes.
const PRODUCTION: &str = "PRAGMA journal_mode = WAL; CREATE TABLE t (a); INSERT INTO t VALUES (1);
    CREATE TABLE log AS WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 8000)
    SELECT randomblob(1000) AS data FROM n";
const RULE: &str = "[[sanitize]]\ntable = 'log'\ndelete = true\n";
const ROOM: u64 = 200_000;

/// The bytes that a file takes on the disk.
fn takes(path: &Path) -> u64 {
    path.metadata().expect("it is there").blocks() * 512
}

fn has_holes(env: &TestEnv) -> bool {
    let path = env.path("hole");
    let file = File::create(&path).expect("create");
    file.set_len(1 << 20).expect("a length");
    let has_holes = takes(&path) == 0;
    if !has_holes {
        say("skipped: this file system has no holes");
    }
    has_holes
}

#[test]
fn free_pages_take_no_room_on_the_disk() {
    let env = TestEnv::with_database(PRODUCTION);
    env.db_toml(RULE);
    if !has_holes(&env) {
        return;
    }
    let live = env.data().join("data.db");
    let check = |what: &str, path: &Path| {
        let (length, room) = (path.metadata().expect("it is there").len(), takes(path));
        say(&format!("{what}: {room} bytes on the disk of {length}"));
        assert!(length > 8_000_000, "{what}: {length} bytes");
        assert!(room < ROOM, "{what}: {room} bytes on the disk");
    };
    env.local_pull(&[]).ok();
    let of_newest = |kind: &str| {
        let newest = snapshots(&env.data()).into_iter().rfind(|one| one.kind() == kind);
        newest.expect("there is one").path.join("data.db")
    };
    check("snapshot", &of_newest("pull"));
    check("live", &live);

    // As a delta to that one; what was live has changed.
    databases::execute(&live, "INSERT INTO t VALUES (2)");
    databases::execute(&env.production().join("data.db"), "INSERT INTO t VALUES (3)");
    env.local_pull(&[]).ok();
    check("snapshot of a delta", &of_newest("pull"));
    check("live", &live);
    if cfg!(target_os = "linux") {
        check("saved", &of_newest("before-pull"));
    }
    databases::assert_whole(&of_newest("before-pull"));
    assert_eq!(databases::count(&of_newest("before-pull"), "t"), 2);

    // A restore copies the snapshot, and goes back to what was saved.
    env.xtask(["restore-db", "--undo", "--yes"]).ok();
    assert_eq!(databases::count(&live, "t"), 2);
    if cfg!(target_os = "linux") {
        check("restored", &live);
    }
    fs::remove_file(env.path("hole")).expect("remove");
}
