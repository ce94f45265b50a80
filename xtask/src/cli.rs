//! The command line: global flags and the list of commands.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use xshell::Shell;

use crate::context::{Context, GlobalArgs};
use crate::error::Exit;
use crate::resources::ResourceUsage;
use crate::ui::Ui;
use crate::{commands, error, interrupt, invocation};

/// Pull production SQLite databases to this machine, and restore earlier ones
#[derive(Parser)]
#[command(name = "cargo xtask", version)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

/// The commands. Another program flattens this enum into its own.
#[derive(Subcommand)]
pub enum Command {
    #[doc(hidden)]
    Init(Box<commands::init::Args>),
    #[doc(hidden)]
    PullDb(Box<commands::pull_db::Args>),
    #[doc(hidden)]
    RestoreDb(commands::restore_db::Args),
    #[doc(hidden)]
    Snapshots(commands::snapshots::Args),
    #[doc(hidden)]
    SetupDb(commands::setup_db::Args),
    #[doc(hidden)]
    Doctor(Box<commands::doctor::Args>),
    #[doc(hidden)]
    RefreshFixtures(commands::refresh_fixtures::Args),
    #[doc(hidden)]
    InstallHooks(commands::install_hooks::Args),
    // Run only by git, as `install-hooks` configures it.
    #[command(hide = true)]
    #[doc(hidden)]
    Textconv(commands::textconv::Args),
}

impl Command {
    /// Runs the command, prints its result or error, and returns the exit code: 0 success,
    /// 1 failure, 2 usage, 130 declined or interrupted.
    #[must_use]
    pub fn run(self, global: GlobalArgs) -> ExitCode {
        allow_many_files();
        invocation::remember(global.config.as_deref(), global.local_dir.as_deref());
        exit_code(self.run_with(global))
    }

    fn run_with(self, global: GlobalArgs) -> Result<()> {
        let started = Instant::now();
        interrupt::watch()?;
        let ui = Ui::new(global.quiet, global.verbose, global.json, global.yes);
        let cx = Context { ui, sh: Shell::new()?, global };
        match self {
            Self::Init(args) => args.run(&cx),
            Self::PullDb(args) => args.run(&cx),
            Self::RestoreDb(args) => args.run(&cx),
            Self::Snapshots(args) => args.run(&cx),
            Self::SetupDb(args) => args.run(&cx),
            Self::Doctor(args) => args.run(&cx),
            Self::RefreshFixtures(args) => args.run(&cx),
            Self::InstallHooks(args) => args.run(&cx),
            Self::Textconv(args) => args.run(&cx),
        }?;
        cx.ui.verbose(ResourceUsage::since(started));
        if interrupt::is_asked() {
            cx.ui.warn("interrupted, but the command had already finished");
        }
        Ok(())
    }
}

/// Saving a live set opens all its databases at once; macOS allows 256 open files unless a
/// process asks for more.
fn allow_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(u64::MAX).min(10_240);
    // `None` means unlimited.
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    limit.current = Some(wanted);
    // If the limit cannot be raised, opening a file reports the error.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Runs the command that the command line names.
#[must_use]
pub fn main() -> ExitCode {
    let command = Cli::command().name(invocation::command()).bin_name(invocation::command());
    let parsed = command.try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let Cli { global, command } = parsed.unwrap_or_else(|error| Ui::end_of_parsing(&error));
    command.run(global)
}

/// Prints the error, if any, and returns the exit code.
pub fn exit_code(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) if interrupt::is_asked() => Exit::Declined.into(),
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error = interrupt::into_user_error(error);
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
