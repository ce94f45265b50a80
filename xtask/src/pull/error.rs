//! The causes of failed pulls, each with a message and the next command.

use std::path::{Path, PathBuf};

use crate::config::NamePattern;
use crate::error::{self, Failure, Reason};
use crate::interrupt::{self, Interrupted};
use crate::sanitize::Rule;
use crate::sanitize::audit::{Findings, Of};
use crate::sanitize::unmatched::{self, Unmatched};
use crate::server::protocol::{self, clipped};
use crate::server::request::{Mode, Request};
use crate::server::transport::{Ended, Transport};
use crate::ui::bytes;

pub const ADVICE_ON_LEAKS: &str = "add a [[sanitize]] rule for the column that still has them (cargo xtask init proposes one), or \
     `leak-check = false` to the rule if they may stay there";

const FREE_SOME: &str = "free space: cargo xtask snapshots prune --keep 3";
const LOOK_AT_ALL: &str = "run the same command again, with -v to see what the server says";

#[derive(Debug)]
pub enum PullError {
    /// The stream is incomplete or malformed; the session finds the cause.
    Stream(protocol::Error),
    /// The remote script failed, with a code and a text.
    Script { code: String, text: String },
    /// The audit found columns that no rule covers.
    Audit(Findings),
    /// The connected program ended before the stream began.
    NoStream(Ended),
    /// The connected program ended before the end record of this machine.
    Cut(Ended, Option<String>),
    /// Neither the stream nor the connected program sent anything for too long.
    Stalled,
    /// The received data is not what our script sends.
    Refused(String),
    /// The server did not apply rules, though requested.
    NotSanitized,
    /// Databases that were requested again still have the wrong hash.
    Incomplete,
    /// The sizes are in bytes.
    DiskTooSmall { needed: u64, free: u64 },
    /// A database has the right hash, but is corrupt on the server too.
    DamagedThere(anyhow::Error),
    /// A database was corrupted on this disk.
    DamagedHere(PathBuf, anyhow::Error),
    /// The databases are on this machine, and another was asked.
    Elsewhere(String),
    /// The archive could not be fetched, or no machine was chosen, for a reason that is explained
    /// already.
    Explained(anyhow::Error),
    /// Any other error, which has a message of its own.
    Other(anyhow::Error),
}

impl From<protocol::Error> for PullError {
    fn from(error: protocol::Error) -> Self {
        Self::Stream(error)
    }
}

impl From<anyhow::Error> for PullError {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl From<std::io::Error> for PullError {
    fn from(error: std::io::Error) -> Self {
        Self::Other(error.into())
    }
}

impl PullError {
    /// Whether what arrived is of no use, or must not stay: the next pull does not resume from it.
    /// The other errors are of the connection or the server, or come before any data.
    pub fn spoils_data(&self) -> bool {
        match self {
            Self::NotSanitized | Self::DamagedThere(_) | Self::DamagedHere(..) => true,
            // An interrupted read is an error of the stream.
            Self::Refused(_) | Self::Incomplete => !interrupt::is_asked(),
            // Of this disk, or a rule is unmatched, and so did not remove what it should.
            Self::Other(error) => !error.root_cause().is::<Interrupted>(),
            _ => false,
        }
    }

    /// The error to show for a pull by `request` into `dir`, after `wire` received bytes.
    pub fn explain(
        self,
        transport: &Transport<'_>,
        request: &Request<'_>,
        dir: &Path,
        wire: u64,
    ) -> anyhow::Error {
        let failure = match self {
            Self::Script { code, text } if code == "no-databases" => no_databases(&text, request),
            Self::Script { code, text } if code == "no-directory" => {
                no_directory(&text, transport.is_local())
            }
            Self::Script { code, text } if code == "no-sqlite3" && transport.is_local() => {
                Failure::new(clipped(text.trim_end_matches(" on the server"))).hint(
                    "install it on this machine: apt-get install -y sqlite3, or apk add sqlite",
                )
            }
            Self::Script { code, text } if code == "no-match" => no_match(&text, request),
            Self::Script { code, text } => script(&code, &text, request.rules.applied()),
            Self::Audit(findings) => findings.refusal(Of::Refusal),
            Self::NoStream(ended) => transport.diagnose(&ended, wire),
            Self::Cut(ended, machine) => transport.cut(&ended, wire, machine.as_deref()),
            Self::Elsewhere(machine) => {
                Failure::new(format!("machine {machine} has the databases; nothing was changed"))
                    .hint(format!("cargo xtask pull-db --machine {machine}"))
                    .because(Reason::Elsewhere(machine))
            }
            Self::Stalled => transport.stalled(wire),
            Self::Refused(why) => Failure::new(format!(
                "the stream was refused: {}; nothing was changed",
                clipped(&why)
            ))
            .hint(LOOK_AT_ALL),
            Self::Stream(error) => Failure::new(format!("{error}; nothing was changed")),
            Self::NotSanitized => {
                Failure::new("the server did not apply the rules; nothing was changed")
                    .hint("run the same command again")
            }
            Self::Incomplete => Failure::new(
                "the server did not send every requested database; nothing was changed",
            )
            .hint(LOOK_AT_ALL),
            Self::DiskTooSmall { needed, free } => {
                let (needed, free, dir) = (bytes(needed), bytes(free), dir.display());
                Failure::new(format!(
                    "the disk of {dir} is full: {free} free, but the pull needs {needed}; nothing was changed"
                ))
                .hint(FREE_SOME)
            }
            Self::DamagedThere(error) => {
                return error.context(
                    Failure::new("a database is damaged on the server; nothing was changed")
                        .hint("on the server: sqlite3 FILE 'PRAGMA integrity_check'"),
                );
            }
            Self::DamagedHere(path, error) => {
                let what = format!("{} cannot be read back; nothing was changed", path.display());
                return error.context(Failure::new(what).hint("check whether this disk is broken"));
            }
            Self::Other(error) if error::is_disk_full(&error) => {
                let what = format!("the disk of {} is full; nothing was changed", dir.display());
                return error.context(Failure::new(what).hint(FREE_SOME));
            }
            Self::Explained(error) | Self::Other(error) => return error,
        };
        failure.into()
    }
}

fn no_directory(text: &str, is_local: bool) -> Failure {
    match text.strip_suffix(" on the server").filter(|_| is_local) {
        Some(text) => Failure::new(clipped(text)).hint("check the path after local:"),
        None => Failure::new(clipped(text))
            .hint("name another with --remote-dir, or remote-dir in xtask/db.toml"),
    }
}

fn no_databases(text: &str, request: &Request<'_>) -> Failure {
    if request.mode == Mode::Survey && request.only.is_none() {
        return Failure::new(clipped(text.trim_end_matches(" matches")))
            .hint("name the directory that has them: --remote-dir DIR, or --via local:DIR");
    }
    Failure::new(format!("{}: {}", clipped(text), selection(request)))
        .hint("check include and exclude in xtask/db.toml, and --only")
}

/// The failure of `--only`; the text has the names of databases that are there.
fn no_match(text: &str, request: &Request<'_>) -> Failure {
    let only = request.only.map_or("*", NamePattern::as_str);
    Failure::new(format!("--only '{only}' matches none of: {}", clipped(text)))
        .hint("name one of them, or use wildcards: --only 'tenant_*'")
}

/// Where to edit the rule that a text of the script names.
fn failed_rule(text: &str, rules: &[Rule]) -> String {
    let number = text
        .split(" rule ")
        .nth(1)
        .and_then(|text| text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
    match number {
        Some(number) => unmatched::place(rules, number),
        None => "the [[sanitize]] rules in xtask/db.toml".to_owned(),
    }
}

/// The patterns by which databases were selected.
fn selection(request: &Request<'_>) -> String {
    let list = |patterns: &[NamePattern]| {
        let texts: Vec<_> = patterns.iter().map(|one| format!("{:?}", one.as_str())).collect();
        format!("[{}]", texts.join(", "))
    };
    let names = &request.settings.names;
    let mut selection = format!("include = {}", list(&names.include));
    if !names.exclude.is_empty() {
        selection += &format!(", exclude = {}", list(&names.exclude));
    }
    if let Some(only) = request.only {
        selection += &format!(", --only {}", only.as_str());
    }
    selection
}

/// The failure for this code of the remote script.
fn script(code: &str, text: &str, rules: &[Rule]) -> Failure {
    let failure = Failure::new(clipped(text));
    match code {
        "unmatched-rule" => {
            Unmatched::parse(text).map_or(failure, |rule| rule.failure(rules, "nothing was sent"))
        }
        "damaged" => Failure::new(format!("{} is damaged on the server", clipped(text)))
            .hint(format!("on the server: sqlite3 {} 'PRAGMA integrity_check'", as_word(text))),
        "locked" => {
            Failure::new(format!("{} stayed locked for 10 s; nothing was sent", clipped(text)))
                .hint("run the same command again when the app's transaction has ended")
        }
        "rename" => failure.hint("in xtask/db.toml, `rename` one of them to something else"),
        "too-old" => failure.hint(
            "install a newer sqlite3 in the image: that of debian:bookworm is 3.40, of alpine:3.20 3.45",
        ),
        "no-sqlite3" => failure.hint(
            "add `apt-get install -y sqlite3` (or `apk add sqlite`) to the image and deploy it; \
             without an image, install it on that machine",
        ),
        "lock" => lock(text).unwrap_or(failure),
        "rights" => failure.hint(
            "connect as the app's user or as root, such as with --via ssh:root@HOST, or let that user read it",
        ),
        "no-database" => {
            failure.hint("add it to exclude in xtask/db.toml, or let include name the others")
        }
        "encrypted" => failure.hint(
            "add it to exclude in xtask/db.toml; with the key, the app can export it (sqlcipher_export)",
        ),
        "no-space" => failure
            .hint("free space, or set staging-dir in xtask/db.toml to a directory on a larger disk"),
        "no-memory" => failure
            .hint("set staging-dir in xtask/db.toml to a directory on a disk, such as \"/var/tmp\""),
        "sanitize" if text.contains(" tokenizer: ") => failure.hint(
            "name the table instead of `sql` (`table = \"…\"` with `set` or `delete`): then all of it is emptied; \
             nothing was sent",
        ),
        "sanitize" if text.contains("no such module: ") => failure.hint(
            "the server's sqlite3 lacks that module: write the rule for the tables in which it keeps its rows; \
             nothing was sent",
        ),
        "sanitize" if text.ends_with("no such column: rowid") => failure.hint(
            "a table WITHOUT ROWID has only its primary key: name that, such as fake(email, id); nothing was sent",
        ),
        "sanitize" => failure.hint(format!("edit {}; nothing was sent", failed_rule(text, rules))),
        "remains" => failure.hint(format!("{ADVICE_ON_LEAKS}; nothing was sent")),
        "no-number" => failure.hint(
            "run that program on the server; `cargo xtask pull-db -v` shows all that the server says",
        ),
        "outreach" => failure.hint(
            "find out where that comes from; to pull without the database, add it to exclude in xtask/db.toml",
        ),
        "compare" => Failure::new(format!("{failure}; nothing was changed"))
            .hint("fetch all of each database: cargo xtask pull-db --full"),
        "unfinished" => failure.hint("start the app, which rolls it back, and run the same command again"),
        "busy-alone" => failure.hint("pull while less is written"),
        "moving" => failure.hint("connect as that user, or pull while less is written"),
        "unreadable" => failure.hint("if it is not a database, add it to exclude in xtask/db.toml"),
        _ => failure,
    }
}

/// A path as one shell word, for a suggested command.
fn as_word(path: &str) -> String {
    shlex::try_quote(path).map_or_else(|_| "FILE".to_owned(), |word| clipped(&word))
}

/// The failure of a pull that would block writers for too long: `text` has seconds and path.
fn lock(text: &str) -> Option<Failure> {
    let (seconds, path) = text.split_once(' ')?;
    let seconds: u64 = seconds.parse().ok()?;
    let failure = Failure::usage(format!(
        "the app could not write to {} for about {seconds} s while it is copied: it is not in WAL mode",
        clipped(path)
    ));
    Some(failure.because(Reason::Unconfirmed).hint(format!(
        "add --yes to pull it nevertheless, or set max-lock = \"{}s\" in xtask/db.toml",
        seconds + 1
    )))
}
