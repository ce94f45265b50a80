//! The audit: finds columns that no rule covers, although their names or values suggest a secret or
//! personal data. It runs on the server's copies; this module provides its word lists and reports
//! its findings.

mod findings;
mod mask;
mod words;

use std::fmt::Write as _;

use glob::Pattern;
use serde::{Deserialize, Serialize};

pub use findings::{Finding, Findings, Of, quoted};

pub use crate::config::{Audit, Level};
use crate::sanitize::{Change, Rule, as_in_sql, omits};
use crate::sql::{identifier, literal};

/// The reason for a finding. `Secret` and `Personal` are suggested by the column's name or declared
/// type, the others by its values.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "FindingKind"))]
pub enum Kind {
    Secret,
    Personal,
    Pem,
    Aws,
    Github,
    Stripe,
    Slack,
    Jwt,
    /// A token of another service.
    Key,
    /// The hash of a password.
    Hash,
    /// A URL with a password.
    Url,
    /// The value of a setting whose name, in another column, suggests a secret.
    Setting,
    /// JSON with a name that suggests a secret.
    Json,
    /// JSON with a name that suggests personal data.
    JsonPersonal,
    Email,
    Phone,
    Ip,
    Iban,
    /// The column could not be read.
    Unread,
}

impl Kind {
    const ALL: [(Self, &'static str, &'static str); 19] = [
        (Self::Secret, "secret", ""),
        (Self::Personal, "personal", ""),
        (Self::Pem, "pem", "a private key"),
        (Self::Aws, "aws", "an AWS key"),
        (Self::Github, "github", "a GitHub token"),
        (Self::Stripe, "stripe", "a Stripe key"),
        (Self::Slack, "slack", "a Slack token"),
        (Self::Jwt, "jwt", "a JSON web token"),
        (Self::Key, "key", "an API key"),
        (Self::Hash, "hash", "the hash of a password"),
        (Self::Url, "url", "a password in a URL"),
        (Self::Setting, "setting", "a secret, by the name of the setting"),
        (Self::Json, "json", "a password or key in JSON"),
        (Self::JsonPersonal, "json-personal", "personal data in JSON"),
        (Self::Email, "email", "an e-mail address"),
        (Self::Phone, "phone", "a phone number"),
        (Self::Ip, "ip", "an IP address"),
        (Self::Iban, "iban", "an IBAN"),
        (Self::Unread, "unread", ""),
    ];

    /// The word on the wire and in SQL.
    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(kind, ..)| *kind == self).map_or("", |(_, word, _)| word)
    }

    /// A description of the values.
    fn looks_like(self) -> &'static str {
        Self::ALL.iter().find(|(kind, ..)| *kind == self).map_or("", |(.., label)| label)
    }

    fn is_json(self) -> bool {
        matches!(self, Self::Json | Self::JsonPersonal)
    }

    /// The kind of `fake()` for its values, if they are personal data.
    fn fake(self) -> Option<&'static str> {
        match self {
            Self::Email => Some("email"),
            Self::Phone => Some("phone"),
            Self::Ip => Some("ip"),
            Self::Iban => Some("iban"),
            _ => None,
        }
    }

    fn is_personal(self) -> bool {
        self == Self::Personal || self.fake().is_some()
    }
}

/// SQL that fills the tables that `audit.sh` uses; `None` if the audit is off.
pub fn script(audit: &Audit, rules: &[Rule]) -> Option<String> {
    if audit.level == Level::Off {
        return None;
    }
    let mut sql = String::new();
    let mut table = |name: &str, columns: &str, rows: Vec<Vec<String>>| {
        let _ = writeln!(sql, "CREATE TEMP TABLE {name} ({columns});");
        let rows: Vec<_> = rows.iter().map(|row| format!("({})", row.join(","))).collect();
        if !rows.is_empty() {
            let _ = writeln!(sql, "INSERT INTO temp.{name} VALUES {};", rows.join(",\n"));
        }
    };
    table("xtask_word", "kind TEXT, types TEXT, tbl TEXT, pattern TEXT, beside TEXT", suspects());
    table("xtask_none", "kind TEXT, pattern TEXT, tbl TEXT, beside TEXT", exceptions());
    table(
        "xtask_value",
        "kind TEXT, pattern TEXT, form TEXT, begins TEXT, unless TEXT",
        values().collect(),
    );
    let whole = words::WHOLE_VALUES.iter().flat_map(|(kind, pattern, none)| {
        let none = none.iter().map(|pattern| row([kind.word(), "0", pattern]));
        [row([kind.word(), "1", pattern])].into_iter().chain(none)
    });
    table("xtask_whole", "kind TEXT, must INTEGER, pattern TEXT", whole.collect());
    let settings = words::SETTINGS
        .iter()
        .map(|(name, value)| row([name, value, &secret_settings(name, value)]));
    table("xtask_setting", "name TEXT, value TEXT, condition TEXT", settings.collect());
    let lower = |name: &str| Pattern::escape(&name.to_ascii_lowercase());
    let fine = |rule: Option<usize>, table: &str, column: &str| {
        let rule = rule.map_or_else(|| "NULL".to_owned(), |rule| rule.to_string());
        vec![rule, literal(table), literal(column)]
    };
    let covered = rules.iter().enumerate().flat_map(|(i, rule)| {
        rule.covers().into_iter().map(move |(table, column)| {
            let column = column.map_or_else(|| "*".to_owned(), lower);
            fine(Some(i), &lower(table), &column)
        })
    });
    let omitted = rules.iter().enumerate().filter_map(|(i, rule)| {
        let Change::Omit(tables) = &rule.change else { return None };
        Some(fine(Some(i), &as_in_sql(tables).to_ascii_lowercase(), "*"))
    });
    let covered = covered.chain(omitted);
    let allowed = audit.allow.iter();
    let allowed = allowed.map(|(table, column)| fine(None, &as_in_sql(table), &as_in_sql(column)));
    table("xtask_fine", "rule INTEGER, tbl TEXT, col TEXT", covered.chain(allowed).collect());
    Some(sql + REPEAT)
}

/// Whether the column of a finding in `database` is allowed, or covered by a rule: of a generated
/// column, the columns that it is computed from.
pub fn is_fine(audit: &Audit, rules: &[Rule], database: &str, finding: &Finding) -> bool {
    let Finding { table, column, generated_from, .. } = finding;
    let covers = |column: &String| {
        let rules = rules.iter().filter(|rule| rule.is_for(database));
        rules.flat_map(Rule::covers).any(|(of, name)| {
            of.eq_ignore_ascii_case(table)
                && name.is_none_or(|name| name.eq_ignore_ascii_case(column))
        })
    };
    omits(rules, database, table)
        || covers(column)
        || !generated_from.is_empty() && generated_from.iter().all(covers)
        || audit.allows(table, column)
}

fn row<const N: usize>(values: [&str; N]) -> Vec<String> {
    values.map(literal).to_vec()
}

/// Consecutive words as they appear in a split name.
fn in_words(words: &str) -> String {
    format!("_{}_", words.replace(' ', "_"))
}

fn list(words: &'static str) -> impl Iterator<Item = &'static str> {
    words.split(", ").filter(|word| !word.is_empty())
}

/// Kind, pattern, regular expression, beginning, and what the text up to the next `@` must not
/// match.
fn values() -> impl Iterator<Item = Vec<String>> {
    let globs = words::VALUES.iter().flat_map(|(kind, patterns)| {
        patterns.iter().map(|pattern| {
            let form = in_regex(pattern.split('*').next().unwrap_or_default());
            let begin = pattern.split(['[', '*']).next().unwrap_or_default();
            let mut row = row([kind.word(), &counted(pattern), &form, begin]);
            row.push(or_null(None));
            row
        })
    });
    let words::Url { begins, pattern, unless, form } = words::URL;
    globs.chain([row([Kind::Url.word(), pattern, form, begins, unless])])
}

/// SQL that chooses the rows of a table of settings whose values are secrets.
fn secret_settings(name: &str, value: &str) -> String {
    let name = identifier(name);
    let names = words::SECRET_SETTINGS.map(|word| format!("{name} LIKE '%{word}%'"));
    format!("{} AND ({})", long_settings(value), names.join(" OR "))
}

/// SQL that leaves numbers and switches alone, which an app cannot do without.
fn long_settings(value: &str) -> String {
    format!("length({}) > 5", identifier(value))
}

fn suspects() -> Vec<Vec<String>> {
    let one = |kind: Kind, types: &str, table: &str, pattern: &str, beside: Option<&str>| {
        let mut row = row([kind.word(), types, table, pattern]);
        row.push(or_null(beside));
        row
    };
    let classes = words::CLASSES.iter().flat_map(|class| {
        let within = list(class.within).map(|text| format!("*{text}*"));
        let words = list(class.words).map(|words| format!("*{}*", in_words(words)));
        let names = list(class.names).map(in_words);
        let patterns = within.chain(words).chain(names);
        patterns.map(|pattern| one(class.kind, class.types, "*", &pattern, None))
    });
    let in_tables = words::IN_TABLES.iter().flat_map(|(kind, tables, names, beside)| {
        let beside: Vec<_> = match *beside {
            "" => vec![None],
            words => list(words).map(|words| Some(format!("*{}*", in_words(words)))).collect(),
        };
        list(tables).flat_map(move |table| {
            let beside = beside.clone();
            let table = match table.strip_prefix('=') {
                Some(whole) => in_words(whole),
                None => format!("*{}", in_words(table)),
            };
            list(names).flat_map(move |name| {
                let (table, name) = (table.clone(), in_words(name));
                let types = if *kind == Kind::Personal { "text number" } else { "text" };
                let rows =
                    beside.iter().map(|beside| one(*kind, types, &table, &name, beside.as_deref()));
                rows.collect::<Vec<_>>()
            })
        })
    });
    classes.chain(in_tables).collect()
}

fn exceptions() -> Vec<Vec<String>> {
    let none = |kind: Option<Kind>, pattern: &str, table: &str, beside: Option<&str>| {
        let mut row = row([kind.map_or("*", Kind::word), pattern, table]);
        row.push(or_null(beside));
        row
    };
    let ending = |word: &str| format!("*_{word}_");
    let any = list(words::NOT_BEGINNING).map(|word| format!("_{word}_*"));
    let any = any.chain(list(words::NOT_ENDING).map(ending));
    let of_secrets = list(words::NO_SECRET_ENDING).map(ending);
    let of_secrets = of_secrets
        .chain(list(words::NO_SECRET_WORDS).map(|words| format!("*{}*", in_words(words))))
        .chain(list(words::NO_SECRET_WITHIN).map(|text| format!("*{text}*")));
    let secret = Some(Kind::Secret);
    let in_tables = words::NO_SECRETS_IN.iter().flat_map(|(tables, names)| {
        list(tables).flat_map(|table| {
            let table = format!("*{}", in_words(table));
            list(names).map(move |name| none(secret, &in_words(name), &table, None))
        })
    });
    let beside =
        words::BESIDE.iter().map(|(name, beside)| none(secret, &in_words(name), "*", Some(beside)));
    any.map(|pattern| none(None, &pattern, "*", None))
        .chain(of_secrets.map(|pattern| none(secret, &pattern, "*", None)))
        .chain(in_tables)
        .chain(beside)
        .collect()
}

fn or_null(text: Option<&str>) -> String {
    text.map_or_else(|| "NULL".to_owned(), literal)
}

/// A pattern without `*` as an extended regular expression: outside of its classes, nothing but
/// `{16}` has a meaning.
fn in_regex(pattern: &str) -> String {
    let mut text = String::new();
    let mut in_class = false;
    for (i, c) in pattern.char_indices() {
        in_class = if in_class { c != ']' } else { c == '[' };
        let repeats = c == '{' && pattern[..i].ends_with(']');
        if !in_class && !repeats && "$.{+?|()^\\".contains(c) {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

/// A pattern with each number before the class that it repeats, as [`REPEAT`] reads it.
fn counted(pattern: &str) -> String {
    let mut text = String::new();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('{') {
        let (times, after) = after.split_once('}').unwrap_or((after, ""));
        let class = before.rfind('[').unwrap_or(0);
        text += &format!("{}{{{times}}}{}", &before[..class], &before[class..]);
        rest = after;
    }
    text + rest
}

/// SQL that writes each class of a pattern as often as the number before it says. Sent that way, all
/// would be too long for the pipe to a server that does not read.
const REPEAT: &str = "UPDATE temp.xtask_value SET pattern = (
  WITH RECURSIVE e(done, rest) AS (
       SELECT '', pattern
       UNION ALL
       SELECT done || substr(rest, 1, instr(rest, '{') - 1) || replace(hex(zeroblob(CAST(substr(rest, instr(rest, '{') + 1) AS INTEGER))), '00',
              substr(rest, instr(rest, '}') + 1, instr(substr(rest, instr(rest, '}') + 1), ']'))),
              substr(rest, instr(rest, '}') + 1 + instr(substr(rest, instr(rest, '}') + 1), ']'))
         FROM e WHERE instr(rest, '{'))
  SELECT done || rest FROM e WHERE NOT instr(rest, '{')) WHERE instr(pattern, '{');
";

#[cfg(test)]
mod tests;
