mod shared;

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use clap_complete::engine::ArgValueCompleter;
use jiff::Timestamp;

use crate::completion;
use crate::config::{MaxAge, NamePattern, Settings};
use crate::context::Context;
use crate::error::{self, Failure, Reason};
use crate::exposure::Exposure;
use crate::litestream::{self, Staged, Wanted};
use crate::live::{self, LockedLiveSet, Replaced, Replacement, State, prune};
use crate::pull::attempts::Attempts;
use crate::pull::base::Base;
use crate::pull::effects;
use crate::pull::receive::{self, Pulled};
use crate::pull::report;
use crate::pull::spec::PullSpec;
use crate::sanitize::audit::Level;
use crate::sanitize::{EffectiveRules, unmatched};
use crate::server::args::ServerArgs;
use crate::server::request::{self, Mode, Request};
use crate::server::transport::Transport;
use crate::snapshots::{Kind, LockedStore, Meta, Origin, Snapshot, SnapshotBuilder, Store};
use crate::{exposure, git, interrupt, moment};

/// Pull the databases of the app to this machine
///
/// Copy them on the server, all at one moment, mask secrets there, and receive
/// them over one connection. They become a snapshot and then the current data.
/// The previous data is saved as a snapshot too (`restore-db --undo`).
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// Start a machine if none is started, and stop it afterwards
    #[arg(long)]
    start: bool,
    /// Pull only databases whose name matches
    #[arg(long, value_name = "GLOB", value_parser = NamePattern::anywhere, add = ArgValueCompleter::new(completion::databases))]
    only: Option<NamePattern>,
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
    /// Restore this moment, of what Litestream has replicated: "2 hours ago", "yesterday
    /// 18:00", 2026-03-15T14:00:00Z
    #[arg(long, value_name = "MOMENT", conflicts_with = "if_older")]
    at: Option<String>,
    /// Skip the pull if the newest one of the same databases, with the same rules, is at
    /// most this old: 24h, 90m, 7d, 1h30m
    #[arg(long, value_name = "AGE", allow_hyphen_values = true)]
    if_older: Option<MaxAge>,
    /// Without a network, warn and exit with 0; a refused or cut connection is still
    /// an error
    #[arg(long)]
    offline_ok: bool,
    /// With --via share, pull the published snapshot with this name [default: the newest]
    #[arg(long)]
    name: Option<String>,
}

/// In seconds.
const MINUTE: i64 = 60;
const DAY: i64 = 24 * 60 * MINUTE;

impl Args {
    pub(crate) fn run(mut self, cx: &Context) -> Result<()> {
        let settings = self.server.of_source(cx.settings()?)?;
        self.only = self.only.map(|only| only.with(&settings.names.renames));
        if self.server.is_share(&settings) {
            return match self.pull_shared(cx, &settings) {
                Err(error) if self.offline_ok && *error::reason(&error) == Reason::Offline => {
                    report::offline(&cx.ui, &error, shared::newest(&settings)?.as_ref())
                }
                outcome => outcome,
            };
        }
        if self.name.is_some() {
            let failure = Failure::usage("--name works with --via share only");
            return Err(failure.hint("cargo xtask restore-db NAME restores a snapshot").into());
        }
        let for_fly = [("--sftp", self.sftp), ("--start", self.start)];
        let transport = self.server.transport(cx, &settings, &for_fly, self.offline_ok)?;
        if self.at.is_some() && transport.replicas().is_none() {
            return Err(Failure::usage("--at works with what Litestream has replicated only")
                .hint("--via litestream; for earlier pulls: cargo xtask restore-db --at MOMENT")
                .into());
        }
        let directory = transport.target.directory.clone();
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
                report::offline(&cx.ui, &error, spec.newest(&store)?.as_ref())
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

        let staged = self.stage(cx, settings, &live.store, &mut transport)?;
        let missing = staged.as_ref().map(|staged| not_replicated(&live.store, settings, staged));
        let missing = missing.transpose()?.unwrap_or_default();
        if !missing.is_empty() {
            cx.ui.warn(litestream::describe_missing(&missing));
        }
        let mode = if self.sftp { Mode::Archive } else { Mode::Stream };
        let mut request = self.request(cx, settings, &transport, mode, spec)?;
        let moment = self.moment()?;
        let origin = Origin { moment, ..origin(settings, &transport.target.app, spec) };
        let incoming = begin(&live.store, spec, &origin, &request.bases)?;
        let kept = if self.no_backup { 0 } else { live.bytes()? };
        let mut attempts = self.attempts(cx, settings);
        let pulled = attempts.run(&mut transport, &mut request, |transport, request| {
            receive::receive(&cx.ui, transport, request, incoming.path(), kept)
        });
        let pulled = pulled.map_err(|error| tell_of_leftover(&incoming, error))?;
        let seconds = start.elapsed().as_secs_f64();
        let mut meta = meta(cx, settings, spec, origin, &pulled, seconds);
        if !missing.is_empty() {
            // It is no complete set: a restore must not remove the others either.
            meta.only = meta.only.or_else(|| Some("*".to_owned()));
        }
        interrupt::check()?;
        let snapshot = incoming.commit(meta)?;
        let replaced = self.replace(&live, &snapshot)?;
        prune_after(cx, settings, &live);
        let seconds = start.elapsed().as_secs_f64();
        let dir = &settings.data_dir;
        report::pulled(&cx.ui, &transport, &pulled, &snapshot, &replaced, dir, seconds)?;
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
        let command = settings.hooks.after_pull.as_ref();
        live::report::run_after(cx, settings, "after-pull", command, &snapshot, &replaced)
    }

    /// Pulls from the store of the team.
    fn pull_shared(&self, cx: &Context, settings: &Settings) -> Result<()> {
        let flags = [("--start", self.start), ("--sftp", self.sftp), ("--at", self.at.is_some())];
        let given = flags.iter().filter_map(|(flag, given)| given.then_some(*flag));
        if let Some(flag) = given.chain(self.server.flags()).next() {
            return Err(Failure::usage(format!("{flag} does not work with `share`"))
                .hint(format!("leave out {flag}, or say how the server is reached: --via fly"))
                .into());
        }
        let request = shared::Request {
            name: self.name.as_deref(),
            only: self.only.as_ref(),
            if_older: self.if_older.as_ref(),
            unmasked: self.no_sanitize,
            full: self.full,
        };
        if self.dry_run {
            return request.plan(cx, settings, |names| self.removed(settings, names));
        }
        let start = Instant::now();
        if self.no_sanitize {
            cx.ui.confirm("Pull production data also if its secrets are not masked?")?;
        }
        let live = LockedLiveSet::lock(cx, settings, "cargo xtask pull-db")?;
        if request.skip(cx, settings)? {
            return Ok(());
        }
        warn_unless_ignored(cx, settings, &settings.data_dir, &live.databases()?);
        let fetched = request.fetch(cx, settings, &live, start)?;
        let snapshot = &fetched.snapshot;
        let replaced = self.replace(&live, snapshot)?;
        prune_after(cx, settings, &live);
        fetched.report(cx, settings, &replaced, start)?;
        drop(live);
        let command = settings.hooks.after_pull.as_ref();
        live::report::run_after(cx, settings, "after-pull", command, snapshot, &replaced)
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
        // What is restored here must not be taken for the rest of a killed command.
        let locked = transport.replicas().map(|_| {
            Store::of(settings).no_wait(cx.global.no_wait).lock(&cx.ui, "cargo xtask pull-db")
        });
        let locked = locked.transpose()?;
        let staged = locked.as_ref().map(|it| self.stage(cx, settings, it, &mut transport));
        let _staged = staged.transpose()?;
        let mut request = self.request(cx, settings, &transport, Mode::DryRun, spec)?;
        let mut attempts = self.attempts(cx, settings);
        let planned = attempts.run(&mut transport, &mut request, |transport, request| {
            receive::plan(&cx.ui, transport, request, &settings.snapshots_dir)
        })?;
        let names: Vec<_> = planned.databases.iter().map(|one| one.name.clone()).collect();
        let removes = self.removed(settings, &names)?;
        let new = match spec.newest(&store)? {
            Some(last) => effects::new_columns(planned.facts.iter(), &last)?,
            None => Vec::new(),
        };
        report::planned(&cx.ui, &transport, &planned, &removes, spec.rules.applied(), &new)
    }

    /// The live databases that a pull of this set would remove.
    fn removed(&self, settings: &Settings, set: &[String]) -> Result<Vec<String>> {
        if self.only.is_some() || self.no_backup || !settings.data_dir.exists() {
            return Ok(Vec::new());
        }
        let store = Store::of(settings);
        let brought = State::read(&store)?.brought(&store);
        let live = live::databases(&settings.data_dir, &settings.names)?;
        Ok(live::missing(&live, &brought, set))
    }

    /// Restores the replicas, if the databases come from there.
    fn stage(
        &self,
        cx: &Context,
        settings: &Settings,
        store: &LockedStore,
        transport: &mut Transport<'_>,
    ) -> Result<Option<Staged>> {
        let Some(url) = transport.replicas() else { return Ok(None) };
        let remote_dir = Some(transport.target.directory.as_str()).filter(|dir| *dir != "/");
        let (only, at) = (self.only.as_ref(), self.moment()?);
        let wanted = Wanted { url, remote_dir, only, at };
        let staged = litestream::stage(cx, settings, store, &wanted)?;
        transport.target.directory = staged.databases().display().to_string();
        Ok(Some(staged))
    }

    fn moment(&self) -> Result<Option<Timestamp>> {
        let Some(text) = &self.at else { return Ok(None) };
        let (at, now) = (moment::parse(text, &moment::now())?, Timestamp::now());
        // This minute has not ended, nor has today.
        let ahead = at.duration_since(now).as_secs();
        if ahead >= DAY || ahead >= MINUTE && text.contains(':') {
            return Err(Failure::usage(format!("--at {text:?} is in the future"))
                .hint("without --at, each database comes as it is now")
                .into());
        }
        Ok(Some(at.min(now)))
    }

    fn attempts<'a>(&self, cx: &'a Context, settings: &'a Settings) -> Attempts<'a> {
        Attempts { ui: &cx.ui, settings: Some(settings), chosen: None, start: self.start }
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

    fn replace(&self, live: &LockedLiveSet<'_>, snapshot: &Snapshot) -> Result<Replaced> {
        let save = (!self.no_backup).then_some(Kind::BeforePull);
        live.replace(&Replacement { snapshot, only: None, save }).map_err(|error| {
            Failure::new(format!(
                "{} was pulled, but did not become the current data",
                snapshot.name
            ))
            .hint(format!("cargo xtask restore-db {}", snapshot.name))
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
        moment: None,
        uncovered: None,
        share: None,
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
        uncovered: (settings.audit.level != Level::Off).then(|| {
            let read = pulled.findings.columns.iter().filter(|column| column.unread.is_none());
            read.map(|it| (it.table.clone(), it.column.clone())).collect()
        }),
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
        label: None,
        pinned: false,
        databases: Vec::new(),
    }
}

/// The live databases that an earlier pull brought, and that no replica has.
fn not_replicated(
    store: &LockedStore,
    settings: &Settings,
    staged: &Staged,
) -> Result<Vec<String>> {
    let replicated: Vec<_> =
        staged.replicated.iter().map(|name| settings.names.renames.local(name)).collect();
    let live = live::databases(&settings.data_dir, &settings.names)?;
    Ok(live::missing(&live, &State::read(store)?.brought(store), &replicated))
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

fn prune_after(cx: &Context, settings: &Settings, live: &LockedLiveSet<'_>) {
    match prune::prune(&live.store, settings, settings.keep) {
        Ok(pruned) => prune::report(&cx.ui, &pruned, true),
        // Not an error: the pull itself succeeded.
        Err(error) => cx.ui.warn(format!("old snapshots were not pruned: {error:#}")),
    }
}

/// Warns if a commit or a Docker image would contain the databases in a directory.
fn warn_unless_ignored(cx: &Context, settings: &Settings, dir: &Path, live: &[String]) {
    for Exposure { message, hints, .. } in exposure::of(&cx.sh, settings, dir, live) {
        cx.ui.warn(message);
        hints.into_iter().for_each(|hint| cx.ui.hint(hint));
    }
}
