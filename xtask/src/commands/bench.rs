use std::path::PathBuf;

use anyhow::Result;

use crate::bench::cuts::{Bench, CUTS};
use crate::bench::report::{Report, Source, TARGETS};
use crate::bench::{hook, naive, source};
use crate::error::Failure;
use crate::snapshots::Store;
use crate::ui::count;
use crate::{Context, settings};

/// Measure this tool, against what it has promised to take at most
///
/// What it is measured on is made once, and kept below target/. Exits with 1
/// where a target is missed.
#[derive(clap::Args)]
pub struct Args {
    /// Measure `refresh-fixtures`, and what a hook that runs it costs each commit
    #[arg(long, required = true)]
    fixtures: bool,
    /// How often each is measured; the hook three times as often
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// How many rows the source has, in steps of 500
    #[arg(long, value_name = "N", default_value_t = 2_000_000, value_parser = clap::value_parser!(u32).range(2_000..=100_000_000))]
    rows: u32,
    /// Make the source anew
    #[arg(long)]
    fresh: bool,
    /// Where the source is kept [default: target/bench]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Args {
    pub fn run(self, cx: &Context) -> Result<()> {
        let root = settings::default_root();
        super::test::require_own_repository(&root)?;
        let rows = self.rows / source::ROWS_OF_ONE * source::ROWS_OF_ONE;
        let dir = self.dir.unwrap_or_else(|| root.join("target/bench"));
        let dir = std::path::absolute(dir)?.join(format!("v{}-{rows}", source::VERSION));
        // Locked until the end: two at once would measure each other.
        let store = Store::new(&dir.join("data"))
            .no_wait(cx.global.no_wait)
            .lock(&cx.ui, "cargo xtask bench")?;
        let snapshot = source::prepare(&cx.ui, &store, rows, self.fresh)?;

        let bench = Bench::new(&cx.sh, dir.join("repository"), &store.dir)?;
        let mut cuts = Vec::new();
        for cut in &CUTS {
            cx.ui.status("Measuring", format!("refresh-fixtures, {}", cut.name));
            cuts.push(bench.measure(cut, self.runs)?);
        }
        cx.ui.status("Measuring", "copying, deleting and VACUUM");
        let source = snapshot.path.join(source::NAME);
        let naive = naive::measure(&source, &dir.join("naive.db"), &cuts[0])?;
        cx.ui.status("Measuring", "the hook");
        let hook = hook::measure(&cx.sh, &root, 3 * self.runs)?;
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
        match &report.missed()[..] {
            [] => Ok(()),
            missed => Err(Failure::new(format!(
                "{} missed: {}",
                count(missed.len(), "target"),
                missed.join("; ")
            ))
            .into()),
        }
    }
}
