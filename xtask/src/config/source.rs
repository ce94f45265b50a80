//! `[source.NAME]`: another place to pull from, such as staging.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use toml::Spanned;

use super::environment::Environment;
use super::name_pattern::NamePattern;
use super::rename::Renames;
use super::rule::{Rule, RuleToml};
use super::{Lines, Way, patterns, resolve_via, user};

/// The keys of `[source.NAME]`; those that are missing are as at the top of the file.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SourceToml {
    /// As above; it comes before `$FLY_APP`.
    app: Option<String>,
    /// As above.
    via: Option<String>,
    /// As above.
    remote_dir: Option<String>,
    /// As above.
    machine: Option<String>,
    /// As above.
    region: Option<String>,
    /// As above.
    any_machine: Option<bool>,
    /// As above.
    fly_config: Option<PathBuf>,
    /// As above.
    r#as: Option<String>,
    /// As above.
    include: Option<Vec<String>>,
    /// `[[source.NAME.sanitize]]`: rules that run after the others.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Vec<RuleToml>"))]
    sanitize: Vec<Spanned<RuleToml>>,
}

/// A place to pull from, beside the one at the top of `db.toml`.
pub struct Source {
    pub name: String,
    pub app: Option<String>,
    pub via: Option<Way>,
    pub remote_dir: Option<String>,
    pub machine: Option<String>,
    pub region: Option<String>,
    pub any_machine: Option<bool>,
    pub fly_config: Option<PathBuf>,
    pub user: Option<String>,
    pub include: Option<Vec<NamePattern>>,
    /// Rules that run after those of all sources.
    pub rules: Vec<Rule>,
}

impl SourceToml {
    /// # Errors
    ///
    /// A value is invalid.
    pub fn resolve(
        self,
        name: String,
        root: &Path,
        environment: &Environment,
        renames: &Renames,
        lines: &Lines<'_>,
    ) -> Result<Source> {
        let expand = |key: &str, value: Option<String>| {
            value.map(|value| environment.expand(key, &value)).transpose()
        };
        let read_via = |via: String| environment.read("via", &via, |via| resolve_via(via, root));
        let mut rules = lines.rules(self.sanitize)?;
        for rule in &mut rules {
            rule.database = rule.database.clone().with(renames);
        }
        let include = self.include.map(|texts| patterns(&texts, NamePattern::path));
        Ok(Source {
            app: expand("app", self.app)?,
            via: self.via.map(read_via).transpose()?,
            remote_dir: expand("remote-dir", self.remote_dir)?,
            machine: expand("machine", self.machine)?,
            region: expand("region", self.region)?,
            any_machine: self.any_machine,
            fly_config: self.fly_config,
            user: self.r#as.map(|name| user(&name)).transpose()?,
            include: include.transpose().context("include")?,
            rules,
            name,
        })
    }
}
