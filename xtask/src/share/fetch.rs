//! Fetches a published snapshot: of each database what is not here.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::blocks;
use super::manifest::{AT_ONCE, Entry, Manifest, PART, Part, Version};
use super::portable;
use super::publish::Known;
use super::vault::Vault;
use crate::config::{NamePattern, Settings};
use crate::each::each;
use crate::error::Failure;
use crate::snapshots::{Database, FileId};
use crate::{fs, interrupt, sqlite};

/// A published snapshot, or some databases of it.
pub struct Offer {
    pub entry: Entry,
    pub manifest: Manifest,
}

/// The snapshot of this name, else the newest of all databases of a source: those of its databases
/// that belong to the set here.
///
/// # Errors
///
/// There is none, or the store cannot be read.
pub fn choose(
    vault: &Vault<'_>,
    name: Option<&str>,
    settings: &Settings,
    only: Option<&NamePattern>,
) -> Result<Offer> {
    let index = vault.index()?;
    let fits = |entry: &&Entry| match name {
        Some(name) => {
            entry.name == name
                || entry.name.trim_end_matches('Z').ends_with(name.trim_end_matches('Z'))
        }
        None => entry.only.is_none() && entry.source == settings.source,
    };
    let entry = index.snapshots.iter().filter(fits).max_by_key(|entry| entry.time);
    let Some(entry) = entry.cloned() else {
        let (url, newest) = (vault.url(), index.snapshots.iter().max_by_key(|entry| entry.time));
        let failure = match (name, newest) {
            (Some(name), Some(newest)) => Failure::new(format!(
                "no snapshot in {url} is called {name:?}; the newest is {}",
                newest.name
            )),
            _ => Failure::new(format!("nothing was published to {url} yet")),
        };
        let hint = "cargo xtask snapshots list --share; a member who may pull from the server publishes: cargo xtask snapshots publish";
        return Err(failure.hint(hint).into());
    };
    let mut manifest = vault.manifest(&entry)?;
    let meta = &mut manifest.meta;
    portable::check(meta).map_err(|why| vault.lies(&format!("{} ({why})", entry.name)))?;
    meta.databases.retain(|database| settings.names.selects(&database.name, only));
    if let Some(only) = only {
        meta.only = Some(only.as_str().to_owned());
    }
    if meta.databases.is_empty() {
        let (wanted, hint) = match only {
            Some(only) => (format!("{:?}", only.as_str()), "leave out --only"),
            None => {
                ("`include`".to_owned(), "compare `include` in xtask/db.toml with the publisher's")
            }
        };
        let what = format!("no database of {} matches {wanted}", entry.name);
        return Err(Failure::usage(what).hint(hint).into());
    }
    Ok(Offer { entry, manifest })
}

/// How a database is made here.
struct Made<'a> {
    database: &'a Database,
    path: PathBuf,
    /// What is here and from which it begins.
    base: Option<&'a Known>,
    /// The versions that are fetched, in order.
    steps: Vec<&'a Version>,
}

impl<'a> Made<'a> {
    /// The same database here, if nobody has written to its file since it was recorded.
    fn same(&self) -> Option<&'a Known> {
        let known = self.base.filter(|_| self.steps.is_empty())?;
        known.database.is_recorded(&known.path).then_some(known)
    }
}

impl Offer {
    /// Where the databases come from, as far as files here are what was recorded of them.
    fn plan<'a>(
        &'a self,
        vault: &Vault<'_>,
        dir: &Path,
        local: &'a HashMap<String, Known>,
    ) -> Result<Vec<Made<'a>>> {
        let databases = self.manifest.meta.databases.iter();
        let planned = databases.map(|database| {
            let sha256 = database.sha256.as_deref().unwrap_or_default();
            let path = dir.join(&database.name);
            if let Some(base) = local.get(sha256) {
                return Ok(Made { database, path, base: Some(base), steps: Vec::new() });
            }
            let chain = self.manifest.chain(sha256).filter(|chain| is_sound(chain, database));
            let chain = chain.ok_or_else(|| vault.lies(&self.entry.name))?;
            let here = chain.iter().position(|(sha256, _)| local.contains_key(*sha256));
            let base = here.and_then(|at| local.get(chain[at].0));
            let steps = chain[..here.unwrap_or(chain.len())].iter().rev();
            let steps = steps.map(|(_, version)| *version).collect();
            Ok(Made { database, path, base, steps })
        });
        planned.collect()
    }

    /// How many bytes of objects, before compression, have to be fetched.
    ///
    /// # Errors
    ///
    /// The manifest is not sound.
    pub fn missing(
        &self,
        vault: &Vault<'_>,
        local: &HashMap<String, Known>,
    ) -> Result<BTreeMap<String, u64>> {
        let made = self.plan(vault, Path::new(""), local)?.into_iter();
        let size = |made: Made<'_>| {
            let parts = made.steps.iter().flat_map(|version| &version.parts);
            (made.database.name.clone(), parts.map(|part| part.bytes as u64).sum())
        };
        Ok(made.map(size).collect())
    }

    /// Makes all databases in `dir`, each verified by its sha256 and SQLite's check.
    ///
    /// # Errors
    ///
    /// A database cannot be made, or is not what was published.
    pub fn fetch(
        &self,
        vault: &Vault<'_>,
        dir: &Path,
        local: &HashMap<String, Known>,
    ) -> Result<Vec<Database>> {
        let (mut linked, mut made) = (Vec::new(), Vec::new());
        for one in self.plan(vault, dir, local)? {
            match one.same() {
                Some(known) => linked.push(link(dir, &one, known)?),
                None => made.push(one),
            }
        }
        let nothing = HashMap::new();
        make(vault, dir, &made)?;
        let mut verified = each(AT_ONCE, &made, verify)?;
        // The file of a snapshot here may have been changed.
        let wrong = |i: &usize| verified[*i].is_none() && made[*i].base.is_some();
        let wrong: Vec<_> = (0..made.len()).filter(wrong).collect();
        if !wrong.is_empty() {
            let names: Vec<_> = wrong.iter().map(|i| &made[*i].database.name).collect();
            let whole = self.plan(vault, dir, &nothing)?.into_iter();
            let whole: Vec<_> = whole.filter(|made| names.contains(&&made.database.name)).collect();
            whole.iter().try_for_each(|made| fs::remove(&made.path))?;
            make(vault, dir, &whole)?;
            for (i, again) in wrong.into_iter().zip(each(AT_ONCE, &whole, verify)?) {
                verified[i] = again;
            }
        }
        let verified = verified.into_iter().zip(&made).map(|(verified, made)| {
            let name = &made.database.name;
            Ok(verified.ok_or_else(|| vault.lies(&format!("{name:?} of {}", self.entry.name)))?)
        });
        let mut all = verified.collect::<Result<Vec<Database>>>()?;
        all.extend(linked);
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }
}

/// Whether the versions can be what they say.
fn is_sound(chain: &[(&str, &Version)], database: &Database) -> bool {
    let whole = chain.last().map(|(_, whole)| {
        let bytes = whole.parts.iter().map(|part| part.bytes as u64);
        let are_full = whole.parts.iter().rev().skip(1).all(|part| part.bytes == PART);
        are_full && bytes.sum::<u64>() == whole.bytes
    });
    whole == Some(true) && chain.first().is_some_and(|(_, it)| it.bytes == database.bytes)
}

fn make(vault: &Vault<'_>, dir: &Path, made: &[Made<'_>]) -> Result<()> {
    each(AT_ONCE, made, |made| {
        interrupt::check()?;
        fs::create_parents(dir, &made.database.name)?;
        match made.base {
            Some(base) => _ = fs::duplicate(&base.path, &made.path)?,
            None => _ = fs::create(&made.path)?,
        }
        Ok(())
    })
    .map_err(|error| error.context(format!("cannot make a database in {}", dir.display())))?;
    let rounds = made.iter().map(|made| made.steps.len()).max().unwrap_or(0);
    for round in 0..rounds {
        let mut parts = Vec::new();
        for made in made {
            let Some(version) = made.steps.get(round) else { continue };
            fs::open(&made.path)?.set_len(version.bytes)?;
            let each = version.parts.iter().enumerate();
            parts.extend(each.map(|(i, part)| (&*made.path, *version, i, part)));
        }
        each(AT_ONCE, &parts, |(path, version, i, part)| {
            write(vault, &fs::open(path)?, version, *i, part)
        })?;
    }
    Ok(())
}

fn write(vault: &Vault<'_>, file: &File, version: &Version, i: usize, part: &Part) -> Result<()> {
    let content = vault.get_part(part)?;
    match version.base {
        Some(_) => blocks::apply(file, &content, version.bytes),
        None => Ok(fs::write_sparse(file, (i * PART) as u64, &content)?),
    }
}

/// A database whose file is here: nobody has written to it since it was verified.
fn link(dir: &Path, made: &Made<'_>, known: &Known) -> Result<Database> {
    let name = made.database.name.clone();
    fs::create_parents(dir, &name)?;
    fs::link(&known.path, &made.path)?;
    let file = FileId::of(&made.path).ok();
    Ok(Database { name, file, remote: None, ..known.database.clone() })
}

/// A database that was made, with what only its file tells; `None` if it has another sha256.
fn verify(made: &Made<'_>) -> Result<Option<Database>> {
    fs::open(&made.path)?.sync_all()?;
    if Some(fs::sha256(&made.path)?) != made.database.sha256 {
        return Ok(None);
    }
    let found = sqlite::check(&made.path)?;
    Ok(Some(Database {
        page_size: found.page_size,
        user_version: found.user_version,
        schema: found.schema,
        file: FileId::of(&made.path).ok(),
        remote: None,
        ..made.database.clone()
    }))
}
