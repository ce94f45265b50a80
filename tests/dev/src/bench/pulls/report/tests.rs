use std::collections::BTreeMap;

use super::*;
use crate::bench::Times;
use crate::bench::pulls::stages;
use crate::bench::pulls::tenants::Step;

/// A flow with its seconds and the CPU time of the server.
type Figures = (Flow, f64, f64);

fn link(shape: Shape, figures: [Figures; 7]) -> Link {
    let measured = |(flow, median, cpu): Figures| Measured {
        flow,
        seconds: Times { median, worst: median + 1.0 },
        up: 20_000,
        down: if flow == Flow::Day { 5_000_000 } else { 7_500_000 },
        cpu: Some(cpu),
        stages: if flow == Flow::Day { stages::parse("here: verify 5 ms") } else { Vec::new() },
    };
    Link::new(shape, figures.map(measured).into())
}

fn pace(commits_per_second: f64, longest: f64) -> Pace {
    Pace { commits_per_second, longest }
}

fn tenants(outcome: Outcome) -> Tenants {
    let pull = Pull { step: Step::First, outcome, memory: Some(64_000_000), readers: 4 };
    let rest = Pull { step: Step::Day, outcome: Outcome::NotMeasured, memory: None, readers: 0 };
    Tenants { databases: 1000, pulls: vec![pull, rest] }
}

/// One that meets all targets, unless the seconds of a day are more than 5.
fn report(mb: u64, day: f64) -> Report {
    let figures = [
        (Flow::Classic, 10.0, 8.0),
        (Flow::Connect, 0.5, 0.1),
        (Flow::Rsync, 5.0, 3.0),
        (Flow::FirstZstd, 3.5, 12.0),
        (Flow::FirstGzip, 5.5, 14.0),
        (Flow::Day, day, 4.0),
        (Flow::Nothing, 1.0, 0.8),
    ];
    Report {
        mb,
        databases: vec![
            Database { name: "small.db", rows: 1, bytes: 1_000 },
            Database { name: "large.db", rows: 2, bytes: 9_000 },
        ],
        runs: 3,
        machine: Machine {
            cores: 2,
            memory: Some(8_000_000_000),
            kernel: "Linux 6.1.0".to_owned(),
            sqlite_server: "3.40.1".to_owned(),
            sqlite_client: "3.51.0".to_owned(),
        },
        links: LINKS.map(|shape| link(shape, figures)).into(),
        server: Seen {
            programs: [("tar".to_owned(), 32_000_000)].into(),
            staging: 19_000,
            readers: 2,
        },
        memory: Some(64_000_000),
        writers: Writers {
            alone: vec![pace(190.0, 0.05), pace(210.0, 0.05)],
            during: vec![(Flow::Day, pace(190.0, 0.05))],
        },
        rollback: Writers {
            alone: vec![pace(100.0, 0.01)],
            during: vec![(Flow::FirstZstd, pace(90.0, 0.5))],
        },
        tenants: Some(tenants(Outcome::Seconds(Times { median: 20.0, worst: 21.0 }))),
        disk: Some(Disk { databases: 100, set: 10, data: 23, snapshots: 13 }),
    }
}

#[test]
fn a_missed_target_says_by_how_much() {
    assert_eq!(report(240, 5.0).missed(), [""; 0]);
    // Of two links; of the server and its programs; of both apps; of tenants; of the disk.
    assert_eq!(report(240, 5.0).targets().len(), 2 * 3 + 4 + 3 + 2 + 1 + 3 + 1);
    let mut bad = report(240, 5.5);
    bad.server.programs = [("tar".to_owned(), 33_000_000)].into();
    bad.server.staging = 20_000;
    bad.memory = Some(70_000_000);
    bad.writers.during[0].1 = pace(150.0, 0.0625);
    bad.rollback.during[0].1.longest = 0.75;
    bad.links[0].flows[5].down = 6_000_000;
    bad.links[0].flows[6].cpu = Some(1.6);
    bad.links[1].flows[6].seconds.median = 1.25;
    let mut killed = tenants(Outcome::Killed);
    killed.pulls[0].readers = 5;
    bad.tenants = Some(killed);
    bad.disk = Some(Disk { databases: 100, set: 10, data: 40, snapshots: 30 });
    assert_eq!(
        bad.missed(),
        [
            "after a day, 80 ms, 100 Mbit/s, time relative to rsync: 1.100, 0.100 more than 1.000",
            "nothing changed, 20 ms, 1 Gbit/s, time beyond `ssh true`: 0.75 s, 0.25 s more than 0.50 s",
            "CPU time of the server, nothing changed, relative to classic: 0.200, 0.100 more than 0.100",
            "bytes down after a day, relative to rsync: 0.800, 0.100 more than 0.700",
            "memory of tar on the server: 33.0 MB, 1.0 MB more than 32.0 MB",
            "temporary files on the server (limit: all databases, the largest twice): 20.0 kB, 1.0 kB more than 19.0 kB",
            "memory here: 70.0 MB, 6.0 MB more than 64.0 MB",
            "longest commit of an app in WAL mode, after a day: 62.5 ms, 12.5 ms more than 50.0 ms",
            "commits per second of an app in WAL mode, after a day, relative to no pull: 0.750, 0.200 less than 0.950",
            "longest commit of an app in rollback mode, first pull (zstd): 750.0 ms, 250.0 ms more than 500.0 ms",
            "first pull of tenants: over 300 s, over 300 s more than 20.00 s",
            "processes that read tenants at once: 5, 1 more than 4",
            "disk for snapshots of ten days, relative to the databases: 3.000, 1.700 more than 1.300",
        ]
    );
}

#[test]
fn targets_are_for_the_standard_set_and_what_is_not_known_misses_none() {
    assert_eq!(report(20, 9.0).missed(), [""; 0]);
    let mut other = report(240, 9.0);
    other.links = vec![other.links.remove(2)];
    assert_eq!(other.missed(), [""; 0]);
    let mut few = report(240, 5.0);
    few.tenants = Some(Tenants { databases: 20, ..tenants(Outcome::Killed) });
    few.disk = Some(Disk { databases: 20, set: 1, data: 9, snapshots: 9 });
    assert_eq!(few.missed(), [""; 0]);
    let mut without = report(240, 5.0);
    without.links[0].flows.remove(2);
    without.links[0].flows[0].cpu = None;
    without.memory = None;
    without.server.programs = BTreeMap::new();
    (without.tenants, without.disk) = (None, None);
    assert_eq!(without.missed(), [""; 0]);
}

#[test]
fn the_table_can_be_read() {
    let mut report = report(20, 2.0);
    report.links.truncate(1);
    assert_eq!(
        report.render().lines().collect::<Vec<_>>(),
        [
            "2 databases, 10.0 kB; the median of 3 runs",
            "2 cores, 8.0 GB, Linux 6.1.0, SQLite 3.40.1 on the server and 3.51.0 here",
            "",
            "80 ms, 100 Mbit/s          median    worst of classic        up      down      cpu",
            "classic first pull        10.00 s  11.00 s      1.000   20.0 kB    7.5 MB   8.00 s",
            "ssh true                   0.50 s   1.50 s      0.050   20.0 kB    7.5 MB   0.10 s",
            "rsync after a day          5.00 s   6.00 s      0.500   20.0 kB    7.5 MB   3.00 s",
            "first pull (zstd)          3.50 s   4.50 s      0.350   20.0 kB    7.5 MB  12.00 s",
            "first pull (gzip)          5.50 s   6.50 s      0.550   20.0 kB    7.5 MB  14.00 s",
            "after a day                2.00 s   3.00 s      0.200   20.0 kB    5.0 MB   4.00 s",
            "nothing changed            1.00 s   2.00 s      0.100   20.0 kB    7.5 MB   0.80 s",
            "floor (computed)           1.16 s",
            "sqlite3_rsync after a day: not installed",
            "",
            "after a day: here: verify 5 ms",
            "tar had 32.0 MB of memory on the server",
            "temporary files there took 19.0 kB",
            "pull-db had 64.0 MB of memory",
            "an app in WAL mode, alone: 190.0 commits/s, the longest 50.0 ms",
            "an app in WAL mode, alone: 210.0 commits/s, the longest 50.0 ms",
            "an app in WAL mode, after a day: 190.0 commits/s, the longest 50.0 ms",
            "an app in rollback mode, alone: 100.0 commits/s, the longest 10.0 ms",
            "an app in rollback mode, first pull (zstd): 90.0 commits/s, the longest 500.0 ms",
            "",
            "1000 tenants",
            "first pull of tenants: 20.00 s, 64.0 MB of memory, 4 processes",
            "four tenants changed: not measured",
            "10 daily pulls of 100 databases (10 B) take 2.30 times their size on disk here, 1.30 times without the current data",
        ]
    );
}

#[test]
fn the_document_has_a_row_for_each_flow_and_each_target() {
    let report = report(240, 5.5);
    let document = report.document("plot.svg");
    for line in [
        "![Seconds of each flow through each link](plot.svg)",
        "| | 80 ms, 100 Mbit/s | 20 ms, 1 Gbit/s | 150 ms, 20 Mbit/s | up | down | CPU of the server |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| after a day | 5.5 s (0.55) | 5.5 s (0.55) | 5.5 s (0.55) | 20.0 kB | 5.0 MB | 4.00 s |",
        "| floor (computed) | 1.2 s | 0.2 s | 4.0 s | | | |",
        "| sqlite3_rsync after a day | not installed | | | | | |",
        "| after a day | here: verify 5 ms |",
        "| 1000 tenants | seconds | memory here | processes that read databases at once |",
        "| first pull of tenants | 20.00 s | 64.0 MB | 4 |",
        "| after a day, 80 ms, 100 Mbit/s, time relative to rsync | at most 1.000 | 1.100 | **missed** |",
        "| commits per second of an app in WAL mode, after a day, relative to no pull | at least 0.950 | 0.950 | |",
    ] {
        assert!(document.lines().any(|found| found == line), "{line}\n{document}");
    }
    assert_eq!(document.lines().filter(|line| line.contains(" s (")).count(), 7);
    assert_eq!(document.matches("**missed**").count(), 1);
    assert!(document.contains(&report.machine.describe()), "{document}");
    assert!(document.contains("set.email = "), "{document}");
}
