//! What each kind of place can do.

use anyhow::Result;

pub enum Found {
    Content(Vec<u8>),
    /// Of this size.
    TooLarge(u64),
}

/// Paths have no leading slash.
pub trait Objects: Send + Sync {
    fn get(&self, path: &str, limit: u64) -> Result<Option<Found>>;
    fn put(&self, path: &str, content: Vec<u8>) -> Result<()>;
    fn create(&self, path: &str, content: Vec<u8>) -> Result<bool>;
    /// Each with its size and time.
    fn list(&self, path: &str) -> Result<Vec<(String, u64, i64)>>;
    fn directories(&self, path: &str) -> Result<Vec<String>>;
    fn delete(&self, path: &str) -> Result<()>;
    /// Also while this process ends.
    fn delete_last(&self, path: &str);
}
