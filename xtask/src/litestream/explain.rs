//! The messages of `litestream` in our words.

use jiff::Timestamp;

use super::replicas::Replica;
use crate::error::Failure;
use crate::server::transport::quoted;
use crate::ui::escape;

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

/// Parts of what it says, what that means, and what to do.
const KNOWN: [(&[&str], &str, &str); 5] = [
    (
        &["non-contiguous", "checksum mismatch", "decode database", "unexpected EOF"],
        "its replica lacks a part, or is damaged",
        "try an earlier moment with --at, or leave it out with --only; litestream ltx lists its parts",
    ),
    (
        &[
            "get credentials",
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "AccessDenied",
            "Forbidden",
            "403",
            "no EC2 IMDS role",
        ],
        "the store refuses these credentials",
        "set LITESTREAM_ACCESS_KEY_ID and LITESTREAM_SECRET_ACCESS_KEY, or AWS_…, to some that may read it",
    ),
    (
        &["NoSuchBucket", "NotFound: bucket", "bucket doesn't exist"],
        "there is no such bucket",
        "check the URL, and the endpoint (AWS_ENDPOINT_URL, or ?endpoint=…)",
    ),
    (
        &[
            "no such host",
            "connection refused",
            "no sign of it",
            "network is unreachable",
            "i/o timeout",
            "request send failed",
        ],
        "the store cannot be reached",
        "check the network and the endpoint (AWS_ENDPOINT_URL, or ?endpoint=…), and run the command again",
    ),
    (&["no space left"], "the disk is full", "cargo xtask snapshots prune --keep 3"),
];

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
    let known = KNOWN.iter().find(|(parts, ..)| parts.iter().any(|part| said.contains(part)));
    match known {
        Some((_, why, hint)) => {
            Failure::new(format!("{name} cannot be restored: {why}{}", quoted(said))).hint(*hint)
        }
        None => Failure::new(format!("{name} cannot be restored{}", quoted(said)))
            .hint(format!("try by hand: litestream restore -o /tmp/x.db {}", replica.place)),
    }
}
