//! What was measured through a link.

use serde::Serialize;

use crate::bench::Times;
use crate::bench::pulls::flows::{Flow, Run};
use crate::bench::pulls::server::Shape;
use crate::bench::pulls::stages::{self, Stage};

/// Round trips before the first byte of a set: of TCP, of ssh's key exchange and login, and of
/// the request.
const ROUND_TRIPS: f64 = 7.0;

#[derive(Serialize)]
pub struct Link {
    pub shape: Shape,
    /// The least seconds that a first pull of that many bytes can take: computed.
    pub floor: Option<f64>,
    pub flows: Vec<Measured>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    pub flow: Flow,
    pub seconds: Times,
    /// The medians of what has passed, in bytes.
    pub up: u64,
    pub down: u64,
    /// The median of the CPU time of the server, in seconds.
    pub cpu: Option<f64>,
    pub stages: Vec<Stage>,
}

impl Measured {
    /// Of at least one run.
    pub fn of(flow: Flow, runs: &[Run]) -> Self {
        let bytes = |bytes: fn(&Run) -> u64| median(runs.iter().map(bytes)).unwrap_or_default();
        let stages: Vec<_> = runs.iter().map(|run| &run.pulled.stages[..]).collect();
        Self {
            flow,
            seconds: Times::of(runs.iter().map(|run| run.time).collect()),
            up: bytes(|run| run.up),
            down: bytes(|run| run.down),
            cpu: median(runs.iter().filter_map(|run| run.cpu)),
            stages: stages::medians(&stages),
        }
    }
}

impl Link {
    pub fn new(shape: Shape, flows: Vec<Measured>) -> Self {
        let mut link = Self { shape, floor: None, flows };
        link.floor = link.find(Flow::FirstZstd).map(|first| floor(shape, first.down));
        link
    }

    pub fn find(&self, flow: Flow) -> Option<&Measured> {
        self.flows.iter().find(|measured| measured.flow == flow)
    }

    /// The time of one.
    pub fn seconds(&self, flow: Flow) -> Option<f64> {
        Some(self.find(flow)?.seconds.median)
    }

    /// The same as a part of that of the classic one.
    pub fn ratio(&self, flow: Flow) -> Option<f64> {
        Some(self.seconds(flow)? / self.seconds(Flow::Classic)?)
    }

    /// The CPU time of one, as a part of that of the classic one.
    pub fn cpu_ratio(&self, flow: Flow) -> Option<f64> {
        Some(self.find(flow)?.cpu? / self.find(Flow::Classic)?.cpu?)
    }
}

fn floor(Shape { rtt_ms, mbit }: Shape, bytes: u64) -> f64 {
    bytes as f64 * 8.0 / (f64::from(mbit) * 1e6) + ROUND_TRIPS * f64::from(rtt_ms) / 1e3
}

fn median<T: Copy + PartialOrd>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut all: Vec<_> = values.collect();
    all.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    all.get(all.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn of_several_runs_the_median_is_taken() {
        let runs =
            [(3, 5, Some(0.5)), (9, 1, None), (4, 2, Some(0.1))].map(|(seconds, down, cpu)| Run {
                time: Duration::from_secs(seconds),
                up: 1,
                down,
                cpu,
                ..Run::default()
            });
        let measured = Measured::of(Flow::Classic, &runs);
        assert_eq!(measured.seconds, Times { median: 4.0, worst: 9.0 });
        assert_eq!((measured.up, measured.down, measured.cpu), (1, 2, Some(0.5)));
    }

    #[test]
    fn the_floor_is_the_rate_and_seven_round_trips() {
        let shape = Shape { rtt_ms: 100, mbit: 8 };
        assert!((floor(shape, 3_000_000) - 3.7).abs() < 1e-9);
        assert_eq!(Link::new(shape, Vec::new()).floor, None);
    }
}
