//! Secrets that can be found in any file by every eight bytes of them.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::store::modes;

/// The windows of all secrets, in lower case, because full-text indexes store lower case.
#[derive(Clone, Default)]
pub struct Secrets {
    windows: HashSet<u64>,
    /// A bit per hash of a window, which excludes most bytes quickly.
    filter: Vec<u64>,
    count: usize,
}

/// The number of bits of the filter, as a power of two.
const FILTER_BITS: u32 = 24;

impl Secrets {
    pub fn add(&mut self, secret: &str) {
        self.filter.resize(1 << (FILTER_BITS - 6), 0);
        self.count += 1;
        for bytes in secret.to_ascii_lowercase().as_bytes().windows(8) {
            let window = u64::from_be_bytes(bytes.try_into().expect("eight bytes"));
            let bit = bit(window);
            self.filter[bit >> 6] |= 1 << (bit & 63);
            self.windows.insert(window);
        }
    }

    /// The number of secrets.
    pub fn count(&self) -> usize {
        self.count
    }

    fn has(&self, window: u64) -> bool {
        let bit = bit(window);
        !self.filter.is_empty()
            && self.filter[bit >> 6] & (1 << (bit & 63)) != 0
            && self.windows.contains(&window)
    }

    /// The windows that `bytes` contain, each with its offset; also in UTF-16, in which every
    /// second byte of these letters is zero.
    pub fn found_in(&self, bytes: &[u8]) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        let (mut narrow, mut wide) = (0_u64, [0_u64; 2]);
        for (at, byte) in bytes.iter().enumerate() {
            let byte = u64::from(byte.to_ascii_lowercase());
            narrow = narrow << 8 | byte;
            let wide = &mut wide[at & 1];
            if at > 0 && bytes[at - 1] != 0 {
                *wide = 0;
            }
            *wide = *wide << 8 | byte;
            for window in [narrow, *wide] {
                if self.has(window) {
                    let text = String::from_utf8_lossy(&window.to_be_bytes()).into_owned();
                    found.push((at, text));
                }
            }
        }
        found
    }

    #[track_caller]
    pub fn assert_not_in(&self, what: &str, bytes: &[u8]) {
        let found = self.found_in(bytes);
        let first = &found[..found.len().min(5)];
        assert!(found.is_empty(), "{} pieces of secrets are in {what}: {first:?}", found.len());
    }

    /// Reads each file below a directory, except for those below `except`.
    #[track_caller]
    pub fn assert_not_below(&self, directory: &Path, except: &[PathBuf]) {
        for (path, _) in modes(directory) {
            if path.is_file() && !except.iter().any(|except| path.starts_with(except)) {
                let bytes = fs::read(&path).expect("read a file");
                self.assert_not_in(&path.display().to_string(), &bytes);
            }
        }
    }
}

fn bit(window: u64) -> usize {
    (window.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - FILTER_BITS)) as usize
}

/// Random values, the same for the same seed.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Less than `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) as usize % limit
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    pub fn letters(&mut self, count: usize) -> String {
        const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        (0..count).map(|_| char::from(self.pick(LETTERS))).collect()
    }

    /// A new secret of usual length, which is added to `secrets`.
    pub fn secret(&mut self, secrets: &mut Secrets) -> String {
        let bytes = 24 + self.below(37);
        self.long_secret(secrets, bytes)
    }

    pub fn long_secret(&mut self, secrets: &mut Secrets, bytes: usize) -> String {
        let secret = self.letters(bytes);
        secrets.add(&secret);
        secret
    }

    /// A secret of several lines; the first and the last one are not secret.
    pub fn key(&mut self, secrets: &mut Secrets) -> String {
        let lines: Vec<String> = (0..12).map(|_| self.letters(64)).collect();
        let lines = lines.join("\n");
        secrets.add(&lines);
        format!("-----BEGIN PRIVATE KEY-----\n{lines}\n-----END PRIVATE KEY-----\n")
    }
}
