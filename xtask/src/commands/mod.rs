//! One file per command: its help, its arguments and its steps.

pub mod completions;
pub mod doctor;
pub mod init;
pub mod install_hooks;
pub mod pull_db;
pub mod refresh_fixtures;
pub mod restore_db;
pub mod setup_db;
pub mod snapshots;
pub mod textconv;
