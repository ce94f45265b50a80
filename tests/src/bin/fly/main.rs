//! The stand-in `fly`: behaves like flyctl towards its caller, and connects to the machines of its
//! world through a real `ssh` to an sshd on the loopback.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "saying what flyctl says is all that this program is for"
)]

mod cli;
mod console;
mod machines;
mod pump;
mod select;
mod sftp;
mod ssh;

use std::process::{ExitCode, exit};
use std::thread;

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tests::world::{WORLD_VARIABLE, World};

use crate::cli::{Auth, Command, Fly, MachineCommand, Ssh};

/// flyctl's code for an interrupt; every other failure is 1.
const INTERRUPTED: i32 = 127;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(error) = ssh::guard(&arguments) {
        eprintln!("Error: {error}");
        return ExitCode::FAILURE;
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    exit_on_interrupt()?;
    let path = std::env::var_os(WORLD_VARIABLE)
        .with_context(|| format!("the stand-in needs {WORLD_VARIABLE}"))?;
    let world = World::load(path.as_ref())?;
    world.record(arguments)?;
    let fly = match Fly::try_parse() {
        Ok(fly) => fly,
        Err(error) if error.exit_code() == 0 => error.exit(),
        Err(error) => bail!("{}", error.to_string().trim_start_matches("error: ").trim_end()),
    };
    if let Command::Version { json } = fly.command {
        version(&world.version, json);
        return Ok(());
    }
    if !world.logged_in {
        bail!("no access token available. Please login with 'flyctl auth login'");
    }
    if world.faults.offline {
        return offline(&fly.command);
    }
    match fly.command {
        Command::Version { .. } => Ok(()),
        Command::Auth { command: Auth::Whoami } => {
            println!("developer@example.com");
            Ok(())
        }
        Command::Machine { command: MachineCommand::List(list) } => machines::list(&world, &list),
        Command::Machine { command: MachineCommand::Start(change) } => {
            machines::change(path.as_ref(), &world, &change, "started")
        }
        Command::Machine { command: MachineCommand::Stop(change) } => {
            machines::change(path.as_ref(), &world, &change, "stopped")
        }
        Command::Machine { command: MachineCommand::Suspend(change) } => {
            machines::change(path.as_ref(), &world, &change, "suspended")
        }
        Command::Ssh { command: Ssh::Console(console) } => console::run(&world, &console),
        Command::Ssh { command: Ssh::Sftp { command } } => sftp::run(&world, &command),
    }
}

/// Go's message if the local resolver has no server.
fn offline(command: &Command) -> Result<()> {
    let (what, host, path) = match command {
        Command::Machine { .. } => {
            ("failed to list VMs: Get", "api.machines.dev", "/v1/apps/upflow/machines")
        }
        _ => ("get app: Post", "api.fly.io", "/graphql"),
    };
    bail!(
        "{what} \"https://{host}{path}\": dial tcp: lookup {host} on 127.0.0.53:53: \
         server misbehaving"
    )
}

fn version(version: &str, json: bool) {
    if json {
        let version = serde_json::json!({
            "Name": "fly",
            "Version": version,
            "Commit": "ad0172fac",
            "BranchName": "master",
            "Architecture": "amd64",
            "OS": "linux",
            "Environment": "production",
        });
        println!("{version}");
    } else {
        println!("fly v{version} linux/amd64 Commit: ad0172fac BuildDate: 2026-08-01T00:00:00Z");
    }
}

/// On Linux the guarded `ssh` ends with this process, and so does the session.
fn exit_on_interrupt() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            exit(INTERRUPTED);
        }
    });
    Ok(())
}
