//! `via`: how the server is reached.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::command_line::words;

/// The way to the databases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    Fly,
    Ssh {
        host: String,
        port: Option<u16>,
    },
    Docker(String),
    /// The words of a command that runs another command where the databases are.
    Exec(Vec<String>),
    Local(PathBuf),
    /// The replica at a URL, or those below it; `None` for those of `litestream.yml`.
    Litestream(Option<String>),
}

/// Where a pull comes from, in `via` and `--via`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// What the team has published.
    Share,
    Server(Via),
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share => write!(f, "share"),
            Self::Server(via) => write!(f, "{via}"),
        }
    }
}

impl FromStr for Way {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "share" => Ok(Self::Share),
            _ => text.parse().map(Self::Server),
        }
    }
}

/// The stores that Litestream knows.
const REPLICAS: [&str; 9] = ["file", "s3", "abs", "gs", "gcs", "sftp", "nats", "webdav", "oss"];

impl Via {
    /// Whether it says in which directory the databases are.
    pub fn names_directory(&self) -> bool {
        matches!(self, Self::Local(_) | Self::Litestream(_))
    }
}

impl fmt::Display for Via {
    /// As it is written in `db.toml`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fly => write!(f, "fly"),
            Self::Ssh { host, port: None } => write!(f, "ssh:{host}"),
            Self::Ssh { host, port: Some(port) } => write!(f, "ssh:{host}:{port}"),
            Self::Docker(container) => write!(f, "docker:{container}"),
            Self::Exec(words) => {
                let words = shlex::try_join(words.iter().map(String::as_str));
                write!(f, "exec:{}", words.map_err(|_| fmt::Error)?)
            }
            Self::Local(dir) => write!(f, "local:{}", dir.display()),
            Self::Litestream(None) => write!(f, "litestream"),
            Self::Litestream(Some(url)) => write!(f, "litestream:{url}"),
        }
    }
}

impl FromStr for Via {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        match kind {
            "fly" if rest.is_empty() => Ok(Self::Fly),
            "ssh" => {
                let (host, port) = match rest.rsplit_once(':') {
                    Some((host, port)) => {
                        (host, Some(port.parse().map_err(|_| format!("{port:?} is not a port"))?))
                    }
                    None => (rest, None),
                };
                plain_word(host, "._-@").map(|host| Self::Ssh { host, port })
            }
            "docker" => plain_word(rest, "._-").map(Self::Docker),
            "exec" => words(rest).map(Self::Exec).map_err(|error| error.to_string()),
            "local" if !rest.is_empty() => Ok(Self::Local(rest.into())),
            "litestream" if text == kind => Ok(Self::Litestream(None)),
            "litestream" => replica_url(rest).map(Self::Litestream),
            _ => {
                Err("it is fly, ssh:USER@HOST[:PORT], docker:CONTAINER, exec:COMMAND, local:DIR, \
                      litestream, litestream:URL or share"
                    .to_owned())
            }
        }
    }
}

/// A URL that is told in messages, and so has no password.
fn replica_url(url: &str) -> Result<Option<String>, String> {
    let Some((scheme, place)) = url.split_once("://") else {
        return Err("after litestream: is a URL, such as s3://bucket/prefix".to_owned());
    };
    if !REPLICAS.contains(&scheme) || url.chars().any(char::is_control) {
        return Err(format!("{scheme:?} is none of {}", REPLICAS.join(", ")));
    }
    let host = place.split(['/', '?']).next().unwrap_or_default();
    if host.rsplit_once('@').is_some_and(|(user, _)| user.contains(':')) {
        return Err(
            "leave the password out of the URL: litestream.yml can name a variable".to_owned()
        );
    }
    // The program knows Google's by this name only.
    let url = url.strip_prefix("gcs:").map_or_else(|| url.to_owned(), |rest| format!("gs:{rest}"));
    Ok(Some(url))
}

/// A name that is safe on a command line: it cannot be taken for a flag, and no shell or program
/// on the way interprets it.
///
/// # Errors
///
/// The name has other characters than ASCII letters, digits and `extra`.
pub fn plain_word(name: &str, extra: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || extra.contains(c);
    if name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(allowed)
        && name.len() <= 255
    {
        Ok(name.to_owned())
    } else {
        Err(format!("only letters, digits and {extra:?} are allowed, and a letter or digit first"))
    }
}
