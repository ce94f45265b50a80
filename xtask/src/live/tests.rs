use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use rusqlite::Connection;

use super::save::describe;
use super::*;
use crate::config::{NamePattern, Renames};
use crate::snapshots::{Meta, Snapshot};
use crate::sqlite;

mod fit;
mod locks;
mod open;
mod recovery;

/// A data directory of `a.db` and `b.db`, with settings that exclude `x.db`.
struct Env {
    _root: tempfile::TempDir,
    live: LockedLiveSet<'static>,
}

type Files = BTreeMap<String, Vec<u8>>;

impl Env {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let config = root.path().join("db.toml");
        std::fs::write(&config, "include = ['*.db']\nexclude = ['x.db']").unwrap();
        let settings = Settings::load(Some(&config), Some(&root.path().join("data"))).unwrap();
        let ui = Ui::new(true, false, false, true);
        let store = Store::new(&settings.data_dir).lock(&ui, "test").unwrap();
        // Leaked: `LockedLiveSet` borrows them.
        let (ui, settings) = (Box::leak(Box::new(ui)), Box::leak(Box::new(settings)));
        let sh = Box::leak(Box::new(Shell::new().unwrap()));
        let env = Self {
            _root: root,
            live: LockedLiveSet { ui, sh, settings, store, wait: Duration::ZERO },
        };
        for name in ["a.db", "b.db", "x.db"] {
            write(&env.path(name), &format!("old {name}"));
        }
        env.brings(&["a.db", "b.db"]);
        env
    }

    /// Records these databases as brought by an earlier pull.
    fn brings(&self, names: &[&str]) {
        let brought = names.iter().map(|name| (*name).to_owned()).collect();
        let state = State { brought: Some(brought), ..State::default() };
        state.write(&self.live.store).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.live.store.dir.join(name)
    }

    fn state(&self, name: &str) -> PathBuf {
        self.live.store.state_dir().join(name)
    }

    fn save(&self, kind: Kind) -> Option<Saved> {
        self.live.save(kind, false).unwrap()
    }

    /// A pulled snapshot of these databases; each contains the text `new` and its name.
    fn pulled(&self, names: &[&str], only: Option<&str>) -> Snapshot {
        let incoming = self.live.store.begin(Kind::Pull).unwrap();
        for name in names {
            write(&incoming.path().join(name), &format!("new {name}"));
        }
        let databases = names.iter().map(|name| {
            let path = incoming.path().join(name);
            describe(incoming.path(), name, false, Some(fs::sha256(&path).unwrap())).unwrap()
        });
        let meta = Meta {
            version: 1,
            kind: Kind::Pull,
            time: Timestamp::now(),
            origin: None,
            git_commit: None,
            only: only.map(str::to_owned),
            label: None,
            pinned: false,
            databases: databases.collect(),
        };
        incoming.commit(meta).unwrap()
    }

    /// A snapshot without `snapshot.json`.
    fn by_hand(&self, fill: impl Fn(&Path)) -> Snapshot {
        let dir = self.path("backup_2020-01-01T00-00-00Z");
        std::fs::create_dir(&dir).unwrap();
        fill(&dir);
        self.live.store.find("2020").unwrap()
    }

    fn replacement<'a>(&'a self, snapshot: &'a Snapshot) -> Replacement<'a> {
        Replacement { snapshot, only: None, save: Some(Kind::BeforeRestore) }
    }

    fn run(&self, replacement: &Replacement<'_>) -> Result<Replaced> {
        self.live.replace(replacement)
    }

    fn replace(&self, snapshot: &Snapshot) -> Replaced {
        self.run(&self.replacement(snapshot)).unwrap()
    }

    /// The bytes of every file that is not in a snapshot.
    fn files(&self) -> Files {
        files(&self.live.store.dir)
    }

    fn said(&self, name: &str) -> String {
        said(&self.path(name))
    }

    fn is_clean(&self) -> bool {
        !self.state(STAGED).exists() && !self.state(JOURNAL).exists()
    }
}

fn files(dir: &Path) -> Files {
    let entries = dir.read_dir().unwrap().map(Result::unwrap);
    entries
        .filter(|entry| entry.path().is_file())
        .map(|entry| {
            (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
        })
        .collect()
}

fn names(files: &Files) -> Vec<&str> {
    files.keys().map(String::as_str).collect()
}

fn open(path: &Path, sql: &str) -> Connection {
    let db = Connection::open(path).unwrap();
    db.execute_batch(sql).unwrap();
    db
}

fn write(path: &Path, text: &str) {
    open(path, &format!("CREATE TABLE t (said); INSERT INTO t VALUES ('{text}')"));
}

fn said(path: &Path) -> String {
    let db = Connection::open(path).unwrap();
    db.query_row("SELECT group_concat(said) FROM t", [], |row| row.get(0)).unwrap()
}

#[test]
fn the_live_set_is_what_the_settings_name() {
    let env = Env::new();
    for name in [".hidden.db", "a.db-wal", "a.db-shm", "notes.txt"] {
        std::fs::write(env.path(name), "").unwrap();
    }
    std::fs::create_dir(env.path("dir.db")).unwrap();
    assert_eq!(databases(&env.live.store.dir, &env.live.settings.names).unwrap(), ["a.db", "b.db"]);
    let all = Names {
        include: vec![NamePattern::path("*").unwrap()],
        exclude: Vec::new(),
        others: Vec::new(),
        renames: Renames::default(),
    };
    let found = databases(&env.live.store.dir, &all).unwrap();
    assert_eq!(found, ["a.db", "b.db", "notes.txt", "x.db"], "a -wal is never a database");
}

#[test]
fn a_save_has_what_the_wal_holds_while_a_program_writes() {
    let env = Env::new();
    let app = open(
        &env.path("a.db"),
        "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; INSERT INTO t VALUES ('wal')",
    );
    app.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES ('uncommitted')").unwrap();
    assert!(env.path("a.db-wal").metadata().unwrap().len() > 0);
    let saved = env.save(Kind::Manual).unwrap();
    assert!(saved.new);
    let snapshot = env.live.store.find(&saved.name).unwrap();
    assert_eq!(snapshot.defect, None);
    let found = files(&snapshot.path);
    assert_eq!(names(&found), ["CACHEDIR.TAG", "a.db", "b.db", "snapshot.json"]);
    app.execute_batch("COMMIT").unwrap();
    assert_eq!(said(&snapshot.path.join("a.db")), "old a.db,wal");
    assert_eq!(env.said("a.db"), "old a.db,wal,uncommitted");
    for database in snapshot.meta.unwrap().databases {
        let recorded = describe(&snapshot.path, &database.name, false, None).unwrap();
        assert_eq!((recorded.page_size, recorded.schema), (database.page_size, database.schema));
    }
}

#[test]
fn nothing_is_saved_of_an_empty_set() {
    let env = Env::new();
    for name in ["a.db", "b.db"] {
        std::fs::remove_file(env.path(name)).unwrap();
    }
    assert!(env.save(Kind::Manual).is_none());
    assert!(env.live.store.list().unwrap().is_empty());
}

#[test]
fn what_a_snapshot_holds_already_is_not_saved_again() {
    let env = Env::new();
    let first = env.save(Kind::BeforePull).unwrap();
    for change in [
        "",
        "PRAGMA journal_mode = WAL",
        "BEGIN IMMEDIATE; PRAGMA user_version = 5; PRAGMA user_version = 0; COMMIT",
        "PRAGMA schema_version = 99",
        "PRAGMA journal_mode = DELETE",
    ] {
        drop(open(&env.path("a.db"), change));
        let again = env.save(Kind::BeforeRestore).unwrap();
        assert_eq!((again.name.as_str(), again.new), (first.name.as_str(), false), "{change}");
    }
    assert!(env.save(Kind::Manual).unwrap().new, "a person gets what was asked for");
    for change in ["PRAGMA user_version = 1", "UPDATE t SET said = 'new'", "CREATE TABLE u (a)"] {
        drop(open(&env.path("a.db"), change));
        assert!(env.save(Kind::BeforePull).unwrap().new, "{change}");
    }
    std::fs::remove_file(env.path("b.db")).unwrap();
    assert!(env.save(Kind::BeforePull).unwrap().new, "one database less is another set");
    assert_eq!(env.live.store.list().unwrap().len(), 6);
}

#[test]
fn a_snapshot_that_would_not_bring_the_whole_set_back_is_none_that_holds_it() {
    let env = Env::new();
    let partial = env.pulled(&["a.db", "b.db"], Some("*.db"));
    env.replace(&partial);
    let saved = env.save(Kind::BeforePull).unwrap();
    assert!(saved.new && saved.name != partial.name);
    let meta = env.path(&saved.name).join("snapshot.json");
    let later = std::fs::read_to_string(&meta).unwrap().replace("\"version\": 1", "\"version\": 2");
    std::fs::write(meta, later).unwrap();
    assert!(env.save(Kind::BeforePull).unwrap().new, "what cannot be restored holds nothing");
}

#[test]
fn what_sqlite_cannot_read_is_saved_byte_by_byte_and_said_to_be_damaged() {
    let junk = vec![b'x'; 5000];
    for content in [&junk[..], b"short", b"SQLite format 3\0 and then nothing of the kind"] {
        let env = Env::new();
        std::fs::write(env.path("a.db"), content).unwrap();
        let saved = env.save(Kind::BeforePull).unwrap();
        let snapshot = env.live.store.find(&saved.name).unwrap();
        assert_eq!(files(&snapshot.path)["a.db"], content);
        assert_eq!(said(&snapshot.path.join("b.db")), "old b.db");
        let damaged: Vec<_> =
            snapshot.meta.unwrap().databases.iter().map(|database| database.damaged).collect();
        assert_eq!(damaged, [true, false]);
        assert!(snapshot.defect.unwrap().contains("a.db was damaged"));
        assert_eq!(files(&env.live.store.dir)["a.db"], content);
    }
}

#[test]
fn a_database_with_a_broken_schema_is_saved_too() {
    let env = Env::new();
    let mut bytes = std::fs::read(env.path("a.db")).unwrap();
    bytes[100..112].fill(0xff); // The header of the page with the schema.
    std::fs::write(env.path("a.db"), &bytes).unwrap();
    let saved = env.save(Kind::BeforePull).unwrap();
    let snapshot = env.live.store.find(&saved.name).unwrap();
    assert_eq!(files(&snapshot.path)["a.db"], bytes);
    assert!(snapshot.defect.is_some());
}

#[test]
fn what_sqlite_is_too_old_for_is_saved_byte_by_byte_and_replaced() {
    // The format version for writing, and the schema's format.
    for at in [18, 47] {
        let env = Env::new();
        let mut bytes = std::fs::read(env.path("a.db")).unwrap();
        bytes[at] = 9;
        std::fs::write(env.path("a.db"), &bytes).unwrap();
        let replaced = env.replace(&env.pulled(&["a.db", "b.db"], None));
        assert_eq!(env.said("a.db"), "new a.db");
        let saved = env.path(&replaced.before.unwrap().name).join("a.db");
        assert!(std::fs::read(saved).unwrap() == bytes, "{at}");
    }
}

#[test]
fn a_whole_set_replaces_the_live_one_and_takes_away_what_it_lacks() {
    let env = Env::new();
    let snapshot = env.pulled(&["a.db", "c.db"], None);
    let kept = files(&snapshot.path);
    let replaced = env.replace(&snapshot);
    assert_eq!(
        (replaced.installed, replaced.removed),
        (vec!["a.db".into(), "c.db".into()], vec!["b.db".into()])
    );
    assert_eq!(names(&env.files()), ["a.db", "c.db", "x.db"]);
    assert_eq!((env.said("a.db"), env.said("c.db")), ("new a.db".into(), "new c.db".into()));
    assert!(files(&snapshot.path) == kept, "the snapshot stays as it was");
    assert!(env.is_clean());

    let state = State::read(&env.live.store).unwrap();
    let before = replaced.before.unwrap();
    assert_eq!((state.live, state.before), (Some(snapshot.name), Some(before.name.clone())));
    let back = env.replace(&env.live.store.find(&before.name).unwrap());
    assert_eq!((env.said("a.db"), env.said("b.db")), ("old a.db".into(), "old b.db".into()));
    assert_eq!(back.removed, ["c.db"]);
    assert!(!back.before.unwrap().new, "the pulled snapshot holds what was live");
}

#[test]
fn what_no_pull_has_brought_stays_and_is_named_once() {
    let env = Env::new();
    env.brings(&["a.db"]);
    let pulled = env.pulled(&["c.db"], None);
    let replaced = env.replace(&pulled);
    assert_eq!((replaced.removed, replaced.others), (vec!["a.db".into()], vec!["b.db".into()]));
    let before = env.live.store.find(&replaced.before.unwrap().name).unwrap();
    // The undo restores it to where it already was, so it still belongs to the user.
    let back = env.replace(&before);
    assert_eq!((back.removed, back.others), (vec!["c.db".to_owned()], vec![]));
    let again = env.replace(&pulled);
    assert_eq!((again.removed, again.others), (vec!["a.db".to_owned()], vec![]));
    assert_eq!(env.said("b.db"), "old b.db");
    // A pull brings b.db, so the next one may remove it.
    env.replace(&env.pulled(&["b.db"], None));
    assert_eq!(env.replace(&pulled).removed, ["b.db"]);
}

#[test]
fn what_is_replaced_has_not_been_left() {
    let env = Env::new();
    env.brings(&["a.db"]);
    let own = env.by_hand(|dir| write(&dir.join("b.db"), "mine"));
    assert_eq!(env.replace(&own).others, [""; 0]);
    assert_eq!(env.replace(&env.pulled(&["a.db"], None)).others, ["b.db"], "now it is");
}

#[test]
fn what_an_older_version_put_in_place_is_brought() {
    let env = Env::new();
    let pulled = env.pulled(&["a.db"], None);
    let state = State { live: Some(pulled.name.clone()), ..State::default() };
    state.write(&env.live.store).unwrap();
    let replaced = env.replace(&env.pulled(&["c.db"], None));
    assert_eq!((replaced.removed, replaced.others), (vec!["a.db".into()], vec!["b.db".into()]));
}

#[test]
fn what_is_no_whole_set_takes_nothing_away() {
    let env = Env::new();
    let whole = env.pulled(&["a.db", "c.db"], None);
    let partial = env.pulled(&["a.db"], Some("a*"));
    let pattern = NamePattern::anywhere("c*").unwrap();
    let live = ["a.db", "b.db", "c.db"].map(String::from);
    let brought = live.iter().cloned().collect();
    let only = Replacement { only: Some(&pattern), ..env.replacement(&whole) };
    let unsaved = Replacement { save: None, ..env.replacement(&whole) };
    for replacement in [&env.replacement(&partial), &only, &unsaved] {
        assert!(replacement.removes(&env.live.settings.names, &live, &brought).is_empty());
    }
    let replaced = env.run(&only).unwrap();
    assert_eq!((replaced.installed, replaced.removed), (vec!["c.db".to_owned()], vec![]));
    assert_eq!((env.said("a.db"), env.said("c.db")), ("old a.db".into(), "new c.db".into()));
    env.replace(&partial);
    assert_eq!((env.said("a.db"), env.said("b.db")), ("new a.db".into(), "old b.db".into()));
    let replaced = env.run(&unsaved).unwrap();
    assert!(replaced.before.is_none() && State::read(&env.live.store).unwrap().before.is_none());
    assert_eq!(env.said("b.db"), "old b.db");
}

#[test]
fn what_the_settings_exclude_is_never_touched() {
    let env = Env::new();
    let before = env.files()["x.db"].clone();
    for end in ["-wal", "-shm", "-journal"] {
        std::fs::write(env.path(&format!("x.db{end}")), end).unwrap();
    }
    let snapshot = env.pulled(&["a.db", "x.db"], None);
    assert_eq!(env.replace(&snapshot).installed, ["a.db"]);
    let hand = env.by_hand(|dir| ["a.db", "x.db"].iter().for_each(|n| write(&dir.join(n), "hand")));
    let replaced = env.replace(&hand);
    assert_eq!(replaced.installed, ["a.db"]);
    assert_eq!(env.said("a.db"), "hand");
    assert_eq!(env.files()["x.db"], before);
    assert_eq!(names(&env.files()), ["a.db", "x.db", "x.db-journal", "x.db-shm", "x.db-wal"]);
    let saved = env.live.store.find(&replaced.before.unwrap().name).unwrap();
    assert_eq!(names(&files(&saved.path)), ["CACHEDIR.TAG", "a.db", "snapshot.json"]);
}

#[test]
fn what_followed_the_old_databases_around_is_gone() {
    let env = Env::new();
    let snapshot = env.pulled(&["a.db", "c.db"], None);
    for name in ["a.db", "b.db", "c.db"] {
        for end in ["-wal", "-shm", "-journal"] {
            std::fs::write(env.path(&format!("{name}{end}")), "stale").unwrap();
        }
    }
    env.replace(&snapshot);
    assert_eq!(names(&env.files()), ["a.db", "c.db", "x.db"]);
    assert_eq!(env.said("a.db"), "new a.db");
}

#[test]
fn a_snapshot_made_by_hand_is_taken_with_its_wal() {
    let env = Env::new();
    let snapshot = env.by_hand(|dir| {
        let source = tempfile::tempdir().unwrap();
        let path = source.path().join("a.db");
        let _app = open(
            &path,
            "PRAGMA journal_mode = WAL; CREATE TABLE t (said); INSERT INTO t VALUES ('by hand')",
        );
        for name in ["a.db", "a.db-wal", "a.db-shm"] {
            std::fs::copy(source.path().join(name), dir.join(name)).unwrap();
        }
    });
    let before = files(&snapshot.path);
    assert!(
        before["a.db"].len() <= 4096 && before["a.db-wal"].len() > 4096,
        "the table is in the -wal"
    );
    let replaced = env.replace(&snapshot);
    assert_eq!((replaced.installed, replaced.removed), (vec!["a.db".to_owned()], vec![]));
    assert_eq!(names(&env.files()), ["a.db", "b.db", "x.db"]);
    assert_eq!((env.said("a.db"), env.said("b.db")), ("by hand".into(), "old b.db".into()));
    assert_eq!(files(&snapshot.path), before, "the snapshot stays as it was");
}

#[test]
fn a_snapshot_that_is_not_what_was_recorded_changes_nothing() {
    let env = Env::new();
    let recorded = env.pulled(&["a.db", "b.db"], None);
    let mut bytes = std::fs::read(recorded.path.join("b.db")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(recorded.path.join("b.db"), bytes).unwrap();
    let hand = env.by_hand(|dir| std::fs::write(dir.join("a.db"), [b'x'; 5000]).unwrap());
    let before = env.files();
    for snapshot in [&recorded, &hand] {
        let error = env.run(&env.replacement(snapshot)).err().unwrap();
        assert!(
            error.to_string().ends_with("is damaged; the current data was not changed"),
            "{error}"
        );
        assert!(crate::error::hint(&error).is_some());
        assert_eq!(env.files(), before);
        assert!(State::read(&env.live.store).unwrap().live.is_none());
        assert!(env.is_clean(), "nothing is left for the next command to warn of");
    }
    assert_eq!(env.live.store.list().unwrap().len(), 2, "nothing was saved for nothing");
}
