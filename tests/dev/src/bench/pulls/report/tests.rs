use std::collections::BTreeMap;
use std::time::Duration;

use super::super::writers::Pace;
use super::*;

fn link(shape: Shape, seconds: [(Flow, f64); 6]) -> Link {
    let measured = |(flow, median)| Measured {
        flow,
        seconds: Times { median, worst: median + 1.0 },
        up: 20_000,
        down: if flow == Flow::Day { 7_000_000 } else { 7_500_000 },
    };
    Link { shape, flows: seconds.map(measured).to_vec() }
}

/// A report that meets all targets, unless `day` is more than 2 seconds.
fn report(mb: u64, day: f64) -> Report {
    let seconds = [
        (Flow::Classic, 10.0),
        (Flow::Rsync, 5.0),
        (Flow::FirstZstd, 4.0),
        (Flow::FirstGzip, 5.5),
        (Flow::Day, day),
        (Flow::Nothing, 1.2),
    ];
    let pace = |commits_per_second| Pace { commits_per_second, longest: 0.05 };
    Report {
        mb,
        databases: vec![
            Database { name: "small.db", rows: 1, bytes: 1_000 },
            Database { name: "large.db", rows: 2, bytes: 9_000 },
        ],
        runs: 3,
        cores: 2,
        sqlite: "3.40.1".to_owned(),
        links: LINKS.map(|shape| link(shape, seconds)).into(),
        server: Seen { programs: [("tar".to_owned(), 32_000_000)].into(), staging: 19_000 },
        memory: Some(64_000_000),
        writers: Writers {
            alone: vec![pace(190.0), pace(210.0)],
            during: vec![(Flow::Day, pace(190.0))],
        },
    }
}

#[test]
fn what_is_missed_is_said_with_by_how_much() {
    assert_eq!(report(240, 2.0).missed(), [""; 0]);
    assert_eq!(report(240, 2.0).targets().len(), 4 + 1 + 1 + 1 + 1 + 2);
    let mut bad = report(240, 2.25);
    bad.server = Seen { programs: [("tar".to_owned(), 33_000_000)].into(), staging: 20_000 };
    bad.memory = Some(70_000_000);
    bad.writers.during[0].1 = Pace { commits_per_second: 150.0, longest: 0.0625 };
    bad.links[0].flows[4].down = 7_600_000;
    assert_eq!(
        bad.missed(),
        [
            "after a day, of the time of a classic one: 0.225, 0.025 more than 0.200",
            "bytes down after a day, and those of rsync: 7.6 MB, 100.0 kB more than 7.5 MB",
            "memory of tar on the server: 33.0 MB, 1.0 MB more than 32.0 MB",
            "temporary files on the server, and the set and its largest database: 20.0 kB, 1.0 kB more than 19.0 kB",
            "memory here: 70.0 MB, 6.0 MB more than 64.0 MB",
            "commits of an app, after a day, of those without: 0.750, 0.200 less than 0.950",
            "longest commit of an app, after a day: 62.5 ms, 12.5 ms more than 50.0 ms",
        ]
    );
}

#[test]
fn targets_are_for_the_standard_set_and_what_is_not_known_misses_none() {
    assert_eq!(report(20, 9.0).missed(), [""; 0]);
    let mut other = report(240, 9.0);
    other.links.remove(0);
    assert_eq!(other.missed(), [""; 0]);
    let mut without = report(240, 2.0);
    without.links[0].flows.remove(1);
    without.memory = None;
    without.server.programs = BTreeMap::new();
    assert_eq!(without.missed(), [""; 0]);
}

#[test]
fn the_table_can_be_read() {
    let mut report = report(20, 2.0);
    report.links.truncate(1);
    assert_eq!(
        report.render().lines().collect::<Vec<_>>(),
        [
            "2 databases, 10.0 kB; the median of 3 runs on 2 cores, SQLite 3.40.1",
            "",
            "80 ms, 100 Mbit/s        median    worst of classic        up      down",
            "classic first pull      10.00 s  11.00 s      1.000   20.0 kB    7.5 MB",
            "rsync after a day        5.00 s   6.00 s      0.500   20.0 kB    7.5 MB",
            "first pull (zstd)        4.00 s   5.00 s      0.400   20.0 kB    7.5 MB",
            "first pull (gzip)        5.50 s   6.50 s      0.550   20.0 kB    7.5 MB",
            "after a day              2.00 s   3.00 s      0.200   20.0 kB    7.0 MB",
            "nothing changed          1.20 s   2.20 s      0.120   20.0 kB    7.5 MB",
            "",
            "tar had 32.0 MB of memory on the server",
            "temporary files there took 19.0 kB",
            "pull-db had 64.0 MB of memory",
            "an app, alone: 190.0 commits/s, the longest 50.0 ms",
            "an app, alone: 210.0 commits/s, the longest 50.0 ms",
            "an app, after a day: 190.0 commits/s, the longest 50.0 ms",
        ]
    );
}

#[test]
fn the_document_has_a_row_for_each_flow_and_each_target() {
    let report = report(240, 2.5);
    let document = report.document("plot.svg");
    for line in [
        "![Seconds of each flow through each link](plot.svg)",
        "| | 80 ms, 100 Mbit/s | 20 ms, 1 Gbit/s | 150 ms, 20 Mbit/s | up | down |",
        "| --- | --- | --- | --- | --- | --- |",
        "| after a day | 2.5 s (0.25) | 2.5 s (0.25) | 2.5 s (0.25) | 20.0 kB | 7.0 MB |",
        "| after a day, of the time of a classic one | at most 0.200 | 0.250 | **missed** |",
        "| commits of an app, after a day, of those without | at least 0.950 | 0.950 | |",
    ] {
        assert!(document.lines().any(|found| found == line), "{line}\n{document}");
    }
    assert_eq!(document.lines().filter(|line| line.contains(" s (")).count(), 6);
    assert_eq!(document.matches("**missed**").count(), 1);
    assert!(document.contains("(2 cores, SQLite 3.40.1)"), "{document}");
}

#[test]
fn of_several_runs_the_median_is_taken() {
    let runs = [(3, 5), (9, 1), (4, 2)].map(|(seconds, down)| Run {
        time: Duration::from_secs(seconds),
        up: 1,
        down,
        memory: None,
        seen: None,
    });
    let measured = Measured::of(Flow::Classic, &runs);
    assert_eq!(measured.seconds, Times { median: 4.0, worst: 9.0 });
    assert_eq!((measured.up, measured.down), (1, 2));
}
