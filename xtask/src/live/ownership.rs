//! Owner, group and mode of a new database: those of the one that it replaces, or, if there was
//! none, the group of the others.

use std::fs::{Metadata, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::error::Failure;
use crate::fs;
use crate::ui::Ui;

/// Creates the directories between `dir` and the file `name` in it, for those who may use `dir`.
///
/// # Errors
///
/// One cannot be created, or is a link.
pub(super) fn create_parents(ui: &Ui, dir: &Path, name: &str) -> Result<()> {
    let parents = name.match_indices('/').map(|(at, _)| dir.join(&name[..at]));
    let missing: Vec<_> = parents.filter(|parent| !parent.exists()).collect();
    fs::create_parents(dir, name)?;
    require_writable(dir, name)?;
    let model = || dir.metadata().ok().into_iter();
    missing.iter().try_for_each(|new| follow(ui, new, &new.join(".none"), model()))
}

/// Fails if the directory of a database cannot be changed, which a rename would find too late.
///
/// # Errors
///
/// It cannot be changed.
pub(super) fn require_writable(dir: &Path, name: &str) -> Result<()> {
    use rustix::fs::{Access, access};

    let Some(parent) = dir.join(name).parent().map(Path::to_owned) else { return Ok(()) };
    access(&parent, Access::WRITE_OK | Access::EXEC_OK).with_context(|| {
        Failure::new(format!("{} cannot be written; nothing was changed", parent.display()))
            .hint("make it writable, and run the same command again")
    })
}

/// Gives `copy`, a new file, the owner, group and mode of `live`, or the group of its `siblings`.
///
/// # Errors
///
/// The attributes of a file of this user cannot be changed.
pub(super) fn follow(
    ui: &Ui,
    copy: &Path,
    live: &Path,
    mut siblings: impl Iterator<Item = Metadata>,
) -> Result<()> {
    let old = live.metadata().ok();
    let owner = old.as_ref().map(Metadata::uid);
    let Some(model) = old.or_else(|| siblings.next()) else { return Ok(()) };
    let mine = fs_err::metadata(copy)?;
    let (uid, gid) = (owner.unwrap_or(mine.uid()), model.gid());
    let given = [(None, Some(gid), gid != mine.gid()), (Some(uid), None, uid != mine.uid())]
        .into_iter()
        .filter(|(.., differs)| *differs)
        .try_for_each(|(uid, gid, _)| chown(copy, uid, gid));
    if let Err(error) = given {
        ui.warn(format!("cannot give {} to user {uid} and group {gid}: {error}", live.display()));
        ui.hint(format!("if the app runs as that user: sudo chown {uid}:{gid} {}", live.display()));
    }
    Ok(fs_err::set_permissions(copy, Permissions::from_mode(model.mode() & 0o777))?)
}
