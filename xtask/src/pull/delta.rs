//! What the client of a page delta does: it says what it has of each database,
//! part by part. The other side is `ops-remote/compare.sh`.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use sha3::{Digest as _, Sha3_256};

use crate::snapshots::Database;

/// So many bytes of a file have a hash of their own.
pub const PART: u64 = 1 << 10;
/// So many are compared at a time.
pub const PIECE: u64 = 2 << 20;
/// How many bytes of the sha3-256 of a part are sent. The sha256 of the whole file
/// is the proof: two parts with the same ones only cost that database once more.
const HASH: usize = 4;
/// Each database's hashes are padded to a multiple of so many bytes.
const BLOCK: usize = 64;

/// How many threads make hashes, and how many pieces each is ahead.
const THREADS: usize = 4;
const AHEAD: usize = 512;

/// A database of an earlier pull.
#[derive(Clone, Debug)]
pub struct Base {
    pub path: PathBuf,
    /// As it was when it was pulled.
    pub database: Database,
}

impl Base {
    /// None where the server could not compare anything with it.
    pub fn new(dir: &Path, database: &Database) -> Option<Self> {
        let usable = database.bytes > 0 && database.sha256.is_some() && !database.damaged;
        let path = dir.join(&database.name);
        usable.then(|| Self { path, database: database.clone() })
    }

    /// Its pieces: where each begins, and its length.
    fn pieces(&self) -> impl Iterator<Item = (u64, u64)> + use<> {
        let bytes = self.database.bytes;
        (0..bytes.div_ceil(PIECE)).map(move |i| (i * PIECE, PIECE.min(bytes - i * PIECE)))
    }
}

/// The hashes of all parts of `bases`, in their order, piece by piece: so many as the
/// recorded sizes say. They are made by threads of their own, as they are asked for; of
/// what cannot be read any more they fit nothing.
pub fn hashes(bases: &[Base]) -> impl Iterator<Item = Vec<u8>> + Send + use<> {
    let pieces: Vec<_> = bases
        .iter()
        .flat_map(|base| base.pieces().map(|(offset, bytes)| (base.path.clone(), offset, bytes)))
        .collect();
    let count = pieces.len();
    let pieces = Arc::new(pieces);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    let made: Vec<Receiver<Vec<u8>>> = (0..threads)
        .map(|thread| {
            let (tell, told) = sync_channel(AHEAD);
            let pieces = pieces.clone();
            std::thread::spawn(move || {
                let mut buffer = vec![0; PIECE as usize];
                for (path, offset, bytes) in pieces.iter().skip(thread).step_by(threads) {
                    let piece = &mut buffer[..*bytes as usize];
                    let read = File::open(path).and_then(|file| file.read_exact_at(piece, *offset));
                    // Nobody listens any more when the pull has failed.
                    if tell.send(hashes_of(piece, read.is_ok())).is_err() {
                        return;
                    }
                }
            });
            told
        })
        .collect();
    (0..count).map_while(move |i| made[i % threads].recv().ok())
}

fn hashes_of(piece: &[u8], was_read: bool) -> Vec<u8> {
    let mut hashes = Vec::with_capacity(piece.len() / PART as usize * HASH + BLOCK);
    if was_read {
        for part in piece.chunks(PART as usize) {
            hashes.extend_from_slice(&Sha3_256::digest(part)[..HASH]);
        }
    }
    let size = piece.len().div_ceil(PART as usize) * HASH;
    hashes.resize(size.next_multiple_of(BLOCK), 0);
    hashes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(path: &Path, bytes: u64) -> Base {
        let database = Database {
            name: "a.db".to_owned(),
            bytes,
            sha256: Some(String::new()),
            page_size: 4096,
            user_version: 0,
            schema: String::new(),
            damaged: false,
            unsanitized: false,
            raw: false,
        };
        Base { path: path.to_owned(), database }
    }

    /// As sqlite3 says it: `SELECT hex(substr(sha3(zeroblob(1024)), 1, 4))`.
    const ZEROS: [u8; HASH] = [0x68, 0x41, 0xb2, 0xc1];
    const X: [u8; HASH] = [0x2c, 0x7d, 0x11, 0x0d];
    const ABC: [u8; HASH] = [0x3a, 0x98, 0x5d, 0xa7];

    #[test]
    fn hashes_are_those_of_sqlite_in_order_and_padded() {
        let dir = tempfile::tempdir().unwrap();
        // The last part of the first is short; the second has three pieces and a part.
        let first = [&[0; 1024][..], &[b'x'; 1024], b"abc"].concat();
        let mut second = vec![0; 3 * PIECE as usize + 3];
        second[PIECE as usize..][..1024].fill(b'x');
        second[3 * PIECE as usize..].copy_from_slice(b"abc");
        let bases = [&first, &second, &first].into_iter().enumerate().map(|(i, content)| {
            let path = dir.path().join(i.to_string());
            std::fs::write(&path, content).unwrap();
            base(&path, content.len() as u64)
        });
        let bases: Vec<_> = bases.collect();
        let padded = |mut hashes: Vec<u8>| {
            hashes.resize(hashes.len().next_multiple_of(BLOCK), 0);
            hashes
        };
        let short = padded([ZEROS, X, ABC].concat());
        let in_a_piece = (PIECE / PART) as usize;
        let mut long = ZEROS.repeat(3 * in_a_piece);
        long[in_a_piece * HASH..][..HASH].copy_from_slice(&X);
        long.extend(ABC);
        let made: Vec<_> = hashes(&bases).collect();
        assert!(made.concat() == [short.clone(), padded(long), short].concat());
        let sizes: Vec<_> = made.iter().map(Vec::len).collect();
        assert_eq!(sizes, [64, 8192, 8192, 8192, 64, 64]);
        assert_eq!(hashes(&[]).count(), 0);
    }

    #[test]
    fn what_cannot_be_read_fits_nothing_and_takes_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let (gone, short) = (dir.path().join("gone"), dir.path().join("short"));
        std::fs::write(&short, vec![0; PIECE as usize + 1024]).unwrap();
        let bases = [
            base(&gone, PIECE + 1),
            base(&short, 2 * PIECE),
            base(dir.path(), 1),
            base(&short, PIECE),
        ];
        let made: Vec<_> = hashes(&bases).collect();
        let nothing = |bytes| vec![0; bytes];
        let read = ZEROS.repeat((PIECE / PART) as usize);
        assert!(made[..2] == [nothing(8192), nothing(64)]);
        assert!(made[2..4] == [read.clone(), nothing(8192)]);
        assert!(made[4..] == [nothing(64), read]);
    }
}
