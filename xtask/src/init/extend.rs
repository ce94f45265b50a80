//! Adds to a settings file that somebody has written, and leaves the rest as it is.

use anyhow::Result;
use serde::Deserialize;
use toml::{Spanned, Table, Value};

use crate::config::with_line;
use crate::error::Failure;
use crate::init::propose::list;
use crate::sanitize::audit::quoted;

#[derive(Deserialize)]
struct Lists {
    include: Option<Spanned<Vec<Spanned<String>>>>,
}

fn lists(text: &str) -> Result<Lists> {
    Ok(toml::from_str(text)
        .map_err(|error| Failure::usage(format!("the settings cannot be read: {error}")))?)
}

/// The text with these patterns in `include` too.
///
/// # Errors
///
/// The text is no TOML, or has no place for the line.
pub fn include(text: &str, patterns: &[String]) -> Result<String> {
    if patterns.is_empty() {
        return Ok(text.to_owned());
    }
    let Some(old) = lists(text)?.include else {
        let all: Vec<_> = ["*.db".to_owned()].into_iter().chain(patterns.iter().cloned()).collect();
        let line = format!("include = {}", list(&all));
        return with_line(text, &[], &line).ok_or_else(|| {
            Failure::usage("the settings have no place for one more line").hint(line).into()
        });
    };
    // Where the last one ends, so that comments stay.
    let (start, last) = (old.span().start + 1, old.get_ref().last().map(|one| one.span().end));
    let (before, after) = text.split_at(last.unwrap_or(start));
    let comma = if last.is_some() { ", " } else { "" };
    let new: Vec<_> = patterns.iter().map(|pattern| quoted(pattern)).collect();
    Ok(format!("{before}{comma}{}{after}", new.join(", ")))
}

/// The text with rules at its end.
///
/// # Errors
///
/// The text has its rules in another form, to which none can be added.
pub fn with_rules(text: &str, rules: &str) -> Result<String> {
    if rules.is_empty() {
        return Ok(text.to_owned());
    }
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { newline };
    let new = format!("{text}{end}{}", rules.replace('\n', newline));
    match new.parse::<Table>() {
        Ok(_) => Ok(new),
        Err(_) => Err(Failure::usage("no rule can be added to `sanitize = [...]` in the settings")
            .hint("write each rule of it as a [[sanitize]] of its own, and run cargo xtask init again; or add the new ones yourself:".to_owned() + rules.trim_end())
            .into()),
    }
}

/// The value of a key in a table.
///
/// # Errors
///
/// The text is no TOML.
pub fn value(text: &str, table: &[&str], key: &str) -> Result<Option<String>> {
    let mut of = &text.parse::<Table>()?;
    for name in table {
        let Some(inner) = of.get(*name).and_then(Value::as_table) else { return Ok(None) };
        of = inner;
    }
    Ok(of.get(key).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_added_where_the_others_are() {
        let more = ["x/*.db".to_owned()];
        for (text, expected) in [
            (
                "app = 'a'\ninclude = [ '*.db' ] # mine\nkeep = 3\n",
                "app = 'a'\ninclude = [ '*.db', \"x/*.db\" ] # mine\nkeep = 3\n",
            ),
            (
                "include = [\n  'a', # ]\n  'b', # mine\n  # no 'c'\n]\n",
                "include = [\n  'a', # ]\n  'b', \"x/*.db\", # mine\n  # no 'c'\n]\n",
            ),
            ("include = [ # none\n]\n", "include = [\"x/*.db\" # none\n]\n"),
            ("app = 'a'\n[hooks]\n", "app = 'a'\ninclude = [\"*.db\", \"x/*.db\"]\n[hooks]\n"),
            ("\u{feff}keep = 3\r\n", "\u{feff}include = [\"*.db\", \"x/*.db\"]\r\nkeep = 3\r\n"),
        ] {
            assert_eq!(include(text, &more).unwrap(), expected);
            assert_eq!(include(text, &[]).unwrap(), text);
        }
    }

    #[test]
    fn rules_are_added_with_the_line_ends_of_the_file() {
        let rules = "\n[[sanitize]]\ntable = 'a'\n";
        assert_eq!(
            with_rules("keep = 3\r\napp = 'a'", rules).unwrap(),
            "keep = 3\r\napp = 'a'\r\n\r\n[[sanitize]]\r\ntable = 'a'\r\n"
        );
        assert_eq!(with_rules("keep = 3", "").unwrap(), "keep = 3");
        let error = with_rules("sanitize = [{ table = 'b' }]\n", rules).unwrap_err();
        assert!(crate::error::hints(&error)[0].ends_with(":\n[[sanitize]]\ntable = 'a'"));
    }
}
