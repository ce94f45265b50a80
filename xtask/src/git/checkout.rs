//! A checkout of what is staged, for a command that must not see the rest of the
//! work tree.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use xshell::cmd;

use super::Repository;
use super::index::list;

/// Where such a checkout is kept in git's directory, so that the next one writes
/// only what differs.
const PLACE: &str = "xtask-staged";

impl Repository<'_> {
    /// Whether the work tree has tracked files that differ from what is staged,
    /// or files that are not tracked and that `wanted` selects.
    ///
    /// # Errors
    ///
    /// git does not say.
    pub fn is_partially_staged(&self, wanted: impl Fn(&str) -> bool) -> Result<bool> {
        let Self { sh, root, .. } = self;
        if !self.is_unchanged(&[])? {
            return Ok(true);
        }
        let others = list(cmd!(sh, "git -C {root} ls-files --others --exclude-standard -z"))?;
        Ok(others.iter().any(|path| wanted(path)))
    }

    /// Writes all that is staged into a directory of its own; returns there the
    /// counterpart of the root. What git ignores (dependencies, build output) is
    /// linked into it, but for the directory `data`, what is in it and what it is in.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn check_out_staged(&self, data: &Path) -> Result<PathBuf> {
        let Self { sh, root, top, prefix } = self;
        let git_dir = cmd!(sh, "git -C {root} rev-parse --absolute-git-dir").quiet().read()?;
        let git_dir = PathBuf::from(git_dir);
        let (tree, index) = (git_dir.join(PLACE).join("tree"), git_dir.join(PLACE).join("index"));
        std::fs::create_dir_all(&tree)
            .with_context(|| format!("cannot create {}", tree.display()))?;
        let staged = cmd!(sh, "git -C {root} write-tree").quiet().read()?;
        cmd!(sh, "git --git-dir {git_dir} --work-tree {tree} read-tree --reset -u {staged}")
            .env("GIT_INDEX_FILE", index)
            .quiet()
            .run()
            .context("git cannot check out what is staged")?;
        // As git has it, without links on the way there.
        let data = data.canonicalize().unwrap_or_else(|_| data.to_owned());
        let ignored =
            cmd!(sh, "git -C {top} ls-files --others --ignored --exclude-standard --directory -z");
        for path in list(ignored)? {
            let path = path.trim_end_matches('/');
            let (from, to) = (top.join(path), tree.join(path));
            let is_data = from.starts_with(&data) || data.starts_with(&from);
            if !is_data && !from.starts_with(&git_dir) && to.symlink_metadata().is_err() {
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
