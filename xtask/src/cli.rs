//! The command line: global flags and the list of commands.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::error::Exit;
use crate::ui::Ui;
use crate::{commands, error, interrupt};

/// Bring production SQLite databases to this machine, and back
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Answer yes to every question
    #[arg(short, long, global = true)]
    pub yes: bool,
    /// Print only warnings, errors and data
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Also print what the server and `fly` say
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// Print data as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Fail at once where another command, or a program's transaction, would be waited for
    #[arg(long, global = true, conflicts_with = "wait")]
    pub no_wait: bool,
    /// The settings [default: xtask/db.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The local data directory [default: `local-dir` in the settings]
    #[arg(long, global = true, value_name = "DIR")]
    pub local_dir: Option<PathBuf>,
    /// How long to wait for a transaction of a program that has the live set open, in seconds
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 10)]
    pub wait: u32,
}

impl Global {
    pub fn wait(&self) -> Duration {
        let seconds = if self.no_wait { 0 } else { self.wait };
        Duration::from_secs(seconds.into())
    }
}

#[derive(Subcommand)]
pub enum Command {
    PullDb(commands::pull_db::Args),
    RestoreDb(commands::restore_db::Args),
    Snapshots(commands::snapshots::Args),
    SetupDb(commands::setup_db::Args),
    RefreshFixtures(commands::refresh_fixtures::Args),
    InstallHooks(commands::install_hooks::Args),
    // For git alone, which `install-hooks` tells to run it.
    #[command(hide = true)]
    Textconv(commands::textconv::Args),
}

/// Says what went wrong.
pub fn exit_code(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) if interrupt::is_asked() => Exit::Declined.into(),
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error = interrupt::told(error);
            Ui::error(&error);
            if interrupt::is_asked() { Exit::Declined } else { error::exit(&error) }.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
