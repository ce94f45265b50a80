//! What is measured of `refresh-fixtures`.

pub mod cuts;
pub mod hook;
pub mod naive;
pub mod report;
pub mod source;
