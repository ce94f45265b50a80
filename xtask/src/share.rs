//! Snapshots that leave this machine, or come from another one.

pub mod file;
pub mod portable;
