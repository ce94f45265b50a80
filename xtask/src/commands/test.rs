mod fuzz;
mod hook_managers;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};

use crate::error::Failure;
use crate::install::{
    self, BUSYBOX, CXX, PS, PYTHON3, RSYNC, SHELLCHECK, SQLITE3, SSH, SSHD, STRACE, Tool, ZSTD,
};
use crate::ui::Ui;
use crate::{Context, interrupt, settings};

const TOOLS: [Tool; 10] =
    [SQLITE3, ZSTD, SSH, SSHD, RSYNC, PS, SHELLCHECK, BUSYBOX, STRACE, PYTHON3];

/// Each is built by itself, as `cargo xtask`, `demo` and `bench` do it: together they would
/// get other features, and be compiled once more.
const PACKAGES: [&str; 3] = ["xtask", "app", "tests"];

/// Check this repository: formatting, lints, shell scripts, fixtures, all tests
///
/// Installs what the tests need and this machine lacks.
#[derive(clap::Args)]
pub struct Args {
    /// Also what takes longer: kills and faults at every system call, cuts at every byte, fuzzing
    #[arg(long)]
    long: bool,
    /// More arguments for `cargo test`
    #[arg(last = true)]
    args: Vec<String>,
}

impl Args {
    pub fn run(self, cx: &Context) -> Result<()> {
        let root = settings::default_root();
        require_own_repository(&root)?;
        let sh = &cx.sh;
        sh.change_dir(&root);
        // Asked first: fuzzing comes last.
        let seconds = self.long.then(|| fuzz::seconds(sh)).transpose()?;
        install::ensure(&cx.ui, sh, &TOOLS)?;
        if self.long {
            install::ensure(&cx.ui, sh, &[CXX])?;
        }
        let args = &self.args;
        step(&cx.ui, "formatting", || interrupt::run(cmd!(sh, "cargo fmt --all --check")))?;
        step(&cx.ui, "clippy", || {
            interrupt::run(cmd!(
                sh,
                "cargo clippy --quiet --locked --profile xtask --workspace --all-targets -- -D warnings"
            ))
        })?;
        step(&cx.ui, "shellcheck", || shellcheck(sh))?;
        step(&cx.ui, "fixtures", || {
            let xtask = std::env::current_exe().unwrap_or_default();
            interrupt::run(cmd!(sh, "{xtask} refresh-fixtures --check --quiet"))
        })?;
        let target = target_directory(sh)?;
        hook_managers::install(&cx.ui, sh, &root, &target)?;
        step(&cx.ui, "tests", || {
            let _built = sh.push_env("XTASK_TESTS_PREBUILT", "1");
            let _long = self.long.then(|| sh.push_env("XTASK_TEST_LONG", "1"));
            let _threads = sh.push_env("RUST_TEST_THREADS", threads().to_string());
            let _memory = directory_in_memory(sh).map(|directory| sh.push_env("TMPDIR", directory));
            // All programs come before the tests, which start them; and then the tests of
            // all run, whichever fail.
            for package in PACKAGES {
                interrupt::run(cmd!(
                    sh,
                    "cargo build --quiet --locked --profile xtask --package {package} --bins"
                ))?;
            }
            let run = |package: &&str| {
                interrupt::run(cmd!(
                    sh,
                    "cargo test --locked --profile xtask --no-fail-fast --package {package} {args...}"
                ))
            };
            PACKAGES.iter().map(run).fold(Ok(()), Result::and)
        })?;
        seconds.map_or(Ok(()), |seconds| fuzz::run(&cx.ui, sh, &root, &target, seconds))
    }
}

/// How many tests run at a time: each waits for programs most of its time.
fn threads() -> usize {
    4 * std::thread::available_parallelism().map_or(1, usize::from)
}

/// Where tests make thousands of files that nobody keeps: in memory, that takes a sixth less
/// CPU time. None where it is too small, runs no programs, or somebody has chosen.
fn directory_in_memory(sh: &Shell) -> Option<&'static str> {
    const DIRECTORY: &str = "/dev/shm";
    const ROOM: u64 = 4 << 30;
    let found = rustix::fs::statvfs(DIRECTORY).ok()?;
    let fits = found.f_bavail.saturating_mul(found.f_frsize) >= ROOM;
    let runs = !found.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC);
    (fits && runs && sh.var_os("TMPDIR").is_none()).then_some(DIRECTORY)
}

fn shellcheck(sh: &Shell) -> Result<()> {
    let scripts = cmd!(sh, "git ls-files *.sh .ci docs/hooks/pre-commit").quiet().read()?;
    let scripts = scripts.lines();
    interrupt::run(cmd!(sh, "shellcheck {scripts...}"))
}

fn step(ui: &Ui, name: &str, run: impl FnOnce() -> Result<()>) -> Result<()> {
    ui.status("Checking", name);
    run().with_context(|| format!("{name} failed"))
}

/// Where Cargo builds this repository.
///
/// # Errors
///
/// Cargo does not say it.
pub fn target_directory(sh: &Shell) -> Result<PathBuf> {
    let metadata =
        cmd!(sh, "cargo metadata --quiet --no-deps --format-version 1").quiet().read()?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let target =
        metadata["target_directory"].as_str().context("cargo names its target directory")?;
    Ok(target.into())
}

/// Refuses to go on in a repository that has only copied `xtask`.
///
/// # Errors
///
/// The app or the tests are missing.
pub fn require_own_repository(root: &Path) -> Result<()> {
    if root.join("app/Cargo.toml").exists() && root.join("tests/Cargo.toml").exists() {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "{} has no app/ and tests/: this command is for the tool's own repository",
        root.display()
    ))
    .into())
}
