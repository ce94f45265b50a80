//! Receives the databases of a server into a directory, and proves them.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use glob::Pattern;

use crate::error::Failure;
use crate::server::{self, Mode, Request};
use crate::settings::{Names, Settings};
use crate::sqlite::{self, Description};
use crate::stream::{self, Announced, Delivered, Error, Index, Received, Sink};
use crate::transport::{Connection, Transport, checked, quoted};
use crate::ui::{Progress, Ui, Working, bytes, count, escape};
use crate::{durable, interrupt, snapshots};

/// How many files are checked at a time, while the next one arrives.
const CHECKS: usize = 2;

/// What a database takes beside its file when it is saved, and the set when it is
/// recorded, in bytes: most of it is the `-shm` of the one that is live.
const BESIDE: u64 = 48 << 10;

/// What arrived, and how.
pub struct Pulled {
    pub databases: Vec<snapshots::Database>,
    /// How many rows the rules changed, for each database.
    pub sanitized: Vec<u64>,
    pub timings: stream::Timings,
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
    let message = request.render(settings)?;
    let wire = Rc::new(Cell::new(0));
    let mut receiver = Receiver::new(ui, &settings.names, request.only, dir, reserved);
    let connecting = format!("to {}", transport.peer());
    if transport.may_ask() {
        // A spinner would draw over its question.
        ui.status("Connecting", connecting);
    } else {
        receiver.working = Some(ui.working("Connecting", connecting));
    }

    let mut connection = transport.start(ui)?;
    connection.send(&message);
    transport.wait_for_a_sign(&connection)?;
    let output = Counted { inner: connection.take_output(), count: wire.clone() };
    let outcome = match request.mode {
        Mode::Stream => stream::read(output, &request.nonce, &mut receiver),
        Mode::Archive => match stream::find_archive(output, &request.nonce, &mut receiver) {
            Ok((machine, path)) => {
                // No database is called so: names must not begin with a dot.
                let archive = dir.join(".archive");
                transport.target.machine = machine.or_else(|| receiver.machine.clone());
                receiver.working = Some(ui.working("Fetching", escape(&path)));
                transport.sftp_get(ui, &path, &archive)?;
                let file = File::open(&archive)
                    .with_context(|| format!("cannot open {}", archive.display()))?;
                let file = Counted { inner: file, count: wire.clone() };
                let outcome = stream::read_archive(BufReader::new(file), &mut receiver);
                durable::remove(&archive)?;
                outcome
            }
            Err(error) => Err(error),
        },
    };
    receiver.quiet_down();
    match outcome {
        Ok(received) if request.sanitize && !settings.rules.is_empty() && !received.sanitized => {
            Err(Failure::new("the server applied no rules; nothing was changed")
                .hint("run the same command again")
                .into())
        }
        Ok(received) => receiver.prove(received, wire.get()),
        Err(error) => Err(explain(error, transport, connection, wire.get(), dir)),
    }
}

/// Turns an error of the stream into what a person can act on.
fn explain(
    error: Error,
    transport: &Transport<'_>,
    connection: Connection,
    wire: u64,
    dir: &Path,
) -> anyhow::Error {
    // Only where the stream ended by itself may the program know why.
    let said = match error {
        Error::NoStream | Error::Cut => connection.last_words(),
        _ => String::new(),
    };
    let failure = match error {
        Error::Server { code, text } => server::failure(&code, &text),
        Error::NoStream if wire == 0 => transport.diagnose(&said),
        Error::NoStream => transport.explain(&said),
        Error::Cut => Failure::new(format!(
            "the connection was cut after {wire} bytes, before the end record; nothing was changed{}",
            quoted(&said)
        ))
        .hint("run the same command again"),
        Error::Local(error) if error.kind() == io::ErrorKind::StorageFull => {
            Failure::new(format!("the disk of {} is full; nothing was changed", dir.display()))
                .hint("free some: cargo xtask snapshots prune --keep 3")
        }
        Error::Refused(_) => Failure::new(format!("{error}; nothing was changed"))
            .hint("run the same command again, with -v to see what the server says"),
        Error::Local(_) => {
            Failure::new(format!("{error}, in {}; nothing was changed", dir.display()))
        }
    };
    failure.into()
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

/// Writes what arrives, and checks it beside.
struct Receiver<'a> {
    ui: &'a Ui,
    names: &'a Names,
    only: Option<&'a Pattern>,
    dir: &'a Path,
    reserved: u64,
    machine: Option<String>,
    region: Option<String>,
    working: Option<Working>,
    progress: Option<Progress<'a>>,
    checks: VecDeque<JoinHandle<Result<Description>>>,
    /// Told only when the stream is proven, whose hashes know what was damaged on the way.
    checked: Vec<Result<Description>>,
}

impl<'a> Receiver<'a> {
    fn new(
        ui: &'a Ui,
        names: &'a Names,
        only: Option<&'a Pattern>,
        dir: &'a Path,
        reserved: u64,
    ) -> Self {
        Self {
            ui,
            names,
            only,
            dir,
            reserved,
            machine: None,
            region: None,
            working: None,
            progress: None,
            checks: VecDeque::new(),
            checked: Vec::new(),
        }
    }

    fn path(&self, database: &Announced) -> PathBuf {
        self.dir.join(&database.name)
    }

    fn quiet_down(&mut self) {
        self.working = None;
        self.progress = None;
    }

    fn collect_check(&mut self) -> Result<()> {
        if let Some(check) = self.checks.pop_front() {
            let panicked = |_| Err(anyhow::anyhow!("a check panicked"));
            self.checked.push(interrupt::beside(|| check.join())?.unwrap_or_else(panicked));
        }
        Ok(())
    }

    /// Where a database that is damaged here was damaged: its hash proves how it came.
    fn blame(&self, database: &Delivered) -> Failure {
        let path = self.dir.join(&database.name);
        if durable::sha256(&path).is_ok_and(|sha256| sha256 == database.sha256) {
            return Failure::new(
                "what the server sent is whole, but damaged on the server already; nothing was changed",
            )
            .hint("on the server: sqlite3 FILE 'PRAGMA integrity_check'");
        }
        Failure::new(format!(
            "{} cannot be read as it arrived; nothing was changed",
            path.display()
        ))
        .hint("look whether this disk is broken")
    }

    fn prove(mut self, received: Received, wire_bytes: u64) -> Result<Pulled> {
        while !self.checks.is_empty() {
            self.collect_check()?;
        }
        let found = std::mem::take(&mut self.checked).into_iter().zip(&received.databases);
        let checked = found
            .map(|(found, database)| found.map_err(|error| error.context(self.blame(database))))
            .collect::<Result<Vec<_>>>()?;
        durable::sync(self.dir)?;
        let sanitized = received.databases.iter().map(|database| database.sanitized).collect();
        let databases = received.databases.into_iter().zip(checked).map(|(database, found)| {
            snapshots::Database {
                name: database.name,
                bytes: database.bytes,
                sha256: Some(database.sha256),
                page_size: found.page_size,
                user_version: found.user_version,
                schema: found.schema,
                damaged: false,
            }
        });
        Ok(Pulled {
            databases: databases.collect(),
            sanitized,
            timings: received.timings,
            machine: self.machine,
            region: self.region,
            wire_bytes,
        })
    }
}

impl Sink for Receiver<'_> {
    type File = File;

    fn talk(&mut self, line: &str) {
        self.ui.verbose(escape(line));
        // `fly` chose among several machines, and says so among the data.
        let words: Vec<_> = line.split(' ').collect();
        if let ["No", "machine", "specified,", "using", machine, "in", "region", region] = words[..]
            && [machine, region].iter().all(|word| checked(word, "-").is_ok())
        {
            self.machine = Some(machine.to_owned());
            self.region = Some(region.to_owned());
        }
    }

    fn status(&mut self, text: &str) {
        let words: Vec<_> = text.split(' ').collect();
        self.working = None;
        self.working = match words[..] {
            ["copying", n, size] => {
                let (n, size) = (n.parse().unwrap_or(0), size.parse().unwrap_or(0));
                Some(self.ui.working(
                    "Copying",
                    format!("{} on the server ({})", count(n, "database"), bytes(size)),
                ))
            }
            ["sanitizing"] => Some(self.ui.working("Sanitizing", "the copies on the server")),
            ["packing"] => Some(self.ui.working("Packing", "on the server")),
            _ => None,
        };
    }

    fn index(&mut self, index: &Index) -> Result<(), Error> {
        for database in &index.databases {
            if !self.names.selects(&database.name, self.only) {
                return Err(Error::Refused(format!("{:?} was not asked for", database.name)));
            }
        }
        let total =
            index.databases.iter().fold(0_u64, |sum, database| sum.saturating_add(database.bytes));
        // The snapshot, and the copy of it that becomes the live set.
        let beside = BESIDE * (index.databases.len() as u64 + 1);
        let needed = total.saturating_mul(2).saturating_add(self.reserved + beside);
        let free = rustix::fs::statvfs(self.dir)
            .map_or(u64::MAX, |fs| fs.f_bavail.saturating_mul(fs.f_frsize));
        if needed > free {
            let why = format!("{} are needed and {} are free", bytes(needed), bytes(free));
            return Err(Error::Local(io::Error::new(io::ErrorKind::StorageFull, why)));
        }
        self.machine = index.machine.clone().or_else(|| self.machine.take());
        self.region = index.region.clone().or_else(|| self.region.take());
        self.ui.verbose(format!("the server has SQLite {}", escape(&index.sqlite)));
        self.working = None;
        self.progress = Some(self.ui.progress(total));
        Ok(())
    }

    fn create(&mut self, database: &Announced) -> io::Result<File> {
        if let Some(progress) = &self.progress {
            progress.file(&database.name, database.bytes);
        }
        durable::create(&self.path(database)).map_err(io_error)
    }

    fn advance(&mut self, bytes: u64) {
        if let Some(progress) = &self.progress {
            progress.advance(bytes);
        }
    }

    fn finish(&mut self, database: &Announced, file: File) -> io::Result<()> {
        file.sync_all()?;
        drop(file);
        if self.checks.len() >= CHECKS {
            self.collect_check().map_err(io::Error::other)?;
        }
        let path = self.path(database);
        self.checks.push_back(std::thread::spawn(move || sqlite::check(&path)));
        Ok(())
    }
}

/// The cause, so that a full disk is known as one.
fn io_error(error: anyhow::Error) -> io::Error {
    match error.downcast::<io::Error>() {
        Ok(error) => error,
        Err(error) => io::Error::other(error),
    }
}
