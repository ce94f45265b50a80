//! What this client has seen of each store: from it on, nothing older is believed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::fs;
use crate::snapshots::Store;

const FILE: &str = "share.json";

#[derive(Clone, Default, Deserialize, PartialEq, Serialize)]
struct State {
    /// Of the newest index.
    counter: u64,
    /// The fingerprint of the key.
    key: Option<String>,
}

/// By the URL of the store.
#[derive(Default, Deserialize, Serialize)]
struct Record(BTreeMap<String, State>);

pub struct Seen {
    file: PathBuf,
    url: String,
}

impl Seen {
    pub fn new(store: &Store, url: &str) -> Self {
        Self { file: store.state_dir().join(FILE), url: url.to_owned() }
    }

    fn read(&self) -> Result<Record> {
        let text = fs::read(&self.file)?;
        let record = text.map(|text| serde_json::from_slice(&text)).transpose();
        Ok(record
            .with_context(|| format!("{} is malformed", self.file.display()))?
            .unwrap_or_default())
    }

    /// Refuses a store that is older than the one that was seen, or has another key.
    ///
    /// # Errors
    ///
    /// It is refused, or the record cannot be read.
    pub fn check(&self, counter: u64, key: Option<&str>) -> Result<()> {
        let Some(seen) = self.read()?.0.remove(&self.url) else { return Ok(()) };
        let what = if seen.key.as_deref() != key {
            "has another key than before".to_owned()
        } else if counter < seen.counter {
            format!("was rolled back: its index is number {counter}, and {} was seen", seen.counter)
        } else {
            return Ok(());
        };
        let hint = format!("if that was done on purpose, remove {}", self.file.display());
        Err(Failure::new(format!("{} {what}", self.url)).hint(hint).into())
    }

    /// # Errors
    ///
    /// The record cannot be written.
    pub fn record(&self, counter: u64, key: Option<String>) -> Result<()> {
        let mut record = self.read()?;
        // A command that was faster may have seen a newer one.
        let known = record.0.get(&self.url).filter(|known| known.key == key);
        let counter = known.map_or(counter, |known| known.counter.max(counter));
        let state = State { counter, key };
        if record.0.insert(self.url.clone(), state.clone()) != Some(state) {
            if let Some(dir) = self.file.parent() {
                fs::create_dir_durably(dir)?;
            }
            fs::write(&self.file, &serde_json::to_vec_pretty(&record)?)?;
        }
        Ok(())
    }
}
