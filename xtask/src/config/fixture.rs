//! `[[fixture]]`: a small database that is cut from a real one.

use std::collections::BTreeMap;

use anyhow::Result;
use glob::Pattern;
use serde::Deserialize;

use super::command_line::{CommandLine, is_variable};
use super::reference::Association;
use super::values::plain;
use crate::error::Failure;
use crate::sql;

/// The name of the file, beside a fixture, that records the inputs of the fixture.
pub const LOCK: &str = "fixtures.lock";

/// The keys of `[[fixture]]`.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FixtureToml {
    /// The file to write, from the root of the repository.
    path: String,
    /// The database that it is cut from.
    from: String,
    /// For each table a number (the first rows by key), the rest of a `SELECT` (`WHERE`,
    /// `ORDER BY`, `LIMIT`), or `"*"` for all rows; the key `"*"` stands for all other tables.
    /// Default: the schema only.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, String>"))]
    rows: BTreeMap<String, RowsToml>,
    /// Include also the rows that refer to selected rows, recursively. Default: `false`.
    #[serde(default)]
    children: bool,
    /// References that the schema does not declare: `["posts.user_id -> users.id"]`, or with a
    /// condition, `["comments.item_id -> posts.id WHERE item_type = 'Post'"]`.
    #[serde(default)]
    references: Vec<String>,
    /// The command that brings `{db}` to the newest schema, at the root of the repository; or
    /// `{ run = "…", env = { NAME = "…" }, dir = "…" }`.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    migrate: Option<MigrateToml>,
    /// Patterns of the files that `migrate` depends on: a change of one makes the fixture stale.
    #[serde(default)]
    inputs: Vec<String>,
    /// Patterns of the files that `migrate` writes, and that belong into the commit.
    #[serde(default)]
    outputs: Vec<String>,
    /// The largest size of the file; a larger one is an error.
    max_bytes: Option<u64>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a command, or { run = \"…\", env = { NAME = \"…\" }, dir = \"…\" }")]
enum MigrateToml {
    Plain(String),
    Full(FullMigrate),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FullMigrate {
    run: String,
    #[serde(default)]
    env: BTreeMap<String, String>,
    dir: Option<String>,
}

/// The command that migrates a fixture; `{db}` stands for its file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Migrate {
    pub command: CommandLine,
    /// Where it runs, from the root of the repository.
    pub dir: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a number of rows, or SQL such as \"id > 9 ORDER BY id LIMIT 5\"")]
enum RowsToml {
    Count(u32),
    Tail(String),
}

/// The rows of a table that the settings select.
#[derive(Debug, PartialEq, Eq)]
pub enum Rows {
    /// The first rows by key, up to this number.
    Count(u32),
    /// The rows of a SELECT that ends with this text; all, if it is empty.
    Tail(String),
}

pub struct Fixture {
    /// Relative to the root of the repository, with slashes.
    pub path: String,
    /// The database that it is cut from.
    pub from: String,
    /// By table; `*` stands for tables without an entry of their own.
    pub rows: BTreeMap<String, Rows>,
    /// Whether rows that refer to the selected rows are included too.
    pub children: bool,
    /// References that the schema does not declare; each must fit.
    pub references: Vec<Association>,
    /// The same for all fixtures: those that fit count.
    pub common_references: Vec<Association>,
    /// Brings it to the newest schema.
    pub migrate: Option<Migrate>,
    /// The files that determine what `migrate` does.
    pub inputs: Vec<Pattern>,
    /// The files that `migrate` writes beside the fixture, and that belong into the commit.
    pub outputs: Vec<Pattern>,
    /// The files that a refresh writes: all fixtures and all `outputs`. They are no inputs.
    pub written: Vec<Pattern>,
    /// An error if the file has more bytes.
    pub max_bytes: Option<u64>,
}

impl FixtureToml {
    /// Fails if a value is invalid.
    pub fn resolve(self) -> Result<Fixture> {
        // Also in git's spelling: git does not find a file under another one.
        let is_name = |part: &str| !matches!(part, "" | "." | ".." | ".git");
        let within = |path: &str| path.split('/').all(is_name) && !path.contains(char::is_control);
        if !within(&self.path) {
            return Err(wrong(
                "path",
                &self.path,
                "must be a path within the repository, without . or ..",
            ));
        }
        if self.path.rsplit('/').next() == Some(LOCK) {
            return Err(wrong("path", &self.path, "is the file that records the fixtures"));
        }
        if !within(&self.from) {
            return Err(wrong(
                "from",
                &self.from,
                "must be the name of a database, without . or ..",
            ));
        }
        let references = self.references.iter().map(|text| Ok(text.parse()?));
        let paths = |key: &'static str, texts: &[String]| {
            texts.iter().map(|text| files(key, text)).collect::<Result<_>>()
        };
        Ok(Fixture {
            rows: self.rows.into_iter().map(Rows::resolve).collect::<Result<_>>()?,
            references: references.collect::<Result<_>>()?,
            common_references: Vec::new(),
            written: Vec::new(),
            migrate: self.migrate.map(|migrate| migrate.resolve(&within)).transpose()?,
            inputs: paths("inputs", &self.inputs)?,
            outputs: paths("outputs", &self.outputs)?,
            path: self.path,
            from: self.from,
            children: self.children,
            max_bytes: self.max_bytes,
        })
    }
}

fn wrong(key: &str, value: &str, why: &str) -> anyhow::Error {
    Failure::usage(format!("{key} = {value:?} {why}")).into()
}

/// Like in git, a directory may have a slash at its end.
fn files(key: &str, text: &str) -> Result<Pattern> {
    let pattern = text.trim_start_matches("./").trim_end_matches('/');
    Pattern::new(pattern).map_err(|error| wrong(key, text, &format!("is malformed: {error}")))
}

impl MigrateToml {
    fn resolve(self, within: &dyn Fn(&str) -> bool) -> Result<Migrate> {
        let (run, env, dir) = match self {
            Self::Plain(run) => (run, BTreeMap::new(), None),
            Self::Full(FullMigrate { run, env, dir }) => (run, env, dir),
        };
        let mut command = CommandLine::parse(&run)?;
        command.env.splice(..0, env);
        if let Some((name, _)) = command.env.iter().find(|(name, _)| !is_variable(name)) {
            return Err(wrong("migrate.env", name, "is no name of a variable"));
        }
        if let Some(dir) = dir.as_ref().filter(|dir| !within(dir)) {
            return Err(wrong("migrate.dir", dir, "must be a path within the repository"));
        }
        if !command.contains("{db}") {
            return Err(wrong("migrate", &run, "must contain {db}, the file to migrate"));
        }
        Ok(Migrate { command, dir })
    }
}

impl Rows {
    fn resolve((table, rows): (String, RowsToml)) -> Result<(String, Self)> {
        plain("the name of a table in rows", &table)?;
        let tail = match rows {
            RowsToml::Count(n) => return Ok((table, Self::Count(n))),
            RowsToml::Tail(tail) => tail,
        };
        plain("rows", &tail)?;
        if tail.trim() == "*" {
            return Ok((table, Self::Tail(String::new())));
        }
        let words = sql::words(&tail);
        let first = words.first().map(String::as_str);
        let has = |word: &str| words.iter().any(|w| w == word);
        if has("limit") && !has("order") {
            return Err(Failure::usage(format!(
                "rows of {table}: LIMIT without ORDER BY picks arbitrary rows"
            ))
            .hint("add an order: ORDER BY id LIMIT 10")
            .into());
        }
        Ok(match first {
            None => return Err(wrong("rows", &tail, "is empty: \"*\" takes all rows")),
            Some("where" | "order" | "limit") => (table, Self::Tail(tail)),
            Some(_) => (table, Self::Tail(format!("WHERE {tail}"))),
        })
    }
}
