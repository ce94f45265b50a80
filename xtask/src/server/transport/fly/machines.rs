//! The machines of a Fly.io app.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Deserializer};
use xshell::{Shell, cmd};

use super::{Target, program, run};
use crate::error::{Choice, Failure, Reason};
use crate::interrupt;
use crate::server::protocol::clipped;
use crate::server::transport::plain_word;
use crate::ui::{Ui, count, escape};

/// How long a machine may take to start.
const START: Duration = Duration::from_secs(60);
/// How long `fly` may take to list the machines, or to start one.
const LIST: Duration = Duration::from_secs(60);
/// The same where the answer only improves a message.
const LIST_AFTER_CUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(500);

/// Groups of machines that fly makes for one command; starting one runs the command again.
const RESERVED: [&str; 3] =
    ["fly_app_release_command", "fly_app_console", "fly_app_test_machine_command"];

/// The fields of `fly machine list --json` that are used.
#[derive(Deserialize)]
struct Machine {
    id: String,
    #[serde(default, deserialize_with = "or_empty")]
    name: String,
    #[serde(default, deserialize_with = "or_empty")]
    state: String,
    #[serde(default, deserialize_with = "or_empty")]
    region: String,
    #[serde(default, deserialize_with = "or_empty")]
    private_ip: String,
    config: Option<Config>,
    /// Set if the machine's host does not answer.
    incomplete_config: Option<Config>,
}

/// A text, or nothing for `null`.
fn or_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Default, Deserialize)]
struct Config {
    env: Option<Environment>,
    metadata: Option<Metadata>,
    mounts: Option<Vec<Mount>>,
}

#[derive(Deserialize)]
struct Mount {
    #[serde(default)]
    volume: String,
    path: String,
}

#[derive(Default, Deserialize)]
struct Environment {
    #[serde(rename = "FLY_PROCESS_GROUP")]
    group: Option<String>,
    #[serde(rename = "RELEASE_COMMAND")]
    release_command: Option<String>,
}

#[derive(Default, Deserialize)]
struct Metadata {
    fly_process_group: Option<String>,
    /// Set by old versions of flyctl.
    process_group: Option<String>,
}

impl Machine {
    fn config(&self) -> Option<&Config> {
        self.config.as_ref().or(self.incomplete_config.as_ref())
    }

    fn group(&self) -> Option<&str> {
        let config = self.config()?;
        let metadata = config.metadata.as_ref();
        let group =
            metadata.and_then(|m| m.fly_process_group.as_ref().or(m.process_group.as_ref()));
        group.or_else(|| config.env.as_ref()?.group.as_ref()).map(String::as_str)
    }

    /// Whether it serves the app, by flyctl's rules.
    fn is_active(&self) -> bool {
        let environment = self.config().and_then(|config| config.env.as_ref());
        let releases = environment.is_some_and(|env| env.release_command.is_some());
        let reserved = self
            .group()
            .is_some_and(|group| RESERVED.contains(&group) || group == "release_command");
        !releases && !reserved && !["destroyed", "destroying"].contains(&self.state.as_str())
    }

    fn fits(&self, target: &Target) -> bool {
        target.machine.as_ref().is_none_or(|id| *id == self.id)
            && target.region.as_ref().is_none_or(|region| *region == self.region)
            && target.process_group.as_deref().is_none_or(|wanted| Some(wanted) == self.group())
    }

    /// Its volume that has the databases of `directory`.
    fn volume(&self, directory: &str) -> Option<&str> {
        let mounts = self.config()?.mounts.as_ref()?;
        let holds = |mount: &&Mount| std::path::Path::new(directory).starts_with(&mount.path);
        mounts.iter().find(holds).map(|mount| mount.volume.as_str())
    }

    /// Tells it from other machines.
    fn choice(&self, directory: &str) -> Choice {
        let volume = self.volume(directory).map(|volume| format!(", volume {volume}"));
        let Self { id, name, region, state, .. } = self;
        let group = self.group().filter(|group| *group != "app");
        let group = group.map(|group| format!(", group {group}")).unwrap_or_default();
        let line = format!("{id}  {name}, {region}, {state}{}{group}", volume.unwrap_or_default());
        Choice { id: id.clone(), line: escape(&line).replace('\n', "?") }
    }

    fn can_start(&self) -> bool {
        ["stopped", "suspended", "created"].contains(&self.state.as_str())
    }

    /// Its state as a sentence, and a hint.
    fn sentence(&self, app: &str) -> (String, String) {
        let id = &self.id;
        let wait = "run the same command again in a moment".to_owned();
        let start = "cargo xtask pull-db --start".to_owned();
        let (is, hint) = match self.state.as_str() {
            "created" => ("was created and never started", start),
            "starting" => ("is starting", wait),
            "stopping" => ("is stopping", start),
            "stopped" => ("is stopped", start),
            "suspending" => ("is being suspended", start),
            "suspended" => ("is suspended", start),
            "replacing" => {
                ("is being replaced by a deploy", format!("wait for it: fly status --app {app}"))
            }
            "failed" => ("has failed to start", format!("fly logs --app {app} --machine {id}")),
            state => {
                let is = format!("machine {id} is in the state {}", escape(state));
                return (is, format!("fly machine status {id} --app {app}"));
            }
        };
        (format!("machine {id} {is}"), hint)
    }
}

/// A machine that was started for a pull.
pub struct Started {
    id: String,
    suspended: bool,
}

impl Started {
    /// Restores its earlier state, even after a Ctrl-C.
    pub fn stop(self, ui: &Ui, sh: &Shell, target: &Target) {
        let (app, id) = (&target.app, &self.id);
        let verb = if self.suspended { "suspend" } else { "stop" };
        let _working = ui.working("Stopping", format!("machine {id} of {app}"));
        let stopped = program(sh).and_then(|fly| {
            Ok(interrupt::finish(cmd!(sh, "{fly} machine {verb} {id} --app {app}"))?)
        });
        if !stopped.is_ok_and(|output| output.status.success()) {
            ui.warn(format!(
                "machine {id} of {app} could not be stopped again: it may still be running"
            ));
            ui.hint(format!("fly machine {verb} {id} --app {app}"));
        }
    }
}

/// The machines that match `target`, in the order in which `fly` tries them.
fn fitting(sh: &Shell, target: &Target, limit: Duration) -> Result<Vec<Machine>> {
    let listed = run(sh, target, &["machine", "list", "--json"], limit)?;
    let machines: Vec<Machine> = serde_json::from_str(&listed)
        .with_context(|| format!("`fly machine list` printed {}", escape(&clipped(&listed))))?;
    let usable =
        |one: &Machine| plain_word(&one.id, "-").is_ok() && one.is_active() && one.fits(target);
    Ok(machines.into_iter().filter(usable).collect())
}

/// Those of the machines that have a volume with the databases; all, if none has.
fn holding(machines: Vec<Machine>, target: &Target) -> Vec<Machine> {
    let directory = &target.directory;
    let (holding, others): (Vec<_>, Vec<_>) =
        machines.into_iter().partition(|one| one.volume(directory).is_some());
    if holding.is_empty() { others } else { holding }
}

/// The machine to pull from, if `fly` had to choose one of several that are started.
///
/// # Errors
///
/// Several of them may be meant, or the one with the databases is not started.
pub fn choose(sh: &Shell, target: &Target) -> Result<String> {
    let machines = holding(fitting(sh, target, LIST)?, target);
    let (started, others): (Vec<_>, Vec<_>) =
        machines.into_iter().partition(|one| one.state == "started");
    match &started[..] {
        [] => Err(not_started(target, &others).into()),
        [one] => Ok(one.id.clone()),
        several => Err(ambiguous(several.iter(), target).into()),
    }
}

/// The machine whose host calls itself `host`, as LiteFS names the primary.
///
/// # Errors
///
/// No machine of the app does.
pub fn of_host(sh: &Shell, target: &Target, host: &str) -> Result<String> {
    let all = Target { machine: None, region: None, ..target.clone() };
    let machines = fitting(sh, &all, LIST)?;
    let is_it = |one: &Machine| [&one.id, &one.name, &one.private_ip].iter().any(|it| *it == host);
    machines.into_iter().find(is_it).map(|one| one.id).ok_or_else(|| {
        let app = &target.app;
        let what =
            format!("LiteFS names {} as the primary, which is no machine of {app}", escape(host));
        Failure::new(what).hint("name the primary's machine with --machine").into()
    })
}

fn ambiguous<'a>(machines: impl Iterator<Item = &'a Machine>, target: &Target) -> Failure {
    let choices: Vec<_> = machines.map(|one| one.choice(&target.directory)).collect();
    let listed: String = choices.iter().map(|choice| format!("\n  {}", choice.line)).collect();
    let (several, app) = (count(choices.len(), "machine"), &target.app);
    let what =
        format!("{app} has {several}, each with files of its own; nothing was changed{listed}");
    Failure::usage(what)
        .hint("choose one with --machine ID, or with `machine` or `region` in xtask/db.toml")
        .hint("if all have the same databases: any-machine = true there")
        .because(Reason::Ambiguous(choices))
}

/// Starts a machine that matches `target`, unless one is started, and waits for it.
///
/// # Errors
///
/// `fly` failed, no machine matches, or it does not start.
pub fn start(ui: &Ui, sh: &Shell, target: &Target) -> Result<Option<Started>> {
    let mut started = None;
    let outcome = start_one(ui, sh, target, &mut started);
    let Err(error) = outcome else { return Ok(started) };
    let Some(started) = started else { return Err(error) };
    let (id, app) = (started.id.clone(), &target.app);
    started.stop(ui, sh, target);
    if interrupt::is_asked() {
        return Err(error);
    }
    let failure = format!("machine {id} was told to start, but did not report that it has");
    Err(Failure::new(failure).hint(format!("fly machine status {id} --app {app}")).over(error))
}

fn start_one(ui: &Ui, sh: &Shell, target: &Target, started: &mut Option<Started>) -> Result<()> {
    let deadline = Instant::now() + START;
    let mut _working = None;
    loop {
        let machines = holding(fitting(sh, target, LIST)?, target);
        let one_of =
            |states: &[&str]| machines.iter().find(|one| states.contains(&one.state.as_str()));
        if one_of(&["started"]).is_some() {
            return Ok(());
        }
        let late = Instant::now() > deadline;
        let begun = started.is_some() || one_of(&["starting"]).is_some();
        let moves = one_of(&["stopping", "suspending", "replacing"]).is_some();
        let startable: Vec<_> = machines.iter().filter(|one| one.can_start()).collect();
        if !begun && startable.len() > 1 && !target.any {
            return Err(ambiguous(startable.into_iter(), target).into());
        }
        if let (false, Some(one)) = (begun, startable.first()) {
            let id = one.id.clone();
            _working = Some(ui.working("Starting", format!("machine {id} of {}", target.app)));
            *started = Some(Started { id: id.clone(), suspended: one.state == "suspended" });
            run(sh, target, &["machine", "start", &id], LIST + START)?;
        } else if late || !begun && !moves {
            return Err(not_started(target, &machines).into());
        } else if _working.is_none() {
            _working = Some(ui.working("Waiting", format!("for a machine of {}", target.app)));
        }
        interrupt::sleep(POLL)?;
    }
}

fn not_started(target: &Target, machines: &[Machine]) -> Failure {
    let app = &target.app;
    match machines.first() {
        None => Failure::new(format!("the app {app} has no such machine"))
            .hint(format!("fly machine list --app {app}")),
        Some(first) => {
            let (is, hint) = first.sentence(app);
            let failure = Failure::new(format!("no machine of {app} has started: {is}"));
            failure.hint(hint).because(reason(machines))
        }
    }
}

/// Whether one of the machines could be started, and which, if there is no choice.
fn reason(machines: &[Machine]) -> Reason {
    let startable: Vec<_> = machines.iter().filter(|one| one.can_start()).collect();
    match startable[..] {
        [] => Reason::Other,
        [one] => Reason::Stopped(Some(one.id.clone())),
        _ => Reason::Stopped(None),
    }
}

/// Why no machine is started, if the list of machines tells: a sentence, a hint, and whether one
/// could be.
pub fn why_none(sh: &Shell, target: &Target) -> Option<(String, String, Reason)> {
    let machines = holding(fitting(sh, target, LIST).ok()?, target);
    let first = machines.iter().find(|one| one.state != "started")?;
    let (is, hint) = first.sentence(&target.app);
    Some((is, hint, reason(&machines)))
}

/// What became of the machine of a pull that was cut, if it is not started any more.
pub fn why_cut(sh: &Shell, target: &Target, machine: Option<&str>) -> Option<String> {
    let machines = fitting(sh, target, LIST_AFTER_CUT).ok()?;
    let it = match machine {
        Some(id) => machines.iter().find(|one| one.id == id)?,
        None if machines.iter().any(|one| one.state == "started") => return None,
        None => machines.first()?,
    };
    let stops = ["stopping", "stopped", "suspending", "suspended"];
    stops.contains(&it.state.as_str()).then(|| it.sentence(&target.app).0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_of_a_release_is_known_by_any_of_its_marks() {
        let is_active = |config: &str| {
            let machine = format!(r#"{{"id":"1","state":"stopped","config":{config}}}"#);
            serde_json::from_str::<Machine>(&machine).unwrap().is_active()
        };
        for config in [
            r#"{"metadata":{"fly_process_group":"fly_app_release_command"}}"#,
            r#"{"metadata":{"process_group":"release_command"}}"#,
            r#"{"env":{"FLY_PROCESS_GROUP":"fly_app_console"}}"#,
            r#"{"env":{"RELEASE_COMMAND":"1"}}"#,
        ] {
            assert!(!is_active(config), "{config}");
        }
        for config in ["null", "{}", r#"{"metadata":{"fly_process_group":"app"}}"#] {
            assert!(is_active(config), "{config}");
        }
    }
}
