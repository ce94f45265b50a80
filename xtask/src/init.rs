//! What `init` finds in a repository and on the server, and the settings that it makes of it.

pub mod apps;
pub mod commit;
pub mod extend;
mod files;
pub mod ignore;
mod passwords;
pub mod propose;
pub mod servers;
pub mod survey;
mod surveyed;
pub mod tables;

use std::path::PathBuf;

use anyhow::Result;

use crate::error::Failure;
use crate::fs;
use crate::sanitize::audit::quoted;

/// A file, and the content that it has and will have. An ignore file may name files that are not
/// called in UTF-8.
pub struct FileChange {
    pub file: PathBuf,
    pub old: Vec<u8>,
    pub new: Vec<u8>,
}

impl FileChange {
    /// The lines that it does not have yet.
    pub fn added(&self) -> String {
        lines_without(&self.new, &self.old)
    }

    /// The lines that it will not have any more.
    pub fn removed(&self) -> String {
        lines_without(&self.old, &self.new)
    }

    /// # Errors
    ///
    /// Somebody has changed the file meanwhile.
    pub fn check(&self) -> Result<()> {
        if fs::read(&self.file)?.unwrap_or_default() == self.old {
            return Ok(());
        }
        let what = format!("{} has changed meanwhile; nothing was written", self.file.display());
        Err(Failure::new(what).hint("cargo xtask init").into())
    }
}

/// The lines of `text` without those of `other`: one that is in `text` more often is new at the end.
fn lines_without(text: &[u8], other: &[u8]) -> String {
    let (text, other) = (String::from_utf8_lossy(text), String::from_utf8_lossy(other));
    let mut others: Vec<_> = other.lines().collect();
    let is_new = |line: &&str| match others.iter().position(|it| it == line) {
        Some(i) => {
            others.swap_remove(i);
            false
        }
        None => true,
    };
    text.lines().filter(is_new).map(|line| format!("{line}\n")).collect()
}

/// A line of `db.toml`.
pub fn setting(key: &str, value: &str) -> String {
    format!("{key} = {}", quoted(value))
}
