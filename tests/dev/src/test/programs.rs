//! Installs the programs from PyPI that the tests run, into virtual environments in the target
//! directory; and from npm and crates.io the frameworks among them.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};
use xtask_db::internals::durable;
use xtask_db::internals::error::Failure;

use crate::{Context, install};

/// Programs of one virtual environment. `tests/<name>/requirements.txt` has their versions.
struct Programs {
    name: &'static str,
    /// What the messages call them.
    title: &'static str,
    programs: &'static [&'static str],
    /// Whether npm, which is one of them, installs `tests/<name>/package-lock.json` too.
    npm: bool,
}

const ALL: [Programs; 7] = [
    Programs::new(
        "hook-managers",
        "pre-commit, prek and lefthook",
        &["pre-commit", "prek", "lefthook"],
    ),
    Programs::new("django", "Django", &["django-admin"]),
    Programs::new("extensions", "extensions of SQLite", &["python"]),
    Programs::new("pocketbase", "PocketBase", &["pocketbase"]),
    Programs::new("litestream", "Litestream", &["litestream"]),
    Programs::new("s3", "a server of S3", &["moto_server"]),
    Programs {
        npm: true,
        ..Programs::new("frameworks", "Alembic, Drizzle and Knex", &["alembic", "node", "npm"])
    },
];

/// Installs all of them, unless the same versions are installed already.
///
/// # Errors
///
/// A package cannot be downloaded or installed.
pub fn install(cx: &Context, target: &Path) -> Result<()> {
    ALL.iter().try_for_each(|programs| programs.install(cx, target))?;
    sqlx(&cx.sh, target)
}

/// Installs those of these names.
///
/// # Errors
///
/// A package cannot be downloaded or installed.
pub fn install_only(cx: &Context, target: &Path, names: &[&str]) -> Result<()> {
    let mut wanted = ALL.iter().filter(|programs| names.contains(&programs.name));
    wanted.try_for_each(|programs| programs.install(cx, target))
}

impl Programs {
    const fn new(
        name: &'static str,
        title: &'static str,
        programs: &'static [&'static str],
    ) -> Self {
        Self { name, title, programs, npm: false }
    }

    fn install(&self, cx: &Context, target: &Path) -> Result<()> {
        let (sh, title) = (&cx.sh, self.title);
        let sources = cx.root.join("tests").join(self.name);
        let dir = target.join(self.name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let lock =
            File::create(dir.join("lock")).with_context(|| format!("cannot lock {title}"))?;
        lock.lock().with_context(|| format!("cannot lock {title}"))?;
        // The tests compare the stamp with these files too. It is written last, so that an
        // incomplete installation has none.
        let requirements = sources.join("requirements.txt");
        let mut versions = fs::read_to_string(&requirements)?;
        if self.npm {
            versions += &fs::read_to_string(sources.join("package-lock.json"))?;
        }
        let stamp = dir.join("versions");
        let installed = fs::read_to_string(&stamp).is_ok_and(|installed| installed == versions);
        if installed && self.work(sh, &dir) {
            return Ok(());
        }
        durable::remove(&stamp)?;
        cx.ui.status("Installing", format!("{title} into {}", dir.display()));
        from_pypi(sh, &requirements, &dir.join("python")).with_context(|| {
            Failure::new(format!("{title} cannot be installed"))
                .hint("PyPI has the packages: run `cargo dev test` again with a network")
        })?;
        if self.npm {
            from_npm(sh, &sources, &dir).with_context(|| {
                Failure::new(format!("{title} cannot be installed"))
                    .hint("npm has the packages: run `cargo dev test` again with a network")
            })?;
        }
        durable::write_shared(&stamp, versions.as_bytes(), false)
    }

    /// Whether the programs run: a virtual environment breaks when the repository is moved, or when
    /// its Python is removed.
    fn work(&self, sh: &Shell, dir: &Path) -> bool {
        self.programs.iter().all(|program| {
            let program = dir.join("python/bin").join(program);
            let help = cmd!(sh, "{program} --help").quiet().ignore_stdout().ignore_stderr();
            help.run().is_ok()
        })
    }
}

/// Uses a virtual environment: Debian and Homebrew forbid pip to install elsewhere.
fn from_pypi(sh: &Shell, requirements: &Path, dir: &Path) -> Result<()> {
    let python = install::find(sh, install::PYTHON3.program).context("there is no python3")?;
    cmd!(sh, "{python} -m venv --clear {dir}").quiet().run()?;
    let python = dir.join("bin/python");
    cmd!(
        sh,
        "{python} -m pip install --quiet --disable-pip-version-check --requirement {requirements}"
    )
    .quiet()
    .run()?;
    Ok(())
}

/// Runs no scripts of the packages: what these need is compiled already.
fn from_npm(sh: &Shell, sources: &Path, dir: &Path) -> Result<()> {
    for file in ["package.json", "package-lock.json"] {
        let (from, to) = (sources.join(file), dir.join(file));
        fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    let programs = dir.join("python/bin");
    let npm = programs.join("npm");
    cmd!(sh, "{npm} ci --prefix {dir} --ignore-scripts --no-audit --no-fund --silent")
        .quiet()
        .run()?;
    Ok(())
}

/// Builds a program with sqlx in it, in a workspace of its own: two crates of one workspace cannot
/// both link SQLite.
fn sqlx(sh: &Shell, target: &Path) -> Result<()> {
    let dir = target.join("frameworks/sqlx");
    let manifest = "tests/frameworks/sqlx/Cargo.toml";
    cmd!(sh, "cargo build --quiet --locked --manifest-path {manifest} --target-dir {dir}")
        .quiet()
        .run()?;
    Ok(())
}
