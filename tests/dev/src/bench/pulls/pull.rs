//! `pull-db`, run as a user does, and what it says of itself.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;
use xtask_db::internals::resources::ResourceUsage;

use super::rules;
use super::source::remove;
use super::stages::{self, Stage};

/// The program under test.
pub struct Program {
    xtask: PathBuf,
    /// Settings with rules.
    pub config: PathBuf,
}

/// What a pull says of itself.
#[derive(Debug, Default)]
pub struct Pulled {
    /// The most memory that it had, in bytes.
    pub memory: Option<u64>,
    pub stages: Vec<Stage>,
}

impl Program {
    /// Writes its settings into the new directory `repository`.
    ///
    /// # Errors
    ///
    /// They cannot be written.
    pub fn new(xtask: PathBuf, repository: &Path) -> Result<Self> {
        remove(repository)?;
        std::fs::create_dir_all(repository)?;
        let config = repository.join("db.toml");
        std::fs::write(&config, rules::SETTINGS)?;
        Ok(Self { xtask, config })
    }

    /// The command line, of which `via`, the settings and the data directory vary.
    pub fn command(&self, via: &str, config: &Path, data: &Path) -> Vec<OsString> {
        let mut words = vec![self.xtask.clone().into_os_string()];
        words.extend(["pull-db", "--yes", "--verbose", "--via", via].map(OsString::from));
        for (flag, path) in [("--config", config), ("--local-dir", data)] {
            words.extend([flag.into(), path.into()]);
        }
        words
    }
}

impl Pulled {
    /// Reads standard error.
    pub fn parse(said: &str) -> Self {
        let memory = said.lines().find_map(|line| line.parse::<ResourceUsage>().ok()?.memory);
        Self { memory, stages: stages::parse(said) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_stages_are_read_among_other_lines() {
        let said = "   Pulled 3 databases\n    on the server: copy 12 ms, hash 0 ms\n\
                    \x20   took 0.41 s, 18.3 MB of memory at most\n";
        let pulled = Pulled::parse(said);
        assert_eq!(pulled.memory, Some(18_300_000));
        assert_eq!(stages::describe(&pulled.stages), "server: copy 12 ms, hash 0 ms");
        assert_eq!(Pulled::parse("").memory, None);
    }
}
