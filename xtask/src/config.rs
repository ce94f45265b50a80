//! Settings of `db.toml`, of `fly.toml` and of the environment, read into one struct; flags
//! of a command come before them.

mod audit;
mod command_line;
mod environment;
mod fake;
mod fixture;
mod fly;
mod name_pattern;
#[cfg(test)]
mod page;
mod reference;
mod rename;
mod rule;
mod share;
mod source;
mod values;
mod via;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use glob::Pattern;
use jiff::SignedDuration;
use serde::Deserialize;
use toml::Spanned;

pub use self::audit::{Audit, AuditToml, Level};
pub use self::command_line::CommandLine;
use self::environment::Environment;
pub use self::fixture::{Fixture, FixtureToml, LOCK, Migrate, Rows};
pub use self::fly::FlyConfig;
pub use self::name_pattern::NamePattern;
pub use self::reference::Association;
pub use self::rename::Renames;
pub use self::rule::{Change, Rule, RuleToml, Scrub};
pub use self::share::Share;
use self::share::ShareToml;
use self::source::{Source, SourceToml};
use self::values::data_directory;
pub use self::values::{MaxAge, directory, duration, nearest, plain};
pub use self::via::{Via, Way, plain_word};
pub use self::write::with_line;
use crate::error::{self, Failure};
use crate::ui::from_root;
use crate::{fs, git, invocation};

/// The keys of `db.toml`. What each does, `docs/reference/settings.md` repeats.
#[derive(Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct DbToml {
    /// A file of variables, such as `".env"`. Settings of paths and of the source can use them,
    /// and those of the environment: `"${DATA_DIR:-data}"`. The file need not exist, and no value
    /// of it is printed.
    env_file: Option<PathBuf>,
    /// The Fly.io app. `--app` and `$FLY_APP` come before it. Default: `app` in `fly.toml`.
    app: Option<String>,
    /// How to reach the server: `"fly"`, `"ssh:USER@HOST[:PORT]"`, `"docker:CONTAINER"`,
    /// `"exec:COMMAND"`, `"local:DIR"`, `"litestream"`, `"litestream:URL"` or `"share"`. Default:
    /// `"fly"`.
    via: Option<String>,
    /// The id of the Fly.io machine. Default: the one with the volume.
    machine: Option<String>,
    /// The region of the Fly.io machine.
    region: Option<String>,
    /// Take the machine that `fly` takes, for apps whose machines have the same databases. Default:
    /// `false`.
    any_machine: Option<bool>,
    /// The file with `app` and `[[mounts]]`, such as `"fly.staging.toml"` or `"fly.json"`. Default:
    /// `"fly.toml"`.
    fly_config: Option<PathBuf>,
    /// The user of the server as whom the script runs. `"root"` is for databases that you may not
    /// read. Default: the user who connects.
    r#as: Option<String>,
    /// Other places to pull from, with `--source NAME`: see below.
    #[serde(default)]
    source: BTreeMap<String, SourceToml>,
    /// The directory of the current data and of snapshots, from the root of the repository.
    /// Default: `"data"`.
    local_dir: Option<String>,
    /// The directory of pulled snapshots and of those of `snapshots create`, not within
    /// `local-dir`. In a linked worktree the path counts from the main one, so that all worktrees
    /// share them. Default: `local-dir`.
    snapshots_dir: Option<String>,
    /// The directory of the databases on the server. Default: the first `[[mounts]]` in `fly.toml`.
    remote_dir: Option<String>,
    /// Where the server makes its copies. Default: its `$TMPDIR`, else `/tmp`.
    staging_dir: Option<String>,
    /// How long the copy of a database that is not in WAL mode may lock it; for longer, a pull
    /// asks. Default: `"3s"`.
    max_lock: Option<String>,
    /// Patterns of paths below `remote-dir`: `*`, `?` and `[abc]` within a name, `**/` for any
    /// directories. `"*"` alone is every SQLite database in the directory. Default: `["*.db"]`.
    include: Option<Vec<String>>,
    /// Patterns of databases that are neither pulled nor replaced nor removed. Here, in rules and
    /// in `--only`, a pattern without `/` is for a file name in any directory.
    exclude: Option<Vec<String>>,
    /// Names of databases here, by their names on the server; `*` stands for the same text in both:
    /// `"production*.sqlite3" = "development*.sqlite3"`.
    #[serde(default)]
    rename: BTreeMap<String, String>,
    /// How many pulled snapshots remain after a pull; and as many of pulls with `--only`, and of
    /// those saved before a change. Default: `10`.
    keep: Option<usize>,
    /// How long snapshots with unmasked data remain, such as `"7d"`. Default: as others.
    unmasked_keep: Option<String>,
    /// Whether a pull from replicas may have unmasked databases on this machine until they are
    /// masked. Default: `true`.
    allow_local_staging: Option<bool>,
    /// The command of `setup-db`; `{dir}` is the data directory.
    setup: Option<String>,
    /// Remove the free pages from the current data (`VACUUM`), not from snapshots. Default:
    /// `false`.
    #[serde(default)]
    compact: bool,
    /// Commands that run around a pull or restore: see below.
    #[serde(default)]
    hooks: HooksToml,
    /// Rules that mask data, in their order: see below.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Vec<RuleToml>"))]
    sanitize: Vec<Spanned<RuleToml>>,
    /// `"deleted-rows"` also removes what production itself has deleted, from every database.
    /// Default: only from databases that a rule changes.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    scrub: Option<Scrub>,
    /// Patterns of tables whose rows stay on the server, in every database, also with
    /// `--no-sanitize`.
    #[serde(default)]
    omit: Vec<String>,
    /// What happens to columns without a rule that look like secrets: see below.
    #[serde(default)]
    audit: AuditToml,
    /// The store of the team: see below.
    share: Option<ShareToml>,
    /// Small databases for tests: see below.
    #[serde(default)]
    fixture: Vec<FixtureToml>,
    /// References that the schema does not declare, for all fixtures that have these tables.
    #[serde(default)]
    references: Vec<String>,
}

/// The keys of `[hooks]`.
#[derive(Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct HooksToml {
    /// Changes pulled databases before they become current; `{dir}` is the directory that they are
    /// in. If it fails, nothing is changed.
    prepare: Option<String>,
    /// Runs after a pull.
    after_pull: Option<String>,
    /// Runs after a restore.
    after_restore: Option<String>,
}

/// The commands that run around a replacement of the current data.
#[derive(Default)]
pub struct Hooks {
    /// Changes pulled databases before they become the current data.
    pub prepare: Option<CommandLine>,
    pub after_pull: Option<CommandLine>,
    pub after_restore: Option<CommandLine>,
}

impl HooksToml {
    fn resolve(self) -> Result<Hooks> {
        let parse = |command: Option<String>| command.map(|it| CommandLine::parse(&it)).transpose();
        Ok(Hooks {
            prepare: parse(self.prepare)?,
            after_pull: parse(self.after_pull)?,
            after_restore: parse(self.after_restore)?,
        })
    }
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
    pub via: Option<Way>,
    pub machine: Option<String>,
    pub region: Option<String>,
    pub any_machine: bool,
    fly_config: Option<PathBuf>,
    /// The user of the server as whom the script runs.
    pub user: Option<String>,
    /// The name of the source, if it is not the one at the top of the file.
    pub source: Option<String>,
    sources: Vec<Source>,
    /// The local data directory, absolute.
    pub data_dir: PathBuf,
    /// Where pulled snapshots are made, absolute; most often the data directory.
    pub snapshots_dir: PathBuf,
    remote_dir: Option<String>,
    pub staging_dir: Option<String>,
    /// How long a copy may block writers of the app.
    pub max_lock: SignedDuration,
    pub names: Names,
    /// How many pulled snapshots remain after a pull.
    pub keep: usize,
    /// How long a snapshot with unsanitized databases remains; `None` is for ever.
    pub unmasked_keep: Option<MaxAge>,
    /// Whether databases may be on this machine before they are masked.
    pub allow_local_staging: bool,
    /// The command that migrates and seeds; `{dir}` stands for the data directory.
    pub setup: Option<CommandLine>,
    pub compact: bool,
    pub hooks: Hooks,
    pub rules: Vec<Rule>,
    pub audit: Audit,
    /// Where the snapshots of the team are.
    pub share: Option<Share>,
    pub fixtures: Vec<Fixture>,
}

/// Keys that say nothing of where the databases are, here or on the server.
const ASIDE: [&str; 12] = [
    "audit",
    "compact",
    "fixture",
    "hooks",
    "keep",
    "max-lock",
    "omit",
    "references",
    "sanitize",
    "scrub",
    "share",
    "unmasked-keep",
];

/// The paths of the settings file and of its repository.
#[derive(Clone)]
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

/// Which databases belong to the set: the patterns of their names on the server, and what they are
/// called here.
pub struct Names {
    pub include: Vec<NamePattern>,
    /// Those of other sources, whose databases belong to the set here as well.
    pub others: Vec<NamePattern>,
    pub exclude: Vec<NamePattern>,
    pub renames: Renames,
}

impl Names {
    /// Whether a database of this name here belongs to the set.
    pub fn contains(&self, name: &str) -> bool {
        self.renames.servers(name).iter().any(|server| {
            self.include.iter().chain(&self.others).any(|p| p.matches(server))
                && !self.exclude.iter().any(|p| p.matches(server))
        })
    }

    /// Whether a pull takes a database of this name on the server.
    pub fn takes(&self, server: &str, only: Option<&NamePattern>) -> bool {
        self.include.iter().any(|pattern| pattern.matches(server))
            && !self.exclude.iter().any(|pattern| pattern.matches(server))
            && only.is_none_or(|only| {
                only.matches(server) || only.matches(&self.renames.local(server))
            })
    }

    /// Whether databases can be below this directory.
    pub fn enter(&self, directory: &str) -> bool {
        self.include.iter().chain(&self.others).any(|one| one.enters(directory))
            || self
                .renames
                .locals()
                .any(|local| NamePattern::path(&local).is_ok_and(|local| local.enters(directory)))
    }

    /// Whether databases can be in directories below the data directory.
    pub fn are_nested(&self) -> bool {
        self.include.iter().chain(&self.others).any(NamePattern::is_nested)
            || self.renames.locals().any(|local| local.contains('/'))
    }

    /// Whether a command with `--only` applies to `name`.
    pub fn selects(&self, name: &str, only: Option<&NamePattern>) -> bool {
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
            let file = from_root(&location.root, &location.file);
            match config {
                None => Failure::usage(format!("no {file} yet")).hint("cargo xtask init"),
                Some(_) => Failure::usage(format!("there is no {}", location.file.display()))
                    .hint("check --config; cargo xtask init writes a new one"),
            }
        })?;
        Self::parse(location, &text, local_dir)
    }

    /// Parses settings whose text was read before, for example from git's index.
    ///
    /// # Errors
    ///
    /// The text is malformed, or has an unknown key or an invalid value.
    pub fn parse(location: Location, text: &str, local_dir: Option<&Path>) -> Result<Self> {
        let db = parse_toml(&location.file, text)?;
        Self::resolve(location, text, db, local_dir)
    }

    /// The settings without the one key that makes them fail, if that says nothing of where the
    /// databases are. There are then no rules, whichever key it was.
    pub fn salvage(config: Option<&Path>, local_dir: Option<&Path>) -> Option<Self> {
        let location = Location::new(config).ok()?;
        let table: toml::Table = read(&location.file).ok()??.parse().ok()?;
        let without = |key: &&str| {
            let mut table = table.clone();
            table.remove(*key)?;
            let text = table.to_string();
            Self::resolve(location.clone(), &text, toml::from_str(&text).ok()?, local_dir).ok()
        };
        let settings = ASIDE.iter().find_map(without)?;
        Some(Self { rules: Vec::new(), ..settings })
    }

    fn resolve(
        location: Location,
        text: &str,
        db: DbToml,
        local_dir: Option<&Path>,
    ) -> Result<Self> {
        let lines = Lines::new(&location, text);
        let Location { file: path, root } = location;
        let in_file = || format!("in {}", path.display());
        let environment = Environment::new(&root, db.env_file).with_context(in_file)?;
        let expand = |key: &str, value: Option<String>| {
            value.map(|value| environment.expand(key, &value)).transpose().with_context(in_file)
        };
        let read_via = |via: String| environment.read("via", &via, |via| resolve_via(via, &root));
        let via = db.via.map(read_via).transpose().with_context(in_file)?;
        let renames = Renames::new(&db.rename).context("rename").with_context(in_file)?;
        let read_staging = |dir: String| {
            environment.read("staging-dir", &dir, |dir| {
                directory("staging-dir", dir).map(|()| dir.to_owned())
            })
        };
        let staging_dir = db.staging_dir.map(read_staging).transpose().with_context(in_file)?;
        let sources = db.source.into_iter().map(|(name, source)| {
            let key = format!("[source.{name}]");
            source.resolve(name, &root, &environment, &renames, &lines).context(key)
        });
        let sources: Vec<_> = sources.collect::<Result<_>>().with_context(in_file)?;
        let others = sources.iter().flat_map(|source| source.include.iter().flatten().cloned());
        let others = others.collect();
        let data_dir = match (local_dir, db.local_dir) {
            (Some(dir), _) => std::path::absolute(data_directory("--local-dir", dir)?)?,
            (None, Some(dir)) => {
                let read = |dir: &str| Ok(root.join(data_directory("local-dir", Path::new(dir))?));
                environment.read("local-dir", &dir, read).with_context(in_file)?
            }
            (None, None) => root.join("data"),
        };
        // Without the `.` of `local-dir = "."`.
        let data_dir: PathBuf = data_dir.components().collect();
        let snapshots_dir = match db.snapshots_dir {
            Some(dir) => {
                // The same directory for every work tree of the repository.
                let from = git::shared_root(&root).unwrap_or_else(|| root.clone());
                let read =
                    |dir: &str| Ok(from.join(data_directory("snapshots-dir", Path::new(dir))?));
                environment.read("snapshots-dir", &dir, read).with_context(in_file)?
            }
            None => data_dir.clone(),
        };
        refuse_nested(&data_dir, &snapshots_dir).with_context(in_file)?;
        let share = db.share.map(|share| share.resolve(&root, &path, &environment)).transpose();
        if db.keep == Some(0) {
            return Err(Failure::usage("keep must be at least 1")).with_context(in_file);
        }
        Ok(Self {
            app: expand("app", db.app)?,
            machine: expand("machine", db.machine)?,
            region: expand("region", db.region)?,
            any_machine: db.any_machine.unwrap_or_default(),
            fly_config: db.fly_config,
            user: db.r#as.map(|user| self::user(&user)).transpose().with_context(in_file)?,
            source: None,
            sources,
            via,
            remote_dir: expand("remote-dir", db.remote_dir)?,
            staging_dir,
            max_lock: max_lock(db.max_lock.as_deref()).with_context(in_file)?,
            names: Names {
                include: patterns(
                    &db.include.unwrap_or_else(|| vec!["*.db".to_owned()]),
                    NamePattern::path,
                )
                .with_context(in_file)?,
                exclude: patterns(&db.exclude.unwrap_or_default(), NamePattern::anywhere)
                    .with_context(in_file)?,
                others,
                renames: renames.clone(),
            },
            keep: db.keep.unwrap_or(10),
            unmasked_keep: unmasked_keep(db.unmasked_keep.as_deref()).with_context(in_file)?,
            allow_local_staging: db.allow_local_staging.unwrap_or(true),
            compact: db.compact,
            hooks: db.hooks.resolve().context("[hooks]").with_context(in_file)?,
            setup: db.setup.map(|it| CommandLine::parse(&it)).transpose().with_context(in_file)?,
            rules: rules(db.sanitize, db.scrub, &db.omit, &renames, &lines)?,
            audit: db.audit.resolve().context("[audit]").with_context(in_file)?,
            fixtures: fixtures(db.fixture, &db.references, &renames).with_context(in_file)?,
            share: share.context("[share]").with_context(in_file)?,
            file: path.clone(),
            root,
            data_dir,
            snapshots_dir,
        })
    }

    /// The names of `[source.NAME]`.
    pub fn source_names(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().map(|source| source.name.as_str())
    }

    /// The settings of a source that the file names.
    ///
    /// # Errors
    ///
    /// There is no such source.
    pub fn of_source(mut self, name: &str) -> Result<Self> {
        let Some(at) = self.sources.iter().position(|source| source.name == name) else {
            let names: Vec<_> = self.sources.iter().map(|source| source.name.as_str()).collect();
            let failure = Failure::usage(format!("there is no source {name:?}"));
            let hint = match &names[..] {
                [] => format!(
                    "add [source.{name}] to xtask/db.toml, with its own app, via or remote-dir"
                ),
                _ => format!("there is --source {}", names.join(", ")),
            };
            return Err(failure.hint(hint).into());
        };
        let source = self.sources.swap_remove(at);
        self.via = source.via.or(self.via);
        if let Some(file) = source.fly_config {
            let config = FlyConfig::read(&self.root, Some(&file))?;
            self.app = config.app.clone().or(self.app);
            self.remote_dir = config.destination().or(self.remote_dir()?);
            self.fly_config = Some(file);
        }
        self.app = source.app.or(self.app);
        self.remote_dir = source.remote_dir.or(self.remote_dir);
        // A machine is one of its app.
        self.machine = source.machine;
        self.region = source.region;
        self.any_machine = source.any_machine.unwrap_or(self.any_machine);
        self.user = source.user.or(self.user);
        if let Some(include) = source.include {
            self.names.others.extend(std::mem::replace(&mut self.names.include, include));
        }
        // Before what is omitted.
        let omits = self.rules.iter().position(|rule| matches!(rule.change, Change::Omit(_)));
        let at = omits.unwrap_or(self.rules.len());
        self.rules.splice(at..at, source.rules);
        self.source = Some(source.name);
        Ok(self)
    }

    /// What changes a database of a snapshot before it becomes a current one; empty if nothing does.
    pub fn preparation(&self) -> String {
        let compact = self.compact.then(|| "compact".to_owned());
        let prepare = self.hooks.prepare.iter().map(CommandLine::to_string);
        prepare.chain(compact).collect::<Vec<_>>().join("\n")
    }

    /// The app on Fly.io. The environment and `fly.toml` are read only by this call.
    ///
    /// # Errors
    ///
    /// `FLY_APP` is not UTF-8, or `fly.toml` is malformed.
    pub fn fly_app(&self) -> Result<Option<String>> {
        // The environment says which app is meant where none is named.
        let named = self.source.is_some().then(|| self.app.clone()).flatten();
        match named
            .map_or_else(app_of_environment, |app| Ok(Some(app)))?
            .or_else(|| self.app.clone())
        {
            None => Ok(self.fly_config()?.app),
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
            None => Ok(self.fly_config()?.destination()),
            dir => Ok(dir.clone()),
        }
    }

    fn fly_config(&self) -> Result<FlyConfig> {
        FlyConfig::read(&self.root, self.fly_config.as_deref())
    }

    /// What to do where neither the settings nor `fly.toml` say something.
    pub fn other_fly_configs(&self) -> Option<String> {
        if self.fly_config.is_none() { fly::others(&self.root) } else { None }
    }
}

/// Snapshots in a directory of the data directory would count as current data.
fn refuse_nested(data_dir: &Path, snapshots_dir: &Path) -> Result<()> {
    let (data, snapshots) = (fs::real(data_dir), fs::real(snapshots_dir));
    if data == snapshots || !snapshots.starts_with(&data) {
        return Ok(());
    }
    let message = format!(
        "snapshots-dir {} is inside the data directory {}",
        snapshots_dir.display(),
        data_dir.display()
    );
    Err(Failure::usage(message)
        .hint("set a snapshots-dir outside, or that directory itself")
        .into())
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

/// The text of a file, and its name in messages.
struct Lines<'a> {
    name: String,
    text: &'a str,
}

impl<'a> Lines<'a> {
    fn new(location: &Location, text: &'a str) -> Self {
        Self { name: from_root(&location.root, &location.file), text }
    }

    /// The file and the line of a byte.
    fn place(&self, byte: usize) -> String {
        let before = self.text.as_bytes().iter().take(byte);
        format!("{}:{}", self.name, 1 + before.filter(|byte| **byte == b'\n').count())
    }

    /// Resolves rules; an error has the line and the number of its rule.
    fn rules(&self, tables: Vec<Spanned<RuleToml>>) -> Result<Vec<Rule>> {
        let set: Vec<_> = tables.iter().flat_map(|table| table.get_ref().set_columns()).collect();
        let resolve = |(i, table): (usize, Spanned<RuleToml>)| {
            let place = self.place(table.span().start);
            match table.into_inner().resolve_beside(&set) {
                Ok(rule) => Ok(Rule { place, ..rule }),
                Err(error) => Err(prefixed(&format!("{place}: rule {}", i + 1), &error)),
            }
        };
        tables.into_iter().enumerate().map(resolve).collect()
    }
}

/// The error on one line, after what it is of.
fn prefixed(what: &str, error: &anyhow::Error) -> anyhow::Error {
    let message = format!("{what}: {}", error::chain(error).join(": "));
    let hints = error::hints(error).into_iter();
    hints.fold(Failure::usage(message), Failure::hint).into()
}

/// Resolves the tables of an array; an error names the number of its table.
fn each<T, U>(tables: Vec<T>, key: &str, resolve: fn(T) -> Result<U>) -> Result<Vec<U>> {
    let numbered = tables.into_iter().enumerate();
    numbered
        .map(|(i, table)| resolve(table).with_context(|| format!("{key} number {}", i + 1)))
        .collect()
}

/// The rules in the order of their numbers, and behind them those that have none.
fn rules(
    tables: Vec<Spanned<RuleToml>>,
    scrub: Option<Scrub>,
    omit: &[String],
    renames: &Renames,
    lines: &Lines<'_>,
) -> Result<Vec<Rule>> {
    let mut rules = lines.rules(tables)?;
    if let Some(scrub) = scrub {
        let place = format!("scrub in {}", lines.name);
        rules.push(Rule { place, ..RuleToml::scrubbing(scrub).resolve()? });
    }
    for table in omit {
        let omitting = Rule::omitting(table);
        rules.push(omitting.map_err(|error| prefixed(&format!("{}: omit", lines.name), &error))?);
    }
    for rule in &mut rules {
        rule.database = rule.database.clone().with(renames);
    }
    Ok(rules)
}

fn fixtures(
    tables: Vec<FixtureToml>,
    references: &[String],
    renames: &Renames,
) -> Result<Vec<Fixture>> {
    let mut fixtures = each(tables, "[[fixture]]", FixtureToml::resolve)?;
    let references = references.iter().map(|text| Ok(text.parse()?));
    let references: Vec<Association> = references.collect::<Result<_>>()?;
    let paths: Vec<_> = fixtures.iter().map(|fixture| fixture.path.clone()).collect();
    for (i, path) in paths.iter().enumerate() {
        if paths[..i].contains(path) {
            return Err(Failure::usage(format!("two [[fixture]] have the path {path}"))
                .hint("give each a path of its own")
                .into());
        }
        let is_above = |other: &&String| {
            Path::new(path) != Path::new(other) && Path::new(path).starts_with(other)
        };
        if let Some(other) = paths.iter().find(is_above) {
            let what = format!("the [[fixture]] {path} would be below another one, {other}");
            return Err(Failure::usage(what).hint("give one of them another path").into());
        }
    }
    let outputs = fixtures.iter().flat_map(|fixture| fixture.outputs.clone());
    let written = paths.iter().filter_map(|path| Pattern::new(&Pattern::escape(path)).ok());
    let written: Vec<_> = outputs.chain(written).collect();
    for fixture in &mut fixtures {
        fixture.common_references = references.clone();
        fixture.written = written.clone();
        fixture.from = renames.local(&fixture.from);
    }
    Ok(fixtures)
}

fn read(path: &Path) -> Result<Option<String>> {
    let read = || -> Result<_> { Ok(fs::read(path)?.map(String::from_utf8).transpose()?) };
    read().with_context(|| Failure::usage(format!("cannot read config file {}", path.display())))
}

fn app_of_environment() -> Result<Option<String>> {
    let app = std::env::var_os("FLY_APP").filter(|app| !app.is_empty());
    // An unreadable value must not select another app.
    let app = app.map(std::ffi::OsString::into_string).transpose();
    app.map_err(|app| {
        Failure::usage(format!("FLY_APP = {app:?} is not UTF-8"))
            .hint("unset it, or give --app")
            .into()
    })
}

fn parse_toml<T: for<'de> Deserialize<'de>>(path: &Path, text: &str) -> Result<T> {
    toml::from_str(text).map_err(|error| {
        if let Some(failure) = not_a_list(path, text, &error) {
            return failure.into();
        }
        let failure =
            Failure::usage(format!("{}: {}", path.display(), error.to_string().trim_end()));
        match nearest_key(error.message()) {
            Some(key) => failure.hint(format!("did you mean `{key}`?")).into(),
            None => failure.into(),
        }
    })
}

/// The failure of a key that has a text and must have a list.
fn not_a_list(path: &Path, text: &str, error: &toml::de::Error) -> Option<Failure> {
    let value = error.message().strip_prefix("invalid type: string ")?;
    let value = value.strip_suffix(", expected a sequence")?;
    let before = text.get(..error.span()?.start)?;
    let key = before.trim_end().strip_suffix('=')?.trim_end();
    let key = key.rsplit([' ', '\n', ',', '{', '.', '\t']).next()?;
    let line = 1 + before.matches('\n').count();
    let message = format!("{}:{line}: {key} must be a list", path.display());
    Some(Failure::usage(message).hint(format!("{key} = [{value}]")))
}

/// serde's message has the unknown key and then the expected ones, all in backquotes.
fn nearest_key(message: &str) -> Option<String> {
    let named = ["unknown field ", "unknown variant "];
    let named = named.iter().find_map(|begin| message.strip_prefix(begin))?;
    let mut quoted = named.split('`').skip(1).step_by(2);
    let unknown = quoted.next()?;
    nearest(unknown, quoted).map(str::to_owned)
}

fn patterns(texts: &[String], of: fn(&str) -> Result<NamePattern>) -> Result<Vec<NamePattern>> {
    texts.iter().map(|text| of(text)).collect()
}

/// An app that waits longer than this for a lock has often timed out.
const MAX_LOCK: SignedDuration = SignedDuration::from_secs(3);

fn max_lock(text: Option<&str>) -> Result<SignedDuration> {
    let Some(text) = text else { return Ok(MAX_LOCK) };
    duration(text).ok_or_else(|| {
        Failure::usage(format!("max-lock {text:?} is not a duration")).hint("such as \"5s\"").into()
    })
}

fn unmasked_keep(text: Option<&str>) -> Result<Option<MaxAge>> {
    let parse = |text: &str| {
        text.parse().map_err(|why| Failure::usage(format!("unmasked-keep {text:?}: {why}")))
    };
    Ok(text.map(parse).transpose()?)
}

/// The name of a user, which goes through shells.
fn user(name: &str) -> Result<String> {
    plain_word(name, "._-").map_err(|why| Failure::usage(format!("as = {name:?}: {why}")).into())
}

fn resolve_via(text: &str, root: &Path) -> Result<Way> {
    Ok(match text.parse().map_err(|why| Failure::usage(format!("via = {text:?}: {why}")))? {
        Way::Server(Via::Local(dir)) => Way::Server(Via::Local(root.join(dir))),
        way => way,
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
            assert_eq!(error::hint(&error), Some(&*format!("did you mean `{key}`?")), "{error:#}");
            assert_eq!(error::exit(&error), error::Exit::Usage);
        }
    }

    #[test]
    fn a_text_where_a_list_belongs_is_shown_as_one() {
        for (db, line, hint) in [
            ("app = 'x'\ninclude = '*.db'", 2, "include = [\"*.db\"]"),
            ("[audit]\nallow='a.b'", 2, "allow = [\"a.b\"]"),
            ("audit = { level = 'warn', allow = 'a.b' }", 1, "allow = [\"a.b\"]"),
            ("omit = \"it's\"", 1, "omit = [\"it's\"]"),
        ] {
            let error = load(db, "").err().unwrap();
            let key = hint.split(' ').next().unwrap();
            let said = format!("xtask/db.toml:{line}: {key} must be a list");
            assert!(error.to_string().ends_with(&said), "{error:#}");
            assert_eq!(error::hint(&error), Some(hint));
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
    #[test]
    fn no_fixture_is_at_or_below_the_path_of_another() {
        let path = |path: &str| format!("[[fixture]]\nfrom = 'a.db'\npath = '{path}'\n");
        let why =
            |paths: [&str; 3]| load(&paths.map(path).concat(), "").err().map(|e| format!("{e:#}"));
        assert_eq!(why(["f/a.db", "f/a.db2/x", "f/b.db"]), None);
        assert!(why(["f/a", "b", "f/a"]).unwrap().ends_with("two [[fixture]] have the path f/a"));
        assert!(
            why(["f/a/x.db", "f/a-b", "f/a"])
                .unwrap()
                .ends_with("the [[fixture]] f/a/x.db would be below another one, f/a")
        );
    }

    #[test]
    fn what_another_rule_sets_in_the_same_table_is_no_key_of_an_invented_value() {
        let load = |second: &str| {
            let first = "[[sanitize]]\ntable = 't'\nset.n = 'fake(name, email)'\n";
            load(&format!("{first}[[sanitize]]\ntable = '{second}'\nset.email = \"''\"\n"), "")
        };
        assert!(load("other").is_ok());
        let error = format!("{:#}", load("T").err().unwrap());
        assert!(error.contains("rule 1: fake(name, email): a rule replaces"), "{error}");
    }
}
