//! What is measured, and how a run of it went.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Serialize;
use xshell::Cmd;
use xtask_db::internals::interrupt;

use crate::bench::Times;
use crate::bench::pulls::cpu;
use crate::bench::pulls::pull::Pulled;
use crate::bench::pulls::watch::Watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Flow {
    Publish,
    Pull,
    PublishDay,
    PullDay,
    /// The same of `rclone`.
    CopyUp,
    CopyDown,
    CopyUpDay,
    CopyDownDay,
    /// `litestream restore` of each database, and a pull of what that makes.
    Restore,
    PullRestored,
    /// Both, one after the other.
    RestoreAndPull,
    PullReplicas,
}

impl Flow {
    /// Those of a team, in their order: each begins with what the ones before have left.
    pub const OF_TEAM: [Self; 4] = [Self::Publish, Self::Pull, Self::PublishDay, Self::PullDay];
    pub const OF_RCLONE: [Self; 4] =
        [Self::CopyUp, Self::CopyDown, Self::CopyUpDay, Self::CopyDownDay];

    pub fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Pull => "first pull",
            Self::PublishDay => "publish after a day",
            Self::PullDay => "pull after a day",
            Self::CopyUp => "rclone, to the bucket",
            Self::CopyDown => "rclone, from the bucket",
            Self::CopyUpDay => "rclone after a day, to the bucket",
            Self::CopyDownDay => "rclone after a day, from the bucket",
            Self::Restore => "litestream restore",
            Self::PullRestored => "pull of the restored ones",
            Self::RestoreAndPull => "both together",
            Self::PullReplicas => "pull from the replicas",
        }
    }

    /// What does the same without this tool, or with less of it.
    pub fn other(self) -> Option<Self> {
        let of_team = Self::OF_TEAM.iter().position(|flow| *flow == self);
        let of_litestream = (self == Self::PullReplicas).then_some(Self::RestoreAndPull);
        of_team.map(|at| Self::OF_RCLONE[at]).or(of_litestream)
    }

    pub fn is_ours(self) -> bool {
        Self::OF_TEAM.contains(&self) || matches!(self, Self::PullRestored | Self::PullReplicas)
    }

    /// Whether it is about the second state.
    pub fn is_of_day(self) -> bool {
        matches!(self, Self::PublishDay | Self::PullDay | Self::CopyUpDay | Self::CopyDownDay)
    }
}

#[derive(Clone, Copy, Default)]
pub struct Run {
    pub time: Duration,
    /// The CPU time of the client, in seconds, and the most memory that it had.
    pub cpu: Option<f64>,
    pub memory: Option<u64>,
    /// What has passed through a link.
    pub wire: Option<u64>,
}

impl Run {
    /// Runs a command, of which `program` does the work; `idle` is an empty directory.
    ///
    /// # Errors
    ///
    /// It fails.
    pub fn of(command: Cmd<'_>, program: &str, idle: &Path) -> Result<Self> {
        let name = command.to_string();
        let before = cpu::of_children();
        let watch = Watch::start(std::process::id(), idle);
        let started = Instant::now();
        let output = interrupt::output(command.quiet().ignore_status());
        let (time, seen) = (started.elapsed(), watch.end());
        let output = output?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            bail!("`{name}` failed: {}", said.trim());
        }
        let cpu = before.and_then(|before| Some(cpu::of_children()? - before));
        let memory = Pulled::parse(&said).memory.or(seen.programs.get(program).copied());
        Ok(Self { time, cpu, memory, wire: None })
    }

    /// This one and another after it.
    pub fn then(self, other: Self) -> Self {
        Self {
            time: self.time + other.time,
            cpu: self.cpu.zip(other.cpu).map(|(a, b)| a + b),
            memory: None,
            wire: None,
        }
    }
}

/// The runs of each flow.
pub type Runs = BTreeMap<Flow, Vec<Run>>;

#[derive(Debug, Serialize)]
pub struct Measured {
    pub flow: Flow,
    pub seconds: Times,
    /// The medians of seconds and bytes.
    pub cpu: Option<f64>,
    pub wire: Option<u64>,
    /// The most of all runs.
    pub memory: Option<u64>,
}

impl Measured {
    pub fn of(runs: &Runs) -> Vec<Self> {
        let measured = |(flow, runs): (&Flow, &Vec<Run>)| {
            let mut cpu: Vec<_> = runs.iter().filter_map(|run| run.cpu).collect();
            let mut wire: Vec<_> = runs.iter().filter_map(|run| run.wire).collect();
            cpu.sort_by(f64::total_cmp);
            wire.sort_unstable();
            Self {
                flow: *flow,
                seconds: Times::of(runs.iter().map(|run| run.time).collect()),
                cpu: cpu.get(cpu.len() / 2).copied(),
                wire: wire.get(wire.len() / 2).copied(),
                memory: runs.iter().filter_map(|run| run.memory).max(),
            }
        };
        runs.iter().map(measured).collect()
    }
}
