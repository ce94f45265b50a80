//! What a commit that has nothing to do with a fixture waits for the hook.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Serialize;
use xshell::{Cmd, Shell, cmd};

use super::Times;
use crate::git;

/// Those of the hook, and of what `cargo run` alone takes.
#[derive(Debug, Serialize)]
pub struct Hook {
    pub hook: Times,
    pub cargo_run: Times,
}

impl Hook {
    /// The part of it that is ours, in seconds.
    pub fn ours(&self) -> f64 {
        self.hook.median - self.cargo_run.median
    }
}

/// Measures both `runs` times in the repository `root`, one after the other, so
/// that whatever else the machine does falls on both. None where there is no commit.
///
/// # Errors
///
/// One of them fails.
pub fn measure(sh: &Shell, root: &Path, runs: u32) -> Result<Option<Hook>> {
    if git::head(sh, root).is_none() {
        return Ok(None);
    }
    let _dir = sh.push_dir(root);
    let scratch = tempfile::tempdir()?;
    // An index of its own: what is staged in the repository is left alone.
    let _index = sh.push_env("GIT_INDEX_FILE", scratch.path().join("index"));
    cmd!(sh, "git read-tree HEAD").quiet().run()?;
    let blob = cmd!(sh, "git rev-parse HEAD:./xtask/Cargo.toml").quiet().read()?;
    let entry = format!("100644,{blob},of-no-concern.txt");
    cmd!(sh, "git update-index --add --cacheinfo {entry}").quiet().run()?;

    // The first builds what is not built yet.
    let hook = || cmd!(sh, "sh xtask/src/pre-commit.sh").env_remove("SKIP_FIXTURES");
    let cargo_run = || cmd!(sh, "cargo xtask --version");
    run(hook())?;
    run(cargo_run())?;
    let (mut hooks, mut alone) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        hooks.push(run(hook())?);
        alone.push(run(cargo_run())?);
    }
    Ok(Some(Hook { hook: Times::of(hooks), cargo_run: Times::of(alone) }))
}

fn run(command: Cmd<'_>) -> Result<Duration> {
    let started = Instant::now();
    let output = command.quiet().ignore_status().output()?;
    let time = started.elapsed();
    if !output.status.success() {
        bail!("the hook failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(time)
}
