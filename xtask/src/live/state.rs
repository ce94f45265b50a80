//! The state of the live set between two commands.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::placed::Placed;
use super::save::Saved;
use crate::error::{Failure, is_forbidden};
use crate::fs;
use crate::sanitize::Rule;
use crate::snapshots::{LockedStore, Snapshot, Store, unsanitized};

const STATE: &str = "state.json";

/// The snapshots that the live set came from and that it replaced, and facts about its databases.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct State {
    /// The snapshot that was installed last.
    pub live: Option<String>,
    /// The snapshot with the live set before that.
    pub before: Option<String>,
    /// The live databases that are unsanitized, as of the last command.
    #[serde(default)]
    pub unsanitized: BTreeSet<String>,
    /// The live databases to which no rule was applied. Not recorded by older versions.
    #[serde(default)]
    pub(super) raw: Option<BTreeSet<String>>,
    /// The live databases that a pull or a restore installed: only these are ever removed. Not
    /// recorded by older versions.
    #[serde(default)]
    pub(super) brought: Option<BTreeSet<String>>,
    /// The other live databases that were reported once.
    #[serde(default)]
    pub(super) others: BTreeSet<String>,
    /// The databases that any pull ever installed. Not recorded by older versions.
    #[serde(default)]
    pub(super) pulled: Option<BTreeSet<String>>,
    /// The snapshots that a prune kept for their last copies, and reported once.
    #[serde(default)]
    pub(super) last_copies: BTreeSet<String>,
    /// The live databases as they were installed, where that is certain.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) placed: BTreeMap<String, Placed>,
}

impl State {
    /// The recorded state; the default if there is none.
    pub fn read(store: &Store) -> Result<Self> {
        let path = store.state_dir().join(STATE);
        let state = read_json(&path).map_err(|error| {
            let failure =
                Failure::new("cannot read which snapshot is current and which was before");
            let remove = format!("remove {}; then restore a snapshot by name", path.display());
            // A state that another user may read is intact, so it must not be removed.
            let failure = if is_forbidden(&error) { failure } else { failure.hint(remove) };
            failure.over(error)
        })?;
        Ok(state.unwrap_or_default())
    }

    /// The databases that a pull or a restore installed.
    pub fn brought(&self, store: &Store) -> BTreeSet<String> {
        self.brought.clone().unwrap_or_else(|| {
            let live = self.live.as_ref().and_then(|name| store.find(name).ok());
            live.iter().flat_map(|live| &live.files).map(|(name, _)| name.clone()).collect()
        })
    }

    /// The live databases to which no rule was applied, as far as is known.
    pub fn raw(&self, store: &Store) -> BTreeSet<String> {
        self.raw.clone().unwrap_or_else(|| {
            let live = self.live.as_ref().and_then(|name| store.find(name).ok());
            let raw = live.iter().flat_map(Snapshot::raw);
            raw.chain(self.unsanitized.iter().cloned()).collect()
        })
    }

    /// The databases that any pull ever installed, as far as is known.
    ///
    /// # Errors
    ///
    /// The snapshots cannot be read.
    pub fn pulled(&self, store: &Store) -> Result<BTreeSet<String>> {
        if let Some(pulled) = &self.pulled {
            return Ok(pulled.clone());
        }
        let snapshots = store.list()?;
        let files = snapshots.iter().filter(|snapshot| snapshot.is_pull()).flat_map(|it| &it.files);
        Ok(files.map(|(name, _)| name.clone()).collect())
    }

    /// Returns those of `now` (snapshots that a prune kept for their last copies) that were not
    /// reported before, and records them.
    ///
    /// # Errors
    ///
    /// The state cannot be read or written.
    pub fn name_last_copies(
        store: &LockedStore,
        now: BTreeSet<String>,
    ) -> Result<BTreeSet<String>> {
        let state = Self::read(store)?;
        let new = now.difference(&state.last_copies).cloned().collect();
        if now != state.last_copies {
            Self { last_copies: now, ..state }.write(store)?;
        }
        Ok(new)
    }

    /// The state after `snapshot` has replaced `live`. A database that was not installed by a pull
    /// before does not count as installed because it is restored.
    pub(super) fn after(
        self,
        snapshot: &Snapshot,
        saved: Option<&Saved>,
        live: &[String],
        install: &[String],
        remove: &[String],
        rules: &[Rule],
    ) -> Self {
        let Self { before, raw, brought, others, mut pulled, last_copies, placed, .. } = self;
        let before = match saved {
            // The live set already was this snapshot: keep the one to undo to.
            Some(saved) if saved.name == snapshot.name => before,
            saved => saved.map(|saved| saved.name.clone()),
        };
        let mut raw = raw.unwrap_or_default();
        raw.retain(|name| !install.contains(name) && !remove.contains(name));
        raw.extend(snapshot.raw().into_iter().filter(|name| install.contains(name)));
        let mut brought = brought.unwrap_or_default();
        brought.retain(|name| !remove.contains(name));
        brought.extend(
            install.iter().filter(|name| snapshot.is_pull() || !live.contains(name)).cloned(),
        );
        if let Some(pulled) = pulled.as_mut().filter(|_| snapshot.is_pull()) {
            pulled.extend(install.iter().cloned());
        }
        // A database that was replaced did not stay.
        let left = |name: &&String| others.contains(*name) || !install.contains(name);
        let others = live.iter().filter(|&name| !brought.contains(name) && !remove.contains(name));
        let others = others.filter(left).cloned().collect();
        Self {
            live: Some(snapshot.name.clone()),
            before,
            unsanitized: unsanitized(&raw, rules),
            raw: Some(raw),
            brought: Some(brought),
            others,
            pulled,
            last_copies,
            placed,
        }
    }

    /// The snapshots that are live, or that `restore-db --undo` needs.
    pub(super) fn needed(&self) -> impl Iterator<Item = String> {
        self.live.iter().chain(&self.before).cloned()
    }

    /// Keeps others from removing what this state needs, and what the recorded one needs, which is
    /// valid until this one has replaced it.
    pub(super) fn reserve(&self, store: &Store) -> Result<()> {
        if store.shared().is_none() {
            return Ok(());
        }
        store.record_needed(Self::read(store)?.needed().chain(self.needed()).collect())
    }

    pub(super) fn write(&self, store: &Store) -> Result<()> {
        self.reserve(store)?;
        fs::write(&store.state_dir().join(STATE), &serde_json::to_vec_pretty(self)?)
    }
}

pub(super) fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>> {
    let text = fs::read(path)?;
    text.map(|text| serde_json::from_slice(&text))
        .transpose()
        .with_context(|| format!("{} is malformed", path.display()))
}
