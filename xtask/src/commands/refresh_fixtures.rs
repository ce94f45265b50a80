use std::collections::BTreeSet;

use anyhow::Result;
use clap_complete::engine::ArgValueCompleter;
use serde::Serialize;

use crate::completion;
use crate::config::{Location, Settings};
use crate::context::Context;
use crate::error::{Failure, hint};
use crate::fixtures::choice::Snapshots;
use crate::fixtures::refresh::Refresh;
use crate::fixtures::status::Status;
use crate::fixtures::suggest::Suggestion;
use crate::fixtures::{Fixture, Stale, suggest};
use crate::git::Repository;
use crate::git::index::{Tree, is_commit_of_paths};
use crate::interrupt;
use crate::sqlite::SIDECARS;
use crate::ui::{Ui, count};

/// The variable that lets a user commit despite an error of this command.
const SKIP: &str = "SKIP_FIXTURES";

/// Regenerate the fixture databases from the newest pulled snapshot
///
/// Each [[fixture]] in db.toml defines one. If no pulled snapshot has its
/// database, the recorded fixture is migrated in place. With --staged, a
/// fixture is cut from the snapshot that it was cut from before.
#[derive(clap::Args)]
pub struct Args {
    /// Cut from this snapshot [default: the newest pulled one]
    #[arg(long, value_name = "NAME", add = ArgValueCompleter::new(completion::snapshots))]
    from: Option<String>,
    /// Write nothing; show which fixtures are stale and why, and exit with 1 if one is
    #[arg(long, conflicts_with_all = ["from", "staged"])]
    check: bool,
    /// For a pre-commit hook: refresh the fixtures that the staged files make stale, and stage them
    #[arg(long)]
    staged: bool,
    /// Write nothing; print the references that the schemas do not declare, as names and values
    /// suggest them
    #[arg(long, conflicts_with_all = ["check", "staged"])]
    suggest: bool,
}

impl Args {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        match (self.staged, std::env::var_os(SKIP)) {
            (true, Some(skip)) if !skip.is_empty() && skip != "0" => Ok(()),
            (true, _) => self.refresh_staged(cx).map_err(stopped),
            (false, _) => self.refresh(cx),
        }
    }

    fn refresh(&self, cx: &Context) -> Result<()> {
        let settings = cx.settings()?;
        if self.suggest {
            return suggest(cx, &settings, self.from.as_deref());
        }
        let repository = Repository::of(&cx.sh, &settings.root)?;
        let survey =
            Status::of(&repository, Tree::Work, &settings).map_err(interrupt::prefer_interrupt)?;
        if self.check {
            return check(&cx.ui, &repository, &survey);
        }
        // Of the last fixture that is gone, the lock file goes too.
        if settings.fixtures.is_empty() && survey.records.is_empty() {
            return Err(Failure::usage("no [[fixture]] in the config file")
                .hint("add one to xtask/db.toml")
                .into());
        }
        for (path, why) in survey.idle_inputs() {
            cx.ui.warn(format!("{path}: {why}"));
        }
        let (repository, settings) = (&repository, &settings);
        let refresh = Refresh { cx, repository, tree: Tree::Work, settings };
        refresh.run(survey, self.from.as_deref())
    }

    /// For a pre-commit hook: does nothing unless a staged file affects a fixture.
    fn refresh_staged(&self, cx: &Context) -> Result<()> {
        let location = Location::new(cx.global.config.as_deref())?;
        let repository = Repository::of(&cx.sh, &location.root)?;
        let staged = repository.staged()?;
        if staged.is_empty() {
            return Ok(());
        }
        let config = location.file.strip_prefix(&location.root).unwrap_or(&location.file);
        let config = config.to_string_lossy().into_owned();
        let settings = staged_settings(cx, &repository, location, &config)?;
        let concerns = |fixture: &Fixture| {
            let lock = fixture.lock_path();
            let is_its = |path: &String| {
                [&config, &lock, &fixture.path].contains(&path) || fixture.has_input(path)
            };
            staged.iter().any(is_its)
        };
        if !settings.fixtures.iter().any(concerns) && !staged.contains(&config) {
            return Ok(());
        }
        let mut survey =
            Status::of(&repository, Tree::Index, &settings).map_err(interrupt::prefer_interrupt)?;
        // This commit concerns neither fixtures that were stale before nor those that git ignores.
        for found in &mut survey.found {
            let path = repository.root.join(&found.fixture.path);
            if !concerns(found.fixture) || found.sha256.is_none() && repository.ignores(&path) {
                found.stale.clear();
            }
        }
        if survey.problems().is_empty() {
            return Ok(());
        }
        refuse_what_is_not_ours(&repository, &survey)?;
        let (repository, settings) = (&repository, &settings);
        let refresh = Refresh { cx, repository, tree: Tree::Index, settings };
        refresh.run(survey, self.from.as_deref())
    }
}

/// The settings as the commit will contain them.
fn staged_settings(
    cx: &Context,
    repository: &Repository<'_>,
    location: Location,
    config: &str,
) -> Result<Settings> {
    let Some(text) = repository.read(Tree::Index, config)? else { return cx.settings() };
    let file = format!("{} (staged)", location.file.display()).into();
    let text = String::from_utf8_lossy(&text);
    Settings::parse(Location { file, ..location }, &text, cx.global.local_dir.as_deref())
}

/// A hook must not overwrite a user's changes, nor write a file that the commit does not contain.
fn refuse_what_is_not_ours(repository: &Repository<'_>, survey: &Status<'_>) -> Result<()> {
    for found in &survey.found {
        let path = &found.fixture.path;
        if found.stale.contains(&Stale::Opened) {
            return Err(Failure::new(format!("{path}: {}", Stale::Opened))
                .hint(restore(repository, path)?)
                .hint("let tests open a copy of it")
                .into());
        }
        if found.stale.contains(&Stale::Edited) {
            let files = shlex::try_join([path.as_str(), &found.fixture.lock_path()])?;
            return Err(Failure::new(format!("{path}: {}", Stale::Edited))
                .hint(format!("cargo xtask refresh-fixtures, then git add {files}; or SKIP_FIXTURES=1 git commit takes it as it is"))
                .into());
        }
        if found.stale.contains(&Stale::Missing) && repository.committed(path)?.is_some() {
            return Err(Failure::new(format!("{path} is removed, but db.toml still has it"))
                .hint("remove its [[fixture]] from db.toml too, and git add that")
                .into());
        }
    }
    if is_commit_of_paths(repository.sh) {
        let what = "`git commit PATH` cannot include the fixtures that must be refreshed";
        return Err(Failure::new(what)
            .hint("git add PATH, and commit without a path; or SKIP_FIXTURES=1 git commit PATH")
            .into());
    }
    Ok(())
}

/// The commands that bring back a fixture: SQLite would apply the `-wal` of a program that was killed
/// to the file that git brings back.
fn restore(repository: &Repository<'_>, path: &str) -> Result<String> {
    let beside = SIDECARS.map(|end| format!("{path}{end}"));
    let beside = beside.iter().filter(|name| repository.root.join(name).exists());
    let beside: Vec<_> = beside.map(String::as_str).collect();
    let checkout = format!("git checkout HEAD -- {}", shlex::try_quote(path)?);
    Ok(match &beside[..] {
        [] => checkout,
        _ => format!("rm {} && {checkout}", shlex::try_join(beside)?),
    })
}

/// Adds to an error how to commit despite it.
fn stopped(error: anyhow::Error) -> anyhow::Error {
    if hint(&error).is_some() || interrupt::is_asked() {
        return error;
    }
    error.context(Failure::new("cannot refresh the fixtures").hint("SKIP_FIXTURES=1 git commit"))
}

/// Prints references for the databases of the fixtures, as TOML, each with the share of its values
/// that are there.
fn suggest(cx: &Context, settings: &Settings, from: Option<&str>) -> Result<()> {
    let snapshots = Snapshots::of(settings, from)?;
    let names: BTreeSet<_> = settings.fixtures.iter().map(|fixture| &fixture.from).collect();
    if names.is_empty() {
        let failure = Failure::usage("no [[fixture]] in the config file");
        return Err(failure.hint("add one to xtask/db.toml").into());
    }
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    for name in names {
        let Some(snapshot) = snapshots.with(name) else {
            cx.ui.warn(format!("no pulled snapshot has {name}"));
            continue;
        };
        let of_it = settings.fixtures.iter().filter(|fixture| fixture.from == *name);
        let known = of_it.flat_map(|it| it.references.iter().chain(&it.common_references));
        let known: Vec<_> = known.collect();
        let suggestions = suggest::suggest(&snapshot.path.join(name), &known)?.into_iter();
        found.extend(suggestions.filter(|one| seen.insert(one.reference.clone())));
    }
    if cx.ui.json {
        return cx.ui.json(&Suggestions { references: found });
    }
    if found.is_empty() {
        cx.ui.status("Found", "no reference beside those of the schemas and of db.toml");
        return Ok(());
    }
    let lines = found.iter().map(|one| {
        let quoted = toml::Value::String(one.reference.clone());
        format!("  {quoted},  # {} of {} values are there\n", one.found, one.values)
    });
    cx.ui.data(format!("references = [\n{}]", lines.collect::<String>()))
}

/// Prints which fixtures are stale, and why.
fn check(ui: &Ui, repository: &Repository<'_>, survey: &Status<'_>) -> Result<()> {
    let mut problems = survey.problems();
    // A refresh does not help against these.
    let mut opened = survey.found.iter().filter(|found| found.stale.contains(&Stale::Opened));
    let hint = match opened.next() {
        Some(found) => restore(repository, &found.fixture.path)?,
        None if problems.is_empty() => "correct `inputs` in xtask/db.toml".to_owned(),
        None => "cargo xtask refresh-fixtures, and commit the changed files".to_owned(),
    };
    problems.extend(survey.idle_inputs());
    if ui.json {
        let listed = problems.iter().map(|(path, why)| Problem { path, why });
        ui.json(&Problems { problems: listed.collect() })?;
    } else {
        for (path, why) in &problems {
            ui.warn(format!("{path}: {why}"));
        }
    }
    if problems.is_empty() {
        ui.status("Fresh", count(survey.found.len(), "fixture"));
        return Ok(());
    }
    Err(Failure::new(format!("fixtures are stale: {}", count(problems.len(), "problem")))
        .hint(hint)
        .into())
}

/// Printed with `--suggest --json`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "refresh-fixtures-suggest"))]
pub struct Suggestions {
    references: Vec<Suggestion>,
}

/// Printed with `--check --json`; empty if no fixture is stale.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "refresh-fixtures-check"))]
pub struct Problems<'a> {
    problems: Vec<Problem<'a>>,
}

/// Why a fixture is stale.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Problem<'a> {
    path: &'a str,
    why: &'a str,
}
