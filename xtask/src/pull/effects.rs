//! What a dry run tells beside sizes: which rows each rule changes and of what shape the values are,
//! and which columns are new. `ops-remote/plan.sh` writes it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use serde::Serialize;

use crate::config::{Change, Rule};
use crate::fs::from_hex;
use crate::snapshots::Snapshot;
use crate::sqlite::open_closed;
use crate::ui::{count, on_one_line};

/// What a rule does to one column, over all databases.
#[derive(Debug, Serialize, PartialEq, Eq)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Effect {
    /// The position of the rule among those that run, from 1.
    pub rule: usize,
    pub table: Option<String>,
    /// `None` for rows that are deleted, or changed by SQL.
    pub column: Option<String>,
    pub rows: u64,
    pub before: Option<Shape>,
    pub after: Option<Shape>,
}

/// The shape of the values of a column: how many are of which type, and how long texts are.
#[derive(Clone, Copy, Debug, Default, Serialize, PartialEq, Eq)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Shape {
    pub nulls: u64,
    pub numbers: u64,
    pub blobs: u64,
    pub empty: u64,
    pub texts: u64,
    /// In characters, without those that are empty.
    pub shortest: u64,
    pub longest: u64,
}

impl Effect {
    /// Parses the words of the script for one of `rules`; `None` if it is another fact or malformed.
    pub fn parse(fact: &str, rules: &[Rule]) -> Option<Self> {
        let mut words = fact.strip_prefix("rule ")?.split(' ');
        let number: usize = words.next()?.parse().ok()?;
        let rule = rules.get(number.checked_sub(1)?)?;
        let column = match words.next()? {
            "-" => None,
            hex => Some(String::from_utf8_lossy(&from_hex(hex)?).into_owned()),
        };
        let numbers: Vec<f64> = words.map(str::parse).collect::<Result<_, _>>().ok()?;
        let [rows, rest @ ..] = &numbers[..] else { return None };
        let (before, after) = rest.split_at_checked(6)?;
        let (before, after) = (Shape::of(*rows, before)?, Shape::of(*rows, after)?);
        let shape = |shape| column.is_some().then_some(shape);
        let (before, after) = (shape(before), shape(after));
        Some(Self {
            rule: number,
            table: rule.table.clone(),
            column,
            rows: whole(*rows),
            before,
            after,
        })
    }

    /// The place, and what happens there.
    pub fn describe(&self, rules: &[Rule]) -> (String, String) {
        let table = self.table.as_deref().unwrap_or_default();
        let rows = count(usize::try_from(self.rows).unwrap_or(usize::MAX), "row");
        let rule = self.rule.checked_sub(1).and_then(|i| rules.get(i));
        let (place, effect) = match (&self.column, self.before, self.after) {
            _ if self.rows == 0 => (self.column.as_ref(), "no row".to_owned()),
            (Some(column), Some(before), Some(after)) => {
                (Some(column), format!("{rows}: {} → {}", before.describe(), after.describe()))
            }
            _ if rule.is_some_and(|rule| matches!(rule.change, Change::Delete { .. })) => {
                (None, format!("{rows} deleted"))
            }
            _ => (None, format!("{rows} changed")),
        };
        let place = match place {
            Some(column) => format!("{table}.{column}"),
            None if self.table.is_some() => table.to_owned(),
            None => format!("rule {}", self.rule),
        };
        (on_one_line(&place), effect)
    }
}

impl Shape {
    fn of(rows: f64, numbers: &[f64]) -> Option<Self> {
        let [nulls, numbers, blobs, empty, shortest, longest] = *numbers else { return None };
        Some(Self {
            nulls: whole(nulls),
            numbers: whole(numbers),
            blobs: whole(blobs),
            empty: whole(empty),
            texts: whole(rows - nulls - numbers - blobs - empty),
            shortest: whole(shortest),
            longest: whole(longest),
        })
    }

    /// `12–34 characters, 3 NULL`; without a number if all are alike.
    fn describe(self) -> String {
        let Self { nulls, numbers, blobs, empty, texts, shortest, longest } = self;
        let texts_are = match (shortest, longest) {
            (1, 1) => "1 character".to_owned(),
            (shortest, longest) if shortest == longest => format!("{longest} characters"),
            (shortest, longest) => format!("{shortest}–{longest} characters"),
        };
        let kinds = [(nulls, "NULL"), (empty, "empty"), (numbers, "numbers"), (blobs, "blobs")];
        let kinds: Vec<_> = kinds.into_iter().filter(|(n, _)| *n > 0).collect();
        match (&kinds[..], texts) {
            ([(_, kind)], 0) => (*kind).to_owned(),
            (kinds, texts) => {
                let others = kinds.iter().map(|(n, kind)| format!("{n} {kind}"));
                let texts = (texts > 0).then_some(texts_are);
                texts.into_iter().chain(others).collect::<Vec<_>>().join(", ")
            }
        }
    }
}

/// SQLite's `sum` writes whole numbers, its `total` numbers with a point.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a conversion from f64 saturates"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

/// The columns that the facts name and no database of an earlier pull has, as `table.column`, or
/// `table.*` if the table is new.
///
/// # Errors
///
/// A database of the earlier pull cannot be read.
pub fn new_columns<'a>(
    facts: impl Iterator<Item = &'a String>,
    earlier: &Snapshot,
) -> Result<Vec<String>> {
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, _) in &earlier.files {
        let db = open_closed(&earlier.path.join(name))?;
        let mut columns = db.prepare(
            "SELECT lower(t.name), lower(c.name) FROM main.sqlite_schema AS t, pragma_table_xinfo(t.name) AS c
              WHERE t.type = 'table' AND t.rootpage",
        )?;
        let columns = columns.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        for (table, column) in columns.collect::<rusqlite::Result<Vec<_>>>()? {
            known.entry(table).or_default().insert(column);
        }
    }
    let mut new = BTreeSet::new();
    for (table, columns) in facts.filter_map(|fact| parse_columns(fact)) {
        match known.get(&table.to_ascii_lowercase()) {
            Some(known) => {
                let added = columns.iter().filter(|it| !known.contains(&it.to_ascii_lowercase()));
                new.extend(added.map(|column| format!("{table}.{column}")));
            }
            None => _ = new.insert(format!("{table}.*")),
        }
    }
    Ok(new.into_iter().collect())
}

fn parse_columns(fact: &str) -> Option<(String, Vec<String>)> {
    let (table, columns) = fact.strip_prefix("columns ")?.split_once(' ')?;
    let text = |hex| Some(String::from_utf8_lossy(&from_hex(hex)?).into_owned());
    Some((text(table)?, columns.split(',').map(text).collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_told_without_a_value() {
        let shape = |numbers: [f64; 6], rows| Shape::of(rows, &numbers).unwrap().describe();
        assert_eq!(shape([0., 0., 0., 0., 12., 34.], 5.), "12–34 characters");
        assert_eq!(shape([0., 0., 0., 0., 1., 1.], 5.), "1 character");
        assert_eq!(shape([5., 0., 0., 0., 0., 0.], 5.), "NULL");
        assert_eq!(shape([0., 0., 0., 5., 0., 0.], 5.), "empty");
        assert_eq!(
            shape([1., 1., 1., 1., 9., 9.], 5.),
            "9 characters, 1 NULL, 1 empty, 1 numbers, 1 blobs"
        );
        assert_eq!(shape([2., 3., 0., 0., 0., 0.], 5.), "2 NULL, 3 numbers");
    }

    #[test]
    fn a_malformed_fact_is_none() {
        for fact in ["", "rule", "rule 1 - 1", "rule 9 - 1 0 0 0 0 0 0 0 0 0 0 0 0", "columns 61"] {
            assert_eq!(Effect::parse(fact, &[]), None, "{fact}");
            assert_eq!(parse_columns(fact), None, "{fact}");
        }
        assert_eq!(parse_columns("columns 61 62,63").unwrap().1, ["b", "c"]);
    }
}
