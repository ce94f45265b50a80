//! The contents of a repository, as they are in its work tree or in its index:
//! what a person sees, and what the next commit takes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use xshell::{Shell, cmd};

use crate::error::Failure;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tree {
    Work,
    Index,
}

/// A directory within a work tree; all paths start there.
pub struct Repository<'a> {
    pub sh: &'a Shell,
    pub root: &'a Path,
}

impl Repository<'_> {
    /// The content of a file; none where there is no such file.
    ///
    /// # Errors
    ///
    /// It is there and cannot be read.
    pub fn read(&self, tree: Tree, path: &str) -> Result<Option<Vec<u8>>> {
        match tree {
            Tree::Work => match std::fs::read(self.root.join(path)) {
                Ok(content) => Ok(Some(content)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error).with_context(|| format!("cannot read {path}")),
            },
            Tree::Index => self.blob(&format!(":./{path}")),
        }
    }

    /// The content of a file in the last commit; none where there is no such file.
    ///
    /// # Errors
    ///
    /// git does not run.
    pub fn committed(&self, path: &str) -> Result<Option<Vec<u8>>> {
        self.blob(&format!("HEAD:./{path}"))
    }

    /// With filters, so that what Git LFS keeps elsewhere is fetched.
    fn blob(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let (sh, root) = (self.sh, self.root);
        let output = cmd!(sh, "git -C {root} cat-file --filters {name}")
            .quiet()
            .ignore_status()
            .ignore_stderr()
            .output()?;
        Ok(output.status.success().then_some(output.stdout))
    }

    /// The files of which the next commit has another version than the last.
    ///
    /// # Errors
    ///
    /// This is no repository.
    pub fn staged(&self) -> Result<Vec<String>> {
        let (sh, root) = (self.sh, self.root);
        let listed = cmd!(sh, "git -C {root} diff --cached --relative --name-only --no-renames -z")
            .quiet()
            .read()
            .context("git does not say what is staged")?;
        Ok(names(&listed).map(str::to_owned).collect())
    }

    /// git's ids of the files that `wanted` selects. In a work tree these are
    /// also files that are not tracked yet, unless they are ignored.
    ///
    /// # Errors
    ///
    /// This is no repository, or one of them cannot be read.
    pub fn ids(
        &self,
        tree: Tree,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<BTreeMap<String, String>> {
        let (sh, root) = (self.sh, self.root);
        if tree == Tree::Index {
            let listed = cmd!(sh, "git -C {root} ls-files --stage -z").quiet().read()?;
            // Mode, id, stage, and after a tab the path.
            let entry = |line: &str| {
                let (facts, path) = line.split_once('\t')?;
                let id = facts.split(' ').nth(1)?;
                wanted(path).then(|| (path.to_owned(), id.to_owned()))
            };
            return Ok(names(&listed).filter_map(entry).collect());
        }
        let listed = cmd!(sh, "git -C {root} ls-files --cached --others --exclude-standard -z")
            .quiet()
            .ignore_stderr()
            .read()
            .with_context(|| {
                Failure::new(format!("{} is not in a git repository", root.display()))
                    .hint("git init")
            })?;
        let is_file = |path: &&str| wanted(path) && root.join(path).is_file();
        let paths: BTreeSet<&str> = names(&listed).filter(is_file).collect();
        if let Some(path) = paths.iter().find(|path| path.contains('\n')) {
            bail!("{path:?} has a line break in its name");
        }
        let input = paths.iter().map(|path| format!("{path}\n")).collect::<String>();
        let ids =
            cmd!(sh, "git -C {root} hash-object --stdin-paths").stdin(input).quiet().read()?;
        Ok(paths.into_iter().map(str::to_owned).zip(ids.lines().map(str::to_owned)).collect())
    }

    /// Makes `content` what the next commit has at `path`; the work tree is left
    /// alone.
    ///
    /// # Errors
    ///
    /// git cannot write it.
    pub fn stage(&self, path: &str, content: &[u8]) -> Result<()> {
        let (sh, root) = (self.sh, self.root);
        let write = cmd!(sh, "git -C {root} hash-object -w --stdin --path {path}");
        let id = write.stdin(content).quiet().read()?;
        let prefix = cmd!(sh, "git -C {root} rev-parse --show-prefix").quiet().read()?;
        let entry = format!("100644,{id},{prefix}{path}");
        cmd!(sh, "git -C {root} update-index --add --cacheinfo {entry}").quiet().run()?;
        Ok(())
    }
}

/// Whether git runs a hook for `git commit PATH…`. It then gives it an index
/// that is thrown away after the commit: what is staged in that would look, from
/// then on, as if it had been staged to be undone.
pub fn is_commit_of_paths(sh: &Shell) -> bool {
    let index = sh.var_os("GIT_INDEX_FILE").unwrap_or_default();
    let name = Path::new(&index).file_name().unwrap_or_default();
    name.to_string_lossy().starts_with("next-index-")
}

/// The entries of a list that git separates by NUL.
fn names(listed: &str) -> impl Iterator<Item = &str> {
    listed.split_terminator('\0')
}
