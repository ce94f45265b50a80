//! Brings production SQLite databases to a laptop, and back.
//!
//! As a program of its own, which `.cargo/config.toml` calls `cargo xtask`:
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     xtask_db::main()
//! }
//! ```
//!
//! Beside the commands of another program:
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use clap::Parser;
//!
//! #[derive(Parser)]
//! struct Cli {
//!     #[command(flatten)]
//!     global: xtask_db::GlobalArgs,
//!     #[command(subcommand)]
//!     command: Command,
//! }
//!
//! #[derive(clap::Subcommand)]
//! enum Command {
//!     /// Build what is shipped
//!     Dist,
//!     #[command(flatten)]
//!     Db(xtask_db::Command),
//! }
//!
//! fn main() -> ExitCode {
//!     let Cli { global, command } = Cli::parse();
//!     match command {
//!         Command::Dist => ExitCode::SUCCESS,
//!         Command::Db(command) => command.run(global),
//!     }
//! }
//! ```
//!
//! The settings are `db.toml` beside the `Cargo.toml` of that program.

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
mod invocation;
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

use anyhow::Result;
use xshell::Shell;

pub use crate::cli::{Command, GlobalArgs, main};
use crate::settings::Settings;
use crate::ui::Ui;

/// What every command works with.
struct Context {
    ui: Ui,
    sh: Shell,
    global: GlobalArgs,
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
