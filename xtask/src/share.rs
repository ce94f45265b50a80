//! Snapshots that leave this machine, or come from another one.

#[cfg(not(feature = "share"))]
mod absent;
mod blocks;
pub mod fetch;
pub mod file;
mod guard;
#[cfg(feature = "share")]
mod key;
mod manifest;
pub mod portable;
pub mod prune;
pub mod publish;
pub mod report;
mod seen;
pub mod vault;
