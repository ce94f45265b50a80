use anyhow::Result;

use crate::Context;

/// Placeholder
#[derive(clap::Args)]
pub struct Args {}

impl Args {
    pub fn run(self, _: &Context) -> Result<()> {
        Ok(())
    }
}
