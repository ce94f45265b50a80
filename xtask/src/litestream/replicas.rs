//! Which databases have a replica, and where.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use glob::Pattern;
use jiff::Timestamp;

use super::config::{self, Config, Entry, join};
use super::search;
use crate::config::NamePattern;
use crate::error::Failure;
use crate::fs;
use crate::objects::access::Access;
use crate::snapshots::check_names;

/// What to restore.
pub struct Wanted<'a> {
    /// The URL of one replica or of a directory with several; `None` for those of `litestream.yml`.
    pub url: Option<&'a str>,
    /// The directory of the databases on the server, if that is known.
    pub remote_dir: Option<&'a str>,
    pub only: Option<&'a NamePattern>,
    /// The moment; `None` for the newest one of each database.
    pub at: Option<Timestamp>,
}

/// The replica of one database.
pub struct Replica {
    /// The path of the database in the directory of the server.
    pub name: String,
    pub place: Place,
}

pub enum Place {
    Url(String),
    /// The configuration that names it by this path.
    Configured {
        file: PathBuf,
        path: String,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => write!(f, "{}", url.split('?').next().unwrap_or_default()),
            Self::Configured { path, .. } => write!(f, "{path} of litestream.yml"),
        }
    }
}

pub struct Replicas {
    pub all: Vec<Replica>,
    /// Where they are, for a message.
    pub place: String,
}

impl Replicas {
    /// All that `wanted` names; a configuration with one entry for each is written into `directory`.
    ///
    /// # Errors
    ///
    /// The configuration cannot be read, or the replicas cannot be listed.
    pub fn find(root: &Path, directory: &Path, wanted: &Wanted<'_>) -> Result<Self> {
        let replicas = match wanted.url {
            Some(url) => Self::at(url)?,
            None => Self::configured(root, directory, wanted)?,
        };
        check_names(replicas.all.iter().map(|one| one.name.as_str())).map_err(|why| {
            Failure::new(format!("the replicas in {} have odd names: {why}", replicas.place))
                .hint("name one replica: --via litestream:URL")
        })?;
        Ok(replicas)
    }

    /// The replica at a URL, or those below it.
    fn at(url: &str) -> Result<Self> {
        let access = config::access(url.to_owned(), BTreeMap::new());
        let is_known = search::can_list(&access);
        let found = if is_known { search::below(&access, true)? } else { vec![String::new()] };
        let all = found.into_iter().map(|below| match below.as_str() {
            "" => Replica { name: base(&access), place: Place::Url(url.to_owned()) },
            below => Replica { name: below.to_owned(), place: Place::Url(join(url, below)) },
        });
        Ok(Self { all: all.collect(), place: access.shown().to_owned() })
    }

    fn configured(root: &Path, directory: &Path, wanted: &Wanted<'_>) -> Result<Self> {
        let file = config::find(root).with_context(|| {
            Failure::usage("this repository has no litestream.yml")
                .hint("name the replicas: via = \"litestream:s3://bucket/prefix\"")
        })?;
        let place = crate::ui::from_root(root, &file);
        let config = Config::read(&file)?;
        let mut databases: Vec<(String, &Entry, Option<String>)> = Vec::new();
        for entry in &config.entries {
            let Some(of) = &entry.directory else {
                databases.push((entry.path.clone(), entry, None));
                continue;
            };
            let pattern = Pattern::new(&of.pattern)
                .with_context(|| format!("pattern {:?} in {place}", of.pattern))?;
            let access = entry.access(&place)?;
            if !search::can_list(&access) {
                return Err(Failure::new(format!(
                    "cannot list the replicas in {}",
                    access.shown()
                ))
                .hint(format!(
                    "{}, or name each database in {place} by its path",
                    search::needed(&access)
                ))
                .into());
            }
            let names = search::below(&access, of.recursive)?;
            let fits = |name: &&String| {
                let (parent, base) = name.rsplit_once('/').unwrap_or(("", name));
                pattern.matches(base) && (of.recursive || parent.is_empty())
            };
            databases.extend(names.iter().filter(fits).map(|name| {
                (format!("{}/{name}", entry.path.trim_end_matches('/')), entry, Some(name.clone()))
            }));
        }
        let explicit = directory.join("litestream.yml");
        let each: Vec<_> = databases
            .iter()
            .map(|(path, entry, below)| (path.clone(), *entry, below.as_deref()))
            .collect();
        // It may have credentials.
        fs::write(&explicit, config.with(&each)?.as_bytes())?;
        let paths: Vec<_> = databases.into_iter().map(|(path, ..)| path).collect();
        let parent = wanted.remote_dir.map_or_else(|| common_parent(&paths), str::to_owned);
        let all = paths.into_iter().map(|path| Replica {
            name: relative(&path, &parent).to_owned(),
            place: Place::Configured { file: explicit.clone(), path },
        });
        Ok(Self { all: all.collect(), place })
    }
}

/// The path below a directory; of another one only its last part.
fn relative<'a>(path: &'a str, parent: &str) -> &'a str {
    let below = path.strip_prefix(parent.trim_end_matches('/'));
    let below = below.and_then(|rest| rest.strip_prefix('/'));
    below.unwrap_or_else(|| path.rsplit('/').next().unwrap_or(path))
}

/// The directory in which all of these are.
fn common_parent(paths: &[String]) -> String {
    let mut common: Option<Vec<&str>> = None;
    for path in paths {
        let parent: Vec<_> = path.split('/').collect();
        let parent = &parent[..parent.len() - 1];
        common = Some(match common {
            None => parent.to_vec(),
            Some(common) => common
                .into_iter()
                .zip(parent)
                .take_while(|(a, b)| a == *b)
                .map(|(a, _)| a)
                .collect(),
        });
    }
    common.unwrap_or_default().join("/")
}

fn base(access: &Access) -> String {
    let place = access.shown().trim_end_matches('/');
    place.rsplit('/').next().unwrap_or(place).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_paths_in_the_directory_of_the_server() {
        let paths = ["/data/a.db", "/data/t/1.db"].map(str::to_owned);
        assert_eq!(common_parent(&paths), "/data");
        assert_eq!(common_parent(&paths[1..]), "/data/t");
        assert_eq!(relative("/data/t/1.db", "/data/"), "t/1.db");
        assert_eq!(relative("/other/1.db", "/data"), "1.db");
        assert_eq!(join("s3://b/p?endpoint=x", "t/1.db"), "s3://b/p/t/1.db?endpoint=x");
        let access = config::access("s3://b/p/a.db?endpoint=x".to_owned(), BTreeMap::new());
        assert_eq!(base(&access), "a.db");
    }
}
