//! Reads what `strace -f -y -xx` has printed.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

/// A call that has succeeded.
#[derive(Debug)]
pub struct Call {
    pub name: String,
    args: Vec<String>,
    result: String,
}

/// All calls, in the order in which they ended.
pub fn parse(trace: &str) -> Vec<Call> {
    let mut begun: BTreeMap<&str, String> = BTreeMap::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let Some((thread, text)) = line.split_once(' ') else { continue };
        let text = text.trim_start();
        if let Some(start) = text.strip_suffix(" <unfinished ...>") {
            begun.insert(thread, start.to_owned());
        } else if let Some((_, end)) = text.split_once(" resumed>") {
            let start = begun.remove(thread).unwrap_or_default();
            calls.extend(Call::parse(&(start + end)));
        } else {
            calls.extend(Call::parse(text));
        }
    }
    calls
}

impl Call {
    /// Nothing for one that has failed, and for what is no call.
    fn parse(text: &str) -> Option<Call> {
        // Short lines have more blanks.
        let (call, result) = text.rsplit_once(" = ")?;
        let (name, args) = call.trim_end().strip_suffix(')')?.split_once('(')?;
        let result = result.trim();
        if result.starts_with('-') || result.starts_with('?') {
            return None;
        }
        let args = args.trim_end().split(", ").map(str::to_owned).collect();
        Some(Call { name: name.to_owned(), args, result: result.to_owned() })
    }

    fn arg(&self, i: usize) -> &str {
        self.args.get(i).map_or("", String::as_str)
    }

    pub fn has(&self, i: usize, flag: &str) -> bool {
        self.arg(i).split('|').any(|given| given == flag)
    }

    pub fn number(&self, i: usize) -> u64 {
        self.arg(i).parse().unwrap_or_else(|_| panic!("argument {i} of {self:?} is no number"))
    }

    pub fn returned(&self) -> u64 {
        let digits: String = self.result.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().expect("a number")
    }

    /// The descriptor that is an argument.
    pub fn descriptor(&self, i: usize) -> u64 {
        let digits: String = self.arg(i).chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(u64::MAX)
    }

    pub fn is_null(&self, i: usize) -> bool {
        self.arg(i) == "NULL"
    }

    /// An offset that is given as `[4096]`, or as `[4096 => 8192]`.
    pub fn offset(&self, i: usize) -> usize {
        let text = self.arg(i).trim_start_matches('[');
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().expect("an offset")
    }

    /// The bytes of a string.
    pub fn bytes(&self, i: usize) -> Vec<u8> {
        let text = self.arg(i);
        assert!(text.starts_with('"') && text.ends_with('"'), "{} is cut: {text:.80}", self.name);
        unhex(text.trim_matches('"'))
    }

    /// The path of the descriptor that is an argument.
    pub fn open_path(&self, i: usize) -> Option<PathBuf> {
        between(self.arg(i))
    }

    /// The path of the descriptor that was returned.
    pub fn opened_path(&self) -> Option<PathBuf> {
        between(&self.result)
    }

    /// The path that is an argument, below the directory that is the argument before it, if that is one.
    pub fn path(&self, i: usize) -> PathBuf {
        let path = path_of(self.bytes(i));
        let parent = i.checked_sub(1).and_then(|before| between(self.arg(before)));
        parent.map_or(path.clone(), |parent| parent.join(path))
    }
}

fn between(text: &str) -> Option<PathBuf> {
    let (_, path) = text.split_once('<')?;
    Some(path_of(unhex(path.split_once('>')?.0)))
}

fn path_of(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// `\x41\x42` and, between, what is as it is.
fn unhex(text: &str) -> Vec<u8> {
    let text = text.as_bytes();
    let (mut bytes, mut at) = (Vec::with_capacity(text.len() / 4), 0);
    while at < text.len() {
        let digits = text.get(at + 2..at + 4).filter(|_| text[at..].starts_with(b"\\x"));
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                at += 4;
            }
            None => {
                bytes.push(text[at]);
                at += 1;
            }
        }
    }
    bytes
}
