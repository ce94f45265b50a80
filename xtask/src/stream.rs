//! Reader of what the server sends: talk, a marker line, a compressed tar with
//! an index, the databases and an end record. It trusts none of it, and knows
//! nothing of processes, files or terminals.

mod records;

use std::cell::Cell;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::rc::Rc;

use sha2::{Digest as _, Sha256};

use self::records::EndRecord;
pub use self::records::{Announced, Index};
use crate::durable::hex;

/// Before the marker there is only talk: a longer line, or more of it, is none.
const MAX_LINE: u64 = 64 << 10;
const MAX_TALK: u64 = 4 << 20;
/// Who says more of what it is doing is not heard.
const MAX_STATUS: usize = 100;
/// For the index and the end record, uncompressed.
const MAX_RECORD: u64 = 4 << 20;
const BLOCK: u64 = 512;
/// So much of what the other side says fits into a message, in characters.
const MAX_SAID: usize = 500;

/// Takes what the stream brings, in its order.
pub trait Sink {
    type File: Write;
    /// A line that is not ours, most often `fly`'s.
    fn talk(&mut self, line: &str);
    /// What the server is doing.
    fn status(&mut self, text: &str);
    /// All that is announced. An error refuses the stream.
    fn index(&mut self, index: &Index) -> Result<(), Error>;
    /// So many bytes of databases have arrived.
    fn advance(&mut self, bytes: u64);
    /// The place for a database that was announced.
    fn create(&mut self, database: &Announced) -> io::Result<Self::File>;
    /// All of it has been written.
    fn finish(&mut self, database: &Announced, file: Self::File) -> io::Result<()>;
}

#[derive(Debug)]
pub enum Error {
    /// The server's script says why it gave up: a code and a text.
    Server { code: String, text: String },
    /// The stream ended before the marker.
    NoStream,
    /// The stream ended before its end record.
    Cut,
    /// What arrived is not what a server of ours sends.
    Refused(String),
    /// What arrived could not be written here.
    Local(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server { text, .. } => write!(f, "the server gave up: {text}"),
            Self::NoStream => f.write_str("the server sent no databases"),
            Self::Cut => f.write_str("the connection was cut"),
            Self::Refused(why) => write!(f, "the stream was refused: {why}"),
            Self::Local(error) => write!(f, "cannot write what arrives: {error}"),
        }
    }
}

impl std::error::Error for Error {}

fn refused(why: impl AsRef<str>) -> Error {
    Error::Refused(clipped(why.as_ref()))
}

/// Without its middle, where it would fill screens: what is wrong comes last.
fn clipped(text: &str) -> String {
    let begin = text.char_indices().nth(MAX_SAID / 2).map(|(at, _)| at);
    let end = text.char_indices().rev().nth(MAX_SAID / 2).map(|(at, _)| at);
    match (begin, end) {
        (Some(begin), Some(end)) if begin < end => {
            format!("{}…{}", &text[..begin], &text[end..])
        }
        _ => text.to_owned(),
    }
}

/// What the end record proves.
#[derive(Debug)]
pub struct Received {
    pub databases: Vec<Delivered>,
    /// Whether the server applied rules.
    pub sanitized: bool,
    pub timings: Timings,
}

#[derive(Debug)]
pub struct Delivered {
    pub name: String,
    pub bytes: u64,
    pub sha256: String,
    /// How many rows the rules changed.
    pub sanitized: u64,
}

/// The server's own account, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    pub copy: i64,
    pub sanitize: i64,
    pub pack: i64,
}

/// Reads a stream from the talk before it to its end.
///
/// # Errors
///
/// Anything but a whole and well-formed stream that `nonce` names; what `sink`
/// was given by then is worth nothing.
pub fn read(input: impl Read, nonce: &str, sink: &mut impl Sink) -> Result<Received, Error> {
    let mut input = BufReader::with_capacity(1 << 16, input);
    read_talk(&mut input, nonce, "XTASK-DB", sink)?;
    read_archive(input, sink)
}

/// Reads the talk of a server that made an archive; returns the machine that
/// has it, where that is known, and its path there.
///
/// # Errors
///
/// As [`read`].
pub fn find_archive(
    input: impl Read,
    nonce: &str,
    sink: &mut impl Sink,
) -> Result<(Option<String>, String), Error> {
    let said = read_talk(&mut BufReader::new(input), nonce, "XTASK-DB-ARCHIVE", sink)?;
    let (machine, path) = said.split_once(' ').unwrap_or_default();
    let plain =
        |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "/._- +@=,:%".contains(c));
    let named = machine == "-" || !(machine.is_empty() || machine.starts_with('-'));
    if !path.starts_with('/') || path.contains("..") || !plain(path) || !named || !plain(machine) {
        return Err(refused(format!("{said:?} is no path of an archive")));
    }
    Ok((Some(machine.to_owned()).filter(|machine| machine != "-"), path.to_owned()))
}

/// Reads a stream that begins behind the marker.
///
/// # Errors
///
/// As [`read`].
pub fn read_archive(mut input: impl BufRead, sink: &mut impl Sink) -> Result<Received, Error> {
    let magic = input.fill_buf().map_err(|_| Error::Cut)?.first().copied();
    match magic {
        Some(0x28) => {
            let decoder =
                zstd::Decoder::with_buffer(input).map_err(|error| refused(error.to_string()))?;
            read_tar(decoder.single_frame(), sink)
        }
        Some(0x1f) => read_tar(flate2::bufread::GzDecoder::new(input), sink),
        Some(_) => Err(refused("it is neither zstd nor gzip")),
        None => Err(Error::Cut),
    }
}

/// Reads up to the line that begins with `marker`, our version and the nonce;
/// returns what follows them.
fn read_talk(
    input: &mut impl BufRead,
    nonce: &str,
    marker: &str,
    sink: &mut impl Sink,
) -> Result<String, Error> {
    let mut talk = 0;
    let mut statuses = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = input
            .by_ref()
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)
            .map_err(|_| Error::NoStream)?;
        talk += read as u64;
        if !line.ends_with(b"\n") || talk > MAX_TALK {
            return Err(Error::NoStream);
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        let ours = |word: &str| {
            let rest = text.strip_prefix(word)?.strip_prefix(" 1 ")?.strip_prefix(nonce)?;
            if rest.is_empty() { Some("") } else { rest.strip_prefix(' ') }
        };
        if let Some(rest) = ours(marker) {
            return Ok(rest.to_owned());
        } else if let Some(what) = ours("XTASK-DB-STATUS") {
            statuses += 1;
            if statuses <= MAX_STATUS {
                sink.status(what);
            }
        } else if let Some(why) = ours("XTASK-DB-FAILED") {
            let (code, text) = why.split_once(' ').unwrap_or((why, ""));
            return Err(Error::Server { code: clipped(code), text: clipped(text) });
        } else if !text.is_empty() {
            sink.talk(text);
        }
    }
}

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

fn read_tar(input: impl Read, sink: &mut impl Sink) -> Result<Received, Error> {
    let left = Rc::new(Cell::new(MAX_RECORD + 64 * BLOCK));
    let mut archive = tar::Archive::new(Budget { inner: input, left: left.clone() });
    // Two archives come one after the other, each closed by blocks of zeros.
    archive.set_ignore_zeros(true);
    let mut members = archive.entries().map_err(|_| Error::Cut)?.raw(true);
    let mut next = || -> Result<Option<tar::Entry<'_, _>>, Error> {
        members.next().transpose().map_err(|error| broken(&error))
    };

    let index_text = record(&mut next()?.ok_or(Error::Cut)?, "index.json")?;
    let index = records::index(&index_text)?;
    sink.index(&index)?;
    left.set(
        index
            .databases
            .iter()
            .fold(MAX_RECORD, |sum, db| sum.saturating_add(db.bytes).saturating_add(64 * BLOCK)),
    );

    let mut hashes = Vec::new();
    for (i, announced) in index.databases.iter().enumerate() {
        let mut entry = next()?.ok_or(Error::Cut)?;
        expect(&entry, &format!("{i}.db"))?;
        hashes.push(database(&mut entry, announced, sink)?);
    }

    let end = records::end(&record(&mut next()?.ok_or(Error::Cut)?, "end.json")?)?;
    if next()?.is_some() {
        return Err(refused("there is more behind the end record"));
    }
    prove(index, &index_text, &hashes, end)
}

/// The tar or its compression ends early, or is not one.
fn broken(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::Cut,
        _ => refused(error.to_string()),
    }
}

fn expect(entry: &tar::Entry<'_, impl Read>, name: &str) -> Result<u64, Error> {
    let header = entry.header();
    if !header.entry_type().is_file() || *entry.path_bytes() != *name.as_bytes() {
        let found = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        return Err(refused(format!("{found:?} came where the file {name:?} belongs")));
    }
    header.entry_size().map_err(|error| broken(&error))
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
    announced: &Announced,
    sink: &mut impl Sink,
) -> Result<String, Error> {
    let size = entry.header().entry_size().map_err(|error| broken(&error))?;
    if size != announced.bytes {
        return Err(refused(format!(
            "{:?} has {size} bytes, not the {} announced",
            announced.name, announced.bytes
        )));
    }
    let mut file = sink.create(announced).map_err(Error::Local)?;
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

fn prove(
    index: Index,
    index_text: &str,
    hashes: &[String],
    end: EndRecord,
) -> Result<Received, Error> {
    if end.index != hex(&Sha256::digest(index_text)) {
        return Err(refused("the index is not what the server sent (sha256)"));
    }
    let applied = end.sanitized.is_some();
    let sanitized = end.sanitized.unwrap_or_else(|| vec![0; hashes.len()]);
    let rows = sanitized.iter().try_fold(0_u64, |sum, rows| sum.checked_add(*rows));
    if end.sha256.len() != hashes.len() || sanitized.len() != hashes.len() || rows.is_none() {
        return Err(refused("the end record does not fit the index"));
    }
    if let Some(i) = (0..hashes.len()).find(|&i| hashes[i] != end.sha256[i]) {
        return Err(refused(format!(
            "{:?} is not what the server sent (sha256)",
            index.databases[i].name
        )));
    }
    let databases = index
        .databases
        .into_iter()
        .zip(end.sha256)
        .zip(sanitized)
        .map(|((db, sha256), sanitized)| Delivered {
            name: db.name,
            bytes: db.bytes,
            sha256,
            sanitized,
        })
        .collect();
    let timings = Timings { copy: end.copy_ms, sanitize: end.sanitize_ms, pack: end.pack_ms };
    Ok(Received { databases, sanitized: applied, timings })
}

#[cfg(test)]
mod tests;
