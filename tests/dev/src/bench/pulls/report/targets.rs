//! What the benchmark holds its figures against.

use super::link::Link;
use super::{LINKS, Report, STANDARD_MB, STANDARD_TENANTS, milliseconds, part, seconds, size};
use crate::bench::pulls::disk;
use crate::bench::pulls::flows::Flow;
use crate::bench::pulls::server::Shape;
use crate::bench::pulls::tenants::{Outcome, Step};
use crate::bench::pulls::writers::{Pace, Writers};

/// Those of a link.
struct Limits {
    shape: Shape,
    /// The time of a first pull, as a part of that of the classic one.
    first: f64,
    /// The time after a day, as a part of that of rsync.
    day: f64,
}
const LIMITS: [Limits; 2] = [
    Limits { shape: LINKS[0], first: 0.42, day: 1.0 },
    Limits { shape: LINKS[1], first: 0.35, day: 1.2 },
];
/// The seconds that a pull of nothing takes longer than `ssh true`.
const NOTHING: f64 = 0.5;
/// The CPU time of the server, as a part of that of the classic flow.
const CPU: [(Flow, f64); 3] = [(Flow::FirstZstd, 1.5), (Flow::Day, 0.5), (Flow::Nothing, 0.1)];
/// The bytes down after a day, as a part of those of rsync.
const DOWN: f64 = 0.7;
/// Of each program on the server, in bytes.
const SERVER_MEMORY: u64 = 32_000_000;
/// Of `pull-db`, in bytes.
pub const MEMORY: u64 = 64_000_000;
/// How often an app commits during a pull, as a part of what it does alone.
const PACE: f64 = 0.95;
/// The longest commit in WAL mode and in rollback mode, in seconds.
const STALL: f64 = 0.05;
const ROLLBACK_STALL: f64 = 0.5;
/// The seconds of each pull of the tenants.
const TENANTS: [(Step, f64); 3] = [(Step::First, 20.0), (Step::Day, 3.0), (Step::Nothing, 2.0)];
/// The processes on a core that read databases at once.
const READERS: usize = 2;
/// What the snapshots of ten days take, as a multiple of one set.
const SNAPSHOTS: f64 = 1.3;

/// A target, and what was measured.
pub struct Target {
    pub what: String,
    pub measured: f64,
    pub limit: f64,
    unit: fn(f64) -> String,
    /// The limit is the least, not the most.
    least: bool,
}

impl Target {
    pub fn most(
        what: impl Into<String>,
        measured: f64,
        limit: f64,
        unit: fn(f64) -> String,
    ) -> Self {
        Self { what: what.into(), measured, limit, unit, least: false }
    }

    pub fn missed(&self) -> Option<String> {
        let more = if self.least { self.limit - self.measured } else { self.measured - self.limit };
        let [measured, limit, by] = [self.measured, self.limit, more].map(self.unit);
        let word = if self.least { "less" } else { "more" };
        (more > 0.0).then(|| format!("{}: {measured}, {by} {word} than {limit}", self.what))
    }

    /// What is wanted and what was measured.
    pub fn cells(&self) -> [String; 3] {
        let word = if self.least { "at least" } else { "at most" };
        [
            self.what.clone(),
            format!("{word} {}", (self.unit)(self.limit)),
            (self.unit)(self.measured),
        ]
    }
}

impl Report {
    /// What is held against the standard set, and the standard tenants. What a system does
    /// not tell misses none.
    pub fn targets(&self) -> Vec<Target> {
        let mut targets = Vec::new();
        if self.mb == STANDARD_MB {
            for link in &self.links {
                let limits = LIMITS.iter().find(|limits| limits.shape == link.shape);
                targets.extend(limits.into_iter().flat_map(|limits| of_link(link, limits)));
            }
            if let Some(link) = self.links.first().filter(|link| link.shape == LINKS[0]) {
                targets.extend(of_server(link));
                targets.extend(self.of_resources());
                targets.extend(of_writers(&self.writers, "in WAL mode", STALL));
                targets.extend(longest(&self.rollback, "in rollback mode", ROLLBACK_STALL));
            }
        }
        targets.extend(self.of_tenants());
        let disk = self.disk.as_ref().filter(|disk| disk.databases == disk::DATABASES);
        targets.extend(disk.map(|disk| {
            let what = "disk for snapshots of ten days, relative to the databases";
            Target::most(what, disk.multiples()[1], SNAPSHOTS, part)
        }));
        targets
    }

    /// In words, by how much a target is missed.
    pub fn missed(&self) -> Vec<String> {
        self.targets().iter().filter_map(Target::missed).collect()
    }

    fn of_resources(&self) -> Vec<Target> {
        let programs = self.server.programs.iter().map(|(name, memory)| {
            let what = format!("memory of {name} on the server");
            Target::most(what, *memory as f64, SERVER_MEMORY as f64, size)
        });
        let mut targets: Vec<_> = programs.collect();
        let sizes = self.databases.iter().map(|database| database.bytes);
        let staging = sizes.clone().sum::<u64>() + sizes.max().unwrap_or_default();
        let what = "temporary files on the server (limit: all databases, the largest twice)";
        targets.push(Target::most(what, self.server.staging as f64, staging as f64, size));
        let memory = |memory| Target::most("memory here", memory as f64, MEMORY as f64, size);
        targets.extend(self.memory.map(memory));
        targets
    }

    fn of_tenants(&self) -> Vec<Target> {
        let tenants = self.tenants.iter().filter(|tenants| tenants.databases == STANDARD_TENANTS);
        let pulls: Vec<_> = tenants.flat_map(|tenants| &tenants.pulls).collect();
        let mut targets = Vec::new();
        for pull in &pulls {
            let measured = match pull.outcome {
                Outcome::Seconds(times) => times.median,
                Outcome::Killed => f64::INFINITY,
                Outcome::NotMeasured => continue,
            };
            let limit = TENANTS.iter().find(|(step, _)| *step == pull.step);
            targets.extend(
                limit.map(|(step, limit)| Target::most(step.name(), measured, *limit, seconds)),
            );
        }
        if let Some(memory) = pulls.iter().filter_map(|pull| pull.memory).max() {
            let what = "memory here, tenants";
            targets.push(Target::most(what, memory as f64, MEMORY as f64, size));
        }
        if let Some(readers) = pulls.iter().map(|pull| pull.readers).max() {
            let (what, most) =
                ("processes that read tenants at once", READERS * self.machine.cores);
            targets.push(Target::most(what, readers as f64, most as f64, |n| format!("{n:.0}")));
        }
        targets
    }
}

/// Times of flows through a link.
fn of_link(link: &Link, limits: &Limits) -> Vec<Target> {
    let name = |flow: Flow| format!("{}, {}", flow.name(), link.shape);
    let of = |flow| link.seconds(flow);
    let first = link.ratio(Flow::FirstZstd).map(|ratio| {
        let what = format!("{}, time relative to classic", name(Flow::FirstZstd));
        Target::most(what, ratio, limits.first, part)
    });
    let day = of(Flow::Day).zip(of(Flow::Rsync)).map(|(day, rsync)| {
        let what = format!("{}, time relative to rsync", name(Flow::Day));
        Target::most(what, day / rsync, limits.day, part)
    });
    let nothing = of(Flow::Nothing).zip(of(Flow::Connect)).map(|(nothing, connect)| {
        let what = format!("{}, time beyond `ssh true`", name(Flow::Nothing));
        Target::most(what, nothing - connect, NOTHING, seconds)
    });
    [first, day, nothing].into_iter().flatten().collect()
}

/// CPU time and bytes.
fn of_server(link: &Link) -> Vec<Target> {
    let cpu = CPU.iter().filter_map(|(flow, limit)| {
        let what = format!("CPU time of the server, {}, relative to classic", flow.name());
        Some(Target::most(what, link.cpu_ratio(*flow)?, *limit, part))
    });
    let mut targets: Vec<_> = cpu.collect();
    if let (Some(day), Some(rsync)) = (link.find(Flow::Day), link.find(Flow::Rsync)) {
        let what = "bytes down after a day, relative to rsync";
        targets.push(Target::most(what, day.down as f64 / rsync.down as f64, DOWN, part));
    }
    targets
}

fn of_writers(writers: &Writers, mode: &str, stall: f64) -> Vec<Target> {
    let mut targets = longest(writers, mode, stall);
    for (flow, pace) in &writers.during {
        let measured = pace.commits_per_second / writers.alone();
        let what =
            format!("commits per second of an app {mode}, {}, relative to no pull", flow.name());
        targets.push(Target { least: true, ..Target::most(what, measured, PACE, part) });
    }
    targets
}

fn longest(writers: &Writers, mode: &str, stall: f64) -> Vec<Target> {
    let target = |(flow, pace): &(Flow, Pace)| {
        let what = format!("longest commit of an app {mode}, {}", flow.name());
        Target::most(what, pace.longest, stall, milliseconds)
    };
    writers.during.iter().map(target).collect()
}
