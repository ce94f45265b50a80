//! A team: one publishes two pulls of a set, another one pulls them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use xshell::{Cmd, cmd};
use xtask_db::internals::snapshots::{Snapshot, Store};
use xtask_db::internals::{interrupt, pages};

use super::Bench;
use super::bucket::Bucket;
use super::flow::{Flow, Measured, Run, Runs};
use crate::bench::pulls::local::Local;
use crate::bench::pulls::pull::Program;
use crate::bench::pulls::rules::{self, databases};
use crate::bench::pulls::server::Shape;
use crate::bench::pulls::source::{Source, remove};
use crate::bench::pulls::tenants::CHANGED;
use crate::bench::write_out;

/// What runs.
pub struct Tools {
    pub program: Program,
    /// The same with the feature `share`.
    pub sharing: PathBuf,
    pub shaped_bucket: PathBuf,
    pub litestream: PathBuf,
    pub rclone: bool,
}

/// Nothing in the documents of the benchmark is a secret.
const REVIEWED: &str = "[audit]\nallow = [\"documents.author\", \"documents.key\"]\n";

pub struct Team<'a> {
    bench: &'a Bench<'a>,
    /// The data directories.
    publisher: PathBuf,
    reader: PathBuf,
    /// What `rclone` brings.
    copied: PathBuf,
    /// Of the publisher, those of the two states.
    states: [Snapshot; 2],
}

/// A store that one run uses.
struct Shared {
    bucket: Bucket,
    /// `None` for a directory.
    shape: Option<Shape>,
    config: PathBuf,
}

impl<'a> Team<'a> {
    /// Of the set and of what a day makes of it.
    pub fn of_set(bench: &'a Bench<'a>, source: &Source) -> Result<Self> {
        let publisher = bench.dir.join("publisher");
        remove(&publisher)?;
        let program = &bench.tools.program;
        for state in ["before", "after"] {
            bench.cx.ui.status("Pulling", format!("what is published, the state {state}"));
            let via = format!("local:{}", source.state(state).display());
            let pull = program.command(&via, &program.config, &publisher);
            let output = interrupt::output(cmd!(bench.cx.sh, "env {pull...}").quiet())?;
            if !output.status.success() {
                bail!("a pull failed: {}", String::from_utf8_lossy(&output.stderr).trim());
            }
        }
        Self::new(bench, publisher)
    }

    /// Of many small databases, of which a day changes few.
    pub fn of_tenants(bench: &'a Bench<'a>, local: &Local<'_>) -> Result<Self> {
        bench.cx.ui.status("Pulling", format!("what is published, {} tenants", local.tenants));
        local.reset()?;
        local.pull()?.context("a pull took too long")?;
        local.live_a_day(1, CHANGED)?;
        local.pull()?.context("a pull took too long")?;
        Self::new(bench, local.data())
    }

    fn new(bench: &'a Bench<'a>, publisher: PathBuf) -> Result<Self> {
        let mut pulls = Store::new(&publisher).list()?;
        pulls.retain(Snapshot::is_pull);
        pulls.sort_by_key(|pull| pull.order);
        let states = <[_; 2]>::try_from(pulls).ok().context("two pulls")?;
        let [reader, copied] = ["reader", "copied"].map(|name| bench.dir.join(name));
        Ok(Self { bench, publisher, reader, copied, states })
    }

    /// Through a link to a bucket, or with a directory.
    pub fn measure(&self, shape: Option<Shape>) -> Result<Vec<Measured>> {
        let Bench { cx, tools, runs, .. } = self.bench;
        let mut all = Runs::new();
        let place = shape.map_or("a directory".to_owned(), |shape| format!("a bucket, {shape}"));
        let compared = (shape.is_some() && tools.rclone).then_some(Flow::OF_RCLONE);
        for n in 1..=*runs {
            let databases = databases(&self.states[0].path)?.len();
            cx.ui.status("Measuring", format!("{place}, {databases} databases, run {n} of {runs}"));
            let mut shared = self.begin(shape)?;
            for flow in Flow::OF_TEAM.into_iter().chain(compared.into_iter().flatten()) {
                interrupt::check()?;
                write_out(&self.bench.dir)?;
                let run = self.run(flow, &mut shared)?;
                let seconds = run.time.as_secs_f64();
                cx.ui.verbose(format!("{}: {seconds:.2} s", flow.name()));
                all.entry(flow).or_default().push(run);
            }
        }
        Ok(Measured::of(&all))
    }

    /// Makes a new store with nothing in it, and readers that have nothing.
    fn begin(&self, shape: Option<Shape>) -> Result<Shared> {
        let Bench { cx, tools, dir, .. } = self.bench;
        let store = dir.join("store");
        for dir in [&store, &self.reader, &self.copied, &self.publisher.join(".xtask/share.json")] {
            if dir.is_file() { std::fs::remove_file(dir)? } else { remove(dir)? }
        }
        std::fs::create_dir(&self.copied)?;
        let bucket = Bucket::start(&cx.sh, &tools.shaped_bucket)?;
        let repository = dir.join("team");
        std::fs::create_dir_all(&repository)?;
        std::fs::write(repository.join("recipients.txt"), bucket.recipient())?;
        let url = match shape {
            Some(_) => bucket.url("databases"),
            None => format!("file://{}", store.display()),
        };
        let config = repository.join("db.toml");
        let settings = format!("[share]\nurl = {url:?}\n{REVIEWED}{}", rules::SETTINGS);
        std::fs::write(&config, settings)?;
        Ok(Shared { bucket, shape, config })
    }

    fn run(&self, flow: Flow, shared: &mut Shared) -> Result<Run> {
        if let Some(shape) = shared.shape {
            shared.bucket.shape(shape)?;
        }
        let (command, program) = self.command(flow, shared);
        let command = shared.bucket.member(command);
        let mut run = Run::of(command, program, &self.copied.join("none"))?;
        if shared.shape.is_some() {
            run.wire = Some(shared.bucket.passed()?);
        }
        match flow {
            Flow::Pull | Flow::PullDay => check(&self.state(flow).path, &self.reader)?,
            Flow::CopyDown | Flow::CopyDownDay => check(&self.state(flow).path, &self.copied)?,
            _ => {}
        }
        Ok(run)
    }

    fn state(&self, flow: Flow) -> &Snapshot {
        &self.states[usize::from(flow.is_of_day())]
    }

    /// The command of a flow, and the program that does its work.
    fn command(&self, flow: Flow, shared: &Shared) -> (Cmd<'_>, &'static str) {
        let (sh, Shared { bucket, config, .. }) = (&self.bench.cx.sh, shared);
        let (sharing, Snapshot { name, path, .. }) = (&self.bench.tools.sharing, self.state(flow));
        let flags: [&Path; 2] = ["--verbose".as_ref(), "--config".as_ref()];
        let (publisher, reader) = (&self.publisher, &self.reader);
        let (remote, copied) = (bucket.remote("copies"), &self.copied);
        match flow {
            Flow::Publish | Flow::PublishDay => {
                let publish = cmd!(sh, "{sharing} snapshots publish {name} {flags...} {config}");
                (publish.args(["--local-dir".as_ref(), publisher.as_path()]), "xtask_share")
            }
            Flow::CopyUp | Flow::CopyUpDay => {
                (cmd!(sh, "rclone copy --include *.db {path} {remote}"), "rclone")
            }
            Flow::CopyDown | Flow::CopyDownDay => {
                (cmd!(sh, "rclone copy {remote} {copied}"), "rclone")
            }
            _ => {
                let pull = cmd!(sh, "{sharing} pull-db --yes --via share {flags...} {config}");
                (pull.args(["--local-dir".as_ref(), reader.as_path()]), "xtask_share")
            }
        }
    }
}

/// Checks that two directories have the same databases.
///
/// # Errors
///
/// They have not.
pub fn check(expected: &Path, dir: &Path) -> Result<()> {
    let (expected, found) = (databases(expected)?, databases(dir)?);
    let same = |(a, b): (&PathBuf, &PathBuf)| -> Result<bool> {
        Ok(a.file_name() == b.file_name() && pages::same_content(a, b)?)
    };
    let mut are_same = expected.len() == found.len();
    for pair in expected.iter().zip(&found) {
        are_same = are_same && same(pair)?;
    }
    if !are_same {
        bail!("{} has other databases than it should", dir.display());
    }
    Ok(())
}
