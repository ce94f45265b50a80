//! Values of rows, as text that fits into a line and as JSON.

use rusqlite::types::ValueRef;
use serde_json::{Value, json};

use crate::fs::hex;
use crate::ui::on_one_line;

/// How many characters before a difference are shown.
const BEFORE: usize = 8;

/// A value of at most `width` characters.
pub fn text(value: ValueRef<'_>, width: usize) -> String {
    shown(value, 0, width)
}

/// Two different values; of long texts the part in which they differ.
pub fn both(before: ValueRef<'_>, after: ValueRef<'_>, width: usize) -> String {
    let (x, y) = (characters(before), characters(after));
    let same = x.iter().zip(&y).take_while(|(x, y)| x == y).count();
    let fits = x.len().max(y.len()) + 2 <= width;
    let skip = if fits { 0 } else { same.saturating_sub(BEFORE) };
    format!("{} → {}", shown(before, skip, width), shown(after, skip, width))
}

fn characters(value: ValueRef<'_>) -> Vec<char> {
    match value {
        ValueRef::Text(text) => String::from_utf8_lossy(text).chars().collect(),
        _ => Vec::new(),
    }
}

/// A value without its first characters, if it is a text.
fn shown(value: ValueRef<'_>, skip: usize, width: usize) -> String {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(n) => n.to_string(),
        ValueRef::Real(x) => format!("{x:?}"),
        ValueRef::Text(_) => {
            let text: String = characters(value).into_iter().skip(skip).collect();
            let text = on_one_line(&text);
            let start = if skip > 0 { "…" } else { "" };
            shorten(&format!("'{start}{text}'"), width)
        }
        ValueRef::Blob(blob) => {
            let size = format!(" ({})", crate::ui::bytes(blob.len() as u64));
            let start = &blob[..blob.len().min(width / 2)];
            shorten(&format!("x'{}'", hex(start)), width.saturating_sub(size.len())) + &size
        }
    }
}

/// At most `width` characters, the last one a `…` if there are more.
pub fn shorten(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// A value as JSON, whole; a blob as `{"blob": "<hex>"}`.
pub fn to_json(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(n) => n.into(),
        ValueRef::Real(x) => x.into(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into(),
        ValueRef::Blob(blob) => json!({ "blob": hex(blob) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_harmless_and_short() {
        let short = |value| text(value, 12);
        assert_eq!(short(ValueRef::Text(b"it\n\x1b[31m")), "'it\\n\\u{1b}…");
        assert_eq!(short(ValueRef::Text("données 東京 🦀".as_bytes())), "'données 東京…");
        assert_eq!(short(ValueRef::Text(b"")), "''");
        assert_eq!(short(ValueRef::Blob(&[0xab; 500])), "x'a… (500 B)");
        assert_eq!(short(ValueRef::Real(2.0)), "2.0");
        assert_eq!(short(ValueRef::Null), "NULL");
    }

    #[test]
    fn of_long_texts_the_difference_is_shown() {
        let (x, y) = ("a".repeat(50) + "jumps", "a".repeat(50) + "leaps");
        let both = both(ValueRef::Text(x.as_bytes()), ValueRef::Text(y.as_bytes()), 20);
        assert_eq!(both, "'…aaaaaaaajumps' → '…aaaaaaaaleaps'");
        let both = super::both(ValueRef::Integer(1), ValueRef::Real(1.0), 20);
        assert_eq!(both, "1 → 1.0");
    }
}
