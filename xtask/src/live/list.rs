//! The list of snapshots: a table on a terminal, else plain lines.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use jiff::{Timestamp, ZonedDateTime};
use serde::Serialize;

use super::{LockedLiveSet, State, databases, known_sha256, placed};
use crate::config::Settings;
use crate::context::Context;
use crate::moment;
use crate::snapshots::{Kind, Snapshot, Store, disk_usage, short_name};
use crate::ui::{Choice, Ui, bytes, count, cut, escape, has_unicode, width};

/// The longest label that a column shows.
const LABEL: usize = 24;
/// What is left of the column for a label where a terminal is narrow.
const NARROW: usize = 8;

/// The snapshots, and what is known of the current data without reading it.
pub struct Listing<'a> {
    snapshots: &'a [Snapshot],
    state: State,
    settings: &'a Settings,
    now: ZonedDateTime,
    /// The databases of the current data, and the content of those where that is known.
    current: BTreeMap<String, Option<String>>,
    /// Those that were written to since they were installed.
    edited: BTreeSet<String>,
}

/// A snapshot as a list shows it.
struct Row {
    mark: &'static str,
    name: String,
    taken: String,
    what: String,
    databases: String,
    size: String,
    notes: Vec<String>,
    /// Whether the first note is a warning.
    is_warning: bool,
}

/// The widths of the columns of a table; 0 leaves one out.
#[derive(Default)]
struct Widths {
    name: usize,
    taken: usize,
    what: usize,
    databases: usize,
    size: usize,
}

impl<'a> Listing<'a> {
    /// # Errors
    ///
    /// The data directory or the state cannot be read.
    pub fn new(store: &Store, snapshots: &'a [Snapshot], settings: &'a Settings) -> Result<Self> {
        let state = State::read(store)?;
        let mut known = known_sha256(store, &state);
        let names = databases(&store.dir, &settings.names)?.into_iter();
        let current = names.map(|name| (name.clone(), known.remove(&name))).collect();
        let edited = placed::edited(store, &state);
        Ok(Self { snapshots, state, settings, now: moment::now(), current, edited })
    }

    /// Whether the current data is from this snapshot.
    pub fn is_current(&self, snapshot: &Snapshot) -> bool {
        self.state.live.as_ref() == Some(&snapshot.name)
    }

    fn is_undo(&self, snapshot: &Snapshot) -> bool {
        self.state.before.as_ref() == Some(&snapshot.name)
    }

    /// Whether the current data is from this snapshot, and was changed since.
    fn is_edited(&self, snapshot: &Snapshot) -> bool {
        self.is_current(snapshot)
            && snapshot.files.iter().any(|(name, _)| self.edited.contains(name))
    }

    /// What a list says of a snapshot with unsanitized databases.
    fn unmasked(&self, snapshot: &Snapshot) -> Option<String> {
        let Settings { rules, unmasked_keep, .. } = self.settings;
        if snapshot.unsanitized(rules).is_empty() {
            return None;
        }
        let sign = if has_unicode() { "⚠" } else { "!" };
        let when = match snapshot.unsanitized_until(rules, unmasked_keep.as_ref()) {
            Some(until) if until <= Timestamp::now() => ", expired".to_owned(),
            Some(until) if snapshot.is_prunable() => until.strftime(" until %F").to_string(),
            _ => String::new(),
        };
        Some(format!("{sign} unmasked{when}"))
    }

    fn notes(&self, snapshot: &Snapshot) -> Vec<String> {
        let current = match (self.is_current(snapshot), self.is_edited(snapshot)) {
            (true, true) => Some("current, edited since".to_owned()),
            (true, false) => Some("current".to_owned()),
            _ => None,
        };
        let notes = [
            snapshot.defect.as_ref().map(|defect| format!("damaged: {}", one_line(defect))),
            self.unmasked(snapshot),
            current,
            self.is_undo(snapshot).then(|| "what --undo brings back".to_owned()),
            snapshot.is_pinned().then(|| "pinned".to_owned()),
            snapshot.source().map(|source| format!("from {}", one_line(source))),
            snapshot.only().map(|only| format!("only {}", one_line(only))),
            snapshot
                .origin()
                .and_then(|origin| origin.moment)
                .map(|moment| format!("as of {}", moment::words(moment, &moment::now()))),
        ];
        notes.into_iter().flatten().collect()
    }

    fn row(&self, snapshot: &Snapshot, whole_name: bool) -> Row {
        let unicode = has_unicode();
        let name = &snapshot.name;
        let label = snapshot.label().map(|label| format!("\"{}\"", cut(&one_line(label), LABEL)));
        Row {
            mark: match (self.is_current(snapshot), self.is_undo(snapshot)) {
                (true, _) => {
                    if unicode {
                        "●"
                    } else {
                        "*"
                    }
                }
                (_, true) => {
                    if unicode {
                        "↶"
                    } else {
                        "<"
                    }
                }
                _ => " ",
            },
            name: if whole_name { name } else { short_name(name, self.snapshots) }.to_owned(),
            taken: moment::words(snapshot.time, &self.now),
            what: label.unwrap_or_else(|| snapshot.kind().to_owned()),
            databases: snapshot.files.len().to_string(),
            size: bytes(snapshot.bytes()),
            is_warning: snapshot.defect.is_some() || self.unmasked(snapshot).is_some(),
            notes: self.notes(snapshot),
        }
    }

    /// The rows to select from, for a terminal with so many columns.
    pub fn choices(&self, columns: usize) -> Vec<Choice> {
        let mut rows: Vec<_> = self.snapshots.iter().map(|it| self.row(it, false)).collect();
        for (row, snapshot) in rows.iter_mut().zip(self.snapshots) {
            row.notes.extend(self.difference(snapshot));
        }
        // The list has a margin of two columns, and the last one stays free.
        let widths = Widths::of(&rows, columns.saturating_sub(3));
        let choice = |(row, snapshot): (&Row, &Snapshot)| {
            let (mark, text, notes) = row.cells(&widths);
            let Row { name, taken, what, .. } = row;
            Choice {
                text: cut(&format!("{mark}{text}{notes}"), columns.saturating_sub(3))
                    .trim_end()
                    .to_owned(),
                answer: format!("{name} ({taken}, {what})"),
                found_by: snapshot.name.clone(),
            }
        };
        rows.iter().zip(self.snapshots).map(choice).collect()
    }

    /// In how many databases a snapshot differs from the current data, as far as hashes tell.
    fn difference(&self, snapshot: &Snapshot) -> Option<String> {
        let names: BTreeSet<_> =
            self.current.keys().chain(snapshot.files.iter().map(|(name, _)| name)).collect();
        let (mut differ, mut unknown) = (0, 0);
        for name in &names {
            let here = self.current.get(*name);
            let is_there = snapshot.files.iter().any(|(file, _)| file == *name);
            match (here, placed::sha256_in(snapshot, name)) {
                (Some(Some(here)), Some(there)) if here == there => {}
                (Some(Some(_)), Some(_)) => differ += 1,
                (Some(_), _) if is_there => unknown += 1,
                _ => differ += 1,
            }
        }
        match (differ, unknown) {
            (0, 0) => Some("same as now".to_owned()),
            (0, _) => None,
            (_, 0) => Some(format!("{differ} of {} differ from now", names.len())),
            _ => Some(format!("at least {differ} of {} differ from now", names.len())),
        }
    }

    /// A line per snapshot, without a table around it.
    pub fn lines<'b>(&self, snapshots: impl IntoIterator<Item = &'b Snapshot>) -> Vec<String> {
        let line = |snapshot| {
            let Row { name, taken, what, databases, size, notes, .. } = self.row(snapshot, true);
            let notes: String = notes.iter().map(|note| format!("  {note}")).collect();
            format!("{name} {taken:<15} {what:<14} {databases:>2} db {size:>8}{notes}")
        };
        snapshots.into_iter().map(line).collect()
    }

    /// Prints a table that fits into so many columns.
    fn print_table(&self, ui: &Ui, columns: usize) -> Result<()> {
        let row = |snapshot| self.row(snapshot, ui.is_verbose());
        let rows: Vec<_> = self.snapshots.iter().map(row).collect();
        let widths = Widths::of(&rows, columns.saturating_sub(2));
        let header = Row {
            mark: " ",
            name: "NAME".to_owned(),
            taken: "TAKEN".to_owned(),
            what: "WHAT".to_owned(),
            databases: "DBS".to_owned(),
            size: "SIZE".to_owned(),
            notes: Vec::new(),
            is_warning: false,
        };
        for row in [&header].into_iter().chain(&rows) {
            let (mark, cells, notes) = row.cells(&widths);
            let left = columns.saturating_sub(2 + width(&mark));
            let cells = cut(&cells, left);
            let notes = cut(&notes, left - width(&cells));
            ui.row(&format!(" {mark}"), &cells, &notes, row.is_warning)?;
        }
        ui.data(self.summary(columns))
    }

    /// `2 snapshots, 71 MB on disk (55 MB shared) · keeps 10 pulls`, without what does not fit.
    fn summary(&self, columns: usize) -> String {
        let usage = disk_usage(self.snapshots);
        let n = count(self.snapshots.len(), "snapshot");
        let mut parts = vec![format!(" {n}, {} on disk", bytes(usage.on_disk))];
        if usage.shared > 0 {
            parts.push(format!(" ({} shared)", bytes(usage.shared)));
        }
        let dot = if has_unicode() { "·" } else { "-" };
        parts.push(format!(" {dot} keeps {}", count(self.settings.keep, "pull")));
        let mut text = String::new();
        for part in parts {
            if width(&text) + width(&part) < columns {
                text += &part;
            }
        }
        text
    }
}

impl Widths {
    /// Where the rows do not fit otherwise, leaves out the number of databases, then the size, and
    /// then shortens labels and kinds, so that warnings stay visible.
    fn of(rows: &[Row], columns: usize) -> Self {
        let widest = |of: fn(&Row) -> &str, title: &str| {
            rows.iter().map(|row| width(of(row))).chain([width(title)]).max().unwrap_or(0)
        };
        let notes = rows.iter().map(|row| width(&row.notes())).max().unwrap_or(0);
        let mut widths = Self {
            name: widest(|row| &row.name, "NAME"),
            taken: widest(|row| &row.taken, "TAKEN"),
            what: widest(|row| &row.what, "WHAT"),
            databases: widest(|row| &row.databases, "DBS"),
            size: widest(|row| &row.size, "SIZE"),
        };
        let total = |it: &Self| {
            let all = [it.name, it.taken, it.what, it.databases, it.size];
            // Two columns lie between two others.
            let shown = all.iter().filter(|width| **width > 0);
            shown.map(|width| width + 2).sum::<usize>() + notes
        };
        if total(&widths) > columns {
            widths.databases = 0;
        }
        if total(&widths) > columns {
            widths.size = 0;
        }
        let excess = total(&widths).saturating_sub(columns);
        widths.what = widths.what.saturating_sub(excess).max(widths.what.min(NARROW));
        widths
    }
}

impl Row {
    fn notes(&self) -> String {
        self.notes.iter().map(|note| format!("  {note}")).collect()
    }

    /// The mark, the columns and the notes.
    fn cells(&self, widths: &Widths) -> (String, String, String) {
        let pad = |text: &str, to: usize| " ".repeat(to.saturating_sub(width(text)));
        let left = |text: &str, to: usize| format!("{text}{}", pad(text, to));
        let mut cells = vec![
            left(&self.name, widths.name),
            left(&self.taken, widths.taken),
            left(&cut(&self.what, widths.what), widths.what),
        ];
        for (text, to) in [(&self.databases, widths.databases), (&self.size, widths.size)] {
            if to > 0 {
                cells.push(format!("{}{text}", pad(text, to)));
            }
        }
        (format!("{} ", self.mark), cells.join("  "), self.notes())
    }
}

/// What a file says, on one line.
fn one_line(text: &str) -> String {
    escape(text).replace('\n', " ")
}

/// A snapshot in a question: `the pull of today 14:18`.
pub fn title(snapshot: &Snapshot) -> String {
    let taken = moment::words(snapshot.time, &moment::now());
    let what = match snapshot.meta.as_ref().map(|meta| meta.kind) {
        Some(Kind::Pull) => "pull",
        Some(Kind::BeforePull) => "before-pull save",
        Some(Kind::BeforeRestore) => "before-restore save",
        Some(Kind::Manual) | None => "snapshot",
    };
    match snapshot.label() {
        Some(label) => format!("\"{}\" of {taken}", cut(&one_line(label), LABEL)),
        None => format!("the {what} of {taken}"),
    }
}

/// Printed with `--json`: the snapshots, newest first.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "snapshots-list"))]
pub struct List<'a> {
    snapshots: Vec<Listed<'a>>,
}

/// A snapshot.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "Snapshot"))]
pub struct Listed<'a> {
    name: &'a str,
    /// In RFC 3339.
    #[cfg_attr(test, schemars(with = "String"))]
    time: Timestamp,
    kind: &'a str,
    label: Option<&'a str>,
    pinned: bool,
    databases: Vec<&'a str>,
    bytes: u64,
    only: Option<&'a str>,
    source: Option<&'a str>,
    defect: Option<&'a str>,
    unsanitized: bool,
    /// When a prune may remove it because of that.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    unsanitized_until: Option<Timestamp>,
    last_put_in_place: bool,
    /// Whether the current data is from it, and was certainly written to since.
    edited: bool,
    /// Whether `restore-db --undo` restores it.
    undo: bool,
}

/// Prints the snapshots, newest first.
///
/// # Errors
///
/// The data directory or the state cannot be read.
pub fn list(cx: &Context, settings: &Settings) -> Result<()> {
    let (ui, store) = (&cx.ui, &Store::of(settings));
    let rules = &settings.rules;
    LockedLiveSet::recover_without_waiting(cx, settings)?;
    let snapshots = store.list()?;
    let listing = Listing::new(store, &snapshots, settings)?;
    if ui.json {
        let listed = snapshots
            .iter()
            .map(|snapshot| Listed {
                name: &snapshot.name,
                time: snapshot.time,
                kind: snapshot.kind(),
                label: snapshot.label(),
                pinned: snapshot.is_pinned(),
                databases: snapshot.files.iter().map(|(name, _)| name.as_str()).collect(),
                bytes: snapshot.bytes(),
                only: snapshot.only(),
                source: snapshot.source(),
                defect: snapshot.defect.as_deref(),
                unsanitized: !snapshot.unsanitized(rules).is_empty(),
                unsanitized_until: snapshot
                    .unsanitized_until(rules, settings.unmasked_keep.as_ref())
                    .filter(|_| snapshot.is_prunable()),
                last_put_in_place: listing.is_current(snapshot),
                edited: listing.is_edited(snapshot),
                undo: listing.is_undo(snapshot),
            })
            .collect();
        return ui.json(&List { snapshots: listed });
    }
    if snapshots.is_empty() {
        ui.status("Found", format!("no snapshot in {}", store.dir.display()));
        return Ok(());
    }
    match ui.columns() {
        Some(columns) => listing.print_table(ui, columns),
        None => listing.lines(&snapshots).into_iter().try_for_each(|line| ui.data(line)),
    }
}
