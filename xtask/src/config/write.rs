//! Adds a setting to `db.toml`, and leaves the rest as its author wrote it.

use anyhow::{Context as _, Result};
use toml::{Table, Value};

use super::Settings;
use crate::error::Failure;
use crate::fs;

/// The machine of these keys stands behind them.
const BESIDE: [&str; 4] = ["app", "via", "fly-config", "remote-dir"];

impl Settings {
    /// Writes the machine to pull from into the settings file, for the source of these settings.
    ///
    /// # Errors
    ///
    /// The file cannot be written, or has no place for the line.
    pub fn write_machine(&self, id: &str) -> Result<()> {
        let file = &self.file;
        let text = super::read(file)?.unwrap_or_default();
        let new = with_machine(&text, self.source.as_deref(), id).with_context(|| {
            Failure::new(format!("cannot add a line to {}", file.display()))
                .hint(format!("add it by hand: machine = {id:?}"))
        })?;
        fs::write_edited(file, new.as_bytes())
    }
}

fn with_machine(text: &str, source: Option<&str>, id: &str) -> Option<String> {
    let table: Vec<_> = source.into_iter().flat_map(|name| ["source", name]).collect();
    with_line(text, &table, &format!("machine = {id:?}"))
}

/// `text` with one line more in the table of this name, or in a new one, if that changes nothing
/// else.
pub fn with_line(text: &str, table: &[&str], line: &str) -> Option<String> {
    let mut wanted: Table = text.parse().ok()?;
    let mut of = &mut wanted;
    let mut is_new = false;
    for name in table {
        is_new |= !of.contains_key(*name);
        of = of.entry(*name).or_insert_with(|| Value::Table(Table::new())).as_table_mut()?;
    }
    of.extend(line.parse::<Table>().ok()?);
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let is_wanted = |new: &String| new.parse().ok() == Some(wanted.clone());
    if is_new {
        let new = format!("{text}{newline}[{}]{newline}{line}{newline}", table.join("."));
        return Some(new).filter(is_wanted);
    }
    // A byte order mark stays at the beginning.
    let (mark, text) = text.split_at(if text.starts_with('\u{feff}') { 3 } else { 0 });
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    // A line within a text or a list may look like a key, so each place is tried.
    let places = (0..=lines.len()).filter(|&at| at == 0 || is_place(lines[at - 1], table));
    places.rev().find_map(|at| {
        let (before, after) = (lines[..at].concat(), lines[at..].concat());
        let end = if before.is_empty() || before.ends_with('\n') { "" } else { newline };
        Some(format!("{mark}{before}{end}{line}{newline}{after}")).filter(is_wanted)
    })
}

/// Whether a setting of the table may follow this line.
fn is_place(line: &str, table: &[&str]) -> bool {
    let line = line.trim();
    match table {
        [] => BESIDE.iter().any(|key| {
            line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='))
        }),
        _ => line.starts_with('['),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_added_where_its_reader_looks_for_it() {
        let added = |text: &str, source| with_machine(text, source, "48ed").unwrap();
        for (text, source, new) in [
            ("", None, "machine = \"48ed\"\n"),
            (
                "# x\napp = 'a' # y\n\n[hooks]\n",
                None,
                "# x\napp = 'a' # y\nmachine = \"48ed\"\n\n[hooks]\n",
            ),
            ("app = 'a'\r\nkeep = 3\r\n", None, "app = 'a'\r\nmachine = \"48ed\"\r\nkeep = 3\r\n"),
            ("keep = 3", None, "machine = \"48ed\"\nkeep = 3"),
            ("app = 'a'", None, "app = 'a'\nmachine = \"48ed\"\n"),
            ("\u{feff}keep = 3\n", None, "\u{feff}machine = \"48ed\"\nkeep = 3\n"),
            (
                "app = 'a'\n[source.b]\napp = 'c'\n[ source . \"d\" ] # z\nvia = 'fly'\n",
                Some("d"),
                "app = 'a'\n[source.b]\napp = 'c'\n[ source . \"d\" ] # z\nmachine = \"48ed\"\nvia = 'fly'\n",
            ),
            (
                "app = 'a'\n[source.b]\napp = 'c'\n",
                None,
                "app = 'a'\nmachine = \"48ed\"\n[source.b]\napp = 'c'\n",
            ),
        ] {
            assert_eq!(added(text, source), new);
        }
        // Neither within a text, nor where there is no place.
        assert_eq!(
            added("setup = '''\napp = 1\n'''\n", None),
            "machine = \"48ed\"\nsetup = '''\napp = 1\n'''\n"
        );
        assert_eq!(with_machine("source = { b = { app = 'c' } }\n", Some("b"), "48ed"), None);
        assert_eq!(with_machine("machine = 'x'\n", None, "48ed"), None);
    }
}
