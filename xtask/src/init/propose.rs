//! The settings that follow from what was found.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::config::{NamePattern, plain};
use crate::init::survey::Trial;
use crate::init::surveyed::Surveyed;
use crate::init::{passwords, tables};
use crate::sanitize::audit::{Finding, Findings, quoted};
use crate::ui::{Ui, count, escape, on_one_line};

/// The number of columns that are shown.
const SHOWN: usize = 20;

/// What `db.toml` will say.
pub struct Proposal<'a> {
    /// Lines with the source: `app`, `via`, `fly-config`, `remote-dir`, as they are written.
    pub source: Vec<String>,
    pub local_dir: &'a str,
    pub databases: &'a [Surveyed],
    /// What databases are called here: on the server, and here.
    pub renames: Vec<(String, String)>,
    /// Whether `bin/rails` can be run here.
    pub has_rails: bool,
}

/// The columns that are to be masked.
#[derive(Default)]
pub struct Masked {
    pub found: Vec<Finding>,
    /// Columns with values that a rule for another one removes.
    pub copied: Vec<Finding>,
    /// For these columns, which one that is, as far as the server has told.
    origins: BTreeMap<String, String>,
}

impl Masked {
    /// Those that an audit found, but for the tables that do not come: those `omitted`, and those that
    /// only caches and queues have.
    pub fn new(findings: &Findings, databases: &[Surveyed], omitted: &[String]) -> Self {
        let is_scratch = |one: &&Surveyed| tables::are_all_scratch(&one.tables);
        let (scratch, wanted): (Vec<_>, Vec<_>) = databases.iter().partition(is_scratch);
        let has =
            |of: &[&Surveyed], table: &String| of.iter().any(|one| one.tables.contains(table));
        let comes = |one: &&Finding| {
            let is_omitted = omitted.iter().any(|table| table.eq_ignore_ascii_case(&one.table));
            !is_omitted && (!has(&scratch, &one.table) || has(&wanted, &one.table))
        };
        let found = findings.columns.iter().filter(comes).map(for_rule).collect();
        Self { found, ..Self::default() }
    }

    /// The number of columns for which there is a rule.
    pub fn covered(&self) -> usize {
        self.found.iter().filter(|one| one.set.is_some() || one.empty.is_some()).count()
    }

    fn has(&self, finding: &Finding) -> bool {
        let is_same = |it: &Finding| it.table == finding.table && it.column == finding.column;
        self.found.iter().chain(&self.copied).any(is_same)
    }

    /// Adds the columns that a trial of the rules has found; returns whether there are any.
    pub fn add(&mut self, ui: &Ui, trial: &Trial) -> bool {
        let columns = trial.findings.columns.iter().map(for_rule);
        let new: Vec<_> = columns.filter(|one| one.set.is_some() && !self.has(one)).collect();
        if new.is_empty() {
            return false;
        }
        self.origins.extend(trial.leaks.iter().flat_map(|leak| origins(leak)));
        let columns = count(new.len(), "more column");
        ui.tick(format!("{columns} with values that these rules remove: masked too"));
        let rows = new.iter().filter_map(|one| {
            let sql = one.set.as_deref()?;
            let of = self.origins.get(&one.place()).map(|of| format!("  has values of {of}"));
            Some((one.place(), format!("{sql}{}", of.unwrap_or_default())))
        });
        list_columns(ui, &rows.collect::<Vec<_>>());
        self.copied.extend(new);
        true
    }
}

/// The columns that a leak names, and those whose values they have.
fn origins(leak: &str) -> impl Iterator<Item = (String, String)> {
    let (_, places) = leak.split_once(" removes values of ").unwrap_or_default();
    places.split(", and of ").filter_map(|place| {
        let (of, still_in) = place.split_once(", which are still in ")?;
        Some((escape(still_in), escape(of)))
    })
}

/// The finding, with SQL only if its names can be sent in a rule.
fn for_rule(finding: &Finding) -> Finding {
    let mut finding = finding.clone();
    if [&finding.table, &finding.column].iter().any(|name| plain("a name", name).is_err()) {
        (finding.set, finding.empty) = (None, None);
    }
    finding
}

impl Proposal<'_> {
    /// The text of a new settings file with rules for these columns.
    pub fn text(&self, masked: &Masked) -> String {
        let (scratch, wanted): (Vec<_>, Vec<_>) =
            self.databases.iter().partition(|one| tables::are_all_scratch(&one.tables));
        let names = |of: &[&Surveyed]| of.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
        let mut text =
            "# Which databases `cargo xtask pull-db` brings, from where, and what it masks.\n"
                .to_owned();
        for line in &self.source {
            text += line;
            text.push('\n');
        }
        // Writing to a string does not fail.
        let _ = writeln!(text, "# Where your app opens them on this machine.");
        let _ = writeln!(text, "local-dir = {}", quoted(self.local_dir));
        text +=
            "# Snapshots with unmasked data are removed after this time.\nunmasked-keep = \"7d\"\n";
        let _ = writeln!(text, "include = {}", list(&patterns(&names(&wanted))));
        if !scratch.is_empty() {
            text += "# Caches and queues: your app makes them again.\n";
            let _ = writeln!(text, "exclude = {}", list(&names(&scratch)));
        }
        let omitted = omitted(self.databases);
        if !omitted.is_empty() {
            text += "# Rows of caches, queues and sessions, which stay on the server.\n";
            let _ = writeln!(text, "omit = {}", list(&omitted));
        }
        if !self.renames.is_empty() {
            text += "\n# What they are called here.\n[rename]\n";
            for (server, here) in &self.renames {
                let _ = writeln!(text, "{} = {}", quoted(server), quoted(here));
            }
        }
        if self.has_rails
            && wanted.iter().any(|one| tables::framework(&one.tables) == Some("Rails"))
        {
            text += "\n# Rails records in the database of which environment it is.\n[hooks]\n\
                     after-pull = \"bin/rails db:environment:set RAILS_ENV=development\"\n";
        }
        text += &rules(masked, self.databases, "");
        text + &self.fixture(&wanted)
    }

    /// An example of a fixture, in comments.
    fn fixture(&self, wanted: &[&Surveyed]) -> String {
        let Some(first) = wanted.iter().max_by_key(|one| one.bytes) else { return String::new() };
        let renamed = self.renames.iter().find(|(server, _)| *server == first.name);
        let name = renamed.map_or(&*first.name, |(_, here)| here);
        let base = name.rsplit('/').next().unwrap_or(name);
        format!(
            "\n# A small database for tests, cut from the pulled one; `cargo xtask install-hooks` keeps it fresh:\n\
             # [[fixture]]\n# path = {}\n# from = {}\n# rows = {{ \"*\" = 20 }}\n",
            quoted(&format!("tests/fixtures/{base}")),
            quoted(name)
        )
    }
}

/// The tables of caches, queues and sessions among others.
pub fn omitted(databases: &[Surveyed]) -> Vec<String> {
    let wanted = databases.iter().filter(|one| !tables::are_all_scratch(&one.tables));
    tables::scratch(wanted.flat_map(|one| &one.tables))
}

/// A rule for each table, and in comments what has none, unless `written` says so already.
pub fn rules(masked: &Masked, databases: &[Surveyed], written: &str) -> String {
    let mut tables: BTreeMap<(&str, Option<&str>), Vec<String>> = BTreeMap::new();
    let mut others = Vec::new();
    let found = masked.found.iter().map(|finding| (finding, false));
    for (finding, is_copy) in found.chain(masked.copied.iter().map(|finding| (finding, true))) {
        let Some(line) = line(finding, databases) else {
            others.push(finding.line());
            continue;
        };
        let why = match (is_copy, masked.origins.get(&finding.place())) {
            (false, _) => String::new(),
            (true, Some(of)) => format!("# It has values of {of}, which a rule removes.\n"),
            (true, None) => "# It has values that another rule removes.\n".to_owned(),
        };
        let rule = (finding.table.as_str(), finding.condition.as_deref());
        tables.entry(rule).or_default().push(format!("{why}{line}"));
    }
    // What an earlier run has written.
    others.retain(|line| !written.contains(line));
    let mut text = String::new();
    if !tables.is_empty() {
        text += "\n# What looks like secrets or personal data is masked on the server, before anything is sent.\n";
    }
    for (i, ((table, condition), columns)) in tables.iter().enumerate() {
        let blank = if i == 0 { "" } else { "\n" };
        let condition = condition.map(|it| format!("where = {}\n", quoted(it)));
        let _ = writeln!(
            text,
            "{blank}[[sanitize]]\ntable = {}\n{}{}",
            quoted(table),
            condition.unwrap_or_default(),
            columns.join("\n")
        );
    }
    if !others.is_empty() {
        text +=
            "\n# These look like secrets too; write what fits them, or allow them in [audit]:\n";
        for line in others {
            let _ = writeln!(text, "#   {line}");
        }
    }
    text
}

/// What a rule sets in this column, if SQL for it is known.
fn line(finding: &Finding, databases: &[Surveyed]) -> Option<String> {
    let (table, column) = (&finding.table, &finding.column);
    let name = key(column);
    if let Some(hash) = passwords::of(databases, table, column) {
        return Some(format!(
            "# The password of every user: development\nset.{name} = {}",
            quoted(hash)
        ));
    }
    if let Some(set) = &finding.set {
        let line = format!("set.{name} = {}", quoted(set));
        // A unique key may be a secret, or the name of something.
        return Some(match column.eq_ignore_ascii_case("key") && set.starts_with("'masked-'") {
            true => format!(
                "# If your app finds rows by it: allow = [{}] in [audit] instead.\n{line}",
                quoted(&format!("{table}.{column}"))
            ),
            false => line,
        });
    }
    let empty = finding.empty.as_ref()?;
    let keep = format!("json_replace({}, '$.NAME', '')", on_one_line(column));
    Some(format!("# {keep} keeps the rest of the JSON.\nset.{name} = {}", quoted(empty)))
}

/// Shows what the question is about.
pub fn report(ui: &Ui, findings: &[Finding], databases: &[Surveyed]) {
    let sql = |one: &Finding| match passwords::of(databases, &one.table, &one.column) {
        Some(_) => Some("a hash of the password: development".to_owned()),
        None => one.set.clone().or_else(|| one.empty.clone()),
    };
    let rows = findings.iter().filter_map(|one| Some((one.place(), sql(one)?)));
    list_columns(ui, &rows.collect::<Vec<_>>());
}

/// Columns and what they are set to.
fn list_columns(ui: &Ui, rows: &[(String, String)]) {
    let width = rows.iter().take(SHOWN).map(|(place, _)| place.chars().count()).max().unwrap_or(0);
    for (place, sql) in rows.iter().take(SHOWN) {
        ui.line(format!("    {place:width$}  {sql}"));
    }
    if rows.len() > SHOWN {
        ui.line(format!("    and {} more", rows.len() - SHOWN));
    }
}

/// A key of TOML.
pub fn key(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    if !name.is_empty() && name.chars().all(plain) { name.to_owned() } else { quoted(name) }
}

pub fn list(names: &[String]) -> String {
    format!("[{}]", names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", "))
}

/// Patterns for these names: `*.db`, `tenants/*/main.db`. They fit other names of the same form,
/// such as that of the next tenant.
pub fn patterns(names: &[String]) -> Vec<String> {
    let mut groups: BTreeMap<String, Vec<&String>> = BTreeMap::new();
    for name in names {
        groups.entry(form(name)).or_default().push(name);
    }
    let mut patterns = Vec::new();
    for (form, names) in groups {
        let is_nested = form.contains('/');
        // One database of its own is called by its name.
        let alone = is_nested && names.len() == 1;
        patterns.push(if alone { glob::Pattern::escape(names[0]) } else { form });
    }
    patterns
}

/// Patterns for these of all names, which fit no other one of them.
pub fn more_patterns(names: &[String], all: &[String]) -> Vec<String> {
    let is_wanted = |pattern: &String| {
        let pattern = NamePattern::path(pattern);
        pattern.is_ok_and(|it| all.iter().all(|name| !it.matches(name) || names.contains(name)))
    };
    match patterns(names) {
        patterns if patterns.iter().all(is_wanted) => patterns,
        _ => names.iter().map(|name| glob::Pattern::escape(name)).collect(),
    }
}

/// In the root, what has the same ending; below it, what has the same name in another directory, or
/// the same ending in the same one.
fn form(name: &str) -> String {
    let (directory, base) = name.rsplit_once('/').unwrap_or(("", name));
    let same_ending = match base.rsplit_once('.') {
        Some((_, end)) if !end.is_empty() => format!("*.{}", glob::Pattern::escape(end)),
        _ => glob::Pattern::escape(base),
    };
    match directory.rsplit_once('/') {
        None if directory.is_empty() => same_ending,
        None => format!("{}/{same_ending}", glob::Pattern::escape(directory)),
        Some((above, _)) => {
            format!("{}/*/{}", glob::Pattern::escape(above), glob::Pattern::escape(base))
        }
    }
}

/// A line of the report: `tenants/a.db and 2 others like it`.
pub fn describe(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first, others @ ..] => format!("{first} and {} more", others.len()),
    }
}
