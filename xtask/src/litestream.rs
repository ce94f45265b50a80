//! Pulls from the replicas that Litestream keeps of production, without touching production: the
//! program `litestream` restores them into a private directory here, and the rest is the same as for
//! a directory of this machine.

mod config;
mod explain;
mod program;
mod replicas;
mod search;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use jiff::Timestamp;
use tempfile::TempDir;

use self::program::Program;
pub use self::replicas::Wanted;
use self::replicas::{Replica, Replicas};
use crate::config::Settings;
use crate::context::Context;
use crate::each::each;
use crate::error::Failure;
use crate::fs;
use crate::snapshots::LockedStore;
use crate::ui::{bytes, count, escape, several};

/// The number of databases that are restored at a time.
const WORKERS: usize = 4;
const DATABASES: &str = "databases";
/// The number of names in a message.
const SHOWN: usize = 5;

/// The restored databases, which are removed when this is dropped.
pub struct Staged {
    directory: TempDir,
    /// The names of all databases that are replicated.
    pub replicated: Vec<String>,
}

impl Staged {
    /// The directory of the databases.
    pub fn databases(&self) -> PathBuf {
        self.directory.path().join(DATABASES)
    }
}

/// Restores the databases of `wanted` that belong to the set.
///
/// # Errors
///
/// There is no replica of one, or it cannot be restored; the message says up to which moment it can.
pub fn stage(
    cx: &Context,
    settings: &Settings,
    store: &LockedStore,
    wanted: &Wanted<'_>,
) -> Result<Staged> {
    if !settings.allow_local_staging {
        return Err(Failure::usage(
            "allow-local-staging = false in xtask/db.toml: unmasked databases must not be restored here",
        )
        .hint("pull from the server, or from a set that somebody has published")
        .into());
    }
    let directory = store.private_directory()?;
    let program = Program::find(&cx.sh)?;
    let replicas = Replicas::find(&settings.root, directory.path(), wanted)?;
    let names: Vec<_> = replicas.all.iter().map(|replica| replica.name.clone()).collect();
    let selected: Vec<_> =
        replicas.all.iter().filter(|one| settings.names.takes(&one.name, wanted.only)).collect();
    if selected.is_empty() {
        let found = list(&names);
        return Err(Failure::new(format!("no replica in {} matches: {found}", replicas.place))
            .hint("check include, exclude and --only")
            .into());
    }
    let databases = directory.path().join(DATABASES);
    fs::create_dir(&databases)?;
    let databases_of = count(selected.len(), "database");
    let step = cx.ui.step("Restoring", Some("Restored"), format!("{databases_of} with Litestream"));
    let size = AtomicU64::new(0);
    restore_all(&program, &selected, &databases, wanted.at, &|more| {
        let size = more + size.fetch_add(more, Ordering::Relaxed);
        step.note(bytes(size));
    })?;
    step.finish();
    let size = bytes(size.into_inner());
    cx.ui.verbose(format!("restored {size} into {}", databases.display()));
    Ok(Staged { directory, replicated: names })
}

/// Restores several at a time; the first error ends all.
fn restore_all(
    program: &Program,
    selected: &[&Replica],
    dir: &Path,
    at: Option<Timestamp>,
    arrived: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    for replica in selected {
        fs::create_parents(dir, &replica.name)?;
    }
    each(WORKERS, selected, |replica| {
        program.restore(replica, &dir.join(&replica.name), at, arrived)
    })?;
    Ok(())
}

/// A few names, for a message.
fn list(names: &[String]) -> String {
    if names.is_empty() { "it has none".to_owned() } else { escape(&several(names, SHOWN)) }
}

/// Names databases that no replica has, and that stay as they are.
pub fn describe_missing(names: &[String]) -> String {
    format!("Litestream does not replicate {}: left as it is here", list(names))
}
