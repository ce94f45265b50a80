//! One connection to a machine, by the real `ssh` and `sftp`.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus};

use anyhow::{Context as _, Result};
use signal_hook::consts::SIGINT;
use tempfile::NamedTempFile;
use tests::process::command;
use tests::server::QUIET_OPTIONS;
use tests::world::World;

use crate::select::Destination;

/// The first argument if this program was started by itself, only to become `ssh`.
const GUARD: &str = "__standin-guard";

pub struct Session {
    options: Vec<String>,
    port: u16,
    /// The log of `ssh`, apart from stderr, which is the remote's.
    log: NamedTempFile,
}

pub enum Outcome {
    Exited(i32),
    Signalled,
    Interrupted,
    /// The connection ended before the command did.
    Broken,
    Refused(String),
}

impl Session {
    pub fn new(world: &World, destination: &Destination) -> Result<Session> {
        let port = destination.port;
        // Tested here, because ssh exits with 255 for this and for many other errors.
        TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .context("error connecting to SSH server: dial")?;
        let key = world.ssh_key.display().to_string();
        let user = format!("User={}", destination.user);
        // A killed stand-in leaves this file: the name says whose it is.
        let log = tempfile::Builder::new().prefix("standin-fly-").tempfile()?;
        let options = ["-F", "/dev/null", "-i", &key, "-o", &user]
            .into_iter()
            .chain(QUIET_OPTIONS.into_iter().flat_map(|option| ["-o", option]))
            .map(str::to_owned);
        Ok(Session { options: options.collect(), port, log })
    }

    pub fn ssh(&self, terminal: &str) -> Command {
        let mut ssh = guarded("ssh");
        // The first value of an option wins, so the log level comes first.
        ssh.args(["-o", "LogLevel=DEBUG1", "-E"]).arg(self.log.path());
        ssh.args(&self.options).arg(terminal);
        ssh.args(["-p", &self.port.to_string(), "127.0.0.1"]);
        ssh
    }

    pub fn sftp(&self) -> Command {
        let mut sftp = guarded("sftp");
        sftp.arg("-q").args(&self.options);
        sftp.args(["-b", "-", "-P", &self.port.to_string(), "127.0.0.1"]);
        sftp
    }

    /// Only the log distinguishes the remote's status 255 from ssh's own.
    pub fn outcome(&self, status: ExitStatus) -> Outcome {
        let log = fs::read_to_string(self.log.path()).unwrap_or_default();
        if log.contains("rtype exit-status") {
            return Outcome::Exited(status.code().unwrap_or(255));
        }
        if log.contains("rtype exit-signal") {
            return Outcome::Signalled;
        }
        if status.signal() == Some(SIGINT) || log.contains("Killed by signal 2") {
            return Outcome::Interrupted;
        }
        if !log.contains("Authenticated to") {
            let reason = log.lines().last().unwrap_or("no reason given");
            return Outcome::Refused(reason.to_owned());
        }
        Outcome::Broken
    }
}

fn guarded(program: &str) -> Command {
    let me = std::env::current_exe().unwrap_or_else(|_| "fly".into());
    let mut guarded = command(me);
    guarded.args([GUARD, program]);
    guarded
}

/// Turns this process into the program after the guard's mark; returns only on failure. The real
/// `fly` *is* the connection: when it is killed, the session ends. Here the kernel kills `ssh` with
/// its parent.
pub fn guard(arguments: &[String]) -> Option<anyhow::Error> {
    let [mark, program, rest @ ..] = arguments else { return None };
    if mark != GUARD {
        return None;
    }
    #[cfg(target_os = "linux")]
    if let Err(error) =
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
    {
        return Some(error.into());
    }
    Some(command(program).args(rest).exec().into())
}
