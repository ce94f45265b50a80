//! Patterns of the names of databases, which are paths below the data directory.

use std::str::FromStr;

use anyhow::Result;
use glob::{MatchOptions, Pattern};

use super::rename::Renames;
use super::values::unambiguous;
use crate::error::Failure;

/// A `*` stops at a `/`, as in `fits` of `ops-remote/find.sh`.
const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

/// A pattern as sh's `case` and this program read it: `**/` stands for any number of directories.
#[derive(Clone, Debug)]
pub struct NamePattern {
    text: String,
    path: Pattern,
    /// The same as the server's shell compares it, byte by byte: a `?` is half of an `é` to it.
    bytes: Pattern,
    /// By which it also matches what a database is called on the server.
    renames: Renames,
}

impl NamePattern {
    /// A pattern of paths: without a `/`, of files that are in no further directory.
    ///
    /// # Errors
    ///
    /// The pattern is malformed, or one of its readers reads a character differently.
    pub fn path(text: &str) -> Result<Self> {
        check(text)?;
        Self::new(text, text)
    }

    /// Without a `/`, a pattern of the name of a file in any directory, so that a rule misses none.
    ///
    /// # Errors
    ///
    /// As [`Self::path`].
    pub fn anywhere(text: &str) -> Result<Self> {
        check(text)?;
        let path = if text.contains('/') { text.to_owned() } else { format!("**/{text}") };
        Self::new(text, &path)
    }

    fn new(text: &str, path: &str) -> Result<Self> {
        let (text, bytes) = (text.to_owned(), unambiguous(&as_bytes(path))?);
        Ok(Self { text, path: unambiguous(path)?, bytes, renames: Renames::default() })
    }

    /// The pattern that matches names of here and names on the server.
    #[must_use]
    pub fn with(self, renames: &Renames) -> Self {
        Self { renames: renames.clone(), ..self }
    }

    pub fn matches(&self, name: &str) -> bool {
        let fits = |name: &str| self.bytes.matches_with(&as_bytes(name), OPTIONS);
        fits(name) || self.renames.servers(name).iter().any(|server| fits(server))
    }

    /// Whether it can match a file below this directory.
    pub fn enters(&self, directory: &str) -> bool {
        let mut parts = self.path.as_str().split('/');
        for name in directory.split('/') {
            match parts.next() {
                Some("**") => return true,
                Some(part) if Pattern::new(part).is_ok_and(|part| part.matches(name)) => {}
                _ => return false,
            }
        }
        parts.next().is_some()
    }

    /// As the user wrote it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// As the server's script reads it.
    pub fn as_path(&self) -> &str {
        self.path.as_str()
    }

    /// Whether it can match a file in a directory.
    pub fn is_nested(&self) -> bool {
        self.path.as_str().contains('/')
    }
}

/// A character for each byte.
fn as_bytes(text: &str) -> String {
    text.bytes().map(char::from).collect()
}

/// Of a flag.
impl FromStr for NamePattern {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::anywhere(text)
    }
}

fn check(text: &str) -> Result<()> {
    let is_part =
        |part: &str| !matches!(part, "" | "." | "..") && (part == "**" || !part.contains("**"));
    let is_path = text.split('/').all(is_part) && !text.ends_with("**");
    if !is_path || text.contains('\\') || text.chars().any(char::is_control) {
        return Err(Failure::usage(format!("the pattern {text:?} is not a pattern of file names"))
            .hint("use *, ? and [abc] in it, and **/ for any directories: \"tenants/*/main.db\"")
            .into());
    }
    if text.split('/').any(|part| part.starts_with('.')) {
        let why = "begins with a dot, and such files belong to nobody";
        return Err(Failure::usage(format!("a part of the pattern {text:?} {why}")).into());
    }
    // A class that holds a `/` would mean something else to each reader.
    if text.split('/').any(|part| part.matches('[').count() > 0 && Pattern::new(part).is_err()) {
        return Err(Failure::usage(format!("the pattern {text:?} is malformed"))
            .hint("*, ? and [abc] are wildcards; a class has no slash")
            .into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_the_same_everywhere_or_are_refused() {
        for bad in [
            "",
            "a\\*.db",
            "a\n.db",
            "[a",
            "[^a]",
            "[[:digit:]]",
            "[]a[=b=]]",
            "/a.db",
            "a//b",
            "a/",
            "../a.db",
            "./a",
            "a/../b",
            "**",
            "a/**",
            "a**/b.db",
            "[a/b].db",
            ".xtask/a",
        ] {
            assert!(NamePattern::path(bad).is_err(), "{bad:?}");
            assert!(NamePattern::anywhere(bad).is_err(), "{bad:?}");
        }
        for good in ["[[]", "[a][.]", "[!^]", "[]:]", "a^", "a/b.db", "**/*.db", "a/**/[bc].db"] {
            assert!(NamePattern::path(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn a_star_stops_at_a_slash_and_two_do_not() {
        for (pattern, name, is_path, is_anywhere) in [
            ("*.db", "a.db", true, true),
            ("*.db", "t/a.db", false, true),
            ("a.db", "t/u/a.db", false, true),
            ("t/*.db", "t/a.db", true, true),
            ("t/*.db", "t/u/a.db", false, false),
            ("t/*.db", "x/t/a.db", false, false),
            ("t/*/a.db", "t/u/a.db", true, true),
            ("t?a.db", "t/a.db", false, false),
            ("t[!x]a.db", "t/a.db", false, false),
            ("**/a.db", "a.db", true, true),
            ("**/a.db", "t/u/a.db", true, true),
            ("t/**/a.db", "t/a.db", true, true),
            ("t/**/a.db", "t/u/v/a.db", true, true),
            ("t/**/a.db", "u/a.db", false, false),
            ("t_?.db", "t_é.db", false, false),
            ("t_??.db", "t_é.db", true, true),
            ("t_é*.db", "t_é2.db", true, true),
        ] {
            let matches = |of: fn(&str) -> Result<NamePattern>| of(pattern).unwrap().matches(name);
            assert_eq!(matches(NamePattern::path), is_path, "{pattern} {name}");
            assert_eq!(matches(NamePattern::anywhere), is_anywhere, "{pattern} {name}");
        }
    }
}
