//! Runs `litestream`, 0.5 or newer. Credentials are in its own variables and files.

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::Deserialize;
use xshell::{Shell, cmd};

use super::explain::{self, Moments};
use super::replicas::{Place, Replica};
use crate::error::Failure;
use crate::interrupt;
use crate::server::programs;

/// How long nothing may arrive: the program itself would try forever.
const STALL: Duration = Duration::from_secs(60);

pub struct Program {
    directory: std::path::PathBuf,
}

/// A line of `litestream ltx`.
#[derive(Deserialize)]
struct Ltx {
    level: u32,
    min_txid: String,
    max_txid: String,
    /// In whole seconds.
    timestamp: Timestamp,
}

impl Program {
    /// # Errors
    ///
    /// It is not installed, or too old.
    pub fn find(sh: &Shell) -> Result<Self> {
        if programs::find(sh, "litestream").is_none() {
            return Err(Failure::new("litestream is not installed here")
                .hint("https://litestream.io/install, or brew install litestream; 0.5 or newer")
                .into());
        }
        let output = interrupt::output(cmd!(sh, "litestream version").quiet().ignore_status())?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let mut parts = version.trim_start_matches('v').split('.').map(str::parse::<u32>);
        let old = matches!((parts.next(), parts.next()), (Some(Ok(0)), Some(Ok(0..5))));
        if old {
            return Err(Failure::new(format!("litestream here is {version}, and 0.5 is needed"))
                .hint("https://litestream.io/install; it reads what 0.3 has written")
                .into());
        }
        Ok(Self { directory: sh.current_dir() })
    }

    fn shell(&self) -> Result<Shell> {
        let sh = Shell::new()?;
        sh.change_dir(&self.directory);
        Ok(sh)
    }

    /// Restores a replica to a new file. `arrived` is told of more bytes of it, from time to time.
    ///
    /// # Errors
    ///
    /// There is nothing to restore at that moment, or the program fails.
    pub fn restore(
        &self,
        replica: &Replica,
        to: &Path,
        at: Option<Timestamp>,
        arrived: &dyn Fn(u64),
    ) -> Result<()> {
        let until = at.map(|at| self.until(replica, at)).transpose()?;
        let until = until.unwrap_or_default();
        let sh = self.shell()?;
        let from = replica.place.args();
        let command = cmd!(sh, "litestream restore -o {to} {until...} {from...}");
        let said = run(command.quiet().ignore_status(), to, arrived)?;
        match said {
            None => {
                // It has made the file readable for all.
                std::fs::set_permissions(to, std::os::unix::fs::PermissionsExt::from_mode(0o600))
                    .with_context(|| format!("cannot restrict {}", to.display()))
            }
            Some(said) => {
                let moments = || self.list(replica).ok().and_then(|all| moments(&all));
                Err(explain::failure(replica, &said, at, moments).into())
            }
        }
    }

    /// The flags that restore a moment. The program refuses one after the last transaction: then
    /// that one is the state.
    fn until(&self, replica: &Replica, at: Timestamp) -> Result<Vec<String>> {
        let all = self.list(replica)?;
        let last = all.iter().max_by(|a, b| a.max_txid.cmp(&b.max_txid));
        match last {
            Some(last) if at.as_second() > last.timestamp.as_second() => {
                Ok(vec!["-txid".to_owned(), last.max_txid.clone()])
            }
            // What 0.3 has written is not listed.
            _ => Ok(vec!["-timestamp".to_owned(), at.to_string()]),
        }
    }

    fn list(&self, replica: &Replica) -> Result<Vec<Ltx>> {
        let sh = self.shell()?;
        let from = replica.place.args();
        let command = cmd!(sh, "litestream ltx -level all -json {from...}");
        let output = interrupt::output(command.quiet().ignore_status())?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(explain::failure(replica, &said, None, || None).into());
        }
        // Without any file it prints null.
        let all: Option<Vec<Ltx>> = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("cannot read what litestream lists of {}", replica.name))?;
        Ok(all.unwrap_or_default())
    }
}

/// The moments that can be restored: from the first whole state to the last transaction.
fn moments(all: &[Ltx]) -> Option<Moments> {
    const SNAPSHOT: u32 = 9;
    let is_whole =
        |one: &&Ltx| one.level == SNAPSHOT || one.min_txid.trim_start_matches('0') == "1";
    let first = all.iter().filter(is_whole).map(|one| one.timestamp).min()?;
    let last = all.iter().map(|one| one.timestamp).max()?;
    Some(Moments { first, last })
}

/// Runs the program, and ends it if nothing arrives; returns what it said if it failed.
fn run(command: xshell::Cmd<'_>, to: &Path, arrived: &dyn Fn(u64)) -> Result<Option<String>> {
    let (silence, known) = (Cell::new(Duration::ZERO), Cell::new(0));
    let stalls = |wait: Duration| {
        let size = size_at(to);
        let before = known.replace(size);
        arrived(size.saturating_sub(before));
        silence.set(if size == before { silence.get() + wait } else { Duration::ZERO });
        silence.get() > STALL
    };
    let output = interrupt::output_unless(command, stalls)?;
    let Some(output) = output else {
        return Ok(Some(format!("no sign of it for {} s", STALL.as_secs())));
    };
    arrived(size_at(to).saturating_sub(known.get()));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((!output.status.success() || !to.exists()).then_some(said))
}

/// The bytes that were written so far: at first to a file of this name.
fn size_at(to: &Path) -> u64 {
    let mut growing = to.as_os_str().to_owned();
    growing.push(".tmp");
    let file = to.metadata().or_else(|_| Path::new(&growing).metadata());
    file.map_or(0, |file| file.len())
}

impl Place {
    /// The arguments that name it.
    fn args(&self) -> Vec<String> {
        match self {
            Self::Url(url) => vec![url.clone()],
            Self::Configured { file, path } => {
                vec!["-config".to_owned(), file.display().to_string(), path.clone()]
            }
        }
    }
}
