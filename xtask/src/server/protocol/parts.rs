//! Parts of a database, which become it together with those of its base.

use std::io::Read;
use std::ops::Range;

use super::member::{broken, expect};
use super::{Error, IndexEntry, Sink, refused};
use crate::pull::delta::{PART, PIECE};

/// Which piece of database `i` a member is.
pub fn piece_of(entry: &tar::Entry<'_, impl Read>, i: usize) -> Option<u64> {
    let name = entry.path_bytes();
    let piece = std::str::from_utf8(&name).ok()?.strip_prefix(&format!("{i}."))?.parse().ok()?;
    (*name == *format!("{i}.{piece}").as_bytes()).then_some(piece)
}

/// A database that is put together.
pub struct Parts<'a, F> {
    announced: &'a IndexEntry,
    /// The first piece that may come.
    next: u64,
    file: F,
}

impl<'a, F> Parts<'a, F> {
    /// `file` is its base.
    pub fn new(announced: &'a IndexEntry, file: F) -> Self {
        Self { announced, next: 0, file }
    }

    /// A piece is a map, of a `0` or `1` for each of its parts, and the parts with a `1`.
    pub fn take(
        &mut self,
        entry: &mut tar::Entry<'_, impl Read>,
        piece: u64,
        sink: &mut impl Sink<File = F>,
    ) -> Result<(), Error> {
        let name = format!("piece {piece} of {:?}", self.announced.name);
        let start = piece.saturating_mul(PIECE);
        if piece < self.next || start >= self.announced.bytes {
            return Err(refused(format!("{name} came where it does not belong")));
        }
        let end = self.announced.bytes.min(start.saturating_add(PIECE));
        let size = expect(entry, &String::from_utf8_lossy(&entry.path_bytes()))?;
        let malformed = || refused(format!("{name} is malformed"));
        let mut map = vec![0; (end - start).div_ceil(PART) as usize];
        // Its own end would pass for that of the stream.
        if size < map.len() as u64 {
            return Err(malformed());
        }
        entry.read_exact(&mut map).map_err(|error| broken(&error))?;
        let offsets = |i: usize| {
            let offset = start + i as u64 * PART;
            offset..end.min(offset.saturating_add(PART))
        };
        let runs: Vec<_> =
            runs(&map).map(|run| offsets(run.start).start..offsets(run.end - 1).end).collect();
        let sum: u64 = runs.iter().map(|run| run.end - run.start).sum();
        if map.iter().any(|mark| !b"01".contains(mark)) || size != map.len() as u64 + sum {
            return Err(malformed());
        }
        let mut buffer = Vec::new();
        for run in runs {
            buffer.resize((run.end - run.start) as usize, 0);
            entry.read_exact(&mut buffer).map_err(|error| broken(&error))?;
            sink.patch(&mut self.file, run.start, &buffer).map_err(Error::Local)?;
        }
        sink.advance(end - self.next * PIECE);
        self.next = piece + 1;
        Ok(())
    }

    /// No more pieces come: the rest is as it is in the base.
    pub fn finish(self, sink: &mut impl Sink<File = F>) -> Result<(), Error> {
        sink.advance(self.announced.bytes.saturating_sub(self.next.saturating_mul(PIECE)));
        sink.finish(self.announced, self.file).map_err(Error::Local)
    }
}

/// The stretches of `1` in a map.
fn runs(map: &[u8]) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut at = 0;
    map.chunk_by(|a, b| a == b).filter_map(move |chunk| {
        at += chunk.len();
        (chunk[0] == b'1').then_some(at - chunk.len()..at)
    })
}
