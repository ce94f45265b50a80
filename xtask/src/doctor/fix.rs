//! What `--fix` does: nothing that a pull or `install-hooks` would not do as well.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::config::Settings;
use crate::context::Context;
use crate::git::Repository;
use crate::hooks::{Hook, Tool, diff};
use crate::live::LockedLiveSet;
use crate::{exposure, fs};

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
                let content = fs::read(file)?.unwrap_or_default();
                fs::write_edited(file, &exposure::with_lines(content, lines))?;
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

fn install_hook(cx: &Context, settings: &Settings) -> Result<()> {
    let tree = Repository::of(&cx.sh, &settings.root)?;
    let tool = Tool::current(settings)?;
    Hook::find(&tree)?.install(&tree, &tool)?;
    diff::install(&tree, &tool, &settings.fixtures)?;
    Ok(())
}
