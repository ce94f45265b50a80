//! Replicas of Litestream in a directory, and the ways to make masked databases of them.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use xshell::{Cmd, cmd};
use xtask_db::internals::interrupt;

use super::Bench;
use super::flow::{Flow, Measured, Run, Runs};
use super::team::check;
use crate::bench::pulls::rules::{check_secrets, databases};
use crate::bench::pulls::source::remove;
use crate::bench::write_out;

/// As many as a pull restores at a time.
const AT_ONCE: &str = "4";

pub struct Replicas<'a> {
    bench: &'a Bench<'a>,
    /// What was replicated.
    source: PathBuf,
    dir: PathBuf,
}

impl<'a> Replicas<'a> {
    /// Replicates copies of the databases in `source` once.
    pub fn make(bench: &'a Bench<'a>, source: &Path) -> Result<Self> {
        let made = Self { bench, source: source.to_owned(), dir: bench.dir.join("litestream") };
        remove(&made.dir)?;
        let (production, bin) = (made.dir.join("production"), made.dir.join("bin"));
        for dir in [&production, &bin, &made.dir.join("idle")] {
            std::fs::create_dir_all(dir)?;
        }
        std::os::unix::fs::symlink(&bench.tools.litestream, bin.join("litestream"))?;
        let all = databases(source)?;
        for path in &all {
            std::fs::copy(path, production.join(path.file_name().unwrap_or_default()))?;
        }
        let config = made.dir.join("litestream.yml");
        std::fs::write(
            &config,
            format!(
                "dbs:\n  - dir: {}\n    pattern: '*.db'\n    replica:\n      type: file\n      path: {}\n",
                production.display(),
                made.replicas().display()
            ),
        )?;
        bench.cx.ui.status("Replicating", format!("{} databases with Litestream", all.len()));
        let replicate = cmd!(bench.cx.sh, "litestream replicate -once -config {config}");
        let output = interrupt::output(made.command(replicate)?)?;
        if !output.status.success() {
            bail!("litestream failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(made)
    }

    fn replicas(&self) -> PathBuf {
        self.dir.join("replicas")
    }

    /// A command that finds `litestream`, to which a variable of other programs means something
    /// else.
    fn command<'c>(&self, command: Cmd<'c>) -> Result<Cmd<'c>> {
        let path = self.bench.cx.sh.var_os("PATH").unwrap_or_default();
        let path = std::iter::once(self.dir.join("bin")).chain(std::env::split_paths(&path));
        let command = command.env("PATH", std::env::join_paths(path)?);
        Ok(command.env_remove("AWS_CA_BUNDLE").quiet())
    }

    pub fn measure(&self) -> Result<Vec<Measured>> {
        let Bench { cx, runs, .. } = self.bench;
        let mut all = Runs::new();
        for n in 1..=*runs {
            let databases = databases(&self.source)?.len();
            cx.ui.status(
                "Measuring",
                format!("{databases} databases of Litestream, run {n} of {runs}"),
            );
            for (flow, run) in self.run()? {
                let seconds = run.time.as_secs_f64();
                cx.ui.verbose(format!("{}: {seconds:.2} s", flow.name()));
                all.entry(flow).or_default().push(run);
            }
        }
        remove(&self.dir)?;
        Ok(Measured::of(&all))
    }

    fn run(&self) -> Result<[(Flow, Run); 4]> {
        let [restored, data, other] =
            ["restored", "data", "data-of-restored"].map(|name| self.dir.join(name));
        for dir in [&restored, &data, &other] {
            remove(dir)?;
        }
        std::fs::create_dir(&restored)?;
        write_out(&self.dir)?;
        let restore = self.restore(&restored)?;
        let pull_restored = self.pull(&format!("local:{}", restored.display()), &other)?;
        remove(&restored)?;
        write_out(&self.dir)?;
        interrupt::check()?;
        let ours = self.pull(&format!("litestream:file://{}", self.replicas().display()), &data)?;
        check(&other, &data)?;
        check_secrets(&self.bench.cx.sh, &self.source, &data)?;
        Ok([
            (Flow::Restore, restore),
            (Flow::PullRestored, pull_restored),
            (Flow::RestoreAndPull, restore.then(pull_restored)),
            (Flow::PullReplicas, ours),
        ])
    }

    /// Restores each database with the program alone.
    fn restore(&self, to: &Path) -> Result<Run> {
        let replicas = self.replicas();
        let script = "cd \"$1\" && ls | xargs -P \"$3\" -I NAME litestream restore -o \"$2/NAME\" \"file://$1/NAME\"";
        let restore = cmd!(self.bench.cx.sh, "sh -c {script} sh {replicas} {to} {AT_ONCE}");
        Run::of(self.command(restore)?, "litestream", &self.dir.join("idle"))
    }

    fn pull(&self, via: &str, data: &Path) -> Result<Run> {
        let program = &self.bench.tools.program;
        let pull = program.command(via, &program.config, data);
        let pull = self.command(cmd!(self.bench.cx.sh, "env {pull...}"))?;
        Run::of(pull, "xtask", &self.dir.join("idle"))
    }
}
