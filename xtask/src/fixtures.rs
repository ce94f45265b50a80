//! Fixtures: small databases cut from real ones, that a commit keeps fresh.

mod audit;
pub mod build;
mod canonical;
mod follow;
pub mod full_text;
mod hash;
mod leaks;
pub mod lock;
mod random;
pub mod refresh;
mod schema;
mod subset;
pub mod survey;

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;
use glob::{MatchOptions, Pattern};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use self::lock::Entry;
use crate::durable::hex;
use crate::error::Failure;
use crate::sanitize::{self, Rule};
use crate::settings::{plain, words};

/// Counts the changes of this tool that make other fixtures of the same inputs.
const FORMAT: u32 = 1;

/// `[[fixture]]`, as written.
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

/// Which rows of a table are asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Rows {
    /// So many, the first by their key.
    Count(u32),
    /// Those of a SELECT that ends so.
    Tail(String),
}

pub struct Fixture {
    /// From the root of the repository, with slashes.
    pub path: String,
    /// The database of the set that it is cut from.
    pub from: String,
    /// By table; `*` stands for those without an entry of their own.
    pub rows: BTreeMap<String, Rows>,
    /// Also take what refers to the rows that are asked for.
    pub children: bool,
    /// The words of the command that brings it to the newest schema; `{db}` stands for its file.
    pub migrate: Option<Vec<String>>,
    /// Which files decide what `migrate` does.
    pub inputs: Vec<Pattern>,
    /// More than so many bytes are an error.
    pub max_bytes: Option<u64>,
}

impl FixtureToml {
    /// # Errors
    ///
    /// A value means nothing.
    pub fn resolve(self) -> Result<Fixture> {
        // Also as git writes it: with another spelling, it would know no such file.
        let is_name = |part: &str| !matches!(part, "" | "." | ".." | ".git");
        let within = |path: &str| path.split('/').all(is_name) && !path.contains(char::is_control);
        if !within(&self.path) {
            return Err(wrong(
                "path",
                &self.path,
                "must be a path within the repository, without . or ..",
            ));
        }
        if self.path.rsplit('/').next() == Some(lock::NAME) {
            return Err(wrong(
                "path",
                &self.path,
                "is where it is recorded what fixtures are made of",
            ));
        }
        if !within(&self.from) || self.from.contains('/') {
            return Err(wrong(
                "from",
                &self.from,
                "must be the name of a database, without a directory",
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

/// As with git, a directory may be written with a slash behind it.
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
        let words = sql_words(&tail);
        let first = words.first().map(String::as_str);
        let has = |word: &str| words.iter().any(|w| w == word);
        if has("limit") && !has("order") {
            return Err(Failure::usage(format!(
                "rows of {table}: LIMIT without ORDER BY picks arbitrary ones"
            ))
            .hint("say which: ORDER BY id LIMIT 10")
            .into());
        }
        Ok(match first {
            None => return Err(wrong("rows", &tail, "is empty")),
            Some("where" | "order" | "limit") => (table, Self::Tail(tail)),
            Some(_) => (table, Self::Tail(format!("WHERE {tail}"))),
        })
    }
}

/// The words of some SQL in lower case, without those in quotes.
fn sql_words(sql: &str) -> Vec<String> {
    let outside: Vec<_> = sql.split(['\'', '"']).step_by(2).collect();
    outside
        .join(" 'quoted' ")
        .split(|c: char| !c.is_alphanumeric() && !"_'".contains(c))
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

impl Fixture {
    /// Names all that the settings say of what is in it.
    pub fn rules_hash(&self, rules: &[Rule]) -> String {
        let mut hash = Sha256::new();
        // Each text after its length: two lists of texts never look the same.
        let mut add = |text: &str| {
            hash.update(text.len().to_be_bytes());
            hash.update(text);
        };
        add(&format!("format {FORMAT}, children {}", self.children));
        add(&self.from);
        for (table, rows) in &self.rows {
            add(table);
            match rows {
                Rows::Count(n) => add(&format!("first {n}")),
                Rows::Tail(tail) => add(tail),
            }
        }
        add("migrate");
        for word in self.migrate.iter().flatten() {
            add(word);
        }
        add(&sanitize::text(rules.iter().filter(|rule| rule.is_for(&self.from))));
        hex(&hash.finalize())
    }

    /// Whether a file of the repository decides what is in it.
    pub fn has_input(&self, path: &str) -> bool {
        self.inputs.iter().any(|pattern| is_input(pattern, path))
    }

    /// Where it is recorded.
    pub fn lock_path(&self) -> String {
        match self.path.rsplit_once('/') {
            Some((dir, _)) => format!("{dir}/{}", lock::NAME),
            None => lock::NAME.to_owned(),
        }
    }
}

/// As with git, the name of a directory stands for all that is in it.
fn is_input(pattern: &Pattern, path: &str) -> bool {
    let options = MatchOptions { require_literal_separator: true, ..MatchOptions::default() };
    let below = path.strip_prefix(pattern.as_str()).is_some_and(|rest| rest.starts_with('/'));
    below || pattern.matches_with(path, options)
}

/// What a fixture is to be made of, as it is now.
#[derive(Clone)]
pub struct Facts {
    /// See [`Fixture::rules_hash`].
    pub rules: String,
    /// git's id of each input.
    pub inputs: BTreeMap<String, String>,
}

/// Why a fixture is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stale {
    Missing,
    NotRecorded,
    Rules,
    Input(String, &'static str),
    Edited,
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("it is missing"),
            Self::NotRecorded => write!(f, "it is not in {}", lock::NAME),
            Self::Rules => f.write_str("its rules in db.toml changed"),
            Self::Input(path, what) => write!(f, "{path} {what}"),
            Self::Edited => {
                let lock = lock::NAME;
                write!(
                    f,
                    "it is not what {lock} records: edited by hand, or only one of the two is staged"
                )
            }
        }
    }
}

/// Compares what a fixture was made of with what it would be made of now;
/// `sha256` is that of its file, if there is one.
pub fn stale(recorded: Option<&Entry>, now: &Facts, sha256: Option<&str>) -> Vec<Stale> {
    let Some(sha256) = sha256 else { return vec![Stale::Missing] };
    let Some(recorded) = recorded else { return vec![Stale::NotRecorded] };
    let mut reasons = Vec::new();
    if recorded.rules != now.rules {
        reasons.push(Stale::Rules);
    }
    for (path, id) in &now.inputs {
        match recorded.inputs.get(path) {
            None => reasons.push(Stale::Input(path.clone(), "is new")),
            Some(old) if old != id => reasons.push(Stale::Input(path.clone(), "changed")),
            Some(_) => {}
        }
    }
    let gone = recorded.inputs.keys().filter(|path| !now.inputs.contains_key(*path));
    reasons.extend(gone.map(|path| Stale::Input(path.clone(), "is gone")));
    if recorded.sha256 != sha256 {
        reasons.push(Stale::Edited);
    }
    reasons
}

#[cfg(test)]
mod tests;
