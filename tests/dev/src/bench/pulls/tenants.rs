//! Pulls of very many small databases.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use xtask_db::internals::ui::Ui;

use super::local::{Local, Run};
use crate::bench::Times;

/// How many databases change before the second pull.
pub const CHANGED: u64 = 4;

/// The pulls in their order, each of what the one before has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    First,
    Day,
    Nothing,
}

impl Step {
    pub const ALL: [Self; 3] = [Self::First, Self::Day, Self::Nothing];

    pub fn name(self) -> &'static str {
        match self {
            Self::First => "first pull of tenants",
            Self::Day => "four tenants changed",
            Self::Nothing => "no tenant changed",
        }
    }
}

#[derive(Debug, Serialize)]
pub struct Tenants {
    pub databases: u64,
    pub pulls: Vec<Pull>,
}

/// The runs of a step.
#[derive(Debug, Serialize)]
pub struct Pull {
    pub step: Step,
    pub outcome: Outcome,
    /// The most that was seen in all runs: bytes, and processes that read databases at once.
    pub memory: Option<u64>,
    pub readers: usize,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Seconds(Times),
    /// One run took too long.
    Killed,
    /// The step before was killed.
    NotMeasured,
}

impl Pull {
    /// Of the runs, those that were killed are nothing.
    fn of(step: Step, runs: &[Option<Run>]) -> Self {
        let times = runs.iter().map(|run| run.as_ref().map(|run| run.time));
        let outcome = match times.collect::<Option<Vec<Duration>>>() {
            None => Outcome::Killed,
            Some(times) if times.is_empty() => Outcome::NotMeasured,
            Some(times) => Outcome::Seconds(Times::of(times)),
        };
        let runs = || runs.iter().flatten();
        Self {
            step,
            outcome,
            memory: runs().filter_map(|run| run.pulled.memory).max(),
            readers: runs().map(|run| run.seen.readers).max().unwrap_or_default(),
        }
    }
}

/// Measures each step. Once a pull has taken too long, no more is measured: the next would
/// begin with something else.
///
/// # Errors
///
/// A pull fails.
pub fn measure(ui: &Ui, local: &Local<'_>, runs: u32) -> Result<Tenants> {
    let databases = local.tenants;
    let mut all = Step::ALL.map(|step| (step, Vec::new()));
    'runs: for n in 1..=runs {
        ui.status("Measuring", format!("{databases} tenants, run {n} of {runs}"));
        local.reset()?;
        for (step, runs) in &mut all {
            if *step == Step::Day {
                local.live_a_day(n.into(), CHANGED)?;
            }
            let run = local.pull()?;
            let over = run.is_none();
            let time = run.as_ref().map(|run| format!("{:.2} s", run.time.as_secs_f64()));
            ui.verbose(format!("{}: {}", step.name(), time.as_deref().unwrap_or("killed")));
            runs.push(run);
            if over {
                break 'runs;
            }
        }
    }
    let pulls = all.iter().map(|(step, runs)| Pull::of(*step, runs));
    Ok(Tenants { databases, pulls: pulls.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_run_is_no_time_and_the_most_of_the_others_counts() {
        let run = |seconds, readers| {
            let mut run = Run { time: Duration::from_secs(seconds), ..Run::default() };
            run.seen.readers = readers;
            Some(run)
        };
        let pull = Pull::of(Step::First, &[run(3, 2), run(9, 1), run(4, 3)]);
        let times = Times { median: 4.0, worst: 9.0 };
        assert!(matches!(pull.outcome, Outcome::Seconds(found) if found == times), "{pull:?}");
        assert_eq!(pull.readers, 3);
        let pull = Pull::of(Step::Day, &[run(3, 2), None]);
        assert!(matches!(pull.outcome, Outcome::Killed) && pull.readers == 2, "{pull:?}");
        assert!(matches!(Pull::of(Step::Nothing, &[]).outcome, Outcome::NotMeasured));
    }
}
