//! The commands of `[hooks]`, which the user runs around a replacement of the current data.

use std::path::Path;

use anyhow::{Context as _, Result};
use xshell::Shell;

use crate::config::CommandLine;
use crate::error::Failure;
use crate::interrupt;
use crate::ui::Ui;

/// A command, and how it is called in `db.toml`.
pub struct UserCommand<'a> {
    pub key: &'static str,
    pub line: &'a CommandLine,
    /// The root of the repository, where it runs.
    pub root: &'a Path,
}

impl UserCommand<'_> {
    /// Runs it for these databases in `dir`, which came from `snapshot`. Names of databases go through
    /// the environment, and do not become part of a command.
    ///
    /// # Errors
    ///
    /// It cannot be started, or fails; `then` says what that means.
    pub fn run(
        &self,
        ui: &Ui,
        sh: &Shell,
        dir: &Path,
        snapshot: &Path,
        databases: &[String],
        then: &str,
    ) -> Result<()> {
        ui.status("Running", self.line);
        let _root = sh.push_dir(self.root);
        let line = self.line.with("{dir}", &dir.display().to_string());
        let command = line
            .command(sh)
            .env("XTASK_DIR", dir)
            .env("XTASK_SNAPSHOT", snapshot)
            .env("XTASK_DATABASES", databases.join("\n"));
        interrupt::run(command).with_context(|| {
            let what = if interrupt::is_asked() { "was interrupted" } else { "failed" };
            Failure::new(format!("the {} command {what}; {then}", self.key))
        })
    }
}
