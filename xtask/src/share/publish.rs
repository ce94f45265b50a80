//! Publishes a snapshot: the objects first, then the manifest, then the index.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::PathBuf;

use anyhow::Result;
use jiff::Timestamp;

use super::blocks::{self, Difference};
use super::guard::wait_for_prunes;
use super::manifest::{AT_ONCE, CHAIN, Entry, Manifest, PART, Part, Version};
use super::vault::Vault;
use crate::each::each;
use crate::error::Failure;
use crate::fs;
use crate::snapshots::{Database, Meta, Snapshot, Store};

/// The number of published snapshots whose databases may be bases.
const KNOWN: usize = 3;

/// A version that the store does not have yet.
struct New<'a> {
    sha256: &'a str,
    path: PathBuf,
    bytes: u64,
    base: Option<String>,
    contents: Vec<Content>,
}

/// What an object has of the file of a database.
enum Content {
    All(Range<u64>),
    Runs(Vec<Range<u64>>),
}

/// Publishes a snapshot, of which `meta` is told, after it said so if it has to wait; returns whether it was not there yet.
///
/// # Errors
///
/// The store cannot be written, or a database is not what was recorded.
pub fn publish(
    vault: &Vault<'_>,
    store: &Store,
    snapshot: &Snapshot,
    meta: &Meta,
    tell: impl Fn(),
) -> Result<bool> {
    let local = by_content(store)?;
    vault.update(|index| {
        let mut entries = index.snapshots.clone();
        let is_there = entries.iter().any(|it| it.name == snapshot.name && it.time == meta.time);
        if is_there && vault.recipients()? == index.recipients {
            return Ok((false, None));
        }
        if !is_there {
            wait_for_prunes(vault, &tell)?;
            entries.push(upload(vault, &entries, &local, snapshot, meta)?);
        }
        Ok((!is_there, Some(entries)))
    })
}

/// A database that is here, and its file.
pub struct Known {
    pub path: PathBuf,
    pub database: Database,
}

/// The databases here, by their sha256.
///
/// # Errors
///
/// The snapshots cannot be read.
pub fn by_content(store: &Store) -> Result<HashMap<String, Known>> {
    let mut found = HashMap::new();
    for snapshot in store.list()?.iter().filter(|snapshot| snapshot.defect.is_none()) {
        for database in snapshot.meta.iter().flat_map(|meta| &meta.databases) {
            if let Some(sha256) = database.sha256.clone().filter(|_| !database.damaged) {
                let path = snapshot.path.join(&database.name);
                let is_recorded = |known: &Known| known.database.is_recorded(&known.path);
                if !found.get(&sha256).is_some_and(is_recorded) {
                    found.insert(sha256, Known { path, database: database.clone() });
                }
            }
        }
    }
    Ok(found)
}

/// Stores all that the store lacks of a snapshot.
fn upload(
    vault: &Vault<'_>,
    entries: &[Entry],
    local: &HashMap<String, Known>,
    snapshot: &Snapshot,
    meta: &Meta,
) -> Result<Entry> {
    let mut newest: Vec<_> = entries.iter().collect();
    newest.sort_by_key(|entry| std::cmp::Reverse(entry.published));
    newest.truncate(KNOWN);
    let known = each(AT_ONCE, &newest, |entry| vault.manifest(entry))?;
    let mut versions = BTreeMap::new();
    let mut missing: BTreeMap<&str, &Database> = BTreeMap::new();
    for database in &meta.databases {
        let Some(sha256) = database.sha256.as_deref() else { continue };
        let chain = known.iter().find_map(|manifest| manifest.chain(sha256));
        match chain {
            Some(chain) => add(&mut versions, &chain),
            None => _ = missing.insert(sha256, database),
        }
    }
    let missing: Vec<_> = missing.into_iter().collect();
    let new = each(AT_ONCE, &missing, |(sha256, database)| {
        let base = base_of(&known, &database.name, local);
        describe(snapshot, sha256, database, base)
    })?;
    for base in new.iter().filter_map(|new| new.base.as_deref()) {
        let chain = known.iter().find_map(|manifest| manifest.chain(base));
        add(&mut versions, &chain.unwrap_or_default());
    }
    let contents: Vec<_> =
        new.iter().flat_map(|new| new.contents.iter().map(move |content| (new, content))).collect();
    let parts =
        each(AT_ONCE, &contents, |(new, content)| store_content(vault, &new.path, content))?;
    let mut parts = parts.into_iter();
    for New { sha256, bytes, base, contents, .. } in new {
        let parts = parts.by_ref().take(contents.len()).collect();
        versions.insert(sha256.to_owned(), Version { bytes, base, parts });
    }
    let manifest = vault.put_manifest(&Manifest { meta: meta.clone(), versions })?;
    Ok(Entry {
        name: snapshot.name.clone(),
        time: meta.time,
        published: Timestamp::now(),
        source: meta.origin.as_ref().and_then(|origin| origin.name.clone()),
        only: meta.only.clone(),
        databases: meta.databases.len(),
        bytes: meta.databases.iter().map(|database| database.bytes).sum(),
        manifest,
    })
}

fn add(versions: &mut BTreeMap<String, Version>, chain: &[(&str, &Version)]) {
    for (sha256, version) in chain {
        versions.insert((*sha256).to_owned(), (*version).clone());
    }
}

/// The newest published version of a database that is here too, and that may have one more delta.
fn base_of<'a>(
    known: &'a [Manifest],
    name: &str,
    local: &'a HashMap<String, Known>,
) -> Option<(&'a str, &'a PathBuf)> {
    known.iter().find_map(|manifest| {
        let database = manifest.meta.databases.iter().find(|database| database.name == name)?;
        let sha256 = database.sha256.as_deref()?;
        let is_short = manifest.chain(sha256)?.len() <= CHAIN;
        is_short.then_some((sha256, &local.get(sha256)?.path))
    })
}

/// What has to be stored of a database: its difference from a base, or all of it.
fn describe<'a>(
    snapshot: &Snapshot,
    sha256: &'a str,
    database: &Database,
    base: Option<(&str, &PathBuf)>,
) -> Result<New<'a>> {
    let path = snapshot.path.join(&database.name);
    let bytes = database.bytes;
    let difference = base.map(|(_, base)| blocks::compare(&path, base)).transpose()?;
    let found = match &difference {
        Some(difference) => difference.sha256.clone(),
        None => fs::sha256(&path)?,
    };
    if found != sha256 {
        let what = format!("{} in {} was changed", database.name, snapshot.name);
        return Err(Failure::new(what).hint("publish another snapshot").into());
    }
    if let (Some((base, _)), Some(Difference { base: found, runs, .. })) = (base, difference) {
        let changed: u64 = runs.iter().map(|run| run.end - run.start).sum();
        // A base that is not what was recorded would make something else of the delta.
        if base == found && changed <= bytes / 2 {
            let contents = blocks::parts(runs).into_iter().map(Content::Runs).collect();
            return Ok(New { sha256, path, bytes, base: Some(found), contents });
        }
    }
    let starts = (0..bytes).step_by(PART);
    let contents = starts.map(|at| Content::All(at..bytes.min(at + PART as u64))).collect();
    Ok(New { sha256, path, bytes, base: None, contents })
}

fn store_content(vault: &Vault<'_>, path: &std::path::Path, content: &Content) -> Result<Part> {
    use std::os::unix::fs::FileExt as _;

    let file = fs_err::File::open(path)?;
    let content = match content {
        Content::Runs(runs) => blocks::encode(file.file(), runs)?,
        Content::All(range) => {
            let mut content = vec![0; (range.end - range.start) as usize];
            file.file().read_exact_at(&mut content, range.start)?;
            content
        }
    };
    vault.put(&content)
}
