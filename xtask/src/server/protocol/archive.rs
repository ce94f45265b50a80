//! The tar behind the marker: an index, the databases, an end record.

use std::cell::Cell;
use std::io::{self, Read, Write as _};
use std::rc::Rc;

use sha2::{Digest as _, Sha256};

use super::member::{broken, expect};
use super::parts::{Parts, piece_of};
use super::records::{self, EndRecord};
use super::{Content, Error, Index, IndexEntry, Received, ReceivedDb, Sink, Timings, refused};
use crate::fs::hex;

/// For the index and the end record, uncompressed.
pub const MAX_RECORD: u64 = 4 << 20;
const BLOCK: u64 = 512;

/// Lets no more through than was announced, whatever it decompresses to.
struct Budget<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Budget<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        match self.left.get().checked_sub(n as u64) {
            Some(left) => self.left.set(left),
            None => return Err(io::Error::other("more than was announced")),
        }
        Ok(n)
    }
}

pub fn read(input: impl Read, content: Content, sink: &mut impl Sink) -> Result<Received, Error> {
    let left = Rc::new(Cell::new(MAX_RECORD + 64 * BLOCK));
    let mut archive = tar::Archive::new(Budget { inner: input, left: left.clone() });
    // Several archives come one after the other, each closed by blocks of zeros.
    archive.set_ignore_zeros(true);
    let mut members = archive.entries().map_err(|_| Error::Cut)?.raw(true);
    let mut next = || -> Result<Option<tar::Entry<'_, _>>, Error> {
        members.next().transpose().map_err(|error| broken(&error))
    };

    let index_text = record(&mut next()?.ok_or(Error::Cut)?, "index.json")?;
    let index = records::index(&index_text)?;
    sink.index(&index)?;
    left.set(index.databases.iter().map(budget).fold(MAX_RECORD, u64::saturating_add));

    let mut hashes = Vec::new();
    let mut member = next()?.ok_or(Error::Cut)?;
    if content == Content::Databases {
        for (i, announced) in index.databases.iter().enumerate() {
            if announced.parts {
                let mut parts = Parts::new(announced, create(sink, announced)?);
                while let Some(piece) = piece_of(&member, i) {
                    parts.take(&mut member, piece, sink)?;
                    member = next()?.ok_or(Error::Cut)?;
                }
                parts.finish(sink)?;
                hashes.push(None);
            } else {
                expect(&member, &format!("{i}.db"))?;
                hashes.push(Some(database(&mut member, announced, sink)?));
                member = next()?.ok_or(Error::Cut)?;
            }
        }
    } else {
        hashes.resize(index.databases.len(), None);
    }

    let end = records::end(&record(&mut member, "end.json")?)?;
    if next()?.is_some() {
        return Err(refused("there is more behind the end record"));
    }
    match_end_record(index, &index_text, &hashes, end)
}

/// What a database may take in the stream. Each piece is an archive of its own,
/// with a map and its padding.
fn budget(database: &IndexEntry) -> u64 {
    let beside = if database.parts { database.bytes / 64 } else { 0 };
    database.bytes.saturating_add(beside + 64 * BLOCK)
}

fn create<S: Sink>(sink: &mut S, announced: &IndexEntry) -> Result<S::File, Error> {
    sink.create(announced).map_err(Error::Local)
}

fn record(entry: &mut tar::Entry<'_, impl Read>, name: &str) -> Result<String, Error> {
    if expect(entry, name)? > MAX_RECORD {
        return Err(refused(format!("{name} is too long")));
    }
    let mut text = String::new();
    entry.read_to_string(&mut text).map_err(|error| broken(&error))?;
    Ok(text)
}

/// Writes one database and returns its sha256.
fn database(
    entry: &mut tar::Entry<'_, impl Read>,
    announced: &IndexEntry,
    sink: &mut impl Sink,
) -> Result<String, Error> {
    let size = entry.header().entry_size().map_err(|error| broken(&error))?;
    if size != announced.bytes {
        return Err(refused(format!(
            "{:?} has {size} bytes, not the {} announced",
            announced.name, announced.bytes
        )));
    }
    let mut file = create(sink, announced)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 17];
    let mut total = 0;
    loop {
        let n = entry.read(&mut buffer).map_err(|error| broken(&error))?;
        if n == 0 {
            break;
        }
        total += n as u64;
        hash.update(&buffer[..n]);
        file.write_all(&buffer[..n]).map_err(Error::Local)?;
        sink.advance(n as u64);
    }
    if total != size {
        return Err(Error::Cut);
    }
    sink.finish(announced, file).map_err(Error::Local)?;
    Ok(hex(&hash.finalize()))
}

/// `hashes` are of what came whole.
fn match_end_record(
    index: Index,
    index_text: &str,
    hashes: &[Option<String>],
    mut end: EndRecord,
) -> Result<Received, Error> {
    if end.changed.is_empty() {
        end.changed = vec![None; hashes.len()];
    }
    if end.index != hex(&Sha256::digest(index_text)) {
        return Err(refused("the index is not what the server sent (sha256)"));
    }
    let applied = end.sanitized.is_some();
    let sanitized = end.sanitized.unwrap_or_else(|| vec![0; hashes.len()]);
    let rows = sanitized.iter().try_fold(0_u64, |sum, rows| sum.checked_add(*rows));
    let lengths = [end.sha256.len(), sanitized.len(), end.changed.len()];
    let fits =
        index.databases.iter().zip(&end.changed).all(|(db, changed)| db.parts == changed.is_some());
    if lengths.iter().any(|n| *n != hashes.len()) || rows.is_none() || !fits {
        return Err(refused("the end record does not fit the index"));
    }
    let proven = |i: usize| hashes[i].as_ref().is_none_or(|hash| *hash == end.sha256[i]);
    if let Some(i) = (0..hashes.len()).find(|&i| !proven(i)) {
        let name = &index.databases[i].name;
        return Err(refused(format!("{name:?} is not what the server sent (sha256)")));
    }
    let ends = end.sha256.into_iter().zip(sanitized).zip(end.changed);
    let databases = index.databases.into_iter().zip(ends);
    let databases = databases.map(|(db, ((sha256, sanitized), changed))| ReceivedDb {
        name: db.name,
        bytes: db.bytes,
        sha256,
        sanitized,
        changed,
    });
    Ok(Received {
        databases: databases.collect(),
        sanitized: applied,
        timings: Timings {
            copy: end.copy_ms,
            sanitize: end.sanitize_ms,
            compare: end.compare_ms,
            pack: end.pack_ms,
            skew: end.skew_ms,
        },
    })
}
