//! The two sets of databases that are compared.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::source::Source;
use crate::config::{NamePattern, Settings};
use crate::error::Failure;
use crate::live::{self, State};
use crate::snapshots::{self, STATE_DIR, Snapshot, Store};
use crate::ui::escape;

/// The name of the current data on the command line.
pub const CURRENT: &str = "current";

/// One set, or one file.
pub struct Side {
    pub origin: Origin,
    databases: BTreeMap<String, Database>,
}

pub enum Origin {
    Snapshot(String),
    Current,
    File(PathBuf),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Snapshot(name) => f.write_str(name),
            Self::Current => f.write_str(CURRENT),
            Self::File(path) => f.write_str(&path.display().to_string()),
        }
    }
}

/// A database of a side.
#[derive(Clone)]
pub struct Database {
    pub path: PathBuf,
    /// Whether programs may have it open.
    is_shared: bool,
    /// Whether it is recorded that a rule is meant for it and was not applied.
    pub is_unmasked: bool,
    /// Of its content, if that is certain without reading it.
    sha256: Option<String>,
}

impl Database {
    /// # Errors
    ///
    /// It cannot be read, or stays locked for longer than `wait`.
    pub fn open(&self, wait: Duration) -> Result<Source> {
        if self.is_shared { Source::shared(&self.path, wait) } else { Source::closed(&self.path) }
    }

    /// Whether both are one file, or are known to have the same content.
    pub fn is_same(&self, other: &Self) -> bool {
        let file = |database: &Self| database.path.metadata().map(|it| (it.dev(), it.ino())).ok();
        file(self).is_some_and(|it| Some(it) == file(other))
            || self.sha256.is_some() && self.sha256 == other.sha256
    }
}

/// The databases of one name.
pub struct Pair {
    pub name: String,
    pub a: Option<Database>,
    pub b: Option<Database>,
}

impl Side {
    /// The side that a user calls `text`: a snapshot, the current data, or the path of a file.
    ///
    /// # Errors
    ///
    /// No snapshot or file is called like this, or several snapshots are.
    pub fn find(settings: &Settings, store: &Store, text: &str) -> Result<Self> {
        let path = Path::new(text);
        if text == CURRENT {
            Self::current(settings, store)
        } else if path.is_file() {
            Self::file(settings, store, path)
        } else if path.is_dir() && store.find(text).is_err() || text.contains('/') && !path.exists()
        {
            let hint = "name a database file, a snapshot (cargo xtask snapshots), or `current`";
            Err(Failure::usage(format!("{text} is not a file")).hint(hint).into())
        } else {
            Ok(Self::snapshot(settings, &store.find(text)?))
        }
    }

    /// The newest pulled snapshot.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn newest_pull(settings: &Settings, store: &Store) -> Result<Self> {
        let snapshots = store.list()?;
        let newest = snapshots.iter().find(|snapshot| snapshot.is_pull()).ok_or_else(|| {
            Failure::new(format!("there is no pulled snapshot in {}", store.dir.display()))
                .hint("cargo xtask pull-db")
        })?;
        Ok(Self::snapshot(settings, newest))
    }

    fn snapshot(settings: &Settings, snapshot: &Snapshot) -> Self {
        let unmasked = snapshot.unsanitized(&settings.rules);
        let database = |name: &String| {
            let path = snapshot.path.join(name);
            let recorded = snapshot.database(name).filter(|database| database.is_recorded(&path));
            let sha256 = recorded.and_then(|database| database.sha256.clone());
            Database { path, is_shared: false, is_unmasked: unmasked.contains(name), sha256 }
        };
        let names = snapshot.files.iter().map(|(name, _)| (name.clone(), database(name)));
        Self { origin: Origin::Snapshot(snapshot.name.clone()), databases: names.collect() }
    }

    /// # Errors
    ///
    /// The data directory or its state cannot be read.
    pub fn current(settings: &Settings, store: &Store) -> Result<Self> {
        let state = State::read(store)?;
        let unmasked = snapshots::unsanitized(&state.raw(store), &settings.rules);
        let mut known = live::known_sha256(store, &state);
        let database = |name: String| {
            let path = store.dir.join(&name);
            let (is_unmasked, sha256) = (unmasked.contains(&name), known.remove(&name));
            (name, Database { path, is_shared: true, is_unmasked, sha256 })
        };
        let names = live::databases(&store.dir, &settings.names)?;
        Ok(Self { origin: Origin::Current, databases: names.into_iter().map(database).collect() })
    }

    /// A file, which may be part of a snapshot or of the current data, also of another data directory.
    fn file(settings: &Settings, store: &Store, path: &Path) -> Result<Self> {
        let real =
            path.canonicalize().with_context(|| format!("cannot read {}", path.display()))?;
        let above = real.ancestors().skip(1).filter(|dir| dir.join(STATE_DIR).is_dir());
        let others: Vec<_> = above.map(Store::new).collect();
        let mut known = None;
        for store in [store].into_iter().chain(&others) {
            let snapshots = store.list()?;
            let sides = snapshots.iter().map(|it| Self::snapshot(settings, it));
            let sides = sides.chain([Self::current(settings, store)?]);
            let mut databases = sides.flat_map(|side| side.databases.into_values());
            known = databases.find(|it| it.path.canonicalize().is_ok_and(|it| it == real));
            if known.is_some() {
                break;
            }
        }
        // Nothing may appear in a snapshot, not even in one of another data directory.
        let is_shared = !real
            .ancestors()
            .skip(1)
            .filter_map(Path::file_name)
            .any(|name| snapshots::is_ours(&name.to_string_lossy()));
        let other = Database { path: path.to_owned(), is_shared, is_unmasked: false, sha256: None };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let databases = BTreeMap::from([(name, known.unwrap_or(other))]);
        Ok(Self { origin: Origin::File(path.to_owned()), databases })
    }

    fn is_file(&self) -> bool {
        matches!(self.origin, Origin::File(_))
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        self.databases.keys()
    }
}

/// The databases of both sides, by name; those that match `only`.
///
/// # Errors
///
/// None matches, or a file has no counterpart.
pub fn pairs(a: &Side, b: &Side, only: Option<&NamePattern>) -> Result<Vec<Pair>> {
    if a.is_file() || b.is_file() {
        return Ok(vec![of_file(a, b, only)?]);
    }
    let names: BTreeSet<&String> = a.names().chain(b.names()).collect();
    let wanted = names.iter().filter(|name| only.is_none_or(|only| only.matches(name)));
    let pair = |name: &&String| Pair {
        name: (**name).clone(),
        a: a.databases.get(*name).cloned(),
        b: b.databases.get(*name).cloned(),
    };
    let pairs: Vec<Pair> = wanted.map(pair).collect();
    match only.filter(|_| pairs.is_empty()) {
        Some(only) => Err(Failure::usage(format!(
            "--only {:?} matches none of: {}",
            only.as_str(),
            list(names)
        ))
        .into()),
        None => Ok(pairs),
    }
}

/// A file is compared with another one, or with the database of its name in a set.
fn of_file(a: &Side, b: &Side, only: Option<&NamePattern>) -> Result<Pair> {
    let file = if a.is_file() { a } else { b };
    let file = file.names().next().map_or("", String::as_str);
    let find = |side: &Side| {
        let is_wanted = |name: &str| match only {
            _ if side.is_file() => true,
            Some(only) => only.matches(name),
            None => name.rsplit('/').next() == Some(file),
        };
        let mut found = side.databases.iter().filter(|(name, _)| is_wanted(name));
        match (found.next(), found.next()) {
            (Some((name, database)), None) => Ok((name.clone(), database.clone())),
            (found, _) => {
                let what = if found.is_none() { "no database" } else { "several databases" };
                let (origin, like) = (&side.origin, only.map_or(file, NamePattern::as_str));
                let names = list(side.names().collect());
                Err(Failure::usage(format!("{origin} has {what} called {like:?}; it has: {names}"))
                    .hint("name the one to compare the file with: --only NAME"))
            }
        }
    };
    let ((x, a), (y, b)) = (find(a)?, find(b)?);
    let name = if x == y { x } else { format!("{x} → {y}") };
    Ok(Pair { name, a: Some(a), b: Some(b) })
}

fn list(names: BTreeSet<&String>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| escape(name)).collect();
    names.join(", ")
}
