//! Adds to a settings file that somebody has written, and leaves the rest as it is.

use anyhow::Result;
use serde::Deserialize;
use toml::{Spanned, Table, Value};

use crate::error::Failure;
use crate::init::propose::list;

#[derive(Deserialize)]
struct Lists {
    include: Option<Spanned<Vec<String>>>,
}

fn lists(text: &str) -> Result<Lists> {
    Ok(toml::from_str(text)
        .map_err(|error| Failure::usage(format!("the settings cannot be read: {error}")))?)
}

/// The text with these patterns in `include` too.
///
/// # Errors
///
/// The text is no TOML.
pub fn include(text: &str, patterns: &[String]) -> Result<String> {
    if patterns.is_empty() {
        return Ok(text.to_owned());
    }
    Ok(match lists(text)?.include {
        Some(old) => longer(text, old, patterns),
        None => {
            let all: Vec<_> =
                ["*.db".to_owned()].into_iter().chain(patterns.iter().cloned()).collect();
            format!("include = {}\n{text}", list(&all))
        }
    })
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

/// The text with more in a list.
fn longer(text: &str, old: Spanned<Vec<String>>, more: &[String]) -> String {
    let span = old.span();
    let all: Vec<_> = old.into_inner().into_iter().chain(more.iter().cloned()).collect();
    format!("{}{}{}", &text[..span.start], list(&all), &text[span.end..])
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
                "app = 'a'\ninclude = [\"*.db\", \"x/*.db\"] # mine\nkeep = 3\n",
            ),
            ("include = [\n  'a',\n  'b',\n]\n", "include = [\"a\", \"b\", \"x/*.db\"]\n"),
            ("app = 'a'\n[hooks]\n", "include = [\"*.db\", \"x/*.db\"]\napp = 'a'\n[hooks]\n"),
        ] {
            assert_eq!(include(text, &more).unwrap(), expected);
            assert_eq!(include(text, &[]).unwrap(), text);
        }
    }
}
