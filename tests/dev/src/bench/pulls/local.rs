//! Many small databases on this machine, which `pull-db --via local:DIR` brings here.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use xshell::{Shell, cmd};
use xtask_db::internals::ui::Ui;
use xtask_db::internals::{durable, interrupt};

use super::pull::{Program, Pulled};
use super::rules;
use super::source::{Extent, create, live_a_day, remove, vary};
use super::watch::{Seen, Watch};
use crate::bench::write_out;

/// What each tenant has.
const TENANT: Extent = Extent { bytes: 200_000, accounts: 24, at_once: 10 };

/// After how many seconds a pull is killed.
pub const LIMIT: u32 = 300;
/// The script takes a file for settled that has not been written for longer than two seconds.
const SETTLED: Duration = Duration::from_millis(3100);
/// How many seconds it then has to clean up.
const GRACE: u32 = 10;
/// The exit codes of `timeout` and of what it has killed.
const OVER: [i32; 2] = [124, 137];

/// A production of tenants, and the data directory of its pulls.
pub struct Local<'a> {
    sh: &'a Shell,
    program: &'a Program,
    pub tenants: u64,
    /// The databases as they are made, which are kept.
    made: PathBuf,
    dir: PathBuf,
}

/// A pull that has ended by itself.
#[derive(Default)]
pub struct Run {
    pub time: Duration,
    pub pulled: Pulled,
    pub seen: Seen,
}

impl<'a> Local<'a> {
    /// Makes the databases below `dir`, unless they are there.
    ///
    /// # Errors
    ///
    /// They cannot be written.
    pub fn prepare(
        ui: &Ui,
        sh: &'a Shell,
        program: &'a Program,
        dir: &Path,
        tenants: u64,
        fresh: bool,
    ) -> Result<Self> {
        let (made, making) = (dir.join(format!("tenants-{tenants}")), dir.join("making-tenants"));
        for old in [fresh.then_some(&made), Some(&making)].into_iter().flatten() {
            remove(old)?;
        }
        if !made.exists() {
            ui.status("Making", format!("{tenants} tenants in {}", made.display()));
            make(&making, tenants)?;
            durable::rename(&making, &made)?;
        }
        Ok(Self { sh, program, tenants, made, dir: dir.join("local") })
    }

    /// The same with the first of the databases only.
    pub fn first(&self, tenants: u64) -> Self {
        let Self { sh, program, .. } = *self;
        let tenants = tenants.min(self.tenants);
        Self { sh, program, tenants, made: self.made.clone(), dir: self.dir.clone() }
    }

    pub fn production(&self) -> PathBuf {
        self.dir.join("production")
    }

    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Makes the production what it was at first, and the data directory empty.
    ///
    /// # Errors
    ///
    /// They cannot be written.
    pub fn reset(&self) -> Result<()> {
        remove(&self.dir)?;
        for dir in [self.production(), self.dir.join("tmp")] {
            std::fs::create_dir_all(dir)?;
        }
        for tenant in 0..self.tenants {
            std::fs::copy(self.made.join(name(tenant)), self.production().join(name(tenant)))?;
        }
        Ok(())
    }

    /// Changes some rows of `tenants` of the databases, others from day to day.
    ///
    /// # Errors
    ///
    /// They cannot be written.
    pub fn live_a_day(&self, day: u64, tenants: u64) -> Result<()> {
        for i in 0..tenants.min(self.tenants) {
            let tenant = (day * tenants + i) % self.tenants;
            live_a_day(&self.production().join(name(tenant)), (day + 1) << 32 | tenant)?;
        }
        Ok(())
    }

    /// Waits until a write to a database would give it another time than it has: the server records
    /// what it knows of older files only.
    fn settle(&self) -> Result<()> {
        for tenant in 0..self.tenants {
            let path = self.production().join(name(tenant));
            while path.metadata()?.modified()?.elapsed().unwrap_or_default() < SETTLED {
                interrupt::sleep(Duration::from_millis(100))?;
            }
        }
        Ok(())
    }

    /// Pulls, and checks untimed that all has come, sanitized. Nothing if it took too long.
    ///
    /// # Errors
    ///
    /// It fails, or brings something else.
    pub fn pull(&self) -> Result<Option<Run>> {
        let (tmp, via) = (self.dir.join("tmp"), format!("local:{}", self.production().display()));
        let pull = self.program.command(&via, &self.program.config, &self.data());
        let (sh, limit, grace) = (self.sh, LIMIT.to_string(), GRACE.to_string());
        let command = cmd!(sh, "timeout --kill-after {grace} {limit} {pull...}");
        write_out(&self.dir)?;
        self.settle()?;
        // No other child of this process runs meanwhile.
        let watch = Watch::start(std::process::id(), &tmp);
        let started = Instant::now();
        let output = interrupt::output(command.env("TMPDIR", &tmp).quiet());
        let (time, seen) = (started.elapsed(), watch.end());
        let output = output?;
        if output.status.code().is_some_and(|code| OVER.contains(&code)) {
            return Ok(None);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            bail!("the pull of {} tenants failed: {}", self.tenants, said.trim());
        }
        rules::check_secrets(self.sh, &self.production(), &self.data())?;
        Ok(Some(Run { time, pulled: Pulled::parse(&said), seen }))
    }

    pub fn remove(&self) -> Result<()> {
        remove(&self.dir)
    }
}

/// The name of a database.
fn name(tenant: u64) -> String {
    format!("tenant_{tenant:04}.db")
}

/// Writes one, of which all others are copies with other rows: that is faster.
fn make(dir: &Path, tenants: u64) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let first = dir.join(name(0));
    create(&first, 0, TENANT)?;
    for tenant in 1..tenants {
        interrupt::check()?;
        let path = dir.join(name(tenant));
        std::fs::copy(&first, &path)?;
        vary(&path, tenant)?;
    }
    Ok(())
}
