//! One file with a whole snapshot: a tar, compressed with zstd, of `snapshot.json` and the databases.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use tar::{Entries, Header};

use super::portable;
use crate::error::Failure;
use crate::snapshots::{Database, Kind, LockedStore, META, Meta, Snapshot};
use crate::{fs, interrupt, sqlite};

/// That of pulls: a higher one takes far longer than it saves.
const LEVEL: i32 = 3;
/// The first bytes of a zstd frame.
const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
/// The maximum size of `snapshot.json`, in bytes.
const MAX_META: u64 = 4 << 20;
/// The number of bytes that are read at a time.
const READ: usize = 1 << 17;

/// Writes a snapshot to a file that only this user may read, and returns its size. `meta` is what is
/// told of the snapshot.
///
/// # Errors
///
/// A database is not what was recorded, or the file cannot be written; then it is as it was.
pub fn export(snapshot: &Snapshot, meta: &Meta, file: &Path) -> Result<u64> {
    let unwritable = || format!("cannot write {}", file.display());
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::remove_unfinished(dir);
    let mut new = fs::unfinished_in(dir).with_context(unwritable)?;
    let written = || -> Result<()> {
        let output = BufWriter::new(new.as_file_mut());
        let mut zstd = zstd::Encoder::new(output, LEVEL)?;
        zstd.include_checksum(true)?;
        let mut tar = tar::Builder::new(zstd);
        let json = serde_json::to_vec_pretty(meta)?;
        tar.append_data(&mut header(json.len() as u64), META, &json[..])?;
        for database in &meta.databases {
            let mut from = Hashed::new(fs_err::File::open(snapshot.path.join(&database.name))?);
            let name = member(database);
            tar.append_data(&mut header(database.bytes), name, (&mut from).take(database.bytes))?;
            if Some(from.sha256()) != database.sha256 {
                let what = format!("{} in {} was changed", database.name, snapshot.name);
                return Err(Failure::new(what).hint("take another snapshot").into());
            }
        }
        tar.into_inner()?.finish()?.flush()?;
        Ok(new.as_file().sync_all()?)
    };
    let mut written = written;
    written().map_err(interrupt::prefer_interrupt).with_context(unwritable)?;
    let bytes = new.as_file().metadata()?.len();
    new.persist(file).with_context(unwritable)?;
    fs::sync(dir)?;
    Ok(bytes)
}

/// Whether a file is empty, or begins like what [`export`] writes.
///
/// # Errors
///
/// It cannot be read.
pub fn may_replace(file: &Path) -> Result<bool> {
    let mut start = Vec::new();
    fs_err::File::open(file)?.take(MAGIC.len() as u64).read_to_end(&mut start)?;
    Ok(start.is_empty() || start == MAGIC)
}

/// The snapshot that a file holds, up to its databases.
pub struct Import<'a> {
    pub meta: Meta,
    entries: Entries<'a, Input>,
    file: &'a Path,
}

type Input = zstd::Decoder<'static, BufReader<File>>;

/// Opens a file that [`export`] wrote.
///
/// # Errors
///
/// The file cannot be read, or is none.
pub fn open(file: &Path) -> Result<tar::Archive<Input>> {
    let file = fs_err::File::open(file)?.into_file();
    Ok(tar::Archive::new(zstd::Decoder::new(file)?.single_frame()))
}

impl<'a> Import<'a> {
    /// Reads what the file says of itself.
    ///
    /// # Errors
    ///
    /// The file holds no snapshot that this tool can have.
    pub fn new(archive: &'a mut tar::Archive<Input>, file: &'a Path) -> Result<Self> {
        let mut entries = archive.entries().map_err(|_| unknown(file))?.raw(true);
        let first = entries.next().ok_or_else(|| unknown(file))?;
        let mut first = first.map_err(|_| unknown(file))?;
        if *first.path_bytes() != *META.as_bytes() || first.size() > MAX_META {
            return Err(unknown(file).into());
        }
        let mut json = Vec::new();
        first.read_to_end(&mut json).map_err(|error| broken(file, &error.to_string()))?;
        let meta: Meta =
            serde_json::from_slice(&json).map_err(|error| broken(file, &error.to_string()))?;
        portable::check(&meta).map_err(|why| broken(file, &why))?;
        drop(first);
        Ok(Self { meta, entries, file })
    }

    /// Makes a snapshot of it, which is never pruned.
    ///
    /// # Errors
    ///
    /// A database is not what the file says of it; then there is no snapshot.
    pub fn receive(mut self, store: &LockedStore) -> Result<Snapshot> {
        let builder = store.begin(Kind::Manual)?;
        for database in &mut self.meta.databases {
            let entry = self.entries.next().ok_or_else(|| broken(self.file, "it ends too soon"))?;
            let entry = entry.map_err(|error| broken(self.file, &error.to_string()))?;
            if *entry.path_bytes() != *member(database).as_bytes() || entry.size() != database.bytes
            {
                let why = format!("{:?} does not come where it belongs", database.name);
                return Err(broken(self.file, &why).into());
            }
            fs::create_parents(builder.path(), &database.name)?;
            let path = builder.path().join(&database.name);
            let sha256 = write(entry, &path).map_err(|error| match interrupt::is_asked() {
                true => interrupt::prefer_interrupt(error),
                false => error.context(broken(self.file, "it is cut, or the disk is full")),
            })?;
            if database.sha256.as_ref() != Some(&sha256) {
                let why = format!("{:?} is not what was exported (sha256)", database.name);
                return Err(broken(self.file, &why).into());
            }
            describe(database, &path)?;
        }
        if self.entries.next().is_some() {
            return Err(broken(self.file, "there is more after the databases").into());
        }
        interrupt::check()?;
        builder.commit(Meta { kind: Kind::Manual, ..self.meta })
    }
}

/// Checks a received file, and records what only the file itself tells.
fn describe(database: &mut Database, path: &Path) -> Result<()> {
    let found = sqlite::check(path)?;
    database.page_size = found.page_size;
    database.user_version = found.user_version;
    database.schema = found.schema;
    Ok(())
}

/// Writes a database, and returns its sha256.
fn write(mut from: impl Read, path: &Path) -> Result<String> {
    let file = fs::create(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; READ];
    let mut offset = 0;
    loop {
        interrupt::check()?;
        let n = from.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        hash.update(&buffer[..n]);
        fs::write_sparse(&file, offset, &buffer[..n])?;
        offset += n as u64;
    }
    file.set_len(offset)?;
    file.sync_all()?;
    Ok(fs::hex(&hash.finalize()))
}

/// The path of a database in the archive.
fn member(database: &Database) -> String {
    format!("databases/{}", database.name)
}

fn header(size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o600);
    header
}

fn unknown(file: &Path) -> Failure {
    Failure::new(format!("{} holds no snapshot", file.display()))
        .hint("it must be a file that cargo xtask snapshots export has written")
}

fn broken(file: &Path, why: &str) -> Failure {
    Failure::new(format!("{} cannot be imported: {why}", file.display()))
        .hint("export it again; nothing was changed")
}

/// Computes the hash of what is read.
struct Hashed<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Hashed<R> {
    fn new(inner: R) -> Self {
        Self { inner, hash: Sha256::new() }
    }

    fn sha256(self) -> String {
        fs::hex(&self.hash.finalize())
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        interrupt::check().map_err(io::Error::other)?;
        let n = self.inner.read(buffer)?;
        self.hash.update(&buffer[..n]);
        Ok(n)
    }
}
