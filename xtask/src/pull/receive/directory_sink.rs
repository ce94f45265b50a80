//! Writes what arrives into a directory, and checks it beside.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use glob::Pattern;

use crate::config::Names;
use crate::error::Failure;
use crate::pull::delta::Base;
use crate::sanitize::audit::{Finding, Findings};
use crate::sanitize::unmatched::Unmatched;
use crate::server::protocol::{
    Changed, Error, Index, IndexEntry, Preamble, Received, ReceivedDb, Sink,
};
use crate::server::request::Request;
use crate::server::transport::checked;
use crate::snapshots::Database;
use crate::sqlite::{self, Description};
use crate::ui::{Progress, Spinner, Ui, bytes, count, escape};
use crate::{fs, interrupt};

/// How many files are checked at a time, while the next one arrives.
const CHECKS: usize = 2;

/// What a database takes beside its file when it is saved, and the set when it is
/// recorded, in bytes: most of it is the `-shm` of the one that is live.
const BESIDE: u64 = 48 << 10;

/// So many tables of a database are named.
const UNCHECKED: usize = 5;

/// A database that arrived.
pub struct VerifiedDb {
    pub database: Database,
    /// How many rows the rules changed.
    pub sanitized: u64,
    /// What differs from its base; none where it came whole.
    pub changed: Option<Changed>,
}

pub struct DirectorySink<'a> {
    ui: &'a Ui,
    names: &'a Names,
    only: Option<&'a Pattern>,
    bases: &'a [Base],
    pub dir: &'a Path,
    reserved: u64,
    pub machine: Option<String>,
    pub region: Option<String>,
    pub findings: Findings,
    pub unmatched: Vec<Unmatched>,
    pub working: Option<Spinner>,
    progress: Option<Progress<'a>>,
    /// The only ones that may come, and whole, after the first time.
    missing: Option<Vec<String>>,
    checks: VecDeque<JoinHandle<Result<Check>>>,
    checked: Vec<Check>,
}

/// What a look at one that arrived has found.
struct Check {
    /// Only of what was put together, as the stream does not know it.
    sha256: Option<String>,
    /// An error is told only when the hash is proven, which knows what was damaged
    /// on the way.
    description: Result<Description>,
}

impl<'a> DirectorySink<'a> {
    pub fn new(
        ui: &'a Ui,
        names: &'a Names,
        request: &'a Request<'a>,
        dir: &'a Path,
        reserved: u64,
    ) -> Self {
        Self {
            ui,
            names,
            only: request.only,
            bases: &request.bases,
            dir,
            reserved,
            machine: None,
            region: None,
            findings: Findings::default(),
            unmatched: Vec::new(),
            working: None,
            progress: None,
            missing: None,
            checks: VecDeque::new(),
            checked: Vec::new(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn base(&self, name: &str) -> Option<&'a Base> {
        self.bases.iter().find(|base| base.database.name == name)
    }

    pub fn quiet_down(&mut self) {
        self.working = None;
        self.progress = None;
    }

    /// Removes what came of these: they come once more, and nothing else does.
    ///
    /// # Errors
    ///
    /// What came of them cannot be removed.
    pub fn expect_whole(&mut self, names: Vec<String>) -> Result<()> {
        for name in &names {
            fs::remove(&self.path(name))?;
        }
        self.missing = Some(names);
        Ok(())
    }

    /// Says of these that what is here of them will not do.
    pub fn warn_of_bases(&self, names: &[String], what_happens: &str) {
        for base in names.iter().filter_map(|name| self.base(name)) {
            let path = base.path.display();
            self.ui.warn(format!("{path} is not what was pulled, so all of it {what_happens}"));
        }
    }

    /// Of what would come: a database is unchanged only if what is here of it is, too.
    ///
    /// # Errors
    ///
    /// This process was asked to end.
    pub fn verify_bases(&self, databases: &mut [ReceivedDb]) -> Result<()> {
        for database in databases {
            if database.changed == Some(Changed::default())
                && let Some(base) = self.base(&database.name)
            {
                let found = fs::sha256(&base.path);
                interrupt::check()?;
                if found.ok() != base.database.sha256 {
                    self.warn_of_bases(std::slice::from_ref(&database.name), "will be fetched");
                    database.changed = None;
                }
            }
        }
        Ok(())
    }

    fn collect_check(&mut self) -> Result<()> {
        if let Some(check) = self.checks.pop_front() {
            let panicked = |_| Err(anyhow::anyhow!("a check panicked"));
            self.checked.push(interrupt::beside(|| check.join())?.unwrap_or_else(panicked)?);
        }
        Ok(())
    }

    /// Where a database that is damaged here was damaged: its hash proves how it came.
    fn explain(&self, database: &ReceivedDb) -> Failure {
        let path = self.path(&database.name);
        if fs::sha256(&path).is_ok_and(|sha256| sha256 == database.sha256) {
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

    fn warn_of_unchecked(&self, name: &str, unchecked: &[String]) {
        if unchecked.is_empty() {
            return;
        }
        let shown = &unchecked[..unchecked.len().min(UNCHECKED)];
        let (tables, rest) = (escape(&shown.join(", ")), unchecked.len() - shown.len());
        let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        self.ui.warn(format!(
            "{}: {tables}{more} could not be checked: a function, collation, module or tokenizer of the app is missing here",
            escape(name)
        ));
    }

    /// All that came, in its order; none for one that was put together and is not
    /// what the server has.
    ///
    /// # Errors
    ///
    /// One is damaged.
    pub fn verify(&mut self, received: &Received) -> Result<Vec<Option<VerifiedDb>>> {
        while !self.checks.is_empty() {
            self.collect_check()?;
        }
        let checked = std::mem::take(&mut self.checked);
        let arrived = checked.into_iter().zip(&received.databases).map(|(check, database)| {
            if check.sha256.is_some_and(|sha256| sha256 != database.sha256) {
                return Ok(None);
            }
            let found = check.description.map_err(|error| error.context(self.explain(database)))?;
            let ReceivedDb { name, bytes, sha256, sanitized, changed } = database.clone();
            let Description { page_size, user_version, schema, unchecked } = found;
            self.warn_of_unchecked(&database.name, &unchecked);
            let sha256 = Some(sha256);
            let (damaged, unsanitized, raw) = (false, false, false);
            let database = Database {
                name,
                bytes,
                sha256,
                page_size,
                user_version,
                schema,
                damaged,
                unsanitized,
                raw,
            };
            Ok(Some(VerifiedDb { database, sanitized, changed }))
        });
        arrived.collect()
    }
}

impl Preamble for DirectorySink<'_> {
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
        if let Some(rule) = text.strip_prefix("unmatched-rule ") {
            self.unmatched.extend(Unmatched::parse(rule));
            return;
        }
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
            ["whole"] => {
                self.ui.hint("the server's sqlite3 cannot compare, and all of each database comes: 3.39 or newer can");
                None
            }
            ["unlooked", why] => {
                let why = match why {
                    "grep" => "the server has no GNU grep (apk add grep)",
                    "many" => "they are very many (and of more than 200,000 only so many)",
                    _ => "their database is in UTF-16",
                };
                self.ui
                    .hint(format!("what rules removed was looked for as whole values only: {why}"));
                None
            }
            ["auditing"] => Some(self.ui.working("Auditing", "the copies on the server")),
            ["comparing"] => Some(self.ui.working("Comparing", "the copies with an earlier pull")),
            ["packing"] => Some(self.ui.working("Packing", "on the server")),
            _ => None,
        };
    }

    fn finding(&mut self, finding: Finding) {
        self.findings.columns.push(finding);
    }

    fn more_findings(&mut self, more: u64) {
        self.findings.more = more;
    }
}

impl Sink for DirectorySink<'_> {
    type File = File;

    fn index(&mut self, index: &Index) -> Result<(), Error> {
        for database in &index.databases {
            let wanted = match &self.missing {
                Some(missing) => missing.contains(&database.name) && !database.parts,
                None => self.names.selects(&database.name, self.only),
            };
            if !wanted || (database.parts && self.base(&database.name).is_none()) {
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

    fn create(&mut self, database: &IndexEntry) -> io::Result<File> {
        if let Some(progress) = &self.progress {
            // Who reads its size must not take all of it for what comes.
            let action = if database.parts { "Updating" } else { "Receiving" };
            progress.file(action, &database.name, database.bytes);
        }
        let path = self.path(&database.name);
        match self.base(&database.name).filter(|_| database.parts) {
            // A base that is gone or too short fits nothing, as its hash will show.
            Some(base) if base.path.exists() => {
                let file = fs::duplicate(&base.path, &path).map_err(io_error)?;
                file.set_len(database.bytes)?;
                Ok(file)
            }
            _ => fs::create(&path).map_err(io_error),
        }
    }

    fn advance(&mut self, bytes: u64) {
        if let Some(progress) = &self.progress {
            progress.advance(bytes);
        }
    }

    fn patch(&mut self, file: &mut File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn finish(&mut self, database: &IndexEntry, file: File) -> io::Result<()> {
        if self.checks.len() >= CHECKS {
            self.collect_check().map_err(io::Error::other)?;
        }
        let path = self.path(&database.name);
        let base = self.base(&database.name).filter(|_| database.parts).cloned();
        self.checks.push_back(std::thread::spawn(move || check(&path, &file, base)));
        Ok(())
    }
}

fn check(path: &Path, file: &File, base: Option<Base>) -> Result<Check> {
    file.sync_all().with_context(|| format!("cannot sync {}", path.display()))?;
    let Some(Base { database: base, .. }) = base else {
        return Ok(Check { sha256: None, description: sqlite::check(path) });
    };
    let sha256 = Some(fs::sha256(path)?);
    // What was sound is so still.
    let description = if sha256 == base.sha256 {
        let Database { page_size, user_version, schema, .. } = base;
        Ok(Description { page_size, user_version, schema, unchecked: Vec::new() })
    } else {
        sqlite::check(path)
    };
    Ok(Check { sha256, description })
}

/// The cause, so that a full disk is known as one.
fn io_error(error: anyhow::Error) -> io::Error {
    match error.downcast::<io::Error>() {
        Ok(error) => error,
        Err(error) => io::Error::other(error),
    }
}
