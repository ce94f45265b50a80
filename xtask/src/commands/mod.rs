//! One file a command: its help, its arguments, and the plan of its run.

pub mod install_hooks;
pub mod pull_db;
pub mod refresh_fixtures;
pub mod restore_db;
pub mod setup_db;
pub mod snapshots;
pub mod textconv;
