//! What `init` finds in a repository and on the server, and the settings that it makes of it.

pub mod apps;
pub mod extend;
mod files;
pub mod ignore;
mod passwords;
pub mod propose;
pub mod servers;
pub mod survey;
mod surveyed;
pub mod tables;
