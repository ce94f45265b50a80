//! A checkout of what is staged, for a command that must not see the rest of the
//! work tree.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use xshell::cmd;

use super::index::Repository;

/// Where such a checkout is kept in git's directory, so that the next one writes
/// only what differs, and what was built in it stays built.
const PLACE: &str = "xtask-staged";

impl Repository<'_> {
    /// Whether the work tree has tracked files that differ from what is staged,
    /// or files that are not tracked and that `wanted` selects.
    ///
    /// # Errors
    ///
    /// This is no repository.
    pub fn is_partially_staged(&self, wanted: impl Fn(&str) -> bool) -> Result<bool> {
        let (sh, root) = (self.sh, self.root);
        let diff = cmd!(sh, "git -C {root} diff --quiet --no-ext-diff --ignore-submodules");
        if diff.quiet().ignore_status().output()?.status.code() != Some(0) {
            return Ok(true);
        }
        let others =
            cmd!(sh, "git -C {root} ls-files --others --exclude-standard -z").quiet().read()?;
        Ok(others.split_terminator('\0').any(wanted))
    }

    /// Writes all that is staged into a directory of its own, the root of this
    /// repository's counterpart there. What git ignores (dependencies, build
    /// output) is linked into it, but for what `without` names.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn check_out_staged(&self, without: &Path) -> Result<PathBuf> {
        let (sh, root) = (self.sh, self.root);
        let ask = |what: &str| cmd!(sh, "git -C {root} rev-parse {what}").quiet().read();
        let git_dir = PathBuf::from(ask("--absolute-git-dir")?);
        let top = PathBuf::from(ask("--show-toplevel")?);
        let prefix = ask("--show-prefix")?;
        let (tree, index) = (git_dir.join(PLACE).join("tree"), git_dir.join(PLACE).join("index"));
        std::fs::create_dir_all(&tree)
            .with_context(|| format!("cannot create {}", tree.display()))?;
        let staged = cmd!(sh, "git -C {root} write-tree").quiet().read()?;
        cmd!(sh, "git --git-dir {git_dir} --work-tree {tree} read-tree --reset -u {staged}")
            .env("GIT_INDEX_FILE", index)
            .quiet()
            .run()
            .context("git cannot check out what is staged")?;
        let ignored =
            cmd!(sh, "git -C {top} ls-files --others --ignored --exclude-standard --directory -z");
        for path in ignored.quiet().read()?.split_terminator('\0') {
            let path = path.trim_end_matches('/');
            let (from, to) = (top.join(path), tree.join(path));
            if from != without && !from.starts_with(&git_dir) && to.symlink_metadata().is_err() {
                link(&from, &to)?;
            }
        }
        Ok(tree.join(prefix))
    }
}

fn link(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::os::unix::fs::symlink(from, to)
        .with_context(|| format!("cannot link {} to {}", to.display(), from.display()))
}
