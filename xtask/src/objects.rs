//! Objects in a bucket or a directory, with the feature `share`; `absent` without it.

#[cfg(not(feature = "share"))]
mod absent;
pub mod access;
pub mod explain;
#[cfg(feature = "share")]
mod place;
#[cfg(feature = "share")]
mod remote;

#[cfg(not(feature = "share"))]
pub use self::absent::Remote;
#[cfg(feature = "share")]
pub use self::remote::Remote;
