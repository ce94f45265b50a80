//! What the server's script says when it fails, and the next thing to do about it.

use crate::error::Failure;
use crate::sanitize::unmatched::Unmatched;
use crate::server::protocol::clipped;
use crate::server::transport::quoted;

pub const ADVICE_ON_LEAKS: &str = "add a [[sanitize]] rule for the column that still has it, or `leak-check = false` to the rule if it \
     may stay there";

/// What the script says when it gives up, and the next thing to do about it.
pub fn failure(code: &str, text: &str) -> Failure {
    let failure = Failure::new(format!("the remote script failed: {}", clipped(text)));
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
            failure.hint("fix the [[sanitize]] rules in xtask/db.toml; nothing was sent")
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
        "unreadable" => failure.hint("if it is not a database, add it to exclude in xtask/db.toml"),
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
