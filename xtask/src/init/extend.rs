//! Adds to a settings file that somebody has written, and leaves the rest as it is.

use anyhow::Result;
use serde::Deserialize;
use toml::Spanned;

use crate::error::Failure;
use crate::init::propose::list;

#[derive(Deserialize)]
struct Included {
    include: Option<Spanned<Vec<String>>>,
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
    let found: Included = toml::from_str(text)
        .map_err(|error| Failure::usage(format!("the settings cannot be read: {error}")))?;
    Ok(match found.include {
        Some(old) => {
            let span = old.span();
            let all: Vec<_> =
                old.into_inner().into_iter().chain(patterns.iter().cloned()).collect();
            format!("{}{}{}", &text[..span.start], list(&all), &text[span.end..])
        }
        None => {
            let all: Vec<_> =
                ["*.db".to_owned()].into_iter().chain(patterns.iter().cloned()).collect();
            format!("include = {}\n{text}", list(&all))
        }
    })
}

/// The lines of `new` that `old` does not have.
pub fn added(old: &str, new: &str) -> String {
    let had: Vec<_> = old.lines().collect();
    new.lines().filter(|line| !had.contains(line)).map(|line| format!("{line}\n")).collect()
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
            let new = include(text, &more).unwrap();
            assert_eq!(new, expected);
            assert_eq!(added(text, &new).lines().count(), 1);
            assert_eq!(include(text, &[]).unwrap(), text);
        }
    }
}
