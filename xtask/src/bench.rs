//! Benchmarks: what is measured, and what it is held against.

pub mod fixtures;
pub mod pulls;

use std::time::Duration;

use serde::Serialize;

/// How long some runs took, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Times {
    pub median: f64,
    pub worst: f64,
}

impl Times {
    /// Of at least one run.
    pub fn of(mut runs: Vec<Duration>) -> Self {
        runs.sort();
        let seconds = |run: Option<&Duration>| run.map_or(0.0, Duration::as_secs_f64);
        Self { median: seconds(runs.get(runs.len() / 2)), worst: seconds(runs.last()) }
    }
}
