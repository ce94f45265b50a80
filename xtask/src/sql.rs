//! SQL as text: quoting of names and values, and a scanner for quotes and words.

/// A quoted name.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A quoted string.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Whether every quote and `/*` comment is closed. SQLite accepts an open comment silently.
pub fn is_closed(sql: &str) -> bool {
    let mut rest = sql;
    while let Some(start) = rest.find(['\'', '"', '`', '[', '-', '/']) {
        let from = &rest[start..];
        let end = match from.as_bytes() {
            [b'-', b'-', ..] => Some(from.find('\n').unwrap_or(from.len())),
            [b'/', b'*', ..] => from[2..].find("*/").map(|at| at + 4),
            [b'-' | b'/', ..] => Some(1),
            [b'[', ..] => from.find(']').map(|at| at + 1),
            // A doubled quote is taken as the end of one string and the start of the next.
            [quote, ..] => from[1..].find(char::from(*quote)).map(|at| at + 2),
            [] => None,
        };
        let Some(end) = end else { return false };
        rest = &from[end..];
    }
    true
}

/// Whether the SQL, which may be quoted once more, may depend on something besides the database:
/// it reads the clock or a file, or a view that may do so.
pub fn depends_on_time(sql: &str) -> bool {
    let sql: String = sql.to_lowercase().split_whitespace().collect();
    let sql = sql.replace("''", "'");
    let asks = [
        "current_date",
        "current_time",
        "'now'",
        "\"now\"",
        "date()",
        "time()",
        "julianday()",
        "unixepoch()",
        "strftime(",
        "readfile(",
        "select",
    ];
    asks.iter().any(|asks| sql.contains(asks))
}

/// The words of the SQL in lower case, without quoted ones.
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
