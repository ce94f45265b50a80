//! Writes the received databases into a directory.

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context as _, Result};

use crate::fs;
use crate::pull::base::Base;
use crate::pull::error::PullError;
use crate::pull::verify::{Checks, VerifiedDb};
use crate::server::protocol::{Changed, Index, IndexEntry, Received, ReceivedDb};
use crate::server::request::Request;
use crate::snapshots::{Database, FileId};
use crate::ui::{Progress, Ui};

/// Bytes that each database takes besides its file once saved, and the set once recorded: most of
/// it is the `-shm` of the live database.
const BESIDE: u64 = 48 << 10;

pub struct Incoming<'a> {
    ui: &'a Ui,
    request: &'a Request<'a>,
    dir: &'a Path,
    /// Bytes that must stay free on the disk for later steps.
    reserved: u64,
    /// What has arrived over the connection.
    wire: Rc<Cell<u64>>,
    progress: Option<Progress<'a>>,
    open: Option<Open>,
    /// If set, the only databases that may follow, and not as a delta.
    missing: Option<Vec<String>>,
    checks: Checks,
}

/// The database that is being received.
struct Open {
    file: File,
    /// Whether the file was empty, so that zeros need not be written.
    is_new: bool,
    /// The number of bytes that were reported.
    done: u64,
}

impl<'a> Incoming<'a> {
    pub fn new(
        ui: &'a Ui,
        request: &'a Request<'a>,
        dir: &'a Path,
        reserved: u64,
        wire: Rc<Cell<u64>>,
    ) -> Self {
        let (progress, open, missing, checks) = (None, None, None, Checks::default());
        Self { ui, request, dir, reserved, wire, progress, open, missing, checks }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn base(&self, name: &str) -> Option<&'a Base> {
        self.request.bases.iter().find(|base| base.database.name == name)
    }

    /// Hides the progress bar.
    pub fn pause(&mut self) {
        self.progress = None;
    }

    /// Fails if a database was not requested, or the disk is too small.
    pub fn begin(&mut self, index: &Index) -> Result<(), PullError> {
        for &number in &index.same {
            let base = self.request.bases.get(number).filter(|base| base.can_be_same());
            let base = base.filter(|_| self.missing.is_none());
            let is_listed = |base: &&Base| {
                index.databases.iter().any(|listed| listed.name == base.database.name)
            };
            if base.is_none_or(|base| is_listed(&base)) {
                return Err(PullError::Refused(format!("base {number} was not offered")));
            }
        }
        for IndexEntry { name, is_delta, .. } in &index.databases {
            let wanted = match &self.missing {
                Some(missing) => missing.contains(name) && !is_delta,
                None => self.request.settings.names.selects(name, self.request.only),
            };
            if !wanted || (*is_delta && self.base(name).is_none()) {
                return Err(PullError::Refused(format!("{name:?} was not requested")));
            }
        }
        let total =
            index.databases.iter().fold(0_u64, |sum, database| sum.saturating_add(database.bytes));
        // The snapshot, and its copy for the live set.
        let beside = BESIDE * (index.databases.len() as u64 + 1);
        let needed = total.saturating_mul(2).saturating_add(self.reserved + beside);
        let needed = needed.saturating_sub(self.bytes_here(index));
        let free = rustix::fs::statvfs(self.dir)
            .map_or(u64::MAX, |fs| fs.f_bavail.saturating_mul(fs.f_frsize));
        if needed > free {
            return Err(PullError::DiskTooSmall { needed, free });
        }
        self.progress = Some(self.ui.progress(total, self.wire.clone()));
        Ok(())
    }

    /// The bytes that partial bases take: their files become those of the pull, or are removed.
    fn bytes_here(&self, index: &Index) -> u64 {
        let bases = index.databases.iter().filter_map(|database| self.base(&database.name));
        let files = bases.filter(|base| base.is_partial()).map(|base| base.path.metadata());
        files.flatten().map(|file| file.blocks().saturating_mul(512)).sum()
    }

    /// How much a database differs from a part of it says nothing to the user.
    pub fn hide_changes(&self, received: &mut Received) {
        for database in &mut received.databases {
            if self.base(&database.name).is_some_and(Base::is_partial) {
                database.changed = None;
            }
        }
    }

    /// Links the files of the bases of unchanged databases. Files of snapshots are never written.
    ///
    /// # Errors
    ///
    /// A file is gone.
    pub fn link_same(&self, numbers: &[usize]) -> Result<Vec<VerifiedDb>, PullError> {
        let linked = numbers.iter().map(|&number| {
            let Base { path, database, .. } = &self.request.bases[number];
            let to = self.path(&database.name);
            fs::create_parents(self.dir, &database.name)?;
            fs::link(path, &to)?;
            Ok(VerifiedDb {
                database: Database { file: FileId::of(&to).ok(), ..database.clone() },
                sanitized: 0,
                changed: Some(Changed::default()),
            })
        });
        linked.collect()
    }

    /// Replaces the copy of a database whose content is that of its base by a link, which takes no
    /// room. If that fails, the copy stays.
    pub fn share(&self, verified: &mut Database) {
        let base = self.base(&verified.name).filter(|base| base.database.sha256 == verified.sha256);
        let Some(base) = base.filter(|base| base.database.is_recorded(&base.path)) else { return };
        let copy = self.path(&verified.name);
        // No database has such a name: it must not begin with a dot.
        let mut name = std::ffi::OsString::from(".link-");
        name.push(copy.file_name().unwrap_or_default());
        let link = copy.with_file_name(name);
        if std::fs::hard_link(&base.path, &link).is_ok() && std::fs::rename(&link, &copy).is_err() {
            let _ = std::fs::remove_file(&link);
        }
        verified.file = FileId::of(&copy).ok();
    }

    /// Creates the file of a database, for a delta as a copy of its base. A partial base is that
    /// file already.
    pub fn create(&mut self, database: &IndexEntry) -> Result<(), PullError> {
        let IndexEntry { name, bytes, is_delta } = database;
        if let Some(progress) = &mut self.progress {
            let action = if *is_delta { "Updating" } else { "Receiving" };
            progress.file(action, name, *bytes);
        }
        let path = self.path(name);
        fs::create_parents(self.dir, name)?;
        // If the base is missing or too short, the final hash does not match.
        let base = self.base(name).filter(|base| *is_delta && base.path.exists());
        let file = match base {
            Some(base) if base.is_partial() => fs::open(&path)?,
            Some(base) => fs::duplicate(&base.path, &path)?,
            None => {
                fs::remove(&path)?;
                fs::create(&path)?
            }
        };
        if base.is_some() {
            file.set_len(*bytes).context("cannot write what arrives")?;
        }
        self.open = Some(Open { file, is_new: base.is_none(), done: 0 });
        Ok(())
    }

    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), PullError> {
        if let Some(Open { file, is_new, .. }) = &self.open {
            let written = match is_new {
                true => fs::write_sparse(file, offset, bytes),
                false => file.write_all_at(bytes, offset),
            };
            written.context("cannot write the received data")?;
        }
        self.advance_to(offset + bytes.len() as u64);
        Ok(())
    }

    /// Starts the check of the database.
    pub fn complete(&mut self, database: &IndexEntry) -> Result<(), PullError> {
        self.advance_to(database.bytes);
        let base = self.base(&database.name).filter(|_| database.is_delta).cloned();
        if let Some(Open { file, .. }) = self.open.take() {
            // The last pages may be zeros, which were not written.
            file.set_len(database.bytes).context("cannot write the received data")?;
            self.checks.start(&self.path(&database.name), file, base)?;
        }
        Ok(())
    }

    fn advance_to(&mut self, offset: u64) {
        if let (Some(progress), Some(Open { done, .. })) = (&self.progress, &mut self.open) {
            progress.advance(offset - *done);
            *done = offset;
        }
    }

    /// The received databases, in order; `None` for a delta whose result has the wrong hash.
    ///
    /// # Errors
    ///
    /// A database is corrupt.
    pub fn verify(
        &mut self,
        received: &[ReceivedDb],
    ) -> Result<Vec<Option<VerifiedDb>>, PullError> {
        self.checks.finish(self.ui, self.dir, received)
    }

    /// Removes the files of `names`; only these databases may follow, complete.
    ///
    /// # Errors
    ///
    /// A file cannot be removed.
    pub fn expect_whole(&mut self, names: Vec<String>) -> Result<()> {
        for name in &names {
            fs::remove(&self.path(name))?;
        }
        self.missing = Some(names);
        Ok(())
    }

    /// Warns of bases whose files changed since their pull. Those that a cut left may be anything.
    pub fn warn_of_bases(&self, names: &[String]) {
        let bases = names.iter().filter_map(|name| self.base(name));
        for base in bases.filter(|base| !base.is_partial()) {
            let path = base.path.display();
            self.ui.warn(format!(
                "{path} differs from what was pulled: the database is fetched whole"
            ));
        }
    }
}
