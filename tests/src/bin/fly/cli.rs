//! The part of flyctl's command line that the stand-in understands.

use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(name = "fly", disable_version_flag = true)]
pub struct Fly {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    Version {
        #[arg(short, long)]
        json: bool,
    },
    Auth {
        #[command(subcommand)]
        command: Auth,
    },
    #[command(visible_aliases = ["machines", "m"])]
    Machine {
        #[command(subcommand)]
        command: MachineCommand,
    },
    Ssh {
        #[command(subcommand)]
        command: Ssh,
    },
}

#[derive(Subcommand)]
pub enum Auth {
    Whoami,
}

#[derive(Subcommand)]
pub enum MachineCommand {
    #[command(visible_alias = "ls")]
    List(MachineList),
    Start(MachineChange),
    Stop(MachineChange),
    Suspend(MachineChange),
}

#[derive(Args)]
pub struct MachineList {
    #[arg(short, long)]
    pub app: Option<String>,
    #[arg(short, long)]
    pub json: bool,
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Args)]
pub struct MachineChange {
    #[arg(required = true)]
    pub ids: Vec<String>,
    #[arg(short, long)]
    pub app: Option<String>,
}

#[derive(Subcommand)]
pub enum Ssh {
    Console(Console),
    Sftp {
        #[command(subcommand)]
        command: Sftp,
    },
}

#[derive(Args)]
pub struct Console {
    #[command(flatten)]
    pub target: Target,
    #[arg(short = 'C', long, default_value = "", allow_hyphen_values = true)]
    pub command: String,
    #[arg(short, long)]
    pub quiet: bool,
    #[arg(long)]
    pub pty: bool,
}

#[derive(Subcommand)]
pub enum Sftp {
    Get {
        #[command(flatten)]
        target: Target,
        remote: String,
        local: Option<String>,
    },
}

/// Selects one of the started machines.
#[derive(Args)]
pub struct Target {
    #[arg(short, long)]
    pub app: Option<String>,
    #[arg(long)]
    pub machine: Option<String>,
    #[arg(short, long)]
    pub region: Option<String>,
    #[arg(short = 'g', long)]
    pub process_group: Option<String>,
    #[arg(long)]
    pub container: Option<String>,
    #[arg(short, long, default_value = "root")]
    pub user: String,
    #[arg(short, long)]
    pub select: bool,
    #[arg(short = 'A', long)]
    pub address: Option<String>,
    /// Accepted and ignored: the stand-in's apps belong to no organization.
    #[arg(short, long)]
    pub org: Option<String>,
}
