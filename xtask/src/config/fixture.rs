//! `[[fixture]]`: a small database that is cut from a real one.

use std::collections::BTreeMap;

use anyhow::Result;
use glob::Pattern;
use serde::Deserialize;

use super::values::{plain, words};
use crate::error::Failure;
use crate::sql;

/// The name of the file, beside a fixture, that records the inputs of the fixture.
pub const LOCK: &str = "fixtures.lock";

/// The keys of `[[fixture]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FixtureToml {
    path: String,
    from: String,
    #[serde(default)]
    rows: BTreeMap<String, RowsToml>,
    #[serde(default)]
    children: bool,
    migrate: Option<String>,
    #[serde(default)]
    inputs: Vec<String>,
    max_bytes: Option<u64>,
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
    /// The rows of a SELECT that ends with this text.
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
    /// The words of the command that migrates it to the newest schema; `{db}` stands for its file.
    pub migrate: Option<Vec<String>>,
    /// The files that determine what `migrate` does.
    pub inputs: Vec<Pattern>,
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
        if self.migrate.as_ref().is_some_and(|command| !command.contains("{db}")) {
            let command = self.migrate.unwrap_or_default();
            return Err(wrong("migrate", &command, "must contain {db}, the file to migrate"));
        }
        Ok(Fixture {
            rows: self.rows.into_iter().map(Rows::resolve).collect::<Result<_>>()?,
            migrate: self.migrate.map(|command| words(&command)).transpose()?,
            inputs: self.inputs.iter().map(|text| input(text)).collect::<Result<_>>()?,
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
fn input(text: &str) -> Result<Pattern> {
    let pattern = text.trim_start_matches("./").trim_end_matches('/');
    Pattern::new(pattern).map_err(|error| wrong("inputs", text, &format!("is malformed: {error}")))
}

impl Rows {
    fn resolve((table, rows): (String, RowsToml)) -> Result<(String, Self)> {
        plain("the name of a table in rows", &table)?;
        let tail = match rows {
            RowsToml::Count(n) => return Ok((table, Self::Count(n))),
            RowsToml::Tail(tail) => tail,
        };
        plain("rows", &tail)?;
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
            None => return Err(wrong("rows", &tail, "is empty")),
            Some("where" | "order" | "limit") => (table, Self::Tail(tail)),
            Some(_) => (table, Self::Tail(format!("WHERE {tail}"))),
        })
    }
}
