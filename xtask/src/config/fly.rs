//! The app's configuration for Fly.io: `fly.toml`, or the file that `fly-config` names.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::{parse_toml, read};
use crate::error::Failure;

/// The file that `fly` reads where nobody names one.
const DEFAULT: &str = "fly.toml";

/// The keys that this program uses.
#[derive(Default, Deserialize)]
pub struct FlyConfig {
    pub app: Option<String>,
    mounts: Option<Mounts>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Mounts {
    Many(Vec<Mount>),
    One(Mount),
}

#[derive(Deserialize)]
struct Mount {
    destination: String,
}

impl FlyConfig {
    /// Reads the file that `named` says, else `fly.toml`, which need not exist.
    ///
    /// # Errors
    ///
    /// The file is malformed, or was named and does not exist.
    pub fn read(root: &Path, named: Option<&Path>) -> Result<Self> {
        let path = root.join(named.unwrap_or(Path::new(DEFAULT)));
        match (read(&path)?, named) {
            (Some(text), _) => parse(&path, &text),
            (None, None) => Ok(Self::default()),
            (None, Some(_)) => {
                let failure = Failure::usage(format!("there is no fly-config {}", path.display()));
                Err(failure
                    .hint(others(root).unwrap_or_else(|| {
                        "the path counts from the root of the repository".to_owned()
                    }))
                    .into())
            }
        }
    }

    /// Where the first volume is mounted.
    pub fn destination(self) -> Option<String> {
        let first = match self.mounts? {
            Mounts::Many(mounts) => mounts.into_iter().next()?,
            Mounts::One(mount) => mount,
        };
        Some(first.destination)
    }
}

/// `fly` chooses the format by the name of the file.
fn parse(path: &Path, text: &str) -> Result<FlyConfig> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => serde_json::from_str(text)
            .with_context(|| Failure::usage(format!("cannot read config file {}", path.display()))),
        Some("yaml" | "yml") => {
            let failure = Failure::usage(format!("{} is not read: it is YAML", path.display()));
            Err(failure.hint("set `app` and `remote-dir` in xtask/db.toml").into())
        }
        _ => parse_toml(path, text),
    }
}

/// Which files in `root` look like such configurations under another name, as a hint.
pub fn others(root: &Path) -> Option<String> {
    let names = std::fs::read_dir(root).ok()?.flatten();
    let mut names: Vec<_> = names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_one(name))
        .collect();
    names.sort();
    let first = names.first()?;
    Some(format!("there is {}: fly-config = {first:?} in xtask/db.toml uses it", names.join(", ")))
}

fn is_one(name: &str) -> bool {
    name != DEFAULT
        && name.starts_with("fly.")
        && [".toml", ".json"].iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_read_by_the_name_that_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let write = |name: &str, text: &str| std::fs::write(root.join(name), text).unwrap();
        write("fly.staging.toml", "app = 'one'\nmounts = [{ destination = '/a', source = 'v' }]");
        write("fly.json", r#"{"app": "two", "mounts": {"destination": "/b"}}"#);
        let read = |name: &str| FlyConfig::read(root, Some(Path::new(name)));
        for (name, app, destination) in
            [("fly.staging.toml", "one", "/a"), ("fly.json", "two", "/b")]
        {
            let config = read(name).unwrap();
            assert_eq!(config.app.as_deref(), Some(app));
            assert_eq!(config.destination().as_deref(), Some(destination));
        }
        let found = "there is fly.json, fly.staging.toml: fly-config = \"fly.json\" in xtask/db.toml uses it";
        assert_eq!(others(root).as_deref(), Some(found));
        let error = read("fly.prod.toml").err().unwrap();
        assert_eq!(crate::error::hint(&error), Some(found));
        assert!(FlyConfig::read(root, None).unwrap().app.is_none());
    }
}
