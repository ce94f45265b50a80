use std::io;
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
        let dumped = dump::dump(&self.file, &mut cx.ui.stream());
        // Whoever reads it may have seen enough.
        let is_closed = |error: &anyhow::Error| {
            let cause = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
            cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
        };
        dumped.or_else(|error| if is_closed(&error) { Ok(()) } else { Err(error) })
    }
}
