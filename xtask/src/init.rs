//! What `init` finds in a repository and on the server, and the settings that it makes of it.

pub mod apps;
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

/// A file, the text that it will have, and which lines are new.
pub struct FileChange {
    pub file: PathBuf,
    pub text: String,
    pub added: String,
}

/// A line of `db.toml`.
pub fn setting(key: &str, value: &str) -> String {
    format!("{key} = {}", quoted(value))
}
