use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use jiff::Timestamp;

use crate::config::{MaxAge, NamePattern, Settings};
use crate::context::Context;
use crate::error::{self, Failure, Reason};
use crate::live::{self, LockedLiveSet, Replaced, Replacement, State, prune};
use crate::pull::attempts::Attempts;
use crate::pull::base::Base;
use crate::pull::receive::{self, Planned, Pulled};
use crate::pull::report;
use crate::pull::spec::PullSpec;
use crate::sanitize::{EffectiveRules, unmatched};
use crate::server::request::{self, Mode, Request};
use crate::server::transport::{Target, Transport, Via, plain_word};
use crate::snapshots::{Kind, LockedStore, Meta, Origin, Snapshot, SnapshotBuilder, Store};
use crate::{dockerignore, git, interrupt};

/// Pull the databases of the app to this machine
///
/// Copy them on the server, all at one moment, mask secrets there, and receive
/// them over one connection. They become a snapshot and then the current data.
/// The previous data is saved as a snapshot too (`restore-db --undo`).
#[derive(clap::Args)]
pub struct Args {
    /// Pull from this Fly.io app [default: $FLY_APP, `app` in db.toml, `app` in fly.toml]
    #[arg(long, value_parser = app_name)]
    app: Option<String>,
    /// Pull from this machine [default: the one that has the volume]
    #[arg(long, value_name = "ID", value_parser = word)]
    machine: Option<String>,
    /// Pull from a machine in this region
    #[arg(long, value_parser = word)]
    region: Option<String>,
    /// Pull from a machine of this process group
    #[arg(long, value_name = "GROUP", value_parser = word)]
    process_group: Option<String>,
    /// Start a machine if none is started, and stop it afterwards
    #[arg(long)]
    start: bool,
    /// Pull from this container of the machine
    #[arg(long, value_parser = word)]
    container: Option<String>,
    /// Pull from this directory on the server [default: `remote-dir` in db.toml, the mount in fly.toml]
    #[arg(long, value_name = "DIR")]
    remote_dir: Option<String>,
    /// Pull from [source.NAME] of db.toml
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Pull only databases whose name matches
    #[arg(long, value_name = "GLOB", value_parser = NamePattern::anywhere)]
    only: Option<NamePattern>,
    /// Reach the server with fly, ssh:USER@HOST[:PORT], docker:CONTAINER, exec:COMMAND or local:DIR
    /// [default: `via` in db.toml, else fly]
    #[arg(long)]
    via: Option<Via>,
    /// Do not save the current data first
    #[arg(long)]
    no_backup: bool,
    /// Pull without masking secrets: ask first, and mark the databases as unmasked
    #[arg(long)]
    no_sanitize: bool,
    /// Fetch each database whole, also if an earlier pull has most of it
    #[arg(long)]
    full: bool,
    /// Show what a pull would bring, and change nothing
    #[arg(long, conflicts_with = "sftp")]
    dry_run: bool,
    /// Make an archive on the server, and fetch it with `fly ssh sftp get`
    #[arg(long)]
    sftp: bool,
    /// Skip the pull if the newest one of the same databases, with the same rules, is at
    /// most this old: 24h, 90m, 7d, 1h30m
    #[arg(long, value_name = "AGE", allow_hyphen_values = true)]
    if_older: Option<MaxAge>,
    /// Without a network, warn and exit with 0; a refused or cut connection is still
    /// an error
    #[arg(long)]
    offline_ok: bool,
}

impl Args {
    pub(crate) fn run(mut self, cx: &Context) -> Result<()> {
        let mut settings = cx.settings()?;
        if let Some(name) = &self.source {
            settings = settings.of_source(name)?;
        }
        self.only = self.only.map(|only| only.with(&settings.names.renames));
        let via = self.via.clone().or_else(|| settings.via.clone()).unwrap_or(Via::Fly);
        let directory = self.directory(&settings, &via)?;
        let transport = self.transport(cx, &settings, via, &directory)?;
        let spec = self.spec(&settings, &transport, &directory);
        let store = Store::of(&settings);
        // A set that is being replaced is checked again below, under the lock.
        if !live::is_being_replaced(&store)
            && let Ok(Some(fresh)) = spec.fresh(&store)
        {
            return report::fresh(&cx.ui, &spec, &fresh);
        }
        match self.pull(cx, &settings, transport, &spec) {
            Err(error) if self.offline_ok && *error::reason(&error) == Reason::Offline => {
                report::offline(&cx.ui, &error, &spec, &store)
            }
            outcome => outcome,
        }
    }

    fn pull(
        &self,
        cx: &Context,
        settings: &Settings,
        mut transport: Transport<'_>,
        spec: &PullSpec<'_>,
    ) -> Result<()> {
        if self.dry_run {
            return self.plan(cx, settings, transport, spec);
        }
        let start = Instant::now();
        if spec.rules.leave_secrets() {
            cx.ui.confirm("Pull production data without masking its secrets?")?;
        }

        let live = LockedLiveSet::lock(cx, settings, "cargo xtask pull-db")?;
        // Another command held the lock, and may have been a pull.
        if let Some(fresh) = spec.fresh(&live.store)? {
            return report::fresh(&cx.ui, spec, &fresh);
        }
        let databases = live.databases()?;
        warn_unless_ignored(cx, settings, &settings.data_dir, &databases);
        if let Some(shared) = live.store.shared() {
            warn_unless_ignored(cx, settings, shared, &databases);
        }
        let hint = match hint_at_sharing(settings) {
            Some(hint) if !live.store.list()?.iter().any(Snapshot::is_pull) => Some(hint),
            _ => None,
        };

        let mode = if self.sftp { Mode::Archive } else { Mode::Stream };
        let mut request = self.request(cx, settings, &transport, mode, spec)?;
        let origin = origin(settings, &transport.target.app, spec);
        let incoming = begin(&live.store, spec, &origin, &request.bases)?;
        let kept = if self.no_backup { 0 } else { live.bytes()? };
        let attempts = self.attempts(cx, settings);
        let pulled = attempts.run(&mut transport, &mut request, |transport, request| {
            receive::receive(&cx.ui, transport, request, incoming.path(), kept)
        });
        let pulled = pulled.map_err(|error| tell_of_leftover(&incoming, error))?;
        let seconds = start.elapsed().as_secs_f64();
        let meta = meta(cx, settings, spec, origin, &pulled, seconds);
        interrupt::check()?;
        let snapshot = incoming.commit(meta)?;
        let replaced = self.replace(&live, &snapshot)?;
        match prune::prune(&live.store, settings, settings.keep) {
            Ok(pruned) => prune::report(&cx.ui, &pruned, true),
            // Not an error: the pull itself succeeded.
            Err(error) => cx.ui.warn(format!("old snapshots were not pruned: {error:#}")),
        }
        let seconds = start.elapsed().as_secs_f64();
        report::pulled(&cx.ui, &transport, &pulled, &snapshot, &replaced, seconds)?;
        if self.only.is_none() {
            for tables in unmatched::idle_omits(spec.rules.applied(), &snapshot)? {
                cx.ui.warn(format!("omit: no database has a table {tables}"));
            }
        }
        if let Some(hint) = hint {
            cx.ui.hint(hint);
        }
        // The command may run this program.
        drop(live);
        let command = settings.hooks.after_pull.as_deref();
        live::report::run_after(cx, settings, "after-pull", command, &snapshot, &replaced)
    }

    /// Reports what a pull would transfer; takes no lock.
    fn plan(
        &self,
        cx: &Context,
        settings: &Settings,
        mut transport: Transport<'_>,
        spec: &PullSpec<'_>,
    ) -> Result<()> {
        let store = Store::of(settings);
        let mut request = self.request(cx, settings, &transport, Mode::DryRun, spec)?;
        let attempts = self.attempts(cx, settings);
        let planned = attempts.run(&mut transport, &mut request, |transport, request| {
            receive::plan(&cx.ui, transport, request, &settings.snapshots_dir)
        })?;
        let removes = self.would_remove(settings, &store, &planned)?;
        report::planned(&cx.ui, &transport, &planned, &removes)
    }

    /// The live databases that this pull would remove.
    fn would_remove(
        &self,
        settings: &Settings,
        store: &Store,
        planned: &Planned,
    ) -> Result<Vec<String>> {
        if self.only.is_some() || self.no_backup || !settings.data_dir.exists() {
            return Ok(Vec::new());
        }
        let brought = State::read(store)?.brought(store);
        let live = live::databases(&settings.data_dir, &settings.names)?;
        let set: Vec<_> = planned.databases.iter().map(|one| one.name.clone()).collect();
        Ok(live::missing(&live, &brought, &set))
    }

    fn attempts<'a>(&self, cx: &'a Context, settings: &'a Settings) -> Attempts<'a> {
        Attempts { ui: &cx.ui, settings, start: self.start }
    }

    fn request<'a>(
        &'a self,
        cx: &Context,
        settings: &'a Settings,
        transport: &Transport<'_>,
        mode: Mode,
        spec: &PullSpec<'a>,
    ) -> Result<Request<'a>> {
        let store = Store::of(settings);
        Ok(Request {
            max_lock: (!cx.ui.yes).then_some(settings.max_lock),
            nonce: request::nonce(),
            mode,
            any_machine: transport.is_fly() && transport.target.is_open(),
            settings,
            directory: transport.target.directory.clone(),
            only: self.only.as_ref(),
            rules: spec.rules,
            bases: if self.full { Vec::new() } else { spec.bases(&store)? },
        })
    }

    fn spec<'a>(
        &'a self,
        settings: &'a Settings,
        transport: &Transport<'_>,
        directory: &str,
    ) -> PullSpec<'a> {
        let rules = EffectiveRules::new(&settings.rules, !self.no_sanitize);
        PullSpec {
            source: transport.source(directory),
            name: settings.source.clone(),
            flags: transport.target.choice(),
            recipe: request::recipe(settings, rules),
            rules,
            only: self.only.as_ref(),
            if_older: self.if_older.as_ref(),
        }
    }

    fn transport<'a>(
        &self,
        cx: &'a Context,
        settings: &Settings,
        via: Via,
        directory: &str,
    ) -> Result<Transport<'a>> {
        let given = match via {
            Via::Fly if self.app.is_none() => settings.fly_app()?,
            _ => self.app.clone().or_else(|| settings.app.clone()),
        };
        let app = match (&via, &given) {
            (_, Some(app)) => app_name(app).map_err(|why| {
                Failure::usage(format!("{app:?} is not the name of an app: {why}"))
            })?,
            (Via::Fly, None) => {
                return Err(Failure::usage("no Fly.io app given")
                    .hint(settings.other_fly_configs().unwrap_or_else(|| {
                        "give --app, or set FLY_APP, `app` in xtask/db.toml, or `app` in fly.toml".to_owned()
                    }))
                    .into());
            }
            (_, None) => String::new(),
        };
        let for_fly = [
            ("--sftp", self.sftp),
            ("--start", self.start),
            ("--machine", self.machine.is_some()),
            ("--region", self.region.is_some()),
            ("--process-group", self.process_group.is_some()),
            ("--container", self.container.is_some()),
        ];
        if via != Via::Fly
            && let Some((flag, _)) = for_fly.iter().find(|(_, given)| *given)
        {
            return Err(Failure::usage(format!("{flag} works with `fly` only"))
                .hint(format!("leave out {flag}, or --via"))
                .into());
        }
        let target = self.target(settings, app, directory)?;
        let transport = Transport::new(&cx.sh, via, target, self.offline_ok);
        Ok(transport.with_user(settings.user.clone()))
    }

    /// Flags that choose a machine go over all settings that do.
    fn target(&self, settings: &Settings, app: String, directory: &str) -> Result<Target> {
        let is_chosen =
            self.machine.is_some() || self.region.is_some() || self.process_group.is_some();
        let setting = |key: &str, value: &Option<String>| {
            let value = value.as_ref().filter(|_| !is_chosen).map(|value| word(value)).transpose();
            value.map_err(|why| Failure::usage(format!("{key} in xtask/db.toml: {why}")))
        };
        Ok(Target {
            app,
            machine: self.machine.clone().or(setting("machine", &settings.machine)?),
            region: self.region.clone().or(setting("region", &settings.region)?),
            process_group: self.process_group.clone(),
            container: self.container.clone(),
            directory: directory.to_owned(),
            any: settings.any_machine && !is_chosen,
        })
    }

    fn directory(&self, settings: &Settings, via: &Via) -> Result<String> {
        if let (Via::Local(_), Some(_)) = (via, &self.remote_dir) {
            let failure =
                Failure::usage("--remote-dir does not work with local:, which names the directory");
            return Err(failure.hint("--via local:DIR").into());
        }
        let directory = match (via, &self.remote_dir) {
            (Via::Local(dir), _) => Some(std::path::absolute(dir)?.to_string_lossy().into_owned()),
            (_, None) => settings.remote_dir()?,
            (_, given) => given.clone(),
        };
        let Some(directory) = directory else {
            return Err(Failure::usage("no directory on the server given")
                .hint(settings.other_fly_configs().unwrap_or_else(|| {
                    "give --remote-dir, or set `remote-dir` in xtask/db.toml, or [[mounts]] in fly.toml".to_owned()
                }))
                .into());
        };
        crate::config::directory("directory on the server", &directory)?;
        if directory.starts_with('/') {
            Ok(directory)
        } else {
            Err(Failure::usage(format!("{directory:?} on the server is not an absolute path"))
                .into())
        }
    }

    fn replace(&self, live: &LockedLiveSet<'_>, snapshot: &Snapshot) -> Result<Replaced> {
        let save = (!self.no_backup).then_some(Kind::BeforePull);
        live.replace(&Replacement { snapshot, only: None, save }).map_err(|error| {
            Failure::new(format!(
                "{} was pulled, but did not become the current data",
                snapshot.name
            ))
            .hint(format!("cargo xtask restore-db --name {}", snapshot.name))
            .over(error)
        })
    }
}

/// The directory into which the pull writes: what an earlier one left in it that is no base of this
/// one is removed. Without the rules, nothing may be left in it.
fn begin<'a>(
    store: &'a LockedStore,
    spec: &PullSpec<'_>,
    origin: &Origin,
    bases: &[Base],
) -> Result<SnapshotBuilder<'a>> {
    if spec.rules.leave_secrets() {
        store.discard_leftover()?;
        return store.begin(Kind::Pull);
    }
    let partial = bases.iter().filter(|base| base.is_partial());
    let names: Vec<_> = partial.map(|base| &*base.database.name).collect();
    store.begin_pull(&meta_of(spec, origin.clone()), &names)
}

/// Says of a pull that was cut or interrupted that the next one resumes from what arrived.
fn tell_of_leftover(incoming: &SnapshotBuilder<'_>, error: anyhow::Error) -> anyhow::Error {
    let error = interrupt::into_user_error(error);
    let is_told = *error::reason(&error) == Reason::Cut || interrupt::is_asked();
    if !is_told || incoming.leftover().is_none() {
        return error;
    }
    error::with_hint(error, "the next pull resumes from what arrived")
}

/// All of it that is known before the pull.
fn origin(settings: &Settings, app: &str, spec: &PullSpec<'_>) -> Origin {
    Origin {
        app: Some(app.to_owned()).filter(|app| !app.is_empty()),
        source: Some(spec.source.clone()),
        name: spec.name.clone(),
        data_dir: Some(settings.data_dir.clone()),
        flags: spec.flags.clone(),
        machine: None,
        region: None,
        sanitize_rules: spec.rules.hash(),
        recipe: Some(spec.recipe.clone()),
        boot: None,
        seconds: 0.0,
        wire_bytes: 0,
    }
}

fn meta(
    cx: &Context,
    settings: &Settings,
    spec: &PullSpec<'_>,
    origin: Origin,
    pulled: &Pulled,
    seconds: f64,
) -> Meta {
    let origin = Origin {
        machine: pulled.machine.clone(),
        region: pulled.region.clone(),
        boot: pulled.boot.clone(),
        seconds,
        wire_bytes: pulled.wire_bytes,
        ..origin
    };
    Meta {
        git_commit: git::head(&cx.sh, &settings.root),
        databases: pulled.databases.iter().map(|arrived| arrived.database.clone()).collect(),
        ..meta_of(spec, origin)
    }
}

/// `snapshot.json` of a pull of which nothing has arrived.
fn meta_of(spec: &PullSpec<'_>, origin: Origin) -> Meta {
    Meta {
        version: 1,
        kind: Kind::Pull,
        time: Timestamp::now(),
        origin: Some(origin),
        git_commit: None,
        only: spec.only.map(|only| only.as_str().to_owned()),
        databases: Vec::new(),
    }
}

fn app_name(text: &str) -> Result<String, String> {
    if text.chars().any(|c| c.is_ascii_uppercase()) || text.len() > 63 {
        return Err("at most 63 lower-case letters, digits and dashes".to_owned());
    }
    plain_word(text, "-")
}

fn word(text: &str) -> Result<String, String> {
    plain_word(text, "._-")
}

/// In a linked work tree, which has its own snapshots: how all could share them.
fn hint_at_sharing(settings: &Settings) -> Option<String> {
    let Settings { root, data_dir, snapshots_dir, .. } = settings;
    let shared = git::shared_root(root).filter(|_| data_dir == snapshots_dir)?;
    let below = data_dir.strip_prefix(root).ok()?;
    let (key, place) = (below.display().to_string(), shared.join(below));
    Some(format!(
        "add snapshots-dir = {key:?} to xtask/db.toml: all worktrees then share the snapshots in {}",
        place.display()
    ))
}

/// Warns if git would commit the databases in a directory. Before the first pull it tests example names made from
/// the patterns.
fn warn_unless_ignored(cx: &Context, settings: &Settings, dir: &Path, live: &[String]) {
    if let Some(line) = dockerignore::missing_line(&settings.root, dir) {
        cx.ui.warn("a Docker image that is built here could contain production data");
        cx.ui.hint(format!("add a line to .dockerignore: {line}"));
    }
    let include = settings.names.include.iter();
    // As the files are called here.
    let include: Vec<_> = include.map(|one| settings.names.renames.local(one.as_str())).collect();
    let include: Vec<_> = include.iter().map(String::as_str).collect();
    let examples = include.iter().map(|pattern| pattern.replace(['*', '?'], "a"));
    let names: Vec<_> = live.iter().cloned().chain(examples).collect();
    let Some(exposure) = git::exposure::of(&cx.sh, dir, &names, &include) else { return };
    cx.ui.warn(format!(
        "git does not ignore all of {}: a commit could include production data",
        dir.display()
    ));
    let file = match exposure.file.strip_prefix(&settings.root) {
        Ok(file) => file.display(),
        Err(_) => exposure.file.display(),
    };
    let hint = match &exposure.lines[..] {
        [] => format!("git check-ignore -v shows which line of {file} prevents that"),
        [line] => format!("add a line to {file}: {line}"),
        lines => format!("add these lines to {file}:\n{}", lines.join("\n")),
    };
    if exposure.unignored {
        cx.ui.hint(hint);
    }
    if !exposure.tracked.is_empty() {
        let paths = exposure.tracked.iter().map(|name| dir.join(name).display().to_string());
        let words =
            paths.take(3).filter_map(|path| Some(shlex::try_quote(&path).ok()?.into_owned()));
        let names = words.collect::<Vec<_>>().join(" ");
        cx.ui.hint(format!("git rm --cached {names}"));
    }
}
