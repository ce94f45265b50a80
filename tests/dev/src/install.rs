//! Installs programs that a command needs, after asking.

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};
use xtask_db::internals::error::Failure;
use xtask_db::internals::interrupt;
pub use xtask_db::internals::programs::find;
use xtask_db::internals::ui::Ui;

/// A program and its packages.
pub struct Tool {
    pub program: &'static str,
    /// Separated by blanks.
    apt: &'static str,
    /// `None` if Homebrew has no such package, or macOS includes the program.
    brew: Option<&'static str>,
    /// Arguments with which the program fails if it is incomplete.
    proof: &'static [&'static str],
}

pub const SQLITE3: Tool = Tool::new("sqlite3", "sqlite3", None);
pub const ZSTD: Tool = Tool::new("zstd", "zstd", Some("zstd"));
pub const SSH: Tool = Tool::new("ssh", "openssh-client", None);
pub const SSHD: Tool = Tool::new("sshd", "openssh-server", None);
pub const PS: Tool = Tool::new("ps", "procps", None);
/// What macOS has to find open files.
pub const LSOF: Tool = Tool::new("lsof", "lsof", None);
/// The tar of macOS.
pub const BSDTAR: Tool = Tool::new("bsdtar", "libarchive-tools", None);
pub const RSYNC: Tool = Tool::new("rsync", "rsync", Some("rsync"));
pub const SHELLCHECK: Tool = Tool::new("shellcheck", "shellcheck", Some("shellcheck"));
pub const BUSYBOX: Tool = Tool::new("busybox", "busybox", None);
pub const STRACE: Tool = Tool::new("strace", "strace", None);
pub const RUNC: Tool = Tool::new("runc", "runc", None);
pub const ZSH: Tool = Tool::new("zsh", "zsh", None);
pub const FISH: Tool = Tool::new("fish", "fish", Some("fish"));
pub const SUDO: Tool = Tool::new("sudo", "sudo", None);
pub const CXX: Tool = Tool::new("c++", "g++", None);
/// What of Rails migrates a database.
pub const RAILS: Tool = Tool {
    proof: &["-e", "%w[rails active_record sqlite3].each { require _1 }"],
    ..Tool::new("ruby", "ruby-railties ruby-activerecord ruby-sqlite3", None)
};
/// Debian has a separate package for `venv`, and the version of macOS is old.
pub const PYTHON3: Tool = Tool {
    proof: &["-c", "import ensurepip, sys, venv; assert sys.version_info >= (3, 11)"],
    ..Tool::new("python3", "python3-venv", Some("python"))
};

impl Tool {
    const fn new(program: &'static str, apt: &'static str, brew: Option<&'static str>) -> Self {
        Self { program, apt, brew, proof: &[] }
    }

    fn is_here(&self, sh: &Shell) -> bool {
        let Some(program) = find(sh, self.program) else { return false };
        let proof = self.proof;
        proof.is_empty()
            || cmd!(sh, "{program} {proof...}")
                .quiet()
                .ignore_stdout()
                .ignore_stderr()
                .run()
                .is_ok()
    }
}

/// Installs the missing ones of `tools`: asks first on a terminal, and otherwise does not.
///
/// # Errors
///
/// This user cannot install packages, or the package manager failed: the hint is the command to
/// type.
pub fn ensure(ui: &Ui, sh: &Shell, tools: &[Tool]) -> Result<()> {
    let missing: Vec<_> = tools.iter().filter(|tool| !tool.is_here(sh)).collect();
    let (manager, packages) = if cfg!(target_os = "macos") {
        ("brew", missing.iter().filter_map(|tool| tool.brew).collect::<Vec<_>>())
    } else {
        ("apt-get", missing.iter().flat_map(|tool| tool.apt.split(' ')).collect())
    };
    if packages.is_empty() {
        return Ok(());
    }
    let sudo = manager == "apt-get" && !rustix::process::geteuid().is_root();
    let command =
        format!("{}{manager} install {}", if sudo { "sudo " } else { "" }, packages.join(" "));
    let needed = format!("this needs {}, which this machine lacks", packages.join(", "));
    let may =
        !sudo || cmd!(sh, "sudo --non-interactive true").quiet().ignore_stderr().run().is_ok();
    if find(sh, manager).is_none() || !(may || ui.interactive()) {
        return Err(Failure::new(needed).hint(command).into());
    }
    if ui.interactive() {
        ui.confirm(&format!("Missing: {}. Run `{command}`?", packages.join(", ")))?;
    }
    ui.status("Installing", format!("{} ({command})", packages.join(", ")));
    install(sh, manager, sudo, &packages).with_context(|| Failure::new(needed).hint(command))
}

fn install(sh: &Shell, manager: &str, sudo: bool, packages: &[&str]) -> Result<()> {
    let _env = sh.push_env("DEBIAN_FRONTEND", "noninteractive");
    let sudo: &[_] = if sudo { &["sudo", "--preserve-env=DEBIAN_FRONTEND"] } else { &[] };
    let words: Vec<_> = sudo.iter().copied().chain([manager]).collect();
    let (program, before) = (words[0], &words[1..]);
    if manager == "apt-get" {
        interrupt::run(cmd!(sh, "{program} {before...} update --quiet=2"))?;
        let options = ["--quiet=2", "--yes", "--no-install-recommends"];
        interrupt::run(
            cmd!(sh, "{program} {before...} install {options...} {packages...}").ignore_stdout(),
        )?;
    } else {
        interrupt::run(cmd!(sh, "{program} install --quiet {packages...}"))?;
    }
    Ok(())
}
