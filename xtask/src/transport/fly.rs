//! What only Fly.io has: machines, and a program that explains its failures in
//! words.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use xshell::{Shell, cmd};

use super::{Via, offline, quoted};
use crate::error::Failure;
use crate::install::find;
use crate::interrupt;
use crate::ui::{Ui, escape};

/// How long a machine may take to start.
const START: Duration = Duration::from_secs(60);

/// Which machine of a Fly.io app: all that `fly ssh` can be told.
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

    /// Those that choose among the machines of the app.
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

/// `fly` has two names, and some systems have only one of them.
pub fn program(sh: &Shell) -> Result<&'static str> {
    ["fly", "flyctl"].into_iter().find(|name| find(sh, name).is_some()).ok_or_else(|| {
        Failure::new("neither `fly` nor `flyctl` is on the PATH")
            .hint("install it (https://fly.io/docs/flyctl/install), then: fly auth login")
            .into()
    })
}

/// What `fly machine list --json` says of one, as far as it matters here.
#[derive(Deserialize)]
struct Machine {
    id: String,
    state: String,
    region: String,
    #[serde(default)]
    config: Config,
}

#[derive(Default, Deserialize)]
struct Config {
    #[serde(default)]
    env: Environment,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
struct Environment {
    #[serde(rename = "FLY_PROCESS_GROUP")]
    group: Option<String>,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(rename = "fly_process_group")]
    group: Option<String>,
}

impl Machine {
    fn fits(&self, target: &Target) -> bool {
        let group = self.config.env.group.as_ref().or(self.config.metadata.group.as_ref());
        target.machine.as_ref().is_none_or(|id| *id == self.id)
            && target.region.as_ref().is_none_or(|region| *region == self.region)
            && target.process_group.as_ref().is_none_or(|wanted| Some(wanted) == group)
    }
}

/// Starts a machine that fits `target`, unless one is started, and waits for it.
///
/// # Errors
///
/// `fly` failed, no machine fits, or it does not start.
pub fn start_machine(ui: &Ui, sh: &Shell, target: &Target) -> Result<()> {
    let fitting = |states: &[&str]| -> Result<Option<String>> {
        let machines = machines(sh, target)?;
        let mut fitting = machines.iter().filter(|machine| machine.fits(target));
        Ok(fitting
            .find(|machine| states.contains(&machine.state.as_str()))
            .map(|machine| machine.id.clone()))
    };
    if fitting(&["started"])?.is_some() {
        return Ok(());
    }
    let Some(id) = fitting(&["stopped", "suspended"])? else {
        return Err(Failure::new(format!("the app {} has no such machine", target.app))
            .hint(format!("fly machine list --app {}", target.app))
            .into());
    };
    let id = super::checked(&id, "-")
        .map_err(|why| Failure::new(format!("{id:?} is no machine: {why}")))?;
    let _working = ui.working("Starting", format!("machine {id} of {}", target.app));
    start(sh, target, &id, || Ok(fitting(&["started"])?.is_some())).with_context(|| {
        Failure::new(format!("machine {id} was to be started, and it is not known to be"))
            .hint(format!("fly machine status {id} --app {}", target.app))
    })?;
    ui.hint(format!("it stays started; stop it with: fly machine stop {id} --app {}", target.app));
    Ok(())
}

fn start(
    sh: &Shell,
    target: &Target,
    id: &str,
    is_started: impl Fn() -> Result<bool>,
) -> Result<()> {
    run(sh, target, &["machine", "start", id])?;
    let deadline = Instant::now() + START;
    while !is_started()? {
        ensure!(Instant::now() < deadline, "it did not start within {} s", START.as_secs());
        interrupt::sleep(Duration::from_millis(500))?;
    }
    Ok(())
}

fn machines(sh: &Shell, target: &Target) -> Result<Vec<Machine>> {
    let listed = run(sh, target, &["machine", "list", "--json"])?;
    serde_json::from_str(&listed)
        .with_context(|| format!("`fly machine list` said {}", escape(&listed)))
}

/// Runs a short `fly` command; returns what it printed.
fn run(sh: &Shell, target: &Target, args: &[&str]) -> Result<String> {
    let (fly, app) = (program(sh)?, &target.app);
    let output = interrupt::output(cmd!(sh, "{fly} {args...} --app {app}"))
        .with_context(|| format!("cannot run `{fly}`"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        let offline = offline::diagnose(&Via::Fly, &target.peer(), &said);
        Err(offline.unwrap_or_else(|| explain(app, &said)).into())
    }
}

/// What `fly` said when it failed, and the next thing to do about it.
pub(super) fn explain(app: &str, said: &str) -> Failure {
    let has = |text: &str| said.to_lowercase().contains(text);
    let (message, hint) = if has("auth login") || has("no access token") || has("unauthorized") {
        ("fly is not logged in".to_owned(), "fly auth login".to_owned())
    } else if has("could not find app") {
        (
            format!("there is no app {app}, or this account may not see it"),
            "fly apps list".to_owned(),
        )
    } else if has("no started vms") {
        (format!("the app {app} has no started machine"), "cargo xtask pull-db --start".to_owned())
    } else if has("not found/started") || has("has no vms in") {
        (
            format!("the app {app} has no such started machine"),
            format!("fly machine list --app {app}"),
        )
    } else {
        return Failure::new(format!("the connection failed{}", quoted(said))).hint(format!(
            "try by hand: fly ssh console --app {app} --command 'sqlite3 --version'"
        ));
    };
    Failure::new(message + &quoted(said)).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_fly_have_a_next_step() {
        for (said, hint) in [
            (
                "Error: no access token available. Please login with 'flyctl auth login'",
                "fly auth login",
            ),
            ("Error: get app: Could not find App \"x\"", "fly apps list"),
            ("Error: app x has no started VMs.\nIt may be", "cargo xtask pull-db --start"),
            ("Error: --machine=\"1\" not found/started", "fly machine list --app x"),
        ] {
            let error = explain("x", said).into();
            assert_eq!(crate::error::hint(&error), Some(hint));
        }
    }
}
