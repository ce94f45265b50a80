//! Fixtures: small databases cut from real ones, which a commit hook keeps fresh.

mod audit;
mod bookkeeping;
pub mod build;
mod canonical;
pub mod choice;
mod follow;
pub mod full_text;
pub mod hash;
mod kept;
mod leaks;
pub mod lock;
mod migrate;
mod outputs;
pub mod random;
pub mod refresh;
mod schema;
pub mod status;
mod subset;
pub mod suggest;

use std::collections::BTreeMap;
use std::fmt;

use glob::{MatchOptions, Pattern};
use sha2::{Digest as _, Sha256};

use self::lock::Entry;
pub use crate::config::{Fixture, Migrate, Rows};
use crate::fs::hex;
use crate::sanitize::{self, Rule};

/// Increased when this tool starts to make other fixtures from the same inputs.
const FORMAT: u32 = 1;

impl Fixture {
    /// A hash of all settings that affect the content.
    pub fn rules_hash(&self, rules: &[Rule]) -> String {
        let mut hash = Sha256::new();
        // Each text follows its length, so that different lists have different hashes.
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
        for reference in self.references.iter().chain(&self.common_references) {
            add(&format!("{reference:?}"));
        }
        add("migrate");
        if let Some(Migrate { command, dir }) = &self.migrate {
            command.words.iter().for_each(|word| add(word));
            command.env.iter().for_each(|(name, value)| add(&format!("{name}={value}")));
            dir.iter().for_each(|dir| add(&format!("in {dir}")));
        }
        add(&sanitize::text(rules.iter().filter(|rule| rule.is_for(&self.from))));
        hex(&hash.finalize())
    }

    /// Whether `path` is one of the inputs. What a refresh writes is none: the fixture would be
    /// stale at once.
    pub fn has_input(&self, path: &str) -> bool {
        self.asks_for(path)
            && !lock::is_one(path)
            && !self.written.iter().any(|pattern| is_input(pattern, path))
    }

    /// Whether `inputs` matches `path`.
    pub fn asks_for(&self, path: &str) -> bool {
        self.inputs.iter().any(|pattern| is_input(pattern, path))
    }

    /// The path of its lock file.
    pub fn lock_path(&self) -> String {
        lock::beside(&self.path)
    }
}

/// Like in git, the name of a directory stands for all files in it.
fn is_input(pattern: &Pattern, path: &str) -> bool {
    let options = MatchOptions { require_literal_separator: true, ..MatchOptions::default() };
    let below = path.strip_prefix(pattern.as_str()).is_some_and(|rest| rest.starts_with('/'));
    below || pattern.matches_with(path, options)
}

/// The inputs that a fixture would be made from now.
#[derive(Clone)]
pub struct Fingerprint {
    /// See [`Fixture::rules_hash`].
    pub rules: String,
    /// git's object id of each input.
    pub inputs: BTreeMap<String, String>,
}

/// The reason why a fixture is stale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stale {
    Missing,
    NotRecorded,
    Rules,
    Input(String, &'static str),
    /// A program has changed its header only.
    Opened,
    Edited,
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("it is missing"),
            Self::NotRecorded => write!(f, "it is not in {}", lock::NAME),
            Self::Rules => f.write_str("its rules in db.toml changed"),
            Self::Input(path, what) => write!(f, "{path} {what}"),
            Self::Opened => f.write_str(
                "a program has opened it in WAL mode, which changes its header; no row differs",
            ),
            Self::Edited => {
                let lock = lock::NAME;
                write!(
                    f,
                    "it differs from {lock}: it was edited by hand, or only one of the two is staged"
                )
            }
        }
    }
}

/// Compares the recorded inputs of a fixture with the current ones; `sha256` is the hash of its
/// file, if there is one.
pub fn stale(recorded: Option<&Entry>, now: &Fingerprint, sha256: Option<&str>) -> Vec<Stale> {
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
