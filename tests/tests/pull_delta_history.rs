//! What a pull makes of an earlier one and of what differs is, byte for byte, what a
//! pull of all brings, whatever has become of the databases since.

use proptest::collection::vec;
use proptest::prelude::*;
use rusqlite::Connection;
use tests::databases;
use tests::delta::{Report, Scene};
use tests::long::depth;

const NAMES: [&str; 2] = ["data.db", "tenant_iris.db"];

#[derive(Clone, Debug)]
enum Step {
    Insert(u32),
    Delete(u32),
    Update(u32),
    Blob(u32),
    /// Beyond what is compared at a time.
    Grow,
    Shrink,
    Vacuum,
    PageSize(u32),
    AutoVacuum(u32),
    IncrementalVacuum,
    AddColumn,
    AddTable,
    DropTable,
    RollBack,
    Journal(&'static str),
    Checkpoint,
    /// Closed, and opened again.
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1_u32..400).prop_map(Step::Insert),
        2 => (2_u32..9).prop_map(Step::Delete),
        3 => (1_u32..90).prop_map(Step::Update),
        2 => (1_u32..300_000).prop_map(Step::Blob),
        1 => Just(Step::Grow),
        1 => Just(Step::Shrink),
        1 => Just(Step::Vacuum),
        1 => (9_u32..17).prop_map(|power| Step::PageSize(1 << power)),
        1 => (0_u32..3).prop_map(Step::AutoVacuum),
        1 => Just(Step::IncrementalVacuum),
        1 => Just(Step::AddColumn),
        1 => Just(Step::AddTable),
        1 => Just(Step::DropTable),
        1 => Just(Step::RollBack),
        2 => prop_oneof![Just("wal"), Just("delete"), Just("truncate")].prop_map(Step::Journal),
        1 => Just(Step::Checkpoint),
        2 => Just(Step::Close),
    ]
}

/// A database of production that is open, as its app would have it: in WAL mode, what
/// was written last is in the `-wal`.
struct Database {
    name: &'static str,
    connection: Option<Connection>,
    made: u32,
}

impl Database {
    fn take(&mut self, scene: &Scene, step: &Step) {
        self.made += 1;
        let made = self.made;
        if let Step::Close = step {
            self.connection = None;
        }
        let connection = self.connection.get_or_insert_with(|| {
            Connection::open(scene.path(self.name)).expect("open a database")
        });
        let run = |sql: &str| {
            connection.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        };
        // `VACUUM` changes neither in WAL mode.
        let out_of_wal = |change: &str| {
            let mode: String =
                connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).expect("a mode");
            run(&format!(
                "PRAGMA journal_mode = delete; {change}; VACUUM; PRAGMA journal_mode = {mode}"
            ));
        };
        match step {
            Step::Insert(rows) => databases::insert(connection, *rows, made),
            Step::Delete(n) => run(&format!("DELETE FROM items WHERE id % {n} = 0")),
            Step::Update(n) => {
                run(&format!("UPDATE items SET value = value + 1 WHERE id % {n} = 0"));
            }
            Step::Blob(bytes) => {
                run(&format!("INSERT INTO items (data) VALUES (randomblob({bytes}))"));
            }
            Step::Grow => run("INSERT INTO items (data) VALUES (randomblob(2500000))"),
            Step::Shrink => run("DELETE FROM items WHERE id > 50; VACUUM"),
            Step::Vacuum => run("VACUUM"),
            Step::PageSize(size) => out_of_wal(&format!("PRAGMA page_size = {size}")),
            Step::AutoVacuum(mode) => out_of_wal(&format!("PRAGMA auto_vacuum = {mode}")),
            Step::IncrementalVacuum => run("PRAGMA incremental_vacuum"),
            Step::AddColumn => run(&format!("ALTER TABLE items ADD COLUMN c{made} DEFAULT {made}")),
            Step::AddTable => run(&format!(
                "CREATE TABLE IF NOT EXISTS other AS SELECT id, value FROM items;
                 CREATE INDEX other_{made} ON other (value)"
            )),
            Step::DropTable => run("DROP TABLE IF EXISTS other"),
            Step::RollBack => run("BEGIN; UPDATE items SET value = 0; ROLLBACK"),
            Step::Journal(mode) => run(&format!("PRAGMA journal_mode = {mode}")),
            Step::Checkpoint => run("PRAGMA wal_checkpoint(TRUNCATE)"),
            Step::Close => {}
        }
    }
}

fn all_of<'a>(report: &'a Report, key: &'a str) -> impl Iterator<Item = &'a serde_json::Value> {
    report.databases().iter().map(move |database| &database[key])
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: depth(3, 400),
        max_shrink_iters: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_differs_and_what_was_here_are_what_a_full_pull_brings(
        busybox in any::<bool>(),
        sanitized in any::<bool>(),
        history in vec(vec((0..NAMES.len(), step()), 0..4), 1..5),
    ) {
        let scene = if busybox { Scene::busybox() } else { Scene::new() };
        if sanitized {
            scene.env.db_toml("[[sanitize]]\ntable = 'items'\nset = { key = 'NULL' }\nwhere = 'id % 3 = 0'\n");
        }
        scene.create(&NAMES, 300);
        let mut databases = NAMES.map(|name| Database { name, connection: None, made: 9 });
        let mut before = scene.report(&["--no-backup"]);
        for steps in history {
            for (i, step) in &steps {
                databases[*i].take(&scene, step);
            }
            let delta = scene.report(&["--no-backup"]);
            let full = scene.report(&["--no-backup", "--full", "--local-dir", "full"]);
            for key in ["name", "bytes", "sha256", "page_size", "schema", "user_version"] {
                prop_assert!(all_of(&delta, key).eq(all_of(&full, key)), "{} differs", key);
            }
            for (i, name) in NAMES.iter().enumerate() {
                let pulled = scene.env.data().join(delta.text("snapshot")).join(name);
                let whole = scene.env.repo().join("full").join(full.text("snapshot")).join(name);
                prop_assert!(std::fs::read(&pulled)? == std::fs::read(whole)?, "{} differs", name);
                if !sanitized {
                    databases::assert_same(&pulled, &scene.path(name));
                }
                prop_assert_eq!(full.changed(name), None);
                let of = |report: &Report| report.databases()[i]["page_size"].as_u64();
                prop_assert_eq!(delta.changed(name).is_some(), of(&before) == of(&delta));
                if !steps.iter().any(|(changed, _)| *changed == i) {
                    prop_assert_eq!(delta.changed(name), Some(0));
                }
            }
            before = delta;
        }
    }
}
