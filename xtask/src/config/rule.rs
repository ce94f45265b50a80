//! `[[sanitize]]`: a rule that removes secrets.

use std::collections::BTreeMap;

use anyhow::Result;
use glob::Pattern;
use serde::Deserialize;

use super::fake;
use super::name_pattern::NamePattern;
use super::values::{plain, unambiguous};
use crate::error::Failure;
use crate::sql::{identifier, is_closed};

/// The keys of `[[sanitize]]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RuleToml {
    #[serde(default = "every_database")]
    database: String,
    table: Option<String>,
    set: Option<BTreeMap<String, String>>,
    r#where: Option<String>,
    #[serde(default)]
    delete: bool,
    sql: Option<String>,
    #[serde(alias = "look")]
    leak_check: Option<bool>,
    scrub: Option<Scrub>,
}

fn every_database() -> String {
    "*".to_owned()
}

/// `scrub`, of a rule or of all databases.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scrub {
    /// Removes rows that production deleted, before any rule runs.
    DeletedRows,
}

pub struct Rule {
    pub database: NamePattern,
    /// A database without this table is skipped.
    pub table: Option<String>,
    pub change: Change,
    /// Whether the leak check searches for the values that the rule removes.
    pub leak_check: bool,
    pub scrub: bool,
}

pub enum Change {
    /// Columns and the SQL of their values. Columns that a database lacks are left out.
    Set {
        columns: Vec<(String, String)>,
        condition: String,
    },
    Delete {
        condition: String,
    },
    /// SQL of the user: one statement or more, with unknown effects.
    Sql(String),
    /// The rows of all tables that match do not leave the server.
    Omit(Pattern),
    /// No change of rows: the rule only scrubs.
    Nothing,
}

impl RuleToml {
    /// The rule for `scrub` of all databases.
    pub fn scrubbing(scrub: Scrub) -> Self {
        Self { database: every_database(), scrub: Some(scrub), ..Self::default() }
    }

    /// All rules of an array, in order; an error names the number of its table.
    pub fn resolve_all(tables: Vec<Self>) -> Result<Vec<Rule>> {
        let set: Vec<(String, String)> = (tables.iter())
            .flat_map(|rule| {
                let columns = rule.set.iter().flat_map(BTreeMap::keys);
                columns.map(|column| (rule.table.clone().unwrap_or_default(), column.clone()))
            })
            .collect();
        super::each(tables, "[[sanitize]]", |rule| {
            let of_same =
                |table: &str| rule.table.as_ref().is_some_and(|it| it.eq_ignore_ascii_case(table));
            let others = set.iter().filter(|(table, _)| of_same(table));
            let others: Vec<_> = others.map(|(_, column)| column.as_str()).collect();
            rule.resolve_beside(&others)
        })
    }

    /// Fails if the keys cannot be combined into one statement.
    #[cfg(test)]
    pub fn resolve(self) -> Result<Rule> {
        Ok(Self::resolve_all(vec![self])?.remove(0))
    }

    /// `set` has the columns that any rule sets in the table.
    fn resolve_beside(self, all_set: &[&str]) -> Result<Rule> {
        let database = NamePattern::anywhere(&self.database)?;
        let condition = self.r#where.as_ref().map(|w| format!(" WHERE {w}")).unwrap_or_default();
        let condition = condition.trim_end_matches([';', ' ', '\n']).to_owned();
        let no_where = self.r#where.is_none();
        let change = match (&self.table, self.set, self.delete, self.sql) {
            (Some(_), Some(set), false, None) if !set.is_empty() => {
                let expand = |(column, value): (&String, &String)| {
                    fake::expand(column, value, all_set).map(|value| (column.clone(), value))
                };
                Change::Set { columns: set.iter().map(expand).collect::<Result<_>>()?, condition }
            }
            (Some(_), None, true, None) => Change::Delete { condition },
            (_, None, false, Some(sql)) if no_where && !sql.trim().is_empty() => Change::Sql(sql),
            (None, None, false, None) if no_where && self.scrub.is_some() => Change::Nothing,
            _ => {
                return Err(Failure::usage(
                    "a rule is `table` with `set` or `delete = true`, or it is `sql`, or `scrub` alone",
                )
                .hint("`where` works only with `set` and `delete`")
                .into());
            }
        };
        let leak_check = match change {
            Change::Set { .. } => self.leak_check.unwrap_or(true),
            Change::Delete { .. } => self.leak_check.unwrap_or(false),
            _ if self.leak_check.is_some() => {
                return Err(
                    Failure::usage("`leak-check` works only with `set` and `delete`").into()
                );
            }
            _ => false,
        };
        let rule =
            Rule { database, table: self.table, change, leak_check, scrub: self.scrub.is_some() };
        let sql = rule.statement(|_| true).unwrap_or_default();
        for text in [&sql].into_iter().chain(&rule.table) {
            plain("a rule", text)?;
        }
        if !is_closed(&sql) {
            let why = "a quote or a comment is not closed, and would include the next rules";
            return Err(Failure::usage(format!("{why}: {sql}")).into());
        }
        // The sqlite3 shell would run such a line as a dot command.
        if sql.lines().any(|line| line.trim_start().starts_with('.')) {
            return Err(Failure::usage("a line of SQL must not begin with a dot").into());
        }
        Ok(rule)
    }
}

impl Rule {
    /// The rule for an entry of `omit`.
    pub fn omitting(table: &str) -> Result<Self> {
        let database = NamePattern::anywhere("*")?;
        let change = Change::Omit(unambiguous(table)?);
        Ok(Self { database, table: None, change, leak_check: false, scrub: false })
    }

    /// The statement for a database that has these columns; `None` if it has none of them.
    pub fn statement(&self, has: impl Fn(&str) -> bool) -> Option<String> {
        let table = || identifier(self.table.as_deref().unwrap_or_default());
        match &self.change {
            Change::Set { columns, condition } => {
                let set: Vec<_> = (columns.iter())
                    .filter(|(column, _)| has(column))
                    .map(|(column, value)| format!("{} = {value}", identifier(column)))
                    .collect();
                let set = set.join(", ");
                (!set.is_empty()).then(|| format!("UPDATE {} SET {set}{condition}", table()))
            }
            Change::Delete { condition } => Some(format!("DELETE FROM {}{condition}", table())),
            Change::Sql(sql) => Some(sql.clone()),
            // Of which tables is known only where they are.
            Change::Omit(_) | Change::Nothing => None,
        }
    }
}
