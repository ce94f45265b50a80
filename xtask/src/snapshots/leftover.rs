//! What arrived of a pull that did not end: the next pull of the same source resumes from it. It is
//! the directory of that pull, in which `snapshot.json` already says what it is of.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};

use super::snapshot::{Database, Kind, META, Meta, Origin};
use crate::fs;
use crate::pages::Header;

/// A leftover of this age is removed: nobody seems to pull again, and production has moved on.
const LIFETIME: SignedDuration = SignedDuration::from_hours(7 * 24);

pub struct Leftover {
    pub path: PathBuf,
    pub origin: Origin,
    /// Those of which something arrived, without a hash.
    pub databases: Vec<Database>,
}

impl Leftover {
    /// `None` if the directory has nothing to resume from, or is too old. That includes a time in
    /// the future, which would keep it for ever.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let text = fs::read(&path.join(META)).ok()??;
        let meta: Meta = serde_json::from_slice(&text).ok()?;
        let age = Timestamp::now().duration_since(meta.time);
        let is_young = !age.is_negative() && age <= LIFETIME;
        let files = fs::files_below(path, |_| true).ok()?.into_iter();
        let mut databases: Vec<_> =
            files.filter_map(|(name, it)| partial(name, &it.path())).collect();
        databases.sort_by(|a, b| a.name.cmp(&b.name));
        let is_usable = meta.kind == Kind::Pull && is_young && !databases.is_empty();
        Some(Self { path: path.to_owned(), origin: meta.origin?, databases }).filter(|_| is_usable)
    }

    pub fn bytes(&self) -> u64 {
        self.databases.iter().map(|database| database.bytes).sum()
    }

    /// Removes everything else from its directory.
    pub(super) fn tidy(&self) -> io::Result<()> {
        let names: Vec<_> = self.databases.iter().map(|database| &*database.name).collect();
        retain(&self.path, &names)
    }
}

/// Removes all files of a directory but its record and these.
pub fn retain(dir: &Path, names: &[&str]) -> io::Result<()> {
    for (name, entry) in fs::files_below(dir, |_| true)? {
        if name != META && !names.contains(&&*name) {
            fs_err::remove_file(entry.path())?;
            fs::remove_empty_parents(dir, &name);
        }
    }
    Ok(())
}

/// The part of a database that is in a file; `None` if its header is missing, without which the
/// server cannot compare it. A link to the file of a snapshot is none either: a pull writes to it.
fn partial(name: String, path: &Path) -> Option<Database> {
    let metadata = path.symlink_metadata().ok()?;
    if !metadata.is_file() || metadata.nlink() != 1 {
        return None;
    }
    let Header { page_size, .. } = Header::of(path).ok()?;
    let bytes = metadata.len();
    (bytes >= page_size.into() && !super::is_hidden(&name)).then(|| Database {
        name,
        bytes,
        page_size,
        ..Database::default()
    })
}
