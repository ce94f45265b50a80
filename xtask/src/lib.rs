//! `cargo xtask`: brings production SQLite databases to a laptop and back.
//!
//! See `ARCHITECTURE.md` for the way of the data and the rooms.

mod audit;
mod cli;
mod commands;
mod delta;
mod dump;
mod durable;
mod error;
mod fixtures;
mod git;
mod holders;
mod hooks;
#[doc(hidden)]
pub mod internals;
mod interrupt;
mod live;
mod pages;
mod programs;
mod receive;
mod resources;
mod sanitize;
mod server;
mod settings;
mod snapshots;
mod sqlite;
mod stream;
mod transport;
mod ui;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Parser as _;
use xshell::Shell;

use crate::cli::{Cli, Command, Global, exit_code};
use crate::resources::ResourceUsage;
use crate::settings::Settings;
use crate::ui::Ui;

/// What every command works with.
struct Context {
    ui: Ui,
    sh: Shell,
    global: Global,
}

impl Context {
    fn settings(&self) -> Result<Settings> {
        Settings::load(self.global.config.as_deref(), self.global.local_dir.as_deref())
    }
}

/// Saving a live set of hundreds of databases opens all of them at once; macOS
/// allows 256 files unless asked.
fn allow_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(u64::MAX).min(10_240);
    // None means that there is no limit.
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    limit.current = Some(wanted);
    // Where it may not be raised, opening says so.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Runs the command that the command line names.
pub fn main() -> ExitCode {
    allow_many_files();
    let parsed = Cli::try_parse().unwrap_or_else(|error| Ui::end_of_parsing(&error));
    let Cli { global, command } = parsed;
    exit_code(run(global, command))
}

fn run(global: Global, command: Command) -> Result<()> {
    let started = Instant::now();
    interrupt::watch()?;
    let ui = Ui::new(global.quiet, global.verbose, global.json, global.yes);
    let cx = Context { ui, sh: Shell::new()?, global };
    let outcome = match command {
        Command::PullDb(args) => args.run(&cx),
        Command::RestoreDb(args) => args.run(&cx),
        Command::Snapshots(args) => args.run(&cx),
        Command::SetupDb(args) => args.run(&cx),
        Command::RefreshFixtures(args) => args.run(&cx),
        Command::InstallHooks(args) => args.run(&cx),
        Command::Textconv(args) => args.run(&cx),
    };
    if outcome.is_ok() {
        cx.ui.verbose(ResourceUsage::since(started));
        if interrupt::is_asked() {
            cx.ui.warn("interrupted, when all was done already");
        }
    }
    outcome
}
