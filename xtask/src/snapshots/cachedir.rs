//! Marks directories that programs for backups are to leave out: what they hold is production data,
//! and can be pulled again.

use std::io::Write as _;
use std::path::Path;

use anyhow::Result;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use rustix::fs::{XattrFlags, setxattr};

/// The file by which `tar --exclude-caches`, borg, restic and others know such a directory; its
/// first line is fixed (bford.info/cachedir).
const TAG: &str = "CACHEDIR.TAG";
const TEXT: &str = "Signature: 8a477f597d28d172789f06886806bc55
# cargo xtask made this directory; programs for backups leave it out. See bford.info/cachedir
";

/// What `tmutil addexclusion` sets for Time Machine: a property list with one string.
const ATTRIBUTE: &str = "com.apple.metadata:com_apple_backup_excludeItem";
const VALUE: &[u8] = b"bplist00_\x10\x11com.apple.backupd\
    \x08\0\0\0\0\0\0\x01\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x1c";

/// Marks a directory, unless it is marked.
///
/// # Errors
///
/// The file cannot be written.
pub(super) fn tag(dir: &Path) -> Result<()> {
    let path = dir.join(TAG);
    if path.exists() {
        return Ok(());
    }
    if cfg!(target_os = "macos") {
        // A file system without attributes is none that Time Machine saves.
        let _ = setxattr(dir, ATTRIBUTE, VALUE, XattrFlags::empty());
    }
    // Without a sync: nothing relies on it.
    let mut file =
        fs_err::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(file.write_all(TEXT.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_property_list_says_where_its_parts_are() {
        let (body, trailer) = VALUE.split_at(VALUE.len() - 32);
        assert_eq!(&body[..8], b"bplist00");
        // One object: a string of so many bytes, and behind it the table with its offset.
        let (string, table) = body[8..].split_at(body.len() - 9);
        assert_eq!(string, [&b"_\x10\x11"[..], b"com.apple.backupd"].concat());
        assert_eq!((usize::from(string[2]), table), (string.len() - 3, &[8][..]));
        let numbers: Vec<_> = trailer[8..].chunks(8).map(|it| usize::from(it[7])).collect();
        assert_eq!((&trailer[..8], &numbers[..]), (&[0, 0, 0, 0, 0, 0, 1, 1][..], &[1, 0, 28][..]));
    }
}
