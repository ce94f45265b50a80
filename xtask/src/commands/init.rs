use std::path::{Component, Path};

use anyhow::{Context as _, Result};

use crate::config::{Location, NamePattern, Settings};
use crate::context::Context;
use crate::error::Failure;
use crate::fs;
use crate::init::apps::{self, App};
use crate::init::propose::{self, Proposal};
use crate::init::servers::{self, Server};
use crate::init::survey::{self, Survey};
use crate::init::{FileChange, extend, ignore, setting};
use crate::sanitize::audit::Findings;
use crate::server::args::ServerArgs;
use crate::ui::{Ui, count};

/// Write xtask/db.toml: find the app, look at its databases, and propose what to mask
///
/// Find Fly.io configurations, Compose files and the settings of frameworks here, look at the
/// databases on the server over one connection, and take the audit of them. Show what would be
/// written, and ask. With a db.toml, propose only what it lacks.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// Look only at databases whose name matches
    #[arg(long, value_name = "GLOB", value_parser = NamePattern::anywhere)]
    only: Option<NamePattern>,
    /// Propose no rules for columns that look like secrets or personal data
    #[arg(long)]
    no_rules: bool,
    /// Show what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
}

impl Args {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let location = Location::new(cx.global.config.as_deref())?;
        let mut planned = match fs::read(&location.file)? {
            Some(_) => self.missing_settings(cx, &location)?,
            None => self.new_settings(cx, &location)?,
        };
        planned.retain(|one| !one.added.is_empty());
        if planned.is_empty() {
            cx.ui.status("Complete", format!("{} lacks nothing", location.file.display()));
            return Ok(());
        }
        for one in &planned {
            cx.ui.added(shown(&location.root, &one.file), &one.added);
        }
        if self.dry_run {
            return Ok(());
        }
        let names: Vec<_> = planned.iter().map(|one| shown(&location.root, &one.file)).collect();
        cx.ui.confirm(&format!("Write {}?", names.join(" and ")))?;
        for one in &planned {
            fs::write_shared(&one.file, one.text.as_bytes(), false)?;
        }
        cx.ui.tick(format!("wrote {}", names.join(" and ")));
        cx.ui.hint("cargo xtask pull-db");
        Ok(())
    }

    /// The new settings file.
    fn new_settings(&self, cx: &Context, location: &Location) -> Result<Vec<FileChange>> {
        let root = &location.root;
        let mut source = self.source(&cx.ui, root)?;
        let apps = apps::find(root);
        for app in &apps {
            cx.ui.tick(format!("{}: {} opens {}", app.file, app.framework, app.database));
        }
        let local_dir = self.local_dir(cx, &apps)?;
        let settings = candidate(location, &source, &local_dir)?;
        if settings.remote_dir()?.is_none() && !self.server.via(&settings).names_directory() {
            let question = "Which directory on the server has the databases?";
            let dir = cx.ui.text(question, "/data", "--remote-dir")?;
            source.push(setting("remote-dir", &dir));
        }
        let settings = candidate(location, &source, &local_dir)?;
        let survey = self.survey(cx, &settings)?;
        source.extend(survey.machine.iter().map(|id| setting("machine", id)));
        survey.report(&cx.ui);

        let renames = survey.renames(&apps);
        for (server, here) in &renames {
            cx.ui.tick(format!("{server} becomes {here} here"));
        }
        let proposal = Proposal {
            source,
            local_dir: &local_dir,
            has_rails: location.root.join("bin/rails").exists(),
            databases: &survey.databases,
            renames,
            findings: self.findings_to_mask(&cx.ui, &survey.findings)?,
        };
        let text = proposal.text();
        // What is proposed must be what the other commands can read.
        let settings = Settings::parse(location.clone(), &text, None)?;
        let ignored = ignore::lines(&cx.sh, &settings, &survey.names())?;
        let mut planned =
            vec![FileChange { file: location.file.clone(), added: text.clone(), text }];
        planned.extend(ignored);
        Ok(planned)
    }

    /// What the settings file lacks.
    fn missing_settings(&self, cx: &Context, location: &Location) -> Result<Vec<FileChange>> {
        let mut settings = self.server.of_source(cx.settings()?)?;
        let include = std::mem::replace(&mut settings.names.include, all_databases()?);
        let survey = self.survey(cx, &settings)?;
        settings.names.include = include;
        survey.report(&cx.ui);
        let text = String::from_utf8(fs::read(&settings.file)?.unwrap_or_default())
            .with_context(|| format!("cannot read {}", settings.file.display()))?;
        // Caches and queues are left out, as by a first run.
        let others = survey.not_included(&settings.names);
        if !others.is_empty() {
            let names: Vec<_> = others.iter().map(String::as_str).collect();
            cx.ui.tick(format!("new: {}", propose::describe(&names)));
        }
        let included = extend::include(&text, &propose::more_patterns(&others, &survey.names()))?;
        let findings = self.findings_to_mask(&cx.ui, &survey.findings)?;
        let rules = findings.map(|it| propose::rules(it, &survey.databases, &[], &text));
        let rules = rules.unwrap_or_default();
        let added = extend::added(&text, &included) + &rules;
        let text = included + &rules;
        let settings = Settings::parse(location.clone(), &text, None)?;
        let ignored = ignore::lines(&cx.sh, &settings, &survey.names())?;
        let mut planned = vec![FileChange { file: settings.file.clone(), text, added }];
        planned.extend(ignored);
        Ok(planned)
    }

    /// The lines with the source: what the flags say, else what is found, else the answer.
    fn source(&self, ui: &Ui, root: &Path) -> Result<Vec<String>> {
        let given = self.server.settings();
        if !given.is_empty() {
            return Ok(given.iter().map(|(key, value)| setting(key, value)).collect());
        }
        let found = servers::find(root);
        for server in &found {
            ui.tick(format!("{}: {}", server.file, server.describe()));
        }
        match &found[..] {
            [] => ask(ui),
            [one] => Ok(one.lines()),
            _ if !ui.interactive() => {
                let all: Vec<_> = found.iter().map(Server::describe).collect();
                Err(Failure::usage(format!("several may be production: {}", all.join("; ")))
                    .hint(format!("choose one, such as {}", found[0].flags()))
                    .into())
            }
            _ => {
                let line = |server: &Server| format!("{} ({})", server.describe(), server.file);
                let lines = found.iter().map(line).collect();
                let chosen = ui.select("Which is production?", lines)?;
                Ok(found[chosen].lines())
            }
        }
    }

    fn local_dir(&self, cx: &Context, apps: &[App]) -> Result<String> {
        if let Some(dir) = &cx.global.local_dir {
            return Ok(dir.display().to_string());
        }
        let default = apps.first().map_or("data", App::directory);
        let question = "Where does your app open its databases here?";
        let answer = cx.ui.text(question, default, "--local-dir")?;
        if Path::new(&answer).components().any(|part| part == Component::ParentDir) {
            return Err(Failure::usage(format!("{answer} may lead out of the repository"))
                .hint("give a directory below the root of the repository, or --local-dir DIR")
                .into());
        }
        Ok(answer)
    }

    fn survey(&self, cx: &Context, settings: &Settings) -> Result<Survey> {
        let mut transport = self.server.transport(cx, settings, &[], false)?;
        survey::take(&cx.ui, settings, &mut transport, self.only.as_ref())
    }

    /// The findings, if the user wants rules for them.
    fn findings_to_mask<'a>(
        &self,
        ui: &Ui,
        findings: &'a Findings,
    ) -> Result<Option<&'a Findings>> {
        let columns = propose::covered(findings);
        if self.no_rules || findings.is_empty() {
            return Ok(None);
        }
        propose::report(ui, findings);
        let question =
            format!("Mask {} that look like secrets or personal data?", count(columns, "column"));
        Ok((columns == 0 || ui.accept(&question)?).then_some(findings))
    }
}

/// A place that nobody has configured.
fn ask(ui: &Ui) -> Result<Vec<String>> {
    let question =
        "Where is production? (an app on Fly.io, ssh:USER@HOST, docker:CONTAINER, local:DIR)";
    let answer = ui.text(question, "", "--app, or --via and --remote-dir")?;
    let key = if answer.contains(':') { "via" } else { "app" };
    Ok(vec![setting(key, &answer)])
}

fn all_databases() -> Result<Vec<NamePattern>> {
    Ok(vec![NamePattern::path("**/*")?])
}

/// Settings with which all databases are looked at.
fn candidate(location: &Location, source: &[String], local_dir: &str) -> Result<Settings> {
    let local_dir = setting("local-dir", local_dir);
    let text = format!("{}\n{local_dir}\ninclude = [\"**/*\"]\n", source.join("\n"));
    Settings::parse(location.clone(), &text, None)
}

/// A path as one types it in the repository.
fn shown(root: &Path, file: &Path) -> String {
    file.strip_prefix(root).unwrap_or(file).display().to_string()
}
