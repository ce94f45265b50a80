//! Receives the databases of a server into a directory, and proves them.

mod directory_sink;

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context as _, Result};
use glob::Pattern;

use self::directory_sink::DirectorySink;
pub use self::directory_sink::VerifiedDb;
use crate::config::Settings;
use crate::error::Failure;
use crate::fs;
use crate::pull::delta;
use crate::sanitize::audit::Findings;
use crate::sanitize::unmatched;
use crate::server::failures;
use crate::server::protocol::{self, Error, Received, ReceivedDb, Timings};
use crate::server::request::{Mode, Request};
use crate::server::transport::{Connection, Ended, ServerOutput, Transport};
use crate::ui::{Ui, escape};

/// What arrived, and how.
pub struct Pulled {
    pub databases: Vec<VerifiedDb>,
    pub findings: Findings,
    pub timings: Timings,
    pub machine: Option<String>,
    pub region: Option<String>,
    pub wire_bytes: u64,
}

/// Receives the databases that `request` asks for into `dir`. On its disk,
/// `reserved` bytes more are needed afterwards.
///
/// # Errors
///
/// They did not arrive, whole and sound; what is in `dir` is worth nothing.
pub fn receive(
    ui: &Ui,
    settings: &Settings,
    transport: &mut Transport<'_>,
    request: &Request<'_>,
    dir: &Path,
    reserved: u64,
) -> Result<Pulled> {
    let mut incoming = DirectorySink::new(ui, &settings.names, request, dir, reserved);
    let mut session = Session::connect(ui, settings, transport, request, &mut incoming)?;
    let received = session.receive(&mut incoming)?;
    session.check_unmatched(&incoming, &received)?;
    let mut databases = incoming.verify(&received)?;

    let missing: Vec<_> = (0..databases.len()).filter(|&i| databases[i].is_none()).collect();
    if !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(|&i| received.databases[i].name.clone()).collect();
        incoming.warn_of_bases(&names, "is fetched");
        session.ask_for(&missing);
        incoming.expect_whole(names)?;
        let whole = session.receive(&mut incoming)?;
        for (i, arrived) in missing.into_iter().zip(incoming.verify(&whole)?) {
            databases[i] = arrived;
        }
    }
    let mut databases = databases.into_iter().collect::<Option<Vec<_>>>().ok_or_else(|| {
        Failure::new("the server did not send all that was asked for; nothing was changed")
            .hint("run the same command again, with -v to see what the server says")
    })?;
    for VerifiedDb { database, .. } in &mut databases {
        database.unsanitized = request.rules.leave_unsanitized(&database.name);
        database.raw = request.rules.leave_raw(&database.name);
    }
    session.release();
    fs::sync(dir)?;
    Ok(Pulled {
        databases,
        findings: incoming.findings,
        timings: received.timings,
        machine: incoming.machine,
        region: incoming.region,
        wire_bytes: session.wire.get(),
    })
}

/// What would come.
pub struct Planned {
    pub databases: Vec<ReceivedDb>,
    /// Whether each would come without the rules that are meant for it.
    pub unsanitized: Vec<bool>,
    pub findings: Findings,
    pub machine: Option<String>,
    pub region: Option<String>,
    /// On the wire.
    pub wire_bytes: u64,
}

/// Asks what [`receive`] would bring into `dir`, where nothing is written.
///
/// # Errors
///
/// It would fail as well.
pub fn plan(
    ui: &Ui,
    settings: &Settings,
    transport: &mut Transport<'_>,
    request: &Request<'_>,
    dir: &Path,
) -> Result<Planned> {
    let mut incoming = DirectorySink::new(ui, &settings.names, request, dir, 0);
    let mut session = Session::connect(ui, settings, transport, request, &mut incoming)?;
    let outcome = protocol::read_plan(&mut session.output, &request.nonce, &mut incoming);
    let (wire_bytes, mut received) = session.understand(outcome, &mut incoming)?;
    session.require_rules(&received)?;
    session.check_unmatched(&incoming, &received)?;
    incoming.verify_bases(&mut received.databases)?;
    let unsanitized = |database: &ReceivedDb| request.rules.leave_unsanitized(&database.name);
    session.release();
    Ok(Planned {
        unsanitized: received.databases.iter().map(unsanitized).collect(),
        databases: received.databases,
        findings: incoming.findings,
        machine: incoming.machine,
        region: incoming.region,
        wire_bytes,
    })
}

/// The connection of one pull.
struct Session<'a, 'b> {
    ui: &'a Ui,
    settings: &'a Settings,
    transport: &'a mut Transport<'b>,
    request: &'a Request<'a>,
    dir: &'a Path,
    connection: Option<Connection>,
    output: Counted<ServerOutput>,
    wire: Rc<Cell<u64>>,
}

impl<'a, 'b> Session<'a, 'b> {
    fn connect(
        ui: &'a Ui,
        settings: &'a Settings,
        transport: &'a mut Transport<'b>,
        request: &'a Request<'a>,
        incoming: &mut DirectorySink<'a>,
    ) -> Result<Self> {
        let message = request.render(settings)?;
        let connecting = format!("to {}", transport.peer());
        if transport.may_ask() {
            // A spinner would draw over its question.
            ui.status("Connecting", connecting);
        } else {
            incoming.working = Some(ui.working("Connecting", connecting));
        }
        let mut connection = transport.start(ui)?;
        // While it connects, what is here is hashed.
        let hashes = delta::hashes(&request.bases);
        connection.send(&message);
        transport.wait_for_a_sign(&connection)?;
        connection.send_beside(hashes);
        let wire = Rc::new(Cell::new(0));
        let output = connection.take_output(transport.is_fly());
        let output = Counted { inner: output, count: wire.clone() };
        let (dir, connection) = (incoming.dir, Some(connection));
        Ok(Self { ui, settings, transport, request, dir, connection, output, wire })
    }

    /// Reads the databases as they come.
    fn receive(&mut self, incoming: &mut DirectorySink<'_>) -> Result<Received> {
        let nonce = &self.request.nonce;
        let outcome = if self.request.mode == Mode::Archive {
            match protocol::find_archive(&mut self.output, nonce, incoming) {
                Ok((machine, path)) => self.fetch(machine, &path, incoming)?,
                Err(error) => Err(error),
            }
        } else {
            protocol::read(&mut self.output, nonce, incoming)
        };
        let received = self.understand(outcome, incoming)?;
        // Also of databases that are sent again.
        self.require_rules(&received)?;
        Ok(received)
    }

    /// Fetches an archive, and reads that.
    fn fetch(
        &mut self,
        machine: Option<String>,
        path: &str,
        incoming: &mut DirectorySink<'_>,
    ) -> Result<Result<Received, Error>> {
        // No database is called so: names must not begin with a dot.
        let archive = self.dir.join(".archive");
        self.transport.target.machine = machine.or_else(|| incoming.machine.clone());
        incoming.working = Some(self.ui.working("Fetching", escape(path)));
        let silence = self.connection.as_ref().map(Connection::silence);
        self.transport.sftp_get(self.ui, path, &archive, silence)?;
        let file =
            File::open(&archive).with_context(|| format!("cannot open {}", archive.display()))?;
        let file = Counted { inner: file, count: self.wire.clone() };
        let outcome = protocol::read_archive(BufReader::new(file), incoming);
        fs::remove(&archive)?;
        Ok(outcome)
    }

    /// Asks for databases, by their numbers, to come whole.
    fn ask_for(&mut self, databases: &[usize]) {
        let numbers: Vec<_> = databases.iter().map(ToString::to_string).collect();
        if let Some(connection) = &mut self.connection {
            connection.send(format!("{}\n", numbers.join(" ")).as_bytes());
        }
    }

    /// Nothing more is wanted of the server.
    fn release(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.transport.release(connection);
        }
    }

    fn require_rules(&self, received: &Received) -> Result<()> {
        if !self.request.rules.applied().is_empty() && !received.sanitized {
            return Err(Failure::new("the server applied no rules; nothing was changed")
                .hint("run the same command again")
                .into());
        }
        Ok(())
    }

    fn check_unmatched(&self, sink: &DirectorySink<'_>, received: &Received) -> Result<()> {
        let names: Vec<_> = received.databases.iter().map(|one| &*one.name).collect();
        let rules = self.request.rules.applied();
        unmatched::check(self.ui, &sink.unmatched, rules, &names, "nothing was changed")
    }

    /// An error of the stream as what a person can act on.
    fn understand<T>(
        &mut self,
        outcome: Result<T, Error>,
        incoming: &mut DirectorySink<'_>,
    ) -> Result<T> {
        incoming.quiet_down();
        outcome.map_err(|error| match error {
            Error::Server { code, .. } if code == "audit" && !incoming.findings.is_empty() => {
                incoming.findings.refusal("nothing was sent: ").into()
            }
            error => self.explain(error).into(),
        })
    }

    fn explain(&mut self, error: Error) -> Failure {
        let (dir, wire) = (self.dir, self.wire.get());
        match error {
            Error::Server { code, text } if code == "no-databases" => self.no_databases(&text),
            Error::Server { code, text } => failures::failure(&code, &text),
            _ if self.output.inner.stalled => self.give_up(),
            Error::NoStream => {
                let ended = self.end();
                self.transport.diagnose(&ended, wire)
            }
            Error::Cut => {
                let ended = self.end();
                failures::failed_midway(&ended.said)
                    .unwrap_or_else(|| self.transport.cut(&ended, wire))
            }
            Error::Local(error) if error.kind() == io::ErrorKind::StorageFull => {
                Failure::new(format!("the disk of {} is full; nothing was changed", dir.display()))
                    .hint("free some: cargo xtask snapshots prune --keep 3")
            }
            Error::Refused(_) => Failure::new(format!("{error}; nothing was changed"))
                .hint("run the same command again, with -v to see what the server says"),
            Error::Local(_) => {
                Failure::new(format!("{error}, in {}; nothing was changed", dir.display()))
            }
        }
    }

    fn no_databases(&self, said: &str) -> Failure {
        let list = |patterns: &[Pattern]| {
            let texts: Vec<_> = patterns.iter().map(|one| format!("{:?}", one.as_str())).collect();
            format!("[{}]", texts.join(", "))
        };
        let names = &self.settings.names;
        let mut asked = format!("include = {}", list(&names.include));
        if !names.exclude.is_empty() {
            asked += &format!(", exclude = {}", list(&names.exclude));
        }
        if let Some(only) = self.request.only {
            asked += &format!(", --only {only}");
        }
        failures::failure("no-databases", &format!("{said}: {asked}"))
    }

    /// The program may know why the stream has ended.
    fn end(&mut self) -> Ended {
        self.connection.take().map(Connection::last_words).unwrap_or_default()
    }

    fn give_up(&mut self) -> Failure {
        if let Some(connection) = self.connection.take() {
            connection.abandon();
        }
        self.transport.stalled(self.wire.get())
    }
}

struct Counted<R> {
    inner: R,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.count.set(self.count.get() + n as u64);
        Ok(n)
    }
}
