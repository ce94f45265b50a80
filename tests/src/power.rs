//! Power cuts: what a command writes is recorded, and what a file system may have of it after a
//! power cut at any call is made again, a state at a time.
//!
//! A state has everything that was synced, and any part of the rest: `states` says which parts.

mod calls;
mod disk;
mod recording;
mod states;

pub use self::calls::{Call, parse};
pub use self::recording::{Recording, record};
pub use self::states::State;
