//! A store of snapshots: objects that are named by their content, and the index. Nothing that it
//! answers is believed without a check.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

#[cfg(not(feature = "share"))]
use super::absent::Key;
#[cfg(feature = "share")]
use super::key::Key;
use super::manifest::{Entry, Index, MAX_TEXT, Manifest, PART, Part, VERSION};
use super::seen::Seen;
use crate::config::{Settings, Share};
use crate::error::Failure;
use crate::fs;
use crate::objects::Remote;
use crate::objects::access::Access;
use crate::snapshots::Store;

/// That of pulls.
const LEVEL: i32 = 3;
/// What compression and encryption add at most to what they cannot make smaller.
const SLACK: usize = 1 << 16;
/// How often it is tried while others publish too.
const TRIES: usize = 10;
/// The number of older indexes that stay: one that publishes now may have begun with one of them.
const INDEXES: u64 = 100;
/// Where prunes are marked.
const MARKS: &str = "pruning";

pub struct Vault<'a> {
    share: &'a Share,
    remote: Remote,
    key: Option<Key>,
    seen: Seen,
}

/// `[share]` of the settings.
///
/// # Errors
///
/// There is none.
pub fn settings(settings: &Settings) -> Result<&Share> {
    settings.share.as_ref().ok_or_else(|| {
        Failure::usage("xtask/db.toml names no store of shared snapshots")
            .hint("add [share] with url = \"s3://BUCKET/PREFIX\"; see docs/sharing.md")
            .into()
    })
}

impl<'a> Vault<'a> {
    /// Opens the store of the settings; `writes` also creates its key.
    ///
    /// # Errors
    ///
    /// The store cannot be reached, or its key cannot be decrypted here.
    pub fn open(share: &'a Share, store: &Store, writes: bool) -> Result<Self> {
        let access = Access {
            url: share.url.clone(),
            settings: BTreeMap::new(),
            named_by: "url in [share]",
        };
        let remote = Remote::open(&access, writes)?;
        let key = match &share.recipients {
            Some(recipients) => Key::load(&remote, recipients, writes)?,
            None => None,
        };
        Ok(Self { share, remote, key, seen: Seen::new(store, &share.url) })
    }

    pub fn url(&self) -> &str {
        &self.share.url
    }

    pub fn is_encrypted(&self) -> bool {
        self.key.is_some()
    }

    /// The bytes that have travelled.
    pub fn bytes(&self) -> u64 {
        self.remote.bytes()
    }

    fn fingerprint(&self) -> Option<String> {
        self.key.as_ref().map(Key::fingerprint)
    }

    /// The newest index; an empty one if nothing was published.
    ///
    /// # Errors
    ///
    /// The store cannot be read, or is not what this client has seen before.
    pub fn index(&self) -> Result<Index> {
        let newest = self.indexes()?.into_iter().max();
        let Some(counter) = newest else {
            // No index has this number.
            if self.remote.get(&index_path(0), MAX_TEXT as u64)?.is_some() {
                return Err(self.no_store().into());
            }
            self.seen.check(0, self.fingerprint().as_deref())?;
            return Ok(Index { version: VERSION, ..Index::default() });
        };
        let path = index_path(counter);
        let sealed = self.remote.get(&path, MAX_TEXT as u64)?.ok_or_else(|| self.lies(&path))?;
        let text = self.unseal(&path, sealed)?;
        let index: Index = serde_json::from_slice(&text).map_err(|_| self.lies(&path))?;
        if index.version != VERSION {
            let what = format!(
                "{} has format {}, which this tool does not know",
                self.url(),
                index.version
            );
            return Err(Failure::new(what).hint("update xtask/").into());
        }
        if index.counter != counter {
            return Err(self.lies(&path).into());
        }
        self.seen.check(counter, self.fingerprint().as_deref())?;
        self.seen.record(counter, self.fingerprint())?;
        Ok(index)
    }

    fn indexes(&self) -> Result<Vec<u64>> {
        let names = self.remote.list("index")?.into_iter();
        Ok(names.filter_map(|(name, ..)| name.strip_prefix("index/")?.parse().ok()).collect())
    }

    /// Replaces the snapshots of the newest index by what `change` makes of it, beside its result; with
    /// `None` nothing. If another client replaces the index meanwhile, `change` is called again.
    ///
    /// # Errors
    ///
    /// Those of `change`, the store cannot be written, or others replace the index again and again.
    pub fn update<T>(
        &self,
        change: impl Fn(&Index) -> Result<(T, Option<Vec<Entry>>)>,
    ) -> Result<T> {
        for _ in 0..TRIES {
            let index = self.index()?;
            let (result, snapshots) = change(&index)?;
            let Some(snapshots) = snapshots else { return Ok(result) };
            if self.replace(&index, snapshots)? {
                return Ok(result);
            }
        }
        Err(Failure::new(format!("others keep publishing to {}", self.url()))
            .hint("run the command again")
            .into())
    }

    /// Replaces `index` by one with these snapshots; returns whether it was still the newest.
    fn replace(&self, index: &Index, snapshots: Vec<Entry>) -> Result<bool> {
        let counter = index.counter + 1;
        let recipients = self.recipients()?;
        if let (Some(key), Some(file)) = (&self.key, &self.share.recipients)
            && recipients != index.recipients
        {
            key.encrypt_again(&self.remote, file)?;
        }
        let new = Index { version: VERSION, counter, recipients, snapshots };
        let path = index_path(counter);
        let sealed = self.seal(&path, serde_json::to_vec(&new)?)?;
        if !self.remote.create(&path, sealed.clone())? {
            return Ok(false);
        }
        // Such as a proxy that answers every request with its own page.
        if self.remote.get(&path, MAX_TEXT as u64)?.as_ref() != Some(&sealed) {
            return Err(self.no_store().into());
        }
        self.seen.record(counter, self.fingerprint())?;
        for old in self.indexes()?.into_iter().filter(|old| old + INDEXES < counter) {
            self.remote.delete(&index_path(old))?;
        }
        Ok(true)
    }

    /// Identifies the recipients that are committed now.
    ///
    /// # Errors
    ///
    /// Their file cannot be read.
    pub fn recipients(&self) -> Result<Option<String>> {
        match (&self.share.recipients, &self.key) {
            (Some(file), Some(_)) => Ok(Some(fs::sha256(file)?)),
            _ => Ok(None),
        }
    }

    /// Stores content as an object, and returns what fetches it.
    ///
    /// # Errors
    ///
    /// The store cannot be written.
    pub fn put(&self, content: &[u8]) -> Result<Part> {
        let compressed = zstd::bulk::compress(content, LEVEL)?;
        let object = self.name(&compressed);
        let path = object_path(&object);
        self.remote.put(&path, self.seal(&path, compressed)?)?;
        Ok(Part { object, bytes: content.len() })
    }

    /// The content of an object, which is at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// The store cannot be read, or has something else.
    pub fn get(&self, part: &Part, limit: usize) -> Result<Vec<u8>> {
        if part.bytes > limit || part.object.len() != 64 || fs::from_hex(&part.object).is_none() {
            return Err(self.lies(&part.object).into());
        }
        let path = object_path(&part.object);
        let sealed = self.remote.get(&path, (part.bytes + SLACK) as u64)?;
        let sealed = sealed.ok_or_else(|| {
            Failure::new(format!("{} has no object {path}", self.url()))
                .hint("a prune may have removed the snapshot: run the command again")
        })?;
        let compressed = self.unseal(&path, sealed)?;
        if self.name(&compressed) != part.object {
            return Err(self.lies(&path).into());
        }
        let content = zstd::bulk::decompress(&compressed, part.bytes);
        let content = content.ok().filter(|content| content.len() == part.bytes);
        Ok(content.ok_or_else(|| self.lies(&path))?)
    }

    /// The content of a part of a database or of a delta.
    ///
    /// # Errors
    ///
    /// Those of [`Self::get`].
    pub fn get_part(&self, part: &Part) -> Result<Vec<u8>> {
        self.get(part, PART)
    }

    /// # Errors
    ///
    /// It is too large, or the store cannot be written.
    pub fn put_manifest(&self, manifest: &impl Serialize) -> Result<Part> {
        let text = serde_json::to_vec(manifest)?;
        if text.len() > MAX_TEXT {
            return Err(Failure::new("the set has too many databases to be shared").into());
        }
        self.put(&text)
    }

    /// # Errors
    ///
    /// The store cannot be read, or has something else.
    pub fn manifest(&self, entry: &Entry) -> Result<Manifest> {
        self.parsed(&entry.manifest)
    }

    fn parsed<T: DeserializeOwned>(&self, part: &Part) -> Result<T> {
        let text = self.get(part, MAX_TEXT)?;
        serde_json::from_slice(&text)
            .with_context(|| Failure::new(format!("{} has a malformed manifest", self.url())))
    }

    /// The names of all objects, their sizes and times.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub fn objects(&self) -> Result<Vec<(String, u64, jiff::Timestamp)>> {
        let objects = self.remote.list("objects")?.into_iter();
        let named = |(path, size, time): (String, u64, jiff::Timestamp)| {
            Some((path.strip_prefix("objects/")?.to_owned(), size, time))
        };
        Ok(objects.filter_map(named).collect())
    }

    /// # Errors
    ///
    /// The store cannot be written.
    pub fn delete(&self, object: &str) -> Result<()> {
        self.remote.delete(&object_path(object))
    }

    /// Marks the store with a name.
    ///
    /// # Errors
    ///
    /// The store cannot be written.
    pub fn mark(&self, name: &str) -> Result<()> {
        self.remote.put(&mark_path(name), Vec::new())
    }

    /// Removes a mark, if that is possible.
    pub fn unmark(&self, name: &str) {
        self.remote.delete_last(&mark_path(name));
    }

    /// The times of all marks.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub fn marks(&self) -> Result<Vec<jiff::Timestamp>> {
        Ok(self.remote.list(MARKS)?.into_iter().map(|(.., time)| time).collect())
    }

    fn name(&self, content: &[u8]) -> String {
        self.key.as_ref().map_or_else(|| fs::sha256_of(content), |key| key.name(content))
    }

    fn seal(&self, path: &str, content: Vec<u8>) -> Result<Vec<u8>> {
        match &self.key {
            Some(key) => key.seal(path, content),
            None => Ok(content),
        }
    }

    fn unseal(&self, path: &str, sealed: Vec<u8>) -> Result<Vec<u8>> {
        match &self.key {
            Some(key) => Ok(key.open(path, sealed).ok_or_else(|| self.lies(path))?),
            None => Ok(sealed),
        }
    }

    fn no_store(&self) -> Failure {
        Failure::new(format!("what answers for {} does not keep what is written there", self.url()))
            .hint("check the network (a proxy, or a page to sign in?) and AWS_ENDPOINT_URL")
    }

    /// What the store has is not what was published.
    pub fn lies(&self, what: &str) -> Failure {
        Failure::new(format!("{what} in {} is not what was published", self.url()))
            .hint("publish again to another url in [share]; nothing was changed here")
    }
}

fn index_path(counter: u64) -> String {
    format!("index/{counter:08}")
}

fn mark_path(name: &str) -> String {
    format!("{MARKS}/{name}")
}

fn object_path(object: &str) -> String {
    format!("objects/{object}")
}
