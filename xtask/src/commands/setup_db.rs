use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::error::Failure;
use crate::interrupt;
use crate::live::LockedLiveSet;
use crate::live::report::WAY_BACK;
use crate::snapshots::Kind;

/// Run the app's migrations and seed on the current data
///
/// The command is `setup` in db.toml. The current data is saved first:
/// `restore-db --undo` brings it back, and `restore-db --latest` restores the
/// newest pull.
#[derive(clap::Args)]
pub struct Args {
    /// Run the command even if a program has the current data open
    #[arg(long)]
    force: bool,
    /// Add these arguments to the command
    #[arg(last = true)]
    args: Vec<String>,
}

impl Args {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let settings = cx.settings()?;
        let Some(line) = &settings.setup else {
            return Err(Failure::usage("no `setup` command in the config file")
                .hint("add to xtask/db.toml: setup = \"bin/rails db:prepare\" or \"python3 manage.py migrate\"")
                .into());
        };
        let dir = settings.data_dir.display().to_string();
        let line = line.with("{dir}", &dir);

        let mut live = LockedLiveSet::lock(cx, &settings, "cargo xtask setup-db")?;
        live.refuse_if_open(self.force)?;
        let saved = live.save(Kind::BeforeRestore, self.force)?;
        interrupt::check()?;
        live.about_to_change(saved.as_ref())?;
        live.store.release_shared();
        if let Some(saved) = &saved {
            cx.ui.status("Saved", format!("the current data as {}", saved.name));
        }
        cx.ui.status("Running", &line);
        let _root = cx.sh.push_dir(&settings.root);
        interrupt::run(line.command(&cx.sh).args(&self.args)).with_context(|| {
            let what = if interrupt::is_asked() { "was interrupted" } else { "failed" };
            Failure::new(format!("the setup command {what}, and may have changed the current data"))
                .hint(WAY_BACK)
        })?;
        if saved.is_some() {
            cx.ui.hint(WAY_BACK);
        }
        Ok(())
    }
}
