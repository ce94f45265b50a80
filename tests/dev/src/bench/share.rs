//! The benchmark of sharing and of replicas of Litestream.

mod bucket;
mod build;
mod flow;
mod replicas;
mod report;
mod team;

use std::path::{Path, PathBuf};

use anyhow::Result;
use xtask_db::internals::durable;
use xtask_db::internals::snapshots::Store;
use xtask_db::internals::ui::Ui;

use self::flow::Measured;
use self::replicas::Replicas;
use self::report::{Report, Results};
use self::team::{Team, Tools};
use super::pulls::local::Local;
use super::pulls::machine::Machine;
use super::pulls::pull::Program;
use super::pulls::report::{LINKS, STANDARD_MB, STANDARD_TENANTS};
use super::pulls::source::{self, Source};
use super::pulls::{DOCUMENT, Extent};
use crate::Context;
use crate::install::{self, SQLITE3, ZSTD};
use crate::test::programs;

/// The heading under which the results are in the document, to its end.
const HEADING: &str = "\n## Sharing and Litestream\n";

/// Measures, and returns the missed targets.
///
/// # Errors
///
/// A program fails, or brings something else than it should.
pub fn run(
    cx: &Context,
    dir: &Path,
    runs: u32,
    fresh: bool,
    extent: &Extent,
) -> Result<Vec<String>> {
    install::ensure(&cx.ui, &cx.sh, &[SQLITE3, ZSTD])?;
    let target = cx.target_directory()?;
    programs::install_only(cx, &target, &["s3", "litestream"])?;
    let dir = dir.join(format!("pulls-v{}-{}", source::VERSION, extent.mb));
    // Locked until the end: two at once would measure each other.
    let _store = Store::new(&dir.join("lock")).lock(&cx.ui, "cargo dev bench")?;
    let bench = Bench::new(cx, &dir.join("share"), &target, runs)?;
    let source = Source::prepare(&cx.ui, &dir, extent.mb * 1_000_000, fresh)?;
    let is_standard = extent.is(STANDARD_MB, STANDARD_TENANTS, &[LINKS[0]]);
    let report = Report {
        mb: extent.mb,
        tenants: extent.tenants,
        databases: source.databases.len(),
        runs,
        shape: extent.links[0],
        machine: Machine::read(&cx.sh)?,
        results: bench.measure(&source, extent, &dir, fresh)?,
        // It takes minutes, and is the same for every extent.
        build: is_standard.then(|| build::measure(cx, &bench.dir.join("build"))).transpose()?,
    };
    source::remove(&bench.dir)?;
    if cx.ui.json {
        cx.ui.json(&report)?;
    } else {
        cx.ui.data(report.document())?;
    }
    if is_standard {
        write(&cx.ui, &cx.root.join(DOCUMENT), &report.document())?;
    } else {
        cx.ui.status("Left", format!("{DOCUMENT} as it is: not all is as it is by default"));
    }
    Ok(report.missed())
}

/// The part of a document that [`write`] has written.
pub fn section(document: &str) -> &str {
    document.find(HEADING).map_or("", |at| &document[at..])
}

fn write(ui: &Ui, path: &Path, results: &str) -> Result<()> {
    let old = std::fs::read_to_string(path)?;
    let others = old.strip_suffix(section(&old)).unwrap_or(&old);
    durable::write_shared(path, format!("{others}{HEADING}\n{results}").as_bytes(), false)?;
    ui.status("Wrote", DOCUMENT);
    Ok(())
}

/// What all measurements need.
struct Bench<'a> {
    cx: &'a Context,
    tools: Tools,
    /// Holds all that is not kept.
    dir: PathBuf,
    runs: u32,
}

impl<'a> Bench<'a> {
    fn new(cx: &'a Context, dir: &Path, target: &Path, runs: u32) -> Result<Self> {
        source::remove(dir)?;
        std::fs::create_dir_all(dir)?;
        let rclone = install::find(&cx.sh, "rclone").is_some();
        if !rclone {
            cx.ui.warn("rclone is left out: it is not installed");
        }
        let tools = Tools {
            program: Program::new(cx.build("xtask-db", "xtask")?, &dir.join("repository"))?,
            sharing: cx.build("tests", "xtask_share")?,
            shaped_bucket: cx.build("tests", "shaped_bucket")?,
            litestream: target.join("litestream/python/bin/litestream"),
            rclone,
        };
        Ok(Self { cx, tools, dir: dir.to_owned(), runs })
    }

    fn measure(
        &self,
        source: &Source,
        extent: &Extent,
        dir: &Path,
        fresh: bool,
    ) -> Result<Results> {
        let team = Team::of_set(self, source)?;
        let shape = extent.links[0];
        let mut results = Results {
            bucket: team.measure(Some(shape))?,
            directory: team.measure(None)?,
            replicas: Replicas::make(self, &source.state("after"))?.measure()?,
            ..Results::default()
        };
        if extent.tenants > 0 {
            [results.tenants_directory, results.tenants_replicas] =
                self.of_tenants(dir, extent.tenants, fresh)?;
        }
        Ok(results)
    }

    fn of_tenants(&self, dir: &Path, tenants: u64, fresh: bool) -> Result<[Vec<Measured>; 2]> {
        let Context { sh, ui, .. } = self.cx;
        let local = Local::prepare(ui, sh, &self.tools.program, dir, tenants, fresh)?;
        let shared = Team::of_tenants(self, &local)?.measure(None)?;
        local.reset()?;
        let replicas = Replicas::make(self, &local.production())?.measure()?;
        local.remove()?;
        Ok([shared, replicas])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_results_take_the_place_of_the_earlier_ones() {
        let dir = tempfile::tempdir().unwrap();
        let (path, ui) = (dir.path().join("a.md"), Ui::new(true, false, false, false));
        std::fs::write(&path, "# Title\n\nother\n").unwrap();
        for results in ["one\n", "two\n"] {
            write(&ui, &path, results).unwrap();
        }
        let document = std::fs::read_to_string(&path).unwrap();
        assert_eq!(document, format!("# Title\n\nother\n{HEADING}\ntwo\n"));
        assert_eq!(section(&document), format!("{HEADING}\ntwo\n"));
        assert_eq!(section("# Title\n"), "");
    }
}
