//! What a pull is of, and what there is of the same from earlier ones.

use std::collections::BTreeMap;

use anyhow::Result;
use glob::Pattern;
use jiff::Timestamp;

use super::skip::MaxAge;
use crate::delta::Base;
use crate::snapshots::{Database, Origin, Snapshot, Store};

/// What a pull is of. An earlier one stands for it only if it was of the same.
pub struct Wanted<'a> {
    /// As [`Origin`] has it, like the next two.
    pub source: String,
    pub flags: Vec<String>,
    pub sanitize_rules: Option<String>,
    pub only: Option<&'a Pattern>,
    /// None where only a new pull will do.
    pub if_older: Option<&'a MaxAge>,
}

impl Wanted<'_> {
    /// The newest sound snapshot of these databases, whichever rules it was made
    /// with. What is dated in the future says nothing about its age, and would
    /// be young for ever.
    pub fn newest(&self, store: &Store) -> Result<Option<Snapshot>> {
        let now = Timestamp::now();
        let fits = |snapshot: &Snapshot| {
            snapshot.is_pull()
                && snapshot.defect.is_none()
                && snapshot.time <= now
                && snapshot.origin().is_some_and(|origin| self.comes_from(origin))
                && self.is_covered_by(snapshot.only())
        };
        Ok(store.list()?.into_iter().find(fits))
    }

    /// Any machine will do for who names none.
    fn comes_from(&self, origin: &Origin) -> bool {
        origin.source.as_ref() == Some(&self.source)
            && (self.flags.is_empty() || self.flags == origin.flags)
    }

    fn is_covered_by(&self, only: Option<&str>) -> bool {
        only.is_none() || only == self.only.map(Pattern::as_str)
    }

    /// The newest one, if it is young and has exactly the secrets that this pull
    /// would leave in: after a change of the rules, or between pulls with
    /// `--no-sanitize` and without, none stands for the other.
    ///
    /// # Errors
    ///
    /// The snapshots cannot be read.
    pub fn young(&self, store: &Store) -> Result<Option<Snapshot>> {
        let Some(limit) = self.if_older.map(MaxAge::limit) else { return Ok(None) };
        let young = |snapshot: &Snapshot| {
            Timestamp::now().duration_since(snapshot.time) <= limit
                && snapshot.origin().is_some_and(|origin| self.has_same_rules(origin))
        };
        Ok(self.newest(store)?.filter(young))
    }

    /// What the newest pulls have of each database, whichever machine they were from and
    /// whatever else they had. A pull with other rules is left alone: nothing that these
    /// remove must come from there.
    ///
    /// # Errors
    ///
    /// The snapshots cannot be read.
    pub fn bases(&self, store: &Store) -> Result<Vec<Base>> {
        let fits = |snapshot: &Snapshot| {
            let fits = |origin: &Origin| {
                origin.source.as_ref() == Some(&self.source) && self.has_same_rules(origin)
            };
            snapshot.is_pull() && snapshot.origin().is_some_and(fits)
        };
        let mut bases = BTreeMap::new();
        for snapshot in store.list()?.iter().filter(|snapshot| fits(snapshot)) {
            for database in snapshot.meta.iter().flat_map(|meta| &meta.databases) {
                let Database { name, bytes, .. } = database;
                if snapshot.files.contains(&(name.clone(), *bytes))
                    && self.only.is_none_or(|only| only.matches(name))
                    && let Some(base) = Base::new(&snapshot.path, database)
                {
                    bases.entry(name.clone()).or_insert(base);
                }
            }
        }
        Ok(bases.into_values().collect())
    }

    fn has_same_rules(&self, origin: &Origin) -> bool {
        origin.sanitize_rules == self.sanitize_rules
    }
}
