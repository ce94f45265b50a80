//! One pull: spec → connect → receive → verify → report.

pub mod attempts;
pub mod base;
pub mod delta;
pub mod effects;
pub mod error;
mod incoming;
pub mod receive;
mod remote_status;
pub mod report;
pub mod session;
pub mod spec;
mod verify;
