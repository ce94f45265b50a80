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
use super::source::{DATABASES, remove};
use crate::bench::write_out;

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

/// Where an app writes, and how.
pub struct Bench<'a> {
    /// The program of `tests/` that writes.
    pub program: &'a Path,
    /// Where a copy of production is made.
    pub dir: &'a Path,
    pub shape: Shape,
    /// For how long it writes alone.
    pub alone: Duration,
}

impl Bench<'_> {
    /// Measures both journal modes, `WAL` first.
    ///
    /// # Errors
    ///
    /// The app cannot write, or a pull fails.
    pub fn measure(&self, ui: &Ui, sh: &Shell, flows: &mut Flows<'_>) -> Result<[Writers; 2]> {
        let wal = self.measure_mode(ui, sh, flows, "WAL", &[Flow::FirstZstd, Flow::Day])?;
        let rollback = self.measure_mode(ui, sh, flows, "DELETE", &[Flow::FirstZstd])?;
        remove(self.dir)?;
        Ok([wal, rollback])
    }

    /// Lets the program write into the largest database, alone and during pulls.
    fn measure_mode(
        &self,
        ui: &Ui,
        sh: &Shell,
        flows: &mut Flows<'_>,
        mode: &str,
        during: &[Flow],
    ) -> Result<Writers> {
        let Self { program, dir, shape, alone } = *self;
        ui.status("Measuring", format!("an app that writes in the journal mode {mode}"));
        flows.source.copy("after", dir)?;
        flows.source.deploy(dir)?;
        write_out(dir)?;
        let largest = dir.join(DATABASES[DATABASES.len() - 1].0);
        let mut app = Asked::start(cmd!(sh, "{program} --journal-mode {mode} {largest}"))?;
        let mut writers = Writers { alone: Vec::new(), during: Vec::new() };
        // What it takes to begin is not counted.
        interrupt::sleep(alone / 5)?;
        writers.alone.push(by_itself(&mut app, alone)?);
        for flow in during.iter().copied() {
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
