//! Looks at all databases of a server over one connection: a dry run that also describes them.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::config::{NamePattern, Names, Settings};
use crate::init::apps::App;
use crate::init::surveyed::Surveyed;
use crate::init::tables;
use crate::pull::attempts::Attempts;
use crate::pull::receive;
use crate::sanitize::EffectiveRules;
use crate::sanitize::audit::Findings;
use crate::server::request::{self, Mode, Request};
use crate::server::transport::Transport;
use crate::ui::{Ui, bytes, count};

/// The number of databases in the report.
const SHOWN: usize = 12;

pub struct Survey {
    pub databases: Vec<Surveyed>,
    pub findings: Findings,
    /// The machine that the user has chosen of several.
    pub machine: Option<String>,
    directory: String,
}

/// Copies, masks and audits the databases there, and brings none.
///
/// # Errors
///
/// A pull would fail too.
pub fn take(
    ui: &Ui,
    settings: &Settings,
    transport: &mut Transport<'_>,
    only: Option<&NamePattern>,
) -> Result<Survey> {
    let directory = transport.target.directory.clone();
    let mut request = Request {
        max_lock: (!ui.yes).then_some(settings.max_lock),
        nonce: request::nonce(),
        mode: Mode::Survey,
        any_machine: transport.is_fly() && transport.target.is_open(),
        settings,
        directory: directory.clone(),
        only,
        rules: EffectiveRules::new(&settings.rules, true),
        bases: Vec::new(),
    };
    let mut attempts = Attempts { ui, settings: None, chosen: None, start: false };
    let planned = attempts.run(transport, &mut request, |transport, request| {
        receive::plan(ui, transport, request, &settings.snapshots_dir)
    })?;
    let known: BTreeMap<_, _> = (planned.facts.iter())
        .filter_map(|fact| Surveyed::parse(fact))
        .map(|one| (settings.names.renames.local(&one.name), one))
        .collect();
    // Of very many, some are not described.
    let databases = planned.databases.into_iter().map(|one| Surveyed {
        bytes: one.bytes,
        ..known.get(&one.name).cloned().unwrap_or_else(|| Surveyed::unknown(&one.name))
    });
    Ok(Survey {
        databases: databases.collect(),
        findings: planned.findings,
        machine: attempts.chosen,
        directory,
    })
}

impl Survey {
    pub fn names(&self) -> Vec<String> {
        self.databases.iter().map(|one| one.name.clone()).collect()
    }

    /// What is there, the largest ones if there are many.
    pub fn report(&self, ui: &Ui) {
        let total = bytes(self.databases.iter().map(|one| one.bytes).sum());
        let databases = count(self.databases.len(), "database");
        ui.tick(format!("{databases} in {}, {total}", self.directory));
        let mut rows: Vec<_> = self.databases.iter().collect();
        if rows.len() > SHOWN {
            rows.sort_by_key(|one| std::cmp::Reverse(one.bytes));
            rows.truncate(SHOWN - 1);
        }
        let width = rows.iter().map(|one| one.name.chars().count()).max().unwrap_or(0);
        for one in &rows {
            let size = bytes(one.bytes);
            ui.line(format!("    {:width$} {size:>9}  {}", one.name, describe(one)));
        }
        if rows.len() < self.databases.len() {
            ui.line(format!("    and {} more", self.databases.len() - rows.len()));
        }
    }

    /// The names on the server and here of those that the app calls otherwise here.
    pub fn renames(&self, apps: &[App]) -> Vec<(String, String)> {
        let base = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
        let is_there = |name: &str| self.databases.iter().any(|one| one.name == name);
        let of = |app: &App| {
            let here = app.file_name().to_owned();
            let server = match &app.production {
                Some(path) => base(path),
                // The only one must be it.
                None => match &self.databases[..] {
                    [one] => one.name.clone(),
                    _ => return None,
                },
            };
            (is_there(&server) && server != here && !is_there(&here)).then_some((server, here))
        };
        apps.iter().filter_map(of).collect()
    }

    /// The databases that do not belong to the set.
    pub fn not_included(&self, names: &Names) -> Vec<String> {
        let belongs = |name: &&String| {
            let excluded = names.exclude.iter().any(|pattern| pattern.matches(name));
            excluded || names.contains(&names.renames.local(name))
        };
        let wanted = self.databases.iter().filter(|one| !tables::are_all_scratch(&one.tables));
        wanted.map(|one| &one.name).filter(|name| !belongs(name)).cloned().collect()
    }
}

/// `WAL, of app, 14 tables, Rails`.
fn describe(one: &Surveyed) -> String {
    let mut parts = vec![if one.is_wal { "WAL" } else { "rollback" }.to_owned()];
    parts.extend(one.owner.as_ref().map(|owner| format!("of {owner}")));
    parts.push(count(one.tables.len(), "table"));
    parts.extend(tables::framework(&one.tables).map(str::to_owned));
    if tables::are_all_scratch(&one.tables) {
        parts.push("a cache or queue".to_owned());
    }
    parts.join(", ")
}
