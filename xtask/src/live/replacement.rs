//! The input and the result of a replacement.

use std::collections::BTreeSet;

use super::save::Saved;
use crate::config::{NamePattern, Names};
use crate::snapshots::{Kind, Snapshot};

/// A snapshot to install.
pub struct Replacement<'a> {
    pub snapshot: &'a Snapshot,
    /// If set, only matching databases are replaced, and none removed.
    pub only: Option<&'a NamePattern>,
    /// The kind of the snapshot that saves the live set first; `None` saves nothing.
    pub save: Option<Kind>,
}

pub struct Replaced {
    pub before: Option<Saved>,
    pub installed: Vec<String>,
    pub removed: Vec<String>,
    /// Live databases that stay, since no pull brought them; without those reported before.
    pub others: Vec<String>,
    /// Programs that have a database open; they see the new data at their next query.
    pub programs: Vec<String>,
    /// All live databases that are unsanitized, not only the installed ones.
    pub unsanitized: Vec<String>,
}

impl Replacement<'_> {
    /// The databases that it installs. Files of the snapshot outside `names` are left alone,
    /// because the save does not include them.
    pub fn installs(&self, names: &Names) -> Vec<String> {
        let files = self.snapshot.files.iter().map(|(name, _)| name);
        files.filter(|name| names.selects(name, self.only)).cloned().collect()
    }

    /// The live databases that it removes: those of `brought` that a complete set lacks. Nothing is
    /// removed without a save, or if the snapshot is not a complete set.
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

/// The live databases of `brought` that the complete set `set` lacks.
pub fn missing(live: &[String], brought: &BTreeSet<String>, set: &[String]) -> Vec<String> {
    let missing = live.iter().filter(|&name| brought.contains(name) && !set.contains(name));
    missing.cloned().collect()
}
