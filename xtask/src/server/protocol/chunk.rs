//! A chunk of a database: a map, and the blocks that differ from the base.

use std::collections::VecDeque;
use std::io::Read;
use std::ops::Range;

use super::member::{broken, expect};
use super::{Error, IndexEntry, refused};
use crate::pull::delta::{BLOCK, CHUNK};

/// The number of the chunk of database `i` in this member.
pub fn number(member: &tar::Entry<'_, impl Read>, i: usize) -> Option<u64> {
    let name = member.path_bytes();
    let chunk = std::str::from_utf8(&name).ok()?.strip_prefix(&format!("{i}."))?.parse().ok()?;
    (*name == *format!("{i}.{chunk}").as_bytes()).then_some(chunk)
}

/// Reads the map at the start of `member`, a `0` or `1` for each block; returns the ranges in the
/// database of the blocks with a `1`, which follow in the member.
///
/// # Errors
///
/// The member is not a chunk of `database`.
pub fn read_map(
    member: &mut tar::Entry<'_, impl Read>,
    chunk: u64,
    database: &IndexEntry,
) -> Result<VecDeque<Range<u64>>, Error> {
    let name = format!("chunk {chunk} of {:?}", database.name);
    let start = chunk.saturating_mul(CHUNK);
    if start >= database.bytes {
        return Err(refused(format!("{name} came where it does not belong")));
    }
    let end = database.bytes.min(start.saturating_add(CHUNK));
    let size = expect(member, &String::from_utf8_lossy(&member.path_bytes()))?;
    let malformed = || refused(format!("{name} is malformed"));
    let mut map = vec![0; (end - start).div_ceil(BLOCK) as usize];
    // A short member would look like the end of the stream.
    if size < map.len() as u64 {
        return Err(malformed());
    }
    member.read_exact(&mut map).map_err(|error| broken(&error))?;
    let offsets = |i: usize| {
        let offset = start + i as u64 * BLOCK;
        offset..end.min(offset.saturating_add(BLOCK))
    };
    let runs: VecDeque<_> =
        runs(&map).map(|run| offsets(run.start).start..offsets(run.end - 1).end).collect();
    let sum: u64 = runs.iter().map(|run| run.end - run.start).sum();
    if map.iter().any(|mark| !b"01".contains(mark)) || size != map.len() as u64 + sum {
        return Err(malformed());
    }
    Ok(runs)
}

/// The runs of `1` in a map.
fn runs(map: &[u8]) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut at = 0;
    map.chunk_by(|a, b| a == b).filter_map(move |run| {
        at += run.len();
        (run[0] == b'1').then_some(at - run.len()..at)
    })
}
