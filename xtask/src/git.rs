//! Queries git about the repository.

pub mod checkout;
pub mod exposure;
pub mod index;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};

use crate::error::Failure;

/// The commit that is checked out.
pub fn head(sh: &Shell, root: &Path) -> Option<String> {
    cmd!(sh, "git -C {root} rev-parse --verify --quiet HEAD").quiet().ignore_stderr().read().ok()
}

/// The directory in git's common directory that stands for the main work tree where there is none.
const NO_MAIN: &str = "xtask-snapshots";

/// The counterpart of `root`, which is in a linked work tree, in a directory that is the same for all
/// linked ones, and for no other repository: the main work tree, or else a directory in git's common
/// directory. `None` if `root` is in no linked one.
pub fn shared_root(root: &Path) -> Option<PathBuf> {
    let top = root.ancestors().find(|dir| dir.join(".git").exists())?;
    // In the main work tree it is a directory; gitrepository-layout(5) has the rest.
    let file = std::fs::read_to_string(top.join(".git")).ok()?;
    let git_dir = top.join(file.strip_prefix("gitdir: ")?.trim_end_matches('\n'));
    // The main work tree of a submodule has none.
    let common = std::fs::read_to_string(git_dir.join("commondir")).ok()?;
    let common = git_dir.join(common.trim_end_matches('\n')).canonicalize().ok()?;
    // Beside a bare repository, that of a submodule or one of --separate-git-dir lie other projects.
    let shared = match common.parent() {
        Some(main) if common.ends_with(".git") && !is_bare(&common) => main.to_owned(),
        _ => common.join(NO_MAIN),
    };
    Some(shared.join(root.strip_prefix(top).ok()?))
}

/// Whether a common directory is of a repository without a main work tree.
fn is_bare(common: &Path) -> bool {
    // `config.worktree` has it where each work tree has its own settings.
    let texts =
        ["config", "config.worktree"].map(|name| std::fs::read_to_string(common.join(name)));
    let says_so = |line: &str| {
        let (key, value) = line.split_once('=').unwrap_or((line, "true"));
        key.trim().eq_ignore_ascii_case("bare") && value.trim().eq_ignore_ascii_case("true")
    };
    texts.iter().flatten().any(|text| text.lines().any(says_so))
}

/// The variables that tell git's hooks their repository, and would misdirect git in another one.
///
/// # Errors
///
/// git does not run.
pub fn local_variables(sh: &Shell) -> Result<Vec<String>> {
    let names = cmd!(sh, "git rev-parse --local-env-vars").quiet().read()?;
    Ok(names.lines().map(str::to_owned).collect())
}

/// A work tree, seen from a directory in it; paths are relative to that directory.
pub struct Repository<'a> {
    pub sh: &'a Shell,
    pub root: PathBuf,
    /// The top of the work tree.
    pub top: PathBuf,
    /// The path from `top` to `root`: empty, or with a `/` at its end.
    pub prefix: String,
}

impl<'a> Repository<'a> {
    /// Fails with git's message if `root` is in no work tree, or git is missing.
    pub fn of(sh: &'a Shell, root: &Path) -> Result<Self> {
        let asked = cmd!(sh, "git -C {root} rev-parse --show-prefix --show-toplevel");
        let answer = asked
            .quiet()
            .ignore_status()
            .output()
            .with_context(|| Failure::new("cannot run git").hint("install git"))?;
        if !answer.status.success() {
            let said = String::from_utf8_lossy(&answer.stderr);
            let why = said.lines().next().unwrap_or("no reason given");
            let why = why.trim_start_matches("fatal: ").to_owned();
            let shown = root.display().to_string();
            let init = format!("git init {}", shlex::try_quote(&shown)?);
            let failure =
                Failure::new(format!("{shown} is not in the work tree of a git repository"));
            // git may refuse an unsafe repository: its message says what to do.
            let is_missing = why.starts_with("not a git repository");
            let failure = if is_missing { failure.hint(init) } else { failure };
            return Err(anyhow::Error::msg(why)).context(failure);
        }
        let answer = String::from_utf8(answer.stdout).context("a path that is not UTF-8")?;
        let (prefix, top) =
            answer.split_once('\n').context("git printed one line instead of two")?;
        Ok(Self {
            sh,
            root: root.to_owned(),
            top: PathBuf::from(top.trim_end_matches('\n')),
            prefix: prefix.to_owned(),
        })
    }

    /// The path that git uses for `name`, such as `hooks`, by its settings. It need not exist.
    ///
    /// # Errors
    ///
    /// git does not run.
    pub fn git_path(&self, name: &str) -> Result<PathBuf> {
        let Self { sh, top, .. } = self;
        Ok(top.join(cmd!(sh, "git -C {top} rev-parse --git-path {name}").quiet().read()?))
    }

    /// The git directory that all work trees of the repository share.
    ///
    /// # Errors
    ///
    /// git does not run.
    pub fn common_dir(&self) -> Result<PathBuf> {
        let Self { sh, top, .. } = self;
        Ok(top.join(cmd!(sh, "git -C {top} rev-parse --git-common-dir").quiet().read()?))
    }

    pub fn ignores(&self, path: &Path) -> bool {
        let Self { sh, top, .. } = self;
        let asked = cmd!(sh, "git -C {top} check-ignore --quiet -- {path}");
        asked.quiet().ignore_stderr().run().is_ok()
    }
}
