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

use crate::sanitize::audit::quoted;

/// A file, and the text that it has and will have.
pub struct FileChange {
    pub file: PathBuf,
    pub old: String,
    pub text: String,
}

impl FileChange {
    /// The lines that it does not have yet.
    pub fn added(&self) -> String {
        lines_without(&self.text, &self.old)
    }

    /// The lines that it will not have any more.
    pub fn removed(&self) -> String {
        lines_without(&self.old, &self.text)
    }
}

/// The lines of `text` without those of `other`: one that is in `text` more often is new at the end.
fn lines_without(text: &str, other: &str) -> String {
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
