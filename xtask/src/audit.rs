//! The audit: which columns no rule covers, although their names or values suggest a
//! secret or personal data. The server looks, on its copies; here are the words it goes
//! by, and what is said of what it finds.

mod words;

use std::fmt::Write as _;

use anyhow::Result;
use glob::Pattern;
use serde::{Deserialize, Serialize};

use crate::durable::from_hex;
use crate::error::Failure;
use crate::sanitize::{Rule, as_in_sql};
use crate::settings::unambiguous;
use crate::sqlite::literal;
use crate::ui::{Ui, count, escape};

/// How many lines of a warning are shown.
const SHOWN: usize = 20;

/// `[audit]`, as written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AuditToml {
    #[serde(default)]
    level: Level,
    #[serde(default)]
    allow: Vec<String>,
}

/// What follows from a finding.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    #[default]
    Warn,
    /// A pull stops before anything is sent, a fixture is not written.
    Fail,
    /// Nobody looks.
    Off,
}

pub struct Audit {
    pub level: Level,
    /// Tables and columns in lower case.
    allow: Vec<(Pattern, Pattern)>,
}

impl AuditToml {
    /// # Errors
    ///
    /// A text of `allow` names no column.
    pub fn resolve(self) -> Result<Audit> {
        let allow = self.allow.iter().map(|text| {
            let (table, column) = text.rsplit_once('.').ok_or_else(|| {
                Failure::usage(format!("allow has {text:?}, which is no column of a table"))
                    .hint("write it as \"table.column\"; *, ? and [abc] stand for more")
            })?;
            let pattern = |text: &str| unambiguous(&text.to_ascii_lowercase());
            Ok((pattern(table)?, pattern(column)?))
        });
        Ok(Audit { level: self.level, allow: allow.collect::<Result<_>>()? })
    }
}

/// What a column was found for. `Secret` and `Personal` go by its name or declared
/// type, the others by its values.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Secret,
    Personal,
    Pem,
    Aws,
    Github,
    Stripe,
    Slack,
    Jwt,
    /// It could not be looked at.
    Unread,
}

impl Kind {
    const ALL: [(Self, &'static str, &'static str); 9] = [
        (Self::Secret, "secret", ""),
        (Self::Personal, "personal", ""),
        (Self::Pem, "pem", "a private key"),
        (Self::Aws, "aws", "an AWS key"),
        (Self::Github, "github", "a GitHub token"),
        (Self::Stripe, "stripe", "a Stripe key"),
        (Self::Slack, "slack", "a Slack token"),
        (Self::Jwt, "jwt", "a JSON web token"),
        (Self::Unread, "unread", ""),
    ];

    /// On the wire and in SQL.
    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(kind, ..)| *kind == self).map_or("", |(_, word, _)| word)
    }

    /// What its values look like.
    fn looks_like(self) -> &'static str {
        Self::ALL.iter().find(|(kind, ..)| *kind == self).map_or("", |(.., label)| label)
    }
}

/// A column of one name, in all databases that have it.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Finding {
    pub table: String,
    pub column: String,
    pub kind: Kind,
    /// With a value that is not empty, or that looks like what is found.
    pub rows: u64,
    pub databases: u64,
    /// The first of them.
    pub database: String,
}

impl Finding {
    /// From what the server says of it; none where that is malformed.
    pub fn parse(said: &str) -> Option<Self> {
        let parts: Vec<_> = said.split(' ').collect();
        let [databases, database, table, column, rows, kind] = parts[..] else { return None };
        let name = |hex| Some(String::from_utf8_lossy(&from_hex(hex)?).into_owned());
        Some(Self {
            table: name(table)?,
            column: name(column)?,
            kind: Kind::ALL.iter().find(|(_, word, _)| *word == kind)?.0,
            rows: rows.parse().ok()?,
            databases: databases.parse().ok()?,
            database: name(database)?,
        })
    }

    /// Where it is, on one line.
    fn place(&self) -> String {
        escape(&format!("{}.{}", self.table, self.column)).replace('\n', "\\n")
    }

    fn describe(&self) -> String {
        let place = match self.databases {
            1 => escape(&self.database).replace('\n', "\\n"),
            n => count(n as usize, "database"),
        };
        let rows = format!("{} row{}", thousands(self.rows), if self.rows == 1 { "" } else { "s" });
        match self.kind {
            Kind::Unread => format!("in {place}, could not be looked at"),
            Kind::Secret | Kind::Personal => format!("in {place}, {rows}"),
            kind => format!("in {place}, {rows} with what looks like {}", kind.looks_like()),
        }
    }

    /// What has to stand in `allow`, where it is fine: the last dot is the one between
    /// table and column, and there are no control characters.
    fn allowed(&self) -> String {
        let literally = |name: &str| {
            let odd = |c: char| c.is_control() && !"\n\r\t".contains(c);
            Pattern::escape(name).replace(odd, "?")
        };
        let column = match self.kind {
            Kind::Unread => self.column.clone(),
            _ => literally(&self.column).replace('.', "?"),
        };
        format!("{}.{column}", literally(&self.table))
    }
}

/// What an audit has found; nothing where there was none.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    pub columns: Vec<Finding>,
    /// How many more there are.
    pub more: u64,
}

impl Findings {
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty() && self.more == 0
    }

    /// Says what was found, and what to do about it; `of` comes first.
    pub fn warn(&self, ui: &Ui, of: &str) {
        if !self.is_empty() {
            let all = if self.more == 0 {
                "--json lists them".to_owned()
            } else {
                format!("--json lists the first {}", thousands(self.columns.len() as u64))
            };
            ui.warn(of.to_owned() + &self.list(&all));
            ui.hint(self.advice());
        }
    }

    /// That they are why nothing was done, which `outcome` says.
    pub fn refusal(&self, outcome: &str) -> Failure {
        let all = "--json lists more where `level` is \"warn\"";
        Failure::new(outcome.to_owned() + &self.list(all)).hint(self.advice())
    }

    /// The first of them; `all` says where the others are.
    fn list(&self, all: &str) -> String {
        let total = self.columns.len() as u64 + self.more;
        let mut text = if total == 1 {
            "what looks like a secret or personal data is in a column that no rule covers"
                .to_owned()
        } else {
            format!(
                "what looks like secrets or personal data is in {} columns that no rule covers",
                thousands(total)
            )
        };
        let shown = &self.columns[..self.columns.len().min(SHOWN)];
        let width = shown.iter().map(|finding| finding.place().chars().count()).max().unwrap_or(0);
        for finding in shown {
            // Writing to a string does not fail.
            let _ = write!(text, "\n  {:width$}  {}", finding.place(), finding.describe());
        }
        match total - shown.len() as u64 {
            0 => {}
            more => {
                let _ = write!(text, "\n  and {} more; {all}", thousands(more));
            }
        }
        text
    }

    fn advice(&self) -> String {
        let mut text = "in xtask/db.toml, ".to_owned();
        if let Some(Finding { table, column, .. }) =
            self.columns.iter().find(|finding| finding.kind != Kind::Unread)
        {
            let _ = write!(
                text,
                "add a rule for each, such as\n  [[sanitize]]\n  table = {}\n  set = {{ {} = \"''\" }}\nor ",
                quoted(table),
                quoted(column)
            );
        }
        let mut allowed: Vec<_> = self
            .columns
            .iter()
            .filter(|finding| finding.table != "*")
            .take(SHOWN)
            .map(Finding::allowed)
            .collect();
        allowed.dedup();
        let allowed: Vec<_> = allowed.iter().map(|text| quoted(text)).collect();
        let _ = write!(text, "say which are fine:\n  [audit]\n  allow = [{}]", allowed.join(", "));
        text
    }
}

/// As TOML has it, also what a terminal would hide.
fn quoted(text: &str) -> String {
    let json = serde_json::to_string(text).unwrap_or_default();
    let plain = |c: char| match c {
        c if escape(c.encode_utf8(&mut [0; 4])).starts_with(c) => c.to_string(),
        c => format!("\\U{:08x}", u32::from(c)),
    };
    json.chars().map(plain).collect()
}

/// 4,200.
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// SQL that fills the tables that `audit.sh` goes by; none where nobody is to look.
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
    table("xtask_word", "kind TEXT, types TEXT, tbl TEXT, pattern TEXT", suspects());
    table("xtask_none", "kind TEXT, pattern TEXT, beside TEXT", exceptions());
    let values = words::VALUES.iter().flat_map(|(kind, patterns)| {
        patterns.iter().map(|pattern| {
            let form = pattern.split('*').next().unwrap_or_default();
            row([kind.word(), &spelt_out(pattern), form])
        })
    });
    table("xtask_value", "kind TEXT, pattern TEXT, form TEXT", values.collect());
    let lower = |name: &str| Pattern::escape(&name.to_ascii_lowercase());
    let covered = rules.iter().flat_map(|rule| {
        let (database, columns) = rule.covers();
        columns.into_iter().map(move |(table, column)| {
            let column = column.map_or_else(|| "*".to_owned(), lower);
            row([&as_in_sql(database), &lower(table), &column])
        })
    });
    let allowed =
        audit.allow.iter().map(|(table, column)| row(["*", &as_in_sql(table), &as_in_sql(column)]));
    table("xtask_fine", "database TEXT, tbl TEXT, col TEXT", covered.chain(allowed).collect());
    Some(sql)
}

fn row<const N: usize>(values: [&str; N]) -> Vec<String> {
    values.map(literal).to_vec()
}

/// Words in a row as they stand in a name that was taken apart.
fn in_words(words: &str) -> String {
    format!("_{}_", words.replace(' ', "_"))
}

fn list(words: &'static str) -> impl Iterator<Item = &'static str> {
    words.split(", ").filter(|word| !word.is_empty())
}

fn suspects() -> Vec<Vec<String>> {
    let classes = words::CLASSES.iter().flat_map(|class| {
        let within = list(class.within).map(|text| format!("*{text}*"));
        let words = list(class.words).map(|words| format!("*{}*", in_words(words)));
        let names = list(class.names).map(in_words);
        let patterns = within.chain(words).chain(names);
        patterns.map(|pattern| row([class.kind.word(), class.types, "*", &pattern]))
    });
    let in_tables = words::IN_TABLES.iter().flat_map(|(kind, tables, names)| {
        list(tables).flat_map(move |table| {
            let table = match table.strip_prefix('=') {
                Some(whole) => in_words(whole),
                None => format!("*{}", in_words(table)),
            };
            list(names).map(move |name| row([kind.word(), "text", &table, &in_words(name)]))
        })
    });
    classes.chain(in_tables).collect()
}

fn exceptions() -> Vec<Vec<String>> {
    let none = |kind: Option<Kind>, pattern: String, beside: Option<&str>| {
        let kind = literal(kind.map_or("*", Kind::word));
        vec![kind, literal(&pattern), beside.map_or_else(|| "NULL".to_owned(), literal)]
    };
    let ending = |word: &str| format!("*_{word}_");
    let secret = Some(Kind::Secret);
    let any = list(words::NOT_BEGINNING).map(|word| format!("_{word}_*"));
    let any = any.chain(list(words::NOT_ENDING).map(ending));
    let of_secrets = list(words::NO_SECRET_ENDING).map(ending);
    let of_secrets = of_secrets
        .chain(list(words::NO_SECRET_WORDS).map(|words| format!("*{}*", in_words(words))));
    let of_secrets =
        of_secrets.chain(list(words::NO_SECRET_WITHIN).map(|text| format!("*{text}*")));
    let beside =
        words::BESIDE.iter().map(|(name, beside)| none(secret, in_words(name), Some(beside)));
    let any = any.map(|pattern| none(None, pattern, None));
    any.chain(of_secrets.map(|pattern| none(secret, pattern, None))).chain(beside).collect()
}

/// A pattern in which `{16}` repeats the class before it, as `GLOB` takes it.
fn spelt_out(pattern: &str) -> String {
    let mut text = String::new();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('{') {
        let class = before.rfind('[').unwrap_or(0);
        let (times, after) = after.split_once('}').unwrap_or((after, ""));
        text += &before[..class];
        text += &before[class..].repeat(times.parse().unwrap_or(1));
        rest = after;
    }
    text + rest
}

#[cfg(test)]
mod tests;
