//! Rules that remove secrets. They run on the server, on its copy; here they
//! become the SQL that does it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use glob::Pattern;
use rusqlite::Connection;
use serde::Deserialize;

use crate::durable::sha256_of;
use crate::error::Failure;
use crate::settings::{pattern, plain};
use crate::sqlite::{identifier, literal};

/// `[[sanitize]]`, as written.
#[derive(Deserialize)]
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
}

fn every_database() -> String {
    "*".to_owned()
}

pub struct Rule {
    database: Pattern,
    /// A database without this table is skipped.
    table: Option<String>,
    sql: String,
    /// Which rows are changed and how; none of SQL of the user's own, which may
    /// be more than one statement, and of which nothing is known.
    change: Option<Change>,
}

struct Change {
    /// ` WHERE …`, or nothing; it ends no statement.
    condition: String,
    /// The columns that are set; none where rows are deleted.
    set: Vec<String>,
}

impl RuleToml {
    /// # Errors
    ///
    /// The keys do not make one statement.
    pub fn resolve(self) -> Result<Rule> {
        let database = pattern(&self.database)?;
        let condition = self.r#where.as_ref().map(|w| format!(" WHERE {w}")).unwrap_or_default();
        let set: Vec<_> = self.set.iter().flat_map(BTreeMap::keys).cloned().collect();
        let change = self.sql.is_none().then(|| Change {
            condition: condition.trim_end_matches([';', ' ', '\n']).to_owned(),
            set,
        });
        let sql = match (&self.table, self.set, self.delete, self.sql) {
            (Some(table), Some(set), false, None) if !set.is_empty() => {
                let assignments: Vec<_> = set
                    .iter()
                    .map(|(column, value)| format!("{} = {value}", identifier(column)))
                    .collect();
                format!("UPDATE {} SET {}{condition}", identifier(table), assignments.join(", "))
            }
            (Some(table), None, true, None) => {
                format!("DELETE FROM {}{condition}", identifier(table))
            }
            (_, None, false, Some(sql)) if self.r#where.is_none() && !sql.trim().is_empty() => sql,
            _ => {
                return Err(Failure::usage(
                    "a rule is `table` with `set` or `delete = true`, or it is `sql`",
                )
                .hint("`where` goes with `set` and `delete`")
                .into());
            }
        };
        for text in [&sql].into_iter().chain(&self.table) {
            plain("a rule", text)?;
        }
        if !is_closed(&sql) {
            let why = "a quote or a comment is left open, and would take the next rules in";
            return Err(Failure::usage(format!("{why}: {sql}")).into());
        }
        // The sqlite3 shell would take such a line for a command of its own.
        if sql.lines().any(|line| line.trim_start().starts_with('.')) {
            return Err(Failure::usage("a line of SQL must not begin with a dot").into());
        }
        Ok(Rule { database, table: self.table, sql, change })
    }
}

/// Whether no quote and no `/*` comment reaches beyond the end. SQLite takes an
/// open comment without a word.
fn is_closed(sql: &str) -> bool {
    let mut rest = sql;
    while let Some(start) = rest.find(['\'', '"', '`', '[', '-', '/']) {
        let from = &rest[start..];
        let end = match from.as_bytes() {
            [b'-', b'-', ..] => Some(from.find('\n').unwrap_or(from.len())),
            [b'/', b'*', ..] => from[2..].find("*/").map(|at| at + 4),
            [b'-' | b'/', ..] => Some(1),
            [b'[', ..] => from.find(']').map(|at| at + 1),
            // A quote that is doubled closes a text and opens the next.
            [quote, ..] => from[1..].find(char::from(*quote)).map(|at| at + 2),
            [] => None,
        };
        let Some(end) = end else { return false };
        rest = &from[end..];
    }
    true
}

/// SQL that fills `temp.xtask_rule` and `temp.xtask_set`, from which `sanitize.sh`
/// makes what a database needs; empty without rules.
///
/// It watches the values that `set` and `delete` remove, and has the copy written
/// anew only where one is left in its bytes. What `sql` removes is not known:
/// where that changes a row or the schema, the copy is always written anew.
pub fn script<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> String {
    let mut script = String::new();
    for (i, rule) in rules.into_iter().enumerate() {
        if i == 0 {
            script += "CREATE TEMP TABLE xtask_rule (rule INTEGER PRIMARY KEY, pattern TEXT, tbl TEXT, sql TEXT, \
                       condition TEXT);\nCREATE TEMP TABLE xtask_set (rule INTEGER, col TEXT COLLATE NOCASE);\n";
        }
        let or_null = |text: Option<&str>| text.map_or_else(|| "NULL".to_owned(), literal);
        script += &format!(
            "INSERT INTO temp.xtask_rule VALUES ({i}, {}, {}, {}, {});\n",
            literal(&rule.database.as_str().replace("[!", "[^")),
            or_null(rule.table.as_deref()),
            literal(&rule.counted(i)),
            or_null(rule.change.as_ref().map(|change| change.condition.as_str())),
        );
        for column in rule.change.iter().flat_map(|change| &change.set) {
            script += &format!("INSERT INTO temp.xtask_set VALUES ({i}, {});\n", literal(column));
        }
    }
    script
}

impl Rule {
    /// Whether it is meant for a database of this name.
    pub fn is_for(&self, database: &str) -> bool {
        self.database.matches(database)
    }

    /// The databases it is for, and the columns of which it leaves nothing as it was:
    /// each with its table, or all of that. What SQL of the user's own does is not known,
    /// and of a table from which some rows are deleted, the others stay.
    pub fn covers(&self) -> (&Pattern, Vec<(&str, Option<&str>)>) {
        let columns = match (&self.table, &self.change) {
            (Some(table), Some(change)) if !change.set.is_empty() => {
                change.set.iter().map(|column| (table.as_str(), Some(column.as_str()))).collect()
            }
            (Some(table), Some(change)) if change.condition.trim().is_empty() => {
                vec![(table.as_str(), None)]
            }
            _ => Vec::new(),
        };
        (&self.database, columns)
    }

    /// Its SQL, which also notes how many rows it changes as rule number `i`.
    /// Of several statements that is the sum, to which virtual tables add the
    /// rows that they keep their data in. The newline ends a comment.
    fn counted(&self, i: usize) -> String {
        let sql = &self.sql;
        if self.change.is_none() {
            // The first count is a change itself.
            format!(
                "INSERT INTO temp.xtask_count VALUES ({i}, -total_changes());\n{sql}\n;\n\
                 UPDATE temp.xtask_count SET rows = rows + total_changes() - 1 WHERE rule = {i};"
            )
        } else {
            format!("{sql}\n;\nINSERT INTO temp.xtask_count VALUES ({i}, changes());")
        }
    }
}

/// Applies to a database called `name` the rules that are meant for it.
///
/// # Errors
///
/// One of them does not fit the schema.
pub fn apply(db: &Connection, name: &str, rules: &[Rule]) -> Result<()> {
    for (i, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.is_for(name)) {
        let is_there = match &rule.table {
            Some(table) => db
                .prepare("SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE")?
                .exists([table])?,
            None => true,
        };
        if is_there {
            db.execute_batch(&rule.sql)
                .with_context(|| format!("[[sanitize]] number {} failed on {name}", i + 1))?;
        }
    }
    Ok(())
}

/// Names the rules that a snapshot was made with; none without rules.
pub fn rules_hash(rules: &[Rule]) -> Option<String> {
    (!rules.is_empty()).then(|| sha256_of(text(rules)))
}

/// What rules say, whatever the server is sent to carry them out.
pub fn text<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> String {
    let lines = rules.into_iter().map(|Rule { database, table, sql, .. }| {
        let table = table.as_deref().map_or_else(|| "NULL".to_owned(), literal);
        format!("{} {table} {}\n", literal(database.as_str()), literal(sql))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(toml: &str) -> Result<Rule> {
        toml::from_str::<RuleToml>(toml).unwrap().resolve()
    }

    #[test]
    fn rules_become_statements() {
        let sql = |toml| rule(toml).unwrap().sql;
        assert_eq!(
            sql("table = 'a\"b'\nset = { y = 'NULL', x = \"''\" }\nwhere = 'id > 1'"),
            r#"UPDATE "a""b" SET "x" = '', "y" = NULL WHERE id > 1"#
        );
        assert_eq!(sql("table = 't'\ndelete = true"), r#"DELETE FROM "t""#);
        assert_eq!(sql("sql = 'UPDATE t SET a = 1'"), "UPDATE t SET a = 1");
    }

    #[test]
    fn what_is_quoted_or_a_comment_may_hold_anything() {
        for sql in [
            "DELETE FROM t -- it's all /*",
            "DELETE FROM t /* it's [all */",
            "UPDATE t SET a = '/*' || \"it's\" || [it's] || `it's` || 'it''s' || 1 - 2 / 3 - '--'",
            "/**/ DELETE FROM t /***/",
        ] {
            assert!(is_closed(sql), "{sql}");
        }
    }

    #[test]
    fn what_is_not_one_statement_is_refused() {
        for toml in [
            "table = 't'",
            "set = { a = '1' }",
            "table = 't'\nset = {}",
            "table = 't'\nset = { a = '1' }\ndelete = true",
            "sql = ''",
            "sql = 'UPDATE t SET a = 1'\nwhere = 'x'",
            "sql = \"SELECT 1;\\n.shell ls\"",
            "table = 't'\nset = { a = '1' }\ndatabase = 'a/b'",
            "sql = \"DELETE FROM t WHERE a = '\\u0000'\"",
            "table = \"t\\u001b\"\ndelete = true",
            "sql = 'DELETE FROM t /* all'",
            "sql = 'DELETE FROM t /*/'",
            "sql = \"UPDATE t SET a = 'x''\"",
            "table = 't'\ndelete = true\nwhere = 'a = \"x'",
            "sql = 'DELETE FROM [t'",
        ] {
            assert!(rule(toml).is_err(), "{toml}");
        }
    }

    #[test]
    fn the_script_is_sql_that_quotes_what_it_carries() {
        let rules = [
            rule("database = \"o'[!x].db\"\ntable = \"it's\"\nset = { \"o'r\" = \"''\" }\nwhere = \"b = 'it''s';\"").unwrap(),
            rule("sql = 'DELETE FROM t -- all'").unwrap(),
        ];
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(&script(&rules)).unwrap();
        let row = |i: i64| {
            db.query_row(
                "SELECT pattern, tbl, sql FROM temp.xtask_rule WHERE rule = ?1",
                [i],
                |row| {
                    Ok((
                        row.get::<_, String>(0)?,
                        row.get::<_, Option<String>>(1)?,
                        row.get::<_, String>(2)?,
                    ))
                },
            )
            .unwrap()
        };
        let set = db.query_row("SELECT rule, col FROM temp.xtask_set", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
        });
        assert_eq!(set, Ok((0, "o'r".to_owned())));
        let conditions: Vec<Option<String>> = db
            .prepare("SELECT condition FROM temp.xtask_rule ORDER BY rule")
            .and_then(|mut all| all.query_map([], |row| row.get(0))?.collect())
            .unwrap();
        assert_eq!(conditions, [Some(" WHERE b = 'it''s'".to_owned()), None]);
        let (pattern, table, _) = row(0);
        assert_eq!((pattern.as_str(), table.as_deref()), ("o'[^x].db", Some("it's")));
        db.execute_batch("CREATE TEMP TABLE xtask_count (rule, rows); CREATE TABLE t (a); INSERT INTO t VALUES (1)")
            .unwrap();
        db.execute_batch(&row(1).2).unwrap();
        assert_eq!(
            db.query_row("SELECT rows FROM temp.xtask_count", [], |r| r.get::<_, i64>(0)),
            Ok(1)
        );
    }

    #[test]
    fn the_hash_changes_with_the_rules() {
        let one = rules_hash(&[rule("sql = 'DELETE FROM t'").unwrap()]);
        let other = rules_hash(&[rule("sql = 'DELETE FROM u'").unwrap()]);
        assert!(one.is_some() && one != other && rules_hash(&[]).is_none());
    }
}
