//! The tar after the marker: an index, the databases, an end record.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, BufRead, Read};
use std::ops::Range;
use std::rc::Rc;

use sha2::{Digest as _, Sha256};

use super::member::{broken, expect};
use super::records::{self, EndRecord};
use super::{Error, Index, IndexEntry, Received, ReceivedDb, Timings, chunk, refused};
use crate::fs::hex;

/// The maximum uncompressed size of the index and of the end record, in bytes.
pub const MAX_RECORD: u64 = 4 << 20;
/// The block size of a tar, in bytes.
const TAR_BLOCK: u64 = 512;
/// The maximum number of bytes in one event, for a complete database.
const READ: usize = 1 << 17;

/// Whether the archive contains the databases, or only the records of a dry run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    Databases,
    Plan,
}

/// Limits the decompressed bytes to the announced size.
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

/// A compressed archive. [`Archive::events`] borrows it, because a tar member does.
pub struct Archive<'r> {
    tar: tar::Archive<Budget<Box<dyn Read + 'r>>>,
    left: Rc<Cell<u64>>,
}

impl<'r> Archive<'r> {
    /// Fails if `input` is neither zstd nor gzip.
    pub fn new(mut input: impl BufRead + 'r) -> Result<Self, Error> {
        let magic = input.fill_buf().map_err(|_| Error::Cut)?.first().copied();
        Ok(Self::of_tar(match magic {
            Some(0x28) => {
                let decoder = zstd::Decoder::with_buffer(input);
                Box::new(decoder.map_err(|error| refused(error.to_string()))?.single_frame())
            }
            Some(0x1f) => Box::new(flate2::bufread::GzDecoder::new(input)),
            Some(_) => return Err(refused("it is neither zstd nor gzip")),
            None => return Err(Error::Cut),
        }))
    }

    pub(super) fn of_tar(input: Box<dyn Read + 'r>) -> Self {
        let left = Rc::new(Cell::new(MAX_RECORD + 64 * TAR_BLOCK));
        let mut tar = tar::Archive::new(Budget { inner: input, left: left.clone() });
        // Several archives follow each other, each ended by blocks of zeros.
        tar.set_ignore_zeros(true);
        Self { tar, left }
    }

    /// The events of the archive. A second call fails.
    pub fn events(&mut self, content: Content) -> Result<Events<'_, 'r>, Error> {
        let members = self.tar.entries().map_err(|_| Error::Cut)?.raw(true);
        Ok(Events {
            members,
            member: None,
            left: self.left.clone(),
            content,
            index: Index::default(),
            index_text: String::new(),
            step: Step::Index,
            hashes: Vec::new(),
            buffer: Vec::new(),
        })
    }
}

/// The content of the archive, in order.
#[derive(Debug)]
pub enum Event<'e> {
    /// All databases that will follow.
    Index(&'e Index),
    /// A database begins. It is empty or, as a delta, its base truncated or extended to its size.
    Database(&'e IndexEntry),
    /// Bytes of that database; offsets increase.
    Data { offset: u64, bytes: &'e [u8] },
    /// That database is complete.
    Complete(&'e IndexEntry),
    /// The end record matches everything before it. The last event.
    End(Received),
}

type Input<'r> = Budget<Box<dyn Read + 'r>>;

pub struct Events<'a, 'r> {
    members: tar::Entries<'a, Input<'r>>,
    /// The member that is being read.
    member: Option<tar::Entry<'a, Input<'r>>>,
    left: Rc<Cell<u64>>,
    content: Content,
    index: Index,
    index_text: String,
    step: Step,
    /// The sha256 of each complete database; `None` for a delta.
    hashes: Vec<Option<String>>,
    buffer: Vec<u8>,
}

/// The next step of the parser.
enum Step {
    Index,
    /// The next database, or the end record after the last.
    Database,
    Data {
        offset: u64,
        hash: Sha256,
    },
    /// The rest of a chunk; `next` is the first chunk that may follow it.
    Delta {
        runs: VecDeque<Range<u64>>,
        next: u64,
    },
}

impl<'a, 'r> Events<'a, 'r> {
    /// The next event; [`Event::End`] is the last.
    ///
    /// # Errors
    ///
    /// The archive is incomplete or malformed. All events before are then invalid.
    pub fn read_event(&mut self) -> Result<Event<'_>, Error> {
        match &self.step {
            Step::Index => self.read_index(),
            Step::Database => match self.content {
                Content::Databases if self.hashes.len() < self.index.databases.len() => {
                    self.begin_database()
                }
                _ => self.read_end(),
            },
            Step::Data { .. } => self.read_data(),
            Step::Delta { .. } => self.read_delta(),
        }
    }

    fn read_index(&mut self) -> Result<Event<'_>, Error> {
        self.next_member()?;
        self.index_text = record(self.member()?, "index.json")?;
        self.index = records::index(&self.index_text)?;
        let budget = self.index.databases.iter().map(budget);
        self.left.set(budget.fold(MAX_RECORD, u64::saturating_add));
        self.next_member()?;
        self.step = Step::Database;
        Ok(Event::Index(&self.index))
    }

    fn begin_database(&mut self) -> Result<Event<'_>, Error> {
        let i = self.hashes.len();
        let IndexEntry { name, bytes, is_delta } = self.index.databases[i].clone();
        if is_delta {
            self.step = Step::Delta { runs: VecDeque::new(), next: 0 };
        } else {
            let size = expect(self.member()?, &format!("{i}.db"))?;
            if size != bytes {
                return Err(refused(format!(
                    "{name:?} has {size} bytes, not the {bytes} announced"
                )));
            }
            self.step = Step::Data { offset: 0, hash: Sha256::new() };
        }
        Ok(Event::Database(&self.index.databases[i]))
    }

    fn read_data(&mut self) -> Result<Event<'_>, Error> {
        let (Step::Data { offset, hash }, Some(member)) = (&mut self.step, &mut self.member) else {
            return Err(Error::Cut);
        };
        self.buffer.resize(READ, 0);
        let n = member.read(&mut self.buffer).map_err(|error| broken(&error))?;
        if n > 0 {
            hash.update(&self.buffer[..n]);
            let at = *offset;
            *offset += n as u64;
            return Ok(Event::Data { offset: at, bytes: &self.buffer[..n] });
        }
        if *offset != self.index.databases[self.hashes.len()].bytes {
            return Err(Error::Cut);
        }
        let hash = hex(&std::mem::take(hash).finalize());
        self.next_member()?;
        Ok(self.complete(Some(hash)))
    }

    fn read_delta(&mut self) -> Result<Event<'_>, Error> {
        let i = self.hashes.len();
        loop {
            let (Step::Delta { runs, next }, Some(member)) = (&mut self.step, &mut self.member)
            else {
                return Err(Error::Cut);
            };
            if let Some(Range { start, end }) = runs.pop_front() {
                self.buffer.resize((end - start) as usize, 0);
                member.read_exact(&mut self.buffer).map_err(|error| broken(&error))?;
                if runs.is_empty() {
                    self.next_member()?;
                }
                return Ok(Event::Data { offset: start, bytes: &self.buffer });
            }
            let Some(chunk) = chunk::number(member, i) else { break };
            let database = &self.index.databases[i];
            if chunk < *next {
                let name = &database.name;
                let why = "came where it does not belong";
                return Err(refused(format!("chunk {chunk} of {name:?} {why}")));
            }
            *runs = chunk::read_map(member, chunk, database)?;
            *next = chunk + 1;
            if runs.is_empty() {
                self.next_member()?;
            }
        }
        Ok(self.complete(None))
    }

    fn complete(&mut self, hash: Option<String>) -> Event<'_> {
        self.hashes.push(hash);
        self.step = Step::Database;
        Event::Complete(&self.index.databases[self.hashes.len() - 1])
    }

    fn read_end(&mut self) -> Result<Event<'_>, Error> {
        let end = records::end(&record(self.member()?, "end.json")?)?;
        if self.members.next().transpose().map_err(|error| broken(&error))?.is_some() {
            return Err(refused("there is more after the end record"));
        }
        // A dry run has no databases, and so no hashes.
        self.hashes.resize(self.index.databases.len(), None);
        let index = std::mem::take(&mut self.index);
        match_end_record(index, &self.index_text, &self.hashes, end).map(Event::End)
    }

    fn next_member(&mut self) -> Result<(), Error> {
        // A borrowed member must not be skipped, so it is dropped first.
        self.member = None;
        let next = self.members.next().ok_or(Error::Cut)?;
        self.member = Some(next.map_err(|error| broken(&error))?);
        Ok(())
    }

    fn member(&mut self) -> Result<&mut tar::Entry<'a, Input<'r>>, Error> {
        self.member.as_mut().ok_or(Error::Cut)
    }
}

/// The maximum size of a database in the stream, in bytes. Each chunk is an archive of its own,
/// with a map and padding.
fn budget(database: &IndexEntry) -> u64 {
    let beside = if database.is_delta { database.bytes / 64 } else { 0 };
    database.bytes.saturating_add(beside + 64 * TAR_BLOCK)
}

fn record(member: &mut tar::Entry<'_, impl Read>, name: &str) -> Result<String, Error> {
    if expect(member, name)? > MAX_RECORD {
        return Err(refused(format!("{name} is too long")));
    }
    let mut text = String::new();
    member.read_to_string(&mut text).map_err(|error| broken(&error))?;
    Ok(text)
}

/// `hashes` are those of the complete databases.
fn match_end_record(
    index: Index,
    index_text: &str,
    hashes: &[Option<String>],
    mut end: EndRecord,
) -> Result<Received, Error> {
    if end.changed.is_empty() {
        end.changed = vec![None; hashes.len()];
    }
    if end.state.is_empty() {
        end.state = vec![None; hashes.len()];
    }
    if end.scrubbed.is_empty() {
        end.scrubbed = vec![None; hashes.len()];
    }
    let found = end.found.unwrap_or_else(|| vec![String::new(); hashes.len()]);
    if end.index != hex(&Sha256::digest(index_text)) {
        return Err(refused("the index is not what the server sent (sha256)"));
    }
    let applied = end.sanitized.is_some();
    let sanitized = end.sanitized.unwrap_or_else(|| vec![0; hashes.len()]);
    let rows = sanitized.iter().try_fold(0_u64, |sum, rows| sum.checked_add(*rows));
    let lengths = [
        end.sha256.len(),
        sanitized.len(),
        end.changed.len(),
        end.scrubbed.len(),
        end.state.len(),
        found.len(),
    ];
    let fits = index
        .databases
        .iter()
        .zip(&end.changed)
        .all(|(db, changed)| db.is_delta == changed.is_some());
    if lengths.iter().any(|n| *n != hashes.len()) || rows.is_none() || !fits {
        return Err(refused("the end record does not fit the index"));
    }
    let proven = |i: usize| hashes[i].as_ref().is_none_or(|hash| *hash == end.sha256[i]);
    if let Some(i) = (0..hashes.len()).find(|&i| !proven(i)) {
        let name = &index.databases[i].name;
        return Err(refused(format!("{name:?} is not what the server sent (sha256)")));
    }
    let remote = end.state.iter().zip(&found).map(|(state, found)| {
        state.as_ref().map(|state| records::remote_state(state, found)).transpose()
    });
    let remote = remote.collect::<Result<Vec<_>, _>>()?;
    let ends = end.sha256.into_iter().zip(sanitized).zip(end.changed);
    let ends = ends.zip(end.scrubbed).zip(remote);
    let databases = index.databases.into_iter().zip(ends);
    let databases =
        databases.map(|(db, ((((sha256, sanitized), changed), scrubbed), remote))| ReceivedDb {
            name: db.name,
            bytes: db.bytes,
            sha256,
            sanitized,
            changed,
            scrubbed: scrubbed == Some(1),
            remote,
        });
    Ok(Received {
        databases: databases.collect(),
        same: index.same,
        boot: index.boot,
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
