//! The rows of a table that differ between two databases, read in order and compared one by one.
//!
//! A row is identified by the key of its table: `VACUUM` may give every row another rowid. Rows of a
//! table without a key are identified by their rowid, unless a row with the same values exists.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use anyhow::Result;
use rusqlite::fallible_streaming_iterator::FallibleStreamingIterator as _;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Row, Rows, Statement, params_from_iter};

use super::scan::Scan;
use super::schema::{Key, Table, Verb};
use crate::interrupt;
use crate::sql::identifier;

/// How many rows without a key are remembered by their values; more are identified by their rowid.
const REMEMBERED: usize = 1 << 20;

/// A table that both databases have.
pub struct Pair {
    /// The names of the columns of either table, first those that both have.
    pub columns: [Vec<String>; 2],
    pub common: usize,
    /// Which of the common columns identify a row; the rowid does if none.
    pub key: Vec<usize>,
    method: Method,
    /// Selects all rows, and by key.
    all: [String; 2],
    by_key: [String; 2],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    /// The rowid is the key.
    Rowid,
    /// Rows have a rowid and another key.
    Key,
    /// One of the tables has no rowid.
    OnlyKey,
    /// Rows have no key.
    Content,
}

/// Called for each row that differs, with what the databases have of it: the rowid, if there is
/// one, and the columns.
pub type Each<'a> = dyn FnMut(Verb, Option<&Row<'_>>, Option<&Row<'_>>) -> Result<()> + 'a;

impl Pair {
    /// `None` if nothing identifies the rows of both.
    pub fn new(a: &Table, b: &Table) -> Option<Self> {
        let names = |table: &Table| -> Vec<String> {
            let stored = table.columns.iter().filter(|column| !column.is_generated);
            stored.map(|column| column.name.clone()).collect()
        };
        let (in_a, in_b) = (names(a), names(b));
        let has =
            |names: &[String], name: &String| names.iter().any(|it| it.eq_ignore_ascii_case(name));
        let (mut columns_a, only_a): (Vec<_>, Vec<_>) =
            in_a.iter().cloned().partition(|name| has(&in_b, name));
        let common = columns_a.len();
        let mut columns_b = columns_a.clone();
        columns_b.extend(in_b.into_iter().filter(|name| !has(&columns_a, name)));
        columns_a.extend(only_a);
        let terms = terms(a).filter(|in_a| terms(b).as_ref() == Some(in_a));
        let method = match (&terms, &a.rowid, &b.rowid) {
            (Some(_), Some(_), Some(_)) if is_integer(a) && is_integer(b) => Method::Rowid,
            (Some(_), Some(_), Some(_)) => Method::Key,
            (Some(_), ..) => Method::OnlyKey,
            (None, Some(_), Some(_)) => Method::Content,
            _ => return None,
        };
        let terms = terms.unwrap_or_default();
        let position = |(name, _): &(String, String)| {
            columns_a.iter().position(|it| it.eq_ignore_ascii_case(name))
        };
        let key = terms.iter().map(position).collect::<Option<Vec<_>>>()?;
        let rowids = method != Method::OnlyKey;
        let all = [select(a, &columns_a, rowids), select(b, &columns_b, rowids)];
        let condition: Vec<String> = (1..)
            .zip(&terms)
            .map(|(i, (name, collation))| {
                format!("{} = ?{i} COLLATE {collation}", identifier(name))
            })
            .collect();
        let by_key = all.clone().map(|all| format!("{all} WHERE {}", condition.join(" AND ")));
        let all = [(a, &all[0]), (b, &all[1])].map(|(table, all)| match &table.rowid {
            Some(rowid) if rowids => {
                format!("{all} WHERE {rowid} BETWEEN ?1 AND ?2 ORDER BY {rowid}")
            }
            _ => all.clone(),
        });
        Some(Self { columns: [columns_a, columns_b], common, key, method, all, by_key })
    }

    /// Compares the rows.
    ///
    /// # Errors
    ///
    /// A database cannot be read, `each` fails, or this process was asked to end.
    pub fn compare(
        &self,
        a: &Connection,
        b: &Connection,
        scan: &Scan,
        each: &mut Each<'_>,
    ) -> Result<()> {
        match self.method {
            Method::Rowid => self.merge(a, b, scan, |x, y| match (x, y) {
                (Some(_), Some(_)) => each(Verb::Changed, x, y),
                (Some(_), None) => each(Verb::Removed, x, y),
                _ => each(Verb::Added, x, y),
            }),
            Method::Key => self.compare_moved(a, b, scan, each),
            Method::OnlyKey if scan.is_empty() => Ok(()),
            Method::OnlyKey => self.compare_all(a, b, each),
            Method::Content => self.compare_content(a, b, scan, each),
        }
    }

    fn is_same(&self, x: &Row<'_>, y: &Row<'_>) -> rusqlite::Result<bool> {
        self.is_same_in(1..=self.common, x, y)
    }

    fn is_same_in(
        &self,
        mut columns: impl Iterator<Item = usize>,
        x: &Row<'_>,
        y: &Row<'_>,
    ) -> rusqlite::Result<bool> {
        columns.try_fold(true, |same, i| Ok(same && x.get_ref(i)? == y.get_ref(i)?))
    }

    /// Calls `each` for the rows of which another one, or none, has the same rowid in the other
    /// database.
    fn merge(
        &self,
        a: &Connection,
        b: &Connection,
        scan: &Scan,
        mut each: impl FnMut(Option<&Row<'_>>, Option<&Row<'_>>) -> Result<()>,
    ) -> Result<()> {
        let ranges = match scan {
            Scan::All => &[(i64::MIN, i64::MAX)],
            Scan::Ranges(ranges) => &ranges[..],
        };
        let (mut in_a, mut in_b) = (a.prepare(&self.all[0])?, b.prepare(&self.all[1])?);
        for range in ranges {
            interrupt::check()?;
            let (mut xs, mut ys) = (in_a.query(*range)?, in_b.query(*range)?);
            xs.advance()?;
            ys.advance()?;
            while let Some(order) = order(&xs, &ys)? {
                let (x, y) = (xs.get(), ys.get());
                match (order, x, y) {
                    (Ordering::Less, ..) => each(x, None)?,
                    (Ordering::Greater, ..) => each(None, y)?,
                    (_, Some(x), Some(y)) if self.is_same(x, y)? => {}
                    _ => each(x, y)?,
                }
                if order.is_le() {
                    xs.advance()?;
                }
                if order.is_ge() {
                    ys.advance()?;
                }
            }
        }
        Ok(())
    }

    /// A row with another rowid, but the same key and values, is the same.
    fn compare_moved(
        &self,
        a: &Connection,
        b: &Connection,
        scan: &Scan,
        each: &mut Each<'_>,
    ) -> Result<()> {
        let (mut in_a, mut in_b) = (a.prepare(&self.by_key[0])?, b.prepare(&self.by_key[1])?);
        let key = || self.key.iter().map(|i| i + 1);
        self.merge(a, b, scan, |x, y| match (x, y) {
            (Some(before), Some(after)) if self.is_same_in(key(), before, after)? => {
                each(Verb::Changed, x, y)
            }
            _ => {
                x.map_or(Ok(()), |x| self.look_up(x, &mut in_b, each))?;
                match y {
                    Some(row) if self.find(row, &mut in_a)?.next()?.is_none() => {
                        each(Verb::Added, None, y)
                    }
                    _ => Ok(()),
                }
            }
        })
    }

    fn compare_all(&self, a: &Connection, b: &Connection, each: &mut Each<'_>) -> Result<()> {
        let (mut in_a, mut in_b) = (a.prepare(&self.by_key[0])?, b.prepare(&self.by_key[1])?);
        let (mut all_a, mut all_b) = (a.prepare(&self.all[0])?, b.prepare(&self.all[1])?);
        let mut rows = all_a.query([])?;
        while let Some(x) = rows.next()? {
            self.look_up(x, &mut in_b, each)?;
        }
        let mut rows = all_b.query([])?;
        while let Some(y) = rows.next()? {
            if self.find(y, &mut in_a)?.next()?.is_none() {
                each(Verb::Added, None, Some(y))?;
            }
        }
        Ok(())
    }

    /// Compares a row of the first database with the one of the same key in the second.
    fn look_up(&self, x: &Row<'_>, in_b: &mut Statement<'_>, each: &mut Each<'_>) -> Result<()> {
        match self.find(x, in_b)?.next()? {
            None => each(Verb::Removed, Some(x), None),
            Some(y) if self.is_same(x, y)? => Ok(()),
            Some(y) => each(Verb::Changed, Some(x), Some(y)),
        }
    }

    fn find<'s>(&self, row: &Row<'_>, statement: &'s mut Statement<'_>) -> Result<Rows<'s>> {
        let key = self.key.iter().map(|i| row.get_ref(i + 1)).collect::<Result<Vec<_>, _>>()?;
        Ok(statement.query(params_from_iter(key.into_iter().map(ToSqlOutput::Borrowed)))?)
    }

    /// Rows of the same values are the same; of the others, those with the same rowid.
    fn compare_content(
        &self,
        a: &Connection,
        b: &Connection,
        scan: &Scan,
        each: &mut Each<'_>,
    ) -> Result<()> {
        // How many more the first database has of a row, by the hash of its values.
        let mut more: HashMap<u64, i64> = HashMap::new();
        self.merge(a, b, scan, |x, y| {
            for (row, n) in [(x, 1), (y, -1)] {
                if let Some(row) = row.filter(|_| more.len() < REMEMBERED) {
                    *more.entry(self.hash(row)?).or_default() += n;
                }
            }
            Ok(())
        })?;
        let is_remembered = more.len() < REMEMBERED;
        let mut is_left = |row: Option<&Row<'_>>, n: i64| -> Result<bool> {
            let Some(row) = row else { return Ok(false) };
            if !is_remembered {
                return Ok(true);
            }
            let more = more.entry(self.hash(row)?).or_default();
            let is_left = *more * n > 0;
            *more -= if is_left { n } else { 0 };
            Ok(is_left)
        };
        self.merge(a, b, scan, |x, y| match (is_left(x, 1)?, is_left(y, -1)?) {
            (true, true) => each(Verb::Changed, x, y),
            (true, false) => each(Verb::Removed, x, None),
            (false, true) => each(Verb::Added, None, y),
            (false, false) => Ok(()),
        })
    }

    fn hash(&self, row: &Row<'_>) -> rusqlite::Result<u64> {
        let mut hash = DefaultHasher::new();
        for i in 1..=self.common {
            match row.get_ref(i)? {
                ValueRef::Null => 0.hash(&mut hash),
                ValueRef::Integer(n) => (1, n).hash(&mut hash),
                ValueRef::Real(x) => (2, x.to_bits()).hash(&mut hash),
                ValueRef::Text(text) => (3, text).hash(&mut hash),
                ValueRef::Blob(blob) => (4, blob).hash(&mut hash),
            }
        }
        Ok(hash.finish())
    }
}

/// Which of two rows comes first; `None` at the end of both.
fn order(xs: &Rows<'_>, ys: &Rows<'_>) -> Result<Option<Ordering>> {
    Ok(match (xs.get(), ys.get()) {
        (None, None) => None,
        (Some(_), None) => Some(Ordering::Less),
        (None, Some(_)) => Some(Ordering::Greater),
        (Some(x), Some(y)) => Some(x.get::<_, i64>(0)?.cmp(&y.get(0)?)),
    })
}

fn select(table: &Table, columns: &[String], has_rowids: bool) -> String {
    let rowid = table.rowid.as_deref().filter(|_| has_rowids).unwrap_or("NULL");
    let columns = columns.iter().map(|column| identifier(column));
    let columns: Vec<String> = [rowid.to_owned()].into_iter().chain(columns).collect();
    format!("SELECT {} FROM main.{}", columns.join(", "), identifier(&table.name))
}

fn is_integer(table: &Table) -> bool {
    matches!(table.key, Key::Integer(_))
}

/// The columns of the key in lower case, each with its collation.
fn terms(table: &Table) -> Option<Vec<(String, String)>> {
    match &table.key {
        Key::Integer(name) => Some(vec![(name.to_lowercase(), "BINARY".to_owned())]),
        Key::Columns(columns) => {
            let term =
                |(name, collation): &(String, String)| (name.to_lowercase(), collation.clone());
            Some(columns.iter().map(term).collect())
        }
        Key::None => None,
    }
}
