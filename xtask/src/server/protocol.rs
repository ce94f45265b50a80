//! Reader of what the server sends: lines of text, a marker line, a compressed tar with
//! an index, the databases and an end record. It trusts none of it, and knows nothing of
//! processes, files or terminals: its caller asks for one event after the other.

mod archive;
mod chunk;
mod member;
mod preamble;
mod records;

use std::fmt;

pub use self::archive::{Archive, Content, Event};
pub use self::preamble::{
    Marker, Preamble, PreambleEvent, archive_place, failure_in, planned_bytes,
};
pub use self::records::{Changed, Index, IndexEntry};

/// How much of the server's text fits into a message, in characters.
const MAX_QUOTED: usize = 500;

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
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server { text, .. } => write!(f, "the remote script failed: {}", clipped(text)),
            Self::NoStream => f.write_str("the server sent no databases"),
            Self::Cut => f.write_str("the connection was cut"),
            Self::Refused(why) => write!(f, "the stream was refused: {why}"),
        }
    }
}

impl std::error::Error for Error {}

fn refused(why: impl AsRef<str>) -> Error {
    Error::Refused(clipped(why.as_ref()))
}

/// Without its middle, where it would fill screens: the cause comes last.
pub fn clipped(text: &str) -> String {
    let begin = text.char_indices().nth(MAX_QUOTED / 2).map(|(at, _)| at);
    let end = text.char_indices().rev().nth(MAX_QUOTED / 2).map(|(at, _)| at);
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
    /// Proven, unless it was put together from blocks.
    pub sha256: String,
    /// How many rows the rules changed.
    pub sanitized: u64,
    /// What differs from its base; none where all of it came.
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

#[cfg(test)]
mod tests;
