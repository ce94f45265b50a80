//! Validates single values, so that they stay data on their way through a shell, SQL and a
//! terminal.

use std::path::Path;
use std::str::FromStr;

use anyhow::Result;
use glob::Pattern;
use jiff::{SignedDuration, Span, SpanRelativeTo};

use crate::error::Failure;

/// Validates a directory of the settings, local or remote.
///
/// # Errors
///
/// It is empty or has control characters.
pub fn directory(key: &str, text: &str) -> Result<()> {
    if text.is_empty() || text.chars().any(char::is_control) {
        let why = "it is empty, or has a control character";
        return Err(Failure::usage(format!("{text:?} cannot be the {key}: {why}")).into());
    }
    Ok(())
}

/// Validates the data directory of a flag or of the settings.
///
/// # Errors
///
/// It is not a valid directory, or begins with a `~`.
pub fn data_directory<'a>(key: &str, dir: &'a Path) -> Result<&'a Path> {
    let text = dir.to_str();
    directory(key, text.ok_or_else(|| Failure::usage(format!("{key} {dir:?} is not UTF-8")))?)?;
    if dir.starts_with("~") {
        // A directory named `~` is dangerous: `rm -r ~` removes the home directory.
        return Err(Failure::usage(format!(
            "{key} {dir:?} begins with a ~, which only a shell expands"
        ))
        .hint("write the path out")
        .into());
    }
    Ok(dir)
}

/// A duration that is not negative. Months and years are rejected: their length depends on the
/// date.
pub fn duration(text: &str) -> Option<SignedDuration> {
    let span: Span = text.parse().ok()?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    duration.is_positive().then_some(duration)
}

/// Validates text that is sent in lines.
///
/// # Errors
///
/// It has a control character that a shell drops or a terminal obeys.
pub fn plain(key: &str, text: &str) -> Result<()> {
    if text.chars().any(|c| c.is_control() && !"\n\r\t".contains(c)) {
        return Err(Failure::usage(format!("{key} has a control character: {text:?}")).into());
    }
    Ok(())
}

/// The candidate most similar to `word`.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// Parses a pattern that sh's `case`, SQLite's GLOB and this program read the same way.
///
/// # Errors
///
/// The pattern is malformed or ambiguous.
pub fn unambiguous(text: &str) -> Result<Pattern> {
    let wrong = |why: &str| Failure::usage(format!("the pattern {text:?} {why}"));
    if is_ambiguous(text) {
        return Err(wrong("has a character class that not every shell supports")
            .hint("use [!abc]")
            .into());
    }
    plain("the pattern", text)?;
    Pattern::new(text).map_err(|error| wrong(&format!("is malformed: {error}")).into())
}

/// Finds `[^a]`, `[[:digit:]]` and the like. One piece follows each `[`; the class is still open
/// if the piece before has no `]` after its first character.
fn is_ambiguous(text: &str) -> bool {
    let pieces: Vec<_> = text.split('[').skip(1).collect();
    let open = |piece: &str| {
        let class = piece.strip_prefix('!').unwrap_or(piece);
        !class.strip_prefix(']').unwrap_or(class).contains(']')
    };
    let within = pieces.windows(2).any(|two| open(two[0]) && two[1].starts_with([':', '=', '.']));
    within || pieces.iter().any(|piece| piece.starts_with('^'))
}

/// An age such as that up to which an earlier pull replaces a new one.
#[derive(Clone, Debug)]
pub struct MaxAge {
    text: String,
    limit: SignedDuration,
}

impl MaxAge {
    /// The text that was given.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn limit(&self) -> SignedDuration {
        self.limit
    }
}

impl FromStr for MaxAge {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        duration(text)
            .map(|limit| Self { text: text.to_owned(), limit })
            .ok_or_else(|| "a duration such as 24h, 90m, 7d or 1h30m is expected".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_what_people_write() {
        for (text, hours) in [
            ("24h", 24.0),
            ("90m", 1.5),
            ("7d", 168.0),
            ("1 day", 24.0),
            ("1h30m", 1.5),
            ("2 weeks", 336.0),
            ("36s", 0.01),
        ] {
            let age: MaxAge = text.parse().unwrap();
            assert_eq!(age.limit, SignedDuration::from_secs_f64(hours * 3600.0), "{text}");
        }
        for text in ["", "0h", "-1h", "24h ago", "1 month", "1y", "24", "soon", "999999999999d"] {
            let why = text.parse::<MaxAge>().unwrap_err();
            assert!(why.contains("such as 24h"), "{text}: {why}");
        }
    }
}
