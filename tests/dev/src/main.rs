//! `cargo dev`: tests, demo and benchmarks of this repository. Users of the tool never build it.

mod bench;
mod demo;
mod fuzz;
mod install;
mod record;
mod test;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use xshell::{Shell, cmd};
use xtask_db::internals::interrupt;
use xtask_db::internals::ui::Ui;

/// Test, show and measure this repository
#[derive(Parser)]
#[command(name = "cargo dev", bin_name = "cargo dev")]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// Answer yes to every question
    #[arg(short, long, global = true)]
    yes: bool,
    /// Print only warnings, errors and data
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Also print the time of each step
    #[arg(short, long, global = true)]
    verbose: bool,
    /// Print data as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    Test(test::Args),
    Demo(demo::Args),
    Bench(bench::Args),
    Fuzz(fuzz::Args),
    Record(record::Args),
}

/// The context of every command.
struct Context {
    ui: Ui,
    sh: Shell,
    root: PathBuf,
}

impl Context {
    /// Cargo's target directory.
    fn target_directory(&self) -> Result<PathBuf> {
        let metadata = cmd!(self.sh, "cargo metadata --quiet --no-deps --format-version 1");
        let metadata: serde_json::Value = serde_json::from_str(&metadata.quiet().read()?)?;
        let target = metadata["target_directory"].as_str();
        Ok(target.context("cargo names its target directory")?.into())
    }

    /// Builds the program of a package; returns its path. One package at a time: together they
    /// would get other features, and be compiled again.
    fn build(&self, package: &str, program: &str) -> Result<PathBuf> {
        let build = cmd!(
            self.sh,
            "cargo build --quiet --profile xtask --package {package} --bin {program}"
        );
        build.quiet().run()?;
        Ok(self.target_directory()?.join("xtask").join(program))
    }
}

fn main() -> ExitCode {
    let Cli { global, command } =
        Cli::try_parse().unwrap_or_else(|error| Ui::end_of_parsing(&error));
    xtask_db::internals::exit_code(run(&global, command))
}

fn run(global: &Global, command: Command) -> Result<()> {
    interrupt::watch()?;
    // The commands in messages are those of the product, not of this alias.
    xtask_db::internals::assume_usual();
    let ui = Ui::new(global.quiet, global.verbose, global.json, global.yes);
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("the repository")?;
    let cx = Context { ui, sh: Shell::new()?, root: root.to_owned() };
    cx.sh.change_dir(&cx.root);
    match command {
        Command::Test(args) => args.run(&cx),
        Command::Demo(args) => args.run(&cx),
        Command::Bench(args) => args.run(&cx),
        Command::Fuzz(args) => args.run(&cx),
        Command::Record(args) => args.run(&cx),
    }
}
