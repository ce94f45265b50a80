//! All that talks to the other machine: how a command runs there, what is asked of it, what it
//! sends, and what its failures mean.

pub mod programs;
pub mod protocol;
pub mod request;
pub mod transport;
