//! The two JSON records of a stream, printed by a shell script: the index before the databases, and
//! the end record after them.

use std::collections::HashSet;

use serde::Deserialize;

use super::{Error, refused};
use crate::fs::from_hex;
use crate::snapshots::{RemoteState, is_in_snapshot};
use crate::sqlite::SIDECARS;

const MAX_DATABASES: usize = 10_000;
/// The maximum length of the name of a database, in bytes: with the path of a snapshot before it, it
/// must be a path.
const MAX_NAME: usize = 1024;
/// The maximum length of the name of a machine, a region or a version, in bytes.
const MAX_WORD: usize = 255;

/// The announced content of the stream.
#[derive(Debug, Default)]
pub struct Index {
    pub machine: Option<String>,
    pub region: Option<String>,
    /// The version of the server's SQLite.
    pub sqlite: String,
    pub databases: Vec<IndexEntry>,
    /// The run of the server's kernel, where states of files mean something there.
    pub boot: Option<String>,
    /// The numbers of the bases whose databases have not changed, in rising order.
    pub same: Vec<usize>,
}

#[derive(Clone, Debug)]
pub struct IndexEntry {
    pub name: String,
    pub bytes: u64,
    /// Whether it comes as a delta to a base.
    pub is_delta: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IndexRecord {
    version: u32,
    machine: String,
    region: String,
    sqlite: String,
    databases: Vec<DatabaseRecord>,
    #[serde(default)]
    boot: String,
    #[serde(default)]
    same: Vec<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DatabaseRecord {
    /// In hex: a file name is bytes, and JSON is text.
    name: String,
    bytes: u64,
    #[serde(default)]
    delta: bool,
}

/// The number of blocks and pages of a database that differ from its base.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(from = "(u32, u32)")]
pub struct Changed {
    pub blocks: u64,
    /// The pages that have such a block.
    pub pages: u64,
}

impl From<(u32, u32)> for Changed {
    fn from((blocks, pages): (u32, u32)) -> Self {
        Self { blocks: blocks.into(), pages: pages.into() }
    }
}

/// The record that completes the transfer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndRecord {
    version: u32,
    /// The number of rows that the rules changed, for each database; `None` without rules.
    pub sanitized: Option<Vec<u64>>,
    /// Negative if the server's clock was set back meanwhile.
    pub copy_ms: i64,
    pub sanitize_ms: i64,
    #[serde(default)]
    pub compare_ms: i64,
    pub pack_ms: i64,
    /// The time between the moments of the first and the last database.
    #[serde(default)]
    pub skew_ms: i64,
    /// The sha256 of the index, in hex.
    pub index: String,
    /// The sha256 of each database, in hex.
    pub sha256: Vec<String>,
    /// `None` for a complete database; empty if all are complete.
    #[serde(default)]
    pub changed: Vec<Option<Changed>>,
    /// For each database the state of its files and which rules matched, where a later pull may
    /// go by that; nothing where no pull may.
    #[serde(default)]
    pub state: Vec<Option<String>>,
    /// 1 for each database whose unused bytes are zero, else null.
    #[serde(default)]
    pub scrubbed: Vec<Option<u8>>,
    /// What the audit found in each.
    #[serde(default)]
    pub found: Option<Vec<String>>,
}

pub fn index(text: &str) -> Result<Index, Error> {
    let record: IndexRecord = serde_json::from_str(text)
        .map_err(|error| refused(format!("the index is malformed: {error}")))?;
    if record.version != 1 {
        return Err(refused(format!("it has version {}, not 1", record.version)));
    }
    let odd = |text: &&String| text.len() > MAX_WORD || text.chars().any(char::is_control);
    let words = [&record.machine, &record.region, &record.sqlite, &record.boot];
    if let Some(odd) = words.into_iter().find(odd) {
        return Err(refused(format!("{odd:?} is not a machine, region or version")));
    }
    // A set without databases would remove the whole live set.
    if record.databases.is_empty() && record.same.is_empty() {
        return Err(refused("it announces no database"));
    }
    if !record.same.is_sorted_by(|a, b| a < b) {
        return Err(refused("the databases that have not changed are in no order"));
    }
    if record.databases.len().max(record.same.len()) > MAX_DATABASES {
        return Err(refused(format!("it announces more than {MAX_DATABASES} databases")));
    }
    let mut seen = HashSet::new();
    let mut databases = Vec::new();
    for database in record.databases {
        let name = file_name(&database.name)?;
        // On macOS, names that differ only in case are one file.
        if !seen.insert(name.to_lowercase()) {
            return Err(refused(format!("it announces {name:?} twice")));
        }
        databases.push(IndexEntry { name, bytes: database.bytes, is_delta: database.delta });
    }
    let is_directory = |name: &String| {
        let parents = name.match_indices('/').map(|(at, _)| name[..at].to_lowercase());
        parents.into_iter().any(|parent| seen.contains(&parent))
    };
    if let Some(one) = databases.iter().map(|one| &one.name).find(|name| is_directory(name)) {
        return Err(refused(format!("a directory of {one:?} is a database as well")));
    }
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    Ok(Index {
        machine: some(record.machine),
        region: some(record.region),
        sqlite: record.sqlite,
        databases,
        boot: some(record.boot),
        same: record.same,
    })
}

/// A valid path of a file below the data directory, whatever the settings select.
fn file_name(hex: &str) -> Result<String, Error> {
    let name = from_hex(hex)
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| refused(format!("the name {hex:?} is not UTF-8 in hex")))?;
    let reserved = SIDECARS.iter().chain(&[".json"]).any(|end| name.to_lowercase().ends_with(end));
    // Neither `..` nor anything hidden, such as the directory of this tool.
    let is_part = |part: &str| !part.is_empty() && part.len() <= 255 && !part.starts_with('.');
    let bad = !name.split('/').all(is_part)
        || name.len() > MAX_NAME
        || reserved
        || is_in_snapshot(&name)
        || name.contains('\\')
        || name.chars().any(char::is_control);
    if bad { Err(refused(format!("{name:?} is not a name for a database"))) } else { Ok(name) }
}

pub fn end(text: &str) -> Result<EndRecord, Error> {
    let end: EndRecord = serde_json::from_str(text)
        .map_err(|error| refused(format!("the end record is malformed: {error}")))?;
    if end.version == 1 {
        Ok(end)
    } else {
        Err(refused(format!("its end has version {}, not 1", end.version)))
    }
}

/// What the end record says of a database for later pulls, which send it back in lines.
pub fn remote_state(state: &str, found: &str) -> Result<RemoteState, Error> {
    let is_plain = |text: &str, marks: &str| {
        text.chars().all(|c| c.is_ascii_alphanumeric() || marks.contains(c))
    };
    match state.split_once(' ') {
        Some((state, matched))
            if is_plain(state, "._-") && is_plain(matched, ",/-") && is_plain(found, " ;,-") =>
        {
            let (state, matched) = (state.to_owned(), matched.to_owned());
            Ok(RemoteState { state, matched, found: found.to_owned() })
        }
        _ => Err(refused(format!("{state:?} is no state of a database"))),
    }
}
