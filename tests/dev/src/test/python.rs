//! Installs the programs from PyPI that the tests run, into virtual environments in the target
//! directory.

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
}

const ALL: [Programs; 4] = [
    Programs {
        name: "hook-managers",
        title: "pre-commit, prek and lefthook",
        programs: &["pre-commit", "prek", "lefthook"],
    },
    Programs { name: "django", title: "Django", programs: &["django-admin"] },
    Programs { name: "extensions", title: "extensions of SQLite", programs: &["python"] },
    Programs { name: "pocketbase", title: "PocketBase", programs: &["pocketbase"] },
];

/// Installs all of them, unless the same versions are installed already.
///
/// # Errors
///
/// A package cannot be downloaded or installed.
pub fn install(cx: &Context, target: &Path) -> Result<()> {
    ALL.iter().try_for_each(|programs| programs.install(cx, target))
}

impl Programs {
    fn install(&self, cx: &Context, target: &Path) -> Result<()> {
        let (sh, title) = (&cx.sh, self.title);
        let requirements = cx.root.join(format!("tests/{}/requirements.txt", self.name));
        let dir = target.join(self.name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let lock =
            File::create(dir.join("lock")).with_context(|| format!("cannot lock {title}"))?;
        lock.lock().with_context(|| format!("cannot lock {title}"))?;
        // The tests compare the stamp with the requirements too. It is written last, so that an
        // incomplete installation has none.
        let versions = fs::read_to_string(&requirements)?;
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
