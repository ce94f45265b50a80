//! An app that writes while it is pulled from.

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

/// How it fared.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Pace {
    pub commits_per_second: f64,
    /// The longest commit, in seconds.
    pub longest: f64,
}

#[derive(Debug, Serialize)]
pub struct Writers {
    /// Before and after the pulls.
    pub alone: Vec<Pace>,
    pub during: Vec<(Flow, Pace)>,
}

impl Writers {
    /// The mean of those alone.
    pub fn alone(&self) -> f64 {
        let sum: f64 = self.alone.iter().map(|pace| pace.commits_per_second).sum();
        sum / self.alone.len() as f64
    }
}

/// Lets `program` write into the largest database of a copy of production in `dir`,
/// for so long alone, and during pulls.
///
/// # Errors
///
/// It cannot write, or a pull fails.
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
    // What it takes to begin is not counted.
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

/// Since it was last asked.
fn pace(app: &mut Asked) -> Result<Pace> {
    let answer = app.ask("")?;
    let numbers = answer.split(' ').map(str::parse).collect::<Result<Vec<f64>, _>>()?;
    let [commits, seconds, longest] = numbers[..].try_into().ok().context("three numbers")?;
    Ok(Pace { commits_per_second: commits / seconds, longest })
}
