//! The report of a pull or of a dry run.

use std::path::Path;

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use crate::config::{MaxAge, Rule};
use crate::live::{self, Replaced};
use crate::pull::delta::BLOCK;
use crate::pull::effects::Effect;
use crate::pull::receive::{Planned, Pulled};
use crate::pull::spec::PullSpec;
use crate::sanitize::audit::{Finding, Of};
use crate::server::protocol::{Changed, Timings};
use crate::server::transport::Transport;
use crate::snapshots::{Database, Snapshot};
use crate::ui::{Ui, age, bytes, count, escape, from_here};

/// The number of databases in a summary.
const SHOWN: usize = 12;
/// The number of columns of rules in the report of a dry run.
const SHOWN_EFFECTS: usize = 30;

/// Printed with `--json`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "pull-db"))]
pub struct Report<'a> {
    skipped: bool,
    snapshot: &'a str,
    before: Option<&'a str>,
    databases: Vec<OfDatabase>,
    audit: &'a [Finding],
    removed: &'a [String],
    programs: &'a [String],
    /// Unsanitized databases of the live set.
    unsanitized_databases: &'a [String],
    sanitized_rows: u64,
    machine: Option<&'a str>,
    region: Option<&'a str>,
    seconds: f64,
    skew_ms: i64,
    wire_bytes: u64,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "PulledDatabase"))]
pub struct OfDatabase {
    #[serde(flatten)]
    database: Database,
    #[serde(flatten)]
    differs: Differs,
}

/// Printed with `--dry-run --json`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "pull-db-dry-run"))]
pub struct Plan<'a> {
    dry_run: bool,
    databases: Vec<Planning<'a>>,
    removes: &'a [String],
    audit: &'a [Finding],
    sanitized_rows: u64,
    /// What each rule does, in the databases that changed since the last pull.
    effects: &'a [Effect],
    /// Columns that the last pull does not have.
    new_columns: &'a [String],
    machine: Option<&'a str>,
    region: Option<&'a str>,
    wire_bytes: u64,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "PlannedDatabase"))]
pub struct Planning<'a> {
    name: &'a str,
    bytes: u64,
    unsanitized: bool,
    #[serde(flatten)]
    differs: Differs,
}

/// Differences from the base; `None` if the database comes complete.
#[derive(Clone, Copy, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Differs {
    changed_pages: Option<u64>,
    changed_bytes: Option<u64>,
}

impl Differs {
    fn new(changed: Option<Changed>, bytes: u64) -> Self {
        Self {
            changed_pages: changed.map(|changed| changed.pages),
            changed_bytes: changed.map(|changed| bytes.min(changed.blocks * BLOCK)),
        }
    }

    fn describe(self) -> String {
        match (self.changed_pages, self.changed_bytes) {
            (Some(0), _) => "  unchanged".to_owned(),
            (Some(pages), Some(size)) => {
                format!("  {} in {}", bytes(size), count(pages as usize, "changed page"))
            }
            _ => String::new(),
        }
    }
}

/// A line of the summary.
struct Row<'a> {
    name: &'a str,
    bytes: u64,
    differs: Differs,
    sanitized: u64,
    unsanitized: bool,
}

/// Prints the report of a pull.
pub fn pulled(
    ui: &Ui,
    transport: &Transport<'_>,
    pulled: &Pulled,
    snapshot: &Snapshot,
    replaced: &Replaced,
    data_dir: &Path,
    seconds: f64,
) -> Result<()> {
    let rows: Vec<_> = pulled
        .databases
        .iter()
        .map(|arrived| Row {
            name: &arrived.database.name,
            bytes: arrived.database.bytes,
            differs: Differs::new(arrived.changed, arrived.database.bytes),
            sanitized: arrived.sanitized,
            unsanitized: arrived.database.unsanitized,
        })
        .collect();
    if ui.json {
        pulled.findings.warn(ui, Of::Pull(data_dir));
        let databases = pulled.databases.iter().zip(&rows);
        return ui.json(&Report {
            skipped: false,
            snapshot: &snapshot.name,
            before: replaced.before.as_ref().map(|saved| saved.name.as_str()),
            databases: databases
                .map(|(arrived, row)| OfDatabase {
                    // The rest is for later pulls.
                    database: Database { remote: None, file: None, ..arrived.database.clone() },
                    differs: row.differs,
                })
                .collect(),
            audit: &pulled.findings.columns,
            removed: &replaced.removed,
            programs: &replaced.programs,
            unsanitized_databases: &replaced.unsanitized,
            sanitized_rows: sanitized(&rows),
            machine: pulled.machine.as_deref(),
            region: pulled.region.as_deref(),
            seconds,
            skew_ms: pulled.timings.skew,
            wire_bytes: pulled.wire_bytes,
        });
    }
    let from = from(transport, pulled.machine.as_deref(), pulled.region.as_deref());
    ui.status("Pulled", format!("{} from {from}", count(rows.len(), "database")));
    summarize(ui, rows);
    let wire = format!("{} on the wire for {}", bytes(pulled.wire_bytes), bytes(snapshot.bytes()));
    let Timings { copy, sanitize, compare, pack, skew } = pulled.timings;
    let moment = if skew > 0 { format!(", all within {skew} ms") } else { String::new() };
    ui.status("Ready", format!("{} in {seconds:.1} s, {wire}{moment}", from_here(data_dir)));
    ui.verbose(format!(
        "{}: copy {copy} ms, mask {sanitize} ms, hash {compare} ms, compare and pack {pack} ms",
        transport.place()
    ));
    live::report::replaced(ui, snapshot, replaced);
    pulled.findings.warn(ui, Of::Pull(data_dir));
    Ok(())
}

/// Prints the report of a dry run.
pub fn planned(
    ui: &Ui,
    transport: &Transport<'_>,
    planned: &Planned,
    removes: &[String],
    rules: &[Rule],
    new_columns: &[String],
) -> Result<()> {
    let effects: Vec<_> =
        planned.facts.iter().filter_map(|fact| Effect::parse(fact, rules)).collect();
    let rows: Vec<_> = planned
        .databases
        .iter()
        .zip(&planned.unsanitized)
        .map(|(database, &unsanitized)| Row {
            name: &database.name,
            bytes: database.bytes,
            differs: Differs::new(database.changed, database.bytes),
            sanitized: database.sanitized,
            unsanitized,
        })
        .collect();
    if ui.json {
        planned.findings.warn(ui, Of::DryRun);
        return ui.json(&Plan {
            dry_run: true,
            databases: rows
                .iter()
                .map(|&Row { name, bytes, differs, unsanitized, .. }| Planning {
                    name,
                    bytes,
                    unsanitized,
                    differs,
                })
                .collect(),
            removes,
            audit: &planned.findings.columns,
            sanitized_rows: sanitized(&rows),
            effects: &effects,
            new_columns,
            machine: planned.machine.as_deref(),
            region: planned.region.as_deref(),
            wire_bytes: planned.wire_bytes,
        });
    }
    let from = from(transport, planned.machine.as_deref(), planned.region.as_deref());
    let total = rows.iter().map(|row| row.bytes).fold(0, u64::saturating_add);
    ui.status("Would pull", format!("{} from {from}", count(rows.len(), "database")));
    let masked = sanitized(&rows);
    summarize(ui, rows);
    if !effects.is_empty() {
        ui.status("Would mask", count(usize::try_from(masked).unwrap_or(usize::MAX), "row"));
        say_effects(ui, &effects, rules, planned.untouched);
    }
    if !new_columns.is_empty() {
        ui.status("New columns", escape(&new_columns.join(", ")));
    }
    if !removes.is_empty() {
        let names = escape(&removes.join(", "));
        ui.status("Would remove", names + ", which the server does not have");
    }
    let wire = format!("{} ({} of databases)", bytes(planned.wire_bytes), bytes(total));
    ui.status("Would download", format!("{wire}; nothing was changed"));
    planned.findings.warn(ui, Of::DryRun);
    Ok(())
}

/// What each rule does; `untouched` databases are as they were at the last pull.
fn say_effects(ui: &Ui, effects: &[Effect], rules: &[Rule], untouched: usize) {
    let lines: Vec<_> = effects.iter().map(|effect| effect.describe(rules)).collect();
    let width = lines.iter().map(|(place, _)| place.chars().count()).max().unwrap_or(0);
    for (place, effect) in lines.iter().take(SHOWN_EFFECTS) {
        ui.status("", format!("{place:width$}  {effect}"));
    }
    if lines.len() > SHOWN_EFFECTS {
        ui.status("", format!("and {} more; --json lists them", lines.len() - SHOWN_EFFECTS));
    }
    if untouched > 0 {
        let databases = count(untouched, "database");
        ui.status("", format!("without {databases} unchanged since the last pull (--full)"));
    }
}

fn sanitized(rows: &[Row<'_>]) -> u64 {
    rows.iter().fold(0, |sum, row| sum.saturating_add(row.sanitized))
}

fn from(transport: &Transport<'_>, machine: Option<&str>, region: Option<&str>) -> String {
    let mut from = transport.peer();
    if let Some(machine) = machine {
        let region = region.map(|region| format!(" in {region}")).unwrap_or_default();
        from += &escape(&format!(", machine {machine}{region}"));
    }
    from
}

/// Shows only the largest databases, so that hundreds do not scroll everything else away.
fn summarize(ui: &Ui, mut rows: Vec<Row<'_>>) {
    let (all, changed) = (rows.len(), sanitized(&rows));
    if all > SHOWN {
        rows.sort_by_key(|row| std::cmp::Reverse(row.bytes));
        rows.truncate(SHOWN - 1);
    }
    let width = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
    let differs =
        |row: &Row<'_>| if ui.is_narrow() { String::new() } else { row.differs.describe() };
    for row in &rows {
        let sanitized = match row.sanitized {
            0 if row.unsanitized => "  unmasked".to_owned(),
            0 => String::new(),
            n => format!("  {} masked", count(n as usize, "row")),
        };
        let (name, size) = (escape(row.name), bytes(row.bytes));
        ui.status("", format!("{name:width$} {size:>9}{}{sanitized}", differs(row)));
    }
    if rows.len() < all {
        let (more, sanitized) = (all - rows.len(), count(changed as usize, "row"));
        ui.status("", format!("and {more} more; {sanitized} masked in all"));
    }
}

/// Printed with `--json` if no pull was done.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "pull-db-skipped"))]
pub struct Skipped<'a> {
    skipped: bool,
    reason: &'a str,
    /// The newest pulled snapshot.
    snapshot: Option<&'a str>,
}

/// Reports that `fresh` is new enough to skip the pull.
///
/// # Errors
///
/// Standard output cannot be written.
pub fn fresh(ui: &Ui, spec: &PullSpec<'_>, fresh: &Snapshot) -> Result<()> {
    let limit = spec.if_older.map_or("", MaxAge::text);
    let when = format!("pulled {}, --if-older {limit}", ago(fresh));
    ui.status("Skipped", format!("the pull: {} is fresh ({when})", fresh.name));
    say_skipped(ui, "young", Some(fresh))
}

/// Reports that there is no network, and which pull can be used.
///
/// # Errors
///
/// Standard output cannot be written.
pub fn offline(ui: &Ui, error: &anyhow::Error, newest: Option<&Snapshot>) -> Result<()> {
    let stays = match newest {
        Some(newest) => format!("the newest pull is {}, {}", newest.name, ago(newest)),
        None => "there is no earlier pull of it".to_owned(),
    };
    ui.warn(format!("{}\n  nothing was changed; {stays}", escape(&format!("{error:#}"))));
    say_skipped(ui, "offline", newest)
}

fn ago(snapshot: &Snapshot) -> String {
    age(Timestamp::now().duration_since(snapshot.time).as_secs())
}

/// # Errors
///
/// Standard output cannot be written.
pub fn say_skipped(ui: &Ui, reason: &str, snapshot: Option<&Snapshot>) -> Result<()> {
    if !ui.json {
        return Ok(());
    }
    let snapshot = snapshot.map(|snapshot| snapshot.name.as_str());
    ui.json(&Skipped { skipped: true, reason, snapshot })
}
