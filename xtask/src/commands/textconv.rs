use std::path::PathBuf;

use anyhow::Result;

use crate::{Context, dump};

/// Print a SQLite database as text, for git diff
#[derive(clap::Args)]
pub struct Args {
    /// A database that no program writes to
    file: PathBuf,
}

impl Args {
    pub fn run(self, cx: &Context) -> Result<()> {
        dump::dump(&self.file, &mut cx.ui.stream())
    }
}
