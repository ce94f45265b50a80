//! The ways to copy production to this machine: with this tool, and without.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use xshell::{Cmd, Shell, cmd};
use xtask_db::internals::resources::ResourceUsage;
use xtask_db::internals::{durable, interrupt};

use super::server::{Server, Shape, quoted};
use super::source::{Source, remove};
use super::watch::{Seen, Watch};

/// A measured way. Each copies the state `after`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Flow {
    Classic,
    Rsync,
    FirstZstd,
    FirstGzip,
    Day,
    Nothing,
    /// With `scrub = "deleted-rows"`: the first pull, and the pull of the next day.
    FirstScrubbed,
    DayScrubbed,
}

impl Flow {
    /// In the order of their runs: [`Flow::Nothing`] needs the result of [`Flow::Day`].
    pub const ALL: [Self; 8] = [
        Self::Classic,
        Self::FirstZstd,
        Self::FirstGzip,
        Self::Rsync,
        Self::Day,
        Self::Nothing,
        Self::FirstScrubbed,
        Self::DayScrubbed,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic first pull",
            Self::Rsync => "rsync after a day",
            Self::FirstZstd => "first pull (zstd)",
            Self::FirstGzip => "first pull (gzip)",
            Self::Day => "after a day",
            Self::Nothing => "nothing changed",
            Self::FirstScrubbed => "first pull, scrubbed",
            Self::DayScrubbed => "after a day, scrubbed",
        }
    }

    /// Whether the flow uses `pull-db`.
    pub fn is_ours(self) -> bool {
        !matches!(self, Self::Classic | Self::Rsync)
    }

    fn is_scrubbed(self) -> bool {
        matches!(self, Self::FirstScrubbed | Self::DayScrubbed)
    }
}

/// The measurement of one run.
pub struct Run {
    pub time: Duration,
    pub up: u64,
    pub down: u64,
    /// The peak memory of `pull-db`, in bytes.
    pub memory: Option<u64>,
    pub seen: Option<Seen>,
}

/// The context of all flows.
pub struct Flows<'a> {
    sh: &'a Shell,
    xtask: PathBuf,
    pub source: &'a Source,
    zstd: Server,
    gzip: Server,
    /// The settings for `pull-db`, without and with scrubbing.
    plain: PathBuf,
    scrubbing: PathBuf,
    /// The directory with the results of the flows.
    here: PathBuf,
}

impl<'a> Flows<'a> {
    /// Starts the servers, with their files in `dir`, and pulls the production of the day before.
    pub fn start(
        sh: &'a Shell,
        xtask: PathBuf,
        source: &'a Source,
        program: &Path,
        dir: &Path,
    ) -> Result<Self> {
        let server = |name: &str, without| Server::start(sh, program, &dir.join(name), without);
        let (repository, here) = (dir.join("repository"), dir.join("here"));
        for dir in [&repository, &here] {
            remove(dir)?;
            std::fs::create_dir_all(dir)?;
        }
        let (plain, scrubbing) = (repository.join("db.toml"), repository.join("scrub.toml"));
        std::fs::write(&plain, "")?;
        std::fs::write(&scrubbing, "scrub = \"deleted-rows\"\n")?;
        let (zstd, gzip) = (server("zstd", None)?, server("gzip", Some("zstd"))?);
        let flows = Self { sh, xtask, source, zstd, gzip, plain, scrubbing, here };
        source.deploy(&source.state("before"))?;
        flows.pull(&flows.zstd, &flows.plain, &flows.here("base"))?;
        flows.pull(&flows.zstd, &flows.scrubbing, &flows.here("scrubbed"))?;
        Ok(flows)
    }

    fn here(&self, name: &str) -> PathBuf {
        self.here.join(name)
    }

    /// Runs a prepared flow; with `watch`, measures its resources on the server.
    pub fn run(&mut self, flow: Flow, shape: Shape, watch: bool) -> Result<Run> {
        let server = self.server(flow);
        server.shape(shape)?;
        let watch = watch.then(|| Watch::start(server.pid(), &server.tmp));
        let started = Instant::now();
        let memory = match flow {
            Flow::Classic => self.classic().map(|()| None),
            Flow::Rsync => self.rsync().map(|()| None),
            Flow::FirstGzip => self.pull(&self.gzip, &self.plain, &self.here("data")),
            _ if flow.is_scrubbed() => self.pull(&self.zstd, &self.scrubbing, &self.here("data")),
            _ => self.pull(&self.zstd, &self.plain, &self.here("data")),
        };
        let time = started.elapsed();
        let seen = watch.map(Watch::end);
        let memory = memory.with_context(|| format!("{} failed", flow.name()))?;
        let [up, down] = self.server(flow).passed()?;
        Ok(Run { time, up, down, memory, seen })
    }

    /// Verifies that the result of a flow equals production. A scrubbed result has other bytes;
    /// `pull-db` has compared them with the server's.
    pub fn check(&self, flow: Flow) -> Result<()> {
        if flow.is_scrubbed() {
            return Ok(());
        }
        let dir = if flow == Flow::Rsync { "yesterday" } else { "data" };
        self.source.check(&self.here(dir)).with_context(|| format!("{} failed", flow.name()))
    }

    fn server(&mut self, flow: Flow) -> &mut Server {
        if flow == Flow::FirstGzip { &mut self.gzip } else { &mut self.zstd }
    }

    /// Prepares the initial state of a flow, which is not timed.
    pub fn prepare(&self, flow: Flow) -> Result<()> {
        let (sh, data) = (self.sh, self.here("data"));
        let (base, scrubbed) = (self.here("base"), self.here("scrubbed"));
        remove(&self.staged())?;
        durable::remove(&self.here("set.tar.gz"))?;
        match flow {
            Flow::Rsync => self.source.copy("before", &self.here("yesterday"))?,
            Flow::Nothing => {}
            _ => remove(&data)?,
        }
        match flow {
            Flow::Day => interrupt::run(cmd!(sh, "cp -pR {base} {data}"))?,
            Flow::DayScrubbed => interrupt::run(cmd!(sh, "cp -pR {scrubbed} {data}"))?,
            Flow::Classic => std::fs::create_dir(data)?,
            _ => {}
        }
        // Pending writes must not slow down the measured run.
        rustix::fs::sync();
        Ok(())
    }

    /// The directory on the server for the copies of the flows without this tool.
    fn staged(&self) -> PathBuf {
        self.zstd.tmp.join("staged")
    }

    /// Copies each database into `staged` on the server, then runs `then` there.
    fn stage(&self, then: &str) -> Result<()> {
        let (staged, production) = (quoted(&self.staged())?, quoted(&self.source.production())?);
        let script = format!(
            "set -e; mkdir {staged}; cd {staged}; for db in {production}/*.db; do \
             sqlite3 \"$db\" \".backup ${{db##*/}}\"; done; {then}"
        );
        let (sh, host, port) = (self.sh, self.zstd.host(), self.zstd.port().to_string());
        self.finish(&self.zstd, cmd!(sh, "ssh -T -p {port} {host} {script}")).map(drop)
    }

    fn classic(&self) -> Result<()> {
        self.stage("tar czf set.tar.gz *.db")?;
        let (sh, data, archive) = (self.sh, self.here("data"), self.here("set.tar.gz"));
        let (config, port) = (&self.zstd.config, self.zstd.port().to_string());
        let from = format!("{}:{}/set.tar.gz", self.zstd.host(), self.staged().display());
        let get = cmd!(sh, "sftp -q -F {config} -P {port} {from} {archive}");
        self.finish(&self.zstd, get)?;
        self.finish(&self.zstd, cmd!(sh, "tar xzf {archive} -C {data}")).map(drop)
    }

    fn rsync(&self) -> Result<()> {
        self.stage("")?;
        let (sh, yesterday) = (self.sh, self.here("yesterday"));
        let ssh = format!("ssh -p {}", self.zstd.port());
        let from = format!("{}:{}/", self.zstd.host(), self.staged().display());
        let command = cmd!(
            sh,
            "rsync --recursive --compress --block-size=4096 --rsh {ssh} {from} {yesterday}"
        );
        self.finish(&self.zstd, command).map(drop)
    }

    /// Pulls like a user; returns the peak memory in bytes.
    fn pull(&self, server: &Server, config: &Path, data: &Path) -> Result<Option<u64>> {
        let (sh, remote) = (self.sh, self.source.production());
        let (xtask, host, port) = (&self.xtask, server.host(), server.port().to_string());
        let said = self.finish(
            server,
            cmd!(
                sh,
                "{xtask} pull-db --yes --verbose --via ssh:{host}:{port} --remote-dir {remote} --config {config} --local-dir {data}"
            ),
        )?;
        Ok(said.lines().find_map(|line| line.parse::<ResourceUsage>().ok()?.memory))
    }

    /// Runs a command whose `ssh` connects to the server; returns its standard error.
    fn finish(&self, server: &Server, command: Cmd<'_>) -> Result<String> {
        let path = server.search_path(self.sh)?;
        let name = command.to_string();
        let output = interrupt::output(command.env("PATH", path).quiet())?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            bail!("`{name}` failed: {}", said.trim());
        }
        Ok(said)
    }
}
