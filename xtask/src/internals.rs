//! The internals that this repository's tests, benchmarks and fuzz targets use. Not a stable API:
//! it changes without notice.

pub use crate::cli::exit_code;
pub use crate::invocation::assume_usual;

pub mod audit {
    pub use crate::sanitize::audit::Finding;
}
pub mod durable {
    pub use crate::fs::{create, hex, remove, rename, sha256, write, write_shared};
}
pub mod error {
    pub use crate::error::Failure;
}
pub mod interrupt {
    pub use crate::interrupt::{check, output, prefer_interrupt, run, sleep, watch};
}
pub mod live {
    pub use crate::live::State;
}
pub mod pages {
    pub use crate::pages::same_content;
}
pub mod programs {
    pub use crate::server::programs::find;
}
pub mod random {
    pub use crate::fixtures::random::Sequence;
}
pub mod resources {
    pub use crate::resources::{ResourceUsage, peak};
}
pub mod settings {
    pub use crate::config::NamePattern;
}
pub mod snapshots {
    pub use crate::snapshots::{
        Database, Kind, LockedStore, Meta, Origin, Snapshot, Store, find, prune_plan,
    };
}
pub mod sqlite {
    pub use crate::sql::identifier;
    pub use crate::sqlite::{check, describe, open_closed, open_existing};
}
pub mod stream {
    pub use crate::server::protocol::{
        Archive, Content, Error, Event, Index, IndexEntry, Marker, Preamble, PreambleEvent,
        Received, archive_place, planned_bytes,
    };
}
pub mod ui {
    pub use crate::ui::{Ui, bytes, count};
}
