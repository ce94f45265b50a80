//! What the store says of itself: an index of the published snapshots, and of each a manifest.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::snapshots::Meta;

pub const VERSION: u32 = 1;
/// How many objects travel at a time: most are small, and each costs a round trip.
pub const AT_ONCE: usize = 8;
/// The maximum number of bytes of a database, or of a delta, in one object.
pub const PART: usize = 1 << 20;
/// The maximum size of an index or a manifest, in bytes.
pub const MAX_TEXT: usize = 32 << 20;
/// The number of deltas on top of a whole database.
pub const CHAIN: usize = 8;

#[derive(Clone, Default, Deserialize, Serialize)]
pub struct Index {
    pub version: u32,
    /// That of its own name, so that an older index cannot be passed off as a newer one.
    pub counter: u64,
    /// The sha256 of the recipients for which the key was encrypted.
    pub recipients: Option<String>,
    pub snapshots: Vec<Entry>,
}

#[derive(Clone, Deserialize, PartialEq, Serialize)]
pub struct Entry {
    pub name: String,
    /// When the databases were pulled.
    pub time: Timestamp,
    pub published: Timestamp,
    /// As in the origin of the snapshot.
    pub source: Option<String>,
    pub only: Option<String>,
    pub databases: usize,
    pub bytes: u64,
    pub manifest: Part,
}

/// An object in the store, which is compressed.
#[derive(Clone, Deserialize, PartialEq, Serialize)]
pub struct Part {
    pub object: String,
    /// The size of its content, in bytes.
    pub bytes: usize,
}

#[derive(Deserialize, Serialize)]
pub struct Manifest {
    pub meta: Meta,
    /// How each database is made, and those that it is made of, by their sha256.
    pub versions: BTreeMap<String, Version>,
}

/// One content of a database.
#[derive(Clone, Deserialize, Serialize)]
pub struct Version {
    pub bytes: u64,
    /// The version from which this one differs by `parts`; without it, they are all of it.
    pub base: Option<String>,
    pub parts: Vec<Part>,
}

impl Manifest {
    /// The sha256 of a database and of all that it is made of, the whole one last; `None` if one is
    /// missing.
    pub fn chain<'a>(&'a self, sha256: &'a str) -> Option<Vec<(&'a str, &'a Version)>> {
        let mut chain = Vec::new();
        let mut next = Some(sha256);
        while let Some(sha256) = next {
            let version = self.versions.get(sha256)?;
            chain.push((sha256, version));
            if chain.len() > CHAIN + 1 {
                return None;
            }
            next = version.base.as_deref();
        }
        Some(chain)
    }

    /// The names of the objects of all databases.
    pub fn objects(&self) -> impl Iterator<Item = &str> {
        self.versions.values().flat_map(|version| &version.parts).map(|part| &*part.object)
    }
}
