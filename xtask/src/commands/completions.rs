use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::error::Failure;
use crate::invocation;

/// Print a script for bash, zsh or fish that completes this command at TAB
///
/// Write it to a file, once, and add `source FILE` to ~/.bashrc, ~/.zshrc (after
/// compinit) or ~/.config/fish/config.fish. Other cargo commands are completed as
/// before. TAB runs the program that the repository of the directory has built.
#[derive(clap::Args)]
pub struct Args {
    shell: Shell,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// What bash and zsh both read.
const FIND: &str = include_str!("completions/find.sh");

impl Args {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let alias = invocation::command().trim_start_matches("cargo ");
        if !alias.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) {
            let what = format!("the alias {alias:?} is not a name that shells can complete");
            return Err(Failure::new(what)
                .hint("name it with letters, digits, - and _ in .cargo/config.toml")
                .into());
        }
        let place = Place::new()?;
        let words = place.words();
        let (head, body) = match self.shell {
            Shell::Fish => {
                let words: Vec<_> = words.iter().map(|word| quoted_for_fish(word)).collect();
                let call = format!("__cargo_xtask_answer {} $argv", words.join(" "));
                let head = format!("function __cargo_xtask_for_{alias}\n    {call}\nend\n");
                (head, include_str!("completions/fish.fish").to_owned())
            }
            shell => {
                let words = shlex::try_join(words.iter().map(String::as_str))?;
                let call = format!("_cargo_xtask_answer {words} \"$@\"");
                let body = match shell {
                    Shell::Bash => include_str!("completions/bash.sh"),
                    _ => include_str!("completions/zsh.zsh"),
                };
                (format!("_cargo_xtask_for_{alias}() {{ {call}; }}\n"), format!("{FIND}\n{body}"))
            }
        };
        writeln!(cx.ui.stream(), "# Made by `cargo {alias} completions`.\n{head}\n{body}")?;
        Ok(())
    }
}

/// Where the program is that Cargo has built.
struct Place {
    /// The crate, from the root of its repository.
    crate_dir: PathBuf,
    package: String,
    /// The program, from the target directory.
    program: PathBuf,
    /// The target directory, if it is outside of the repository.
    elsewhere: Option<PathBuf>,
}

impl Place {
    fn new() -> Result<Self> {
        let crate_dir = invocation::crate_dir().context("not run by Cargo").context(
            Failure::new("cannot tell where this program is built").hint("cargo xtask completions"),
        )?;
        let root = invocation::root_of(&crate_dir);
        let program = std::env::current_exe()?;
        let target = target_dir(&program).with_context(|| {
            format!("{} is not in a target directory of Cargo", program.display())
        })?;
        let package = std::env::var("CARGO_PKG_NAME").unwrap_or_default();
        let elsewhere = Some(target.to_owned()).filter(|target| !target.starts_with(&root));
        Ok(Self {
            crate_dir: crate_dir.strip_prefix(&root).unwrap_or(&crate_dir).to_owned(),
            program: program.strip_prefix(target)?.to_owned(),
            package,
            elsewhere,
        })
    }

    /// The arguments of the script: of the program also what it is called in a target directory
    /// that is not of one target.
    fn words(&self) -> Vec<String> {
        let mut last: Vec<_> = self.program.components().rev().take(2).collect();
        last.reverse();
        let short: PathBuf = last.into_iter().collect();
        let elsewhere = self.elsewhere.as_deref().unwrap_or(Path::new(""));
        let paths = [&self.crate_dir, &self.program, &short, elsewhere];
        let paths = paths.map(|path| path.to_string_lossy().into_owned());
        [self.package.clone()].into_iter().chain(paths).collect()
    }
}

/// The target directory of a program: only there Cargo has this file.
fn target_dir(program: &Path) -> Option<&Path> {
    let marked = program.ancestors().find(|dir| dir.join(".rustc_info.json").exists());
    marked.or_else(|| program.ancestors().nth(2))
}

/// A word of a fish script.
fn quoted_for_fish(word: &str) -> String {
    format!("'{}'", word.replace('\\', r"\\").replace('\'', r"\'"))
}
