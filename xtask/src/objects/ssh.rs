//! The objects of a directory on another machine, which ssh reaches: `ssh://USER@HOST[:PORT]/PATH`.
//! One connection carries all commands, if the server allows it.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use xshell::{Cmd, Shell, cmd};

use super::access::Access;
use super::explain;
use super::kind::{Found, Objects};
use crate::error::Failure;
use crate::interrupt;
use crate::scratch::Scratch;
use crate::ui::quoted;

/// Runs there. The lines before the content are the directory, what to do, with which object, and its
/// size. No text here has a single quote.
const SCRIPT: &str = include_str!("store.sh");
/// Ends with its input, and so with this process.
const WAIT: &str = "exec cat >/dev/null";
const SOCKET: &str = "s";
const NONE: i32 = 44;
const TOO_LARGE: i32 = 45;
const EXISTS: i32 = 47;
/// That of ssh itself.
const NO_CONNECTION: i32 = 255;

pub struct Ssh {
    access: Access,
    host: String,
    port: Option<u16>,
    directory: String,
    here: PathBuf,
    /// The connection that all commands share, if the server allows it; it ends with its input.
    master: Child,
    /// Has its socket.
    sockets: Scratch,
}

/// How often it is looked whether the connection is there.
const LOOK: Duration = Duration::from_millis(10);

impl Ssh {
    /// # Errors
    ///
    /// The host cannot be reached, or there is no such directory; `writes` creates it.
    pub fn open(access: &Access, writes: bool) -> Result<Self> {
        let (_, host, path) = access.parts();
        let (host, port) = match host.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().context("the port of the URL")?)),
            None => (host, None),
        };
        let directory = if path.starts_with("~/") { path.to_owned() } else { format!("/{path}") };
        // A path of a socket has at most some hundred characters.
        let sockets = Scratch::new_in(Path::new("/tmp"))?;
        let here = Shell::new()?.current_dir();
        let (access, host) = (access.clone(), host.to_owned());
        let master = connect(&host, port, &sockets.path().join(SOCKET))?;
        let mut ssh = Self { access, host, port, directory, here, master, sockets };
        ssh.wait_for_connection()?;
        let (what, verb) = if writes { ("make", "write to") } else { ("open", "open") };
        let opened = ssh.run(what, "", 0, Vec::new(), verb)?;
        if opened.status.code() == Some(NONE) {
            let what = format!("{} is no directory of a store", ssh.access.shown());
            let hint =
                format!("check {}; cargo xtask snapshots publish creates it", ssh.access.named_by);
            return Err(Failure::new(what).hint(hint).into());
        }
        Ok(ssh)
    }

    fn wait_for_connection(&mut self) -> Result<()> {
        while !self.sockets.path().join(SOCKET).exists() {
            interrupt::sleep(LOOK)?;
            let Some(status) = self.master.try_wait()? else { continue };
            let mut stderr = Vec::new();
            if let Some(mut said) = self.master.stderr.take() {
                said.read_to_end(&mut stderr)?;
            }
            return Err(self.failed("open", "", status.code(), &stderr));
        }
        Ok(())
    }

    /// What the script prints; its exit code is 0 or one of those above.
    fn run(
        &self,
        what: &str,
        name: &str,
        size: u64,
        content: Vec<u8>,
        verb: &str,
    ) -> Result<Output> {
        let sh = Shell::new()?;
        let mut input = self.request(what, name, size);
        input.extend(content);
        let output = interrupt::output_of(self.command(&sh), input)?;
        match output.status.code() {
            Some(0 | NONE | TOO_LARGE | EXISTS) => Ok(output),
            code => Err(self.failed(verb, name, code, &output.stderr)),
        }
    }

    fn request(&self, what: &str, name: &str, size: u64) -> Vec<u8> {
        format!("{}\n{what}\n{name}\n{size}\n", self.directory).into_bytes()
    }

    fn command<'a>(&self, sh: &'a Shell) -> Cmd<'a> {
        sh.change_dir(&self.here);
        let options = options(self.port, &self.sockets.path().join(SOCKET));
        let (host, remote) = (&self.host, format!("exec sh -c '{SCRIPT}'"));
        cmd!(sh, "ssh -T -o BatchMode=yes {options...} -- {host} {remote}").quiet()
    }

    fn failed(&self, verb: &str, name: &str, code: Option<i32>, said: &[u8]) -> anyhow::Error {
        let said = String::from_utf8_lossy(said);
        let place = self.access.shown();
        let what = match name {
            "" => format!("cannot {verb} {place}"),
            name => format!("cannot {verb} {name} in {place}"),
        };
        if code != Some(NO_CONNECTION) {
            let hint = format!("check {}, and the rights of this directory", self.access.named_by);
            return Failure::new(format!("{what}{}", quoted(&said))).hint(hint).into();
        }
        let known = explain::offline(&what, &said);
        known
            .unwrap_or_else(|| {
                Failure::new(format!("{what}: ssh cannot connect{}", quoted(&said)))
                    .hint(format!("check that `ssh {}` works", self.host))
            })
            .into()
    }
}

impl Objects for Ssh {
    fn get(&self, path: &str, limit: u64) -> Result<Option<Found>> {
        let output = self.run("get", path, limit, Vec::new(), "read")?;
        match output.status.code() {
            Some(NONE) => Ok(None),
            Some(TOO_LARGE) => {
                let size = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(limit);
                Ok(Some(Found::TooLarge(size)))
            }
            _ => Ok(Some(Found::Content(output.stdout))),
        }
    }

    fn put(&self, path: &str, content: Vec<u8>) -> Result<()> {
        self.run("put", path, content.len() as u64, content, "write").map(|_| ())
    }

    fn create(&self, path: &str, content: Vec<u8>) -> Result<bool> {
        let output = self.run("create", path, content.len() as u64, content, "write")?;
        Ok(output.status.code() != Some(EXISTS))
    }

    fn list(&self, path: &str) -> Result<Vec<(String, u64, i64)>> {
        let output = self.run("list", path, 0, Vec::new(), "list")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let object = |line: &str| {
            let mut words = line.splitn(3, ' ');
            let (size, time) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            Some((words.next()?.trim_start_matches("./").to_owned(), size, time))
        };
        Ok(text.lines().filter_map(object).collect())
    }

    fn directories(&self, path: &str) -> Result<Vec<String>> {
        let objects = self.list(path)?;
        let below =
            objects.iter().filter_map(|(name, ..)| name.strip_prefix(path)?.strip_prefix('/'));
        let mut names: Vec<_> = below.filter_map(|name| Some(name.split_once('/')?.0)).collect();
        names.dedup();
        Ok(names.into_iter().map(str::to_owned).collect())
    }

    fn delete(&self, path: &str) -> Result<()> {
        self.run("delete", path, 0, Vec::new(), "delete").map(|_| ())
    }

    fn delete_last(&self, path: &str) {
        let Ok(sh) = Shell::new() else { return };
        let command = self.command(&sh).stdin(self.request("delete", path, 0));
        let _ = command.ignore_status().ignore_stdout().ignore_stderr().run();
    }
}

/// Starts the connection, which may ask on the terminal who is there.
fn connect(host: &str, port: Option<u16>, socket: &Path) -> Result<Child> {
    let sh = Shell::new()?;
    let options = options(port, socket);
    let command = cmd!(sh, "ssh -M -T {options...} -- {host} {WAIT}");
    let mut command = Command::from(command.quiet());
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().with_context(|| Failure::new("cannot run `ssh`").hint("install ssh"))
}

fn options(port: Option<u16>, socket: &Path) -> Vec<String> {
    let mut options = vec![
        format!("-oControlPath={}", socket.display()),
        // Without these, it would wait for a dead connection.
        "-oServerAliveInterval=15".to_owned(),
        "-oServerAliveCountMax=4".to_owned(),
    ];
    options.extend(port.map(|port| format!("-p{port}")));
    options
}

impl Drop for Ssh {
    fn drop(&mut self) {
        let _ = self.master.kill();
        let _ = self.master.wait();
    }
}
