use std::time::Instant;

use anyhow::Result;
use serde::Serialize;

use crate::Context;
use crate::error::Failure;
use crate::fixtures::refresh::Refresh;
use crate::fixtures::survey::Survey;
use crate::fixtures::{Fixture, Stale};
use crate::git::index::{Repository, Tree, is_commit_of_paths};
use crate::settings::{Location, Settings};
use crate::spent::Spent;
use crate::ui::{Ui, count};

/// How to commit in spite of what this command says.
const SKIP: &str = "SKIP_FIXTURES";

/// Make the fixture databases anew, from the newest pulled snapshot
///
/// Which there are is said by [[fixture]] in db.toml. Without a snapshot, what
/// is committed is brought to the newest schema.
#[derive(clap::Args)]
pub struct Args {
    /// The snapshot to cut them from [default: the newest pulled one]
    #[arg(long, value_name = "NAME")]
    from: Option<String>,
    /// Only say which fixtures are stale, and why; exit 1 if one is
    #[arg(long, conflicts_with_all = ["from", "staged"])]
    check: bool,
    /// For a pre-commit hook: refresh what the staged files make stale, and stage it
    #[arg(long)]
    staged: bool,
}

impl Args {
    pub fn run(self, cx: &Context) -> Result<()> {
        let started = Instant::now();
        self.refresh(cx)?;
        cx.ui.verbose(Spent::since(started));
        Ok(())
    }

    fn refresh(self, cx: &Context) -> Result<()> {
        if self.staged
            && std::env::var_os(SKIP).is_some_and(|value| !value.is_empty() && value != "0")
        {
            return Ok(());
        }
        let location = Location::new(cx.global.config.as_deref())?;
        let root = location.root.clone();
        let repository = Repository { sh: &cx.sh, root: &root };
        if self.staged {
            return refresh_staged(cx, &repository, location, self.from.as_deref());
        }
        let settings = cx.settings()?;
        let survey = Survey::of(&repository, Tree::Work, &settings)?;
        for idle in survey.idle_inputs() {
            cx.ui.warn(idle);
        }
        if self.check {
            return check(&cx.ui, &survey);
        }
        if settings.fixtures.is_empty() {
            return Err(Failure::usage("there are no fixtures in the settings")
                .hint("add [[fixture]] to xtask/db.toml")
                .into());
        }
        let refresh =
            Refresh { cx, repository: &repository, tree: Tree::Work, settings: &settings };
        refresh.run(survey, self.from.as_deref())
    }
}

/// What a hook does: nothing, unless a staged file has to do with a fixture.
fn refresh_staged(
    cx: &Context,
    repository: &Repository<'_>,
    location: Location,
    from: Option<&str>,
) -> Result<()> {
    let staged = repository.staged()?;
    if staged.is_empty() {
        return Ok(());
    }
    let config = location.file.strip_prefix(&location.root).unwrap_or(&location.file);
    let config = config.to_string_lossy().into_owned();
    let settings = match repository.read(Tree::Index, &config)? {
        Some(text) => Settings::parse(
            location,
            &String::from_utf8_lossy(&text),
            cx.global.local_dir.as_deref(),
        )?,
        None => cx.settings()?,
    };
    let concerns = |fixture: &Fixture| {
        let lock = fixture.lock_path();
        staged.iter().any(|path| {
            *path == config || *path == lock || *path == fixture.path || fixture.has_input(path)
        })
    };
    if !settings.fixtures.iter().any(concerns) && !staged.contains(&config) {
        return Ok(());
    }
    let mut survey = Survey::of(repository, Tree::Index, &settings)?;
    // A fixture that was stale before is not this commit's matter.
    for found in survey.found.iter_mut().filter(|found| !concerns(found.fixture)) {
        found.stale.clear();
    }
    if survey.problems().is_empty() {
        return Ok(());
    }
    if let Some(found) = survey.found.iter().find(|found| found.stale.contains(&Stale::Edited)) {
        return Err(Failure::new(format!("{}: {}", found.fixture.path, Stale::Edited))
            .hint("`cargo xtask refresh-fixtures` makes it anew (then `git add` it); SKIP_FIXTURES=1 git commit takes it as it is")
            .into());
    }
    if is_commit_of_paths(&cx.sh) {
        return Err(Failure::new(
            "`git commit PATH` cannot take along the fixtures that have to be refreshed",
        )
        .hint("git add PATH, and commit without a path; or SKIP_FIXTURES=1 git commit PATH")
        .into());
    }
    Refresh { cx, repository, tree: Tree::Index, settings: &settings }.run(survey, from)
}

/// Says which fixtures are stale, and why.
fn check(ui: &Ui, survey: &Survey<'_>) -> Result<()> {
    let problems = survey.problems();
    if ui.json {
        #[derive(Serialize)]
        struct Problem {
            path: String,
            why: String,
        }
        let listed = problems.iter().cloned().map(|(path, why)| Problem { path, why });
        ui.json(&listed.collect::<Vec<_>>())?;
    } else {
        for (path, why) in &problems {
            ui.warn(format!("{path}: {why}"));
        }
    }
    let mut paths: Vec<_> = problems.iter().map(|(path, _)| path).collect();
    paths.dedup();
    if paths.is_empty() {
        ui.status("Fresh", count(survey.found.len(), "fixture"));
        return Ok(());
    }
    let verb = if paths.len() == 1 { "is" } else { "are" };
    Err(Failure::new(format!("{} {verb} stale", count(paths.len(), "fixture")))
        .hint("cargo xtask refresh-fixtures, and commit what it writes")
        .into())
}
