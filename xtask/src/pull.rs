//! One pull, from what is asked for to what is said of it.

pub mod delta;
pub mod receive;
pub mod report;
pub mod spec;
