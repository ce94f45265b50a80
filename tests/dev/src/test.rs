pub mod programs;

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};
use xtask_db::internals::interrupt;
use xtask_db::internals::ui::Ui;

use crate::install::{
    self, BSDTAR, BUSYBOX, CXX, FISH, LSOF, PS, PYTHON3, RAILS, RSYNC, RUNC, SHELLCHECK, SQLITE3,
    SSH, SSHD, STRACE, SUDO, Tool, ZSH, ZSTD,
};
use crate::{Context, fuzz};

const TOOLS: [Tool; 17] = [
    SQLITE3, ZSTD, SSH, SSHD, RSYNC, PS, LSOF, BSDTAR, SHELLCHECK, BUSYBOX, STRACE, PYTHON3, RUNC,
    SUDO, RAILS, ZSH, FISH,
];

/// Each package is built separately, see [`Context::build`].
const PACKAGES: [&str; 4] = ["xtask-db", "app", "dev", "tests"];

/// Check this repository: formatting, lints, shell scripts, fixtures, all tests
///
/// Install the programs that the tests need and this machine lacks.
#[derive(clap::Args)]
pub struct Args {
    /// Run the long tests too: kills and faults at every system call, cuts at every byte, fuzzing
    #[arg(long)]
    long: bool,
    /// Add these arguments to `cargo test`
    #[arg(last = true)]
    args: Vec<String>,
}

impl Args {
    pub fn run(self, cx: &Context) -> Result<()> {
        let sh = &cx.sh;
        // Parsed first, because fuzzing comes last.
        let seconds = self.long.then(|| fuzz::Args::default().seconds(sh)).transpose()?;
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
            let xtask = cx.build("xtask-db", "xtask")?;
            interrupt::run(cmd!(sh, "{xtask} refresh-fixtures --check --quiet"))
        })?;
        let target = cx.target_directory()?;
        programs::install(cx, &target)?;
        step(&cx.ui, "tests", || {
            let _built = sh.push_env("XTASK_TESTS_PREBUILT", "1");
            let _long = self.long.then(|| sh.push_env("XTASK_TEST_LONG", "1"));
            let _threads = sh.push_env("RUST_TEST_THREADS", threads().to_string());
            let _memory = directory_in_memory(sh).map(|directory| sh.push_env("TMPDIR", directory));
            // All programs are built before the tests, which start them. Then all tests run, even
            // if some fail.
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
        seconds.map_or(Ok(()), |seconds| fuzz::run(cx, seconds))
    }
}

/// The number of tests to run at a time: each mostly waits for programs.
fn threads() -> usize {
    4 * std::thread::available_parallelism().map_or(1, usize::from)
}

/// A directory in memory for temporary files, which saves a sixth of the CPU time. `None` if it is
/// too small, mounted noexec, or TMPDIR is set.
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
