//! The server's side of a pull: the script and the request that are sent, and
//! what its failures mean.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::Write as _;
use std::path::Path;

use anyhow::Result;
use flate2::Compression;
use flate2::write::GzEncoder;
use glob::Pattern;
use jiff::SignedDuration;

use crate::audit::{self, Level};
use crate::delta::Base;
use crate::error::Failure;
use crate::sanitize::{self, unmatched::Unmatched};
use crate::settings::Settings;
use crate::snapshots::Database;
use crate::stream::clipped;
use crate::transport::quoted;

/// One script for the server: the last part runs what the others define.
const SCRIPT: [&str; 11] = [
    include_str!("../ops-remote/request.sh"),
    include_str!("../ops-remote/cores.sh"),
    include_str!("../ops-remote/audit.sh"),
    include_str!("../ops-remote/compare.sh"),
    include_str!("../ops-remote/pack.sh"),
    include_str!("../ops-remote/scrub.sh"),
    include_str!("../ops-remote/look.sh"),
    include_str!("../ops-remote/sanitize.sh"),
    include_str!("../ops-remote/find.sh"),
    include_str!("../ops-remote/copy.sh"),
    include_str!("../ops-remote/prepare-pull.sh"),
];

/// How the copies come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// On the script's output.
    Stream,
    /// As a file on the server.
    Archive,
    /// Not at all: only what would come is said.
    DryRun,
}

/// What one pull asks of the server.
pub struct Request<'a> {
    /// Names this pull in all that the script says to us.
    pub nonce: String,
    pub mode: Mode,
    pub directory: &'a str,
    pub only: Option<&'a Pattern>,
    pub sanitize: bool,
    /// How long writers of the app may have to wait for a copy; none for any time.
    pub max_lock: Option<SignedDuration>,
    /// What is here already, by which the server sends less.
    pub bases: Vec<Base>,
}

impl Request<'_> {
    /// Whether a database of this name comes without the rules that are meant for it.
    pub fn leaves_unsanitized(&self, name: &str, settings: &Settings) -> bool {
        !self.sanitize && sanitize::is_for(&settings.rules, name)
    }

    /// Whether no rule is applied to it, also where none is meant for it.
    pub fn leaves_raw(&self, name: &str, settings: &Settings) -> bool {
        !self.sanitize || !sanitize::is_for(&settings.rules, name)
    }

    /// The script and the request, as `BOOTSTRAP` and `read_request` take them.
    /// Values are lines of their own, which the script reads as data.
    ///
    /// # Errors
    ///
    /// A value cannot be a line.
    pub fn render(&self, settings: &Settings) -> Result<Vec<u8>> {
        let mut message = script()?;
        let mut line = |key: &str, value: &str| line(&mut message, key, value);
        line("nonce", &self.nonce)?;
        let mode = match self.mode {
            Mode::Stream => "stream",
            Mode::Archive => "archive",
            Mode::DryRun => "dry-run",
        };
        line("mode", mode)?;
        line("directory", self.directory)?;
        if let Some(dir) = &settings.staging_dir {
            line("staging", dir)?;
        }
        if let Some(limit) = self.max_lock {
            line("max-lock", &limit.as_millis().to_string())?;
        }
        for pattern in &settings.names.include {
            line("include", pattern.as_str())?;
        }
        for pattern in &settings.names.exclude {
            line("exclude", pattern.as_str())?;
        }
        if let Some(only) = self.only {
            line("only", only.as_str())?;
        }
        for Base { database, .. } in &self.bases {
            let Database { name, bytes, page_size, .. } = database;
            let sha256 = database.sha256.as_deref().unwrap_or_default();
            line("base", &format!("{sha256} {bytes} {page_size} {name}"))?;
        }
        let rules = if self.sanitize { sanitize::script(&settings.rules) } else { String::new() };
        if !rules.is_empty() {
            writeln!(message, "rules {}", rules.len())?;
            message.extend(rules.as_bytes());
        }
        let audit =
            self.sanitize.then(|| audit::script(&settings.audit, &settings.rules)).flatten();
        if let Some(audit) = audit {
            let level = if settings.audit.level == Level::Fail { "fail" } else { "warn" };
            writeln!(message, "audit {level} {}", audit.len())?;
            message.extend(audit.as_bytes());
        }
        message.extend(b"end\n");
        Ok(message)
    }
}

/// What makes the script audit the databases in `directory`, and do no more; what it
/// writes goes into `staging`.
///
/// # Errors
///
/// A path cannot be a line.
pub fn audit_request(
    nonce: &str,
    staging: &Path,
    directory: &Path,
    audit: &str,
) -> Result<Vec<u8>> {
    let mut message = script()?;
    let path = |path: &Path| path.to_string_lossy().into_owned();
    for (key, value) in [
        ("nonce", nonce),
        ("mode", "dry-run"),
        ("directory", &path(directory)),
        ("staging", &path(staging)),
        ("include", "*"),
    ] {
        line(&mut message, key, value)?;
    }
    write!(message, "audit warn {}\n{audit}end\n", audit.len())?;
    Ok(message)
}

/// The script, as `BOOTSTRAP` takes it.
fn script() -> Result<Vec<u8>> {
    let mut script = GzEncoder::new(Vec::new(), Compression::best());
    for part in SCRIPT {
        script.write_all(part.as_bytes())?;
    }
    let script = script.finish()?;
    Ok([format!("{}\n", script.len()).into_bytes(), script].concat())
}

fn line(message: &mut Vec<u8>, key: &str, value: &str) -> Result<()> {
    if value.is_empty() || value.chars().any(char::is_control) {
        return Err(Failure::usage(format!("{value:?} cannot be used as the {key}")).into());
    }
    Ok(writeln!(message, "{key} {value}")?)
}

/// Sixteen hex digits that no talk on the line contains.
pub fn nonce() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

pub const ADVICE_ON_LEAKS: &str = "add a [[sanitize]] rule for the column that still has it, or `look = false` to the rule if it \
     may stay there";

/// What the script says when it gives up, and the next thing to do about it.
pub fn failure(code: &str, text: &str) -> Failure {
    let failure = Failure::new(format!("the server gave up: {}", clipped(text)));
    match code {
        "unmatched-rule" => {
            Unmatched::parse(text).map_or(failure, |rule| rule.failure("nothing was sent"))
        }
        "damaged" => Failure::new(format!("{} is damaged on the server already", clipped(text)))
            .hint(format!("on the server: sqlite3 {} 'PRAGMA integrity_check'", as_word(text))),
        "locked" => {
            Failure::new(format!("{} stayed locked for 10 s; nothing was sent", clipped(text)))
                .hint("run the same command again when the app's transaction has ended")
        }
        "no-sqlite3" => failure.hint(
            "add `apt-get install -y sqlite3` (or `apk add sqlite`) to the image, and deploy it",
        ),
        "lock" => lock(text).unwrap_or(failure),
        "rights" => failure.hint(
            "connect as the app's user or as root, such as with --via ssh:root@HOST, or let that user read it",
        ),
        "no-database" => {
            failure.hint("add it to exclude in xtask/db.toml, or let include name the others")
        }
        "no-directory" => failure.hint(
            "name another with --remote-dir or remote-dir in xtask/db.toml, or behind --via local:",
        ),
        "no-databases" => {
            failure.hint("look at include and exclude in xtask/db.toml, and at --only")
        }
        "no-space" => failure
            .hint("free some, or set staging-dir in xtask/db.toml to a directory on a larger disk"),
        "sanitize" => {
            failure.hint("mend the [[sanitize]] rules in xtask/db.toml; nothing was sent")
        }
        "remains" => failure.hint(format!("{ADVICE_ON_LEAKS}; nothing was sent")),
        "no-number" => failure.hint(
            "run that program on the server; `cargo xtask pull-db -v` shows all that the server says",
        ),
        "outreach" => failure.hint(
            "look at who wrote that; to pull without it, add the database to exclude in xtask/db.toml",
        ),
        "unfinished" => failure.hint("start the app, which rolls it back, and run the same command again"),
        "busy-alone" => failure.hint("pull while less is written"),
        "moving" => failure.hint("connect as that user, or pull while less is written"),
        "unreadable" => failure.hint("if it is no database, add it to exclude in xtask/db.toml"),
        _ => failure,
    }
}

/// A path as a word of a command that is shown.
fn as_word(path: &str) -> String {
    shlex::try_quote(path).map_or_else(|_| "FILE".to_owned(), |word| clipped(&word))
}

/// For how many seconds writers would wait for a copy, and of which file.
fn lock(text: &str) -> Option<Failure> {
    let (seconds, path) = text.split_once(' ')?;
    let seconds: u64 = seconds.parse().ok()?;
    let failure = Failure::unconfirmed(format!(
        "the app could not write to {} for about {seconds} s while it is copied: it is not in WAL mode",
        clipped(path)
    ));
    Some(failure.hint(format!(
        "add --yes to pull it nevertheless, or set max-lock = \"{}s\" in xtask/db.toml",
        seconds + 1
    )))
}

/// What the script says on its standard error, in the middle of what it sends, and the
/// next thing to do about it.
pub fn failed_midway(said: &str) -> Option<Failure> {
    said.contains("prepare-pull: comparing failed").then(|| {
        Failure::new(format!("nothing was changed{}", quoted(said)))
            .hint("fetch all of each database: cargo xtask pull-db --full")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_new_each_time() {
        assert_ne!(nonce(), nonce());
        assert_eq!(nonce().len(), 16);
    }

    #[test]
    fn a_value_with_a_newline_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("db.toml");
        std::fs::write(&config, "").unwrap();
        let settings = Settings::load(Some(&config), None).unwrap();
        for directory in ["/data\nend", "", "/data\x1b"] {
            let request = Request {
                nonce: nonce(),
                mode: Mode::Stream,
                directory,
                only: None,
                sanitize: true,
                max_lock: None,
                bases: Vec::new(),
            };
            assert!(request.render(&settings).is_err(), "{directory:?}");
        }
    }
}
