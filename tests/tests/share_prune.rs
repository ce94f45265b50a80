//! Publishes and prunes of one store at the same time.

use std::fs;
use std::time::{Duration, SystemTime};

use tests::process::Running;
use tests::sets::{assert_same, content, developer};
use tests::share::SharedStore;

const PRUNE: [&str; 6] = ["snapshots", "prune", "--share", "--keep", "1", "--yes"];

/// The prune has replaced the index, and goes on deleting: an object that it has listed may be one
/// that the publish needs again.
#[test]
fn a_publish_stores_nothing_while_a_prune_deletes() {
    let store = SharedStore::directory();
    let env = developer();
    store.settings(&env, "");
    let marks = store.path().join("pruning");
    fs::create_dir_all(&marks).expect("create");
    let mark = marks.join("one");
    fs::write(&mark, "").expect("write");
    let mut running = Running::start(&mut store.command(&env, &["snapshots", "publish"]));
    running.wait_for_stderr("Waiting for a prune of file://");
    assert_eq!(store.objects().len(), 0);
    fs::remove_file(&mark).expect("remove");
    running.wait().ok().stderr_has("Stored 2 databases");

    // That of a killed prune counts for a while only.
    fs::write(&mark, "").expect("write");
    let file = fs::File::options().write(true).open(&mark).expect("open");
    file.set_modified(SystemTime::now() - Duration::from_secs(3600)).expect("set the time");
    tests::sets::change(&env.production().join("tenant_iris.db"));
    tests::sets::pull(&env);
    store.publish(&env);
    fs::remove_file(&mark).expect("remove");

    // A prune marks the store, and leaves no mark.
    fs::remove_dir(&marks).expect("remove");
    store.xtask(&env, &PRUNE).ok().stderr_has("Removed 1 snapshot, ");
    assert_eq!(fs::read_dir(&marks).expect("there was a mark").count(), 0);
    let other = store.member();
    store.pull(&other);
    assert_same(&content(&other.data()), &content(&env.data()));
}
