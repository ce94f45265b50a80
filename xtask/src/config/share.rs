//! `[share]`: where the snapshots of a team are.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Deserialize;

use super::environment::Environment;
use super::via::plain_word;
use crate::error::Failure;

/// Beside `db.toml`.
const RECIPIENTS: &str = "recipients.txt";

/// The keys of `[share]`.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ShareToml {
    /// The store: `"s3://BUCKET/PREFIX"`, `"file:///PATH"` or `"ssh://USER@HOST[:PORT]/PATH"`.
    url: String,
    /// The file with the public keys for which the store is encrypted. Default:
    /// `xtask/recipients.txt`, if it exists; else nothing is encrypted.
    recipients: Option<PathBuf>,
}

pub struct Share {
    pub url: String,
    /// The public keys for which everything in the store is encrypted; without it nothing is.
    pub recipients: Option<PathBuf>,
}

impl ShareToml {
    /// `file` is the settings file.
    pub fn resolve(self, root: &Path, file: &Path, environment: &Environment) -> Result<Share> {
        let url = environment.read("url", &self.url, |url| check(url).map(|()| url.to_owned()))?;
        let beside = file.with_file_name(RECIPIENTS);
        let recipients = match self.recipients {
            Some(path) => Some(root.join(path)),
            None => beside.exists().then_some(beside),
        };
        Ok(Share { url: url.trim_end_matches('/').to_owned(), recipients })
    }
}

fn check(url: &str) -> Result<()> {
    let is_plain = |rest: &str| !rest.is_empty() && !rest.contains(['?', '#', '\\', '%']);
    let is_place = match url.split_once("://") {
        Some(("s3", rest)) => is_plain(rest),
        Some(("file", path)) => path.starts_with('/') && is_plain(path),
        Some(("ssh", place)) => place.split_once('/').is_some_and(|(host, path)| {
            let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
            plain_word(name, "._-@").is_ok() && is_plain(path)
        }),
        _ => false,
    };
    // Credentials would be in lists, reports and snapshots.
    let host = url.split_once("://").and_then(|(_, rest)| rest.split('/').next());
    let has_password = |host: &str| match url.starts_with("ssh:") {
        true => host.rsplit_once('@').is_some_and(|(user, _)| user.contains(':')),
        false => host.contains('@'),
    };
    if host.is_some_and(has_password) {
        return Err(Failure::usage("url in [share] has credentials, or an @")
            .hint("it is s3://BUCKET/PREFIX; credentials are in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
            .into());
    }
    if is_place && !url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Ok(());
    }
    Err(Failure::usage(format!("url {url:?} is not the place of a store"))
        .hint("it is s3://BUCKET/PREFIX, file:///PATH or ssh://USER@HOST/PATH")
        .into())
}
