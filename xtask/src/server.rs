//! Communication with the server: the connection, the request, the protocol, and the meaning of
//! failures.

pub mod args;
pub mod programs;
pub mod protocol;
pub mod request;
pub mod transport;
