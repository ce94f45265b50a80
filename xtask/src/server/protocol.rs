//! Parses the server's output: lines of text, a marker line, a compressed tar with an index, the
//! databases and an end record. It trusts no input, and uses no processes, files or terminals: the
//! caller asks for one event after the other.

mod archive;
mod chunk;
mod member;
mod preamble;
mod records;

use std::fmt;

use crate::snapshots::RemoteState;

pub use self::archive::{Archive, Content, Event};
pub use self::preamble::{
    Marker, Preamble, PreambleEvent, archive_place, failure_in, planned_bytes,
};
pub use self::records::{Changed, Index, IndexEntry};

/// The maximum length of server text in a message, in characters.
const MAX_QUOTED: usize = 500;

#[derive(Debug)]
pub enum Error {
    /// The server's script failed, with a code and a text.
    Server { code: String, text: String },
    /// The stream ended before the marker.
    NoStream,
    /// The stream ended before its end record.
    Cut,
    /// The received data is not what our script sends.
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

/// Removes the middle of a long text: the cause comes last.
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

/// The content of the verified end record.
#[derive(Debug)]
pub struct Received {
    pub databases: Vec<ReceivedDb>,
    /// The numbers of the bases whose databases have not changed.
    pub same: Vec<usize>,
    /// The run of the server's kernel.
    pub boot: Option<String>,
    /// Whether the server applied rules.
    pub sanitized: bool,
    pub timings: Timings,
}

#[derive(Clone, Debug)]
pub struct ReceivedDb {
    pub name: String,
    pub bytes: u64,
    /// Verified, unless the database came as a delta.
    pub sha256: String,
    /// The number of rows that the rules changed.
    pub sanitized: u64,
    /// The differences from its base; `None` if it came complete.
    pub changed: Option<Changed>,
    /// Whether its unused bytes are zero.
    pub scrubbed: bool,
    /// By which a later pull may find that it has not changed.
    pub remote: Option<RemoteState>,
}

/// The server's measurements, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    pub copy: i64,
    pub sanitize: i64,
    pub compare: i64,
    pub pack: i64,
    /// The time between the moments of the first and the last database.
    pub skew: i64,
}

#[cfg(test)]
mod tests;
