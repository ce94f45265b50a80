//! A checkout of the index, for a command that must not see other changes in the work tree.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use xshell::cmd;

use super::Repository;
use super::index::list;
use crate::fs;

/// The name of the checkout in git's directory. It is kept, so that the next run writes only the
/// differences.
const PLACE: &str = "xtask-staged";

impl Repository<'_> {
    /// Whether the work tree has tracked files that differ from the index, or untracked files that
    /// `wanted` selects.
    ///
    /// # Errors
    ///
    /// A git command fails.
    pub fn is_partially_staged(&self, wanted: impl Fn(&str) -> bool) -> Result<bool> {
        let Self { sh, root, .. } = self;
        if !self.is_unchanged(&[])? {
            return Ok(true);
        }
        let others = list(cmd!(sh, "git -C {root} ls-files --others --exclude-standard -z"))?;
        Ok(others.iter().any(|path| wanted(path)))
    }

    /// Writes the index into a directory; returns the counterpart of the root in it. Ignored files
    /// (dependencies, build output) are linked into it, except for data below the directory `data`.
    ///
    /// # Errors
    ///
    /// The checkout cannot be written.
    pub fn check_out_staged(
        &self,
        data: &Path,
        is_data: impl Fn(&Path) -> bool,
    ) -> Result<PathBuf> {
        let Self { sh, root, top, prefix } = self;
        let (git_dir, tree, index) = self.places()?;
        fs_err::create_dir_all(&tree)?;
        let staged = cmd!(sh, "git -C {root} write-tree").quiet().read()?;
        cmd!(sh, "git --git-dir {git_dir} --work-tree {tree} read-tree --reset -u {staged}")
            .env("GIT_INDEX_FILE", index)
            .quiet()
            .run()
            .context("git cannot check out the staged files")?;
        // Compared without links in the path, as git prints paths.
        let data = data.canonicalize().unwrap_or_else(|_| data.to_owned());
        let ignored =
            cmd!(sh, "git -C {top} ls-files --others --ignored --exclude-standard --directory -z");
        let links = Links { data: &data, is_data: &is_data };
        for path in list(ignored)? {
            let path = path.trim_end_matches('/');
            let (from, to) = (top.join(path), tree.join(path));
            if !from.starts_with(&git_dir) {
                // A link to the data directory is treated like the directory.
                let real = from.canonicalize().ok().filter(|real| data.starts_with(real));
                links.make(&real.unwrap_or(from), &to)?;
            }
        }
        Ok(tree.join(prefix))
    }

    /// The files in `dir`, the root or a checkout, that git knows or would add.
    ///
    /// # Errors
    ///
    /// A git command fails.
    pub fn files_in(&self, dir: &Path) -> Result<Vec<String>> {
        let Self { sh, root, .. } = self;
        let (git_dir, tree, index) = self.places()?;
        let all = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"];
        let command = if dir.starts_with(&tree) {
            cmd!(sh, "git -C {dir} --git-dir {git_dir} --work-tree {tree} {all...}")
                .env("GIT_INDEX_FILE", index)
        } else {
            cmd!(sh, "git -C {root} {all...}")
        };
        list(command)
    }

    /// git's directory, and in it the checkout and its index.
    fn places(&self) -> Result<(PathBuf, PathBuf, PathBuf)> {
        let Self { sh, root, .. } = self;
        let git_dir = cmd!(sh, "git -C {root} rev-parse --absolute-git-dir").quiet().read()?;
        let git_dir = PathBuf::from(git_dir);
        let (tree, index) = (git_dir.join(PLACE).join("tree"), git_dir.join(PLACE).join("index"));
        Ok((git_dir, tree, index))
    }
}

struct Links<'a> {
    /// The data directory, without links in its path.
    data: &'a Path,
    /// Whether a path, relative to the data directory, is data.
    is_data: &'a dyn Fn(&Path) -> bool,
}

impl Links<'_> {
    /// Links a path; if the data directory is below it, links the entries instead.
    fn make(&self, from: &Path, to: &Path) -> Result<()> {
        if self.data.starts_with(from) && from.is_dir() && !from.is_symlink() {
            // It was linked as a whole if the data directory used to be elsewhere.
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
