//! Objects in a bucket or a directory, here or there, with the feature `share`; `absent` without it.

#[cfg(not(feature = "share"))]
mod absent;
pub mod access;
#[cfg(feature = "share")]
mod bucket;
pub mod explain;
#[cfg(feature = "share")]
mod kind;
#[cfg(feature = "share")]
mod place;
#[cfg(feature = "share")]
mod remote;
#[cfg(feature = "share")]
mod ssh;

#[cfg(not(feature = "share"))]
pub use self::absent::Remote;
#[cfg(feature = "share")]
pub use self::remote::Remote;
