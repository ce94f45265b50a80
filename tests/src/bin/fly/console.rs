//! `fly ssh console`.

use std::fs::File;
use std::io::{Read as _, Write as _, stderr, stdout};
use std::path::PathBuf;
use std::process::{ChildStderr, Stdio, exit};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tests::world::World;

use crate::INTERRUPTED;
use crate::cli::Console;
use crate::pump::{Ending, pump};
use crate::select;
use crate::ssh::{Outcome, Session};

/// Only these commands, spelled exactly like this, get a PTY without a flag.
const SHELLS: [&str; 4] = ["sh", "/bin/sh", "bash", "/bin/bash"];

pub fn run(world: &World, console: &Console) -> Result<()> {
    let destination = select::destination(world, &console.target)?;
    let command = remote_command(&console.command)?;
    sleep(Duration::from_millis(world.connect_millis));
    let session = Session::new(world, &destination)?;
    if !console.quiet {
        eprintln!("Connecting to {}... complete", destination.address);
    }
    let bare = console.command.is_empty() || SHELLS.contains(&console.command.as_str());
    let mut ssh = if bare || console.pty {
        // Twice, to allocate a PTY even if stdin is not a terminal. The remote's whole output comes
        // through it; stderr has only ssh's own messages.
        let mut ssh = session.ssh("-tt");
        ssh.stderr(Stdio::null());
        ssh
    } else {
        let mut ssh = session.ssh("-T");
        ssh.stderr(Stdio::piped());
        ssh
    };
    if !command.is_empty() {
        ssh.arg(command);
    }
    let mut child = ssh.stdout(Stdio::piped()).spawn().context("start ssh")?;
    let listener = child.stderr.take().map(|said| listen(said, world.said()));
    let mut output = child.stdout.take().context("stdout is piped")?;
    match pump(&mut output, &mut stdout(), &world.faults)? {
        Ending::Whole => {}
        // Nothing is transferred any more, in either direction, and no error is reported.
        Ending::Stall => {
            kill_process(Pid::from_child(&child), Signal::STOP)?;
            loop {
                std::thread::park();
            }
        }
        Ending::Cut | Ending::Kill => {
            child.kill()?;
            child.wait()?;
            return Ok(());
        }
    }
    let status = child.wait()?;
    if let Some(listener) = listener {
        drop(listener.join());
    }
    match session.outcome(status) {
        // For flyctl, a broken connection is a success.
        Outcome::Exited(0) | Outcome::Broken => Ok(()),
        Outcome::Exited(code) => bail!("ssh shell: Process exited with status {code}"),
        // A terminal interrupts ssh too, whose end may arrive before our signal.
        Outcome::Interrupted => exit(INTERRUPTED),
        // OpenSSH's client does not report which signal it was.
        Outcome::Signalled => {
            bail!("ssh shell: Process exited with status 137 from signal KILL")
        }
        Outcome::Refused(reason) => bail!("error connecting to SSH server: {reason}"),
    }
}

/// Forwards the remote's standard error, and records it for the test.
fn listen(mut said: ChildStderr, record: PathBuf) -> JoinHandle<()> {
    spawn(move || {
        let mut record = File::options().create(true).append(true).open(record).ok();
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = said.read(&mut buffer) {
            // The reader may be gone.
            let _ = stderr().write_all(&buffer[..n]);
            let _ = record.as_mut().map(|record| record.write_all(&buffer[..n]));
        }
    })
}

/// No shell interprets the command: it is split into words here, like by the machine's SSH server,
/// and quoted for the login shell that sshd runs.
fn remote_command(command: &str) -> Result<String> {
    let words = shlex::split(command)
        .with_context(|| format!("ssh shell: invalid command line string: {command}"))?;
    let quoted: Vec<String> = words.iter().map(|word| quote(word)).collect();
    Ok(quoted.join(" "))
}

fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
