//! Durable private files: written, synced, renamed, and the directory synced.

use std::collections::BTreeSet;
use std::fs::{File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fs_err::OpenOptions;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::error::Failure;
use crate::interrupt;

/// Part of a temporary file's name until [`write`] renames it.
pub const UNFINISHED: &str = "unfinished-";
/// The prefix of such a name; no other file has it.
const UNFINISHED_HERE: &str = "xtask-unfinished-";

/// The content of a file; `None` if it does not exist.
///
/// # Errors
///
/// The file exists and cannot be read; the message has the path.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs_err::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        content => Ok(Some(content?)),
    }
}

/// Creates a file with mode 0600; it must not exist.
///
/// # Errors
///
/// The file exists or cannot be created; the message has the path.
pub fn create(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    Ok(options.write(true).create_new(true).mode(0o600).open(path)?.into_file())
}

/// Opens an existing file for reading and writing.
///
/// # Errors
///
/// The file cannot be opened; the message has the path.
pub fn open(path: &Path) -> Result<File> {
    Ok(OpenOptions::new().read(true).write(true).open(path)?.into_file())
}

/// The files in a directory and in those below it, each with its path from there. Hidden directories
/// and links to directories are left out, and those of which `enters` says no.
///
/// # Errors
///
/// A directory cannot be read.
pub fn files_below(
    dir: &Path,
    enters: impl Fn(&str) -> bool,
) -> io::Result<Vec<(String, fs_err::DirEntry)>> {
    let mut files = Vec::new();
    let mut left = vec![String::new()];
    while let Some(below) = left.pop() {
        for entry in fs_err::read_dir(dir.join(&below))? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = format!("{below}{name}");
            if !entry.file_type()?.is_dir() {
                files.push((path, entry));
            } else if !name.starts_with('.') && name != "lost+found" && enters(&path) {
                left.push(path + "/");
            }
        }
    }
    Ok(files)
}

/// Creates the directories between `dir` and the file `name` in it.
///
/// # Errors
///
/// One cannot be created, or is a link, by which the file would be elsewhere.
pub fn create_parents(dir: &Path, name: &str) -> Result<()> {
    for (at, _) in name.match_indices('/') {
        let parent = dir.join(&name[..at]);
        match parent.symlink_metadata() {
            Ok(found) if found.is_dir() => {}
            Ok(_) => {
                let what = format!("{} is not a directory", parent.display());
                return Err(Failure::new(what)
                    .hint(
                        "databases are written only to directories that are no links: move it away",
                    )
                    .into());
            }
            Err(_) => create_dir(&parent)?,
        }
    }
    Ok(())
}

/// Syncs a directory and those of these files in it, so that their entries survive a power loss.
///
/// # Errors
///
/// One cannot be synced.
pub fn sync_dirs<'a>(dir: &Path, names: impl IntoIterator<Item = &'a String>) -> Result<()> {
    sync_dirs_below(dir, names)?;
    sync(dir)
}

/// The same for the directories below `dir` alone.
///
/// # Errors
///
/// One cannot be synced.
pub fn sync_dirs_below<'a>(dir: &Path, names: impl IntoIterator<Item = &'a String>) -> Result<()> {
    let parents = |name: &'a String| name.match_indices('/').map(|(at, _)| &name[..at]);
    let dirs: BTreeSet<&str> = names.into_iter().flat_map(parents).collect();
    // Those below come first: an entry must not lead to nothing.
    let below = dirs.into_iter().rev().map(|below| dir.join(below));
    below.filter(|below| below.exists()).try_for_each(|below| sync(&below))
}

/// Removes the directories between `dir` and the file `name` in it that are empty now.
pub fn remove_empty_parents(dir: &Path, name: &str) {
    for (at, _) in name.rmatch_indices('/') {
        if std::fs::remove_dir(dir.join(&name[..at])).is_err() {
            break;
        }
    }
}

/// The path without links, as far as it exists.
pub fn real(path: &Path) -> PathBuf {
    let real = path.ancestors().find_map(|dir| Some((dir, dir.canonicalize().ok()?)));
    let real = real.and_then(|(dir, real)| Some(real.join(path.strip_prefix(dir).ok()?)));
    real.unwrap_or_else(|| path.to_owned())
}

/// Creates a directory with mode 0700, unless it exists.
///
/// # Errors
///
/// The directory cannot be created; the message has the path.
pub fn create_dir(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(path)
        .with_context(|| format!("cannot create {}", path.display()))
}

/// The same, and syncs the directories above those that are new, so that they survive a power loss.
///
/// # Errors
///
/// The directory cannot be created, or one cannot be synced.
pub fn create_dir_durably(path: &Path) -> Result<()> {
    let missing = missing(path);
    create_dir(path)?;
    sync_parents(&missing)
}

/// The directories of a path that do not exist, the lowest first.
fn missing(path: &Path) -> Vec<&Path> {
    let above = path.ancestors().filter(|dir| !dir.as_os_str().is_empty());
    above.take_while(|dir| !dir.exists()).collect()
}

/// Syncs the names of new directories, where their parents can be opened.
fn sync_parents(new: &[&Path]) -> Result<()> {
    let parents = new.iter().filter_map(|dir| dir.parent());
    let parents = parents.map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir });
    parents.into_iter().filter(|dir| File::open(dir).is_ok()).try_for_each(sync)
}

/// Syncs the content of a file, or the entries of a directory.
///
/// # Errors
///
/// The path cannot be opened or synced; the message has the path.
pub fn sync(path: &Path) -> Result<()> {
    Ok(fs_err::File::open(path)?.sync_all()?)
}

/// Creates or replaces `path` atomically: it has either its old or its new content.
///
/// # Errors
///
/// The file cannot be written, synced or renamed; the message has the path.
pub fn write(path: &Path, content: &[u8]) -> Result<()> {
    replace(path, content, &Permissions::from_mode(0o600), None)
}

/// Like [`write`] for a file that is not private; creates its directory. The file keeps its
/// permissions, a new one gets those of the umask. `executable` adds execution for all who may
/// read.
///
/// # Errors
///
/// The file cannot be written, synced or renamed; the message has the path.
pub fn write_shared(path: &Path, content: &[u8], executable: bool) -> Result<()> {
    if let Some(dir) = path.parent() {
        let missing = missing(dir);
        fs_err::create_dir_all(dir)?;
        sync_parents(&missing)?;
        remove_unfinished(dir);
    }
    let wanted = Permissions::from_mode(if executable { 0o777 } else { 0o666 });
    let kept = path.metadata().ok().map(|metadata| {
        let mode = metadata.permissions().mode();
        let lacks = executable && mode & 0o100 == 0;
        Permissions::from_mode(if lacks { mode | ((mode & 0o444) >> 2) } else { mode })
    });
    replace(path, content, &wanted, kept.as_ref())
}

/// Replaces a file that somebody has written and may have put elsewhere: a link to it stays.
///
/// # Errors
///
/// As [`write_shared`].
pub fn write_edited(path: &Path, content: &[u8]) -> Result<()> {
    write_shared(&path.canonicalize().unwrap_or_else(|_| path.to_owned()), content, false)
}

/// Removes temporary files of killed commands from a directory. A running command has a lock on its
/// file; if locks do not work, all files stay.
pub fn remove_unfinished(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(UNFINISHED_HERE);
        if is_ours
            && entry.file_type().is_ok_and(|kind| kind.is_file())
            && let Ok(file) = File::open(entry.path())
            && file.try_lock().is_ok()
        {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// A new private file, which becomes another one of the directory once it is whole.
///
/// # Errors
///
/// The file cannot be created.
pub fn unfinished_in(dir: &Path) -> io::Result<NamedTempFile> {
    unfinished(dir, &Permissions::from_mode(0o600))
}

fn unfinished(dir: &Path, wanted: &Permissions) -> io::Result<NamedTempFile> {
    let file = tempfile::Builder::new()
        .prefix(UNFINISHED_HERE)
        .permissions(wanted.clone())
        .tempfile_in(dir)?;
    // Without a lock, other commands cannot tell that the file is in use.
    let _ = file.as_file().lock();
    Ok(file)
}

/// The umask applies to `wanted`, and not to `kept`.
fn replace(
    path: &Path,
    content: &[u8],
    wanted: &Permissions,
    kept: Option<&Permissions>,
) -> Result<()> {
    let dir = path.parent().context("a file lies in a directory")?;
    let write = || -> io::Result<()> {
        let mut file = unfinished(dir, wanted)?;
        if let Some(kept) = kept {
            file.as_file().set_permissions(kept.clone())?;
        }
        file.write_all(content)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    let written = match write() {
        // Another command may have removed the file before it was locked.
        Err(error) if error.kind() == io::ErrorKind::NotFound => write(),
        written => written,
    };
    written.with_context(|| format!("cannot write {}", path.display()))?;
    sync(dir)
}

/// Renames a file within one file system.
///
/// # Errors
///
/// The file cannot be renamed; the message has both paths.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    Ok(fs_err::rename(from, to)?)
}

/// Removes a file, if it exists.
///
/// # Errors
///
/// The file cannot be removed; the message has the path.
pub fn remove(path: &Path) -> Result<()> {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => Ok(removed?),
    }
}

/// Copies a file, syncs the copy and returns the sha256 of the copied bytes, in hex. No connection
/// of this process may have the file open: closing it would drop SQLite's locks.
///
/// # Errors
///
/// The file cannot be read or written, or this process was asked to end.
pub fn copy(from: &Path, to: &Path) -> Result<String> {
    let cannot_write = || format!("cannot write {}", to.display());
    let output = create(to)?;
    let mut length = 0;
    let hash = read_hashed(from, |bytes| {
        write_sparse(&output, length, bytes).with_context(cannot_write)?;
        length += bytes.len() as u64;
        Ok(())
    })?;
    output.set_len(length).with_context(cannot_write)?;
    output.sync_all().with_context(|| format!("cannot sync {}", to.display()))?;
    Ok(hash)
}

/// Copies a file that no connection of this process has open to a new one, without a sync. If the
/// file system supports it, they share their blocks; if not, holes stay holes.
///
/// # Errors
///
/// The file cannot be read or written; the message has the path.
pub fn duplicate(from: &Path, to: &Path) -> Result<File> {
    copy_data(from, to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    open(to)
}

#[cfg(target_os = "linux")]
fn copy_data(from: &Path, to: &Path) -> Result<()> {
    use rustix::fs::{SeekFrom, ioctl_ficlone, seek};

    let (source, target) = (File::open(from)?, create(to)?);
    if ioctl_ficlone(&target, &source).is_ok() {
        return Ok(());
    }
    let length = source.metadata()?.len();
    target.set_len(length)?;
    let mut at = 0;
    while at < length {
        let start = match seek(&source, SeekFrom::Data(at)) {
            Err(rustix::io::Errno::NXIO) => break,
            // Where it is not supported, all is data.
            start => start.unwrap_or(at),
        };
        let hole = seek(&source, SeekFrom::Hole(start)).ok().filter(|hole| *hole > start);
        at = hole.unwrap_or(length);
        seek(&source, SeekFrom::Start(start))?;
        seek(&target, SeekFrom::Start(start))?;
        io::copy(&mut (&source).take(at - start), &mut &target)?;
    }
    Ok(())
}

/// On macOS, the system clones the file, which keeps its holes.
#[cfg(not(target_os = "linux"))]
fn copy_data(from: &Path, to: &Path) -> Result<()> {
    fs_err::copy(from, to)?;
    Ok(fs_err::set_permissions(to, Permissions::from_mode(0o600))?)
}

/// The blocks of which a file system makes holes.
const HOLE: usize = 4096;

/// The runs of such blocks in `bytes`, which are at `offset` of a file, and whether each is zero.
fn runs(offset: u64, bytes: &[u8]) -> Vec<(Range<usize>, bool)> {
    let mut runs: Vec<(Range<usize>, bool)> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let within = ((offset + at as u64) % HOLE as u64) as usize;
        let end = (at + HOLE - within).min(bytes.len());
        let is_zero = bytes[at..end] == [0; HOLE][..end - at];
        match runs.last_mut() {
            Some((run, kind)) if *kind == is_zero => run.end = end,
            _ => runs.push((at..end, is_zero)),
        }
        at = end;
    }
    runs
}

/// Reads until the buffer is full or the file ends; returns how much.
///
/// # Errors
///
/// The file cannot be read.
pub fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(n) => read += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// Writes to a new file, all of which is a hole so far: zeros stay one.
///
/// # Errors
///
/// The file cannot be written.
pub fn write_sparse(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    for (run, _) in runs(offset, bytes).into_iter().filter(|(_, is_zero)| !is_zero) {
        file.write_all_at(&bytes[run.clone()], offset + run.start as u64)?;
    }
    Ok(())
}

/// Makes holes of the zeros in a file.
///
/// # Errors
///
/// The file cannot be read, or the file system has no holes.
#[cfg(target_os = "linux")]
pub fn punch_holes(path: &Path) -> Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};

    let file = open(path)?;
    let mut buffer = vec![0; 1 << 18];
    let mut at = 0;
    loop {
        interrupt::check()?;
        let n = file.read_at(&mut buffer, at)?;
        if n == 0 {
            return Ok(());
        }
        for (run, _) in runs(at, &buffer[..n]).into_iter().filter(|(_, is_zero)| *is_zero) {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(&file, flags, at + run.start as u64, run.len() as u64)?;
        }
        at += n as u64;
    }
}

/// Nothing: only Linux offers it through `rustix`.
#[cfg(not(target_os = "linux"))]
pub fn punch_holes(_: &Path) -> Result<()> {
    Ok(())
}

/// Links the new file `to` to the content of `from`, which nobody writes to; where the file system
/// cannot, it becomes a synced copy.
///
/// # Errors
///
/// One of the files cannot be read or written.
pub fn link(from: &Path, to: &Path) -> Result<()> {
    match fs_err::hard_link(from, to) {
        Ok(()) => Ok(()),
        Err(_) => Ok(duplicate(from, to)?.sync_all()?),
    }
}

/// The sha256 of a file that no connection of this process has open, in hex.
///
/// # Errors
///
/// The file cannot be read, or this process was asked to end.
pub fn sha256(path: &Path) -> Result<String> {
    read_hashed(path, |_| Ok(()))
}

fn read_hashed(path: &Path, mut on_bytes: impl FnMut(&[u8]) -> Result<()>) -> Result<String> {
    let mut input = fs_err::File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        interrupt::check()?;
        let n = input.read(&mut buffer)?;
        if n == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&buffer[..n]);
        on_bytes(&buffer[..n])?;
    }
}

/// The sha256 of bytes, in hex.
pub fn sha256_of(bytes: impl AsRef<[u8]>) -> String {
    hex(&Sha256::digest(bytes))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `None` if the text is not hex.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_private_and_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        let copied = copy(&path, &dir.path().join("b")).unwrap();
        assert_eq!(copied, sha256(&dir.path().join("b")).unwrap());
        for name in ["a", "b"] {
            let file = dir.path().join(name);
            assert_eq!(std::fs::read(&file).unwrap(), b"two");
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary file is left");
    }

    /// The bytes that a file takes on the disk.
    fn takes(path: &Path) -> u64 {
        std::os::unix::fs::MetadataExt::blocks(&path.metadata().unwrap()) * 512
    }

    #[test]
    fn zeros_are_not_written_and_a_copy_has_the_same_holes() {
        let dir = tempfile::tempdir().unwrap();
        let [new, copy, full] = ["new", "copy", "full"].map(|name| dir.path().join(name));
        let mut bytes = vec![0; 1 << 20];
        for at in [0, 5000, 300_000, 300_001, (1 << 20) - 70_000] {
            bytes[at] = 1;
        }
        std::fs::write(&full, &bytes).unwrap();
        // As it arrives: in pieces of any length.
        for piece in [1000, 4096, 65536, 70_001] {
            let _ = std::fs::remove_file(&new);
            let file = create(&new).unwrap();
            for (i, part) in bytes.chunks(piece).enumerate() {
                write_sparse(&file, (i * piece) as u64, part).unwrap();
            }
            file.set_len(bytes.len() as u64).unwrap();
            assert!(std::fs::read(&new).unwrap() == bytes, "{piece}");
        }
        duplicate(&new, &copy).unwrap();
        let _ = punch_holes(&full);
        for path in [&copy, &full] {
            assert!(std::fs::read(path).unwrap() == bytes);
        }
        let empty = dir.path().join("empty");
        create(&empty).unwrap().set_len(1 << 20).unwrap();
        if takes(&empty) == 0 {
            assert!(takes(&new) < 200_000, "{} bytes", takes(&new));
            assert_eq!(takes(&copy), takes(&new));
            assert!(cfg!(not(target_os = "linux")) || takes(&full) < 200_000);
        }
    }
}
