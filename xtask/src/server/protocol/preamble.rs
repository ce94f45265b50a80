//! The lines before the stream: text of other programs, and the script's lines, which contain the
//! nonce.

use std::io::{BufRead, Read as _};

use super::{Error, clipped, refused};
use crate::pull::delta::BlockHash;
use crate::sanitize::audit::Finding;

/// Maximum bytes of a line, and of the whole preamble.
const MAX_LINE: u64 = 64 << 10;
pub const MAX_PREAMBLE: u64 = 4 << 20;
/// Maximum number of status lines; later ones are ignored.
const MAX_STATUS: usize = 100;
/// Maximum number of facts that a doctor or a survey reports.
const MAX_FACTS: usize = 1000;
/// Maximum number of columns that an audit names; it counts the others.
const MAX_FINDINGS: usize = 1000;

/// The line that ends the preamble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// The stream begins after it.
    Databases,
    /// The line names an archive on the server.
    Archive,
    /// The line has the number of bytes of the stream.
    Plan,
    /// All facts of a doctor were reported.
    Facts,
}

impl Marker {
    const fn word(self) -> &'static str {
        match self {
            Self::Databases => "XTASK-DB",
            Self::Archive => "XTASK-DB-ARCHIVE",
            Self::Plan => "XTASK-DB-PLAN",
            Self::Facts => "XTASK-DB-FACTS",
        }
    }
}

#[derive(Debug)]
pub enum PreambleEvent {
    /// A line of another program, most often `fly`.
    Text(String),
    /// The current step of the script.
    Status(String),
    /// A column that the server's audit found.
    Finding(Finding),
    /// What a doctor or a survey found.
    Fact(String),
    /// The number of findings that are not listed.
    MoreFindings(u64),
    /// The kind of the hashes that the server asks for, and the numbers of the bases.
    Need(BlockHash, Vec<usize>),
    /// The end of the preamble, with the text of the marker's line.
    End(String),
}

/// Reads up to the line with a marker, the protocol version and the nonce.
pub struct Preamble<'n, R> {
    input: R,
    nonce: &'n str,
    marker: Marker,
    bytes: u64,
    statuses: usize,
    findings: usize,
    facts: usize,
    /// Whether the server has asked for hashes, which it may do once.
    has_asked: bool,
}

impl<'n, R: BufRead> Preamble<'n, R> {
    pub fn new(input: R, nonce: &'n str, marker: Marker) -> Self {
        Self {
            input,
            nonce,
            marker,
            bytes: 0,
            statuses: 0,
            findings: 0,
            facts: 0,
            has_asked: false,
        }
    }

    /// The input after the marker.
    pub fn into_input(self) -> R {
        self.input
    }

    /// The next event; [`PreambleEvent::End`] is the last.
    ///
    /// # Errors
    ///
    /// The input ends before the marker, a line is malformed, or the script has failed.
    pub fn read_event(&mut self) -> Result<PreambleEvent, Error> {
        loop {
            let line = self.read_line()?;
            let line = line.trim_end();
            if let Some(rest) = self.own(line, self.marker.word()) {
                return Ok(PreambleEvent::End(rest.to_owned()));
            }
            if let Some(text) = self.own(line, "XTASK-DB-STATUS") {
                self.statuses += 1;
                if self.statuses <= MAX_STATUS {
                    return Ok(PreambleEvent::Status(text.to_owned()));
                }
            } else if let Some(text) = self.own(line, "XTASK-DB-AUDIT") {
                let finding = Finding::parse(text)
                    .ok_or_else(|| refused(format!("{text:?} is not a finding")))?;
                self.findings += 1;
                if self.findings > MAX_FINDINGS {
                    let why = format!("its audit reports more than {MAX_FINDINGS} columns");
                    return Err(refused(why));
                }
                return Ok(PreambleEvent::Finding(finding));
            } else if let Some(fact) = self.own(line, "XTASK-DB-FACT") {
                self.facts += 1;
                if self.facts > MAX_FACTS {
                    return Err(refused(format!("it reports more than {MAX_FACTS} facts")));
                }
                return Ok(PreambleEvent::Fact(fact.to_owned()));
            } else if let Some(more) = self.own(line, "XTASK-DB-AUDIT-MORE") {
                let more: u32 =
                    more.parse().map_err(|_| refused(format!("{more:?} is not a number")))?;
                return Ok(PreambleEvent::MoreFindings(more.into()));
            } else if let Some(numbers) = self.own(line, "XTASK-DB-NEED") {
                if std::mem::replace(&mut self.has_asked, true) {
                    return Err(refused("it asks for hashes twice"));
                }
                return needed(numbers);
            } else if let Some(why) = self.own(line, "XTASK-DB-FAILED") {
                let (code, text) = failure(why);
                return Err(Error::Server { code, text });
            } else if !line.is_empty() {
                return Ok(PreambleEvent::Text(line.to_owned()));
            }
        }
    }

    fn read_line(&mut self) -> Result<String, Error> {
        let mut line = Vec::new();
        let read = self.input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
        self.bytes += read.map_err(|_| Error::NoStream)? as u64;
        if !line.ends_with(b"\n") || self.bytes > MAX_PREAMBLE {
            return Err(Error::NoStream);
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    fn own<'l>(&self, line: &'l str, word: &str) -> Option<&'l str> {
        own(line, word, self.nonce)
    }
}

/// The text after `word`, the version and `nonce`, if the script wrote this line.
fn own<'l>(line: &'l str, word: &str, nonce: &str) -> Option<&'l str> {
    let rest = line.strip_prefix(word)?.strip_prefix(" 1 ")?.strip_prefix(nonce)?;
    if rest.is_empty() { Some("") } else { rest.strip_prefix(' ') }
}

/// The numbers must rise, so that no base is sent twice.
fn needed(text: &str) -> Result<PreambleEvent, Error> {
    let mut words = text.split_whitespace();
    let hash = words.next().and_then(BlockHash::of);
    let numbers = words.map(str::parse).collect::<Result<Vec<_>, _>>();
    let numbers = numbers.ok().filter(|numbers| numbers.is_sorted_by(|a, b| a < b));
    match (hash, numbers) {
        (Some(hash), Some(numbers)) => Ok(PreambleEvent::Need(hash, numbers)),
        _ => Err(refused(format!("{text:?} asks for no hashes of databases"))),
    }
}

fn failure(why: &str) -> (String, String) {
    let (code, text) = why.split_once(' ').unwrap_or((why, ""));
    (clipped(code), text.to_owned())
}

/// The code and the text of a failure that the script wrote to standard error, because the stream
/// had already begun.
pub fn failure_in(stderr: &str, nonce: &str) -> Option<(String, String)> {
    stderr.lines().find_map(|line| own(line.trim_end(), "XTASK-DB-FAILED", nonce)).map(failure)
}

/// The place of an archive, from the line of [`Marker::Archive`]: the machine, if known, and the
/// path there.
///
/// # Errors
///
/// The path is not absolute, or has special characters.
pub fn archive_place(text: &str) -> Result<(Option<String>, String), Error> {
    let (machine, path) = text.split_once(' ').unwrap_or_default();
    let plain =
        |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "/._- +@=,:%".contains(c));
    let named = machine == "-" || !(machine.is_empty() || machine.starts_with('-'));
    if !path.starts_with('/') || path.contains("..") || !plain(path) || !named || !plain(machine) {
        return Err(refused(format!("{text:?} is not a path of an archive")));
    }
    Ok((Some(machine.to_owned()).filter(|machine| machine != "-"), path.to_owned()))
}

/// The number of bytes of the stream, from the line of [`Marker::Plan`].
///
/// # Errors
///
/// The text is not a number.
pub fn planned_bytes(text: &str) -> Result<u64, Error> {
    text.parse().map_err(|_| refused(format!("{text:?} is not a number of bytes")))
}
