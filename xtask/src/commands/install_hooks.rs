use std::path::Path;

use anyhow::Result;

use crate::context::Context;
use crate::git::Repository;
use crate::hooks::{Done, Hook, Tool, diff};
use crate::ui::Ui;

/// Refresh the fixtures before each commit, and show them in git diff
///
/// Add a marked block to git's pre-commit hook, which runs
/// `cargo xtask refresh-fixtures --staged`; the rest of an existing hook stays
/// as it is. SKIP_FIXTURES=1 git commit skips it. Let `git diff` show fixtures
/// as text, one row per line.
#[derive(clap::Args)]
pub struct Args {
    /// Remove the block and the diff driver
    #[arg(long)]
    uninstall: bool,
}

impl Args {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let settings = cx.settings()?;
        let tree = Repository::of(&cx.sh, &settings.root)?;
        let hook = Hook::find(&tree)?;
        let tool = Tool::current(&settings)?;
        let places = Places { ui: &cx.ui, tree: &tree, hook: &hook, settings: &tool.settings };
        if self.uninstall {
            places.say_hook(hook.uninstall()?);
            places.say_diff(diff::uninstall(&tree)?);
            return Ok(());
        }
        // If the hook is refused, the diff driver is installed all the same.
        let installed = hook.install(&tree, &tool);
        if let Ok(done) = &installed {
            places.say_hook(*done);
            places.say_where()?;
        }
        places.say_diff(diff::install(&tree, &tool, &settings.fixtures)?);
        installed?;
        cx.ui.hint("SKIP_FIXTURES=1 git commit skips the hook");
        Ok(())
    }
}

/// Prints what was done in which file.
struct Places<'a> {
    ui: &'a Ui,
    tree: &'a Repository<'a>,
    hook: &'a Hook,
    settings: &'a str,
}

impl Places<'_> {
    fn say_hook(&self, done: Done) {
        let path = self.shown(&self.hook.path);
        let what = match done {
            Done::Nothing => format!("nothing of ours in {path}"),
            Done::Removed if self.hook.is_there() => {
                format!("our block from {path}; the rest of it stays")
            }
            Done::Kept => format!("the pre-commit hook {path}, which is up to date"),
            _ => format!("the pre-commit hook {path}"),
        };
        self.ui.status(done.verb(), what);
    }

    fn say_diff(&self, done: Done) {
        let what = match done {
            Done::Nothing => "no git diff of fixtures as text",
            Done::Kept => "git diff of fixtures as text, which is up to date",
            _ => "git diff of fixtures as text",
        };
        self.ui.status(done.verb(), what);
    }

    /// Prints facts about the hook's location that a user may not expect.
    fn say_where(&self) -> Result<()> {
        let Hook { path, file, .. } = self.hook;
        if path != file {
            self.ui.status(
                "",
                format!("{} is a link: the file is {}", self.shown(path), self.shown(file)),
            );
        }
        if self.hook.ignored {
            let file = self.shown(file);
            self.ui.warn(format!(
                "git ignored {file}, because it was not executable; now all of it runs"
            ));
        }
        let file = file.canonicalize()?;
        let (top, common) = (self.tree.top.canonicalize()?, self.tree.common_dir()?);
        if file.starts_with(common.canonicalize()?) {
            return Ok(());
        }
        if file.starts_with(&top) {
            if !self.tree.ignores(&file) {
                self.ui.hint(format!(
                    "commit {}, so that others have the hook too",
                    self.shown(&file)
                ));
            }
        } else {
            let dir = file.parent().unwrap_or(&file).display();
            self.ui.warn(format!("the hook is for every repository that has its hooks in {dir}; in one without {} it does nothing", self.settings));
        }
        Ok(())
    }

    /// Relative to the top of the work tree, if the path is in it.
    fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.tree.top).unwrap_or(path).display().to_string()
    }
}
