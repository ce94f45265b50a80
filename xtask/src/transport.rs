//! How a command runs on the server. The only place that starts `fly`, `ssh`
//! or `docker`.

mod fly;

use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};

pub use self::fly::{Target, diagnose};
use crate::error::Failure;
use crate::ui::{Ui, escape};

/// What is run on the server: it takes the script, gzipped, from its input,
/// behind a line with its length, and leaves the rest of the input to it. It
/// is one fixed text for all, in which nothing is ever pasted.
const BOOTSTRAP: &str =
    r#"read -r n && XTASK_REQUEST=1 && eval "$(dd bs=1 count="$n" 2>/dev/null | gzip -dc)""#;
/// How much of its standard error is kept to explain a failure, in bytes.
const STDERR_TAIL: usize = 8 << 10;

/// How long the server may take to remove its copies.
const CLOSE: Duration = Duration::from_secs(5);
/// How long the last of its standard error may take.
const LAST_WORDS: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(5);

/// Where the databases are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    Fly,
    Ssh { host: String, port: Option<u16> },
    Docker(String),
    Local(PathBuf),
}

impl FromStr for Via {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        match kind {
            "fly" if rest.is_empty() => Ok(Self::Fly),
            "ssh" => {
                let (host, port) = match rest.rsplit_once(':') {
                    Some((host, port)) => {
                        (host, Some(port.parse().map_err(|_| format!("{port:?} is no port"))?))
                    }
                    None => (rest, None),
                };
                checked(host, "._-@").map(|host| Self::Ssh { host, port })
            }
            "docker" => checked(rest, "._-").map(Self::Docker),
            "local" if !rest.is_empty() => Ok(Self::Local(rest.into())),
            _ => Err("it is fly, ssh:USER@HOST[:PORT], docker:CONTAINER or local:DIR".to_owned()),
        }
    }
}

/// A name for a command line: it cannot be taken for a flag, and has nothing
/// that anything on the way might interpret.
///
/// # Errors
///
/// It is none.
pub fn checked(name: &str, extra: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || extra.contains(c);
    if name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(allowed)
        && name.len() <= 255
    {
        Ok(name.to_owned())
    } else {
        Err(format!("only letters, digits and {extra:?} are allowed, and one of the former first"))
    }
}

pub struct Transport<'a> {
    sh: &'a Shell,
    via: Via,
    pub target: Target,
}

impl<'a> Transport<'a> {
    pub fn new(sh: &'a Shell, via: Via, target: Target) -> Self {
        Self { sh, via, target }
    }

    /// Whom we talk to, for a message.
    pub fn peer(&self) -> String {
        match &self.via {
            Via::Fly => format!("{} on Fly.io", self.target.app),
            Via::Ssh { host, .. } => host.clone(),
            Via::Docker(container) => format!("container {container}"),
            Via::Local(dir) => dir.display().to_string(),
        }
    }

    /// Whether the program may ask for a passphrase or about a host's key.
    pub fn may_ask(&self) -> bool {
        matches!(self.via, Via::Ssh { .. })
    }

    pub fn is_fly(&self) -> bool {
        self.via == Via::Fly
    }

    /// Starts the server's side, which waits for a script.
    ///
    /// # Errors
    ///
    /// The program that connects is missing.
    pub fn start(&self, ui: &Ui) -> Result<Connection> {
        let sh = self.sh;
        let remote = format!("sh -c '{BOOTSTRAP}'");
        let command = match &self.via {
            Via::Fly => {
                let (fly, flags) = (fly::program(sh)?, self.target.flags());
                cmd!(sh, "{fly} ssh console {flags...} --command {remote}")
            }
            Via::Ssh { host, port } => {
                let port = port.iter().flat_map(|port| ["-p".to_owned(), port.to_string()]);
                // A connection that has died without a word must not be waited for.
                let alive = ["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"];
                cmd!(sh, "ssh -T {alive...} {port...} -- {host} {remote}")
            }
            Via::Docker(container) => {
                cmd!(sh, "docker exec --interactive {container} sh -c {BOOTSTRAP}")
            }
            Via::Local(_) => cmd!(sh, "sh -c {BOOTSTRAP}"),
        };
        ui.verbose(format!("$ {command}"));
        Connection::start(command.into(), ui)
    }

    /// Starts a machine, where there are machines and none is started.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn start_machine(&self, ui: &Ui) -> Result<()> {
        if self.is_fly() { fly::start_machine(ui, self.sh, &self.target) } else { Ok(()) }
    }

    /// Fetches a file through `fly ssh sftp get`.
    ///
    /// # Errors
    ///
    /// It did not arrive; nothing is left at `local`.
    pub fn sftp_get(&self, ui: &Ui, remote: &str, local: &Path) -> Result<()> {
        let sh = self.sh;
        let (fly, flags) = (fly::program(sh)?, self.target.flags());
        let command = cmd!(sh, "{fly} ssh sftp get {flags...} {remote} {local}");
        ui.verbose(format!("$ {command}"));
        let output = command.quiet().ignore_status().output()?;
        if output.status.success() && local.exists() {
            return Ok(());
        }
        crate::durable::remove(local)?;
        Err(diagnose(&self.target.app, &String::from_utf8_lossy(&output.stderr)).into())
    }
}

/// A program that talks to the server. Dropped, it gets the time that the server
/// takes to remove its copies; then it is killed and reaped.
pub struct Connection {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    /// The end of what it says, which a thread listens to.
    said: Arc<Mutex<Vec<u8>>>,
    listener: Option<JoinHandle<()>>,
}

impl Connection {
    fn start(mut command: Command, ui: &Ui) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| {
                Failure::new(format!("cannot run `{program}`"))
                    .hint(format!("is {program} installed?"))
            })?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let said = Arc::new(Mutex::new(Vec::new()));
        let listener = child.stderr.take().map(|stderr| {
            let (echo, said) = (ui.echo(), said.clone());
            std::thread::spawn(move || listen(stderr, &said, |line| echo.line(line)))
        });
        Ok(Self { child, stdin, stdout, said, listener })
    }

    /// Sends the script and the request. The input stays open: its end tells
    /// the server that nobody waits any more. An error is not one yet: a server
    /// that does not listen says why on its output.
    pub fn send(&mut self, message: &[u8]) {
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(message).and_then(|()| stdin.flush());
        }
    }

    /// # Panics
    ///
    /// The second time.
    pub fn take_output(&mut self) -> ChildStdout {
        self.stdout.take().expect("the output is taken once")
    }

    /// Ends a connection that has broken; returns what the program last said.
    pub fn last_words(mut self) -> String {
        self.end();
        // A program that it left behind may hold the other end for hours.
        let deadline = Instant::now() + LAST_WORDS;
        let open = |listener: &JoinHandle<()>| !listener.is_finished();
        while self.listener.as_ref().is_some_and(open) && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
        let said = self.said.lock().map(|said| String::from_utf8_lossy(&said).into_owned());
        said.unwrap_or_default()
    }

    /// The end of its input lets the server remove its copies; a program that
    /// does not end then is killed. Once it has ended this does nothing.
    fn end(&mut self) {
        self.stdin = None;
        self.stdout = None;
        let deadline = Instant::now() + CLOSE;
        while self.child.try_wait().is_ok_and(|status| status.is_none()) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.end();
    }
}

/// Reads to the end, line by line, and keeps the last of it in `said`.
fn listen(mut input: impl Read, said: &Mutex<Vec<u8>>, mut on_line: impl FnMut(&str)) {
    let mut open = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = input.read(&mut buffer) {
        if let Ok(mut said) = said.lock() {
            said.extend_from_slice(&buffer[..n]);
            let surplus = said.len().saturating_sub(STDERR_TAIL);
            said.drain(..surplus);
        }
        open.extend_from_slice(&buffer[..n]);
        while let Some(end) = open.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = open.drain(..=end).collect();
            on_line(String::from_utf8_lossy(&line).trim_end());
        }
        open.truncate(STDERR_TAIL);
    }
}

/// The last lines that another program said, harmless and indented.
pub fn quoted(said: &str) -> String {
    let lines: Vec<_> = said.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(6)..];
    last.iter().map(|line| format!("\n  | {}", escape(line))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn via_is_parsed_and_what_could_break_out_is_refused() {
        assert_eq!("fly".parse(), Ok(Via::Fly));
        assert_eq!(
            "ssh:me@host:2222".parse(),
            Ok(Via::Ssh { host: "me@host".into(), port: Some(2222) })
        );
        assert_eq!("local:a b/c".parse(), Ok(Via::Local("a b/c".into())));
        for bad in [
            "",
            "ssh:",
            "ssh:-oProxyCommand=x",
            "ssh:a b",
            "ssh:a:b",
            "docker:-x",
            "docker:a;b",
            "local:",
        ] {
            assert!(bad.parse::<Via>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_bootstrap_survives_two_readings_of_its_quotes() {
        let words = shlex::split(&format!("sh -c '{BOOTSTRAP}'")).unwrap();
        assert_eq!(words, ["sh", "-c", BOOTSTRAP]);
    }

    #[test]
    fn the_tail_is_bounded_and_told_line_by_line() {
        let text = "x".repeat(20_000) + "\nlast\n";
        let mut lines = 0;
        let said = Mutex::new(Vec::new());
        listen(text.as_bytes(), &said, |_| lines += 1);
        let kept = said.into_inner().unwrap();
        assert_eq!((kept.len(), lines), (STDERR_TAIL, 2));
        assert!(kept.ends_with(b"last\n"));
    }
}
