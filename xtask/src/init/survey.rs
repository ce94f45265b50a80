//! Looks at all databases of a server over one connection: a dry run that also describes them.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::config::{NamePattern, Names, Settings};
use crate::fs::from_hex;
use crate::init::apps::App;
use crate::init::surveyed::{MOST_TABLES, Surveyed};
use crate::init::tables;
use crate::pull::attempts::Attempts;
use crate::pull::receive::{self, Planned};
use crate::sanitize::EffectiveRules;
use crate::sanitize::audit::Findings;
use crate::sanitize::unmatched::Unmatched;
use crate::server::request::{self, Mode, Request};
use crate::server::transport::Transport;
use crate::ui::{Ui, bytes, count, on_one_line};

/// The number of databases in the report.
const SHOWN: usize = 12;

/// The server, with what the user has answered about it.
pub struct Production<'a> {
    ui: &'a Ui,
    transport: Transport<'a>,
    attempts: Attempts<'a>,
    only: Option<&'a NamePattern>,
    /// Whether writers of the app may wait for longer than `max-lock`.
    may_wait: bool,
}

pub struct Survey {
    pub databases: Vec<Surveyed>,
    pub directory: String,
    pub trial: Trial,
}

/// What would come of a pull.
pub struct Trial {
    pub findings: Findings,
    /// Where values are left that a rule removes; their columns are findings too.
    pub leaks: Vec<String>,
    pub unmatched: Vec<Unmatched>,
}

impl<'a> Production<'a> {
    pub fn new(ui: &'a Ui, transport: Transport<'a>, only: Option<&'a NamePattern>) -> Self {
        let attempts = Attempts { ui, settings: None, chosen: None, start: false };
        Self { ui, transport, attempts, only, may_wait: ui.yes }
    }

    /// The machine that the user has chosen of several.
    pub fn machine(&self) -> Option<&String> {
        self.attempts.chosen.as_ref()
    }

    /// Copies, masks and audits the databases there, and brings none.
    ///
    /// # Errors
    ///
    /// A pull would fail too, and not for a rule that matches nothing or leaves values.
    pub fn survey(&mut self, settings: &Settings) -> Result<Survey> {
        let planned = self.plan(settings, Mode::Survey)?;
        let mut known: BTreeMap<String, Surveyed> = BTreeMap::new();
        let mut tables = Vec::new();
        for one in &planned.facts {
            if let Some(one) = Surveyed::parse(one, &tables) {
                tables.clone_from(&one.tables);
                known.insert(settings.names.renames.local(&one.name), one);
            }
        }
        // Of very many, some are not described.
        let databases = planned.databases.iter().map(|one| Surveyed {
            bytes: one.bytes,
            ..known.get(&one.name).cloned().unwrap_or_else(|| Surveyed::unknown(&one.name))
        });
        Ok(Survey {
            databases: databases.collect(),
            directory: self.transport.target.directory.clone(),
            trial: Trial::new(planned),
        })
    }

    /// The same for settings of which the rules are new, without the description.
    ///
    /// # Errors
    ///
    /// As [`Self::survey`].
    pub fn trial(&mut self, settings: &Settings) -> Result<Trial> {
        Ok(Trial::new(self.plan(settings, Mode::Trial)?))
    }

    fn plan(&mut self, settings: &Settings, mode: Mode) -> Result<Planned> {
        let Self { ui, transport, attempts, .. } = self;
        let mut request = Request {
            max_lock: (!self.may_wait).then_some(settings.max_lock),
            nonce: request::nonce(),
            mode,
            any_machine: transport.is_fly() && transport.target.is_open(),
            settings,
            directory: transport.target.directory.clone(),
            only: self.only,
            rules: EffectiveRules::new(&settings.rules, true),
            bases: Vec::new(),
        };
        let planned = attempts.run(transport, &mut request, |transport, request| {
            receive::plan(ui, transport, request, &settings.snapshots_dir)
        })?;
        self.may_wait = request.max_lock.is_none();
        Ok(planned)
    }
}

impl Trial {
    fn new(planned: Planned) -> Self {
        let leak = |fact: &String| {
            let text = from_hex(fact.strip_prefix("leak ")?)?;
            Some(on_one_line(&String::from_utf8_lossy(&text)))
        };
        let leaks = planned.facts.iter().filter_map(leak).collect();
        Self { findings: planned.findings, leaks, unmatched: planned.unmatched }
    }
}

impl Survey {
    pub fn names(&self) -> Vec<String> {
        self.databases.iter().map(|one| one.name.clone()).collect()
    }

    /// The databases, the largest ones if there are many.
    pub fn report(&self, ui: &Ui) {
        let sizes = self.databases.iter().map(|one| one.bytes);
        let total = bytes(sizes.fold(0, u64::saturating_add));
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
    parts.extend(match one.tables.len() {
        0 => None,
        MOST_TABLES => Some(format!("{MOST_TABLES} or more tables")),
        n => Some(count(n, "table")),
    });
    parts.extend(tables::framework(&one.tables).map(str::to_owned));
    if tables::are_all_scratch(&one.tables) {
        parts.push("a cache or queue".to_owned());
    }
    parts.join(", ")
}
