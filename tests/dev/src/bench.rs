//! Benchmarks: the measurements and their targets.

mod fixtures;
mod pulls;
mod share;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use xtask_db::internals::error::Failure;
use xtask_db::internals::interrupt;
use xtask_db::internals::ui::count;

use self::pulls::report::LINKS;
use crate::Context;

/// Measure this tool, and compare the results with its targets
///
/// Measure `pull-db` through shaped links, beside the same work without it, and
/// write docs/benchmarks.md if every option has its default. The databases are made
/// once, and kept below target/. Exit with 1 if a target is missed.
#[derive(clap::Args)]
pub struct Args {
    /// Measure `refresh-fixtures` instead, and what a hook that runs it costs each commit
    #[arg(long)]
    fixtures: bool,
    /// Measure `snapshots publish` and pulls from a shared store and from replicas of Litestream
    #[arg(long, conflicts_with = "fixtures")]
    share: bool,
    /// Measure each this many times; a hook three times as often [default: 3, fixtures 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: Option<u32>,
    /// Make the databases again
    #[arg(long)]
    fresh: bool,
    /// Keep the databases in this directory [default: target/bench]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    pulls: pulls::Args,
    #[command(flatten)]
    of_fixtures: fixtures::Args,
}

impl Args {
    pub fn run(self, cx: &Context) -> Result<()> {
        let dir = self.dir.unwrap_or_else(|| cx.root.join("target/bench"));
        let (dir, fresh) = (std::path::absolute(dir)?, self.fresh);
        let missed = if self.fixtures {
            self.of_fixtures.run(cx, &dir, self.runs.unwrap_or(5), fresh)
        } else if self.share {
            let extent = self.pulls.extent(&LINKS[..1]);
            share::run(cx, &dir, self.runs.unwrap_or(3), fresh, &extent)
        } else {
            self.pulls.run(cx, &dir, self.runs.unwrap_or(3), fresh)
        };
        match &missed.map_err(interrupt::prefer_interrupt)?[..] {
            [] => Ok(()),
            missed => Err(Failure::new(format!(
                "{} missed: {}",
                count(missed.len(), "target"),
                missed.join("; ")
            ))
            .into()),
        }
    }
}

/// The durations of several runs, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Times {
    pub median: f64,
    pub worst: f64,
}

impl Times {
    /// `runs` must not be empty.
    pub fn of(mut runs: Vec<Duration>) -> Self {
        runs.sort();
        let seconds = |run: Option<&Duration>| run.map_or(0.0, Duration::as_secs_f64);
        Self { median: seconds(runs.get(runs.len() / 2)), worst: seconds(runs.last()) }
    }
}

/// Writes out what is pending in the file system of `dir`, so that it does not slow down a measured
/// run. Others are left alone: they can be busy for minutes.
///
/// # Errors
///
/// The directory cannot be opened.
fn write_out(dir: &Path) -> Result<()> {
    let dir = std::fs::File::open(dir)?;
    #[cfg(target_os = "linux")]
    rustix::fs::syncfs(dir)?;
    #[cfg(not(target_os = "linux"))]
    rustix::fs::sync();
    Ok(())
}
