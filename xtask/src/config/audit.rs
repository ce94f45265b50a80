//! `[audit]`: the reaction to a column that looks like a secret.

use anyhow::Result;
use glob::Pattern;
use serde::Deserialize;

use super::values::unambiguous;
use crate::error::Failure;

/// The keys of `[audit]`.
#[derive(Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AuditToml {
    /// `"warn"`, `"fail"` (a pull stops before anything is sent, and no fixture is written) or
    /// `"off"`. Default: `"warn"`.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "String"))]
    level: Level,
    /// Columns that may come as they are: `["members.email", "legacy_*.phone"]`, in any letter
    /// case.
    #[serde(default)]
    allow: Vec<String>,
}

/// The reaction to a finding.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    #[default]
    Warn,
    /// A pull stops before anything is sent; a fixture is not written.
    Fail,
    /// No audit.
    Off,
}

pub struct Audit {
    pub level: Level,
    /// Patterns of tables and columns, in lower case.
    pub allow: Vec<(Pattern, Pattern)>,
}

impl Audit {
    /// Whether the settings say that a column is fine.
    pub fn allows(&self, table: &str, column: &str) -> bool {
        let [table, column] = [table, column].map(str::to_ascii_lowercase);
        self.allow.iter().any(|(tables, names)| tables.matches(&table) && names.matches(&column))
    }
}

impl AuditToml {
    /// Fails if an entry of `allow` has no column.
    pub fn resolve(self) -> Result<Audit> {
        let allow = self.allow.iter().map(|text| {
            let (table, column) = text.rsplit_once('.').ok_or_else(|| {
                Failure::usage(format!("allow has {text:?}, which is not a column of a table"))
                    .hint("write it as \"table.column\"; *, ? and [abc] are wildcards")
            })?;
            let pattern = |text: &str| unambiguous(&text.to_ascii_lowercase());
            Ok((pattern(table)?, pattern(column)?))
        });
        Ok(Audit { level: self.level, allow: allow.collect::<Result<_>>()? })
    }
}
