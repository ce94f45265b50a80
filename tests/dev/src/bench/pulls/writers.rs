//! An app that writes during pulls.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use xshell::{Shell, cmd};
use xtask_db::internals::interrupt;
use xtask_db::internals::ui::Ui;

use super::flows::{Flow, Flows};
use super::server::{Asked, Shape};
use super::source::DATABASES;

/// The speed of its commits.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Pace {
    pub commits_per_second: f64,
    /// The duration of the longest commit, in seconds.
    pub longest: f64,
}

#[derive(Debug, Serialize)]
pub struct Writers {
    /// Measured before and after the pulls.
    pub alone: Vec<Pace>,
    pub during: Vec<(Flow, Pace)>,
}

impl Writers {
    /// The mean of `alone`, in commits per second.
    pub fn alone(&self) -> f64 {
        let sum: f64 = self.alone.iter().map(|pace| pace.commits_per_second).sum();
        sum / self.alone.len() as f64
    }
}

/// Lets `program` write into the largest database of a copy of production in `dir`, for `alone`
/// without a pull, and during pulls.
pub fn measure(
    ui: &Ui,
    sh: &Shell,
    flows: &mut Flows<'_>,
    program: &Path,
    dir: &Path,
    shape: Shape,
    alone: Duration,
) -> Result<Writers> {
    ui.status("Measuring", "an app that writes");
    flows.source.copy("after", dir)?;
    flows.source.deploy(dir)?;
    rustix::fs::sync();
    let largest = dir.join(DATABASES[DATABASES.len() - 1].0);
    let mut app = Asked::start(cmd!(sh, "{program} {largest}"))?;
    let mut writers = Writers { alone: Vec::new(), during: Vec::new() };
    // The start of the program does not count.
    interrupt::sleep(alone / 5)?;
    writers.alone.push(by_itself(&mut app, alone)?);
    for flow in [Flow::FirstZstd, Flow::Day] {
        flows.prepare(flow)?;
        pace(&mut app)?;
        flows.run(flow, shape, false)?;
        writers.during.push((flow, pace(&mut app)?));
    }
    writers.alone.push(by_itself(&mut app, alone)?);
    drop(app);
    flows.source.deploy(&flows.source.state("after"))?;
    Ok(writers)
}

fn by_itself(app: &mut Asked, time: Duration) -> Result<Pace> {
    pace(app)?;
    interrupt::sleep(time)?;
    pace(app)
}

/// The pace since the last call.
fn pace(app: &mut Asked) -> Result<Pace> {
    let answer = app.ask("")?;
    let numbers = answer.split(' ').map(str::parse).collect::<Result<Vec<f64>, _>>()?;
    let [commits, seconds, longest] = numbers[..].try_into().ok().context("three numbers")?;
    Ok(Pace { commits_per_second: commits / seconds, longest })
}
