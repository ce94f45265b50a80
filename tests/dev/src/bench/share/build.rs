//! How long the first `cargo xtask` of a machine builds, with and without the feature `share`.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;
use xshell::cmd;
use xtask_db::internals::interrupt;

use crate::Context;
use crate::bench::pulls::source::remove;

/// In seconds, each of one build from nothing.
#[derive(Clone, Copy, Serialize)]
pub struct Build {
    pub without: f64,
    pub with: f64,
}

impl Build {
    pub fn ratio(self) -> f64 {
        self.with / self.without
    }
}

/// Builds in the new directory `dir`. All sources are fetched before.
///
/// # Errors
///
/// A build fails.
pub fn measure(cx: &Context, dir: &Path) -> Result<Build> {
    cx.ui.status("Measuring", "builds from nothing");
    interrupt::run(cmd!(cx.sh, "cargo fetch --quiet --locked"))?;
    let build = |features: Option<&str>| -> Result<f64> {
        remove(dir)?;
        let started = Instant::now();
        let command = cmd!(
            cx.sh,
            "cargo build --quiet --locked --profile xtask --package xtask-db --bin xtask --target-dir {dir}"
        );
        interrupt::run(command.args(features.map(|features| format!("--features={features}"))))?;
        Ok(started.elapsed().as_secs_f64())
    };
    let built = Build { without: build(None)?, with: build(Some("share"))? };
    remove(dir)?;
    Ok(built)
}
