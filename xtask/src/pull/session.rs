//! The connection of one pull: sends the request, reads the events.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Result;

use crate::error::{self, Reason};
use crate::fs;
use crate::pull::delta;
use crate::pull::error::PullError;
use crate::pull::incoming::Incoming;
use crate::pull::remote_status::RemoteStatus;
use crate::sanitize::unmatched;
use crate::server::protocol::{
    self, Archive, Content, Error, Event, Marker, Preamble, PreambleEvent, Received,
};
use crate::server::request::{Mode, Request};
use crate::server::transport::{Connection, Ended, ServerOutput, Transport};
use crate::ui::{Ui, escape};

/// Bytes of the output that are read at a time.
const BUFFER: usize = 1 << 16;

pub struct Session<'a, 'b> {
    transport: &'a mut Transport<'b>,
    pub request: &'a Request<'a>,
    connection: Option<Connection>,
    output: Counted<ServerOutput>,
    /// The number of received bytes.
    pub wire: Rc<Cell<u64>>,
    pub status: RemoteStatus<'a>,
}

impl<'a, 'b> Session<'a, 'b> {
    /// Connects, and sends the script and the request.
    ///
    /// # Errors
    ///
    /// The connecting program is missing, or the server does not answer.
    pub fn connect(
        ui: &'a Ui,
        transport: &'a mut Transport<'b>,
        request: &'a Request<'a>,
    ) -> Result<Self> {
        let message = request.render()?;
        let mut status = RemoteStatus::new(ui, transport.place());
        let connecting = format!("to {}", transport.peer());
        if transport.may_ask() {
            // A spinner would overwrite ssh's question.
            ui.status("Connecting", connecting);
        } else {
            status.spinner = Some(ui.step("Connecting", Some("Connected"), connecting));
        }
        let mut connection = transport.start(ui)?;
        connection.send(message);
        transport.wait_for_a_sign(&connection)?;
        let wire = Rc::new(Cell::new(0));
        let output = connection.take_output(transport.is_fly());
        let output = Counted { inner: output, count: wire.clone() };
        Ok(Self { transport, request, connection: Some(connection), output, wire, status })
    }

    /// Receives the databases into `incoming`, which writes into `dir`.
    ///
    /// # Errors
    ///
    /// A database is missing, or does not match the request.
    pub fn receive(
        &mut self,
        incoming: &mut Incoming<'_>,
        dir: &Path,
    ) -> Result<Received, PullError> {
        let received = if self.request.mode == Mode::Archive {
            let archive = self.fetch_archive(dir)?;
            let file = fs_err::File::open(&archive)?;
            let file = BufReader::new(Counted { inner: file, count: self.wire.clone() });
            let received = read_archive(file, Content::Databases, &mut self.status, incoming)?;
            fs::remove(&archive)?;
            received
        } else {
            let Self { transport, output, connection, request, status, .. } = self;
            let marker = Marker::Databases;
            let (_, input) = read_preamble(output, transport, connection, request, marker, status)?;
            read_archive(input, Content::Databases, status, incoming)?
        };
        self.check_sanitized(&received)?;
        Ok(received)
    }

    /// Receives the records of a dry run, and the number of bytes that a pull would transfer.
    ///
    /// # Errors
    ///
    /// As [`Self::receive`].
    pub fn receive_plan(
        &mut self,
        incoming: &mut Incoming<'_>,
    ) -> Result<(u64, Received), PullError> {
        let Self { transport, output, connection, request, status, .. } = self;
        let (said, input) =
            read_preamble(output, transport, connection, request, Marker::Plan, status)?;
        let bytes = protocol::planned_bytes(&said)?;
        let received = read_archive(input, Content::Plan, status, incoming)?;
        self.check_sanitized(&received)?;
        Ok((bytes, received))
    }

    /// Receives what a doctor finds, as `status.facts`.
    ///
    /// # Errors
    ///
    /// The script failed; the facts until then are there.
    pub fn receive_facts(&mut self) -> Result<(), PullError> {
        let Self { transport, output, connection, request, status, .. } = self;
        read_preamble(output, transport, connection, request, Marker::Facts, status)?;
        Ok(())
    }

    /// Lets a doctor remove what killed runs left on the server; then come the facts of what stays.
    pub fn remove_leftovers(&mut self) -> Result<(), PullError> {
        self.status.facts.clear();
        if let Some(connection) = &mut self.connection {
            connection.send(b"remove\n".to_vec());
        }
        self.receive_facts()
    }

    /// Fetches the archive that the server made; returns its path in `dir`.
    fn fetch_archive(&mut self, dir: &Path) -> Result<PathBuf, PullError> {
        let Self { transport, output, connection, request, status, .. } = self;
        let (said, _) =
            read_preamble(output, transport, connection, request, Marker::Archive, status)?;
        let (machine, path) = protocol::archive_place(&said)?;
        // No database can have this name: names must not begin with a dot.
        let archive = dir.join(".archive");
        self.transport.target.machine = machine.or_else(|| self.status.machine.clone());
        self.status.spinner = Some(self.status.ui.working("Fetching", escape(&path)));
        let silence = self.connection.as_ref().map(Connection::silence);
        let fetched = self.transport.sftp_get(self.status.ui, &path, &archive, silence);
        fetched.map_err(PullError::Explained)?;
        Ok(archive)
    }

    /// Requests databases again, by number, complete.
    pub fn ask_for(&mut self, databases: &[usize]) {
        let numbers: Vec<_> = databases.iter().map(ToString::to_string).collect();
        if let Some(connection) = &mut self.connection {
            connection.send(format!("{}\n", numbers.join(" ")).into_bytes());
        }
    }

    /// Tells the server that nothing more is needed.
    pub fn release(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.transport.release(connection);
        }
    }

    fn check_sanitized(&self, received: &Received) -> Result<(), PullError> {
        let asked = !self.request.rules.applied().is_empty();
        if asked && !received.sanitized { Err(PullError::NotSanitized) } else { Ok(()) }
    }

    /// Fails if a rule is unmatched, and not for other databases.
    pub fn check_rules_matched(&self, received: &Received) -> Result<()> {
        let copied = received.databases.iter().map(|one| &one.name);
        let same = received.same.iter().map(|&number| &self.request.bases[number].database.name);
        let names: Vec<_> = copied.chain(same).map(String::as_str).collect();
        let rules = self.request.rules.applied();
        let RemoteStatus { ui, unmatched, .. } = &self.status;
        unmatched::check(ui, unmatched, rules, &names, "nothing was changed")
    }

    /// The error of a pull into `dir`, with a hint for the user.
    pub fn explain(&mut self, error: PullError, dir: &Path) -> anyhow::Error {
        self.status.spinner = None;
        let error = self.find_cause(error);
        error.explain(self.transport, self.request, dir, self.wire.get())
    }

    /// The connected program may know why the stream ended.
    pub fn find_cause(&mut self, error: PullError) -> PullError {
        let PullError::Stream(error) = error else { return error };
        match error {
            Error::Server { code, .. } if code == "audit" && !self.status.findings.is_empty() => {
                PullError::Audit(std::mem::take(&mut self.status.findings))
            }
            Error::Server { code, text } if code == "replica" => {
                let primary = self.transport.machine_of(&text);
                primary.map_or_else(PullError::Explained, PullError::Elsewhere)
            }
            Error::Server { code, .. }
                if self.request.any_machine
                    && ["no-directory", "no-databases"].contains(&code.as_str())
                    && let Some(elsewhere) = self.look_elsewhere() =>
            {
                elsewhere
            }
            Error::Server { code, text } => PullError::Script { code, text },
            _ if self.output.inner.stalled => {
                if let Some(connection) = self.connection.take() {
                    connection.abandon();
                }
                PullError::Stalled
            }
            Error::Refused(why) => PullError::Refused(why),
            Error::NoStream => PullError::NoStream(self.end()),
            Error::Cut => {
                let ended = self.end();
                match protocol::failure_in(&ended.said, &self.request.nonce) {
                    Some((code, text)) => PullError::Script { code, text },
                    None => PullError::Cut(ended, self.status.machine.clone()),
                }
            }
        }
    }

    /// Why this machine, which `fly` has chosen, has no databases, if another one has the volume.
    fn look_elsewhere(&self) -> Option<PullError> {
        match self.transport.choose_machine() {
            Ok(machine)
                if self.status.machine.as_ref().is_some_and(|chosen| *chosen != machine) =>
            {
                Some(PullError::Elsewhere(machine))
            }
            Err(error) if *error::reason(&error) != Reason::Other => {
                Some(PullError::Explained(error))
            }
            _ => None,
        }
    }

    fn end(&mut self) -> Ended {
        self.connection.take().map(Connection::last_words).unwrap_or_default()
    }
}

/// Reads the preamble, and sends the hashes that the server asks for; returns the text of the
/// marker's line, and the input after it.
fn read_preamble<R: Read>(
    output: R,
    transport: &Transport<'_>,
    connection: &mut Option<Connection>,
    request: &Request<'_>,
    marker: Marker,
    status: &mut RemoteStatus<'_>,
) -> Result<(String, BufReader<R>), PullError> {
    let output = BufReader::with_capacity(BUFFER, output);
    let mut preamble = Preamble::new(output, &request.nonce, marker);
    loop {
        match preamble.read_event()? {
            PreambleEvent::End(said) => return Ok((said, preamble.into_input())),
            PreambleEvent::Need(hash, numbers) => {
                let bases = numbers.iter().map(|&number| request.bases.get(number));
                let bases = bases.collect::<Option<Vec<_>>>().ok_or_else(|| {
                    PullError::Refused("it wants hashes of what was not offered".to_owned())
                })?;
                if let Some(connection) = connection {
                    connection.send_beside(delta::hashes(&bases, hash));
                }
            }
            PreambleEvent::Status(text) if text == "mount other" => {
                check_machine(transport, status)?;
            }
            event => status.record(event),
        }
    }
}

/// If `fly` has chosen one of several machines, finds out whether it is the one with the databases.
fn check_machine(transport: &Transport<'_>, status: &RemoteStatus<'_>) -> Result<(), PullError> {
    let Some(chosen) = &status.machine else { return Ok(()) };
    let meant = transport.choose_machine().map_err(PullError::Explained)?;
    if meant == *chosen { Ok(()) } else { Err(PullError::Elsewhere(meant)) }
}

/// Passes each event of an archive to `incoming`.
fn read_archive(
    input: impl BufRead,
    content: Content,
    status: &mut RemoteStatus<'_>,
    incoming: &mut Incoming<'_>,
) -> Result<Received, PullError> {
    let mut archive = Archive::new(input)?;
    let mut events = archive.events(content)?;
    loop {
        match events.read_event()? {
            Event::Index(index) => {
                status.record_index(index);
                incoming.begin(index)?;
            }
            Event::Database(database) => incoming.create(database)?,
            Event::Data { offset, bytes } => incoming.write(offset, bytes)?,
            Event::Complete(database) => incoming.complete(database)?,
            Event::End(received) => {
                incoming.pause();
                return Ok(received);
            }
        }
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
