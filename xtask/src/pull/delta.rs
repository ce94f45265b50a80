//! The client's side of a page delta: sends the hash of each block of a base. The server's side is
//! `ops-remote/compare.sh`.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use sha3::{Digest as _, Sha3_256};

use crate::pull::base::Base;

/// Bytes of a file that share one hash.
pub const BLOCK: u64 = 1 << 10;
/// Bytes that are compared at a time.
pub const CHUNK: u64 = 2 << 20;
/// Bytes of the hash that are sent per block. A collision does no harm: the sha256 of the whole
/// file does not match then, and the database is sent again.
const HASH: usize = 4;
/// The hashes of each database are padded to a multiple of this number of bytes.
const GROUP: usize = 64;

/// How blocks are hashed: the server chooses what its sqlite3 computes fastest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockHash {
    Sha3,
    Crc32,
}

impl BlockHash {
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "sha3" => Some(Self::Sha3),
            "crc32" => Some(Self::Crc32),
            _ => None,
        }
    }

    fn of_block(self, block: &[u8]) -> [u8; HASH] {
        match self {
            Self::Sha3 => {
                let hash = Sha3_256::digest(block);
                [hash[0], hash[1], hash[2], hash[3]]
            }
            // As a ZIP file has it.
            Self::Crc32 => crc32fast::hash(block).to_le_bytes(),
        }
    }
}

/// The number of hashing threads, and the number of chunks that each may be ahead.
const THREADS: usize = 4;
const AHEAD: usize = 512;

/// The hashes of all blocks of `bases`, in order, chunk by chunk, as many as the recorded sizes
/// require. Threads compute them on demand. Chunks that cannot be read get hashes that match no
/// block.
pub fn hashes(bases: &[&Base], kind: BlockHash) -> impl Iterator<Item = Vec<u8>> + Send + use<> {
    let chunks: Vec<_> = bases
        .iter()
        .flat_map(|base| {
            chunks(base.database.bytes).map(|(offset, bytes)| (base.path.clone(), offset, bytes))
        })
        .collect();
    let count = chunks.len();
    let chunks = Arc::new(chunks);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    let made: Vec<Receiver<Vec<u8>>> = (0..threads)
        .map(|thread| {
            let (tell, told) = sync_channel(AHEAD);
            let chunks = chunks.clone();
            std::thread::spawn(move || {
                let mut buffer = vec![0; CHUNK as usize];
                for (path, offset, bytes) in chunks.iter().skip(thread).step_by(threads) {
                    let chunk = &mut buffer[..*bytes as usize];
                    let read = File::open(path).and_then(|file| file.read_exact_at(chunk, *offset));
                    // The receiver is gone if the pull has failed.
                    if tell.send(hashes_of(chunk, read.is_ok(), kind)).is_err() {
                        return;
                    }
                }
            });
            told
        })
        .collect();
    (0..count).map_while(move |i| made[i % threads].recv().ok())
}

/// The offset and the length of each chunk of a file.
fn chunks(bytes: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..bytes.div_ceil(CHUNK)).map(move |i| (i * CHUNK, CHUNK.min(bytes - i * CHUNK)))
}

fn hashes_of(chunk: &[u8], was_read: bool, kind: BlockHash) -> Vec<u8> {
    let mut hashes = Vec::with_capacity(chunk.len() / BLOCK as usize * HASH + GROUP);
    if was_read {
        for block in chunk.chunks(BLOCK as usize) {
            hashes.extend(kind.of_block(block));
        }
    }
    let size = chunk.len().div_ceil(BLOCK as usize) * HASH;
    hashes.resize(size.next_multiple_of(GROUP), 0);
    hashes
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::snapshots::Database;

    fn base(path: &Path, bytes: u64) -> Base {
        let database = Database {
            name: "a.db".to_owned(),
            bytes,
            sha256: Some(String::new()),
            page_size: 4096,
            ..Database::default()
        };
        Base { path: path.to_owned(), database, boot: None, scrubbed: false }
    }

    /// Printed by sqlite3: `SELECT hex(substr(sha3(zeroblob(1024)), 1, 4))`.
    const ZEROS: [u8; HASH] = [0x68, 0x41, 0xb2, 0xc1];
    const X: [u8; HASH] = [0x2c, 0x7d, 0x11, 0x0d];
    const ABC: [u8; HASH] = [0x3a, 0x98, 0x5d, 0xa7];

    #[test]
    fn hashes_are_those_of_sqlite_in_order_and_padded() {
        let dir = tempfile::tempdir().unwrap();
        // The last block of the first base is short; the second has three chunks and a block.
        let first = [&[0; 1024][..], &[b'x'; 1024], b"abc"].concat();
        let mut second = vec![0; 3 * CHUNK as usize + 3];
        second[CHUNK as usize..][..1024].fill(b'x');
        second[3 * CHUNK as usize..].copy_from_slice(b"abc");
        let bases = [&first, &second, &first].into_iter().enumerate().map(|(i, content)| {
            let path = dir.path().join(i.to_string());
            std::fs::write(&path, content).unwrap();
            base(&path, content.len() as u64)
        });
        let bases: Vec<_> = bases.collect();
        let padded = |mut hashes: Vec<u8>| {
            hashes.resize(hashes.len().next_multiple_of(GROUP), 0);
            hashes
        };
        let short = padded([ZEROS, X, ABC].concat());
        let in_a_chunk = (CHUNK / BLOCK) as usize;
        let mut long = ZEROS.repeat(3 * in_a_chunk);
        long[in_a_chunk * HASH..][..HASH].copy_from_slice(&X);
        long.extend(ABC);
        let made: Vec<_> = hashes(&bases.iter().collect::<Vec<_>>(), BlockHash::Sha3).collect();
        assert!(made.concat() == [short.clone(), padded(long), short].concat());
        let sizes: Vec<_> = made.iter().map(Vec::len).collect();
        assert_eq!(sizes, [64, 8192, 8192, 8192, 64, 64]);
        assert_eq!(hashes(&[], BlockHash::Crc32).count(), 0);
    }

    #[test]
    fn what_cannot_be_read_fits_nothing_and_takes_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let (gone, short) = (dir.path().join("gone"), dir.path().join("short"));
        std::fs::write(&short, vec![0; CHUNK as usize + 1024]).unwrap();
        let bases = [
            base(&gone, CHUNK + 1),
            base(&short, 2 * CHUNK),
            base(dir.path(), 1),
            base(&short, CHUNK),
        ];
        let made: Vec<_> = hashes(&bases.iter().collect::<Vec<_>>(), BlockHash::Sha3).collect();
        let nothing = |bytes| vec![0; bytes];
        let read = ZEROS.repeat((CHUNK / BLOCK) as usize);
        assert!(made[..2] == [nothing(8192), nothing(64)]);
        assert!(made[2..4] == [read.clone(), nothing(8192)]);
        assert!(made[4..] == [nothing(64), read]);
    }
}
