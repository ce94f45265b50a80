//! SQL as text: how names and values stand in it, and where its quotes and words are.

/// A name within SQL.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text within SQL.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Whether no quote and no `/*` comment reaches beyond the end. SQLite takes an
/// open comment without a word.
pub fn is_closed(sql: &str) -> bool {
    let mut rest = sql;
    while let Some(start) = rest.find(['\'', '"', '`', '[', '-', '/']) {
        let from = &rest[start..];
        let end = match from.as_bytes() {
            [b'-', b'-', ..] => Some(from.find('\n').unwrap_or(from.len())),
            [b'/', b'*', ..] => from[2..].find("*/").map(|at| at + 4),
            [b'-' | b'/', ..] => Some(1),
            [b'[', ..] => from.find(']').map(|at| at + 1),
            // A quote that is doubled closes a text and opens the next.
            [quote, ..] => from[1..].find(char::from(*quote)).map(|at| at + 2),
            [] => None,
        };
        let Some(end) = end else { return false };
        rest = &from[end..];
    }
    true
}

/// The words of some SQL in lower case, without those in quotes.
pub fn words(sql: &str) -> Vec<String> {
    let outside: Vec<_> = sql.split(['\'', '"']).step_by(2).collect();
    outside
        .join(" 'quoted' ")
        .split(|c: char| !c.is_alphanumeric() && !"_'".contains(c))
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_or_a_comment_may_hold_anything() {
        for sql in [
            "DELETE FROM t -- it's all /*",
            "DELETE FROM t /* it's [all */",
            "UPDATE t SET a = '/*' || \"it's\" || [it's] || `it's` || 'it''s' || 1 - 2 / 3 - '--'",
            "/**/ DELETE FROM t /***/",
        ] {
            assert!(is_closed(sql), "{sql}");
        }
    }
}
