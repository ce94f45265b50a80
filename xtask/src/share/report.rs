//! What the commands print of a store with `--json`.

use jiff::Timestamp;
use serde::Serialize;

use crate::snapshots::Database;

/// Of `pull-db --via share`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "pull-db-share"))]
pub struct Pulled<'a> {
    pub skipped: bool,
    /// The URL of the store.
    pub share: &'a str,
    /// Its name in the store.
    pub published: &'a str,
    pub snapshot: &'a str,
    pub before: Option<&'a str>,
    pub databases: Vec<Database>,
    pub removed: &'a [String],
    pub programs: &'a [String],
    /// Unsanitized databases of the live set.
    pub unsanitized_databases: &'a [String],
    pub seconds: f64,
    pub wire_bytes: u64,
}

/// Of `pull-db --via share --dry-run`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "pull-db-share-dry-run"))]
pub struct Plan<'a> {
    pub dry_run: bool,
    pub share: &'a str,
    pub published: &'a str,
    pub databases: Vec<Planned<'a>>,
    pub removes: &'a [String],
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "PlannedSharedDatabase"))]
pub struct Planned<'a> {
    pub name: &'a str,
    pub bytes: u64,
    /// What is not here, before compression.
    pub missing_bytes: u64,
}

/// Of `snapshots publish`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "snapshots-publish"))]
pub struct Published<'a> {
    pub share: &'a str,
    pub snapshot: &'a str,
    /// False if it was published before.
    pub new: bool,
    pub encrypted: bool,
    pub databases: usize,
    pub bytes: u64,
    pub wire_bytes: u64,
}

/// Of `snapshots list --share`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "snapshots-share"))]
pub struct List<'a> {
    pub share: &'a str,
    pub snapshots: Vec<Listed<'a>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "SharedSnapshot"))]
pub struct Listed<'a> {
    pub name: &'a str,
    #[cfg_attr(test, schemars(with = "String"))]
    pub time: Timestamp,
    pub source: Option<&'a str>,
    pub only: Option<&'a str>,
    pub databases: usize,
    pub bytes: u64,
}

/// Of `snapshots prune --share`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "snapshots-share-prune"))]
pub struct Pruned<'a> {
    pub share: &'a str,
    pub removed: &'a [String],
    pub objects: usize,
    pub bytes: u64,
}
