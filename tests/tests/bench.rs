//! The benchmark, on little: that it measures what it says, not how long that takes.

use std::fs;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use serde_json::json;
use tests::binaries;
use tests::env::TestEnv;
use tests::process::Running;

/// All rows of a database's tables, and how many of them refer to nothing.
fn rows_and_broken(path: &Path) -> (u64, u64) {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("open");
    let number =
        |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("a number") as u64;
    let tables = "SELECT name FROM pragma_table_list WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
    let mut tables = db.prepare(tables).expect("prepare");
    let names = tables.query_map([], |row| row.get::<_, String>(0)).expect("query");
    let rows = names.map(|name| number(&format!("SELECT count(*) FROM {}", name.expect("a name"))));
    (rows.sum(), number("SELECT count(*) FROM pragma_foreign_key_check"))
}

#[test]
fn each_row_that_is_reported_is_there_and_refers_to_another() {
    let env = TestEnv::new();
    let (place, small) = (env.path("bench"), ["--rows", "2100", "--runs", "1"]);
    let bench = || {
        let mut command = env.command(binaries::xtask());
        command.args(["bench", "--fixtures", "--json", "--dir"]).arg(&place).args(small);
        Running::start(&mut command).wait()
    };
    let output = bench();
    // A target may be missed: other tests run meanwhile.
    assert!(matches!(output.code, Some(0 | 1)), "{output}");
    let report = output.json();
    assert_eq!(report["source"]["rows"], json!(2000), "rounded to what one organization has");
    assert_eq!(report["source"]["tables"]["comments"], json!(4 * 144));
    assert_eq!(report["naive"]["rows"], json!(500));
    assert!(report["hook"]["cargo_run"]["median"].is_number(), "{output}");

    let data = place.join("v1-2000/data");
    let snapshots = || {
        let names = fs::read_dir(&data).expect("read").map(|e| e.expect("entry").file_name());
        let mut names: Vec<_> = names.filter_map(|name| name.into_string().ok()).collect();
        names.retain(|name| name.starts_with("backup_"));
        names
    };
    let made = snapshots();
    assert_eq!(rows_and_broken(&data.join(&made[0]).join("source.db")), (2000, 0));
    for (i, name) in ["children", "parents", "sorted"].into_iter().enumerate() {
        let cut = &report["cuts"][i];
        assert_eq!(cut["name"], json!(name));
        let fixture = place.join("v1-2000/repository").join(name).join("fixture.db");
        let rows = cut["rows"].as_u64().expect("a number of rows");
        assert!((100..=1000).contains(&rows), "{name}: {rows} rows");
        assert_eq!(rows_and_broken(&fixture), (rows, 0), "{name}");
        #[cfg(target_os = "linux")]
        assert!(cut["memory"].as_u64() > Some(1_000_000), "{output}");
    }
    assert_eq!(report["cuts"][0]["rows"], json!(500), "one organization, down all references");

    bench().stderr_lacks("Making");
    assert_eq!(snapshots(), made, "the source is made once");
}

#[test]
fn it_has_to_be_said_what_is_measured() {
    let env = TestEnv::new();
    let output = Running::start(env.command(binaries::xtask()).arg("bench")).wait();
    output.fails(2).stderr_has("--fixtures").stdout_is("");
}
