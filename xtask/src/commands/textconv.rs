use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::Result;

use crate::context::Context;
use crate::error::has_io;
use crate::sqlite::dump;

/// Print a SQLite database as text, for git diff
#[derive(clap::Args)]
pub struct Args {
    /// A database that no program writes to
    file: PathBuf,
}

impl Args {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        match dump::dump(&self.file, &mut cx.ui.stream()) {
            // The reader, such as a pager, may end early.
            Err(error) if has_io(&error, ErrorKind::BrokenPipe) => Ok(()),
            dumped => dumped,
        }
    }
}
