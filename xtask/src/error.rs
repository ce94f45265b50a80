//! Errors for users: the failure, the next command to type, and the exit code.

use std::fmt;

/// The exit code of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Failed = 1,
    Usage = 2,
    /// Declined at a prompt, or interrupted.
    Declined = 130,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error with hints, which are printed after the chain of causes. It can also be the `context`
/// of another error, whose hints [`Failure::over`] keeps.
#[derive(Debug)]
pub struct Failure {
    message: String,
    hints: Vec<String>,
    exit: Exit,
    reason: Reason,
}

/// A failure after which a command can do something else than report it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reason {
    #[default]
    Other,
    /// The server cannot be reached from here, and received no request.
    Offline,
    /// The connection ended too early.
    Cut,
    /// A user has answered a question with no, or not at all.
    Cancelled,
    /// A user has to confirm first.
    Unconfirmed,
    /// No machine of the app is started, and one can be: this one, if it is the only one.
    Stopped(Option<String>),
    /// The app has several machines that may be meant.
    Ambiguous(Vec<Choice>),
    /// The databases are on this machine, and another was asked.
    Elsewhere(String),
}

/// A machine to choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub id: String,
    /// A line that tells it from others.
    pub line: String,
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hints: Vec::new(),
            exit: Exit::Failed,
            reason: Reason::Other,
        }
    }

    #[must_use]
    pub fn because(self, reason: Reason) -> Self {
        Self { reason, ..self }
    }

    /// The command line or the settings are wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::new(message) }
    }

    /// The user did not want it: nothing has failed.
    pub fn cancelled() -> Self {
        Self::declined("Cancelled; nothing changed").because(Reason::Cancelled)
    }

    pub fn declined(message: impl Into<String>) -> Self {
        Self { exit: Exit::Declined, ..Self::new(message) }
    }

    /// Adds the next step, most often a command to type.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Makes this the context of `error`, whose hints come first.
    pub fn over(mut self, error: anyhow::Error) -> anyhow::Error {
        self.hints.splice(0..0, hints(&error).into_iter().map(str::to_owned));
        error.context(self)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The messages of `error`, outermost first, without one that repeats the end of the one before.
pub fn chain(error: &anyhow::Error) -> Vec<String> {
    let mut messages: Vec<String> = Vec::new();
    // SQLite's error code repeats the message above it.
    for cause in error.chain().filter(|cause| !cause.is::<rusqlite::ffi::Error>()) {
        let message = match cause.downcast_ref() {
            // Its own message has the whole statement, which no user wrote.
            Some(rusqlite::Error::SqlInputError { msg, .. }) => msg.clone(),
            _ => cause.to_string(),
        };
        if !messages.last().is_some_and(|last| last.ends_with(&message)) {
            messages.push(message);
        }
    }
    messages
}

/// The next steps, the most likely one first.
pub fn hints(error: &anyhow::Error) -> Vec<&str> {
    let failure = error.downcast_ref::<Failure>();
    let hints: Vec<_> =
        failure.iter().flat_map(|failure| &failure.hints).map(String::as_str).collect();
    match hints.is_empty() {
        true if is_disk_full(error) => vec![MAKE_ROOM],
        true if is_forbidden(error) => vec![CHANGE_USER],
        _ => hints,
    }
}

/// Adds a hint to a failure, after those that it has.
pub fn with_hint(mut error: anyhow::Error, hint: &str) -> anyhow::Error {
    if let Some(failure) = error.downcast_mut::<Failure>() {
        failure.hints.push(hint.to_owned());
    }
    error
}

/// The first hint.
pub fn hint(error: &anyhow::Error) -> Option<&str> {
    hints(error).first().copied()
}

const MAKE_ROOM: &str = "if the disk is full: cargo xtask snapshots prune --keep 3";

const CHANGE_USER: &str = "this user has no permission: run the command as the owner of that file (ls -l), or change the owner with chown";

/// Whether an I/O error of this kind is among the causes.
pub fn has_io(error: &anyhow::Error, kind: std::io::ErrorKind) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref().is_some_and(|it: &std::io::Error| it.kind() == kind))
}

/// Whether access to a file was denied.
pub fn is_forbidden(error: &anyhow::Error) -> bool {
    has_io(error, std::io::ErrorKind::PermissionDenied)
}

/// Any step may find the disk full. SQLite has its own error codes for this, and says only that a
/// write failed if it cannot create a `-shm`.
pub fn is_disk_full(error: &anyhow::Error) -> bool {
    use rusqlite::ErrorCode::{DiskFull, SystemIoFailure};
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};

    let sqlite = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref().and_then(rusqlite::Error::sqlite_error_code)
    };
    let is_full = |cause| matches!(sqlite(cause), Some(DiskFull | SystemIoFailure));
    has_io(error, StorageFull) || has_io(error, QuotaExceeded) || error.chain().any(is_full)
}

pub fn exit(error: &anyhow::Error) -> Exit {
    error.downcast_ref::<Failure>().map_or(Exit::Failed, |failure| failure.exit)
}

/// The reason of the failure that `error` itself is, without another failure on top of it.
pub fn reason(error: &anyhow::Error) -> &Reason {
    error.downcast_ref::<Failure>().map_or(&Reason::Other, |failure| &failure.reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn a_failure_keeps_its_hint_and_exit_below_and_above_a_context() {
        let below = Err::<(), _>(Failure::usage("no app").hint("--app"))
            .context("cannot pull")
            .unwrap_err();
        assert_eq!(chain(&below), ["cannot pull", "no app"]);
        assert_eq!(hint(&below), Some("--app"));
        assert_eq!(exit(&below), Exit::Usage);

        let above = Err::<(), _>(std::io::Error::other("disk full"))
            .context(Failure::new("cannot write x").hint("free space"))
            .unwrap_err();
        assert_eq!(chain(&above), ["cannot write x", "disk full"]);
        assert_eq!(hint(&above), Some("free space"));
    }

    #[test]
    fn a_failure_over_another_keeps_its_hints() {
        let cause = anyhow::Error::from(Failure::new("it is open").hint("stop it"));
        let error = Failure::new("not replaced").hint("go on").over(cause.context("cannot lock"));
        assert_eq!(chain(&error), ["not replaced", "cannot lock", "it is open"]);
        assert_eq!(hints(&error), ["stop it", "go on"]);
    }

    #[test]
    fn a_full_disk_has_a_hint_wherever_it_is_found() {
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let error = Err::<(), _>(full()).context("cannot write x").unwrap_err();
        assert_eq!(hint(&error), Some(MAKE_ROOM));
        let error = error.context(Failure::new("not replaced").hint("go on"));
        assert_eq!(hint(&error), Some("go on"));
        let db = rusqlite::Connection::open_in_memory().unwrap();
        db.execute_batch("PRAGMA max_page_count = 1").unwrap();
        let error = db.execute_batch("CREATE TABLE t (a); CREATE TABLE u (a)").unwrap_err();
        assert_eq!(hint(&error.into()), Some(MAKE_ROOM));
    }

    #[test]
    fn offline_is_what_failed_itself_and_not_its_cause() {
        let offline = || Err::<(), _>(Failure::new("no network").because(Reason::Offline));
        let other = Failure::new("it was cut");
        assert_eq!(reason(&offline().context("cannot pull").unwrap_err()), &Reason::Offline);
        assert_eq!(reason(&offline().context(other).unwrap_err()), &Reason::Other);
    }

    #[test]
    fn of_an_sql_error_only_what_is_wrong_is_said() {
        let db = rusqlite::Connection::open_in_memory().unwrap();
        let error = db.execute("SELECT * FROM gone", []).unwrap_err();
        assert_eq!(chain(&error.into()), ["no such table: gone"]);
    }
}
