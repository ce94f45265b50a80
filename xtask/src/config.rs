//! Settings of `db.toml`, of `fly.toml` and of the environment, read into one struct; flags
//! of a command come before them.

mod audit;
mod fixture;
mod rule;
mod values;
mod via;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use glob::Pattern;
use jiff::SignedDuration;
use serde::Deserialize;

pub use self::audit::{Audit, AuditToml, Level};
pub use self::fixture::{Fixture, FixtureToml, LOCK, Rows};
pub use self::rule::{Change, Rule, RuleToml, Scrub};
use self::values::data_directory;
pub use self::values::{MaxAge, directory, duration, pattern, words};
pub use self::via::{Via, plain_word};
use crate::error::Failure;
use crate::{fs, invocation};

/// The keys of `db.toml`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct DbToml {
    app: Option<String>,
    via: Option<String>,
    local_dir: Option<PathBuf>,
    remote_dir: Option<String>,
    staging_dir: Option<String>,
    max_lock: Option<String>,
    include: Option<Vec<String>>,
    exclude: Option<Vec<String>>,
    keep: Option<usize>,
    setup: Option<String>,
    #[serde(default)]
    sanitize: Vec<RuleToml>,
    scrub: Option<Scrub>,
    #[serde(default)]
    audit: AuditToml,
    #[serde(default)]
    fixture: Vec<FixtureToml>,
}

/// The keys of `fly.toml` that this program uses.
#[derive(Default, Deserialize)]
struct FlyToml {
    app: Option<String>,
    mounts: Option<Mounts>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Mounts {
    Many(Vec<Mount>),
    One(Mount),
}

#[derive(Deserialize)]
struct Mount {
    destination: String,
}

/// The name of the settings file.
const FILE: &str = "db.toml";

pub struct Settings {
    /// The settings file.
    pub file: PathBuf,
    /// The root of the repository; relative paths in `db.toml` are relative to it.
    pub root: PathBuf,
    /// `app` of `db.toml`; see [`Settings::fly_app`].
    pub app: Option<String>,
    pub via: Option<Via>,
    /// The local data directory, absolute.
    pub data_dir: PathBuf,
    remote_dir: Option<String>,
    pub staging_dir: Option<String>,
    /// How long a copy may block writers of the app.
    pub max_lock: SignedDuration,
    pub names: Names,
    /// How many pulled snapshots remain after a pull.
    pub keep: usize,
    /// The words of the command that migrates and seeds; `{dir}` stands for the data directory.
    pub setup: Option<Vec<String>>,
    pub rules: Vec<Rule>,
    pub audit: Audit,
    pub fixtures: Vec<Fixture>,
}

/// The paths of the settings file and of its repository.
pub struct Location {
    pub file: PathBuf,
    /// The root of the repository.
    pub root: PathBuf,
}

impl Location {
    /// The location of `config`, else of the file beside the crate that Cargo runs.
    ///
    /// # Errors
    ///
    /// The current directory does not exist.
    pub fn new(config: Option<&Path>) -> Result<Self> {
        let file = match config {
            Some(file) => std::path::absolute(file)
                .with_context(|| Failure::usage(format!("cannot find config file {file:?}")))?,
            None => default_config()?,
        };
        Ok(Self { root: root_of(&file), file })
    }
}

/// The patterns of the file names that belong to the set.
pub struct Names {
    pub include: Vec<Pattern>,
    pub exclude: Vec<Pattern>,
}

impl Names {
    pub fn contains(&self, name: &str) -> bool {
        self.include.iter().any(|p| p.matches(name))
            && !self.exclude.iter().any(|p| p.matches(name))
    }

    /// Whether a command with `--only` applies to `name`.
    pub fn selects(&self, name: &str, only: Option<&Pattern>) -> bool {
        self.contains(name) && only.is_none_or(|only| only.matches(name))
    }
}

impl Settings {
    /// Reads the settings in `config`, else in `xtask/db.toml`.
    ///
    /// # Errors
    ///
    /// The file is missing or malformed, or has an unknown key or an invalid value.
    pub fn load(config: Option<&Path>, local_dir: Option<&Path>) -> Result<Self> {
        let location = Location::new(config)?;
        let text = read(&location.file)?.ok_or_else(|| {
            Failure::usage(format!("there is no config file {}", location.file.display()))
                .hint("copy xtask/db.toml of this tool, or name a file with --config")
        })?;
        Self::parse(location, &text, local_dir)
    }

    /// Parses settings whose text was read before, for example from git's index.
    ///
    /// # Errors
    ///
    /// The text is malformed, or has an unknown key or an invalid value.
    pub fn parse(location: Location, text: &str, local_dir: Option<&Path>) -> Result<Self> {
        let Location { file: path, root } = location;
        let db: DbToml = parse_toml(&path, text)?;
        let in_file = || format!("in {}", path.display());
        let data_dir = match (local_dir, db.local_dir) {
            (Some(dir), _) => std::path::absolute(data_directory("--local-dir", dir)?)?,
            (None, Some(dir)) => {
                root.join(data_directory("local-dir", &dir).with_context(in_file)?)
            }
            (None, None) => root.join("data"),
        };
        if let Some(dir) = &db.staging_dir {
            directory("staging-dir", dir).with_context(in_file)?;
        }
        if db.keep == Some(0) {
            return Err(Failure::usage("keep must be at least 1")).with_context(in_file);
        }
        let rules = db.sanitize.into_iter().chain(db.scrub.map(RuleToml::scrubbing));
        Ok(Self {
            app: db.app,
            via: db.via.map(|via| resolve_via(&via, &root)).transpose().with_context(in_file)?,
            remote_dir: db.remote_dir,
            staging_dir: db.staging_dir,
            max_lock: max_lock(db.max_lock.as_deref()).with_context(in_file)?,
            names: Names {
                include: patterns(&db.include.unwrap_or_else(|| vec!["*.db".to_owned()]))
                    .with_context(in_file)?,
                exclude: patterns(&db.exclude.unwrap_or_default()).with_context(in_file)?,
            },
            keep: db.keep.unwrap_or(10),
            setup: db.setup.map(|command| words(&command)).transpose().with_context(in_file)?,
            rules: each(rules.collect(), "[[sanitize]]", RuleToml::resolve)
                .with_context(in_file)?,
            audit: db.audit.resolve().context("[audit]").with_context(in_file)?,
            fixtures: fixtures(db.fixture).with_context(in_file)?,
            file: path.clone(),
            root,
            data_dir,
        })
    }

    /// The app on Fly.io. The environment and `fly.toml` are read only by this call.
    ///
    /// # Errors
    ///
    /// `FLY_APP` is not UTF-8, or `fly.toml` is malformed.
    pub fn fly_app(&self) -> Result<Option<String>> {
        match app_of_environment()?.or_else(|| self.app.clone()) {
            None => Ok(self.fly_toml()?.app),
            app => Ok(app),
        }
    }

    /// The directory of the databases on the server.
    ///
    /// # Errors
    ///
    /// `fly.toml` is malformed.
    pub fn remote_dir(&self) -> Result<Option<String>> {
        match &self.remote_dir {
            None => Ok(self.fly_toml()?.mounts.and_then(first_destination)),
            dir => Ok(dir.clone()),
        }
    }

    fn fly_toml(&self) -> Result<FlyToml> {
        let path = self.root.join("fly.toml");
        Ok(read(&path)?.map(|text| parse_toml(&path, &text)).transpose()?.unwrap_or_default())
    }
}

/// The file beside the crate that Cargo runs. Without Cargo, or if Cargo runs another crate,
/// `xtask/db.toml` is searched for from the current directory upwards.
fn default_config() -> Result<PathBuf> {
    let beside_crate = invocation::crate_dir().map(|dir| dir.join(FILE));
    if let Some(file) = beside_crate.as_ref().filter(|file| file.exists()) {
        return Ok(file.clone());
    }
    let here = std::env::current_dir().context("there is no current directory")?;
    let found = here.ancestors().map(|dir| dir.join("xtask").join(FILE)).find(|it| it.exists());
    Ok(found.or(beside_crate).unwrap_or_else(|| here.join("xtask").join(FILE)))
}

/// The root of the repository: the directory of the settings file, or the parent if that is
/// `xtask/`, or the root for the crate that Cargo runs.
fn root_of(config: &Path) -> PathBuf {
    let dir = config.parent().unwrap_or(Path::new("/"));
    if invocation::crate_dir().is_some_and(|crate_dir| crate_dir == dir) {
        return invocation::root_of(dir);
    }
    let root = if dir.ends_with("xtask") { dir.parent().unwrap_or(dir) } else { dir };
    root.to_owned()
}

/// Resolves the tables of an array; an error names the number of its table.
fn each<T, U>(tables: Vec<T>, key: &str, resolve: fn(T) -> Result<U>) -> Result<Vec<U>> {
    let numbered = tables.into_iter().enumerate();
    numbered
        .map(|(i, table)| resolve(table).with_context(|| format!("{key} number {}", i + 1)))
        .collect()
}

fn fixtures(tables: Vec<FixtureToml>) -> Result<Vec<Fixture>> {
    let fixtures = each(tables, "[[fixture]]", FixtureToml::resolve)?;
    let mut paths: Vec<_> = fixtures.iter().map(|fixture| &fixture.path).collect();
    paths.sort();
    match paths.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => {
            Err(Failure::usage(format!("two [[fixture]] have the path {}", pair[0])).into())
        }
        None => Ok(fixtures),
    }
}

fn read(path: &Path) -> Result<Option<String>> {
    let read = || -> Result<_> { Ok(fs::read(path)?.map(String::from_utf8).transpose()?) };
    read().with_context(|| Failure::usage(format!("cannot read config file {}", path.display())))
}

fn app_of_environment() -> Result<Option<String>> {
    let app = std::env::var_os("FLY_APP").filter(|app| !app.is_empty());
    // An unreadable value must not select another app.
    let app = app.map(std::ffi::OsString::into_string).transpose();
    app.map_err(|app| Failure::usage(format!("FLY_APP = {app:?} is not UTF-8")).into())
}

fn parse_toml<T: for<'de> Deserialize<'de>>(path: &Path, text: &str) -> Result<T> {
    toml::from_str(text).map_err(|error| {
        let failure =
            Failure::usage(format!("{}: {}", path.display(), error.to_string().trim_end()));
        match nearest_key(error.message()) {
            Some(key) => failure.hint(format!("did you mean `{key}`?")).into(),
            None => failure.into(),
        }
    })
}

/// serde's message has the unknown key and then the expected ones, all in backquotes.
fn nearest_key(message: &str) -> Option<String> {
    let named = ["unknown field ", "unknown variant "];
    let named = named.iter().find_map(|begin| message.strip_prefix(begin))?;
    let mut quoted = named.split('`').skip(1).step_by(2);
    let unknown = quoted.next()?;
    nearest(unknown, quoted).map(str::to_owned)
}

/// The candidate most similar to `word`.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

fn first_destination(mounts: Mounts) -> Option<String> {
    match mounts {
        Mounts::Many(mounts) => mounts.into_iter().next(),
        Mounts::One(mount) => Some(mount),
    }
    .map(|mount| mount.destination)
}

fn patterns(texts: &[String]) -> Result<Vec<Pattern>> {
    texts.iter().map(|text| pattern(text)).collect()
}

/// An app that waits longer than this for a lock has often timed out.
const MAX_LOCK: SignedDuration = SignedDuration::from_secs(3);

fn max_lock(text: Option<&str>) -> Result<SignedDuration> {
    let Some(text) = text else { return Ok(MAX_LOCK) };
    duration(text).ok_or_else(|| {
        Failure::usage(format!("max-lock {text:?} is not a duration")).hint("such as \"5s\"").into()
    })
}

fn resolve_via(text: &str, root: &Path) -> Result<Via> {
    Ok(match text.parse().map_err(|why| Failure::usage(format!("via = {text:?}: {why}")))? {
        Via::Local(dir) => Via::Local(root.join(dir)),
        via => via,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(db: &str, fly: &str) -> Result<Settings> {
        load_in(tempfile::tempdir()?.path(), db, fly)
    }

    fn load_in(dir: &Path, db: &str, fly: &str) -> Result<Settings> {
        std::fs::create_dir_all(dir.join("xtask"))?;
        std::fs::write(dir.join("xtask/db.toml"), db)?;
        std::fs::write(dir.join("fly.toml"), fly)?;
        Settings::load(Some(&dir.join("xtask/db.toml")), None)
    }

    #[test]
    fn db_toml_goes_over_fly_toml() {
        let fly = "app = 'from-fly'\n[[mounts]]\ndestination = '/volume'\n[env]\nA = '1'";
        let dir = tempfile::tempdir().unwrap();
        let load = |db: &str, fly: &str| load_in(dir.path(), db, fly);
        let settings = load("app = 'from-db'\nlocal-dir = 'd'", fly).unwrap();
        assert_eq!(settings.fly_app().unwrap().as_deref(), Some("from-db"));
        assert_eq!(settings.remote_dir().unwrap().as_deref(), Some("/volume"));
        assert_eq!(settings.data_dir, settings.root.join("d"));
        let settings = load("", "app = 'from-fly'\n[mounts]\ndestination = '/one'").unwrap();
        assert_eq!(settings.fly_app().unwrap().as_deref(), Some("from-fly"));
        assert_eq!(settings.remote_dir().unwrap().as_deref(), Some("/one"));
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        for (db, key) in [
            ("locl-dir = 'x'", "local-dir"),
            ("[[sanitize]]\ntabel = 'x'", "table"),
            ("exlude = []", "exclude"),
            ("[audit]\nlevl = 'warn'", "level"),
            ("[audit]\nlevel = 'warning'", "warn"),
        ] {
            let error = load(db, "").err().unwrap();
            assert_eq!(
                crate::error::hint(&error),
                Some(&*format!("did you mean `{key}`?")),
                "{error:#}"
            );
            assert_eq!(crate::error::exit(&error), crate::error::Exit::Usage);
        }
    }

    #[test]
    fn what_is_excluded_is_no_database_of_the_set() {
        let names =
            load("include = ['*.db']\nexclude = ['durably.db', 'tmp_?.db']", "").unwrap().names;
        assert!(names.contains("tenant_a.db") && names.contains("- x.db"));
        assert!(
            !names.contains("durably.db")
                && !names.contains("tmp_1.db")
                && !names.contains("a.db-wal")
        );
    }
}
