//! `[[sanitize]]`: a rule that removes secrets.

use std::collections::BTreeMap;

use anyhow::Result;
use glob::Pattern;
use serde::Deserialize;

use super::fake;
use super::name_pattern::NamePattern;
use super::values::{plain, unambiguous};
use crate::error::Failure;
use crate::sql::{identifier, is_closed, syntax_error};

/// The keys of `[[sanitize]]`.
#[derive(Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RuleToml {
    /// A pattern of the databases that it is for. Default: `"*"`, all.
    #[serde(default = "every_database")]
    database: String,
    /// The table that it changes. A database without it is skipped.
    table: Option<String>,
    /// The new values, each an SQL expression: `{ email = "fake(email)", token = "''" }`.
    set: Option<BTreeMap<String, String>>,
    /// The rows that it changes or deletes, as an SQL condition. Default: all.
    r#where: Option<String>,
    /// Delete the rows. Default: `false`.
    #[serde(default)]
    delete: bool,
    /// SQL to run, in place of `table` and `set`.
    sql: Option<String>,
    /// Whether the values that it removes are searched for in other columns. Default: `true` for
    /// `set`, `false` for `delete`.
    #[serde(alias = "look")]
    leak_check: Option<bool>,
    /// As above, for the databases of this rule.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
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
    /// The file and the line that a user edits to change it.
    pub place: String,
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

    /// The columns that it sets, each with its table.
    pub fn set_columns(&self) -> Vec<(String, String)> {
        let table = self.table.clone().unwrap_or_default();
        let columns = self.set.iter().flat_map(BTreeMap::keys);
        columns.map(|column| (table.clone(), column.clone())).collect()
    }

    /// Fails if the keys cannot be combined into one statement.
    pub fn resolve(self) -> Result<Rule> {
        let set = self.set_columns();
        self.resolve_beside(&set)
    }

    /// The same, where all rules together set the columns `set`.
    pub fn resolve_beside(self, set: &[(String, String)]) -> Result<Rule> {
        let is_same =
            |table: &str| self.table.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(table));
        let all_set: Vec<_> = set.iter().filter(|(table, _)| is_same(table)).collect();
        let all_set: Vec<_> = all_set.iter().map(|(_, column)| column.clone()).collect();
        let all_set: Vec<_> = all_set.iter().map(String::as_str).collect();
        let database = NamePattern::anywhere(&self.database)?;
        let condition = self.r#where.as_ref().map(|w| format!(" WHERE {w}")).unwrap_or_default();
        let condition = condition.trim_end_matches([';', ' ', '\n']).to_owned();
        let no_where = self.r#where.is_none();
        let change = match (&self.table, self.set, self.delete, self.sql) {
            (Some(table), Some(set), false, None) if !set.is_empty() => {
                let expand = |(column, value): (&String, &String)| {
                    let sql = fake::expand(column, value, &all_set)?;
                    check_value(&format!("{table}.{column}"), value, &sql)?;
                    Ok((column.clone(), sql))
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
        let (place, scrub) = (String::new(), self.scrub.is_some());
        let rule = Rule { place, database, table: self.table, change, leak_check, scrub };
        let sql = rule.statement(|_| true).unwrap_or_default();
        for text in [&sql].into_iter().chain(&rule.table) {
            plain("a rule", text)?;
        }
        if !is_closed(&sql) {
            let why = "a quote or a comment is not closed, and would include the next rules";
            return Err(Failure::usage(format!("{why}: {sql}"))
                .hint("text is quoted twice, for TOML and for SQL: \"'text'\"")
                .into());
        }
        self.r#where.as_deref().map_or(Ok(()), check_condition)?;
        // The sqlite3 shell would run such a line as a dot command.
        if sql.lines().any(|line| line.trim_start().starts_with('.')) {
            return Err(Failure::usage("a line of SQL must not begin with a dot")
                .hint("move what is before it into the same line")
                .into());
        }
        Ok(rule)
    }
}

/// Fails if a value cannot be parsed, which the server would find out only after it has copied all.
fn check_value(column: &str, value: &str, sql: &str) -> Result<()> {
    let Some(why) = syntax_error(&format!("UPDATE t SET c = {sql}\n")) else { return Ok(()) };
    if !is_closed(sql) {
        return Ok(());
    }
    let failure = Failure::usage(format!("{column} = {value:?} is not SQL: {why}"));
    Err(match value.trim() {
        "" => Failure::usage(format!("{column} = {value:?} is not SQL"))
            .hint("for empty text write \"''\""),
        _ => failure.hint("text is quoted twice, for TOML and for SQL: \"'text'\""),
    }
    .into())
}

/// Fails if `where` cannot be parsed.
fn check_condition(text: &str) -> Result<()> {
    let sql = text.trim_end_matches([';', ' ', '\n']);
    // A SELECT, which also has the ORDER BY and LIMIT that some servers allow here.
    let Some(why) = syntax_error(&format!("SELECT 1 FROM t WHERE {sql}\n")) else { return Ok(()) };
    let failure = Failure::usage(format!("where = {text:?} is not SQL: {why}"));
    Err(failure.hint("such as where = \"email <> ''\"").into())
}

impl Rule {
    /// The rule, the `number`-th of those that run, as a user finds it.
    pub fn describe(&self, number: usize) -> String {
        let table = self.table.as_ref().map(|table| format!(" ({table})"));
        format!("rule {number}{}, {}", table.unwrap_or_default(), self.place)
    }

    /// The rule for an entry of `omit`.
    pub fn omitting(table: &str) -> Result<Self> {
        let database = NamePattern::anywhere("*")?;
        let change = Change::Omit(unambiguous(table)?);
        let place = "omit in xtask/db.toml".to_owned();
        Ok(Self { place, database, table: None, change, leak_check: false, scrub: false })
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
