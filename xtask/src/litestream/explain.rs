//! The messages of `litestream` in our words.

use jiff::Timestamp;

use super::replicas::Replica;
use crate::error::Failure;
use crate::objects::explain::explain;
use crate::ui::{escape, quoted};

/// What the program says if there is no replica.
pub const NONE: &str = "no matching backup files available";

/// What it says if a moment cannot be restored.
const NO_MOMENT: [&str; 3] =
    ["timestamp does not exist", "txid does not exist", "transaction not available"];

/// The first and the last moment that can be restored.
pub struct Moments {
    pub first: Timestamp,
    pub last: Timestamp,
}

/// Parts of what it says of a replica that is damaged.
const DAMAGED: [&str; 4] =
    ["non-contiguous", "checksum mismatch", "decode database", "unexpected EOF"];

/// The failure of a restore; `moments` tells what can be restored.
pub fn failure(
    replica: &Replica,
    said: &str,
    at: Option<Timestamp>,
    moments: impl FnOnce() -> Option<Moments>,
) -> Failure {
    let name = escape(&replica.name);
    // It says so too of a moment before the first.
    if let Some(at) = at
        && (said.contains(NONE) || NO_MOMENT.iter().any(|text| said.contains(text)))
        && let Some(Moments { first, last }) = moments()
    {
        let what = format!("{name} cannot be restored as of {at}");
        return Failure::new(format!("{what}: its replica goes from {first} to {last}"))
            .hint(format!("--at \"{first}\" is the earliest that can be restored"));
    }
    if said.contains(NONE) {
        return Failure::new(format!("{name} has no replica at {}", replica.place))
            .hint("check the URL or litestream.yml; litestream ltx lists the parts of a replica");
    }
    let what = format!("{name} cannot be restored");
    if DAMAGED.iter().any(|text| said.contains(text)) {
        let why = format!("its replica lacks a part, or is damaged{}", quoted(said));
        return Failure::new(format!("{what}: {why}"))
            .hint("try an earlier moment with --at, or leave it out with --only; litestream ltx lists its parts");
    }
    if said.contains("no space left") {
        return Failure::new(format!("{what}: the disk is full"))
            .hint("cargo xtask snapshots prune --keep 3");
    }
    explain(&what, said).unwrap_or_else(|| {
        Failure::new(format!("{what}{}", quoted(said)))
            .hint(format!("try by hand: litestream restore -o /tmp/x.db {}", replica.place))
    })
}
