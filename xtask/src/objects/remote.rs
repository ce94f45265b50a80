//! A place with objects: a bucket, a directory, or a directory that ssh reaches.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use jiff::Timestamp;

use super::access::Access;
use super::bucket::Bucket;
use super::kind::{Found, Objects};
use super::ssh::Ssh;
use crate::error::Failure;

pub struct Remote {
    objects: Box<dyn Objects>,
    access: Access,
    bytes: AtomicU64,
}

impl Remote {
    /// Opens the place; `writes` also creates its directory.
    ///
    /// # Errors
    ///
    /// It is no directory, there are no credentials, or it cannot be reached.
    pub fn open(access: &Access, writes: bool) -> Result<Self> {
        let objects: Box<dyn Objects> = match access.parts().0 {
            "ssh" => Box::new(Ssh::open(access, writes)?),
            _ => Box::new(Bucket::open(access, writes)?),
        };
        Ok(Self { objects, access: access.clone(), bytes: AtomicU64::new(0) })
    }

    /// The bytes of the objects that were read and written.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn count(&self, size: usize) {
        self.bytes.fetch_add(size as u64, Ordering::Relaxed);
    }

    /// An object of at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is larger.
    pub fn get(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        match self.objects.get(path, limit)? {
            None => Ok(None),
            Some(Found::Content(content)) => {
                self.count(content.len());
                Ok(Some(content))
            }
            Some(Found::TooLarge(size)) => {
                let what = format!("{path} in {} has {size} bytes", self.access.shown());
                let hint = format!("it is not what was published: check {}", self.access.named_by);
                Err(Failure::new(what).hint(hint).into())
            }
        }
    }

    /// # Errors
    ///
    /// It cannot be written.
    pub fn put(&self, path: &str, content: Vec<u8>) -> Result<()> {
        let size = content.len();
        self.objects.put(path, content)?;
        self.count(size);
        Ok(())
    }

    /// Writes an object unless there is one; returns whether it did.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn create(&self, path: &str, content: Vec<u8>) -> Result<bool> {
        let size = content.len();
        let created = self.objects.create(path, content)?;
        self.count(size);
        Ok(created)
    }

    /// The objects below a path, each with its size and time.
    ///
    /// # Errors
    ///
    /// They cannot be listed.
    pub fn list(&self, path: &str) -> Result<Vec<(String, u64, Timestamp)>> {
        let known = self.objects.list(path)?.into_iter();
        known.map(|(name, size, time)| Ok((name, size, Timestamp::from_second(time)?))).collect()
    }

    /// The names of what is directly below a path and has objects below it.
    ///
    /// # Errors
    ///
    /// They cannot be listed.
    pub fn directories(&self, path: &str) -> Result<Vec<String>> {
        self.objects.directories(path)
    }

    /// Deletes an object also if this process is asked to end; failures do not matter.
    pub fn delete_last(&self, path: &str) {
        self.objects.delete_last(path);
    }

    /// # Errors
    ///
    /// It cannot be deleted.
    pub fn delete(&self, path: &str) -> Result<()> {
        self.objects.delete(path)
    }
}
