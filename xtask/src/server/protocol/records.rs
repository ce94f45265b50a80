//! The two JSON records of a stream, printed by a shell script: the index before the databases, and
//! the end record after them.

use serde::Deserialize;

use super::{Error, refused};
use crate::fs::from_hex;
use crate::snapshots::{RemoteState, check_names};

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
    let databases = record.databases.into_iter().map(|database| {
        let name = from_hex(&database.name).and_then(|bytes| String::from_utf8(bytes).ok());
        let no_name = || refused(format!("the name {:?} is not UTF-8 in hex", database.name));
        let (bytes, is_delta) = (database.bytes, database.delta);
        Ok(IndexEntry { name: name.ok_or_else(no_name)?, bytes, is_delta })
    });
    let databases = databases.collect::<Result<Vec<_>, Error>>()?;
    check_names(databases.iter().map(|one| one.name.as_str())).map_err(refused)?;
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
            if is_plain(state, "._-") && is_plain(matched, ",/-") && is_plain(found, " ;,=-") =>
        {
            let (state, matched) = (state.to_owned(), matched.to_owned());
            Ok(RemoteState { state, matched, found: found.to_owned() })
        }
        _ => Err(refused(format!("{state:?} is no state of a database"))),
    }
}
