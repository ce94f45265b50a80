//! The benchmark of `pull-db`.

mod flows;
mod plot;
mod report;
mod server;
mod source;
mod watch;
mod writers;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use xshell::cmd;
use xtask_db::internals::interrupt;
use xtask_db::internals::snapshots::Store;

use self::flows::{Flow, Flows, Run};
use self::report::{LINKS, Link, Measured, Report, STANDARD_MB};
use self::server::Shape;
use self::source::Source;
use self::watch::Seen;
use crate::Context;
use crate::install::{self, RSYNC, SQLITE3, SSH, SSHD, ZSTD};

#[derive(clap::Args)]
#[group(skip)]
pub struct Args {
    /// Pull databases of this many megabytes
    #[arg(long, value_name = "N", default_value_t = STANDARD_MB, conflicts_with = "fixtures", value_parser = clap::value_parser!(u64).range(3..=100_000))]
    mb: u64,
    /// Delay the link by this round trip, in milliseconds [default: three links]
    #[arg(long, value_name = "MS", requires = "mbit", conflicts_with = "fixtures", value_parser = clap::value_parser!(u32).range(0..=10_000))]
    rtt: Option<u32>,
    /// Limit the link to this rate in each direction, in megabits per second
    #[arg(long, value_name = "N", requires = "rtt", conflicts_with = "fixtures", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    mbit: Option<u32>,
}

/// The files with the results of the standard set, from the root of the repository.
const DOCUMENT: &str = "docs/benchmarks.md";
const PLOT: &str = "benchmarks.svg";

impl Args {
    /// Measures, and returns the missed targets.
    pub fn run(&self, cx: &Context, dir: &Path, runs: u32, fresh: bool) -> Result<Vec<String>> {
        let (sh, ui) = (&cx.sh, &cx.ui);
        install::ensure(ui, sh, &[SQLITE3, ZSTD, SSH, SSHD])?;
        let rsync = install::ensure(ui, sh, &[RSYNC]);
        if let Err(error) = &rsync {
            ui.warn(format!("rsync is left out: {error:#}"));
        }
        let xtask = cx.build("xtask-db", "xtask")?;
        let (shaped_server, writer) =
            (cx.build("tests", "shaped_server")?, cx.build("tests", "writer")?);

        let dir = dir.join(format!("pulls-v{}-{}", source::VERSION, self.mb));
        // Locked until the end: two benchmarks at once would disturb each other.
        let _store = Store::new(&dir.join("lock")).lock(ui, "cargo dev bench")?;
        let source = Source::prepare(ui, &dir, self.mb * 1_000_000, fresh)?;
        let mut flows = Flows::start(sh, xtask, &source, &shaped_server, &dir)?;

        let links = match (self.rtt, self.mbit) {
            (Some(rtt_ms), Some(mbit)) => vec![Shape { rtt_ms, mbit }],
            _ => LINKS.to_vec(),
        };
        let mut wanted = Flow::ALL.to_vec();
        wanted.retain(|flow| *flow != Flow::Rsync || rsync.is_ok());
        source.deploy(&source.state("after"))?;
        let mut measured = Vec::new();
        let (mut server, mut memory) = (Seen::default(), None);
        for (i, shape) in links.iter().enumerate() {
            // Memory and disk space are only measured through the first link.
            let watch = i == 0;
            let all = measure(cx, &mut flows, &wanted, *shape, runs, watch)?;
            for run in all.values().flatten().filter(|_| watch) {
                server.add(run.seen.clone().unwrap_or_default());
                memory = memory.max(run.memory);
            }
            let flows = all.iter().map(|(flow, runs)| Measured::of(*flow, runs)).collect();
            measured.push(Link { shape: *shape, flows });
        }
        let alone = Duration::from_secs(if self.mb < STANDARD_MB { 1 } else { 5 });
        let writing = dir.join("writing");
        let writers = writers::measure(ui, sh, &mut flows, &writer, &writing, links[0], alone)?;
        drop(flows);
        // Only slowly made files are kept.
        for made in ["here", "writing"] {
            source::remove(&dir.join(made))?;
        }

        let sqlite = cmd!(sh, "sqlite3 --version").quiet().read()?;
        let report = Report {
            mb: self.mb,
            databases: source.databases,
            runs,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            sqlite: sqlite.split(' ').next().unwrap_or_default().to_owned(),
            links: measured,
            server,
            memory,
            writers,
        };
        if ui.json {
            ui.json(&report)?;
        } else {
            ui.data(report.render())?;
        }
        if self.mb == STANDARD_MB && links == LINKS {
            let document = cx.root.join(DOCUMENT);
            std::fs::write(document.with_file_name(PLOT), plot::svg(&report.links, runs))?;
            std::fs::write(&document, report.document(PLOT))?;
            ui.status("Wrote", DOCUMENT);
        } else {
            let standard = format!("it is for {STANDARD_MB} MB through three links");
            ui.status("Left", format!("{DOCUMENT} as it is: {standard}"));
        }
        Ok(report.missed())
    }
}

/// Runs each flow `runs` times, in turn; with `watch`, measures the resources of our pulls.
fn measure(
    cx: &Context,
    flows: &mut Flows<'_>,
    wanted: &[Flow],
    shape: Shape,
    runs: u32,
    watch: bool,
) -> Result<BTreeMap<Flow, Vec<Run>>> {
    let mut all: BTreeMap<Flow, Vec<Run>> = BTreeMap::new();
    for n in 1..=runs {
        cx.ui.status("Measuring", format!("{shape}, run {n} of {runs}"));
        for flow in wanted {
            interrupt::check()?;
            flows.prepare(*flow)?;
            let run = flows.run(*flow, shape, watch && flow.is_ours())?;
            flows.check(*flow)?;
            cx.ui.verbose(format!("{}: {:.2} s", flow.name(), run.time.as_secs_f64()));
            all.entry(*flow).or_default().push(run);
        }
    }
    Ok(all)
}
