//! A database on a server, as a survey describes it.

use crate::config::plain_word;
use crate::fs::from_hex;

/// The number of tables that `ops-remote/survey.sh` names.
pub const MOST_TABLES: usize = 200;

/// What kind of database one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surveyed {
    pub name: String,
    pub bytes: u64,
    pub is_wal: bool,
    /// The owner of the file, if the name is a plain word.
    pub owner: Option<String>,
    /// The names of the first tables, at most [`MOST_TABLES`]; none if they are not known.
    pub tables: Vec<String>,
}

impl Surveyed {
    /// One of which only the name is known.
    pub fn unknown(name: &str) -> Self {
        let (name, tables) = (name.to_owned(), Vec::new());
        Self { name, bytes: 0, is_wal: false, owner: None, tables }
    }

    /// Parses the words of `ops-remote/survey.sh`, which may refer to the tables of the line before;
    /// `None` if they are malformed.
    pub fn parse(said: &str, before: &[String]) -> Option<Self> {
        let words: Vec<_> = said.split(' ').collect();
        let ["database", name, mode, owner, tables] = words[..] else { return None };
        let text = |hex: &str| Some(String::from_utf8_lossy(&from_hex(hex)?).into_owned());
        let named = tables.split(',').filter(|table| !matches!(*table, "" | "-"));
        Some(Self {
            name: text(name)?,
            bytes: 0,
            is_wal: mode == "2",
            owner: plain_word(owner, "._-").ok().filter(|owner| owner != "-"),
            tables: match tables {
                "=" => before.to_owned(),
                _ => named.map(text).collect::<Option<_>>()?,
            },
        })
    }
}
