//! What a replacement puts in place and takes away, and what has come of it.

use std::collections::BTreeSet;

use glob::Pattern;

use super::save::Saved;
use crate::config::Names;
use crate::snapshots::{Kind, Snapshot};

/// What is to be put in place, and how.
pub struct Replacement<'a> {
    pub snapshot: &'a Snapshot,
    /// Only what matches is replaced, and nothing removed.
    pub only: Option<&'a Pattern>,
    /// What kind of snapshot is made of the live set first; none is.
    pub save: Option<Kind>,
}

pub struct Replaced {
    pub before: Option<Saved>,
    pub installed: Vec<String>,
    pub removed: Vec<String>,
    /// Live databases that stay, since no pull has brought them; those not named before.
    pub others: Vec<String>,
    /// Those that have a database open, and go on with the new one.
    pub programs: Vec<String>,
    /// The live databases, also others than these, that are unsanitized.
    pub unsanitized: Vec<String>,
}

impl Replacement<'_> {
    /// The databases that it puts in place. What a snapshot has beyond `names`
    /// is left alone: nothing of that was saved.
    pub fn installs(&self, names: &Names) -> Vec<String> {
        let files = self.snapshot.files.iter().map(|(name, _)| name);
        files.filter(|name| names.selects(name, self.only)).cloned().collect()
    }

    /// The live databases that it takes away: those of `brought` that a whole set does not
    /// have. What is not saved first, or was not taken as a set, takes none away.
    pub fn removes(
        &self,
        names: &Names,
        live: &[String],
        brought: &BTreeSet<String>,
    ) -> Vec<String> {
        let whole = self.snapshot.meta.as_ref().is_some_and(|meta| meta.only.is_none());
        if !whole || self.only.is_some() || self.save.is_none() {
            return Vec::new();
        }
        missing(live, brought, &self.installs(names))
    }
}

/// The live databases of `brought` that a whole set of these does not have.
pub fn missing(live: &[String], brought: &BTreeSet<String>, set: &[String]) -> Vec<String> {
    let missing = live.iter().filter(|&name| brought.contains(name) && !set.contains(name));
    missing.cloned().collect()
}
