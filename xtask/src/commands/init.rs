use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::config::{Location, NamePattern, Settings, with_line};
use crate::context::Context;
use crate::error::{self, Failure, Reason};
use crate::init::apps::{self, App};
use crate::init::propose::{self, Masked, Proposal};
use crate::init::servers::{self, Server};
use crate::init::survey::{Production, Survey, Trial};
use crate::init::{FileChange, commit, extend, ignore, setting};
use crate::pull::error::ADVICE_ON_LEAKS;
use crate::sanitize::audit::quoted;
use crate::sanitize::unmatched::Unmatched;
use crate::server::args::ServerArgs;
use crate::ui::{Ui, count, from_root};
use crate::{fs, interrupt, invocation};

/// Write xtask/db.toml: find the app, look at its databases, and propose what to mask
///
/// Find Fly.io configurations, Compose files and the settings of frameworks here, look at the
/// databases on the server over one connection, and take the audit of them. Try the rules that you
/// want over a second one. Show what would be written, and ask. With a db.toml, propose only what it
/// lacks.
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
        planned.retain(|one| one.new != one.old);
        if planned.is_empty() {
            let file = from_root(&location.root, &location.file);
            cx.ui.status("Complete", format!("{file} lacks nothing"));
            return Ok(());
        }
        let names: Vec<_> =
            planned.iter().map(|one| from_root(&location.root, &one.file)).collect();
        for (name, one) in names.iter().zip(&planned) {
            cx.ui.changed(name, &one.removed(), &one.added());
        }
        if self.dry_run {
            return Ok(());
        }
        cx.ui.confirm(&format!("Write {}?", names.join(" and ")))?;
        planned.iter().try_for_each(FileChange::check)?;
        for one in &planned {
            fs::write_edited(&one.file, &one.new)?;
        }
        let settings = planned.iter().find(|one| one.file == location.file);
        let text = settings.map(|it| String::from_utf8_lossy(&it.new));
        let local_dir = text.map(|it| extend::value(&it, &[], "local-dir")).transpose()?;
        if local_dir.flatten().map(PathBuf::from) == cx.global.local_dir {
            invocation::local_dir_is_written();
        }
        cx.ui.tick(format!("wrote {}", names.join(" and ")));
        cx.ui.hint("cargo xtask pull-db");
        if let Some(files) = commit::uncommitted(&cx.sh, &location, &names) {
            cx.ui.hint(format!("to commit: git add {files}"));
        }
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
        let mut settings = self.server.of_source(candidate(location, &source, &local_dir)?)?;
        if settings.remote_dir()?.is_none() && !self.server.via(&settings).names_directory() {
            let question = "Which directory on the server has the databases?";
            let dir = cx.ui.text(question, "/data", "--remote-dir")?;
            source.push(setting("remote-dir", &dir));
            settings = candidate(location, &source, &local_dir)?;
        }
        let mut production = self.production(cx, &settings)?;
        let survey = production.survey(&settings)?;
        source.extend(production.machine().map(|id| setting("machine", id)));
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
        };
        let masked = self
            .columns_to_mask(&cx.ui, &survey, &propose::omitted(&survey.databases))?
            .unwrap_or_default();
        let mut trials = Trials { cx, location, production, known: Vec::new() };
        let (new, settings) =
            self.tried(&mut trials, masked, |masked| Ok(proposal.text(masked)))?;
        let ignored = ignore::lines(cx, &settings, &survey.names())?;
        let mut planned =
            vec![FileChange { file: location.file.clone(), old: Vec::new(), new: new.into() }];
        planned.extend(ignored);
        Ok(planned)
    }

    /// What the settings file lacks.
    fn missing_settings(&self, cx: &Context, location: &Location) -> Result<Vec<FileChange>> {
        let mut settings = self.server.of_source(cx.settings()?)?;
        let include = std::mem::replace(&mut settings.names.include, all_databases()?);
        let mut production = self.production(cx, &settings)?;
        let survey = production.survey(&settings)?;
        settings.names.include = include;
        survey.report(&cx.ui);
        for unmatched in &survey.trial.unmatched {
            let (what, hint) = unmatched.describe(&settings.rules);
            cx.ui.warn(what);
            cx.ui.hint(hint);
        }
        let old = String::from_utf8(fs::read(&settings.file)?.unwrap_or_default())
            .with_context(|| format!("cannot read {}", settings.file.display()))?;
        // Caches and queues are left out, as by a first run.
        let others = survey.not_included(&settings.names);
        if !others.is_empty() {
            let names: Vec<_> = others.iter().map(String::as_str).collect();
            cx.ui.tick(format!("new: {}", propose::describe(&names)));
        }
        let names = survey.names();
        let text = extend::include(&old, &propose::more_patterns(&others, &names))?;
        let text = self.with_flags(cx, &text, production.machine())?;
        let text = with_renames(&cx.ui, text, &survey.renames(&apps::find(&location.root)));
        let masked = self.columns_to_mask(&cx.ui, &survey, &[])?.unwrap_or_default();
        let mut trials = Trials { cx, location, production, known: survey.trial.unmatched };
        let (new, settings) = self.tried(&mut trials, masked, |masked| {
            extend::with_rules(&text, &propose::rules(masked, &survey.databases, &text))
        })?;
        let ignored = ignore::lines(cx, &settings, &names)?;
        let mut planned =
            vec![FileChange { file: settings.file.clone(), old: old.into(), new: new.into() }];
        planned.extend(ignored);
        Ok(planned)
    }

    /// The text of the settings with what the flags say, and the machine that was chosen, where it says
    /// nothing else.
    fn with_flags(&self, cx: &Context, text: &str, machine: Option<&String>) -> Result<String> {
        let table = self.server.source_table();
        let local_dir = cx.global.local_dir.as_ref().map(|dir| dir.display().to_string());
        let chosen = machine.map(|id| ("machine", id.clone()));
        let flags = self.server.settings().into_iter().chain(chosen);
        let flags = flags.map(|(key, value)| (&table[..], key, value));
        let flags = flags.chain(local_dir.map(|dir| (&[][..], "local-dir", dir)));
        let mut text = text.to_owned();
        for (table, key, value) in flags {
            match extend::value(&text, table, key)? {
                None => match with_line(&text, table, &setting(key, &value)) {
                    Some(new) => text = new,
                    None => {
                        cx.ui.warn(format!("xtask/db.toml has no place for {key}"));
                        cx.ui.hint(format!("add it by hand: {}", setting(key, &value)));
                    }
                },
                Some(old) if old == value => {}
                Some(old) => {
                    cx.ui.tick(format!("kept: {}", setting(key, &old)));
                    cx.ui.hint(format!(
                        "to change it, edit xtask/db.toml: {}",
                        setting(key, &value)
                    ));
                }
            }
        }
        Ok(text)
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

    fn production<'a>(&'a self, cx: &'a Context, settings: &Settings) -> Result<Production<'a>> {
        let transport = self.server.transport(cx, settings, &[], false)?;
        if transport.replicas().is_some() {
            return Err(Failure::usage("init looks at databases on a server, and not at replicas")
                .hint("--via ssh:USER@HOST or another way to the server; via = \"litestream\" can be set afterwards")
                .into());
        }
        Ok(Production::new(&cx.ui, transport, self.only.as_ref()))
    }

    /// The columns that the audit found in tables that are not `omitted`, if the user wants rules for
    /// them.
    fn columns_to_mask(
        &self,
        ui: &Ui,
        survey: &Survey,
        omitted: &[String],
    ) -> Result<Option<Masked>> {
        let findings = &survey.trial.findings;
        if self.no_rules || findings.is_empty() {
            return Ok(None);
        }
        let masked = Masked::new(findings, &survey.databases, omitted);
        survey.trial.leaks.iter().for_each(|leak| ui.warn(leak));
        propose::report(ui, &masked.found, &survey.databases);
        let columns = masked.covered();
        let question =
            format!("Mask {} that look like secrets or personal data?", count(columns, "column"));
        Ok((columns == 0 || ui.accept(&question)?).then_some(masked))
    }

    /// The settings with rules with which a pull works, as far as rules for more columns can do that.
    fn tried(
        &self,
        trials: &mut Trials<'_>,
        mut masked: Masked,
        text: impl Fn(&Masked) -> Result<String>,
    ) -> Result<(String, Settings)> {
        let ui = &trials.cx.ui;
        loop {
            let text = text(&masked)?;
            // What is proposed must be what the other commands can read.
            let settings = Settings::parse(trials.location.clone(), &text, None)?;
            let settings = self.server.of_source(settings)?;
            if masked.covered() == 0 {
                return Ok((text, settings));
            }
            ui.status("Trying", "the rules on the server, as a pull does");
            match trials.production.trial(&settings) {
                Ok(trial) if !trial.leaks.is_empty() && masked.add(ui, &trial) => continue,
                Ok(trial) => trials.warn(&settings, &trial),
                Err(error) if interrupt::is_asked() || *error::reason(&error) != Reason::Other => {
                    return Err(error);
                }
                Err(error) => {
                    let hints = error::hints(&error);
                    fails(ui, &error::chain(&error).join(": "), &hints);
                }
            }
            return Ok((text, settings));
        }
    }
}

/// What rules are tried with.
struct Trials<'a> {
    cx: &'a Context,
    location: &'a Location,
    production: Production<'a>,
    /// The rules that match nothing, and are told already.
    known: Vec<Unmatched>,
}

impl Trials<'_> {
    /// Warns of what a pull would fail for.
    fn warn(&self, settings: &Settings, trial: &Trial) {
        for leak in &trial.leaks {
            fails(&self.cx.ui, leak, &[ADVICE_ON_LEAKS]);
        }
        for unmatched in trial.unmatched.iter().filter(|one| !self.known.contains(one)) {
            let (what, hint) = unmatched.describe(&settings.rules);
            fails(&self.cx.ui, &what, &[&hint]);
        }
    }
}

fn fails(ui: &Ui, why: &str, hints: &[&str]) {
    ui.warn(format!("a pull with these rules fails: {why}"));
    hints.iter().for_each(|hint| ui.hint(hint));
}

/// The text of the settings with names that databases have here.
fn with_renames(ui: &Ui, mut text: String, renames: &[(String, String)]) -> String {
    for (server, here) in renames {
        let line = format!("{} = {}", propose::key(server), quoted(here));
        if let Some(new) = with_line(&text, &["rename"], &line) {
            ui.tick(format!("{server} becomes {here} here"));
            text = new;
        }
    }
    text
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
