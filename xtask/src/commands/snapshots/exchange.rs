use std::path::{Path, PathBuf};

use anyhow::Result;
use clap_complete::engine::ArgValueCompleter;
use serde::Serialize;

use crate::completion;
use crate::config::Settings;
use crate::context::Context;
use crate::error::Failure;
use crate::live::LockedLiveSet;
use crate::share::{file, portable};
use crate::snapshots::{Meta, Snapshot, Store, has_same_content};
use crate::ui::{bytes, count};

#[derive(clap::Args)]
pub struct ExportArgs {
    /// The snapshot with this name, or with a name that begins or ends like this
    #[arg(add = ArgValueCompleter::new(completion::snapshots))]
    name: String,
    /// The file to write, such as today.tar.zst
    file: PathBuf,
    /// Export also databases that were not masked
    #[arg(long)]
    unsanitized: bool,
}

#[derive(clap::Args)]
pub struct ImportArgs {
    file: PathBuf,
    /// Import also databases that were not masked
    #[arg(long)]
    unsanitized: bool,
}

/// Printed with `--json` by both.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "snapshots-export"))]
pub struct Report<'a> {
    snapshot: &'a str,
    file: String,
    databases: usize,
    /// The size of the databases.
    bytes: u64,
}

impl ExportArgs {
    pub fn run(self, cx: &Context, settings: &Settings) -> Result<()> {
        let snapshot = Store::of(settings).find(&self.name)?;
        let meta = portable::meta(&snapshot)?;
        if !self.unsanitized {
            portable::refuse_unmasked(
                &portable::unmasked(&meta, &settings.rules),
                &snapshot.name,
                "--unsanitized",
            )?;
        }
        refuse_others(&self.file)?;
        if self.file.exists() {
            cx.ui.confirm(&format!("Replace {}?", self.file.display()))?;
        }
        let step = cx.ui.step("Exporting", Some("Exported"), &snapshot.name);
        let written = file::export(&snapshot, &meta, &self.file)?;
        step.finish();
        let to = self.file.display();
        let databases = count(meta.databases.len(), "database");
        let size = bytes(written);
        cx.ui.status("Wrote", format!("{to}: {databases}, {size} for {}", bytes(snapshot.bytes())));
        report(cx, &snapshot, &meta, &self.file)
    }
}

impl ImportArgs {
    pub fn run(self, cx: &Context, settings: &Settings, live: &LockedLiveSet<'_>) -> Result<()> {
        let mut archive = file::open(&self.file)?;
        let import = file::Import::new(&mut archive, &self.file)?;
        if !self.unsanitized {
            let unmasked = portable::unmasked(&import.meta, &settings.rules);
            portable::refuse_unmasked(
                &unmasked,
                &self.file.display().to_string(),
                "--unsanitized",
            )?;
        }
        let meta = import.meta.clone();
        let known = live.store.list()?.into_iter().find(|one| has_same_content(one, &meta));
        let snapshot = match known {
            Some(known) => {
                cx.ui.status("Already", format!("here as {}", known.name));
                known
            }
            None => {
                let step = cx.ui.step("Importing", Some("Read"), self.file.display());
                let snapshot = import.receive(&live.store)?;
                step.finish();
                let databases = count(meta.databases.len(), "database");
                cx.ui.status("Imported", format!("{} ({databases})", snapshot.name));
                snapshot
            }
        };
        cx.ui.hint(format!("cargo xtask restore-db {}", snapshot.name));
        report(cx, &snapshot, &meta, &self.file)
    }
}

/// Refuses a file that an export must not replace: a device such as `/dev/stdout`, or a database.
fn refuse_others(file: &Path) -> Result<()> {
    let why = if !file.exists() {
        return Ok(());
    } else if !file.is_file() {
        "is no regular file"
    } else if file::may_replace(file)? {
        return Ok(());
    } else {
        "was not written by an export"
    };
    Err(Failure::usage(format!("{} {why}", file.display()))
        .hint("name a new file, such as today.tar.zst")
        .into())
}

fn report(cx: &Context, snapshot: &Snapshot, meta: &Meta, file: &Path) -> Result<()> {
    if !cx.ui.json {
        return Ok(());
    }
    cx.ui.json(&Report {
        snapshot: &snapshot.name,
        file: file.display().to_string(),
        databases: meta.databases.len(),
        bytes: meta.databases.iter().map(|one| one.bytes).sum(),
    })
}
