use anyhow::Result;
use xshell::cmd;
use xtask_db::internals::interrupt;

use crate::Context;
use crate::install::{self, SQLITE3, SSH, SSHD, ZSTD};

/// Record a pull, the picker and --undo on a terminal for README
///
/// Write docs/recording.svg: an end-to-end test runs the commands, and without this command
/// compares the words on the screens with the file.
#[derive(clap::Args)]
pub struct Args {}

impl Args {
    #[expect(clippy::unused_self, reason = "as of the other commands")]
    pub fn run(self, cx: &Context) -> Result<()> {
        let sh = &cx.sh;
        install::ensure(&cx.ui, sh, &[SQLITE3, ZSTD, SSH, SSHD])?;
        let _update = sh.push_env("UPDATE_RECORDING", "1");
        interrupt::run(cmd!(
            sh,
            "cargo test --quiet --locked --profile xtask --package tests --test end-to-end -- recording::"
        ))?;
        cx.ui.status("Recorded", "docs/recording.svg");
        Ok(())
    }
}
