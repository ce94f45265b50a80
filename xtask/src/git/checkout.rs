//! A checkout of what is staged, for a command that must not see the rest of the
//! work tree.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use xshell::cmd;

use super::Repository;
use super::index::list;
use crate::fs;

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
    /// linked into it, but for the paths in the directory `data` that are data.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn check_out_staged(
        &self,
        data: &Path,
        is_data: impl Fn(&Path) -> bool,
    ) -> Result<PathBuf> {
        let Self { sh, root, top, prefix } = self;
        let git_dir = cmd!(sh, "git -C {root} rev-parse --absolute-git-dir").quiet().read()?;
        let git_dir = PathBuf::from(git_dir);
        let (tree, index) = (git_dir.join(PLACE).join("tree"), git_dir.join(PLACE).join("index"));
        fs_err::create_dir_all(&tree)?;
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
        let links = Links { data: &data, is_data: &is_data };
        for path in list(ignored)? {
            let path = path.trim_end_matches('/');
            let (from, to) = (top.join(path), tree.join(path));
            if !from.starts_with(&git_dir) {
                // A link to the data directory stands for it.
                let real = from.canonicalize().ok().filter(|real| data.starts_with(real));
                links.make(&real.unwrap_or(from), &to)?;
            }
        }
        Ok(tree.join(prefix))
    }
}

struct Links<'a> {
    /// The data directory, which has no links in its path.
    data: &'a Path,
    /// Whether a path, seen from there, is data.
    is_data: &'a dyn Fn(&Path) -> bool,
}

impl Links<'_> {
    /// Links what is there; of a directory that the data directory lies in, its entries.
    fn make(&self, from: &Path, to: &Path) -> Result<()> {
        if self.data.starts_with(from) && from.is_dir() && !from.is_symlink() {
            // With the data directory elsewhere, it was linked as a whole.
            if to.is_symlink() {
                fs::remove(to)?;
            }
            for entry in fs_err::read_dir(from)? {
                let entry = entry?;
                self.make(&entry.path(), &to.join(entry.file_name()))?;
            }
            return Ok(());
        }
        let real = from.canonicalize().unwrap_or_else(|_| from.to_owned());
        let is_data = |path: &Path| path.strip_prefix(self.data).is_ok_and(self.is_data);
        let leads_to_data = self.data.starts_with(&real) || is_data(from) || is_data(&real);
        if leads_to_data || to.symlink_metadata().is_ok() { Ok(()) } else { link(from, to) }
    }
}

fn link(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs_err::create_dir_all(parent)?;
    }
    Ok(fs_err::os::unix::fs::symlink(from, to)?)
}
