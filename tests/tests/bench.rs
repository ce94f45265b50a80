//! The benchmark, on little: that it measures what it says, not how long that takes.

use std::fs;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
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
        let mut command = env.command(binaries::dev());
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
fn each_way_to_pull_is_measured_through_the_link() {
    let env = TestEnv::new();
    let place = env.path("bench");
    let mut command = env.command(binaries::dev());
    command.args(["bench", "--mb", "3", "--rtt", "10", "--mbit", "200", "--runs", "1", "--json"]);
    let output = Running::start(command.args(["--tenants", "6", "--dir"]).arg(&place)).wait();
    // What it is told has nothing to be missed, and nothing that is kept.
    let report = output.ok().stderr_has("Left docs/benchmarks.md as it is").json();
    let sizes = |key: &str| -> Vec<u64> {
        let databases = report["databases"].as_array().expect("databases");
        databases.iter().map(|database| database[key].as_u64().expect("a number")).collect()
    };
    let set: u64 = sizes("bytes").iter().sum();
    assert!((3_000_000..4_000_000).contains(&set), "{report}");
    assert!(sizes("rows").iter().all(|rows| *rows > 50), "{report}");
    assert_eq!(report["links"].as_array().map(Vec::len), Some(1));
    let link = &report["links"][0];
    assert_eq!(link["shape"], json!({ "rtt_ms": 10, "mbit": 200 }));

    let flows = link["flows"].as_array().expect("flows");
    let find = |name: &str| {
        let flow = flows.iter().find(|flow| flow["flow"] == json!(name));
        flow.unwrap_or_else(|| panic!("{name} is not there: {report}"))
    };
    for name in [
        "classic",
        "rsync",
        "first_zstd",
        "first_gzip",
        "day",
        "nothing",
        "first_plain",
        "day_plain",
    ] {
        let flow = find(name);
        // Connecting alone takes three round trips.
        assert!(flow["seconds"]["median"].as_f64() > Some(0.03), "{name}: {flow}");
        assert!(flow["up"].as_u64() > Some(1_000), "{name}: {flow}");
        let down = flow["down"].as_u64().expect("a number");
        let first = name.starts_with("first") || name == "classic";
        let least = if first { set / 5 } else { 3_000 };
        assert!((least..set).contains(&down), "{name}: {down} of {set}");
        #[cfg(target_os = "linux")]
        assert!(flow["cpu"].as_f64() > Some(0.0), "{name}: {flow}");
        let stages = flow["stages"].as_array().expect("stages").len();
        let is_ours = !["classic", "rsync"].contains(&name);
        assert_eq!(stages > 3, is_ours, "{name}: {flow}");
    }
    assert!(find("connect")["seconds"]["median"].as_f64() > Some(0.03), "{report}");
    assert!(link["floor"].as_f64() > Some(0.07), "{report}");
    assert!(find("rsync")["down"].as_u64() < find("classic")["down"].as_u64(), "{report}");
    assert!(find("first_zstd")["down"].as_u64() < find("first_gzip")["down"].as_u64(), "{report}");

    #[cfg(target_os = "linux")]
    for program in ["sqlite3", "sshd"] {
        let memory = report["server"]["programs"][program].as_u64();
        assert!(memory > Some(500_000), "{program}: {report}");
    }
    #[cfg(target_os = "linux")]
    assert!(report["memory"].as_u64() > Some(1_000_000), "{report}");
    assert!(report["server"]["staging"].as_u64() > Some(1_000_000), "{report}");
    for pace in [
        "/writers/alone/0",
        "/writers/alone/1",
        "/writers/during/0/1",
        "/writers/during/1/1",
        "/rollback/during/0/1",
    ] {
        let pace = report.pointer(pace).expect("a pace");
        let rate = pace["commits_per_second"].as_f64();
        assert!(rate > Some(0.0) && rate < Some(210.0), "{pace}");
        assert!(pace["longest"].as_f64() > Some(0.0), "{pace}");
    }
    let tenants = report["tenants"]["pulls"].as_array().expect("pulls");
    let steps: Vec<_> = tenants.iter().filter_map(|pull| pull["step"].as_str()).collect();
    assert_eq!(steps, ["first", "day", "nothing"], "{report}");
    let seconds = |pull: &Value| pull["outcome"]["seconds"]["median"].as_f64();
    assert!(tenants.iter().all(|pull| seconds(pull) > Some(0.0)), "{report}");
    let disk = |key: &str| report["disk"][key].as_u64().expect("bytes");
    assert!(disk("set") >= 6 * 200_000 && disk("set") < disk("snapshots"), "{report}");
    assert!(disk("snapshots") < disk("data"), "{report}");

    let left = fs::read_dir(place.join("pulls-v2-3/zstd/tmp")).expect("read").count();
    assert_eq!(left, 0, "the server keeps nothing");
}

#[test]
fn sharing_and_replicas_are_measured_beside_what_does_the_same() {
    let env = TestEnv::new();
    let place = env.path("bench");
    let mut command = env.command(binaries::dev());
    command.args(["bench", "--share", "--mb", "3", "--rtt", "10", "--mbit", "200", "--runs", "1"]);
    command.args(["--tenants", "6", "--json", "--dir"]).arg(&place);
    let report = Running::start(&mut command).wait().ok();
    let report = report.stderr_has("Left docs/benchmarks.md as it is").json();
    let find = |way: &str, flow: &str| {
        let flows = report["results"][way].as_array().expect("flows");
        let found = flows.iter().find(|found| found["flow"] == json!(flow));
        let found = found.unwrap_or_else(|| panic!("{way} has no {flow}: {report}"));
        assert!(found["seconds"]["median"].as_f64() > Some(0.0), "{found}");
        #[cfg(target_os = "linux")]
        assert!(found["cpu"].is_number(), "{found}");
        found
    };
    let wire = |flow: &str| find("bucket", flow)["wire"].as_u64().expect("bytes");
    // The set is compressed, and of the next day only what has changed is sent.
    for (flow, day) in [("publish", "publish_day"), ("pull", "pull_day")] {
        assert!((300_000..2_500_000).contains(&wire(flow)), "{report}");
        assert!(wire(day) < wire(flow) / 2, "{report}");
        // The way through the link: connecting takes a round trip and a half.
        assert!(find("bucket", flow)["seconds"]["median"].as_f64() > Some(0.015), "{report}");
        for way in ["directory", "tenants_directory"] {
            #[cfg(target_os = "linux")]
            assert!(find(way, flow)["memory"].as_u64() > Some(1_000_000), "{report}");
            find(way, day);
        }
    }
    for way in ["replicas", "tenants_replicas"] {
        let seconds = |flow| find(way, flow)["seconds"]["median"].as_f64().expect("a number");
        let both = seconds("restore") + seconds("pull_restored");
        assert!((both - seconds("restore_and_pull")).abs() < 1e-6, "{report}");
        #[cfg(target_os = "linux")]
        assert!(find(way, "pull_replicas")["memory"].as_u64() > Some(1_000_000), "{report}");
    }
    assert_eq!(report["build"], Value::Null, "builds are measured for the document only");
    assert!(!place.join("pulls-v2-3/share").exists(), "only what takes long to make is kept");
}

#[test]
fn what_belongs_to_the_other_benchmark_is_refused() {
    let env = TestEnv::new();
    for (args, wrong) in [
        (&["--fixtures", "--mb", "3"][..], "--mb <N>"),
        (&["--rtt", "10"], "--mbit <N>"),
        (&["--rows", "2000"], "--fixtures"),
        (&["--fixtures", "--share"], "--share"),
    ] {
        let mut command = env.command(binaries::dev());
        let output = Running::start(command.arg("bench").args(args)).wait();
        output.fails(2).stderr_has(wrong).stdout_is("");
    }
}
