//! SQL as text: quoting of names and values, a scanner for quotes and words, a check of its syntax.

use rusqlite::{Connection, Error};

/// A quoted name.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A quoted string.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The tokens of the SQL up to a quote or a `/*` comment that is not closed: words, quoted texts,
/// comments and single characters. A doubled quote is the end of one text and the start of the next.
pub fn tokens(sql: &str) -> impl Iterator<Item = &str> {
    let mut rest = sql;
    std::iter::from_fn(move || {
        let (token, after) = rest.split_at(token_end(rest)?);
        rest = after;
        Some(token)
    })
}

/// Where the first token ends; `None` at the end of the SQL, and if the token is not closed.
fn token_end(sql: &str) -> Option<usize> {
    let is_in_word = |c: char| c.is_alphanumeric() || "_$".contains(c) || !c.is_ascii();
    match sql.as_bytes() {
        [b'-', b'-', ..] => Some(sql.find('\n').unwrap_or(sql.len())),
        [b'/', b'*', ..] => sql[2..].find("*/").map(|at| at + 4),
        [b'[', ..] => sql.find(']').map(|at| at + 1),
        [quote @ (b'\'' | b'"' | b'`'), ..] => sql[1..].find(char::from(*quote)).map(|at| at + 2),
        _ => {
            let word = sql.find(|c| !is_in_word(c)).unwrap_or(sql.len());
            Some(word.max(sql.chars().next()?.len_utf8()))
        }
    }
}

/// Whether every quote and `/*` comment is closed. SQLite accepts an open comment silently.
pub fn is_closed(sql: &str) -> bool {
    tokens(sql).map(str::len).sum::<usize>() == sql.len()
}

/// Why SQLite cannot parse a statement; names that it does not know, and all else that depends on a
/// database or a version, are no reason.
pub fn syntax_error(statement: &str) -> Option<String> {
    thread_local! {
        static PARSER: Option<Connection> = Connection::open_in_memory().ok();
    }
    let parse = |db: &Option<Connection>| match db.as_ref()?.prepare(statement).err()? {
        Error::SqlInputError { msg, .. } | Error::SqliteFailure(_, Some(msg)) => Some(msg),
        _ => None,
    };
    let message = PARSER.with(parse)?;
    let is_of_parser = message.ends_with(": syntax error")
        || message == "incomplete input"
        || message.starts_with("unrecognized token: ");
    is_of_parser.then_some(message)
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
        for sql in ["a'", "/* a *", "[a", "'a''", "\"a'"] {
            assert!(!is_closed(sql), "{sql}");
        }
    }

    #[test]
    fn only_what_cannot_be_parsed_is_a_syntax_error() {
        for value in ["", "hello world", "a@b.com", "'it's'", "SELECT 1", "(1", "#"] {
            let sql = format!("UPDATE t SET c = {value}\n");
            assert!(syntax_error(&sql).is_some(), "{value}");
        }
        for value in [
            "''",
            "NULL",
            "nope(a, b)",
            "other.c",
            "x -- why",
            "(SELECT max(d) FROM gone)",
            "sum(c) OVER w",
            "doc ->> '$.a'",
            "?1",
            "abs(1, 2, 3)",
            "c COLLATE none",
            "RAISE(ABORT, 'x')",
            "\"c\" || [d] || `e`",
        ] {
            assert_eq!(syntax_error(&format!("UPDATE t SET c = {value}\n")), None, "{value}");
        }
    }

    #[test]
    fn sql_is_split_into_words_quoted_texts_comments_and_single_characters() {
        let split = |sql| tokens(sql).collect::<Vec<_>>();
        assert_eq!(split("f(é_1,'it''s')--x"), ["f", "(", "é_1", ",", "'it'", "'s'", ")", "--x"]);
        assert_eq!(split("a /*b*/[c d]\"e"), ["a", " ", "/*b*/", "[c d]"]);
    }
}
