//! Specific to Fly.io: machines, and the messages of `fly`.

mod machines;
pub mod messages;

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};

pub use self::machines::{Started, start as start_machine};
pub use self::messages::{error_of, killed};
use super::{AGAIN, Ended, Via, offline, was_cut};
use crate::error::Failure;
use crate::interrupt;
use crate::server::programs::find;

/// The machine of a Fly.io app, as given to `fly ssh`.
#[derive(Clone, Debug, Default)]
pub struct Target {
    pub app: String,
    pub machine: Option<String>,
    pub region: Option<String>,
    pub process_group: Option<String>,
    pub container: Option<String>,
}

impl Target {
    pub(super) fn flags(&self) -> Vec<String> {
        [vec!["--app".to_owned(), self.app.clone()], self.choice()].concat()
    }

    pub(super) fn peer(&self) -> String {
        format!("{} on Fly.io", self.app)
    }

    /// The flags that select among the machines of the app.
    pub fn choice(&self) -> Vec<String> {
        let mut flags = Vec::new();
        for (flag, value) in [
            ("--machine", &self.machine),
            ("--region", &self.region),
            ("--process-group", &self.process_group),
            ("--container", &self.container),
        ] {
            if let Some(value) = value {
                flags.extend([flag.to_owned(), value.clone()]);
            }
        }
        flags
    }
}

/// The program has two names, and some systems have only one of them.
pub fn program(sh: &Shell) -> Result<&'static str> {
    ["fly", "flyctl"].into_iter().find(|name| find(sh, name).is_some()).ok_or_else(|| {
        Failure::new("neither `fly` nor `flyctl` is on the PATH")
            .hint("install it (https://fly.io/docs/flyctl/install), then: fly auth login")
            .into()
    })
}

/// Runs a short `fly` command; returns what it printed.
fn run(sh: &Shell, target: &Target, args: &[&str]) -> Result<String> {
    let (fly, app) = (program(sh)?, &target.app);
    let output = interrupt::output(cmd!(sh, "{fly} {args...} --app {app}"))
        .with_context(|| format!("cannot run `{fly}`"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let ended = Ended::from(output);
        let offline = offline::diagnose(&Via::Fly, &target.peer(), &ended.said);
        Err(offline.unwrap_or_else(|| messages::explain(app, &ended)).into())
    }
}

/// The failure that `fly` printed, with a hint.
pub(super) fn explain(sh: &Shell, target: &Target, ended: &Ended) -> Failure {
    let failure = messages::explain(&target.app, ended);
    if messages::is_not_started(&ended.said)
        && let Some((is, hint)) = machines::why_none(sh, target)
    {
        return Failure::new(format!("{failure}\n  {is}")).hint(hint);
    }
    failure
}

/// The same for a file transfer.
pub(super) fn explain_fetch(app: &str, ended: &Ended, bytes: u64) -> Failure {
    if bytes > 0 {
        return was_cut(bytes, "", &error_of(&ended.said).unwrap_or_default()).hint(AGAIN);
    }
    messages::explain(app, ended)
}
