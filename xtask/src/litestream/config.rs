//! `litestream.yml`: which databases are replicated to where.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use yaml_rust2::yaml::Hash;
use yaml_rust2::{Yaml, YamlEmitter, YamlLoader};

use crate::error::Failure;
use crate::objects::access::Access;

/// Where a repository keeps it.
const DIRECTORIES: [&str; 8] =
    ["", "config", "etc", "deploy", "docker", "litestream", "infra", "ops"];
/// What opens a bucket.
const SETTINGS: [&str; 7] = [
    "endpoint",
    "region",
    "access-key-id",
    "secret-access-key",
    "account-name",
    "account-key",
    "sas-token",
];
const NAMES: [&str; 2] = ["litestream.yml", "litestream.yaml"];

/// The configuration of the repository.
pub fn find(root: &Path) -> Option<PathBuf> {
    let paths = DIRECTORIES.iter().flat_map(|dir| NAMES.map(|name| root.join(dir).join(name)));
    paths.into_iter().find(|path| path.is_file())
}

/// An entry of `dbs`.
pub struct Entry {
    /// The path of the database on the server, or of the directory with several.
    pub path: String,
    pub directory: Option<Directory>,
    replica: Hash,
    /// Settings of all replicas.
    defaults: Hash,
}

/// Of a directory, which databases in it are replicated.
pub struct Directory {
    pub pattern: String,
    pub recursive: bool,
}

/// A parsed configuration.
pub struct Config {
    document: Hash,
    pub entries: Vec<Entry>,
}

impl Config {
    /// # Errors
    ///
    /// The file cannot be read, or a variable in a path is not set.
    pub fn read(file: &Path) -> Result<Self> {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs_err::read_to_string(file)?;
        let documents = YamlLoader::load_from_str(&text)
            .with_context(|| format!("{} is no YAML", file.display()))?;
        let wrong = |why: &str| {
            Failure::new(format!("{} {why}", file.display()))
                .hint("see https://litestream.io/reference/config")
        };
        let document = documents.first().and_then(Yaml::as_hash).cloned();
        let document = document.ok_or_else(|| wrong("has no settings"))?;
        let dbs = document.get(&key("dbs")).and_then(Yaml::as_vec);
        let entries = dbs.into_iter().flatten().map(|db| entry(db, &document, &name));
        let entries = entries.collect::<Result<Vec<_>>>()?;
        if entries.is_empty() {
            return Err(wrong("has no dbs").into());
        }
        Ok(Self { document, entries })
    }

    /// The same configuration with one entry for each of these databases: the path that names it, and
    /// the entry and the path below its directory that it comes from.
    ///
    /// # Errors
    ///
    /// It cannot be written as YAML.
    pub fn with(&self, databases: &[(String, &Entry, Option<&str>)]) -> Result<String> {
        let dbs = databases.iter().map(|(path, entry, below)| {
            let mut db = Hash::new();
            db.insert(key("path"), key(path));
            db.insert(key("replica"), Yaml::Hash(entry.replica_of(*below)));
            Yaml::Hash(db)
        });
        let mut document = self.document.clone();
        for unused in ["addr", "mcp-addr", "exec", "socket"] {
            document.remove(&key(unused));
        }
        document.insert(key("dbs"), Yaml::Array(dbs.collect()));
        let mut text = String::new();
        YamlEmitter::new(&mut text).dump(&Yaml::Hash(document)).context("cannot write YAML")?;
        Ok(text)
    }
}

impl Entry {
    /// Where its replica is: a URL, or the same in single settings; and what opens it.
    ///
    /// # Errors
    ///
    /// A variable that it names is not set.
    pub fn access(&self, file: &str) -> Result<Access> {
        let text = |name: &str| -> Result<Option<String>> {
            let setting = |of: &Hash| of.get(&key(name)).and_then(Yaml::as_str).map(str::to_owned);
            let value = setting(&self.replica).or_else(|| setting(&self.defaults));
            value.map(|value| expand(&value, file)).transpose()
        };
        let mut settings = BTreeMap::new();
        for name in SETTINGS {
            settings.extend(text(name)?.map(|value| (name.to_owned(), value)));
        }
        let url = match text("url")? {
            Some(url) => url,
            None => {
                let kind = text("type")?.unwrap_or_else(|| "file".to_owned());
                let path = text("path")?.unwrap_or_default();
                let host = text("bucket")?.or(text("host")?).unwrap_or_default();
                format!("{kind}://{host}/{}", path.trim_start_matches('/'))
            }
        };
        Ok(access(url, settings))
    }

    /// The settings of the replica of the database at `below` in the directory.
    fn replica_of(&self, below: Option<&str>) -> Hash {
        let mut replica = self.replica.clone();
        let Some(below) = below else { return replica };
        let mut is_named = false;
        for name in ["url", "path"] {
            if let Some(value) = replica.get(&key(name)).and_then(Yaml::as_str) {
                let longer = join(value, below);
                replica.insert(key(name), key(&longer));
                is_named = true;
            }
        }
        if !is_named {
            // All of the bucket.
            replica.insert(key("path"), key(below));
        }
        replica
    }
}

/// What opens a replica. The query of a URL sets what these settings lack.
pub fn access(url: String, mut settings: BTreeMap<String, String>) -> Access {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        if SETTINGS.contains(&name) {
            settings.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
    Access { url, settings, named_by: "the URL of the replicas, or litestream.yml" }
}

/// A URL or path with more parts, before the query.
pub fn join(url: &str, below: &str) -> String {
    let (place, query) = url.split_once('?').map_or((url, None), |(a, b)| (a, Some(b)));
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}/{below}{query}", place.trim_end_matches('/'))
}

fn key(text: &str) -> Yaml {
    Yaml::String(text.to_owned())
}

fn entry(db: &Yaml, defaults: &Hash, file: &str) -> Result<Entry> {
    let text = |name: &str| {
        let value = db[name].as_str();
        value.map(|value| expand(value, file)).transpose()
    };
    let directory = text("dir")?;
    let path = text("path")?.or(directory.clone()).with_context(|| {
        Failure::new(format!("{file} has a database without path and dir"))
            .hint("see https://litestream.io/reference/config")
    })?;
    // Before 0.5 there could be several.
    let replica = db["replica"].as_hash().or_else(|| db["replicas"][0].as_hash());
    let replica = replica.cloned().with_context(|| {
        Failure::new(format!("{file} has no replica for {path}"))
            .hint("see https://litestream.io/reference/config")
    })?;
    let directory = directory.map(|_| Directory {
        pattern: db["pattern"].as_str().unwrap_or("*").to_owned(),
        recursive: db["recursive"].as_bool().unwrap_or(false),
    });
    Ok(Entry { path, directory, replica, defaults: defaults.clone() })
}

/// The text with the values of variables, as Litestream reads it.
fn expand(text: &str, file: &str) -> Result<String> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded += before;
        let (name, after) = match after.strip_prefix('{') {
            Some(braced) => braced.split_once('}').unwrap_or((braced, "")),
            None => {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                after.split_at(end.unwrap_or(after.len()))
            }
        };
        let value = std::env::var(name).map_err(|_| {
            Failure::new(format!("{file} needs the variable {name}, which is not set here"))
                .hint(format!("set it as on the server: {name}=… cargo xtask pull-db"))
        })?;
        expanded += &value;
        rest = after;
    }
    Ok(expanded + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_are_those_of_paths_and_of_directories() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("litestream.yml");
        let text = "addr: ':9090'\naccess-key-id: ${PATH}\ndbs:\n\
            - path: /data/a.db\n  replica:\n    url: s3://b/a?endpoint=http://x\n\
            - dir: /data/t\n  pattern: '*.db'\n  recursive: true\n  watch: true\n  replica:\n    type: s3\n    bucket: b\n    path: t\n    endpoint: http://x\n\
            - path: /data/old.db\n  replicas:\n  - path: /backup/old\n";
        std::fs::write(&file, text).unwrap();
        let config = Config::read(&file).unwrap();
        let accesses = config.entries.iter().map(|one| one.access("x").unwrap());
        let [first, tenants, old] = accesses.collect::<Vec<_>>().try_into().ok().unwrap();
        assert_eq!((first.shown(), tenants.shown()), ("s3://b/a", "s3://b/t"));
        assert_eq!(old.url, "file:///backup/old");
        for one in [first, tenants] {
            assert_eq!(one.settings["endpoint"], "http://x");
            assert_eq!(one.settings["access-key-id"], std::env::var("PATH").unwrap());
        }
        let entries = &config.entries;
        let explicit = config
            .with(&[
                ("/data/a.db".to_owned(), &entries[0], None),
                ("/data/t/x/1.db".to_owned(), &entries[1], Some("x/1.db")),
            ])
            .unwrap();
        let explicit = &YamlLoader::load_from_str(&explicit).unwrap()[0];
        assert!(explicit["addr"].is_badvalue());
        assert_eq!(explicit["access-key-id"].as_str(), Some("${PATH}"));
        assert_eq!(explicit["dbs"][1]["path"].as_str(), Some("/data/t/x/1.db"));
        assert_eq!(explicit["dbs"][1]["replica"]["path"].as_str(), Some("t/x/1.db"));
    }

    #[test]
    fn replicas_in_a_bucket_without_a_path_have_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("litestream.yml");
        let text = "dbs:\n- dir: /data\n  pattern: '*.db'\n  replica: {type: s3, bucket: b}\n";
        std::fs::write(&file, text).unwrap();
        let config = Config::read(&file).unwrap();
        let one = ("/data/1.db".to_owned(), &config.entries[0], Some("1.db"));
        let explicit = &YamlLoader::load_from_str(&config.with(&[one]).unwrap()).unwrap()[0];
        assert_eq!(explicit["dbs"][0]["replica"]["path"].as_str(), Some("1.db"));
    }

    #[test]
    fn variables_have_the_values_of_this_machine() {
        let path = std::env::var("PATH").unwrap();
        assert_eq!(expand("a${PATH}b", "f").unwrap(), format!("a{path}b"));
        assert_eq!(expand("$PATH/b", "f").unwrap(), format!("{path}/b"));
        let error = expand("${NO_SUCH_VARIABLE_HERE}", "f").unwrap_err().to_string();
        assert!(error.contains("NO_SUCH_VARIABLE_HERE"), "{error}");
    }
}
