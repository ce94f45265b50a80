//! Unmatched rules: a name in them is misspelt, or they are for databases that are not pulled.

use anyhow::Result;
use rusqlite::Connection;

use super::{Change, Rule, columns};
use crate::config::nearest;
use crate::error::Failure;
use crate::fs::from_hex;
use crate::snapshots::Snapshot;
use crate::sqlite::open_closed;
use crate::ui::Ui;

const SAY_WHICH: &str = "if a rule is for other databases, name them: database = \"…\"";

/// A rule whose table or column is in none of the databases that it matches.
#[derive(Debug, PartialEq, Eq)]
pub struct Unmatched {
    /// Its position among the rules, from 1.
    number: usize,
    /// `None` if the rule matches no database.
    table: Option<String>,
    /// `None` if no database has the table.
    column: Option<String>,
    /// The existing tables, or the existing columns of that table.
    names: Vec<String>,
}

impl Unmatched {
    /// Parses the script's text: the number, then in hex (or `-`) the table, the column and the
    /// existing names.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let number = words.next()?.parse().ok()?;
        let name = |word| from_hex(word).and_then(|name| String::from_utf8(name).ok());
        let mut names = words.map(name);
        let (table, column) = (names.next()?, names.next()?);
        Some(Self { number, table, column, names: names.flatten().collect() })
    }

    /// The failure of a command with this `outcome`.
    pub fn failure(&self, rules: &[Rule], outcome: &str) -> Failure {
        let (what, hint) = self.describe(rules);
        Failure::new(format!("{what}; {outcome}")).hint(hint)
    }

    /// What is unmatched, and what to do.
    pub fn describe(&self, rules: &[Rule]) -> (String, String) {
        let (what, wanted) = match (&self.table, &self.column) {
            (Some(table), Some(column)) => {
                (format!("none of the databases has a column {column} in {table}"), &**column)
            }
            (Some(table), None) => (format!("none of the databases has a table {table}"), &**table),
            (None, _) => ("no database has a name that its `database` matches".to_owned(), ""),
        };
        let place = place(rules, self.number);
        let hint = match nearest(wanted, self.names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`? Edit {place}"),
            None => format!("edit {place}"),
        };
        (format!("rule {}: {what}", self.number), hint)
    }

    /// Whether an existing name differs in a letter or two.
    fn is_misspelt(&self) -> bool {
        let wanted = self.column.as_ref().or(self.table.as_ref()).map(|name| name.to_lowercase());
        let Some(wanted) = wanted else { return false };
        let most = if wanted.len() < 6 { 1 } else { 2 };
        let differs = |name: &String| strsim::damerau_levenshtein(&wanted, &name.to_lowercase());
        self.names.iter().any(|name| differs(name) <= most)
    }
}

/// Where to edit the rule of this number.
pub fn place(rules: &[Rule], number: usize) -> String {
    let rule = number.checked_sub(1).and_then(|i| rules.get(i));
    rule.map_or_else(|| "xtask/db.toml".to_owned(), |rule| rule.describe(number))
}

/// For a pull of some databases: an unmatched rule may be for other databases, unless it names one
/// that was `pulled`, or seems to be misspelt.
///
/// # Errors
///
/// A rule is unmatched, and not for other databases.
pub fn check(
    ui: &Ui,
    unmatched: &[Unmatched],
    rules: &[Rule],
    pulled: &[&str],
    outcome: &str,
) -> Result<()> {
    let mut numbers = Vec::new();
    for one in unmatched {
        let Some(rule) = one.number.checked_sub(1).and_then(|i| rules.get(i)) else { continue };
        if !pulled.iter().any(|name| rule.is_for(name)) {
            continue;
        }
        let is_name = !rule.database.as_str().contains(['*', '?', '[']);
        if is_name || one.is_misspelt() {
            let failure = one.failure(rules, outcome);
            return Err(failure.hint(SAY_WHICH).into());
        }
        numbers.push(one.number.to_string());
    }
    if !numbers.is_empty() {
        let rules = if numbers.len() == 1 { "rule" } else { "rules" };
        let matches = if numbers.len() == 1 { "matches" } else { "match" };
        let (numbers, pulled) = (numbers.join(", "), pulled.join(", "));
        ui.warn(format!("{rules} {numbers} {matches} nothing in {pulled}"));
        ui.hint(SAY_WHICH);
    }
    Ok(())
}

/// Checks the rules for the database `from` against a snapshot and `made`, the fixture made of it.
/// An unmatched rule is an error if the snapshot is complete or the rule seems to be misspelt.
///
/// # Errors
///
/// There is such a rule, or a database cannot be read.
pub fn check_snapshot(
    rules: &[Rule],
    snapshot: &Snapshot,
    from: &str,
    made: &Connection,
) -> Result<()> {
    for (i, rule) in rules.iter().enumerate() {
        let Some(table) = rule.table.as_deref().filter(|_| rule.is_for(from)) else { continue };
        let mut search = Search::new(rule, table);
        // The fixture comes first: most rules match it.
        let Some(one) = (if search.look(made)? { None } else { search.among(i, snapshot)? }) else {
            continue;
        };
        if snapshot.only().is_none() || one.is_misspelt() {
            return Err(one.failure(rules, "nothing was changed").into());
        }
    }
    Ok(())
}

/// The rules that match nothing in a complete pull.
///
/// # Errors
///
/// A database cannot be read.
pub fn idle_rules(rules: &[Rule], pulled: &Snapshot) -> Result<Vec<Unmatched>> {
    let mut idle = Vec::new();
    for (i, rule) in rules.iter().enumerate() {
        if !pulled.files.iter().any(|(name, _)| rule.is_for(name)) {
            idle.push(Unmatched { number: i + 1, table: None, column: None, names: Vec::new() });
        } else if let Some(table) = &rule.table {
            idle.extend(Search::new(rule, table).among(i, pulled)?);
        }
    }
    Ok(idle)
}

/// A search for the table and the columns of a rule, in one database after the other.
struct Search<'a> {
    rule: &'a Rule,
    table: &'a str,
    has_table: bool,
    /// The columns that were not found yet.
    missing: Vec<&'a str>,
    names: Vec<String>,
}

impl<'a> Search<'a> {
    fn new(rule: &'a Rule, table: &'a str) -> Self {
        let (missing, names) = (rule.columns_to_set(), Vec::new());
        Self { rule, table, has_table: false, missing, names }
    }

    /// Looks into a database; returns whether all is found now.
    fn look(&mut self, db: &Connection) -> Result<bool> {
        let there = columns(db, self.table)?;
        if there.is_empty() {
            self.names.extend(tables(db)?);
        } else {
            self.has_table = true;
            let has = |name: &&str| there.iter().any(|it| it.eq_ignore_ascii_case(name));
            self.missing.retain(|name| !has(name));
            self.names.extend(there);
        }
        Ok(self.has_table && self.missing.is_empty())
    }

    /// Looks into the databases of a snapshot; returns what of the rule `i` is in none.
    fn among(mut self, i: usize, snapshot: &Snapshot) -> Result<Option<Unmatched>> {
        for (name, _) in snapshot.files.iter().filter(|(name, _)| self.rule.is_for(name)) {
            if self.look(&open_closed(&snapshot.path.join(name))?)? {
                return Ok(None);
            }
        }
        let column = self.missing.first().filter(|_| self.has_table);
        let column = column.map(|name| (*name).to_owned());
        let table = Some(self.table.to_owned());
        Ok(Some(Unmatched { number: i + 1, table, column, names: self.names }))
    }
}

/// The patterns of omitted tables that match none in a complete pull.
///
/// # Errors
///
/// A database cannot be read.
pub fn idle_omits(rules: &[Rule], pulled: &Snapshot) -> Result<Vec<String>> {
    let omits = rules.iter().filter(|rule| matches!(rule.change, Change::Omit(_)));
    let mut idle: Vec<_> = omits.collect();
    for (name, _) in &pulled.files {
        if idle.is_empty() {
            break;
        }
        let tables = tables(&open_closed(&pulled.path.join(name))?)?;
        idle.retain(|rule| !tables.iter().any(|table| omits_one(rule, name, table)));
    }
    let texts = idle.into_iter().filter_map(|rule| match &rule.change {
        Change::Omit(tables) => Some(tables.as_str().to_owned()),
        _ => None,
    });
    Ok(texts.collect())
}

fn omits_one(rule: &Rule, database: &str, table: &str) -> bool {
    super::omits(std::slice::from_ref(rule), database, table)
}

fn tables(db: &Connection) -> Result<Vec<String>> {
    let mut tables = db.prepare("SELECT name FROM main.sqlite_schema WHERE type = 'table'")?;
    let tables = tables.query_map([], |row| row.get(0))?;
    Ok(tables.collect::<rusqlite::Result<_>>()?)
}

impl Rule {
    fn columns_to_set(&self) -> Vec<&str> {
        let Change::Set { columns, .. } = &self.change else { return Vec::new() };
        columns.iter().map(|(column, _)| column.as_str()).collect()
    }
}
