//! The results, for a reader or a program, and the missed targets.

use serde::Serialize;
use xtask_db::internals::ui::{bytes, count};

use super::build::Build;
use super::flow::{Flow, Measured};
use crate::bench::pulls::machine::Machine;
use crate::bench::pulls::report::{
    MEMORY, STANDARD_MB, STANDARD_TENANTS, Target, part, size, table,
};
use crate::bench::pulls::server::Shape;

/// The time of a pull from replicas, as a part of what the same takes step by step.
const REPLICAS: f64 = 1.15;

#[derive(Serialize)]
pub struct Report {
    pub mb: u64,
    pub tenants: u64,
    pub databases: usize,
    pub runs: u32,
    pub shape: Shape,
    pub machine: Machine,
    pub results: Results,
    /// Nothing where it was left out.
    pub build: Option<Build>,
}

/// Those of tenants are empty where they were left out.
#[derive(Default, Serialize)]
pub struct Results {
    pub bucket: Vec<Measured>,
    pub directory: Vec<Measured>,
    pub replicas: Vec<Measured>,
    pub tenants_directory: Vec<Measured>,
    pub tenants_replicas: Vec<Measured>,
}

impl Report {
    /// The section of the document.
    pub fn document(&self) -> String {
        let Results { bucket, directory, replicas, tenants_directory, tenants_replicas } =
            &self.results;
        let build = self.build.map(|build| {
            format!(
                "A cold build of `cargo xtask` takes {:.0} s without the feature `share` and {:.0} s with it: {:.2} times as long.",
                build.without, build.with, build.ratio()
            )
        });
        let text = format!(
            include_str!("document.md"),
            machine = self.machine.describe(),
            runs = count(self.runs as usize, "run"),
            shape = self.shape,
            databases = count(self.databases, "database"),
            mb = self.mb,
            tenants = count(self.tenants as usize, "tenant"),
            bucket = rows(bucket, "relative to rclone"),
            directory = rows(directory, ""),
            replicas = rows(replicas, "relative to both together"),
            tenants_directory = rows(tenants_directory, ""),
            tenants_replicas = rows(tenants_replicas, "relative to both together"),
            build = build.as_deref().unwrap_or("Builds were not measured."),
            targets = self.target_table(),
        );
        text.trim_end().to_owned() + "\n"
    }

    fn target_table(&self) -> String {
        let rows = self.targets().into_iter().map(|target| {
            let missed = target.missed().map_or("", |_| "**missed**").to_owned();
            target.cells().into_iter().chain([missed]).collect()
        });
        table(&["", "target", "measured", ""], rows)
    }

    /// Of the standard set and the standard tenants. What a system does not tell misses none.
    fn targets(&self) -> Vec<Target> {
        let Results { bucket, directory, replicas, tenants_directory, tenants_replicas } =
            &self.results;
        let mut targets = Vec::new();
        if self.mb == STANDARD_MB {
            targets.extend(of_replicas(replicas, "pull from the replicas"));
            targets.extend(memory(bucket, "memory here, with a bucket"));
            targets.extend(memory(directory, "memory here, with a directory"));
            targets.extend(memory(replicas, "memory here, from replicas"));
        }
        if self.tenants == STANDARD_TENANTS {
            targets.extend(of_replicas(tenants_replicas, "pull of tenants from the replicas"));
            targets.extend(memory(tenants_directory, "memory here, tenants with a directory"));
            targets.extend(memory(tenants_replicas, "memory here, tenants from replicas"));
        }
        targets
    }

    /// In words, by how much a target is missed.
    pub fn missed(&self) -> Vec<String> {
        self.targets().iter().filter_map(Target::missed).collect()
    }
}

fn of_replicas(measured: &[Measured], name: &str) -> Option<Target> {
    let ours = find(measured, Flow::PullReplicas)?;
    let what = format!("{name}, time relative to `litestream restore` and a local pull");
    Some(Target::most(what, ratio(measured, ours)?, REPLICAS, part))
}

fn memory(measured: &[Measured], what: &str) -> Option<Target> {
    let ours = measured.iter().filter(|measured| measured.flow.is_ours());
    let most = ours.filter_map(|measured| measured.memory).max()?;
    Some(Target::most(what, most as f64, MEMORY as f64, size))
}

fn find(measured: &[Measured], flow: Flow) -> Option<&Measured> {
    measured.iter().find(|measured| measured.flow == flow)
}

/// The time of a flow as a part of that of the other way.
fn ratio(all: &[Measured], measured: &Measured) -> Option<f64> {
    let other = find(all, measured.flow.other()?)?;
    Some(measured.seconds.median / other.seconds.median)
}

/// The table of a way; `compared` is the head of the ratios, if there are any.
fn rows(all: &[Measured], compared: &str) -> String {
    if all.is_empty() {
        return "They were left out.".to_owned();
    }
    let head = ["", "seconds", "worst", compared, "on the wire", "CPU here", "memory here"];
    let rows: Vec<[String; 7]> = all
        .iter()
        .map(|measured| {
            let Measured { flow, seconds, cpu, wire, memory } = measured;
            [
                flow.name().to_owned(),
                format!("{:.2} s", seconds.median),
                format!("{:.2} s", seconds.worst),
                ratio(all, measured).map(part).unwrap_or_default(),
                wire.map(bytes).unwrap_or_default(),
                cpu.map(|cpu| format!("{cpu:.2} s")).unwrap_or_default(),
                memory.map(bytes).unwrap_or_default(),
            ]
        })
        .collect();
    // Without a column in which no row says anything.
    let says = |i: &usize| *i == 0 || rows.iter().any(|row| !row[*i].is_empty());
    let columns: Vec<_> = (0..head.len()).filter(says).collect();
    let head: Vec<_> = columns.iter().map(|i| head[*i]).collect();
    table(&head, rows.iter().map(|row| columns.iter().map(|i| row[*i].clone()).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Times;
    use crate::bench::pulls::report::LINKS;

    fn measured(flow: Flow, median: f64, memory: u64) -> Measured {
        let seconds = Times { median, worst: median + 1.0 };
        Measured { flow, seconds, cpu: Some(0.5), wire: None, memory: Some(memory) }
    }

    /// One that meets all targets, unless a pull takes more than 11.5 s or more than 64 MB.
    fn report(mb: u64, pull: f64, memory: u64) -> Report {
        let bucket =
            vec![measured(Flow::Publish, 3.0, memory), measured(Flow::CopyUp, 6.0, 90_000_000)];
        let replicas = vec![
            measured(Flow::RestoreAndPull, 10.0, 0),
            measured(Flow::PullReplicas, pull, 1_000_000),
        ];
        Report {
            mb,
            tenants: 0,
            databases: 3,
            runs: 1,
            shape: LINKS[0],
            machine: Machine {
                cores: 2,
                memory: None,
                kernel: "Linux 6.1.0".to_owned(),
                sqlite_server: "3.40.1".to_owned(),
                sqlite_client: "3.51.0".to_owned(),
            },
            results: Results { bucket, replicas, ..Results::default() },
            build: Some(Build { without: 60.0, with: 90.0 }),
        }
    }

    #[test]
    fn a_missed_target_says_by_how_much() {
        assert_eq!(report(240, 11.5, 64_000_000).missed(), [""; 0]);
        assert_eq!(report(3, 20.0, 80_000_000).missed(), [""; 0], "targets are for 240 MB");
        let missed = report(240, 12.0, 66_000_000).missed().join("; ");
        assert!(missed.contains("1.200, 0.050 more than 1.150"), "{missed}");
        assert!(missed.contains("66.0 MB, 2.0 MB more than 64.0 MB"), "{missed}");
    }

    #[test]
    fn the_document_has_ratios_and_no_empty_column() {
        let document = report(240, 12.0, 1).document();
        assert!(document.contains("| publish | 3.00 s | 4.00 s | 0.500 | 0.50 s |"), "{document}");
        assert!(document.contains("| pull from the replicas | 12.00 s | 13.00 s | 1.200 |"));
        assert!(document.contains("60 s without the feature `share` and 90 s with it: 1.50 times"));
        assert!(document.contains("| **missed** |") && !document.contains("on the wire"));
        assert!(document.contains("They were left out."), "no tenants");
    }
}
