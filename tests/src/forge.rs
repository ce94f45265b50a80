//! Streams like those of the server, valid or not: a test can replace single parts by wrong ones.

use std::io::{self, Read, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

/// A tar pads everything to a multiple of this number of bytes.
pub const TAR_BLOCK: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    Zstd,
    Gzip,
}

pub const CODECS: [Codec; 2] = [Codec::Zstd, Codec::Gzip];

pub fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn sha256(bytes: impl AsRef<[u8]>) -> String {
    hex(Sha256::digest(bytes.as_ref()))
}

/// The ustar header of a member, whatever its kind and size.
pub fn header(name: &[u8], kind: u8, size: u64) -> [u8; TAR_BLOCK] {
    let mut header = [0; TAR_BLOCK];
    header[..name.len()].copy_from_slice(name);
    header[100..107].copy_from_slice(b"0000600");
    header[108..115].copy_from_slice(b"0000000");
    header[116..123].copy_from_slice(b"0000000");
    set_size(&mut header, size);
    header[136..147].copy_from_slice(b"00000000000");
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    set_checksum(&mut header);
    header
}

/// Octal, or binary like GNU tar if the size is too large.
fn set_size(header: &mut [u8; TAR_BLOCK], size: u64) {
    let octal = format!("{size:011o}");
    if octal.len() == 11 {
        header[124..135].copy_from_slice(octal.as_bytes());
    } else {
        header[124] = 0x80;
        header[128..136].copy_from_slice(&size.to_be_bytes());
    }
}

/// To be called after each change of a header.
pub fn set_checksum(header: &mut [u8; TAR_BLOCK]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

/// A header, and data padded to full blocks.
pub fn member(name: &[u8], kind: u8, size: u64, data: &[u8]) -> Vec<u8> {
    let mut bytes = [&header(name, kind, size)[..], data].concat();
    bytes.resize(bytes.len().next_multiple_of(TAR_BLOCK), 0);
    bytes
}

/// A member that is a plain file.
pub fn file(name: &str, data: impl AsRef<[u8]>) -> Vec<u8> {
    let data = data.as_ref();
    member(name.as_bytes(), b'0', data.len() as u64, data)
}

/// `index.json` for databases with these names and sizes; sizes are JSON text.
pub fn index(databases: &[(&[u8], String)]) -> String {
    let list: Vec<_> = databases
        .iter()
        .map(|(name, bytes)| format!(r#"{{"name":"{}","bytes":{bytes}}}"#, hex(name)))
        .collect();
    index_with(&format!("[{}]", list.join(",")))
}

pub fn index_with(databases: &str) -> String {
    format!(
        r#"{{"version":1,"machine":"m1","region":"nrt","sqlite":"3.40.1","databases":{databases}}}"#
    )
}

/// `end.json` for this index and databases with these contents.
pub fn end<T: AsRef<[u8]>>(index: &str, databases: &[T]) -> String {
    let sums: Vec<_> = databases.iter().map(|data| format!("\"{}\"", sha256(data))).collect();
    format!(
        r#"{{"version":1,"sanitized":null,"copy_ms":1,"sanitize_ms":2,"pack_ms":3,"index":"{}","sha256":[{}]}}"#,
        sha256(index),
        sums.join(",")
    )
}

/// The members of a valid stream: index, databases, end record.
pub fn members(databases: &[(&str, Vec<u8>)]) -> Vec<Vec<u8>> {
    let sizes: Vec<_> =
        databases.iter().map(|(name, data)| (name.as_bytes(), data.len().to_string())).collect();
    let index = index(&sizes);
    let contents: Vec<_> = databases.iter().map(|(_, data)| data).collect();
    let files = (0..).zip(&contents).map(|(i, data)| file(&format!("{i}.db"), data));
    let (first, last) = (file("index.json", &index), file("end.json", end(&index, &contents)));
    std::iter::once(first).chain(files).chain([last]).collect()
}

/// The size of a block and of a chunk, in bytes.
const BLOCK: usize = 1 << 10;
const CHUNK: usize = 2 << 20;

/// The chunks of database `i` that differ from its base: a map of a `0` or `1` for each block, and
/// the blocks with a `1`.
pub fn chunks(i: usize, base: &[u8], new: &[u8]) -> Vec<Vec<u8>> {
    let mut members = Vec::new();
    for (k, chunk) in new.chunks(CHUNK).enumerate() {
        let (mut map, mut blocks) = (Vec::new(), Vec::new());
        for (b, block) in chunk.chunks(BLOCK).enumerate() {
            let old = base.get(k * CHUNK + b * BLOCK..).unwrap_or_default();
            let same = old.starts_with(block) && (block.len() == BLOCK || old.len() == block.len());
            map.push(if same { b'0' } else { b'1' });
            blocks.extend_from_slice(if same { b"" } else { block });
        }
        if !blocks.is_empty() {
            members.push(file(&format!("{i}.{k}"), [map, blocks].concat()));
        }
    }
    members
}

/// `index.json` for one database that comes as a delta.
pub fn index_of_delta(name: &str, bytes: &str) -> String {
    let name = hex(name);
    index_with(&format!(r#"[{{"name":"{name}","bytes":{bytes},"delta":true}}]"#))
}

/// `end.json` with the `changed` field.
pub fn end_of_delta<T: AsRef<[u8]>>(index: &str, databases: &[T], changed: &str) -> String {
    let end = end(index, databases);
    end.replacen("\"sha256\"", &format!("\"changed\":{changed},\"sha256\""), 1)
}

/// Two archives in sequence: the last member has its own.
pub fn archives(members: &[Vec<u8>]) -> Vec<u8> {
    let (last, first) = members.split_last().expect("an archive has a member");
    let end = vec![0; 2 * TAR_BLOCK];
    [first.concat(), end.clone(), last.clone(), end].concat()
}

pub fn compress(codec: Codec, mut data: impl Read) -> Vec<u8> {
    match codec {
        Codec::Zstd => {
            let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("zstd begins");
            encoder.include_checksum(true).expect("as the command does it");
            io::copy(&mut data, &mut encoder).expect("it is compressed");
            encoder.finish().expect("zstd ends")
        }
        Codec::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            io::copy(&mut data, &mut encoder).expect("it is compressed");
            encoder.finish().expect("gzip ends")
        }
    }
}

/// The decompressed data at the start of `bytes`, if it is valid.
pub fn decompress(codec: Codec, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    let read = match codec {
        Codec::Zstd => {
            zstd::Decoder::with_buffer(bytes).ok()?.single_frame().read_to_end(&mut data)
        }
        Codec::Gzip => flate2::bufread::GzDecoder::new(bytes).read_to_end(&mut data),
    };
    read.is_ok().then_some(data)
}

/// Everything after the marker.
pub fn stream(codec: Codec, members: &[Vec<u8>]) -> Vec<u8> {
    compress(codec, &archives(members)[..])
}

/// Compressed data that expands to `begin` and then gigabytes of zeros. It has at most a few
/// megabytes, and is made without compressing the zeros.
pub fn bomb(codec: Codec, begin: &[u8], gigabytes: usize) -> Vec<u8> {
    match codec {
        Codec::Zstd => {
            // No length, no checksum, a window of 8 MiB.
            let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x68];
            for raw in begin.chunks(1 << 16) {
                frame.extend_from_slice(&block(0, raw.len()));
                frame.extend_from_slice(raw);
            }
            for _ in 0..gigabytes << 13 {
                frame.extend_from_slice(&block(1, 1 << 17));
                frame.push(0);
            }
            frame
        }
        Codec::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(begin).and_then(|()| encoder.flush()).expect("it is compressed");
            let start = encoder.get_ref().len();
            encoder.write_all(&vec![0; 1 << 20]).expect("it is compressed");
            encoder.flush().expect("it is compressed");
            // A block that ends with a flush, and refers only to zeros before it.
            let first = encoder.get_ref().len();
            encoder.write_all(&vec![0; 1 << 20]).expect("it is compressed");
            encoder.flush().expect("it is compressed");
            let bytes = encoder.get_ref();
            let piece = &bytes[first..];
            [&bytes[..start], &bytes[start..first], &piece.repeat(gigabytes << 10)].concat()
        }
    }
}

/// The header of a block of a zstd frame that is not the last: raw (0) or one byte repeated (1).
fn block(kind: u32, size: usize) -> [u8; 3] {
    let bits = u32::try_from(size << 3).expect("a block is small") | kind << 1;
    let [a, b, c, _] = bits.to_le_bytes();
    [a, b, c]
}
