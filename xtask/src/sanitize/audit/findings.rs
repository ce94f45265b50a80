//! The findings of the server's audit: their report, and suggestions for rules.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use super::Kind;
use super::mask::Facts;
use crate::error::Failure;
use crate::fs::{from_hex, hex};
use crate::ui::{Ui, count, escape, from_here, on_one_line};

/// The number of lines in a warning.
const SHOWN: usize = 20;

/// A column of one name in all databases that have it. If it could not be read, the column may be
/// `*` for the whole table, and both may be `*` for the whole database.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Finding {
    pub table: String,
    pub column: String,
    pub kind: Kind,
    /// The number of rows with a value that is not empty, or that matches the kind.
    pub rows: u64,
    pub databases: u64,
    /// The first database that has it.
    pub database: String,
    /// SQL that a rule can set the column to, if known.
    pub set: Option<String>,
    /// SQL that chooses the rows, if the others are no secrets.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// SQL that empties JSON in which the app may need other values.
    #[serde(skip)]
    pub empty: Option<String>,
    /// The columns that a generated column is computed from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub generated_from: Vec<String>,
    /// Why it could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unread: Option<&'static str>,
}

/// What an app can still parse.
fn as_json(mask: String) -> String {
    if mask == "''" { "'{}'".to_owned() } else { mask }
}

/// Reasons why a column could not be read: the code on the wire, and the text.
const REASONS: [(&str, &str); 5] = [
    ("module", "no such module"),
    ("generated", "a generated column that cannot be read"),
    ("outreach", "its schema reaches out of the database"),
    ("error", "it cannot be read"),
    ("end", NO_END),
];
const NO_END: &str = "the audit did not finish";

impl Finding {
    /// Parses the server's line; `None` if it is malformed.
    pub fn parse(said: &str) -> Option<Self> {
        let parts: Vec<_> = said.split(' ').collect();
        let [databases, database, table, column, rows, kind, facts, sources] = parts[..] else {
            return None;
        };
        let name = |hex| Some(String::from_utf8_lossy(&from_hex(hex)?).into_owned());
        let kind = Kind::ALL.iter().find(|(_, word, _)| *word == kind)?.0;
        // Of a row in a table of settings: the column with its name.
        let setting = sources.strip_prefix('=');
        let (set, empty, unread) = match kind {
            Kind::Unread => (None, None, Some(REASONS.iter().find(|(word, _)| *word == facts)?.1)),
            _ => {
                let facts = Facts::parse(facts)?;
                // What one setting looks like is not what the others are.
                let of = if setting.is_some() { Kind::Setting } else { kind };
                let mask = facts.mask(&name(column)?, of);
                // The app needs the rest of the value.
                if of.is_json() { (None, mask.map(as_json), None) } else { (mask, None, None) }
            }
        };
        Some(Self {
            table: name(table)?,
            column: name(column)?,
            kind,
            rows: rows.parse().ok()?,
            databases: databases.parse().ok()?,
            database: name(database)?,
            set,
            empty,
            condition: match (setting, kind) {
                (None, _) | (_, Kind::Secret | Kind::Personal | Kind::Unread) => None,
                (Some(of), Kind::Setting) => {
                    Some(super::secret_settings(&name(of)?, &name(column)?))
                }
                _ => Some(super::long_settings(&name(column)?)),
            },
            generated_from: match sources {
                _ if setting.is_some() => Vec::new(),
                "-" => Vec::new(),
                sources => sources.split(',').map(name).collect::<Option<_>>()?,
            },
            unread,
        })
    }

    /// Parses what a pull has recorded of a column of `database`; `None` if it is malformed.
    pub fn parse_recorded(database: &str, recorded: &str) -> Option<Self> {
        Self::parse(&format!("1 {} {recorded}", hex(database.as_bytes())))
    }

    /// The finding on one line.
    pub fn line(&self) -> String {
        format!("{}: {}", self.place(), self.describe())
    }

    /// The place of the finding, on one line.
    pub fn place(&self) -> String {
        let table = if self.is_of_database() { &self.database } else { &self.table };
        on_one_line(&format!("{table}.{}", self.column))
    }

    fn is_of_database(&self) -> bool {
        self.unread == Some(NO_END)
    }

    fn describe(&self) -> String {
        if self.is_of_database() {
            return self.unread.unwrap_or_default().to_owned();
        }
        let place = match self.databases {
            1 => on_one_line(&self.database),
            n => count(n as usize, "database"),
        };
        let rows = format!("{} row{}", thousands(self.rows), if self.rows == 1 { "" } else { "s" });
        let mut text = match (self.unread, self.kind) {
            (Some(why), _) => format!("in {place}, {why}"),
            (_, Kind::Secret | Kind::Personal) => format!("in {place}, {rows}"),
            (_, kind) => format!("in {place}, {rows} with what looks like {}", kind.looks_like()),
        };
        if !self.generated_from.is_empty() {
            let _ =
                write!(text, ", generated from {}", on_one_line(&self.generated_from.join(", ")));
        }
        text
    }
}

/// The findings of an audit; empty without an audit.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    pub columns: Vec<Finding>,
    /// The number of findings that are not listed.
    pub more: u64,
}

impl Findings {
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty() && self.more == 0
    }

    /// Warns of the findings, with suggestions.
    pub fn warn(&self, ui: &Ui, of: Of<'_>) {
        if self.is_empty() {
            return;
        }
        let all = if self.more == 0 {
            "--json lists them".to_owned()
        } else {
            format!("--json lists the first {}", thousands(self.columns.len() as u64))
        };
        for list in [self.list(of, &all), self.list_unread(of, &all)].into_iter().flatten() {
            ui.warn(list);
        }
        ui.hint(self.advice());
    }

    /// The failure because of the findings.
    pub fn refusal(&self, of: Of<'_>) -> Failure {
        let all = "--json lists more where `level` is \"warn\"";
        let lists = [self.list(of, all), self.list_unread(of, all)].into_iter().flatten();
        Failure::new(lists.collect::<Vec<_>>().join("\n")).hint(self.advice())
    }

    /// The findings of columns that were read, or that were not.
    fn which(&self, unread: bool) -> Vec<&Finding> {
        self.columns.iter().filter(|finding| (finding.kind == Kind::Unread) == unread).collect()
    }

    /// The first findings; `all` says where the others are.
    fn list(&self, of: Of<'_>, all: &str) -> Option<String> {
        let found = self.which(false);
        let (what, is_one) = match found.len() as u64 + self.more {
            0 => return None,
            1 => ("a column".to_owned(), true),
            total => (format!("{} columns", thousands(total)), false),
        };
        let (are, have) = if is_one { ("is", "has") } else { ("are", "have") };
        let what = format!("{what} with likely secrets");
        let title = match of {
            Of::Pull(dir) => format!("{what} {are} now in {}, unmasked", from_here(dir)),
            Of::DryRun => format!("{what} would come unmasked"),
            Of::Refusal => format!("{what} {have} no rule"),
            Of::Fixture(_) | Of::Draft => format!("{what} {are} unmasked"),
        };
        Some(of.prefix() + &title + &lines(&found, self.more, all))
    }

    fn list_unread(&self, of: Of<'_>, all: &str) -> Option<String> {
        let unread = self.which(true);
        (!unread.is_empty())
            .then(|| of.prefix() + "the audit could not check these" + &lines(&unread, 0, all))
    }

    /// What to do, the safe way first; what lets a column through is not complete on purpose.
    fn advice(&self) -> String {
        let found = self.which(false);
        let shown = &found[..found.len().min(SHOWN)];
        let rules = rules(shown);
        let mut text = String::new();
        if !rules.is_empty() {
            let _ = writeln!(text, "cargo xtask init adds a rule for each:{rules}");
            if shown.iter().any(|finding| finding.column.to_lowercase().contains("passw")) {
                text += "(docs/passwords.md has rules for passwords with which you can log in)\n";
            }
        } else if shown.iter().any(|finding| !finding.generated_from.is_empty()) {
            text += "add a rule for the columns that it is generated from\n";
        }
        if shown.iter().any(|finding| finding.kind.is_json()) {
            text += "mask what is in JSON with json_replace(COLUMN, '$.NAME', '')\n";
        }
        text + "columns that are fine: allow = [\"table.column\"] in [audit]"
    }
}

/// What was audited.
#[derive(Clone, Copy)]
pub enum Of<'a> {
    /// A pull into this directory.
    Pull(&'a Path),
    DryRun,
    /// A pull of which nothing was sent.
    Refusal,
    /// The fixture of this path.
    Fixture(&'a str),
    /// A fixture that is not written.
    Draft,
}

impl Of<'_> {
    fn prefix(self) -> String {
        match self {
            Of::Pull(_) | Of::DryRun | Of::Draft => String::new(),
            Of::Refusal => "nothing was sent: ".to_owned(),
            Of::Fixture(path) => format!("{path}: "),
        }
    }
}

/// A line for each finding that is shown.
fn lines(findings: &[&Finding], more: u64, all: &str) -> String {
    let shown = &findings[..findings.len().min(SHOWN)];
    let width = shown.iter().map(|finding| finding.place().chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in shown {
        // Writing to a string does not fail.
        let _ = write!(text, "\n  {:width$}  {}", finding.place(), finding.describe());
    }
    match (findings.len() - shown.len()) as u64 + more {
        0 => {}
        more => {
            let _ = write!(text, "\n  and {} more; {all}", thousands(more));
        }
    }
    text
}

/// A suggested rule for each table, as TOML.
fn rules(findings: &[&Finding]) -> String {
    let mut tables: Vec<(&str, &Option<String>, Vec<String>)> = Vec::new();
    for finding in findings {
        let Some(set) = &finding.set else { continue };
        let column = format!("{} = {}", quoted(&finding.column), quoted(set));
        let is_of = |table: &str, condition: &Option<String>| {
            table == finding.table && *condition == finding.condition
        };
        match tables.iter_mut().find(|(table, condition, _)| is_of(table, condition)) {
            Some((.., columns)) => columns.push(column),
            None => tables.push((&finding.table, &finding.condition, vec![column])),
        }
    }
    let rules = tables.iter().map(|(table, condition, columns)| {
        let (table, columns) = (quoted(table), columns.join(", "));
        let condition = condition.as_ref().map(|it| format!("\n  where = {}", quoted(it)));
        let condition = condition.unwrap_or_default();
        format!("\n  [[sanitize]]\n  table = {table}{condition}\n  set = {{ {columns} }}")
    });
    rules.collect()
}

/// The text as a TOML string, with escapes for what a terminal would hide.
pub fn quoted(text: &str) -> String {
    let json = serde_json::to_string(text).unwrap_or_default();
    let plain = |c: char| match c {
        c if escape(c.encode_utf8(&mut [0; 4])).starts_with(c) => c.to_string(),
        c => format!("\\U{:08x}", u32::from(c)),
    };
    json.chars().map(plain).collect()
}

/// The number with separators: 4,200.
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(table: &str, column: &str) -> Finding {
        let (table, column, database) = (table.to_owned(), column.to_owned(), "a.db".to_owned());
        let (kind, rows, databases, set) = (Kind::Secret, 4200, 1, Some("''".to_owned()));
        let (generated_from, unread) = (Vec::new(), None);
        let (empty, condition) = (None, None);
        Finding {
            table,
            column,
            kind,
            rows,
            databases,
            database,
            set,
            empty,
            condition,
            generated_from,
            unread,
        }
    }

    /// For each name in a hint, its rule is valid TOML for that name.
    #[test]
    fn what_a_hint_says_can_be_written_down() {
        for (table, column) in [
            ("users", "email"),
            ("a.b", "c.d"),
            ("it's \"x\"", "[*]?"),
            ("\u{202e}\n", "\u{1b}\u{7f}\\"),
        ] {
            let findings = Findings { columns: vec![finding(table, column)], more: 0 };
            let advice = escape(&findings.advice());
            let (rule, _) = advice.split_once("\ncolumns that are fine").unwrap();
            let rule = rule.split_once("[[sanitize]]").unwrap().1;
            let rule: toml::Table = rule.parse().unwrap();
            assert_eq!(rule["table"].as_str(), Some(table));
            assert!(rule["set"].as_table().unwrap().contains_key(column));
        }
    }

    #[test]
    fn numbers_of_rows_can_be_read() {
        assert_eq!(
            [0, 999, 1000, 4200, 1_234_567].map(thousands),
            ["0", "999", "1,000", "4,200", "1,234,567"]
        );
    }
}
