//! What was measured, for a reader or a program, and which targets it misses.

use std::collections::BTreeMap;

use serde::Serialize;

use super::cuts::Measured;
use super::hook::Hook;
use super::naive::Naive;
use crate::ui::bytes;

/// What no run may exceed.
#[derive(Serialize)]
pub struct Targets {
    seconds: f64,
    memory: u64,
    hook_seconds: f64,
}

pub const TARGETS: Targets = Targets { seconds: 2.0, memory: 64_000_000, hook_seconds: 0.05 };

#[derive(Serialize)]
pub struct Source {
    pub rows: u64,
    pub bytes: u64,
    pub tables: BTreeMap<String, u64>,
}

#[derive(Serialize)]
pub struct Report {
    pub targets: Targets,
    pub source: Source,
    pub cuts: Vec<Measured>,
    pub naive: Naive,
    pub hook: Option<Hook>,
}

impl Report {
    /// In words, by how much a target is missed. What a system does not tell
    /// misses none.
    pub fn missed(&self) -> Vec<String> {
        let Targets { seconds, memory, hook_seconds } = self.targets;
        let mut missed = Vec::new();
        for cut in &self.cuts {
            let (name, worst) = (cut.name, cut.seconds.worst);
            if worst > seconds {
                let more = worst - seconds;
                missed.push(format!(
                    "{name} took {worst:.2} s, {more:.2} s more than {seconds:.2} s"
                ));
            }
            if let Some(had) = cut.memory.filter(|had| *had > memory) {
                let [had, more, memory] = [had, had - memory, memory].map(bytes);
                missed.push(format!("{name} had {had} of memory, {more} more than {memory}"));
            }
        }
        if let Some(ours) = self.hook.as_ref().map(Hook::ours).filter(|ours| *ours > hook_seconds) {
            let [ours, more, target] =
                [ours, ours - hook_seconds, hook_seconds].map(|s| format!("{:.0} ms", s * 1e3));
            missed.push(format!("the hook adds {ours}, {more} more than {target}"));
        }
        missed
    }

    /// The table.
    pub fn render(&self) -> String {
        let Self { targets, source, cuts, naive, hook } = self;
        let tables = source.tables.len();
        let mut lines = vec![
            format!("{} rows in {tables} tables, {}", source.rows, bytes(source.bytes)),
            row(["", "rows", "size", "median", "worst", "memory"].map(str::to_owned)),
        ];
        for cut in cuts {
            let memory = cut.memory.map_or_else(|| "?".to_owned(), bytes);
            let (median, worst) = (time(cut.seconds.median), time(cut.seconds.worst));
            let (name, rows) = (cut.name.to_owned(), cut.rows.to_string());
            lines.push(row([name, rows, bytes(cut.bytes), median, worst, memory]));
        }
        lines.push(row([
            "at most".to_owned(),
            String::new(),
            String::new(),
            String::new(),
            time(targets.seconds),
            bytes(targets.memory),
        ]));
        if let Some(cut) = cuts.first() {
            lines.push(format!(
                "{} is {:.0} times faster than copying and deleting ({}, {} rows, {})",
                cut.name,
                naive.seconds / cut.seconds.median,
                time(naive.seconds),
                naive.rows,
                bytes(naive.bytes)
            ));
        }
        if let Some(hook) = hook {
            let [with, without, ours, target] =
                [hook.hook.median, hook.cargo_run.median, hook.ours(), targets.hook_seconds]
                    .map(|seconds| format!("{:.0} ms", seconds * 1e3));
            lines.push(format!(
                "the hook takes {with}, cargo run alone {without}: {ours} more (at most {target})"
            ));
        }
        lines.join("\n")
    }
}

fn row([name, rows, size, median, worst, memory]: [String; 6]) -> String {
    format!("{name:<10} {rows:>6} {size:>9} {median:>8} {worst:>8} {memory:>9}")
        .trim_end()
        .to_owned()
}

fn time(seconds: f64) -> String {
    format!("{seconds:.2} s")
}

#[cfg(test)]
mod tests {
    use super::super::Times;
    use super::*;

    fn report(worst: f64, memory: Option<u64>, hook: Option<f64>) -> Report {
        let times = |seconds| Times { median: seconds, worst: seconds };
        Report {
            targets: TARGETS,
            source: Source { rows: 2_000, bytes: 300_000, tables: BTreeMap::new() },
            cuts: vec![Measured {
                name: "children",
                rows: 500,
                bytes: 90_000,
                tables: BTreeMap::new(),
                seconds: Times { median: 0.5, worst },
                memory,
            }],
            naive: Naive { seconds: 10.0, rows: 500, bytes: 90_000 },
            hook: hook.map(|seconds| Hook { hook: times(0.1 + seconds), cargo_run: times(0.1) }),
        }
    }

    #[test]
    fn what_is_missed_is_said_with_by_how_much() {
        assert_eq!(report(2.0, Some(64_000_000), Some(0.0499)).missed(), [""; 0]);
        assert_eq!(report(1.0, None, None).missed(), [""; 0]);
        assert_eq!(
            report(2.25, Some(70_000_000), Some(0.07)).missed(),
            [
                "children took 2.25 s, 0.25 s more than 2.00 s",
                "children had 70.0 MB of memory, 6.0 MB more than 64.0 MB",
                "the hook adds 70 ms, 20 ms more than 50 ms"
            ]
        );
    }

    #[test]
    fn the_table_can_be_read() {
        let table = report(0.6, Some(18_300_000), Some(0.013)).render();
        assert_eq!(
            table.lines().collect::<Vec<_>>(),
            [
                "2000 rows in 0 tables, 300.0 kB",
                "             rows      size   median    worst    memory",
                "children      500   90.0 kB   0.50 s   0.60 s   18.3 MB",
                "at most                                2.00 s   64.0 MB",
                "children is 20 times faster than copying and deleting (10.00 s, 500 rows, 90.0 kB)",
                "the hook takes 113 ms, cargo run alone 100 ms: 13 ms more (at most 50 ms)",
            ]
        );
    }
}
