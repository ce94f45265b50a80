//! How a command runs on the server. The only place that starts `fly`, `ssh`
//! or `docker`.
//!
//! A new one has a variant of [`Via`], a name for what it pulls in `source` (earlier pulls of the same
//! source are the bases of the next), a command in `start`, and in `offline.rs` what its program
//! says where there is no way to the server. What it owes the server's script: bytes as they
//! are in both directions, and the end of the input when the client ends, by which the script
//! knows that it has to remove its copies.

mod connection;
mod fly;
mod offline;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};

pub use self::connection::{Connection, Ended, ServerOutput};
use self::connection::{STALL, Silence};
use self::fly::Started;
pub use self::fly::Target;
pub use crate::config::{Via, plain_word};
use crate::error::Failure;
use crate::interrupt;
use crate::ui::{Ui, escape};

/// What is run on the server: it takes the script, gzipped, from its input,
/// behind a line with its length, and leaves the rest of the input to it. It
/// is one fixed text for all, in which nothing is ever pasted. What it takes must end at
/// the byte: a `dd` that cannot fill a block from a pipe takes one byte at a time.
const BOOTSTRAP: &str = r#"read -r n && XTASK_REQUEST=1 && b="bs=1 count=$n" && if dd iflag=fullblock count=0 </dev/null; then b="bs=$n count=1 iflag=fullblock"; fi 2>/dev/null && eval "$(dd $b 2>/dev/null | gzip -dc)""#;

/// How long an impatient one waits for a sign of the server: ten times as long
/// as `fly` takes to reach one.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Transport<'a> {
    sh: &'a Shell,
    via: Via,
    pub target: Target,
    /// Gives up after `PATIENCE`, where the programs would try for minutes.
    impatient: bool,
    /// It has been heard of already: whatever fails now, there is a network.
    reached: bool,
    started: Option<Started>,
    /// Of a pull that has all it wants. Dropped with this, it ends a program that still runs.
    released: Option<Connection>,
}

impl<'a> Transport<'a> {
    pub fn new(sh: &'a Shell, via: Via, target: Target, impatient: bool) -> Self {
        Self { sh, via, target, impatient, reached: false, started: None, released: None }
    }

    /// Whom we talk to, for a message.
    pub fn peer(&self) -> String {
        match &self.via {
            Via::Fly => self.target.peer(),
            Via::Ssh { host, .. } => host.clone(),
            Via::Docker(container) => format!("container {container}"),
            Via::Local(dir) => dir.display().to_string(),
        }
    }

    /// Names what is pulled when the databases in `directory` are.
    pub fn source(&self, directory: &str) -> String {
        match &self.via {
            Via::Fly => format!("fly:{}:{directory}", self.target.app),
            Via::Ssh { host, port: None } => format!("ssh:{host}:{directory}"),
            Via::Ssh { host, port: Some(port) } => format!("ssh:{host}:{port}:{directory}"),
            Via::Docker(container) => format!("docker:{container}:{directory}"),
            Via::Local(_) => format!("local:{directory}"),
        }
    }

    /// Whether the program may ask for a passphrase or about a host's key.
    pub fn may_ask(&self) -> bool {
        matches!(self.via, Via::Ssh { .. })
    }

    pub fn is_fly(&self) -> bool {
        self.via == Via::Fly
    }

    /// Why no stream began after so many bytes of words, and the next thing to do.
    pub fn diagnose(&self, ended: &Ended, wire: u64) -> Failure {
        let said = &ended.said;
        let offline =
            (!self.reached && wire == 0).then(|| offline::diagnose(&self.via, &self.peer(), said));
        offline.flatten().unwrap_or_else(|| match &self.via {
            Via::Fly => fly::explain(self.sh, &self.target, ended),
            Via::Ssh { host, port } if wire == 0 && ended.code == Some(OWN_FAILURE) => {
                let port = port.map(|port| format!("-p {port} ")).unwrap_or_default();
                Failure::new(format!("ssh cannot connect to {host}{}", quoted(said)))
                    .hint(format!("try by hand: ssh {port}{host} true"))
            }
            Via::Ssh { .. } if ended.code == Some(OWN_FAILURE) => self.cut(ended, wire),
            _ => Failure::new(format!("{} sent no databases{}", self.peer(), quoted(said)))
                .hint("add -v to see all that it says"),
        })
    }

    /// The stream ended in the middle.
    pub fn cut(&self, ended: &Ended, wire: u64) -> Failure {
        let known = self.is_fly().then(|| fly::killed(&self.target.app, &ended.said)).flatten();
        was_cut(wire, ", before the end record", &ended.said)
            .hint(known.unwrap_or_else(|| AGAIN.to_owned()))
    }

    /// Nothing more came, and no end.
    pub fn stalled(&self, wire: u64) -> Failure {
        let silence = format!(": no sign of {} for {} s", self.peer(), STALL.as_secs());
        was_cut(wire, &silence, "").hint(AGAIN)
    }

    /// Waits for a sign of the server, if that may take only so long. Anything
    /// that `fly` says is one: while it connects it says so, and before
    /// it replaces itself by a newer version.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn wait_for_a_sign(&self, connection: &Connection) -> Result<()> {
        // `ssh` has been told itself, and does not count the time in which it asks.
        if self.impatient && !self.reached && self.is_fly() && connection.is_silent_for(PATIENCE)? {
            return Err(offline::silent(&self.peer(), PATIENCE.as_secs()).into());
        }
        Ok(())
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
                let limit = format!("ConnectTimeout={}", PATIENCE.as_secs());
                let limit = self.impatient.then_some(["-o", &limit]).into_iter().flatten();
                cmd!(sh, "ssh -T {alive...} {limit...} {port...} -- {host} {remote}")
            }
            Via::Docker(container) => {
                cmd!(sh, "docker exec --interactive {container} sh -c {BOOTSTRAP}")
            }
            Via::Local(_) => cmd!(sh, "sh -c {BOOTSTRAP}"),
        };
        ui.verbose(format!("$ {command}"));
        Connection::start(command.into(), ui)
    }

    /// The server may stop. `fly` reports home at its end, and is not waited for.
    pub fn release(&mut self, mut connection: Connection) {
        connection.release(!self.is_fly());
        self.released = Some(connection);
    }

    /// Starts a machine, where there are machines and none is started.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn start_machine(&mut self, ui: &Ui) -> Result<()> {
        if self.is_fly() {
            self.started = fly::start_machine(ui, self.sh, &self.target)?;
            self.reached = true;
        }
        Ok(())
    }

    /// Stops what was started, also after a Ctrl-C.
    pub fn stop_machine(&mut self, ui: &Ui) {
        if let Some(started) = self.started.take() {
            started.stop(ui, self.sh, &self.target);
        }
    }

    /// Fetches a file through `fly ssh sftp get`, which says nothing meanwhile: `silence` is
    /// that of the script that has made the file.
    ///
    /// # Errors
    ///
    /// It did not arrive; nothing is left at `local`.
    pub fn sftp_get(
        &self,
        ui: &Ui,
        remote: &str,
        local: &Path,
        mut silence: Option<Silence>,
    ) -> Result<()> {
        let sh = self.sh;
        let (fly, flags) = (fly::program(sh)?, self.target.flags());
        let command = cmd!(sh, "{fly} ssh sftp get {flags...} {remote} {local}");
        ui.verbose(format!("$ {command}"));
        let stalls = |wait| silence.as_mut().is_some_and(|silence| silence.lasts(wait));
        let output = interrupt::output_unless(command, stalls)
            .with_context(|| format!("cannot run `{fly}`"))?;
        let arrived = local.metadata();
        if arrived.is_ok() && output.as_ref().is_some_and(|output| output.status.success()) {
            return Ok(());
        }
        crate::fs::remove(local)?;
        let bytes = arrived.map_or(0, |file| file.len());
        let failure = match output {
            Some(output) => fly::explain_fetch(&self.target.app, &output.into(), bytes),
            None => self.stalled(bytes),
        };
        Err(failure.into())
    }
}

/// The exit code of `ssh` where it fails itself.
const OWN_FAILURE: i32 = 255;
/// After a cut.
const AGAIN: &str = "run the same command again";

fn was_cut(bytes: u64, how: &str, said: &str) -> Failure {
    Failure::new(format!(
        "the connection was cut after {bytes} bytes{how}; nothing was changed{}",
        quoted(said)
    ))
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
    fn a_source_has_all_that_tells_one_from_another() {
        let sh = Shell::new().unwrap();
        let source = |via: &str| {
            let target = Target { app: "x".to_owned(), ..Target::default() };
            Transport::new(&sh, via.parse().unwrap(), target, false).source("/data")
        };
        let vias = ["fly", "ssh:me@host", "ssh:me@host:2222", "docker:web", "local:data"];
        assert_eq!(
            vias.map(source),
            [
                "fly:x:/data",
                "ssh:me@host:/data",
                "ssh:me@host:2222:/data",
                "docker:web:/data",
                "local:/data"
            ]
        );
    }
}
