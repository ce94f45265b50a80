//! A database of an earlier pull, by which the server sends less.

use std::path::{Path, PathBuf};

use crate::snapshots::{Database, RemoteState};

#[derive(Clone, Debug)]
pub struct Base {
    pub path: PathBuf,
    /// As it was when it was pulled.
    pub database: Database,
    /// The run of the server's kernel within which its `remote` state means something; none
    /// where that must not stand for a new pull.
    pub boot: Option<String>,
    /// Whether its unused bytes are zero, as this pull would zero them.
    pub scrubbed: bool,
}

impl Base {
    /// None where the server could not compare anything with it.
    pub fn new(
        dir: &Path,
        database: &Database,
        made_alike: bool,
        boot: Option<&str>,
    ) -> Option<Self> {
        let usable = database.bytes > 0 && database.sha256.is_some() && !database.damaged;
        let path = dir.join(&database.name);
        // One that may have been written to since has to be hashed.
        let boot = boot.filter(|_| database.remote.is_some() && database.is_recorded(&path));
        let boot = boot.map(str::to_owned);
        let scrubbed = made_alike && database.scrubbed;
        usable.then(|| Self { path, database: database.clone(), boot, scrubbed })
    }

    /// A part of a database, which arrived by a pull that was cut: nothing is known of it, and the
    /// pull writes into its file.
    pub fn partial(dir: &Path, database: Database) -> Self {
        Self { path: dir.join(&database.name), database, boot: None, scrubbed: false }
    }

    pub fn is_partial(&self) -> bool {
        self.database.sha256.is_none()
    }

    /// Whether the server may say that the database has not changed since.
    pub fn can_be_same(&self) -> bool {
        self.boot.is_some()
    }

    /// As `add_base` of `ops-remote/unchanged.sh` takes it.
    pub fn line(&self) -> String {
        let Database { name, bytes, page_size, sha256, remote, .. } = &self.database;
        let sha256 = sha256.as_deref().unwrap_or("-");
        let remote = remote.as_ref().filter(|_| self.can_be_same());
        let (state, matched) = remote.map_or(("-", "-/-"), |it| (&it.state, &it.matched));
        let scrubbed = u8::from(self.scrubbed);
        format!("{sha256} {bytes} {page_size} {scrubbed} {state} {matched}//{name}")
    }

    /// What the audit found in it, as `reuse_findings` of `ops-remote/audit.sh` takes it.
    pub fn findings(&self, number: usize) -> Vec<String> {
        let remote = self.database.remote.as_ref().filter(|_| self.can_be_same());
        let found = remote.iter().flat_map(|remote: &&RemoteState| remote.found.split(';'));
        let found = found.filter(|line| !line.is_empty());
        found.map(|line| format!("{number} {line}\n")).collect()
    }
}
