use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use clap_complete::engine::ArgValueCompleter;

use crate::completion;
use crate::config::{NamePattern, nearest};
use crate::context::Context;
use crate::diff::report::{Compared, Content, Report, RowChange, Shown, Status};
use crate::diff::sides::{CURRENT, Database, Pair, Side, pairs};
use crate::diff::{self, Changes, Source};
use crate::error::{Failure, chain};
use crate::live::LockedLiveSet;
use crate::snapshots::Store;
use crate::ui::{JSON_VERSION, count, escape};
use crate::{interrupt, sqlite};

#[derive(clap::Args)]
pub struct Args {
    /// A snapshot (by a name as for `restore-db`), `current` (the current data), or a
    /// database file [default: the newest pulled snapshot]
    #[arg(add = ArgValueCompleter::new(completion::sides))]
    a: Option<String>,
    /// What to compare it with
    #[arg(default_value = CURRENT, add = ArgValueCompleter::new(completion::sides))]
    b: String,
    /// Compare only databases whose name matches
    #[arg(long, value_name = "GLOB", value_parser = NamePattern::anywhere, add = ArgValueCompleter::new(completion::databases))]
    only: Option<NamePattern>,
    /// Show the rows of this table that differ: their keys, and changed values before and after
    #[arg(long, value_name = "TABLE", conflicts_with = "summary")]
    table: Option<String>,
    /// Of rows, show only keys and the names of changed columns
    #[arg(long, requires = "table")]
    skinny: bool,
    /// Print one line per database
    #[arg(long)]
    summary: bool,
    /// Show values of databases with unmasked secrets too
    #[arg(long, requires = "table")]
    show_unmasked: bool,
}

impl Args {
    pub(super) fn run(mut self, cx: &Context) -> Result<()> {
        let settings = cx.settings()?;
        self.only = self.only.map(|only| only.with(&settings.names.renames));
        LockedLiveSet::recover_without_waiting(cx, &settings)?;
        let store = Store::of(&settings);
        let a = match &self.a {
            Some(a) => Side::find(&settings, &store, a)?,
            None => Side::newest_pull(&settings, &store)?,
        };
        let b = Side::find(&settings, &store, &self.b)?;
        let pairs = pairs(&a, &b, self.only.as_ref())?;
        let run = Run { cx, args: &self, has_rows: Cell::default(), tables: RefCell::default() };
        let (a, b) = (a.origin.to_string(), b.origin.to_string());
        let mut report = Report { a, b, databases: Vec::new() };
        cx.ui.status("Comparing", format!("{} with {}", report.a, report.b));
        for pair in pairs {
            interrupt::check()?;
            if let Some(compared) = run.compare(pair)? {
                run.print(&report, &compared)?;
                report.databases.push(compared);
            }
        }
        run.finish(&report)
    }
}

struct Run<'a> {
    cx: &'a Context,
    args: &'a Args,
    /// Whether a row was printed.
    has_rows: Cell<bool>,
    /// The names of all tables, if one of them is asked for.
    tables: RefCell<BTreeSet<String>>,
}

const LOCKED: &str =
    "a program has it locked: end its transaction, or give it time with --wait SECONDS";

type Outcome = (Status, Changes, Option<Content>);

impl Run<'_> {
    /// Compares a database, and prints its rows if they are asked for; `None` if it lacks their
    /// table. A damaged one does not end the run.
    fn compare(&self, pair: Pair) -> Result<Option<Compared>> {
        let unmasked = [&pair.a, &pair.b].into_iter().flatten().any(|it| it.is_unmasked);
        let outcome = match (&pair.a, &pair.b) {
            (Some(a), Some(b)) => self.both(&pair.name, a, b, unmasked),
            (Some(database), None) => self.one(database, Status::Removed),
            (None, Some(database)) => self.one(database, Status::Added),
            (None, None) => Ok(None),
        };
        match outcome.map_err(interrupt::prefer_interrupt) {
            Ok(outcome) => Ok(outcome.map(|(status, changes, content)| Compared {
                name: pair.name,
                status,
                unmasked,
                changes,
                content,
                error: None,
            })),
            Err(error) if interrupt::is_asked() => Err(error),
            Err(error) => {
                let is_busy = sqlite::tells_busy(&error);
                let error = if is_busy { error.context(LOCKED) } else { error };
                self.cx.ui.warn(format!("{}: {}", pair.name, chain(&error).join(": ")));
                Ok(Some(Compared::failed(pair.name, unmasked, &error)))
            }
        }
    }

    fn open(&self, database: &Database) -> Result<Source> {
        let why = || format!("cannot read {}", database.path.display());
        database.open(self.cx.global.wait()).with_context(why)
    }

    /// Whether a database has the table of `--table`; true without it.
    fn has_table(&self, source: &Source) -> Result<bool> {
        let Some(wanted) = &self.args.table else { return Ok(true) };
        let tables = diff::tables(source)?;
        let has_it = tables.iter().any(|table| table.eq_ignore_ascii_case(wanted));
        self.tables.borrow_mut().extend(tables);
        Ok(has_it)
    }

    fn both(
        &self,
        name: &str,
        a: &Database,
        b: &Database,
        unmasked: bool,
    ) -> Result<Option<Outcome>> {
        let table = self.args.table.as_deref();
        if a.is_same(b) {
            let is_wanted = table.is_none() || self.has_table(&self.open(a)?)?;
            return Ok(is_wanted.then(|| (Status::Same, Changes::default(), None)));
        }
        let (x, y) = (self.open(a)?, self.open(b)?);
        // Of both, so that the error names a table that is like the one that is not there.
        if !self.has_table(&x)? & !self.has_table(&y)? {
            return Ok(None);
        }
        let shown = match (unmasked && !self.args.show_unmasked, self.args.skinny) {
            (true, _) => Shown::Masked,
            (_, true) => Shown::Names,
            _ => Shown::Values,
        };
        let mut is_first = true;
        let changes = diff::compare(&x, &y, table, &mut |pair, verb, before, after| match table {
            Some(table) => {
                let row = RowChange { pair, verb, before, after, shown };
                self.print_row(name, table, &row, std::mem::take(&mut is_first))
            }
            None => Ok(()),
        });
        let changes = changes.map_err(|error| {
            match [(a, &x), (b, &y)].iter().find(|(_, it)| it.is_damaged()) {
                Some((database, _)) => {
                    error.context(format!("{} is damaged", database.path.display()))
                }
                None => error,
            }
        })?;
        let status = if changes.is_empty() { Status::Same } else { Status::Changed };
        Ok(Some((status, changes, None)))
    }

    /// A database that only one set has.
    fn one(&self, database: &Database, status: Status) -> Result<Option<Outcome>> {
        let source = self.open(database)?;
        if !self.has_table(&source)? {
            return Ok(None);
        }
        let content = Content { tables: diff::tables(&source)?.len(), bytes: source.bytes() };
        Ok(Some((status, Changes::default(), Some(content))))
    }

    fn print_row(
        &self,
        name: &str,
        table: &str,
        row: &RowChange<'_>,
        is_first: bool,
    ) -> Result<()> {
        let ui = &self.cx.ui;
        if ui.json {
            if !self.has_rows.replace(true) {
                ui.json_part("{\"version\": ", &JSON_VERSION, ", \"rows\": [")?;
                return ui.json_part("", &row.json(name)?, "");
            }
            return ui.json_part(",", &row.json(name)?, "");
        }
        if is_first {
            let hidden = match row.shown {
                Shown::Masked => " (unmasked: values are shown only with --show-unmasked)",
                _ => "",
            };
            ui.data(format!("{name}: {table}{hidden}"))?;
        }
        ui.data(row.text()?)
    }

    fn print(&self, report: &Report, compared: &Compared) -> Result<()> {
        if self.cx.ui.json {
            return Ok(());
        }
        let lines = report.lines(compared, self.args.summary);
        lines.into_iter().try_for_each(|line| self.cx.ui.data(line))
    }

    /// Prints JSON, and fails if a database could not be compared.
    fn finish(&self, report: &Report) -> Result<()> {
        let ui = &self.cx.ui;
        if let (Some(table), []) = (&self.args.table, &report.databases[..]) {
            let failure = Failure::usage(format!("none of the databases has a table {table:?}"));
            let tables = self.tables.borrow();
            let nearest = nearest(table, tables.iter().map(String::as_str));
            let hint = nearest.map(|nearest| format!("did you mean {nearest:?}?"));
            return Err(hint.into_iter().fold(failure, Failure::hint).into());
        }
        if ui.json && self.args.table.is_some() {
            if !self.has_rows.get() {
                ui.json_part("{\"version\": ", &JSON_VERSION, ", \"rows\": [")?;
            }
            ui.json_part("], \"a\": ", &report.a, ",")?;
            ui.json_part("\"b\": ", &report.b, ",")?;
            ui.json_part("\"databases\": ", &report.databases, "}")?;
        } else if ui.json {
            ui.json(report)?;
        }
        let failed = report.databases.iter().filter(|it| it.status == Status::Failed);
        let failed: Vec<String> = failed.map(|it| escape(&it.name)).collect();
        if failed.is_empty() {
            return Ok(());
        }
        let what = count(failed.len(), "database");
        Err(Failure::new(format!("{what} could not be compared: {}", failed.join(", ")))
            .hint("compare with another snapshot: cargo xtask snapshots list")
            .into())
    }
}
