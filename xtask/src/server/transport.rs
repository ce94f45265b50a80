//! Runs a command on the server. This is the only module that starts `fly`, `ssh`, `docker` or another
//! program that connects.
//!
//! A transport needs a variant of [`Via`], a name in `source` (which identifies the bases of a
//! pull), a command in `start`, and its program's messages in `offline.rs`. It must not change
//! bytes, and must close the script's input when the client ends, which removes the copies.

pub mod client;
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
use crate::error::{Failure, Reason};
use crate::interrupt;
use crate::ui::{Ui, quoted};

/// The command that the server runs: it reads a line with a length, then the gzipped script from
/// its input, and leaves the rest of the input to the script. The text is constant; nothing is ever
/// pasted into it. It must not read further: a `dd` without `fullblock` reads one byte at a time.
const BOOTSTRAP: &str = r#"read -r n && XTASK_REQUEST=1 && b="bs=1 count=$n" && if dd iflag=fullblock count=0 </dev/null; then b="bs=$n count=1 iflag=fullblock"; fi 2>/dev/null && eval "$(dd $b 2>/dev/null | gzip -dc)""#;

/// Runs `$2` as user `$1`: root needs no `sudo`, which few images have; busybox has no such `setpriv`.
const AS_USER: &str = r#"if [ "$(id -u)" -ne 0 ]; then exec sudo -n -u "$1" sh -c "$2"; elif setpriv --reuid=0 true 2>/dev/null; then exec setpriv --reuid="$1" --regid="$(id -g "$1")" --init-groups sh -c "$2"; else exec su -s /bin/sh "$1" -c "$2"; fi"#;

/// How long an impatient transport waits for the server: ten times as long as `fly` takes to
/// connect.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Transport<'a> {
    sh: &'a Shell,
    via: Via,
    pub target: Target,
    /// The user of the server to become.
    user: Option<String>,
    /// Whether to give up after `PATIENCE`; the programs themselves would try for minutes.
    impatient: bool,
    /// Whether the server has answered before: then a failure does not mean that there is no
    /// network.
    reached: bool,
    started: Option<Started>,
    /// The connection of a finished pull. Dropping it ends a program that still runs.
    released: Option<Connection>,
}

impl<'a> Transport<'a> {
    pub fn new(sh: &'a Shell, via: Via, target: Target, impatient: bool) -> Self {
        let (user, reached, started, released) = (None, false, None, None);
        Self { sh, via, target, user, impatient, reached, started, released }
    }

    /// Runs the script as this user of the server.
    #[must_use]
    pub fn with_user(self, user: Option<String>) -> Self {
        Self { user, ..self }
    }

    /// Whether the server is a directory of this machine.
    pub fn is_local(&self) -> bool {
        matches!(self.via, Via::Local(_))
    }

    /// The replicas of which the databases are restored here; `None` if a server has them.
    pub fn replicas(&self) -> Option<Option<&str>> {
        match &self.via {
            Via::Litestream(url) => Some(url.as_deref()),
            _ => None,
        }
    }

    /// Where copies are made, for messages.
    pub fn place(&self) -> &'static str {
        if self.replicas().is_some() { "here" } else { "on the server" }
    }

    /// The name of the server, for messages.
    pub fn peer(&self) -> String {
        match &self.via {
            Via::Fly => self.target.peer(),
            Via::Ssh { host, .. } => host.clone(),
            Via::Docker(container) => format!("container {container}"),
            Via::Exec(words) => shown(words),
            Via::Local(dir) => dir.display().to_string(),
            Via::Litestream(Some(url)) => url.split('?').next().unwrap_or(url).to_owned(),
            Via::Litestream(None) => "the replicas of litestream.yml".to_owned(),
        }
    }

    /// Identifies the pulled databases in `directory`.
    pub fn source(&self, directory: &str) -> String {
        match &self.via {
            Via::Fly => format!("fly:{}:{directory}", self.target.app),
            Via::Ssh { host, port: None } => format!("ssh:{host}:{directory}"),
            Via::Ssh { host, port: Some(port) } => format!("ssh:{host}:{port}:{directory}"),
            Via::Docker(container) => format!("docker:{container}:{directory}"),
            Via::Exec(words) => format!("exec:{}:{directory}", shown(words)),
            Via::Local(_) => format!("local:{directory}"),
            Via::Litestream(_) => self.via.to_string(),
        }
    }

    /// Whether the program may ask for a passphrase or about a host's key.
    pub fn may_ask(&self) -> bool {
        matches!(self.via, Via::Ssh { .. })
    }

    pub fn is_fly(&self) -> bool {
        self.via == Via::Fly
    }

    /// Why no stream began after `wire` bytes, with a hint.
    pub fn diagnose(&self, ended: &Ended, wire: u64) -> Failure {
        let said = &ended.said;
        let offline =
            (!self.reached && wire == 0).then(|| offline::diagnose(&self.via, &self.peer(), said));
        if let Some(user) = self.user.as_ref().filter(|_| wire == 0) {
            let says = |program: &str| said.lines().any(|line| line.starts_with(program));
            let failure =
                || Failure::new(format!("the script cannot run as {user}{}", quoted(said)));
            if says("sudo: ") {
                let rule = format!("ALL=({user}) NOPASSWD: /bin/sh");
                return failure().hint(format!("allow it without a password, in sudoers: {rule}"));
            }
            if says("setpriv: ") || says("su: ") {
                return failure().hint("leave out `as`, and enter as that user: `via` can name it");
            }
        }
        if wire == 0 && lacks_shell(said) {
            return Failure::new(format!("there is no shell: {}{}", self.peer(), quoted(said)))
                .hint(
                    "the pull runs sh and sqlite3 there: use an image with both, for example add \
                     `apt-get install -y sqlite3` to one of Debian, or copy a static busybox and sqlite3",
                );
        }
        offline.flatten().unwrap_or_else(|| match &self.via {
            Via::Fly => fly::explain(self.sh, &self.target, ended),
            Via::Ssh { host, port } if wire == 0 && ended.code == Some(OWN_FAILURE) => {
                let port = port.map(|port| format!("-p {port} ")).unwrap_or_default();
                Failure::new(format!("ssh cannot connect to {host}{}", quoted(said)))
                    .hint(format!("try by hand: ssh {port}{host} true"))
            }
            Via::Ssh { .. } if ended.code == Some(OWN_FAILURE) => self.cut(ended, wire, None),
            Via::Exec(words) if wire == 0 => {
                let command = shown(words);
                Failure::new(format!("`{command}` ran no script{}", quoted(said)))
                    .hint(format!(
                        "it has to pass its input on, and to allocate no terminal: `docker exec -i`, \
                         `docker compose exec -T`, `kubectl exec -i`; try by hand: echo yes | {command} cat"
                    ))
            }
            Via::Docker(_) if wire == 0 => {
                Failure::new(format!("{} ran no script{}", self.peer(), quoted(said)))
                    .hint("docker ps lists the containers that run")
            }
            _ => Failure::new(format!("{} sent no databases{}", self.peer(), quoted(said)))
                .hint("add -v to see all of its output"),
        })
    }

    /// The failure if the stream of `machine` ended before its end record.
    pub fn cut(&self, ended: &Ended, wire: u64, machine: Option<&str>) -> Failure {
        let known = self.is_fly().then(|| fly::killed(&self.target.app, &ended.said)).flatten();
        let asked = self.is_fly() && known.is_none();
        if let Some(is) = asked.then(|| fly::why_cut(self.sh, &self.target, machine)).flatten() {
            let how = format!(", before the end record: {is}");
            return was_cut(wire, &how, &ended.said).hint(
                "Fly.io stops a machine without requests (auto_stop_machines in fly.toml); to start it for \
                 a pull: cargo xtask pull-db --start",
            );
        }
        was_cut(wire, ", before the end record", &ended.said)
            .hint(known.unwrap_or_else(|| AGAIN.to_owned()))
    }

    /// The machine that is meant, where `fly` had to choose one.
    ///
    /// # Errors
    ///
    /// Several may be meant, or the one with the databases is not started.
    pub fn choose_machine(&self) -> Result<String> {
        fly::choose(self.sh, &self.target)
    }

    /// The machine whose host calls itself `host`.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn machine_of(&self, host: &str) -> Result<String> {
        fly::of_host(self.sh, &self.target, host)
    }

    /// The failure if nothing more was received, though the connection is open.
    pub fn stalled(&self, wire: u64) -> Failure {
        let silence = format!(": no sign of {} for {} s", self.peer(), STALL.as_secs());
        was_cut(wire, &silence, "").hint(AGAIN)
    }

    /// Waits until the server or `fly` sends anything, if the transport is impatient: `fly` prints
    /// a line while it connects, and before it updates itself.
    ///
    /// # Errors
    ///
    /// Nothing was received within `PATIENCE`.
    pub fn wait_for_a_sign(&self, connection: &Connection) -> Result<()> {
        // `ssh` has a limit of its own, which excludes the time of its questions.
        if self.impatient && !self.reached && self.is_fly() && connection.is_silent_for(PATIENCE)? {
            return Err(offline::silent(&self.peer(), PATIENCE.as_secs()).into());
        }
        Ok(())
    }

    /// Starts the program that connects; the server then waits for a script.
    ///
    /// # Errors
    ///
    /// The program that connects is missing.
    pub fn start(&self, ui: &Ui) -> Result<Connection> {
        let sh = self.sh;
        let script: Vec<&str> = match &self.user {
            None => vec!["sh", "-c", BOOTSTRAP],
            Some(user) => vec!["sh", "-c", AS_USER, "sh", user, BOOTSTRAP],
        };
        // Neither text has a single quote, and the name of a user has only letters and the like.
        let remote = script.iter().map(|word| match word.contains(' ') {
            true => format!("'{word}'"),
            false => (*word).to_owned(),
        });
        let remote = remote.collect::<Vec<_>>().join(" ");
        let command = match &self.via {
            Via::Fly => {
                let (fly, flags) = (fly::program(sh)?, self.target.flags());
                cmd!(sh, "{fly} ssh console {flags...} --command {remote}")
            }
            Via::Ssh { host, port } => {
                let port = port.iter().flat_map(|port| ["-p".to_owned(), port.to_string()]);
                // Without these options, ssh would wait for a dead connection.
                let alive = ["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"];
                let limit = format!("ConnectTimeout={}", PATIENCE.as_secs());
                let limit = self.impatient.then_some(["-o", &limit]).into_iter().flatten();
                cmd!(sh, "ssh -T {alive...} {limit...} {port...} -- {host} {remote}")
            }
            Via::Docker(container) => {
                cmd!(sh, "docker exec --interactive {container} {script...}")
            }
            Via::Exec(words) => {
                let (program, args) = words.split_first().context("the command is empty")?;
                cmd!(sh, "{program} {args...} {script...}")
            }
            Via::Local(_) | Via::Litestream(_) => {
                let (program, args) = script.split_first().context("the command is empty")?;
                cmd!(sh, "{program} {args...}")
            }
        };
        ui.verbose(format!("$ {command}"));
        Connection::start(command.into(), ui)
    }

    /// Tells the server to stop. `fly` sends a report at its end, so it is not waited for.
    pub fn release(&mut self, mut connection: Connection) {
        connection.release(!self.is_fly());
        self.released = Some(connection);
    }

    /// Starts a machine of Fly.io if none is started.
    ///
    /// # Errors
    ///
    /// The machine does not start.
    pub fn start_machine(&mut self, ui: &Ui) -> Result<()> {
        // One that was started for an earlier attempt runs still.
        if self.is_fly() && self.started.is_none() {
            self.started = fly::start_machine(ui, self.sh, &self.target)?;
            self.reached = true;
        }
        Ok(())
    }

    /// Stops the machine that was started, even after a Ctrl-C.
    pub fn stop_machine(&mut self, ui: &Ui) {
        if let Some(started) = self.started.take() {
            started.stop(ui, self.sh, &self.target);
        }
    }

    /// Fetches a file with `fly ssh sftp get`, which prints nothing meanwhile: `silence` watches
    /// the script that made the file.
    ///
    /// # Errors
    ///
    /// The file did not arrive; nothing is left at `local`.
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

/// Whether the program that connects could not run `sh`, as in a distroless image. So say runc, crun
/// and coreutils.
fn lacks_shell(said: &str) -> bool {
    let shells = ["\"sh\"", "`sh`", "'sh'", "\u{2018}sh\u{2019}"];
    let missing = ["executable file not found", "executable file `sh` not found", "no such file"];
    said.lines().map(str::to_lowercase).any(|line| {
        shells.iter().any(|sh| line.contains(sh)) && missing.iter().any(|why| line.contains(why))
    })
}

/// The words of a command as one line that a shell reads the same way.
fn shown(words: &[String]) -> String {
    shlex::try_join(words.iter().map(String::as_str)).unwrap_or_else(|_| words.join(" "))
}

/// The exit code of `ssh` for its own failures.
const OWN_FAILURE: i32 = 255;
/// The hint after a cut.
const AGAIN: &str = "run the same command again";

fn was_cut(bytes: u64, how: &str, said: &str) -> Failure {
    let what = format!("the connection was cut after {bytes} bytes{how}; nothing was changed");
    Failure::new(what + &quoted(said)).because(Reason::Cut)
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
            "exec:",
            "exec:a 'b",
        ] {
            assert!(bad.parse::<Via>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_image_without_a_shell_is_known_by_what_its_runtime_says() {
        for said in [
            "OCI runtime exec failed: exec failed: unable to start container process: exec: \"sh\": \
             executable file not found in $PATH: unknown",
            "Error: crun: executable file `sh` not found in $PATH: No such file or directory: OCI runtime \
             attempted to invoke a command that was not found",
            "chroot: failed to run command \u{2018}sh\u{2019}: No such file or directory",
        ] {
            assert!(lacks_shell(&format!("before\n{said}\n")), "{said}");
        }
        for said in [
            "",
            "cat: sh: No such file or directory",
            "exec: \"kubectl\": executable file not found",
        ] {
            assert!(!lacks_shell(said), "{said}");
        }
    }

    #[test]
    fn the_bootstrap_survives_two_readings_of_its_quotes() {
        let words = shlex::split(&format!("sh -c '{BOOTSTRAP}'")).unwrap();
        assert_eq!(words, ["sh", "-c", BOOTSTRAP]);
        let words = shlex::split(&format!("sh -c '{AS_USER}' sh app '{BOOTSTRAP}'")).unwrap();
        assert_eq!(words, ["sh", "-c", AS_USER, "sh", "app", BOOTSTRAP]);
    }

    #[test]
    fn a_source_has_all_that_tells_one_from_another() {
        let sh = Shell::new().unwrap();
        let source = |via: &str| {
            let target = Target { app: "x".to_owned(), ..Target::default() };
            Transport::new(&sh, via.parse().unwrap(), target, false).source("/data")
        };
        let vias =
            ["fly", "ssh:me@host", "ssh:me@host:2222", "docker:web", "exec:in 'a b'", "local:data"];
        assert_eq!(
            vias.map(source),
            [
                "fly:x:/data",
                "ssh:me@host:/data",
                "ssh:me@host:2222:/data",
                "docker:web:/data",
                "exec:in 'a b':/data",
                "local:/data"
            ]
        );
    }
}
