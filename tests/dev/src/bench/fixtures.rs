//! The benchmark of `refresh-fixtures`.

mod cuts;
mod hook;
mod naive;
mod report;
mod source;

use std::path::Path;

use anyhow::Result;
use xtask_db::internals::snapshots::Store;

use self::cuts::{Bench, CUTS};
use self::report::{Report, Source, TARGETS};
use crate::Context;

#[derive(clap::Args)]
#[group(skip)]
pub struct Args {
    /// How many rows the source of fixtures has, in steps of 500
    #[arg(long, value_name = "N", default_value_t = 2_000_000, requires = "fixtures", value_parser = clap::value_parser!(u32).range(2_000..=100_000_000))]
    rows: u32,
}

impl Args {
    /// Measures, and returns the missed targets.
    pub fn run(&self, cx: &Context, dir: &Path, runs: u32, fresh: bool) -> Result<Vec<String>> {
        let rows = self.rows / source::ROWS_OF_ONE * source::ROWS_OF_ONE;
        let dir = dir.join(format!("v{}-{rows}", source::VERSION));
        // Locked until the end: two benchmarks at once would disturb each other.
        let store = Store::new(&dir.join("data")).lock(&cx.ui, "cargo dev bench")?;
        let snapshot = source::prepare(&cx.ui, &store, rows, fresh)?;

        let bench = Bench::new(cx, dir.join("repository"), &store.dir)?;
        let mut cuts = Vec::new();
        for cut in &CUTS {
            cx.ui.status("Measuring", format!("refresh-fixtures, {}", cut.name));
            cuts.push(bench.measure(cut, runs)?);
        }
        cx.ui.status("Measuring", "copying, deleting and VACUUM");
        let source = snapshot.path.join(source::NAME);
        let naive = naive::measure(&source, &dir.join("naive.db"), &cuts[0])?;
        cx.ui.status("Measuring", "the hook");
        let hook = hook::measure(&cx.sh, 3 * runs)?;
        if hook.is_none() {
            cx.ui.warn("there is no commit here, and so no hook to measure");
        }

        let organizations = rows / source::ROWS_OF_ONE;
        let tables = source::TABLES.map(|(name, n)| (name.to_owned(), (n * organizations).into()));
        let source = Source { rows: rows.into(), bytes: snapshot.bytes(), tables: tables.into() };
        let report = Report { targets: TARGETS, source, cuts, naive, hook };
        if cx.ui.json {
            cx.ui.json(&report)?;
        } else {
            cx.ui.data(report.render())?;
        }
        Ok(report.missed())
    }
}
