//! What is measured of `pull-db`.

pub mod flows;
pub mod plot;
pub mod report;
pub mod server;
pub mod source;
pub mod watch;
pub mod writers;
