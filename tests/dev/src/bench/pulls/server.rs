//! The server and the link to it. Both are programs of `tests/`, since xtask itself has no server.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use xshell::{Cmd, Shell, cmd};
use xtask_db::internals::durable;

use super::source::remove;
use crate::install;

/// The properties of a link, in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Shape {
    pub rtt_ms: u32,
    pub mbit: u32,
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rtt_ms, mbit } = self;
        write!(f, "{rtt_ms} ms, ")?;
        if mbit % 1000 == 0 {
            write!(f, "{} Gbit/s", mbit / 1000)
        } else {
            write!(f, "{mbit} Mbit/s")
        }
    }
}

/// A program that answers each line with a line. It ends when its input closes, so also when this
/// process ends; Ctrl-C does not reach it.
pub struct Asked {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Asked {
    pub fn start(command: Cmd<'_>) -> Result<Self> {
        let name = command.to_string();
        let mut command = Command::from(command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().with_context(|| format!("cannot run `{name}`"))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("it has an output")?;
        Ok(Self { child, stdin, stdout: BufReader::new(stdout) })
    }

    /// Sends a line and returns the answer. A program that has ended has printed the reason.
    pub fn ask(&mut self, line: &str) -> Result<String> {
        let mut stdin = self.stdin.as_ref().context("it has an input")?;
        writeln!(stdin, "{line}")?;
        self.read()
    }

    /// Sets the shape of new connections of a relay, and resets the byte counts.
    ///
    /// # Errors
    ///
    /// The program has ended.
    pub fn shape(&mut self, Shape { rtt_ms, mbit }: Shape) -> Result<()> {
        self.ask(&format!("shape {rtt_ms} {mbit}"))?;
        Ok(())
    }

    /// The bytes up and down since the last [`Self::shape`].
    ///
    /// # Errors
    ///
    /// The program has ended.
    pub fn passed(&mut self) -> Result<[u64; 2]> {
        let answer = self.ask("passed")?;
        let (up, down) = answer.split_once(' ').context("two numbers")?;
        Ok([up.parse()?, down.parse()?])
    }

    /// The next line.
    pub fn read(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        if line.is_empty() {
            bail!("a program of the benchmark has ended");
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.stdin = None;
        let _ = self.child.wait();
    }
}

/// An sshd behind a link.
pub struct Server {
    relay: Asked,
    way: Way,
    pub config: PathBuf,
    /// The directory of an `ssh` that can connect.
    bin: PathBuf,
    /// The directory for temporary files of its sessions.
    pub tmp: PathBuf,
}

/// How to connect.
#[derive(Deserialize)]
struct Way {
    port: u16,
    sshd: u32,
    user: String,
    ssh_config: String,
}

impl Server {
    /// Starts a server without the program `without`; all its files are in the new directory `dir`.
    pub fn start(sh: &Shell, program: &Path, dir: &Path, without: Option<&str>) -> Result<Self> {
        remove(dir)?;
        let (tmp, bin, config) = (dir.join("tmp"), dir.join("bin"), dir.join("ssh_config"));
        for dir in [&tmp, &bin] {
            std::fs::create_dir_all(dir)?;
        }
        let without =
            without.map(|program| ["--without".into(), PathBuf::from(program), dir.into()]);
        let without = without.into_iter().flatten();
        let mut relay = Asked::start(cmd!(sh, "{program} --tmp {tmp} {without...}"))?;
        let way: Way = serde_json::from_str(&relay.read()?)?;
        // With the port, for what cannot be told one.
        durable::write(&config, format!("{}Port {}\n", way.ssh_config, way.port).as_bytes())?;
        let ssh = install::find(sh, "ssh").context("ssh is not installed")?;
        let [program, file] = [&ssh, &config].map(|path| quoted(path));
        let script = format!("#!/bin/sh\nexec {} -F {} \"$@\"\n", program?, file?);
        durable::write_shared(&bin.join("ssh"), script.as_bytes(), true)?;
        Ok(Self { relay, way, config, bin, tmp })
    }

    pub fn host(&self) -> String {
        format!("{}@127.0.0.1", self.way.user)
    }

    pub fn port(&self) -> u16 {
        self.way.port
    }

    /// The listening process.
    pub fn pid(&self) -> u32 {
        self.way.sshd
    }

    /// The search path with an `ssh` that can connect.
    pub fn search_path(&self, sh: &Shell) -> Result<std::ffi::OsString> {
        let path = sh.var_os("PATH").unwrap_or_default();
        Ok(std::env::join_paths(
            std::iter::once(self.bin.clone()).chain(std::env::split_paths(&path)),
        )?)
    }

    /// Sets the shape of new connections, and resets the byte counts.
    ///
    /// # Errors
    ///
    /// The server has ended.
    pub fn shape(&mut self, shape: Shape) -> Result<()> {
        self.relay.shape(shape)
    }

    /// The bytes up and down since the last [`Self::shape`].
    ///
    /// # Errors
    ///
    /// The server has ended.
    pub fn passed(&mut self) -> Result<[u64; 2]> {
        self.relay.passed()
    }
}

/// A path as a word for the server's shell.
pub fn quoted(path: &Path) -> Result<String> {
    let path = path.to_str().context("a path that is not UTF-8")?;
    Ok(shlex::try_quote(path)?.into_owned())
}
