//! The machine that was measured on.

use anyhow::Result;
use serde::Serialize;
use xshell::{Shell, cmd};
use xtask_db::internals::ui::bytes;

#[derive(Debug, Serialize)]
pub struct Machine {
    pub cores: usize,
    /// In bytes, where the system tells.
    pub memory: Option<u64>,
    pub kernel: String,
    /// The versions of the server's `sqlite3`, and of the library in `pull-db`.
    pub sqlite_server: String,
    pub sqlite_client: String,
}

impl Machine {
    /// # Errors
    ///
    /// A program does not say what it should.
    pub fn read(sh: &Shell) -> Result<Self> {
        let sqlite = cmd!(sh, "sqlite3 --version").quiet().read()?;
        let db = rusqlite::Connection::open_in_memory()?;
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Ok(Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory: total(&meminfo),
            kernel: cmd!(sh, "uname -sr").quiet().read()?,
            sqlite_server: sqlite.split(' ').next().unwrap_or_default().to_owned(),
            sqlite_client: db.query_row("SELECT sqlite_version()", [], |row| row.get(0))?,
        })
    }

    /// Reads as `2 cores, 25.3 GB, Linux 6.1.0, SQLite 3.40.1 on the server and 3.51.0 here`.
    pub fn describe(&self) -> String {
        let Self { cores, memory, kernel, sqlite_server, sqlite_client } = self;
        let memory = memory.map(|memory| format!("{}, ", bytes(memory))).unwrap_or_default();
        format!(
            "{cores} cores, {memory}{kernel}, SQLite {sqlite_server} on the server and {sqlite_client} here"
        )
    }
}

/// Linux says it in `MemTotal:  24683892 kB`, of 1024 bytes each.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_memory_is_read() {
        assert_eq!(total("MemTotal:       2000 kB\nMemFree: 1 kB\n"), Some(2_048_000));
        assert_eq!(total(""), None);
    }
}
