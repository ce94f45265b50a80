//! The results, for a reader or a program, and the missed targets.

use serde::Serialize;
use xtask_db::internals::ui::{bytes, count};

use super::flows::{Flow, Run};
use super::server::Shape;
use super::source::Database;
use super::watch::Seen;
use super::writers::Writers;
use crate::bench::Times;

/// The size of the set whose results are kept, and the links; targets apply to the first.
pub const STANDARD_MB: u64 = 240;
pub const LINKS: [Shape; 3] =
    [HEADLINE, Shape { rtt_ms: 20, mbit: 1000 }, Shape { rtt_ms: 150, mbit: 20 }];
const HEADLINE: Shape = Shape { rtt_ms: 80, mbit: 100 };

/// The maximum time of a flow, relative to the classic one.
const RATIOS: [(Flow, f64); 4] =
    [(Flow::FirstZstd, 0.40), (Flow::FirstGzip, 0.55), (Flow::Day, 0.20), (Flow::Nothing, 0.12)];
/// The maximum memory of each program on the server, in bytes.
const SERVER_MEMORY: u64 = 32_000_000;
/// The maximum memory of `pull-db`, in bytes.
const MEMORY: u64 = 64_000_000;
/// The minimum rate of commits of an app during a pull, relative to the app alone.
const PACE: f64 = 0.95;
/// The maximum duration of a commit, in seconds.
const STALL: f64 = 0.05;

#[derive(Serialize)]
pub struct Report {
    pub mb: u64,
    pub databases: Vec<Database>,
    pub runs: u32,
    pub cores: usize,
    /// The version of the server's `sqlite3`.
    pub sqlite: String,
    pub links: Vec<Link>,
    /// Resources of our pulls on the server, and their peak memory here in bytes; through the first
    /// link.
    pub server: Seen,
    pub memory: Option<u64>,
    /// Measured through the first link.
    pub writers: Writers,
}

#[derive(Serialize)]
pub struct Link {
    pub shape: Shape,
    pub flows: Vec<Measured>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    pub flow: Flow,
    pub seconds: Times,
    /// The medians of the transferred bytes.
    pub up: u64,
    pub down: u64,
}

impl Measured {
    /// `runs` must not be empty.
    pub fn of(flow: Flow, runs: &[Run]) -> Self {
        let median = |bytes: fn(&Run) -> u64| {
            let mut all: Vec<_> = runs.iter().map(bytes).collect();
            all.sort_unstable();
            all.get(all.len() / 2).copied().unwrap_or_default()
        };
        let seconds = Times::of(runs.iter().map(|run| run.time).collect());
        Self { flow, seconds, up: median(|run| run.up), down: median(|run| run.down) }
    }
}

impl Link {
    pub fn find(&self, flow: Flow) -> Option<&Measured> {
        self.flows.iter().find(|measured| measured.flow == flow)
    }

    /// The time of a flow, relative to the classic one.
    pub fn ratio(&self, flow: Flow) -> Option<f64> {
        Some(self.find(flow)?.seconds.median / self.find(Flow::Classic)?.seconds.median)
    }
}

/// A target and its measurement.
pub struct Target {
    pub what: String,
    pub measured: f64,
    pub limit: f64,
    unit: fn(f64) -> String,
    /// Whether the limit is a minimum.
    least: bool,
}

impl Target {
    fn most(what: impl Into<String>, measured: f64, limit: f64, unit: fn(f64) -> String) -> Self {
        Self { what: what.into(), measured, limit, unit, least: false }
    }

    fn missed(&self) -> Option<String> {
        let more = if self.least { self.limit - self.measured } else { self.measured - self.limit };
        let [measured, limit, by] = [self.measured, self.limit, more].map(self.unit);
        let word = if self.least { "less" } else { "more" };
        (more > 0.0).then(|| format!("{}: {measured}, {by} {word} than {limit}", self.what))
    }

    /// The table cells: the target, the limit and the measurement.
    pub fn cells(&self) -> [String; 3] {
        let word = if self.least { "at least" } else { "at most" };
        [
            self.what.clone(),
            format!("{word} {}", (self.unit)(self.limit)),
            (self.unit)(self.measured),
        ]
    }
}

fn part(value: f64) -> String {
    format!("{value:.3}")
}

fn size(value: f64) -> String {
    bytes(value as u64)
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1e3)
}

impl Report {
    /// The targets of the standard set. A value that the system does not report misses none.
    pub fn targets(&self) -> Vec<Target> {
        let headline = self.links.first().filter(|link| link.shape == HEADLINE);
        let Some(link) = headline.filter(|_| self.mb == STANDARD_MB) else { return Vec::new() };
        let mut targets = Vec::new();
        for (flow, limit) in RATIOS {
            let what = format!("{}, of the time of a classic one", flow.name());
            targets.extend(link.ratio(flow).map(|ratio| Target::most(what, ratio, limit, part)));
        }
        if let (Some(day), Some(rsync)) = (link.find(Flow::Day), link.find(Flow::Rsync)) {
            let what = "bytes down after a day, and those of rsync";
            targets.push(Target::most(what, day.down as f64, rsync.down as f64, size));
        }
        for (name, memory) in &self.server.programs {
            let what = format!("memory of {name} on the server");
            targets.push(Target::most(what, *memory as f64, SERVER_MEMORY as f64, size));
        }
        let sizes = self.databases.iter().map(|database| database.bytes);
        let staging = sizes.clone().sum::<u64>() + sizes.max().unwrap_or_default();
        let what = "temporary files on the server, and the set and its largest database";
        targets.push(Target::most(what, self.server.staging as f64, staging as f64, size));
        if let Some(memory) = self.memory {
            targets.push(Target::most("memory here", memory as f64, MEMORY as f64, size));
        }
        for (flow, pace) in &self.writers.during {
            let measured = pace.commits_per_second / self.writers.alone();
            let what = format!("commits of an app, {}, of those without", flow.name());
            let more = Target { least: true, ..Target::most(what, measured, PACE, part) };
            let what = format!("longest commit of an app, {}", flow.name());
            targets.extend([more, Target::most(what, pace.longest, STALL, milliseconds)]);
        }
        targets
    }

    /// The missed targets, in words.
    pub fn missed(&self) -> Vec<String> {
        self.targets().iter().filter_map(Target::missed).collect()
    }

    /// The table.
    pub fn render(&self) -> String {
        let set: u64 = self.databases.iter().map(|database| database.bytes).sum();
        let mut lines = vec![format!(
            "{} databases, {}; the median of {} on {} cores, SQLite {}",
            self.databases.len(),
            bytes(set),
            count(self.runs as usize, "run"),
            self.cores,
            self.sqlite
        )];
        for link in &self.links {
            lines.push(String::new());
            let link_name = link.shape.to_string();
            lines.push(row([&link_name, "median", "worst", "of classic", "up", "down"]));
            for measured in &link.flows {
                let Measured { flow, seconds, up, down } = measured;
                let [median, worst] = [seconds.median, seconds.worst].map(|s| format!("{s:.2} s"));
                let ratio = link.ratio(*flow).map(part).unwrap_or_default();
                let (up, down) = (bytes(*up), bytes(*down));
                lines.push(row([flow.name(), &median, &worst, &ratio, &up, &down]));
            }
        }
        lines.push(String::new());
        for (name, memory) in &self.server.programs {
            lines.push(format!("{name} had {} of memory on the server", bytes(*memory)));
        }
        lines.push(format!("temporary files there took {}", bytes(self.server.staging)));
        lines.extend(self.memory.map(|memory| format!("pull-db had {} of memory", bytes(memory))));
        for (name, pace) in self.paces() {
            let longest = milliseconds(pace.longest);
            let rate = pace.commits_per_second;
            lines.push(format!("an app, {name}: {rate:.1} commits/s, the longest {longest}"));
        }
        lines.join("\n")
    }

    fn paces(&self) -> impl Iterator<Item = (&'static str, &super::writers::Pace)> {
        let Writers { alone, during } = &self.writers;
        let alone = alone.iter().map(|pace| ("alone", pace));
        alone.chain(during.iter().map(|(flow, pace)| (flow.name(), pace)))
    }

    /// The document, which is in the directory of `plot`.
    pub fn document(&self, plot: &str) -> String {
        let mut head = vec![String::new()];
        head.extend(self.links.iter().map(|link| link.shape.to_string()));
        head.extend(["up".to_owned(), "down".to_owned()]);
        let mut table = vec![head];
        for measured in self.links.iter().flat_map(|link| &link.flows).take(self.flows()) {
            let flow = measured.flow;
            let mut cells = vec![flow.name().to_owned()];
            cells.extend(self.links.iter().map(|link| {
                let seconds = link.find(flow).map_or(0.0, |measured| measured.seconds.median);
                let ratio = link.ratio(flow).unwrap_or_default();
                format!("{seconds:.1} s ({ratio:.2})")
            }));
            cells.extend([bytes(measured.up), bytes(measured.down)]);
            table.push(cells);
        }
        let mut targets = vec![["", "target", "measured", ""].map(str::to_owned).to_vec()];
        targets.extend(self.targets().iter().map(|target| {
            let mut cells = target.cells().to_vec();
            cells.push(target.missed().map_or("", |_| "**missed**").to_owned());
            cells
        }));
        let databases: Vec<_> = (self.databases.iter())
            .map(|Database { name, rows, bytes: size }| {
                format!("`{name}` ({rows} rows, {})", bytes(*size))
            })
            .collect();
        format!(
            include_str!("document.md"),
            databases = databases.join(", "),
            runs = count(self.runs as usize, "run"),
            cores = self.cores,
            sqlite = self.sqlite,
            table = markdown(&table),
            targets = markdown(&targets),
            plot = format_args!("![Seconds of each flow through each link]({plot})"),
        )
    }

    /// The number of flows that were measured through each link.
    fn flows(&self) -> usize {
        self.links.first().map_or(0, |link| link.flows.len())
    }
}

fn markdown(rows: &[Vec<String>]) -> String {
    let mut lines: Vec<_> =
        rows.iter().map(|row| format!("| {} |", row.join(" | ")).replace("  ", " ")).collect();
    let columns = rows.first().map_or(0, Vec::len);
    lines.insert(1, format!("|{}", " --- |".repeat(columns)));
    lines.join("\n")
}

fn row([name, median, worst, ratio, up, down]: [&str; 6]) -> String {
    format!("{name:<22} {median:>8} {worst:>8} {ratio:>10} {up:>9} {down:>9}").trim_end().to_owned()
}

#[cfg(test)]
mod tests;
