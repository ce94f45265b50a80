//! The difference of two databases by blocks, as the parts of a delta have it: for each run of
//! changed blocks its offset and its length, and then its bytes.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use super::manifest::PART;
use crate::{fs, interrupt};

/// The bytes that are compared as one.
const BLOCK: usize = 1 << 10;
/// The bytes that are read at a time.
const READ: usize = 1 << 18;
/// The bytes before each run: its offset and its length.
const HEAD: usize = 12;

pub struct Difference {
    /// Of the file and of its base, as they are.
    pub sha256: String,
    pub base: String,
    /// The bytes of the file that its base does not have.
    pub runs: Vec<Range<u64>>,
}

/// Compares a file with a base.
///
/// # Errors
///
/// A file cannot be read.
pub fn compare(path: &Path, base: &Path) -> Result<Difference> {
    let (file, base) = (fs_err::File::open(path)?, fs_err::File::open(base)?);
    let (mut hash, mut base_hash) = (Sha256::new(), Sha256::new());
    let (mut new, mut old) = (vec![0; READ], vec![0; READ]);
    let mut runs: Vec<Range<u64>> = Vec::new();
    let mut at = 0;
    loop {
        interrupt::check()?;
        let n = fs::read_at(file.file(), &mut new, at)?;
        let m = fs::read_at(base.file(), &mut old, at)?;
        hash.update(&new[..n]);
        base_hash.update(&old[..m]);
        if n == 0 && m == 0 {
            break;
        }
        for start in (0..n).step_by(BLOCK) {
            let block = start..(start + BLOCK).min(n);
            if block.end <= m && new[block.clone()] == old[block.clone()] {
                continue;
            }
            let (start, end) = (at + block.start as u64, at + block.end as u64);
            match runs.last_mut() {
                Some(last) if last.end == start && end - last.start <= (PART - HEAD) as u64 => {
                    last.end = end;
                }
                _ => runs.push(start..end),
            }
        }
        at += READ as u64;
    }
    let [sha256, base] = [hash, base_hash].map(|hash| fs::hex(&hash.finalize()));
    Ok(Difference { sha256, base, runs })
}

/// Divides runs into parts of bounded size.
pub fn parts(runs: Vec<Range<u64>>) -> Vec<Vec<Range<u64>>> {
    let mut parts: Vec<Vec<Range<u64>>> = Vec::new();
    let mut room = 0;
    for run in runs {
        let size = HEAD + (run.end - run.start) as usize;
        match parts.last_mut() {
            Some(part) if size <= room => part.push(run),
            _ => {
                parts.push(vec![run]);
                room = PART;
            }
        }
        room -= size;
    }
    parts
}

/// The content of a part.
///
/// # Errors
///
/// The file cannot be read.
pub fn encode(file: &File, runs: &[Range<u64>]) -> Result<Vec<u8>> {
    let mut encoded = Vec::new();
    for run in runs {
        let length = run.end - run.start;
        encoded.extend(run.start.to_le_bytes());
        encoded.extend(u32::try_from(length)?.to_le_bytes());
        let at = encoded.len();
        encoded.resize(at + length as usize, 0);
        file.read_exact_at(&mut encoded[at..], run.start)?;
    }
    Ok(encoded)
}

/// Writes the runs of a part to a file of `bytes`.
///
/// # Errors
///
/// The part is none, or the file cannot be written.
pub fn apply(file: &File, mut part: &[u8], bytes: u64) -> Result<()> {
    while !part.is_empty() {
        let (head, rest) = part.split_at_checked(HEAD).context("a delta is cut")?;
        let (offset, length) = head.split_at(8);
        let offset = u64::from_le_bytes(offset.try_into()?);
        let length = u32::from_le_bytes(length.try_into()?) as usize;
        let (run, rest) = rest.split_at_checked(length).context("a delta is cut")?;
        let end = offset.checked_add(length as u64).filter(|end| *end <= bytes);
        end.context("a delta is of another file")?;
        file.write_all_at(run, offset)?;
        part = rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn assert_applies(old: &[u8], new: &[u8]) {
        let dir = tempfile::tempdir().unwrap();
        let [from, to] = ["old", "new"].map(|name| dir.path().join(name));
        std::fs::write(&from, old).unwrap();
        std::fs::write(&to, new).unwrap();
        let Difference { sha256, base, runs } = compare(&to, &from).unwrap();
        assert_eq!((sha256, base), (fs::sha256_of(new), fs::sha256_of(old)));
        let changed: u64 = runs.iter().map(|run| run.end - run.start).sum();
        assert!(old != new || changed == 0);
        let source = File::open(&to).unwrap();
        let target = fs::open(&from).unwrap();
        target.set_len(new.len() as u64).unwrap();
        for part in parts(runs) {
            let encoded = encode(&source, &part).unwrap();
            assert!(encoded.len() <= PART);
            apply(&target, &encoded, new.len() as u64).unwrap();
        }
        assert!(std::fs::read(&from).unwrap() == new);
    }

    #[test]
    fn a_large_difference_is_divided() {
        let new: Vec<u8> = (0..5 * PART + 700).map(|i| (i / 1000) as u8).collect();
        assert_applies(&[], &new);
        assert_applies(&new, &new[..PART + 1]);
        assert_applies(&new[..PART + 1], &new);
    }

    #[test]
    fn a_part_writes_nothing_outside_of_its_file() {
        let file = tempfile::tempfile().unwrap();
        let run = |offset: u64, length: u32| {
            [&offset.to_le_bytes()[..], &length.to_le_bytes(), b"abcd"].concat()
        };
        apply(&file, &run(4, 4), 8).unwrap();
        for part in [run(5, 4), run(u64::MAX, 4), run(0, 5), run(0, 4)[..7].to_vec()] {
            assert!(apply(&file, &part, 8).is_err());
        }
        assert_eq!(file.metadata().unwrap().len(), 8);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]

        #[test]
        fn a_delta_makes_the_file(
            old in prop::collection::vec(0..3u8, 0..12),
            new in prop::collection::vec(0..3u8, 0..12),
            end in 0..1500usize,
        ) {
            let [old, new] = [old, new].map(|blocks| -> Vec<u8> {
                blocks.into_iter().flat_map(|block| [block; 700]).collect()
            });
            assert_applies(&old, &new[..new.len().saturating_sub(end)]);
        }
    }
}
