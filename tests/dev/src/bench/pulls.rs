//! The benchmark of `pull-db`.

mod author;
pub mod cpu;
mod disk;
mod flows;
pub mod local;
pub mod machine;
mod plot;
pub mod pull;
pub mod report;
pub mod rules;
pub mod server;
pub mod source;
mod stages;
pub mod tenants;
pub mod watch;
mod writers;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use xtask_db::internals::interrupt;
use xtask_db::internals::snapshots::Store;

use self::disk::Disk;
use self::flows::{Flow, Flows, Run};
use self::local::Local;
use self::machine::Machine;
use self::pull::Program;
use self::report::{LINKS, Link, Measured, Report, STANDARD_MB, STANDARD_TENANTS};
use self::server::Shape;
use self::source::Source;
use self::tenants::Tenants;
use self::watch::Seen;
use self::writers::Writers;
use crate::Context;
use crate::bench::share;
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
    /// How many small databases are pulled beside that; 0 leaves them out
    #[arg(long, value_name = "N", default_value_t = STANDARD_TENANTS, conflicts_with = "fixtures", value_parser = clap::value_parser!(u64).range(0..=9_999))]
    tenants: u64,
}

/// How much is measured, and through what.
pub struct Extent {
    pub mb: u64,
    pub tenants: u64,
    pub links: Vec<Shape>,
}

impl Extent {
    pub fn is(&self, mb: u64, tenants: u64, links: &[Shape]) -> bool {
        (self.mb, self.tenants, &self.links[..]) == (mb, tenants, links)
    }
}

/// The files with the results of the standard set, from the root of the repository.
pub const DOCUMENT: &str = "docs/benchmarks.md";
const PLOT: &str = "benchmarks.svg";

impl Args {
    /// Measures, and returns the missed targets.
    pub fn run(&self, cx: &Context, dir: &Path, runs: u32, fresh: bool) -> Result<Vec<String>> {
        install::ensure(&cx.ui, &cx.sh, &[SQLITE3, ZSTD, SSH, SSHD])?;
        let xtask = cx.build("xtask-db", "xtask")?;
        let dir = dir.join(format!("pulls-v{}-{}", source::VERSION, self.mb));
        // Locked until the end: two at once would measure each other.
        let _store = Store::new(&dir.join("lock")).lock(&cx.ui, "cargo dev bench")?;
        let program = Program::new(xtask, &dir.join("repository"))?;
        let source = Source::prepare(&cx.ui, &dir, self.mb * 1_000_000, fresh)?;
        let bench = Bench { cx, program, dir, runs, fresh };
        let OfSet { links, server, memory, writers, rollback } =
            bench.of_set(&source, &self.extent(&LINKS).links)?;
        let (tenants, disk) = bench.of_tenants(self.tenants)?;
        let report = Report {
            mb: self.mb,
            databases: source.databases,
            runs,
            machine: Machine::read(&cx.sh)?,
            links,
            server,
            memory,
            writers,
            rollback,
            tenants,
            disk,
        };
        if cx.ui.json {
            cx.ui.json(&report)?;
        } else {
            cx.ui.data(report.render())?;
        }
        self.write(cx, &report)?;
        Ok(report.missed())
    }

    /// What is measured, through the links `usual` unless another one was given.
    pub fn extent(&self, usual: &[Shape]) -> Extent {
        let links = match (self.rtt, self.mbit) {
            (Some(rtt_ms), Some(mbit)) => vec![Shape { rtt_ms, mbit }],
            _ => usual.to_vec(),
        };
        Extent { mb: self.mb, tenants: self.tenants, links }
    }

    /// Writes the document, where all was as it is by default.
    fn write(&self, cx: &Context, report: &Report) -> Result<()> {
        if self.extent(&LINKS).is(STANDARD_MB, STANDARD_TENANTS, &LINKS) {
            let document = cx.root.join(DOCUMENT);
            let old = std::fs::read_to_string(&document).unwrap_or_default();
            std::fs::write(document.with_file_name(PLOT), plot::svg(&report.links, report.runs))?;
            let others = share::section(&old);
            std::fs::write(&document, report.document(PLOT) + others)?;
            cx.ui.status("Wrote", DOCUMENT);
        } else {
            let standard = format!(
                "it is of {STANDARD_MB} MB through three links and of {STANDARD_TENANTS} tenants"
            );
            cx.ui.status("Left", format!("{DOCUMENT} as it is: {standard}"));
        }
        Ok(())
    }
}

/// What all measurements need.
struct Bench<'a> {
    cx: &'a Context,
    program: Program,
    dir: PathBuf,
    runs: u32,
    fresh: bool,
}

/// What was measured of the set.
struct OfSet {
    links: Vec<Link>,
    server: Seen,
    memory: Option<u64>,
    writers: Writers,
    rollback: Writers,
}

impl Bench<'_> {
    fn of_set(&self, source: &Source, shapes: &[Shape]) -> Result<OfSet> {
        let Context { sh, ui, .. } = self.cx;
        let wanted = wanted(self.cx);
        let (shaped_server, writer) =
            (self.cx.build("tests", "shaped_server")?, self.cx.build("tests", "writer")?);
        let mut flows = Flows::start(sh, &self.program, source, &shaped_server, &self.dir)?;
        let (mut links, mut server, mut memory) = (Vec::new(), Seen::default(), None);
        for (i, shape) in shapes.iter().enumerate() {
            // The processes of both sides are watched through the first link.
            let watch = i == 0;
            let all = measure(self.cx, &mut flows, &wanted, *shape, self.runs, watch)?;
            for run in all.values().flatten().filter(|_| watch) {
                server.add(run.seen.clone().unwrap_or_default());
                memory = memory.max(run.pulled.memory);
            }
            let flows = all.iter().map(|(flow, runs)| Measured::of(*flow, runs)).collect();
            links.push(Link::new(*shape, flows));
        }
        let seconds = if source.bytes() < STANDARD_MB * 1_000_000 { 1 } else { 5 };
        let writing = writers::Bench {
            program: &writer,
            dir: &self.dir.join("writing"),
            shape: shapes[0],
            alone: Duration::from_secs(seconds),
        };
        let [writers, rollback] = writing.measure(ui, sh, &mut flows)?;
        drop(flows);
        // Only what takes long to make is kept.
        source::remove(&self.dir.join("here"))?;
        Ok(OfSet { links, server, memory, writers, rollback })
    }

    /// Nothing of none.
    fn of_tenants(&self, tenants: u64) -> Result<(Option<Tenants>, Option<Disk>)> {
        let Context { sh, ui, .. } = self.cx;
        if tenants == 0 {
            return Ok((None, None));
        }
        let local = Local::prepare(ui, sh, &self.program, &self.dir, tenants, self.fresh)?;
        let measured = tenants::measure(ui, &local, self.runs)?;
        let disk = disk::measure(ui, &local.first(disk::DATABASES))?;
        local.remove()?;
        Ok((Some(measured), disk))
    }
}

/// All flows, but those of programs that are not here.
fn wanted(cx: &Context) -> Vec<Flow> {
    let rsync = install::ensure(&cx.ui, &cx.sh, &[RSYNC]);
    if let Err(error) = &rsync {
        cx.ui.warn(format!("rsync is left out: {error:#}"));
    }
    let sqlite3_rsync = install::find(&cx.sh, "sqlite3_rsync").is_some();
    let is_there = |flow: &Flow| match flow {
        Flow::Rsync => rsync.is_ok(),
        Flow::Sqlite3Rsync => sqlite3_rsync,
        _ => true,
    };
    Flow::ALL.into_iter().filter(is_there).collect()
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
