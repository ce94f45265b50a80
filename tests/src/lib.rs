//! The harness of the end-to-end tests: a realistic production on this machine, in temporary
//! directories.

pub mod app;
pub mod binaries;
pub mod container;
pub mod databases;
pub mod delta;
pub mod developer;
pub mod disk;
pub mod docs;
pub mod env;
pub mod faults;
pub mod fixtures;
pub mod forge;
pub mod hook_managers;
pub mod hooks;
pub mod http;
pub mod impostor;
pub mod leaky;
pub mod link;
pub mod load;
pub mod long;
pub mod output;
pub mod planted;
pub mod process;
pub mod proof;
pub mod pty;
pub mod pull;
pub mod python;
pub mod secrets;
pub mod server;
pub mod sets;
pub mod shells;
pub mod sqlite3;
pub mod store;
pub mod tree;
pub mod world;
