//! Coverage-guided fuzzing with libFuzzer and the stable compiler, like `cargo fuzz run --sanitizer
//! none`, but with nothing to install.

/// The tests of the targets replay the corpus.
#[cfg(test)]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use xshell::{Shell, cmd};
use xtask_db::internals::error::Failure;
use xtask_db::internals::interrupt;

use crate::Context;
use crate::install::{self, CXX};

/// The directory of the fuzz workspace, from the root of the repository.
const FUZZ: &str = "tests/fuzz";
const TARGETS: [&str; 2] = ["stream", "snapshot"];
/// The default, unless the environment variable is set.
const SECONDS: u64 = 600;
const SECONDS_VARIABLE: &str = "XTASK_FUZZ_SECONDS";

/// Instruments the code, so that libFuzzer sees its branches and comparisons.
const INSTRUMENTED: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Fuzz the readers of untrusted input
#[derive(clap::Args, Default)]
pub struct Args {
    /// Fuzz each target for this many seconds [default: $XTASK_FUZZ_SECONDS, else 600]
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
}

impl Args {
    pub fn run(self, cx: &Context) -> Result<()> {
        install::ensure(&cx.ui, &cx.sh, &[CXX])?;
        run(cx, self.seconds(&cx.sh)?)
    }

    /// The flag, else the variable, which must be a number.
    pub fn seconds(&self, sh: &Shell) -> Result<u64> {
        match (self.seconds, sh.var(SECONDS_VARIABLE)) {
            (Some(seconds), _) => Ok(seconds),
            (None, Ok(text)) => text.parse().map_err(|_| {
                Failure::usage(format!("{SECONDS_VARIABLE}={text:?} is not a number")).into()
            }),
            (None, Err(_)) => Ok(SECONDS),
        }
    }
}

/// Fuzzes each target for `seconds`, starting with the committed corpus and the findings of earlier
/// runs on this machine.
///
/// # Errors
///
/// A target does not compile, or fails for an input: the hint has the path of the input.
pub fn run(cx: &Context, seconds: u64) -> Result<()> {
    let (ui, sh, dir) = (&cx.ui, &cx.sh, cx.target_directory()?.join("fuzz"));
    let programs = build(sh, &dir)?;
    for name in TARGETS {
        ui.status("Fuzzing", format!("{name} for {seconds} s"));
        let (found, kept) =
            (dir.join("corpus").join(name), cx.root.join(FUZZ).join("corpus").join(name));
        let findings = dir.join("findings");
        for dir in [&found, &findings] {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        let program = programs.join(name);
        let prefix = format!("{}/{name}-", findings.display());
        let time = format!("-max_total_time={seconds}");
        // No input may take ten seconds or a gigabyte.
        let limits = ["-timeout=10", "-rss_limit_mb=1024", "-max_len=65536"];
        let say = ["-verbosity=0", "-print_final_stats=1"];
        let run = cmd!(
            sh,
            "{program} {time} {limits...} {say...} -artifact_prefix={prefix} {found} {kept}"
        );
        let output = interrupt::output(run)?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(anyhow!("{said}").context(
                Failure::new(format!("{name} fails on an input that the fuzzer found"))
                    .hint(format!("run it again: {} {prefix}*", program.display())),
            ));
        }
        // The rest of the output is mostly a dictionary.
        for line in said.lines().filter_map(|line| line.strip_prefix("stat::")) {
            ui.status("", line);
        }
    }
    Ok(())
}

/// Returns the directory of the programs. `--target` keeps the flags from build scripts, which
/// could not be linked with them.
fn build(sh: &Shell, dir: &Path) -> Result<PathBuf> {
    let version = cmd!(sh, "rustc -vV").quiet().read()?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc names no host")?;
    let manifest = format!("{FUZZ}/Cargo.toml");
    let _flags = sh.push_env("RUSTFLAGS", INSTRUMENTED);
    interrupt::run(cmd!(sh, "cargo build --quiet --locked --release --manifest-path {manifest} --target {host} --target-dir {dir}"))
        .context("the fuzz targets do not compile")?;
    Ok(dir.join(host).join("release"))
}
