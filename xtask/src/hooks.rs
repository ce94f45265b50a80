//! A marked block in git's pre-commit hook, a file that may belong to the user.

mod block;
pub mod diff;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::config::Settings;
use crate::error::Failure;
use crate::git::Repository;
use crate::{fs, invocation};

/// A new hook is this whole script: the header and the block.
const SCRIPT: &str = include_str!("pre-commit.sh");
/// Lines of the script that depend on the repository.
const PLACES: &str = "  crate=xtask settings=xtask/db.toml program=xtask/xtask\n";
const COMMAND: &str = "  cargo xtask refresh-fixtures --staged || exit\n";
/// What every hook has that runs this tool, also one of a hook manager.
pub const IN_HOOKS: &str = "refresh-fixtures --staged";
const HEADER: &str = "#!/bin/sh\n\n";
/// If the root is not at the top of the work tree, more lines follow this one.
const BEGIN: &str = "  [ \"${SKIP_FIXTURES:-0}\" = 0 ] || exit 0\n";
/// In a linked worktree git tells its hooks the path of its directory, and then takes the current
/// directory for the top of the work tree.
const KEEP_THE_TOP: &str = r#"  case ${GIT_DIR:-/} in /*) ;; *) GIT_DIR=$PWD/$GIT_DIR ;; esac
  [ -z "${GIT_DIR:-}" ] || export GIT_WORK_TREE="$PWD"
"#;

const SHELLS: [&str; 8] = ["sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "ksh93"];

/// The result for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    Installed,
    Updated,
    /// Unchanged: it was up to date.
    Kept,
    Removed,
    /// There was no block to remove.
    Nothing,
}

impl Done {
    /// The verb of the status line.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Installed => "Installed",
            Self::Updated => "Updated",
            Self::Kept => "Kept",
            Self::Removed => "Removed",
            Self::Nothing => "Found",
        }
    }
}

/// git's pre-commit hook.
pub struct Hook {
    /// The path by git's settings.
    pub path: PathBuf,
    /// The target, if `path` is a link; else the same path.
    pub file: PathBuf,
    content: Option<Vec<u8>>,
    /// Whether git itself runs the hook, which must then be executable.
    run_by_git: bool,
    /// The hook exists, but git does not run it.
    pub ignored: bool,
}

impl Hook {
    /// Fails if no hook can be installed, or the existing one cannot be read.
    pub fn find(tree: &Repository<'_>) -> Result<Self> {
        let mut dir = tree.git_path("hooks")?;
        if dir.exists() && !dir.is_dir() {
            let message =
                format!("git looks for hooks in {}, which is not a directory", dir.display());
            return Err(Failure::new(message)
                .hint("git config --show-origin core.hooksPath shows where that is set")
                .into());
        }
        // Husky recreates this directory at each installation; its scripts run those of the
        // directory above.
        let husky = dir.ends_with(".husky/_");
        if husky {
            dir.pop();
        }
        let path = dir.join("pre-commit");
        let file = follow(&path)?;
        let content = fs::read(&file)?;
        let ignored = !husky
            && content.is_some()
            && file.metadata().is_ok_and(|file| file.permissions().mode() & 0o111 == 0);
        Ok(Self { path, file, content, run_by_git: !husky, ignored })
    }

    /// Installs the block: in its old place, else before all other commands of the hook, since
    /// hooks made by tools end with an `exec`.
    ///
    /// # Errors
    ///
    /// The hook is not a shell script, or cannot be written.
    pub fn install(&self, tree: &Repository<'_>, tool: &Tool) -> Result<Done> {
        let script = script(&tree.prefix, tool)?;
        let Some(content) = &self.content else {
            fs::write_shared(&self.file, script.as_bytes(), self.run_by_git)?;
            return Ok(Done::Installed);
        };
        let start = self.start(content)?;
        let old = place(content, &self.file)?;
        let done = if old.is_some() { Done::Updated } else { Done::Installed };
        let new = block::put(content, old, start, &script[HEADER.len()..]);
        if new == *content && !self.ignored {
            return Ok(Done::Kept);
        }
        fs::write_shared(&self.file, &new, self.run_by_git)?;
        Ok(done)
    }

    /// Removes the block, and the file if nothing else is in it.
    ///
    /// # Errors
    ///
    /// The block's markers are broken, or the hook cannot be written.
    pub fn uninstall(&self) -> Result<Done> {
        let content = self.content.as_deref().unwrap_or_default();
        let Some(place) = place(content, &self.file)? else { return Ok(Done::Nothing) };
        let all_ours = content[..place.start] == *HEADER.as_bytes() && place.end == content.len();
        if all_ours && self.path == self.file {
            fs::remove(&self.file)?;
        } else {
            fs::write_shared(&self.file, &block::remove(content, place), false)?;
        }
        Ok(Done::Removed)
    }

    /// Whether git runs this tool before a commit, by the block or by a line of the user.
    pub fn is_installed(&self) -> bool {
        let content = String::from_utf8_lossy(self.content.as_deref().unwrap_or_default());
        !self.ignored && content.contains(IN_HOOKS)
    }

    /// Whether the hook exists now.
    pub fn is_there(&self) -> bool {
        self.file.exists()
    }

    /// The offset of a new block: after the line that names the interpreter.
    fn start(&self, content: &[u8]) -> Result<usize> {
        let refused = |why: &str, hint: &str| {
            Failure::new(format!("{} {why}; it was not changed", self.file.display())).hint(hint)
        };
        if !is_shell_script(content) {
            let hint = "add to it by hand, so that it fails when this does: \
                        cargo xtask refresh-fixtures --staged";
            return Err(refused("is not a shell script", hint).into());
        }
        let line = content.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
        if !line.starts_with(b"#!") {
            return Ok(0);
        }
        if line.ends_with(b"\r\n") || line.ends_with(b"\r") {
            let hint = format!("perl -pi -e 's/\\r$//' {}", quoted(&self.file)?);
            return Err(refused("has Windows line endings, and cannot run with them", &hint).into());
        }
        Ok(line.len())
    }
}

/// The paths of this tool, relative to the root of a repository.
pub struct Tool {
    /// The directory of the crate that Cargo runs.
    pub crate_dir: String,
    pub settings: String,
    /// The path of its program in Cargo's target directory.
    pub program: String,
    /// The Cargo alias that runs it.
    pub command: &'static str,
}

impl Tool {
    /// The tool that runs now, with these settings.
    ///
    /// # Errors
    ///
    /// A path is not UTF-8.
    pub fn current(settings: &Settings) -> Result<Self> {
        let beside = || settings.file.parent().unwrap_or(Path::new("/")).to_owned();
        let crate_dir = invocation::crate_dir().unwrap_or_else(beside);
        let from_root = |path: &Path| -> Result<String> {
            let path = path.strip_prefix(&settings.root).unwrap_or(path);
            let text = path.to_str().context("a path that is not UTF-8")?;
            Ok(if text.is_empty() || text.starts_with('-') {
                format!("./{text}")
            } else {
                text.to_owned()
            })
        };
        Ok(Self {
            crate_dir: from_root(&crate_dir)?,
            settings: from_root(&settings.file)?,
            program: within_target(&std::env::current_exe()?),
            command: invocation::command(),
        })
    }
}

/// Cargo puts programs into the directory of a profile, below that of the target triple if one is
/// given.
fn within_target(program: &Path) -> String {
    let mut names: Vec<_> =
        program.iter().rev().take(3).map(|name| name.to_string_lossy()).collect();
    if names.last().is_some_and(|target| target.matches('-').count() < 2) {
        names.pop();
    }
    names.reverse();
    names.join("/")
}

/// The script for a repository whose root is the directory `prefix` of the work tree.
fn script(prefix: &str, tool: &Tool) -> Result<String> {
    let [crate_dir, settings, program] =
        [&tool.crate_dir, &tool.settings, &tool.program].map(|word| quoted(word.as_ref()));
    let places = format!("  crate={} settings={} program={}\n", crate_dir?, settings?, program?);
    let command = COMMAND.replace("cargo xtask", tool.command);
    let script = SCRIPT.replace(PLACES, &places).replace(COMMAND, &command);
    if prefix.is_empty() {
        return Ok(script);
    }
    // The leading dot keeps CDPATH from being used.
    let dir = quoted(Path::new(&format!("./{prefix}")))?;
    let change = format!("{BEGIN}{KEEP_THE_TOP}  cd {dir} 2>/dev/null || exit 0\n");
    Ok(script.replace(BEGIN, &change))
}

/// The path as one word of sh.
fn quoted(path: &Path) -> Result<String> {
    let path = path.to_str().context("a path that is not UTF-8")?;
    Ok(shlex::try_quote(path)?.into_owned())
}

/// A hook without an interpreter line is run by sh.
fn is_shell_script(content: &[u8]) -> bool {
    if content.contains(&0) {
        return false;
    }
    let Some(rest) = content.strip_prefix(b"#!") else { return true };
    let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_whitespace().map(|word| word.rsplit('/').next().unwrap_or(word));
    let mut program = words.next();
    if program == Some("env") {
        program = words.find(|word| !word.starts_with('-') && !word.contains('='));
    }
    if program == Some("busybox") {
        program = words.next();
    }
    program.is_some_and(|program| SHELLS.contains(&program))
}

fn place(content: &[u8], file: &Path) -> Result<Option<std::ops::Range<usize>>> {
    block::find(content).map_err(|()| {
        let (start, end) = (block::START, block::END);
        Failure::new(format!("the block of cargo xtask in {} is broken", file.display()))
            .hint(format!("it must have one `{start}` and one `{end}` after it: remove the others"))
            .into()
    })
}

/// The target of a link: replacing the link itself would leave the target outdated.
fn follow(path: &Path) -> Result<PathBuf> {
    if !path.is_symlink() {
        return Ok(path.to_owned());
    }
    let remove = format!("rm {}", quoted(path)?);
    path.canonicalize().with_context(|| {
        Failure::new(format!("{} is a dangling symbolic link", path.display())).hint(remove)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool() -> Tool {
        Tool {
            crate_dir: "xtask".to_owned(),
            settings: "xtask/db.toml".to_owned(),
            program: within_target(Path::new("/target/xtask/xtask")),
            command: "cargo xtask",
        }
    }

    #[test]
    fn names_of_a_repository_are_quoted() {
        let tool = Tool {
            crate_dir: "tools/it's dev".to_owned(),
            settings: "tools/it's dev/db.toml".to_owned(),
            program: within_target(Path::new("/t/x86_64-unknown-linux-gnu/xtask/$dev")),
            command: "cargo tool",
        };
        let script = script("", &tool).unwrap();
        let places = r#"crate="tools/it's dev" settings="tools/it's dev/db.toml" program='x86_64-unknown-linux-gnu/xtask/$dev'"#;
        assert!(script.contains(&format!("\n  {places}\n")), "{script}");
        assert!(script.contains("\n  cargo tool refresh-fixtures --staged || exit\n"), "{script}");
    }

    #[test]
    fn the_script_is_a_header_and_a_block() {
        let script = script("", &tool()).unwrap();
        assert_eq!(script, SCRIPT, "as it is where all has its usual name");
        let place = block::find(script.as_bytes()).unwrap().unwrap();
        assert_eq!(place, HEADER.len()..script.len());
        assert!(script[place].lines().count() <= 28);
    }

    #[test]
    fn a_directory_in_the_work_tree_is_quoted() {
        let script = script("it's 1/", &tool()).unwrap();
        assert!(script.contains("\n  cd \"./it's 1/\" 2>/dev/null || exit 0\n"), "{script}");
        assert!(script.lines().count() <= 29 + HEADER.lines().count());
    }

    #[test]
    fn only_a_shell_runs_our_block() {
        for shell in [
            "#!/bin/sh\n",
            "#!/usr/bin/env bash\n",
            "#! /bin/dash -e\n",
            "#!/usr/bin/env -S FOO=1 zsh -e",
            "#!/bin/busybox ash\n",
            "echo no shebang\n",
            "",
        ] {
            assert!(is_shell_script(shell.as_bytes()), "{shell:?}");
        }
        for other in [
            "#!/usr/bin/env python3\n",
            "#!/usr/bin/node",
            "#!/usr/bin/fish\n",
            "#!\n",
            "#!/usr/bin/env\n",
            "\x7fELF\0",
            "#!/bin/sh\n\0",
        ] {
            assert!(!is_shell_script(other.as_bytes()), "{other:?}");
        }
    }
}
