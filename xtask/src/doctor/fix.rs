//! What `--fix` does: nothing that a pull or `install-hooks` would not do as well.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::config::Settings;
use crate::context::Context;
use crate::fs;
use crate::git::Repository;
use crate::hooks::{Hook, Tool, diff};
use crate::live::LockedLiveSet;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fix {
    /// Adds lines to an ignore file.
    AddLines(PathBuf, Vec<String>),
    Hook,
    /// Finishes or undoes what killed commands left on this machine.
    Here,
    /// Removes what killed pulls left on the server.
    There,
}

impl Fix {
    /// Does it on this machine; returns what was done.
    ///
    /// # Errors
    ///
    /// A file cannot be written.
    pub fn apply(&self, cx: &Context, settings: &Settings) -> Result<String> {
        Ok(match self {
            Self::AddLines(file, lines) => {
                add_lines(file, lines)?;
                let file = file.strip_prefix(&settings.root).unwrap_or(file).display();
                format!("added to {file}: {}", lines.join(", "))
            }
            Self::Hook => {
                install_hook(cx, settings)?;
                "installed the pre-commit hook".to_owned()
            }
            Self::Here => {
                LockedLiveSet::lock(cx, settings, "cargo xtask doctor --fix")?;
                "finished or removed what killed commands left here".to_owned()
            }
            Self::There => bail!("the server is not connected"),
        })
    }
}

/// Adds lines after those that a file has; it need not exist.
fn add_lines(file: &Path, lines: &[String]) -> Result<()> {
    let mut content = fs::read(file)?.unwrap_or_default();
    if !content.is_empty() && !content.ends_with(b"\n") {
        content.push(b'\n');
    }
    lines.iter().for_each(|line| content.extend(format!("{line}\n").as_bytes()));
    fs::write_shared(file, &content, false)
}

fn install_hook(cx: &Context, settings: &Settings) -> Result<()> {
    let tree = Repository::of(&cx.sh, &settings.root)?;
    let tool = Tool::current(settings)?;
    Hook::find(&tree)?.install(&tree, &tool)?;
    diff::install(&tree, &tool, &settings.fixtures)?;
    Ok(())
}
