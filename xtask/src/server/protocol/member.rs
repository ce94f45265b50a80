//! A member of the archive.

use std::io::{self, Read};

use super::{Error, refused};

/// The tar or its compression is truncated or malformed.
pub fn broken(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::Cut,
        _ => refused(error.to_string()),
    }
}

/// The size of `member`, if it is the file `name`.
pub fn expect(member: &tar::Entry<'_, impl Read>, name: &str) -> Result<u64, Error> {
    let header = member.header();
    if !header.entry_type().is_file() || *member.path_bytes() != *name.as_bytes() {
        let found = String::from_utf8_lossy(&member.path_bytes()).into_owned();
        return Err(refused(format!("{found:?} came where the file {name:?} belongs")));
    }
    header.entry_size().map_err(|error| broken(&error))
}
