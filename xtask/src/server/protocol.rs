//! Reader of what the server sends: talk, a marker line, a compressed tar with
//! an index, the databases and an end record. It trusts none of it, and knows
//! nothing of processes, files or terminals.

mod archive;
mod member;
mod parts;
mod records;

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};

use crate::sanitize::audit::Finding;

pub use self::records::{Changed, Index, IndexEntry};

/// Before the marker there is only talk: a longer line, or more of it, is none.
const MAX_LINE: u64 = 64 << 10;
const MAX_PREAMBLE: u64 = 4 << 20;
/// Who says more of what it is doing is not heard.
const MAX_STATUS: usize = 100;
/// So many columns are found by an audit; those beyond are counted.
const MAX_FINDINGS: usize = 1000;
/// So much of what the other side says fits into a message, in characters.
const MAX_SAID: usize = 500;

/// Takes what is said before the stream.
pub trait Preamble {
    /// A line that is not ours, most often `fly`'s.
    fn talk(&mut self, line: &str);
    /// What the server is doing.
    fn status(&mut self, text: &str);
    /// A column that the server's audit has found.
    fn finding(&mut self, finding: Finding);
    /// So many more that it has found.
    fn more_findings(&mut self, more: u64);
}

/// Takes what the stream brings, in its order.
pub trait Sink: Preamble {
    type File: Write;
    /// All that is announced. An error refuses the stream.
    fn index(&mut self, index: &Index) -> Result<(), Error>;
    /// So many bytes of databases have arrived, or are known to be here.
    fn advance(&mut self, bytes: u64);
    /// The place for a database that was announced: empty, or if parts of it come,
    /// its base, cut or extended to its size.
    fn create(&mut self, database: &IndexEntry) -> io::Result<Self::File>;
    /// Writes a part of it in its place.
    fn patch(&mut self, file: &mut Self::File, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// All of it has been written.
    fn finish(&mut self, database: &IndexEntry, file: Self::File) -> io::Result<()>;
}

#[derive(Debug)]
pub enum Error {
    /// The server's script says why it failed: a code and a text.
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
            Self::Server { text, .. } => write!(f, "the remote script failed: {}", clipped(text)),
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
pub fn clipped(text: &str) -> String {
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
    pub databases: Vec<ReceivedDb>,
    /// Whether the server applied rules.
    pub sanitized: bool,
    pub timings: Timings,
}

#[derive(Clone, Debug)]
pub struct ReceivedDb {
    pub name: String,
    pub bytes: u64,
    /// Proven, unless it was put together from parts.
    pub sha256: String,
    /// How many rows the rules changed.
    pub sanitized: u64,
    /// What differs from its base; none where it came whole.
    pub changed: Option<Changed>,
}

/// The server's own account, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    pub copy: i64,
    pub sanitize: i64,
    pub compare: i64,
    pub pack: i64,
    /// How far apart the moments of the databases are.
    pub skew: i64,
}

/// Reads a stream from the talk before it to its end.
///
/// # Errors
///
/// Anything but a whole and well-formed stream that `nonce` names; what `sink`
/// was given by then is worth nothing.
pub fn read(input: impl Read, nonce: &str, sink: &mut impl Sink) -> Result<Received, Error> {
    let mut input = BufReader::with_capacity(1 << 16, input);
    read_preamble(&mut input, nonce, "XTASK-DB", sink)?;
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
    let said = read_preamble(&mut BufReader::new(input), nonce, "XTASK-DB-ARCHIVE", sink)?;
    let (machine, path) = said.split_once(' ').unwrap_or_default();
    let plain =
        |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "/._- +@=,:%".contains(c));
    let named = machine == "-" || !(machine.is_empty() || machine.starts_with('-'));
    if !path.starts_with('/') || path.contains("..") || !plain(path) || !named || !plain(machine) {
        return Err(refused(format!("{said:?} is no path of an archive")));
    }
    Ok((Some(machine.to_owned()).filter(|machine| machine != "-"), path.to_owned()))
}

/// Reads what a server says that it would send, and how many bytes on the wire
/// that would be.
///
/// # Errors
///
/// As [`read`].
pub fn read_plan(
    input: impl Read,
    nonce: &str,
    sink: &mut impl Sink,
) -> Result<(u64, Received), Error> {
    let mut input = BufReader::new(input);
    let said = read_preamble(&mut input, nonce, "XTASK-DB-PLAN", sink)?;
    let packed = said.parse().map_err(|_| refused(format!("{said:?} is no number of bytes")))?;
    Ok((packed, decompress(input, Content::Plan, sink)?))
}

/// Reads what a server finds that is asked for no more than its audit.
///
/// # Errors
///
/// As [`read`].
pub fn read_audit(input: impl Read, nonce: &str, heard: &mut impl Preamble) -> Result<(), Error> {
    read_preamble(&mut BufReader::new(input), nonce, "XTASK-DB-PLAN", heard).map(drop)
}

/// Reads a stream that begins behind the marker.
///
/// # Errors
///
/// As [`read`].
pub fn read_archive(input: impl BufRead, sink: &mut impl Sink) -> Result<Received, Error> {
    decompress(input, Content::Databases, sink)
}

/// Whether the databases are there, or only what would come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    Databases,
    Plan,
}

fn decompress(
    mut input: impl BufRead,
    content: Content,
    sink: &mut impl Sink,
) -> Result<Received, Error> {
    let magic = input.fill_buf().map_err(|_| Error::Cut)?.first().copied();
    match magic {
        Some(0x28) => {
            let decoder =
                zstd::Decoder::with_buffer(input).map_err(|error| refused(error.to_string()))?;
            archive::read(decoder.single_frame(), content, sink)
        }
        Some(0x1f) => archive::read(flate2::bufread::GzDecoder::new(input), content, sink),
        Some(_) => Err(refused("it is neither zstd nor gzip")),
        None => Err(Error::Cut),
    }
}

/// Reads up to the line that begins with `marker`, our version and the nonce;
/// returns what follows them.
fn read_preamble(
    input: &mut impl BufRead,
    nonce: &str,
    marker: &str,
    heard: &mut impl Preamble,
) -> Result<String, Error> {
    let mut talk = 0;
    let (mut statuses, mut findings) = (0, 0);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = input
            .by_ref()
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)
            .map_err(|_| Error::NoStream)?;
        talk += read as u64;
        if !line.ends_with(b"\n") || talk > MAX_PREAMBLE {
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
                heard.status(what);
            }
        } else if let Some(what) = ours("XTASK-DB-AUDIT") {
            let finding = Finding::parse(what);
            let finding = finding.ok_or_else(|| refused(format!("{what:?} is no finding")))?;
            findings += 1;
            if findings > MAX_FINDINGS {
                return Err(refused(format!("its audit tells more than {MAX_FINDINGS} columns")));
            }
            heard.finding(finding);
        } else if let Some(more) = ours("XTASK-DB-AUDIT-MORE") {
            heard.more_findings(
                more.parse().map_err(|_| refused(format!("{more:?} is no number")))?,
            );
        } else if let Some(why) = ours("XTASK-DB-FAILED") {
            let (code, text) = why.split_once(' ').unwrap_or((why, ""));
            return Err(Error::Server { code: clipped(code), text: text.to_owned() });
        } else if !text.is_empty() {
            heard.talk(text);
        }
    }
}

#[cfg(test)]
mod tests;
