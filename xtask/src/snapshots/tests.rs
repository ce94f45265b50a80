use std::collections::BTreeSet;
use std::fs::TryLockError;
use std::sync::mpsc;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::snapshot::time_of;
use super::*;

fn ui() -> Ui {
    Ui::new(true, false, false, true)
}

fn store() -> (tempfile::TempDir, LockedStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path()).lock(&ui(), "test").unwrap();
    (dir, store)
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(super) fn meta(kind: Kind, time: Timestamp, databases: &[(&str, u64)]) -> Meta {
    let database = |&(name, bytes): &(&str, u64)| Database {
        name: name.to_owned(),
        bytes,
        page_size: 4096,
        ..Database::default()
    };
    let databases = databases.iter().map(database).collect();
    Meta {
        version: 1,
        kind,
        time,
        origin: None,
        git_commit: None,
        only: None,
        label: None,
        pinned: false,
        databases,
    }
}

/// Makes a snapshot of one database that holds `content`.
fn commit(store: &LockedStore, at: &str, content: &str) -> Snapshot {
    let incoming = store.begin(Kind::Pull).unwrap();
    fs::write(&incoming.path().join("a.db"), content.as_bytes()).unwrap();
    incoming.commit(meta(Kind::Pull, time(at), &[("a.db", content.len() as u64)])).unwrap()
}

/// Makes a directory like a user would.
fn by_hand(store: &Store, name: &str, files: &[(&str, &str)]) {
    std::fs::create_dir(store.dir.join(name)).unwrap();
    for (file, content) in files {
        std::fs::write(store.dir.join(name).join(file), content).unwrap();
    }
}

fn names(store: &Store) -> Vec<String> {
    store.list().unwrap().into_iter().map(|snapshot| snapshot.name).collect()
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_name_tells_its_time_to_the_millisecond(ms in 0_i64..4_102_444_800_000) {
        let time = Timestamp::from_millisecond(ms).unwrap();
        let name = name_of(time);
        prop_assert_eq!(time_of(&name), Some(time));
        prop_assert_eq!(name.len(), "backup_2026-03-15T14-18-50-365Z".len());
        let next = name_of(time + SignedDuration::from_millis(1));
        prop_assert!(next > name, "{} is not behind {}", next, name);
    }
}

#[test]
fn a_name_of_an_older_tool_tells_its_time_too() {
    let at = time("2026-03-15T14:18:50.365Z");
    assert_eq!(name_of(at), "backup_2026-03-15T14-18-50-365Z");
    assert_eq!(time_of("backup_2026-03-15T14-18-50-365Z"), Some(at));
    assert_eq!(time_of("backup_2026-03-15T14-18-50Z"), Some(time("2026-03-15T14:18:50Z")));
}

#[test]
fn what_is_called_otherwise_is_no_snapshot() {
    for name in [
        "",
        "backup_",
        "backup_Z",
        "backup_2026-03-15Z",
        "backup_2026-03-15T14-18Z",
        "backup_2026-03-15T14-18-50",
        "backup_2026-02-30T14-18-50Z",
        "backup_2026-03-15T24-18-50Z",
        "backup_2026-03-15T14-18-50-Z",
        "backup_2026-03-15T14-18-50-xZ",
        "backup_2026-03-15T14-18-50-365-copyZ",
        "backup_2026-03-15T14-18-50-365Z copy",
        "Backup_2026-03-15T14-18-50-365Z",
        "old_backup_2026-03-15T14-18-50-365Z",
    ] {
        assert_eq!(time_of(name), None, "{name}");
    }
}

#[test]
fn the_list_begins_with_the_newest_and_passes_over_what_is_no_snapshot() {
    let (dir, store) = store();
    commit(&store, "2025-12-31T23:59:59.999Z", "one");
    commit(&store, "2026-03-15T14:18:50.365Z", "two");
    by_hand(&store, "backup_2026-03-15T14-18-50Z", &[("a.db", "x")]);
    commit(&store, "2026-03-16T00:00:00Z", "three");
    std::fs::create_dir(dir.path().join("backup_of_mine")).unwrap();
    std::fs::write(dir.path().join("backup_2027-01-01T00-00-00Z"), "a file").unwrap();
    std::fs::write(dir.path().join("live.db"), "").unwrap();
    assert_eq!(
        names(&store),
        [
            "backup_2026-03-16T00-00-00-000Z",
            "backup_2026-03-15T14-18-50-365Z",
            "backup_2026-03-15T14-18-50Z",
            "backup_2025-12-31T23-59-59-999Z",
        ]
    );
    assert_eq!(names(&Store::new(&dir.path().join("missing"))), [""; 0]);
}

#[test]
fn a_snapshot_is_found_by_how_its_name_begins_or_ends() {
    let (_dir, store) = store();
    let one = commit(&store, "2026-03-15T14:18:50.365Z", "one").name;
    let two = commit(&store, "2026-03-16T14:18:50.365Z", "two").name;
    by_hand(&store, "backup_2026-03-15T14-18-50Z", &[("a.db", "x")]);
    let found = |text: &str| store.find(text).map(|snapshot| snapshot.name);
    for text in [&one, "2026-03-15T14-18-50-365Z", "2026-03-15T14-18-50-3", "15T14-18-50-365"] {
        assert_eq!(found(text).unwrap(), one, "{text}");
    }
    for text in [&two, "backup_2026-03-16", "2026-03-16", "16T14-18-50-365Z"] {
        assert_eq!(found(text).unwrap(), two, "{text}");
    }
    assert_eq!(found("18-50").unwrap(), "backup_2026-03-15T14-18-50Z");
}

#[test]
fn a_name_that_fits_none_or_several_is_an_error_with_a_next_step() {
    let (_dir, store) = store();
    let nothing = store.find("").unwrap_err();
    assert_eq!(crate::error::exit(&nothing), crate::error::Exit::Failed);
    commit(&store, "2026-03-15T14:18:50.365Z", "one");
    assert!(store.find("").is_err(), "an empty name names nothing, also where there is one");
    commit(&store, "2026-03-15T14:18:51.365Z", "two");
    let several = store.find("365Z").unwrap_err();
    assert!(several.to_string().starts_with("\"365Z\" matches 2: "), "{several}");
    assert_eq!(crate::error::exit(&several), crate::error::Exit::Usage);
    let hint = crate::error::hint(&several);
    assert_eq!(hint, Some("name one, for example backup_2026-03-15T14-18-51-365Z"));
    for text in ["2027", "backup_2026-03-15T14-18-50-365ZZ", "18-50-3", "../x", "\u{1b}[2J"] {
        let none = store.find(text).unwrap_err();
        assert!(none.to_string().contains("no snapshot"), "{none}");
        assert!(!none.to_string().contains('\u{1b}'));
        assert!(crate::error::hint(&none).is_some());
    }
}

#[test]
fn a_directory_made_by_hand_is_a_snapshot_of_the_databases_in_it() {
    let (_dir, store) = store();
    let files = [
        ("a.db", "12345"),
        ("a.db-wal", "x"),
        ("b.sqlite", ""),
        ("c.sqlite3", "1"),
        (".d.db", "x"),
        ("notes.txt", "x"),
    ];
    by_hand(&store, "backup_2026-03-15T14-18-50Z", &files);
    std::fs::create_dir(store.dir.join("backup_2026-03-15T14-18-50Z/dir.db")).unwrap();
    let snapshot = store.find("2026").unwrap();
    assert_eq!(
        snapshot.files,
        [("a.db".to_owned(), 5), ("b.sqlite".to_owned(), 0), ("c.sqlite3".to_owned(), 1)]
    );
    assert!(snapshot.meta.is_none() && snapshot.defect.is_none());
    assert_eq!((snapshot.kind(), snapshot.bytes(), snapshot.is_pull()), ("by hand", 6, false));
}

#[test]
fn what_is_wrong_with_a_snapshot_is_said_and_the_others_are_listed() {
    let (_dir, store) = store();
    let defect = |day: u32, files: &[(&str, &str)]| {
        let name = format!("backup_2026-03-{day}T00-00-00Z");
        by_hand(&store, &name, files);
        store.find(&name).unwrap().defect.unwrap_or_default()
    };
    let text = |change: fn(&mut Meta)| {
        let mut meta = meta(Kind::Manual, time("2026-03-15T14:18:50Z"), &[("a.db", 3)]);
        change(&mut meta);
        serde_json::to_string(&meta).unwrap()
    };
    let good = text(|_| {});
    assert_eq!(defect(10, &[(META, &good), ("a.db", "abc")]), "");
    assert_eq!(defect(11, &[(META, &good)]), "a.db is missing");
    assert_eq!(defect(12, &[(META, &good), ("a.db", "abcd")]), "a.db has 4 bytes, not 3");
    assert_eq!(defect(13, &[]), "it holds no database");
    assert_eq!(defect(14, &[("a.txt", "x")]), "it holds no database");
    assert!(defect(15, &[(META, "{"), ("a.db", "abc")]).starts_with("its snapshot.json is malf"));
    assert!(
        defect(16, &[(META, &good.replace("manual", "other")), ("a.db", "abc")]).contains("malf")
    );
    for (day, version) in [(17, 0), (18, 2), (19, u32::MAX)] {
        let text = good.replace("\"version\":1", &format!("\"version\":{version}"));
        let said = format!("it has format {version}, and this tool knows format 1");
        assert_eq!(defect(day, &[(META, &text), ("a.db", "abc")]), said);
    }
    let damaged = text(|meta| meta.databases[0].damaged = true);
    assert_eq!(
        defect(20, &[(META, &damaged), ("a.db", "abc")]),
        "a.db was damaged when it was saved"
    );
    let empty = text(|meta| meta.databases.clear());
    assert_eq!(defect(21, &[(META, &empty), ("a.db", "abc")]), "it holds no database");
    let unusual = text(|meta| meta.databases[0].name = "a\u{200b}b.db".to_owned());
    assert_eq!(defect(22, &[(META, &unusual), ("a\u{200b}b.db", "abc")]), "");
    let outside = text(|meta| meta.databases[0].name = "../a.db".to_owned());
    assert_eq!(defect(23, &[(META, &outside), ("a.db", "abc")]), "../a.db is missing");
    let link = store.dir.join("backup_2026-03-11T00-00-00Z/a.db");
    std::os::unix::fs::symlink("../backup_2026-03-10T00-00-00Z/a.db", link).unwrap();
    assert_eq!(store.find("2026-03-11").unwrap().defect.as_deref(), Some("a.db is missing"));
    let more = good.replace("\"version\":1", "\"version\":1,\"later\":{\"x\":1}");
    assert_eq!(defect(24, &[(META, &more), ("a.db", "abc")]), "", "keys of a later version");
    let unreadable = store.dir.join("backup_2026-03-25T00-00-00Z").join(META);
    std::fs::create_dir_all(unreadable).unwrap();
    assert!(store.find("2026-03-25").unwrap().defect.is_some());
    assert_eq!(store.list().unwrap().len(), 16);
}

#[test]
fn a_committed_snapshot_is_private_and_what_was_given() {
    let (_dir, store) = store();
    let snapshot = commit(&store, "2026-03-15T14:18:50.365999Z", "content");
    assert_eq!(snapshot.name, "backup_2026-03-15T14-18-50-365Z");
    assert_eq!(mode(&snapshot.path), 0o700);
    for file in ["a.db", META, "CACHEDIR.TAG"] {
        assert_eq!(mode(&snapshot.path.join(file)), 0o600, "{file}");
    }
    for dir in [&snapshot.path, &store.state_dir()] {
        let tag = std::fs::read_to_string(dir.join("CACHEDIR.TAG")).unwrap();
        assert!(tag.starts_with("Signature: 8a477f597d28d172789f06886806bc55\n"), "{tag}");
    }
    assert!(!store.dir.join("CACHEDIR.TAG").exists(), "beside the current data");
    assert_eq!(mode(&store.state_dir()), 0o700);
    assert_eq!(snapshot.defect, None);
    assert!(snapshot.is_pull());
    assert_eq!(store.list().unwrap().len(), 1);
    assert_eq!(store.state_dir().read_dir().unwrap().count(), 2, "the lock, the tag");
}

#[test]
fn two_snapshots_of_one_millisecond_are_two() {
    let (_dir, store) = store();
    let made = ["one", "two", "three"].map(|text| commit(&store, "2026-03-15T14:18:50.999Z", text));
    let days = made.iter().map(|snapshot| &snapshot.name[7..]).collect::<Vec<_>>();
    assert_eq!(
        days,
        ["2026-03-15T14-18-50-999Z", "2026-03-15T14-18-51-000Z", "2026-03-15T14-18-51-001Z"]
    );
    for (snapshot, text) in made.iter().zip(["one", "two", "three"]) {
        assert_eq!(std::fs::read_to_string(snapshot.path.join("a.db")).unwrap(), text);
        assert_eq!(snapshot.time, time("2026-03-15T14:18:50.999Z"), "as the clock said");
    }
}

#[test]
fn a_clock_that_goes_back_changes_ages_and_not_the_order() {
    let (_dir, store) = store();
    by_hand(&store, "backup_2199-01-01T00-00-00Z", &[("a.db", "x")]);
    let times = ["2027-01-01T00:00:00Z", "2026-12-31T23:00:00Z", "1969-12-31T23:59:59.5Z"];
    let mut made = times.map(|at| commit(&store, at, "x").name);
    assert_eq!(
        made,
        ["00-000Z", "00-001Z", "00-002Z"].map(|end| format!("backup_2027-01-01T00-00-{end}"))
    );
    made.reverse();
    let listed = store.list().unwrap();
    assert!(listed[1..].iter().map(|snapshot| &snapshot.name).eq(&made), "{listed:?}");
    let ages: Vec<_> = listed[1..].iter().map(|snapshot| snapshot.time).collect();
    assert_eq!(ages, [times[2], times[1], times[0]].map(time));
    let none = BTreeSet::new();
    let plan = prune_plan(&listed, 1, &none, &[], &none, None).remove;
    assert!(plan.iter().map(|snapshot| &snapshot.name).eq(&made[1..]), "the newest stays");
}

#[test]
fn behind_the_end_of_time_nothing_is_made() {
    let (_dir, store) = store();
    let last = commit(&store, "9999-12-30T21:59:59.999Z", "x");
    let time = time_of(&name_of(Timestamp::MAX)).unwrap();
    std::fs::rename(&last.path, store.dir.join(name_of(time))).unwrap();
    let incoming = store.begin(Kind::Pull).unwrap();
    let error = incoming.commit(meta(Kind::Pull, time, &[])).unwrap_err();
    assert!(format!("{error:#}").contains(&format!("after {}", name_of(time))), "{error:#}");
    assert_eq!(names(&store), [name_of(time)]);
}

#[test]
fn what_is_not_committed_leaves_nothing() {
    let (dir, store) = store();
    let incoming = store.begin(Kind::Pull).unwrap();
    assert_eq!(mode(incoming.path()), 0o700);
    std::fs::write(incoming.path().join("a.db"), "half").unwrap();
    drop(incoming);
    assert_eq!(store.state_dir().read_dir().unwrap().count(), 2, "the lock, the tag");
    assert_eq!(dir.path().read_dir().unwrap().count(), 1, "the state directory");
}

/// The first bytes of a database with pages of 4 KiB.
fn database(bytes: usize) -> Vec<u8> {
    let mut database = vec![0; bytes];
    database[..18].copy_from_slice(b"SQLite format 3\0\x10\0");
    database
}

#[test]
fn a_pull_that_was_cut_leaves_the_databases_that_began_to_arrive() {
    let (dir, store) = store();
    let made = commit(&store, "2026-03-15T14:18:50Z", "one");
    let origin = serde_json::json!({
        "app": null, "machine": null, "region": null, "sanitize_rules": null, "seconds": 0.0,
        "wire_bytes": 0,
    });
    let origin = serde_json::from_value(origin).unwrap();
    let meta = Meta { origin: Some(origin), ..meta(Kind::Pull, Timestamp::now(), &[]) };
    let incoming = store.begin_pull(&meta, &[]).unwrap();
    let path = incoming.path().to_owned();
    assert_eq!(mode(&path), 0o700);
    let write = |name: &str, bytes: &[u8]| std::fs::write(path.join(name), bytes).unwrap();
    write("whole.db", &database(8192));
    write("part.db", &database(5000));
    write("header.db", &database(100));
    write("zeros.db", &[0; 9000]);
    write("empty.db", &[]);
    write(".archive", &database(9000));
    write("linked.db", &database(4096));
    std::fs::hard_link(path.join("linked.db"), made.path.join("linked.db")).unwrap();
    std::os::unix::fs::symlink("whole.db", path.join("symlink.db")).unwrap();
    let left = ["part.db", "whole.db"];
    drop(incoming);
    let files = || {
        let entries = path.read_dir().unwrap().map(|entry| entry.unwrap().file_name());
        entries.map(|name| name.into_string().unwrap()).collect::<BTreeSet<_>>()
    };
    assert_eq!(files(), BTreeSet::from([META, left[0], left[1]].map(str::to_owned)));
    drop(store);
    let store = Store::new(dir.path()).lock(&ui(), "test").unwrap();
    let leftover = store.leftover().unwrap();
    let found: Vec<_> = leftover.databases.iter().map(|one| (&*one.name, one.bytes)).collect();
    assert_eq!(found, [("part.db", 5000), ("whole.db", 8192)]);
    assert_eq!(names(&store), [made.name]);
    // The next one takes over what it can use, and its snapshot is what it says.
    let incoming = store.begin_pull(&meta, &["part.db"]).unwrap();
    assert_eq!(files(), BTreeSet::from([META, "part.db"].map(str::to_owned)));
    incoming.commit(self::meta(Kind::Pull, Timestamp::now(), &[("part.db", 5000)])).unwrap();
    assert!(!path.exists() && store.leftover().is_none());
    // Without anything to resume from, nothing stays.
    drop(store.begin_pull(&meta, &[]).unwrap());
    assert!(!path.exists());
}

#[test]
fn what_a_killed_run_left_is_removed_by_the_next() {
    let (dir, store) = store();
    let kept = commit(&store, "2026-03-15T14:18:50Z", "one");
    std::mem::forget(store.begin(Kind::Pull).unwrap());
    let killed = store.begin(Kind::Pull).unwrap();
    std::fs::write(killed.path().join("a.db"), "half").unwrap();
    std::mem::forget(killed);
    assert_eq!(store.state_dir().read_dir().unwrap().count(), 4);
    drop(store);
    let store = Store::new(dir.path()).lock(&ui(), "test").unwrap();
    assert_eq!(store.state_dir().read_dir().unwrap().count(), 2, "the lock, the tag");
    assert_eq!(names(&store), [kept.name]);
}

#[test]
fn a_removed_snapshot_is_gone() {
    let (_dir, store) = store();
    let one = commit(&store, "2026-03-15T14:18:50Z", "one");
    let two = commit(&store, "2026-03-15T14:18:51Z", "two");
    store.remove(&one).unwrap();
    assert_eq!(names(&store), [two.name]);
    assert_eq!(store.state_dir().read_dir().unwrap().count(), 2, "the lock, the tag");
    assert!(store.remove(&one).is_err());
}

#[test]
fn who_comes_second_waits_for_the_first_to_end() {
    let (dir, first) = store();
    let path = first.state_dir().join("lock");
    let me = format!("test (process {})", std::process::id());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), me);
    let (tell, told) = mpsc::channel();
    let tell_second = tell.clone();
    std::thread::scope(|scope| {
        let mut second = File::options().read(true).write(true).open(&path).unwrap();
        let path = &path;
        scope.spawn(move || {
            let waits = |holder: &str| Ok(tell_second.send(holder.to_owned())?);
            lock::take(&mut second, path, waits).unwrap();
            tell_second.send("second".to_owned()).unwrap();
        });
        assert_eq!(told.recv().unwrap(), me);
        // The order of the two messages is the evidence, independent of thread timing.
        tell.send("first".to_owned()).unwrap();
        drop(first);
    });
    assert_eq!(told.try_iter().collect::<Vec<_>>(), ["first", "second"]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "", "nobody has it");
    drop(dir);
}

#[test]
fn who_is_not_to_be_waited_for_is_named() {
    let (dir, _first) = store();
    let second = Store::new(dir.path()).no_wait(true).lock(&ui(), "second");
    let error = second.err().unwrap();
    let me = format!("test (process {}) is running in ", std::process::id());
    assert!(error.to_string().starts_with(&me), "{error}");
    assert!(crate::error::hint(&error).unwrap().contains("--no-wait"));
}

#[test]
fn a_lock_that_is_held_is_not_taken() {
    let (dir, _first) = store();
    let file = File::open(dir.path().join(".xtask/lock")).unwrap();
    assert!(matches!(file.try_lock(), Err(TryLockError::WouldBlock)));
}
