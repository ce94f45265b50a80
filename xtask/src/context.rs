//! The context of every command: global flags, output and a shell.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use xshell::Shell;

use crate::config::Settings;
use crate::ui::Ui;

/// Flags of all commands, to be flattened into a command line beside [`Command`].
#[derive(clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Answer yes to every question
    #[arg(short, long, global = true, hide_short_help = true)]
    pub(crate) yes: bool,
    /// Print only warnings, errors and data
    #[arg(short, long, global = true, hide_short_help = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Also print the output of the server and of `fly`
    #[arg(short, long, global = true, hide_short_help = true)]
    pub(crate) verbose: bool,
    /// Print data as JSON
    #[arg(long, global = true, hide_short_help = true)]
    pub(crate) json: bool,
    /// Fail at once instead of waiting for another command or a program's transaction
    #[arg(long, global = true, hide_short_help = true, conflicts_with = "wait")]
    pub(crate) no_wait: bool,
    /// Read this config file [default: xtask/db.toml]
    #[arg(long, global = true, hide_short_help = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Use this local data directory [default: `local-dir` in the config file]
    #[arg(long, global = true, hide_short_help = true, value_name = "DIR")]
    pub(crate) local_dir: Option<PathBuf>,
    /// Wait at most this long for a program's transaction on the current data
    #[arg(
        long,
        global = true,
        hide_short_help = true,
        value_name = "SECONDS",
        default_value_t = 10
    )]
    pub(crate) wait: u32,
}

impl GlobalArgs {
    pub(crate) fn wait(&self) -> Duration {
        let seconds = if self.no_wait { 0 } else { self.wait };
        Duration::from_secs(seconds.into())
    }
}

/// The output and the shell of a command.
pub struct Context {
    pub ui: Ui,
    pub sh: Shell,
    pub global: GlobalArgs,
}

impl Context {
    pub fn settings(&self) -> Result<Settings> {
        Settings::load(self.global.config.as_deref(), self.global.local_dir.as_deref())
    }

    /// What of malformed settings still says where the databases are.
    pub fn salvaged_settings(&self) -> Option<Settings> {
        Settings::salvage(self.global.config.as_deref(), self.global.local_dir.as_deref())
    }
}
