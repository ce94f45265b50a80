//! Installs the hook managers with which the tests run the snippets of `docs/hooks/`.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};
use xtask_db::internals::durable;
use xtask_db::internals::error::Failure;

use crate::{Context, install};

/// The file with their versions, from the root of the repository.
const REQUIREMENTS: &str = "tests/hook-managers/requirements.txt";

/// Installs them into the target directory, unless the same versions are installed there.
///
/// # Errors
///
/// A package cannot be downloaded or installed.
pub fn install(cx: &Context, target: &Path) -> Result<()> {
    let (sh, root) = (&cx.sh, &cx.root);
    let dir = target.join("hook-managers");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let lock = File::create(dir.join("lock")).context("cannot lock the hook managers")?;
    lock.lock().context("cannot lock the hook managers")?;
    // The tests compare the stamp with the requirements too. It is written last, so that an
    // incomplete installation has none.
    let versions = fs::read_to_string(root.join(REQUIREMENTS))?;
    let stamp = dir.join("versions");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == versions) && work(sh, &dir) {
        return Ok(());
    }
    durable::remove(&stamp)?;
    cx.ui.status("Installing", format!("pre-commit, prek and lefthook into {}", dir.display()));
    from_pypi(sh, root, &dir.join("python")).with_context(|| {
        Failure::new("the hook managers cannot be installed")
            .hint("they come from PyPI: run `cargo dev test` again with a network")
    })?;
    durable::write_shared(&stamp, versions.as_bytes(), false)
}

/// Whether the programs run: a virtual environment breaks when the repository is moved, or when its
/// Python is removed.
fn work(sh: &Shell, dir: &Path) -> bool {
    ["pre-commit", "prek", "lefthook"].iter().all(|program| {
        let program = dir.join("python/bin").join(program);
        let help = cmd!(sh, "{program} --help").quiet().ignore_stdout().ignore_stderr();
        help.run().is_ok()
    })
}

/// Uses a virtual environment: Debian and Homebrew forbid pip to install elsewhere.
fn from_pypi(sh: &Shell, root: &Path, dir: &Path) -> Result<()> {
    let python = install::find(sh, install::PYTHON3.program).context("there is no python3")?;
    let requirements = root.join(REQUIREMENTS);
    cmd!(sh, "{python} -m venv --clear {dir}").quiet().run()?;
    let python = dir.join("bin/python");
    cmd!(
        sh,
        "{python} -m pip install --quiet --disable-pip-version-check --requirement {requirements}"
    )
    .quiet()
    .run()?;
    Ok(())
}
