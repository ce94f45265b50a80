//! The results, for a reader or a program, and the missed targets.

mod document;
mod link;
mod targets;

use serde::Serialize;
use xtask_db::internals::ui::{bytes, count};

use super::disk::{self, Disk};
use super::flows::Flow;
use super::local;
use super::machine::Machine;
use super::server::Shape;
use super::source::Database;
use super::stages;
use super::tenants::{Outcome, Pull, Tenants};
use super::watch::Seen;
use super::writers::{Pace, Writers};

pub use self::document::table;
pub use self::link::{Link, Measured};
pub use self::targets::{MEMORY, Target};

/// The set whose results are kept. Targets of memory and writers are for its first link.
pub const STANDARD_MB: u64 = 240;
pub const LINKS: [Shape; 3] = [
    Shape { rtt_ms: 80, mbit: 100 },
    Shape { rtt_ms: 20, mbit: 1000 },
    Shape { rtt_ms: 150, mbit: 20 },
];
/// How many tenants have targets.
pub const STANDARD_TENANTS: u64 = 1000;

#[derive(Serialize)]
pub struct Report {
    pub mb: u64,
    pub databases: Vec<Database>,
    pub runs: u32,
    pub machine: Machine,
    pub links: Vec<Link>,
    /// Resources of our pulls on the server, and their peak memory here in bytes; through the first
    /// link.
    pub server: Seen,
    pub memory: Option<u64>,
    /// Through the first link, in WAL mode and in rollback mode.
    pub writers: Writers,
    pub rollback: Writers,
    /// Nothing where they were left out.
    pub tenants: Option<Tenants>,
    pub disk: Option<Disk>,
}

pub fn part(value: f64) -> String {
    format!("{value:.3}")
}

pub fn size(value: f64) -> String {
    bytes(value as u64)
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1e3)
}

/// More than the limit of a pull is not known exactly.
fn seconds(value: f64) -> String {
    if value > f64::from(local::LIMIT) {
        return over();
    }
    format!("{value:.2} s")
}

fn over() -> String {
    format!("over {} s", local::LIMIT)
}

impl Report {
    /// The table.
    pub fn render(&self) -> String {
        let set: u64 = self.databases.iter().map(|database| database.bytes).sum();
        let runs = count(self.runs as usize, "run");
        let databases = count(self.databases.len(), "database");
        let mut lines = vec![
            format!("{databases}, {}; the median of {runs}", bytes(set)),
            self.machine.describe(),
        ];
        lines.extend(self.links.iter().flat_map(render_link));
        lines.push(String::new());
        lines.extend(self.stages().map(|(name, stages)| format!("{name}: {stages}")));
        for (name, memory) in &self.server.programs {
            lines.push(format!("{name} had {} of memory on the server", bytes(*memory)));
        }
        lines.push(format!("temporary files there took {}", bytes(self.server.staging)));
        lines.extend(self.memory.map(|memory| format!("pull-db had {} of memory", bytes(memory))));
        for (mode, writers) in [("WAL", &self.writers), ("rollback", &self.rollback)] {
            lines.extend(paces(writers).map(|(name, pace)| {
                let longest = milliseconds(pace.longest);
                let rate = pace.commits_per_second;
                format!("an app in {mode} mode, {name}: {rate:.1} commits/s, the longest {longest}")
            }));
        }
        if let Some(tenants) = &self.tenants {
            lines.extend(["", &format!("{} tenants", tenants.databases)].map(str::to_owned));
            for pull in &tenants.pulls {
                let [name, seconds, memory, readers] = tenant_cells(pull);
                let taken = format!(", {memory} of memory, {readers} processes");
                let taken = if pull.memory.is_some() { &taken } else { "" };
                lines.push(format!("{name}: {seconds}{taken}"));
            }
        }
        lines.extend(self.disk.as_ref().map(disk_sentence));
        lines.join("\n")
    }

    /// Those of each flow through the first link that tells some.
    fn stages(&self) -> impl Iterator<Item = (&'static str, String)> {
        let measured = self.links.first().into_iter().flat_map(|link| &link.flows);
        let measured = measured.filter(|measured| !measured.stages.is_empty());
        measured.map(|Measured { flow, stages, .. }| (flow.name(), stages::describe(stages)))
    }
}

fn render_link(link: &Link) -> Vec<String> {
    let head = [&link.shape.to_string(), "median", "worst", "of classic", "up", "down", "cpu"];
    let mut lines = vec![String::new(), row(head)];
    for measured in &link.flows {
        let Measured { flow, seconds: times, up, down, cpu, .. } = measured;
        let [median, worst] = [times.median, times.worst].map(seconds);
        let ratio = link.ratio(*flow).map(part).unwrap_or_default();
        let cpu = cpu.map(seconds).unwrap_or_default();
        let (up, down) = (bytes(*up), bytes(*down));
        lines.push(row([flow.name(), &median, &worst, &ratio, &up, &down, &cpu]));
    }
    if let Some(floor) = link.floor {
        lines.push(row([FLOOR, &seconds(floor), "", "", "", "", ""]));
    }
    if link.find(Flow::Sqlite3Rsync).is_none() {
        lines.push(format!("{}: {NOT_INSTALLED}", Flow::Sqlite3Rsync.name()));
    }
    lines
}

/// What no pull was, and what could not be one.
const FLOOR: &str = "floor (computed)";
const NOT_INSTALLED: &str = "not installed";

fn paces(Writers { alone, during }: &Writers) -> impl Iterator<Item = (&'static str, &Pace)> {
    let alone = alone.iter().map(|pace| ("alone", pace));
    alone.chain(during.iter().map(|(flow, pace)| (flow.name(), pace)))
}

/// Its name, time, memory, and the processes that read databases at once.
fn tenant_cells(pull: &Pull) -> [String; 4] {
    [
        pull.step.name().to_owned(),
        match pull.outcome {
            Outcome::Seconds(times) => seconds(times.median),
            Outcome::Killed => over(),
            Outcome::NotMeasured => "not measured".to_owned(),
        },
        pull.memory.map(bytes).unwrap_or_default(),
        pull.readers.to_string(),
    ]
}

fn disk_sentence(disk: &Disk) -> String {
    let [all, snapshots] = disk.multiples();
    format!(
        "{} daily pulls of {} databases ({}) take {all:.2} times their size on disk here, {snapshots:.2} times without the current data",
        disk::DAYS,
        disk.databases,
        bytes(disk.set)
    )
}

fn row([name, median, worst, ratio, up, down, cpu]: [&str; 7]) -> String {
    format!("{name:<24} {median:>8} {worst:>8} {ratio:>10} {up:>9} {down:>9} {cpu:>8}")
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests;
