//! A marked block of lines in a file of the user: all other bytes stay as they are.

use std::ops::Range;

/// The markers are comments both in sh and in gitattributes.
pub const START: &str = "# >>> cargo xtask install-hooks >>>";
pub const END: &str = "# <<< cargo xtask install-hooks <<<";

/// The range of the block, its markers included. `Err` unless there is exactly one start, followed
/// by one end.
pub fn find(content: &[u8]) -> Result<Option<Range<usize>>, ()> {
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    let mut at = 0;
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        let words = line.trim_ascii();
        if words == START.as_bytes() {
            starts.push(at);
        }
        at += line.len();
        if words == END.as_bytes() {
            ends.push(at);
        }
    }
    match (&starts[..], &ends[..]) {
        ([], []) => Ok(None),
        ([start], [end]) if start < end => Ok(Some(*start..*end)),
        _ => Err(()),
    }
}

/// The content with `block` in place of the old one, else at `new`, which is the start of a line or
/// the end of the content.
pub fn put(content: &[u8], old: Option<Range<usize>>, new: usize, block: &str) -> Vec<u8> {
    let place = old.unwrap_or(new..new);
    let (before, after) = (&content[..place.start], &content[place.end..]);
    // If the file has no newline at its end, it gets none: the block becomes the unended last line.
    let unended = !before.is_empty() && !before.ends_with(b"\n");
    let replaces_unended = !place.is_empty() && !content[..place.end].ends_with(b"\n");
    let mut out = before.to_owned();
    if unended {
        out.push(b'\n');
    }
    let block = if unended || replaces_unended { block.trim_end() } else { block };
    out.extend_from_slice(block.as_bytes());
    out.extend_from_slice(after);
    out
}

/// The content without its block.
pub fn remove(content: &[u8], place: Range<usize>) -> Vec<u8> {
    let mut before = &content[..place.start];
    if !content[..place.end].ends_with(b"\n") {
        before = before.strip_suffix(b"\n").unwrap_or(before);
    }
    [before, &content[place.end..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(body: &str) -> String {
        format!("{START}\n{body}\n{END}\n")
    }

    #[test]
    fn what_is_around_the_block_stays_byte_for_byte() {
        for (content, at) in [
            (&b""[..], 0),
            (b"a", 0),
            (b"a\n", 2),
            (b"#!/bin/sh", 9),
            (b"#!/bin/sh\n\n\xff\xfe\r\nb", 10),
        ] {
            let first = put(content, find(content).unwrap(), at, &block("one"));
            let found = find(&first).unwrap().unwrap();
            assert_eq!(remove(&first, found.clone()), content);
            let second = put(&first, Some(found), at, &block("two"));
            assert!(second.windows(3).any(|window| window == b"two"));
            let found = find(&second).unwrap().unwrap();
            assert_eq!(remove(&second, found), content);
        }
    }

    #[test]
    fn a_block_is_found_where_an_editor_has_indented_it() {
        let content = format!("a\r\n  {START}\r\nx\r\n\t{END}\r\nb");
        let place = find(content.as_bytes()).unwrap().unwrap();
        assert_eq!(remove(content.as_bytes(), place), b"a\r\nb");
    }

    #[test]
    fn a_broken_block_is_not_guessed_at() {
        let one = block("x");
        for broken in [START, END, &format!("{END}\n{START}"), &format!("{one}{one}")] {
            assert_eq!(find(broken.as_bytes()), Err(()), "{broken}");
        }
        assert_eq!(find(format!("echo {START}").as_bytes()), Ok(None));
    }
}
