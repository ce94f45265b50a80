//! The command line: global flags and the list of commands.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use xshell::Shell;

use crate::context::{Context, GlobalArgs};
use crate::error::Exit;
use crate::resources::ResourceUsage;
use crate::ui::Ui;
use crate::{commands, completion, error, interrupt, invocation};

/// The last line of each `-h`, which leaves them out.
const GLOBAL: &str =
    "Global options: -y -q -v --json --no-wait --wait --config --local-dir (see --help)";

const FIRST_STEPS: &str = "First steps:
  cargo xtask init             write xtask/db.toml
  cargo xtask pull-db          bring the databases here
  cargo xtask restore-db       restore what you had before";
const INIT: &str = "Examples:
  cargo xtask init
  cargo xtask init --via ssh:deploy@example.com --remote-dir /srv/app/data --yes
  cargo xtask --local-dir storage init --dry-run";
const PULL_DB: &str = "Examples:
  cargo xtask pull-db
  cargo xtask pull-db --only 'tenant_*' --dry-run
  cargo xtask pull-db --via ssh:deploy@example.com --remote-dir /srv/app/data";
const RESTORE_DB: &str = "Examples:
  cargo xtask restore-db
  cargo xtask restore-db --undo
  cargo xtask restore-db --latest --only data.db";
const SNAPSHOTS: &str = "Examples:
  cargo xtask snapshots
  cargo xtask snapshots create
  cargo xtask snapshots prune --keep 3";
const SETUP_DB: &str = "Examples:
  cargo xtask setup-db
  cargo xtask setup-db -- --seed demo";
const DOCTOR: &str = "Examples:
  cargo xtask doctor
  cargo xtask doctor --fix";
const REFRESH_FIXTURES: &str = "Examples:
  cargo xtask refresh-fixtures
  cargo xtask refresh-fixtures --check
  cargo xtask refresh-fixtures --suggest";
const INSTALL_HOOKS: &str = "Examples:
  cargo xtask install-hooks
  cargo xtask install-hooks --uninstall";
const COMPLETIONS: &str = "Examples:
  cargo xtask completions bash
  cargo xtask completions fish";
/// Of the commands below `snapshots`.
const NESTED: [(&str, &str); 6] = [
    ("list", "Examples:\n  cargo xtask snapshots list\n  cargo xtask snapshots list --json"),
    ("create", "Examples:\n  cargo xtask snapshots create\n  cargo xtask snapshots create --json"),
    ("rm", "Examples:\n  cargo xtask snapshots rm 365Z\n  cargo xtask snapshots rm 365Z --yes"),
    ("prune", "Examples:\n  cargo xtask snapshots prune\n  cargo xtask snapshots prune --keep 3"),
    ("publish", "Examples:\n  cargo xtask snapshots publish\n  cargo xtask snapshots publish 365Z"),
    (
        "diff",
        "Examples:\n  cargo xtask snapshots diff\n  cargo xtask snapshots diff current 365Z --table users",
    ),
];

/// Pull production SQLite databases to this machine, and restore earlier ones
#[derive(Parser)]
#[command(name = "cargo xtask", version, after_help = FIRST_STEPS)]
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
    #[command(after_long_help = INIT)]
    Init(Box<commands::init::Args>),
    #[doc(hidden)]
    #[command(after_long_help = PULL_DB)]
    PullDb(Box<commands::pull_db::Args>),
    #[doc(hidden)]
    #[command(after_long_help = RESTORE_DB)]
    RestoreDb(commands::restore_db::Args),
    #[doc(hidden)]
    #[command(after_long_help = SNAPSHOTS)]
    Snapshots(commands::snapshots::Args),
    #[doc(hidden)]
    #[command(after_long_help = SETUP_DB)]
    SetupDb(commands::setup_db::Args),
    #[doc(hidden)]
    #[command(after_long_help = DOCTOR)]
    Doctor(Box<commands::doctor::Args>),
    #[doc(hidden)]
    #[command(after_long_help = REFRESH_FIXTURES)]
    RefreshFixtures(commands::refresh_fixtures::Args),
    #[doc(hidden)]
    #[command(after_long_help = INSTALL_HOOKS)]
    InstallHooks(commands::install_hooks::Args),
    #[doc(hidden)]
    #[command(after_long_help = COMPLETIONS)]
    Completions(commands::completions::Args),
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
            Self::Completions(args) => args.run(&cx),
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
    if completion::answer(Cli::command) {
        return ExitCode::SUCCESS;
    }
    let command = Cli::command().name(invocation::command()).bin_name(invocation::command());
    let mut command = with_examples(command);
    let matches = command.try_get_matches_from_mut(std::env::args_os());
    let parsed = matches.and_then(|matches| Cli::from_arg_matches(&matches));
    let Cli { global, command } =
        parsed.unwrap_or_else(|error| Ui::end_of_parsing(&improved(error, command)));
    command.run(global)
}

/// The command with its examples as this user types them, and the line on what `-h` leaves out.
fn with_examples(command: clap::Command) -> clap::Command {
    let command = command.mut_subcommands(with_examples);
    let nested = NESTED.iter().find(|(name, _)| *name == command.get_name());
    let adapted =
        |text: &clap::builder::StyledStr| invocation::adapt(&text.to_string()).into_owned();
    let both = command.get_after_help().map(adapted);
    let long = command.get_after_long_help().map(adapted).or_else(|| both.clone());
    let long = long.or_else(|| nested.map(|(_, text)| invocation::adapt(text).into_owned()));
    let short = both.map_or_else(|| GLOBAL.to_owned(), |text| format!("{text}\n\n{GLOBAL}"));
    match long {
        Some(long) => command.after_help(short).after_long_help(long),
        None => command.after_help(short),
    }
}

/// The error with the flag that is nearest to a misspelt one, and without hidden commands.
fn improved(mut error: clap::Error, mut command: clap::Command) -> clap::Error {
    command.build();
    if error.kind() == ErrorKind::MissingSubcommand {
        let shown = command.get_subcommands().filter(|one| !one.is_hide_set());
        let names = shown.map(|one| one.get_name().to_owned()).collect();
        error.insert(ContextKind::ValidSubcommand, ContextValue::Strings(names));
    }
    let unknown = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(arg)) if error.kind() == ErrorKind::UnknownArgument => {
            arg.clone()
        }
        _ => return error,
    };
    for word in std::env::args().skip(1) {
        if let Some(named) = command.find_subcommand(&word) {
            command = named.clone();
        }
    }
    // clap counts only letters in their place: `--wait` is nearer to `--vai` than `--via` is.
    let distance = |flag: &String| strsim::damerau_levenshtein(&unknown, flag);
    let flags = command.get_arguments().filter_map(clap::Arg::get_long);
    let nearest = flags.map(|flag| format!("--{flag}")).min_by_key(distance);
    if let Some(flag) = nearest.filter(|flag| unknown.len() > 3 && distance(flag) < 3) {
        let usage = ContextValue::StyledStr(command.render_usage());
        error.insert(ContextKind::SuggestedArg, ContextValue::String(flag));
        error.insert(ContextKind::Usage, usage);
    }
    error
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
mod page;

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }

    /// The examples are commands that exist, and the last line of `-h` leaves no flag out.
    #[test]
    fn what_the_help_says_is_true() {
        let command = super::with_examples(super::Cli::command());
        let nested = command.find_subcommand("snapshots").unwrap().get_subcommands();
        let all = command.get_subcommands().chain(nested).chain([&command]);
        let texts = all.filter_map(|one| Some(one.get_after_long_help()?.to_string()));
        let mut count = 0;
        for line in texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()) {
            let Some(words) = line.strip_prefix("  cargo xtask") else { continue };
            let words = words.split("   ").next().unwrap();
            let words = shlex::split(&format!("xtask {words}")).unwrap();
            let parsed = super::Cli::command().try_get_matches_from(words);
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
            count += 1;
        }
        assert!(count > 30, "{count}");
        let flags = command.get_arguments().filter(|arg| arg.is_global_set());
        let mut flags = flags.map(|arg| match arg.get_short() {
            Some(short) => format!(" -{short} "),
            None => format!(" --{} ", arg.get_long().unwrap()),
        });
        assert!(flags.all(|flag| super::GLOBAL.contains(&flag)));
    }
}
