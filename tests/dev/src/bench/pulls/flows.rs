//! The ways to copy production to this machine: with this tool, and without.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use xshell::{Cmd, Shell, cmd};
use xtask_db::internals::{durable, interrupt};

use super::cpu::Cpu;
use super::pull::{Program, Pulled};
use super::rules;
use super::server::{Server, Shape, quoted};
use super::source::{Source, remove};
use super::watch::{Seen, Watch};
use crate::bench::write_out;

/// What is measured. Each but `ssh true` brings the state `after` here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Flow {
    Classic,
    /// `ssh true`: what any connection takes.
    Connect,
    Rsync,
    Sqlite3Rsync,
    FirstZstd,
    FirstGzip,
    Day,
    Nothing,
    /// Without rules, the first pull and the one after a day.
    FirstPlain,
    DayPlain,
}

impl Flow {
    /// In the order in which they run: what [`Flow::Day`] leaves is what [`Flow::Nothing`] needs.
    pub const ALL: [Self; 10] = [
        Self::Classic,
        Self::Connect,
        Self::FirstZstd,
        Self::FirstGzip,
        Self::Rsync,
        Self::Sqlite3Rsync,
        Self::Day,
        Self::Nothing,
        Self::FirstPlain,
        Self::DayPlain,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic first pull",
            Self::Connect => "ssh true",
            Self::Rsync => "rsync after a day",
            Self::Sqlite3Rsync => "sqlite3_rsync after a day",
            Self::FirstZstd => "first pull (zstd)",
            Self::FirstGzip => "first pull (gzip)",
            Self::Day => "after a day",
            Self::Nothing => "nothing changed",
            Self::FirstPlain => "first pull, no rules",
            Self::DayPlain => "after a day, no rules",
        }
    }

    /// Whether the flow uses `pull-db`.
    pub fn is_ours(self) -> bool {
        !matches!(self, Self::Classic | Self::Connect | Self::Rsync | Self::Sqlite3Rsync)
    }

    fn is_plain(self) -> bool {
        matches!(self, Self::FirstPlain | Self::DayPlain)
    }

    /// Whether it updates copies of yesterday.
    fn is_rsync(self) -> bool {
        matches!(self, Self::Rsync | Self::Sqlite3Rsync)
    }
}

/// How one went.
#[derive(Default)]
pub struct Run {
    pub time: Duration,
    pub up: u64,
    pub down: u64,
    /// The CPU time of the server, in seconds.
    pub cpu: Option<f64>,
    pub pulled: Pulled,
    pub seen: Option<Seen>,
}

/// The context of all flows.
pub struct Flows<'a> {
    sh: &'a Shell,
    program: &'a Program,
    pub source: &'a Source,
    zstd: Server,
    gzip: Server,
    /// Settings without a rule.
    plain: PathBuf,
    /// Holds what each flow brings.
    here: PathBuf,
}

impl<'a> Flows<'a> {
    /// Starts the servers, with all that they have in `dir`. Pulls yesterday's production, and
    /// today's as what pulls with rules are expected to bring; today's stays deployed.
    ///
    /// # Errors
    ///
    /// A server does not start, or a pull fails.
    pub fn start(
        sh: &'a Shell,
        program: &'a Program,
        source: &'a Source,
        shaped_server: &Path,
        dir: &Path,
    ) -> Result<Self> {
        let server =
            |name: &str, without| Server::start(sh, shaped_server, &dir.join(name), without);
        let (here, plain) = (dir.join("here"), dir.join("plain.toml"));
        remove(&here)?;
        std::fs::create_dir_all(&here)?;
        std::fs::write(&plain, "")?;
        let (zstd, gzip) = (server("zstd", None)?, server("gzip", Some("zstd"))?);
        let flows = Self { sh, program, source, zstd, gzip, plain, here };
        source.deploy(&source.state("before"))?;
        flows.pull(&flows.zstd, &program.config, &flows.here("base"), false)?;
        flows.pull(&flows.zstd, &flows.plain, &flows.here("base-plain"), false)?;
        source.deploy(&source.state("after"))?;
        flows.pull(&flows.zstd, &program.config, &flows.here("expected"), true)?;
        rules::check_secrets(sh, &source.production(), &flows.here("expected"))?;
        rules::check_documents(&source.production(), &flows.here("expected"))?;
        Ok(flows)
    }

    fn here(&self, name: &str) -> PathBuf {
        self.here.join(name)
    }

    /// Runs a prepared flow; with `watch`, measures its resources on the server.
    pub fn run(&mut self, flow: Flow, shape: Shape, watch: bool) -> Result<Run> {
        let server = self.server(flow);
        server.shape(shape)?;
        let cpu = Cpu::start(server.pid());
        let watch = watch.then(|| Watch::start(server.pid(), &server.tmp));
        let started = Instant::now();
        let pulled = self.begin(flow);
        let time = started.elapsed();
        let seen = watch.map(Watch::end);
        let pulled = pulled.with_context(|| format!("{} failed", flow.name()))?;
        let cpu = cpu.and_then(Cpu::end);
        let [up, down] = self.server(flow).passed()?;
        Ok(Run { time, up, down, cpu, pulled, seen })
    }

    fn begin(&self, flow: Flow) -> Result<Pulled> {
        match flow {
            Flow::Classic => self.classic()?,
            Flow::Connect => self.connect("true")?,
            Flow::Rsync => self.rsync()?,
            Flow::Sqlite3Rsync => self.sqlite3_rsync()?,
            _ => {
                let server = if flow == Flow::FirstGzip { &self.gzip } else { &self.zstd };
                let config = if flow.is_plain() { &self.plain } else { &self.program.config };
                return self.pull(server, config, &self.here("data"), false);
            }
        }
        Ok(Pulled::default())
    }

    /// Checks that a flow has brought production, or what rules make of it.
    ///
    /// # Errors
    ///
    /// It has not.
    pub fn check(&self, flow: Flow) -> Result<()> {
        let dir = self.here(if flow.is_rsync() { "yesterday" } else { "data" });
        let expected = match flow {
            Flow::Connect => return Ok(()),
            _ if flow.is_ours() && !flow.is_plain() => self.here("expected"),
            _ => self.source.production(),
        };
        self.source.check(&expected, &dir).with_context(|| format!("{} failed", flow.name()))
    }

    fn server(&mut self, flow: Flow) -> &mut Server {
        if flow == Flow::FirstGzip { &mut self.gzip } else { &mut self.zstd }
    }

    /// Prepares the initial state of a flow, which is not timed.
    pub fn prepare(&self, flow: Flow) -> Result<()> {
        let (sh, data) = (self.sh, self.here("data"));
        remove(&self.staged())?;
        durable::remove(&self.here("set.tar.gz"))?;
        match flow {
            Flow::Rsync | Flow::Sqlite3Rsync => {
                self.source.copy("before", &self.here("yesterday"))?;
            }
            Flow::Nothing | Flow::Connect => {}
            _ => remove(&data)?,
        }
        let base = match flow {
            Flow::Day => Some(self.here("base")),
            Flow::DayPlain => Some(self.here("base-plain")),
            _ => None,
        };
        if let Some(base) = base {
            interrupt::run(cmd!(sh, "cp -pR {base} {data}"))?;
        }
        if flow == Flow::Classic {
            std::fs::create_dir(data)?;
        }
        write_out(&self.here)
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
        self.connect(&script)
    }

    /// Runs a script on the server.
    fn connect(&self, script: &str) -> Result<()> {
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

    /// One database after the other: it takes no more. The `ssh` that it finds knows the port.
    fn sqlite3_rsync(&self) -> Result<()> {
        let (sh, yesterday, host) = (self.sh, self.here("yesterday"), self.zstd.host());
        for path in rules::databases(&self.source.production())? {
            let copy = yesterday.join(path.file_name().unwrap_or_default());
            let from = format!("{host}:{}", path.display());
            self.finish(&self.zstd, cmd!(sh, "sqlite3_rsync {from} {copy}"))?;
        }
        Ok(())
    }

    fn pull(&self, server: &Server, config: &Path, data: &Path, full: bool) -> Result<Pulled> {
        let (host, port, remote) = (server.host(), server.port(), self.source.production());
        let via = format!("ssh:{host}:{port}");
        let (sh, command) = (self.sh, self.program.command(&via, config, data));
        let (program, args) = command.split_first().context("a program")?;
        let full = full.then_some("--full");
        let pull = cmd!(sh, "{program} {args...} --remote-dir {remote} {full...}");
        let said = self.finish(server, pull)?;
        Ok(Pulled::parse(&said))
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
