//! Copies production SQLite databases to a laptop and restores earlier copies.
//!
//! As a program of its own, which `.cargo/config.toml` aliases to `cargo xtask`:
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     xtask_db::main()
//! }
//! ```
//!
//! As commands of another program:
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use clap::{CommandFactory as _, Parser};
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
//!     // What a shell asks at TAB.
//!     if xtask_db::answer_completion(Cli::command) {
//!         return ExitCode::SUCCESS;
//!     }
//!     let Cli { global, command } = Cli::parse();
//!     match command {
//!         Command::Dist => ExitCode::SUCCESS,
//!         Command::Db(command) => command.run(global),
//!     }
//! }
//! ```
//!
//! The settings are `db.toml` beside the `Cargo.toml` of that program.

mod cli;
mod commands;
mod completion;
mod config;
mod context;
mod diff;
mod dockerignore;
mod doctor;
mod each;
mod error;
mod exposure;
mod fixtures;
mod fs;
mod git;
mod hooks;
mod init;
#[doc(hidden)]
pub mod internals;
mod interrupt;
mod invocation;
mod litestream;
mod live;
mod moment;
mod objects;
mod open_files;
mod pages;
mod pull;
mod resources;
mod sanitize;
mod scratch;
mod server;
mod share;
mod snapshots;
mod sql;
mod sqlite;
#[cfg(test)]
mod tests;
mod ui;
mod user_command;

pub use crate::cli::{Command, main};
pub use crate::completion::answer as answer_completion;
pub use crate::context::GlobalArgs;
