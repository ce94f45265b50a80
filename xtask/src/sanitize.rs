//! Rules that remove secrets. They run on the server, on its copy; this module makes their SQL.

pub mod audit;
pub mod unmatched;

use anyhow::Result;
use glob::Pattern;
use rusqlite::Connection;

pub use crate::config::{Change, Rule};
use crate::fs::sha256_of;
use crate::sql::{self, literal};

/// SQL that fills `temp.xtask_rule` and `temp.xtask_set`, from which `sanitize.sh` makes the
/// statements for a database; empty without rules.
pub fn script<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> String {
    let mut script = String::new();
    for (i, rule) in rules.into_iter().enumerate() {
        if i == 0 {
            script += "CREATE TEMP TABLE xtask_rule (rule INTEGER PRIMARY KEY, tbl TEXT, sql TEXT, \
                       condition TEXT, deletes INTEGER, look INTEGER, scrub INTEGER, omits TEXT);\n\
                       CREATE TEMP TABLE xtask_set (rule INTEGER, col TEXT COLLATE NOCASE, value TEXT);\n";
        }
        let or_null = |text: Option<&str>| text.map_or_else(|| "NULL".to_owned(), literal);
        let (sql, condition, columns) = match &rule.change {
            Change::Set { columns, condition } => (None, Some(condition), &columns[..]),
            Change::Delete { condition } => (None, Some(condition), &[][..]),
            Change::Sql(sql) => (Some(sql.as_str()), None, &[][..]),
            Change::Omit(_) | Change::Nothing => (None, None, &[][..]),
        };
        script += &format!(
            "INSERT INTO temp.xtask_rule VALUES ({i}, {}, {}, {}, {}, {}, {}, {});\n",
            or_null(rule.table.as_deref()),
            or_null(sql),
            or_null(condition.map(String::as_str)),
            u8::from(matches!(rule.change, Change::Delete { .. })),
            u8::from(rule.leak_check),
            u8::from(rule.scrub),
            or_null(omitted(rule).as_deref()),
        );
        for (column, value) in columns {
            script += &format!(
                "INSERT INTO temp.xtask_set VALUES ({i}, {}, {});\n",
                literal(column),
                literal(value)
            );
        }
    }
    script
}

/// The tables whose rows the rule omits, as a pattern for GLOB.
fn omitted(rule: &Rule) -> Option<String> {
    if let Change::Omit(tables) = &rule.change { Some(as_in_sql(tables)) } else { None }
}

/// Whether a rule keeps the rows of a table of `database` on the server.
pub fn omits(rules: &[Rule], database: &str, table: &str) -> bool {
    let options = glob::MatchOptions { case_sensitive: false, ..glob::MatchOptions::default() };
    rules.iter().filter(|rule| rule.is_for(database)).any(|rule| match &rule.change {
        Change::Omit(tables) => tables.matches_with(table, options),
        _ => false,
    })
}

/// The pattern in the syntax of SQLite's GLOB.
pub fn as_in_sql(pattern: &Pattern) -> String {
    pattern.as_str().replace("[!", "[^")
}

impl Rule {
    /// Whether the rule matches a database of this name.
    pub fn is_for(&self, database: &str) -> bool {
        self.database.matches(database)
    }

    /// The columns that it changes completely, each with its table; no column means the whole table.
    /// Unknown for SQL of the user, and none if only some rows are deleted.
    pub fn covers(&self) -> Vec<(&str, Option<&str>)> {
        let table = self.table.as_deref().unwrap_or_default();
        match &self.change {
            Change::Set { columns, .. } => {
                columns.iter().map(|(column, _)| (table, Some(column.as_str()))).collect()
            }
            Change::Delete { condition } if condition.is_empty() => vec![(table, None)],
            _ => Vec::new(),
        }
    }

    /// The table and the condition of the rows whose removed values the leak check searches for.
    pub fn is_looked_for(&self) -> Option<(&str, &str)> {
        let table = self.table.as_deref().filter(|_| self.leak_check)?;
        match &self.change {
            Change::Set { condition, .. } | Change::Delete { condition } => {
                Some((table, condition))
            }
            Change::Sql(_) | Change::Omit(_) | Change::Nothing => None,
        }
    }

    /// Whether it removes the values of this column of its table.
    pub fn removes(&self, column: &str) -> bool {
        let Change::Set { columns, .. } = &self.change else { return true };
        columns.iter().any(|(name, _)| name.eq_ignore_ascii_case(column))
    }

    /// Applies the rule to a database, if that has its table.
    ///
    /// # Errors
    ///
    /// The rule does not fit the schema.
    pub fn apply(&self, db: &Connection) -> Result<()> {
        let columns = match &self.table {
            Some(table) => columns(db, table)?,
            None => Vec::new(),
        };
        if self.table.is_some() && columns.is_empty() {
            return Ok(());
        }
        let has = |name: &str| columns.iter().any(|column| column.eq_ignore_ascii_case(name));
        let sql = self.statement(has).unwrap_or_default();
        Ok(db.execute_batch(&sql)?)
    }
}

/// The rules of one pull: those of the settings, unless `--no-sanitize` is given.
#[derive(Clone, Copy)]
pub struct EffectiveRules<'a> {
    configured: &'a [Rule],
    run: bool,
}

impl<'a> EffectiveRules<'a> {
    pub fn new(configured: &'a [Rule], run: bool) -> Self {
        Self { configured, run }
    }

    /// The rules that run. What is omitted, which comes last, stays on the server in any case.
    pub fn applied(&self) -> &'a [Rule] {
        let omits = self.configured.iter().rposition(|rule| omitted(rule).is_none());
        let first = omits.map_or(0, |last| last + 1);
        if self.run { self.configured } else { &self.configured[first..] }
    }

    /// Whether there are rules that do not run.
    pub fn leave_secrets(&self) -> bool {
        !self.run && !self.configured.is_empty()
    }

    /// Whether the audit searches for columns without a rule.
    pub fn are_audited(&self) -> bool {
        self.run
    }

    /// The hash of the rules that run; `None` without rules.
    pub fn hash(&self) -> Option<String> {
        rules_hash(self.applied())
    }

    /// Whether rules match a database of this name, but do not run.
    pub fn leave_unsanitized(&self, name: &str) -> bool {
        !self.run && is_for(self.configured, name)
    }

    /// Whether the result of a rule for this database may depend on the time.
    pub fn depend_on_time(&self, name: &str) -> bool {
        let rules = self.applied().iter().filter(|rule| rule.is_for(name));
        rules.into_iter().any(|rule| {
            matches!(rule.change, Change::Sql(_)) || sql::depends_on_time(&text([rule]))
        })
    }

    /// Whether no rule is applied to it, even if none matches it.
    pub fn leave_raw(&self, name: &str) -> bool {
        !is_for(self.applied(), name)
    }
}

/// Whether a rule matches a database of this name. What is omitted masks nothing of the rest.
pub fn is_for(rules: &[Rule], database: &str) -> bool {
    rules.iter().any(|rule| omitted(rule).is_none() && rule.is_for(database))
}

/// The columns of a table; empty if the table does not exist.
fn columns(db: &Connection, table: &str) -> Result<Vec<String>> {
    let mut columns = db.prepare(
        "SELECT c.name FROM main.sqlite_schema AS t, pragma_table_xinfo(t.name) AS c
          WHERE t.type = 'table' AND t.name = ?1 COLLATE NOCASE",
    )?;
    let columns = columns.query_map([table], |row| row.get(0))?;
    Ok(columns.collect::<rusqlite::Result<_>>()?)
}

/// The hash of the rules that a snapshot was made with; `None` without rules.
pub fn rules_hash(rules: &[Rule]) -> Option<String> {
    let scrubs = rules.iter().filter(|rule| rule.scrub);
    let scrubs = scrubs.map(|rule| format!("{} scrub\n", literal(rule.database.as_str())));
    (!rules.is_empty()).then(|| sha256_of(text(rules) + &scrubs.collect::<String>()))
}

/// The effect of the rules as text, independent of the scripts that execute them.
pub fn text<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> String {
    let lines = rules.into_iter().filter_map(|rule| {
        let omit = || omitted(rule).map(|tables| format!("omit {tables}"));
        let sql = literal(&rule.statement(|_| true).or_else(omit)?);
        let table = rule.table.as_deref().map_or_else(|| "NULL".to_owned(), literal);
        Some(format!("{} {table} {sql}\n", literal(rule.database.as_str())))
    });
    lines.collect()
}

#[cfg(test)]
mod tests;
