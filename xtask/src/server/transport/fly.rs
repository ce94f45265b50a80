//! Specific to Fly.io: machines, and the messages of `fly`.

mod machines;
pub mod messages;

use std::time::Duration;

use anyhow::{Context as _, Result};
use xshell::{Cmd, Shell, cmd};

pub use self::machines::{Started, choose, of_host, start as start_machine, why_cut};
pub use self::messages::{error_of, killed};
use super::{AGAIN, Ended, Via, offline, was_cut};
use crate::error::Failure;
use crate::interrupt;
use crate::server::programs::find;

/// How long `fly` may take for its own version or account.
const ASK: Duration = Duration::from_secs(10);

/// The machine of a Fly.io app, as given to `fly ssh`.
#[derive(Clone, Debug, Default)]
pub struct Target {
    pub app: String,
    pub machine: Option<String>,
    pub region: Option<String>,
    pub process_group: Option<String>,
    pub container: Option<String>,
    /// Where the databases are on the machine.
    pub directory: String,
    /// Whether any of several machines will do.
    pub any: bool,
}

impl Target {
    pub(super) fn flags(&self) -> Vec<String> {
        [vec!["--app".to_owned(), self.app.clone()], self.choice()].concat()
    }

    pub(super) fn peer(&self) -> String {
        format!("{} on Fly.io", self.app)
    }

    /// Chooses a machine. What chose among several, such as a region, was for the first attempt.
    pub fn pin(&mut self, machine: String) {
        self.machine = Some(machine);
        (self.region, self.process_group) = (None, None);
    }

    /// Whether nobody has said which of several machines is meant.
    pub fn is_open(&self) -> bool {
        self.machine.is_none() && !self.any
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

/// The version of `fly`, and the account that is logged in: none also where nobody can be asked, and for
/// some kinds of tokens.
pub fn version(sh: &Shell) -> Result<(Option<String>, Option<String>)> {
    let fly = program(sh)?;
    let ask = |command: Cmd<'_>| {
        let mut waited = Duration::ZERO;
        let output = interrupt::output_unless(command, |wait| {
            waited += wait;
            waited > ASK
        });
        let output = output.with_context(|| format!("cannot run `{fly}`"))?;
        let output = output.filter(|output| output.status.success());
        anyhow::Ok(output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()))
    };
    let version = ask(cmd!(sh, "{fly} version --json"))?.and_then(|said| {
        let said: serde_json::Value = serde_json::from_str(&said).ok()?;
        Some(said.get("Version")?.as_str()?.trim_start_matches('v').to_owned())
    });
    let account = ask(cmd!(sh, "{fly} auth whoami"))?.map(|said| said.trim().to_owned());
    Ok((version, account.filter(|account| !account.is_empty() && !account.contains('\n'))))
}

/// Runs a short `fly` command, at most for `limit`; returns what it printed.
fn run(sh: &Shell, target: &Target, args: &[&str], limit: Duration) -> Result<String> {
    let (fly, app) = (program(sh)?, &target.app);
    let (command, mut waited) = (cmd!(sh, "{fly} {args...} --app {app}"), Duration::ZERO);
    let output = interrupt::output_unless(command, |wait| {
        waited += wait;
        waited > limit
    });
    let output = output.with_context(|| format!("cannot run `{fly}`"))?.ok_or_else(|| {
        let what = format!("`{fly} {}` did not end within {} s", args.join(" "), limit.as_secs());
        Failure::new(what).hint(AGAIN)
    })?;
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
        && let Some((is, hint, reason)) = machines::why_none(sh, target)
    {
        return Failure::new(format!("{failure}\n  {is}")).hint(hint).because(reason);
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
