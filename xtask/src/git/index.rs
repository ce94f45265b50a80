//! The files of a repository, in its work tree or in its index, which the next commit contains.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Result, bail};
use xshell::{Cmd, Shell, cmd};

use super::Repository;
use crate::fs;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tree {
    Work,
    Index,
}

/// git's object ids of files, by path.
pub type Ids = BTreeMap<String, String>;

/// A file as git stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    pub kind: Kind,
    /// The target of a symbolic link.
    pub content: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Plain,
    Executable,
    Link,
}

/// The mode of a submodule, which is not a file.
const SUBMODULE: &str = "160000";

impl Blob {
    pub fn plain(content: Vec<u8>) -> Self {
        Self { kind: Kind::Plain, content }
    }

    /// Reads a file of a work tree; `None` if there is none.
    ///
    /// # Errors
    ///
    /// The file exists and cannot be read.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let Ok(file) = path.symlink_metadata() else { return Ok(None) };
        if file.is_symlink() {
            let content = path.read_link()?.into_os_string().into_vec();
            return Ok(Some(Self { kind: Kind::Link, content }));
        }
        if !file.is_file() {
            return Ok(None);
        }
        let is_executable = file.permissions().mode() & 0o100 != 0;
        let kind = if is_executable { Kind::Executable } else { Kind::Plain };
        Ok(fs::read(path)?.map(|content| Self { kind, content }))
    }

    /// Writes it into a work tree.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        // The mode of a file that is replaced stays.
        if Self::read(path)?.is_some_and(|old| old.kind != self.kind || old.kind == Kind::Link) {
            fs::remove(path)?;
        }
        match self.kind {
            Kind::Link => {
                fs_err::create_dir_all(path.parent().unwrap_or(path))?;
                Ok(fs_err::os::unix::fs::symlink(OsStr::from_bytes(&self.content), path)?)
            }
            kind => fs::write_shared(path, &self.content, kind == Kind::Executable),
        }
    }
}

impl Repository<'_> {
    /// The content of a file; `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// The file exists and cannot be read.
    pub fn read(&self, tree: Tree, path: &str) -> Result<Option<Vec<u8>>> {
        match tree {
            Tree::Work => fs::read(&self.root.join(path)),
            Tree::Index => self.blob(&format!(":./{path}")),
        }
    }

    /// The content of a file in the last commit; `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// The file exists and cannot be read.
    pub fn committed(&self, path: &str) -> Result<Option<Vec<u8>>> {
        self.at("HEAD", path)
    }

    /// The content of a file in `commit`.
    ///
    /// # Errors
    ///
    /// The file exists and cannot be read.
    pub fn at(&self, commit: &str, path: &str) -> Result<Option<Vec<u8>>> {
        self.blob(&format!("{commit}:./{path}"))
    }

    /// The last commits that changed a file, at most 50, newest first.
    ///
    /// # Errors
    ///
    /// A git command fails.
    pub fn versions(&self, path: &str) -> Result<Vec<String>> {
        let Self { sh, root, .. } = self;
        if super::head(sh, root).is_none() {
            return Ok(Vec::new());
        }
        list(cmd!(
            sh,
            "git -C {root} --literal-pathspecs log --max-count=50 -z --format=%H -- {path}"
        ))
    }

    /// With filters, so that git fetches a file that Git LFS stores elsewhere.
    fn blob(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Self { sh, root, .. } = self;
        let known = cmd!(sh, "git -C {root} rev-parse --verify --quiet {name}");
        if !known.quiet().ignore_status().ignore_stderr().output()?.status.success() {
            return Ok(None);
        }
        output(cmd!(sh, "git -C {root} cat-file --filters {name}")).map(Some)
    }

    /// The files that differ between the index and the last commit.
    ///
    /// # Errors
    ///
    /// A git command fails.
    pub fn staged(&self) -> Result<Vec<String>> {
        let Self { sh, root, .. } = self;
        list(cmd!(sh, "git -C {root} diff --cached --relative --name-only --no-renames -z"))
    }

    /// git's object ids of the files that `wanted` selects. In a work tree they include untracked
    /// files that are not ignored.
    ///
    /// # Errors
    ///
    /// A file cannot be read.
    pub fn ids(&self, tree: Tree, wanted: impl Fn(&str) -> bool) -> Result<Ids> {
        let Self { sh, root, .. } = self;
        // The fields are mode, id, stage, and after a tab the path.
        let entry = |line: String| {
            let (facts, path) = line.split_once('\t')?;
            let (mode, facts) = facts.split_once(' ')?;
            let (id, _) = facts.split_once(' ')?;
            (mode != SUBMODULE && wanted(path)).then(|| (path.to_owned(), id.to_owned()))
        };
        let staged = list(cmd!(sh, "git -C {root} ls-files --stage -z"))?;
        let mut ids: Ids = staged.into_iter().filter_map(entry).collect();
        if tree == Tree::Index {
            // Files of `git add --intent-to-add` are not in the next commit.
            for path in self.differing("--diff-filter=A")? {
                ids.remove(&path);
            }
            return Ok(ids);
        }
        let mut others = self.differing("--ignore-submodules")?;
        others.extend(list(cmd!(sh, "git -C {root} ls-files --others --exclude-standard -z"))?);
        let mut files = Vec::new();
        for path in others.into_iter().filter(|path| wanted(path)) {
            ids.remove(&path);
            match root.join(&path).symlink_metadata() {
                Ok(file) if file.is_symlink() => {
                    let id = self.id_of_link(&path)?;
                    ids.insert(path, id);
                }
                Ok(file) if file.is_file() => files.push(path),
                _ => {}
            }
        }
        ids.extend(self.ids_of_files(files)?);
        Ok(ids)
    }

    /// The files whose content in the work tree differs from the index, as git compares them;
    /// `option` filters them.
    fn differing(&self, option: &str) -> Result<Vec<String>> {
        let Self { sh, root, .. } = self;
        list(cmd!(sh, "git -C {root} diff --relative --name-only --no-renames {option} -z"))
    }

    /// Whether a file is the same in the work tree and in the index, or missing from both. Line
    /// ends may differ.
    ///
    /// # Errors
    ///
    /// A git command fails.
    pub fn is_staged(&self, path: &str) -> Result<bool> {
        let is_there = self.root.join(path).symlink_metadata().is_ok();
        let is_staged = self.read(Tree::Index, path)?.is_some();
        Ok(is_there == is_staged && (!is_staged || self.is_unchanged(&[path])?))
    }

    /// Whether none of these tracked files (or of all) differs from the index.
    pub(super) fn is_unchanged(&self, paths: &[&str]) -> Result<bool> {
        let Self { sh, root, .. } = self;
        let options = ["--quiet", "--no-ext-diff", "--ignore-submodules"];
        let diff = cmd!(sh, "git -C {root} --literal-pathspecs diff {options...} -- {paths...}");
        Ok(diff.quiet().ignore_status().output()?.status.success())
    }

    fn ids_of_files(&self, paths: Vec<String>) -> Result<Ids> {
        let Self { sh, root, .. } = self;
        if let Some(path) = paths.iter().find(|path| path.contains('\n')) {
            bail!("{path:?} has a line break in its name");
        }
        let input: String = paths.iter().map(|path| format!("{path}\n")).collect();
        let ids =
            cmd!(sh, "git -C {root} hash-object --stdin-paths").stdin(input).quiet().read()?;
        Ok(paths.into_iter().zip(ids.lines().map(str::to_owned)).collect())
    }

    /// The command that stores the content of a file, with git's filters.
    fn hash(&self, path: &str) -> Cmd<'_> {
        let Self { sh, root, .. } = self;
        cmd!(sh, "git -C {root} hash-object -w --stdin --path {path}")
    }

    /// git stores the target of a symbolic link, not the content of that file.
    fn id_of_link(&self, path: &str) -> Result<String> {
        let Self { sh, root, .. } = self;
        let target = root.join(path).read_link()?;
        let target = target.as_os_str().as_bytes();
        Ok(cmd!(sh, "git -C {root} hash-object --stdin").stdin(target).quiet().read()?)
    }

    /// Writes these files, by path, to the index, all or none; `None` removes one. The work tree stays
    /// as it is.
    ///
    /// # Errors
    ///
    /// git cannot write them.
    pub fn stage(&self, files: &BTreeMap<String, Option<Blob>>) -> Result<()> {
        let Self { sh, root, prefix, .. } = self;
        let mut entries = String::new();
        let mut left_out = Vec::new();
        for (path, blob) in files {
            let Some(Blob { kind, content }) = blob else {
                entries += &format!("0 {:040}\t{prefix}{path}\0", 0);
                continue;
            };
            let (mode, write) = match kind {
                Kind::Plain => ("100644", self.hash(path)),
                Kind::Executable => ("100755", self.hash(path)),
                Kind::Link => ("120000", cmd!(sh, "git -C {root} hash-object -w --stdin")),
            };
            let id = write.stdin(content).quiet().read()?;
            entries += &format!("{mode} {id}\t{prefix}{path}\0");
            // A file outside a sparse checkout needs its flag again, or git sees it as deleted.
            let tagged = cmd!(sh, "git -C {root} --literal-pathspecs ls-files -t -z -- {path}");
            if list(tagged)?.iter().any(|line| line.starts_with("S ")) {
                left_out.push(path);
            }
        }
        let update = cmd!(sh, "git -C {root} update-index -z --add --index-info");
        update.stdin(entries).quiet().run()?;
        if !left_out.is_empty() {
            cmd!(sh, "git -C {root} update-index --skip-worktree -- {left_out...}")
                .quiet()
                .run()?;
        }
        Ok(())
    }
}

/// Whether git runs a hook for `git commit PATH…`. git then uses a temporary index: a file staged
/// in it would afterwards look as if its change were staged to be undone.
pub fn is_commit_of_paths(sh: &Shell) -> bool {
    let index = sh.var_os("GIT_INDEX_FILE").unwrap_or_default();
    let name = Path::new(&index).file_name().unwrap_or_default();
    name.to_string_lossy().starts_with("next-index-")
}

/// The output of a git command; its error message is the error.
fn output(command: Cmd<'_>) -> Result<Vec<u8>> {
    let name = command.to_string();
    let output = command.quiet().ignore_status().output()?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(anyhow::anyhow!("{}", said.trim()).context(format!("`{name}` failed")))
}

/// The entries of a NUL-separated list. Names that are not UTF-8 are dropped: no setting can match
/// them.
pub(super) fn list(command: Cmd<'_>) -> Result<Vec<String>> {
    let listed = output(command)?;
    let names = listed.split(|byte| *byte == 0).map(|name| String::from_utf8(name.to_vec()));
    Ok(names.filter_map(Result::ok).filter(|name| !name.is_empty()).collect())
}
