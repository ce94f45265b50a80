//! The lines that keep the data out of commits and of images.

use std::path::PathBuf;

use anyhow::Result;
use xshell::{Shell, cmd};

use crate::config::Settings;
use crate::context::Context;
use crate::init::FileChange;
use crate::{exposure, fs};

/// The changes of files that lack lines. Warns of databases that are in commits already.
///
/// # Errors
///
/// A file cannot be read, or the data directory cannot be made.
pub fn lines(cx: &Context, settings: &Settings, names: &[String]) -> Result<Vec<FileChange>> {
    let (sh, dir) = (&cx.sh, &settings.data_dir);
    let names: Vec<_> = names.iter().map(|name| settings.names.renames.local(name)).collect();
    // git answers only for a directory that is there.
    let is_new = !dir.exists();
    if is_new {
        fs_err::create_dir_all(dir)?;
    }
    let exposures = exposure::of(sh, settings, dir, &names);
    if is_new {
        fs_err::remove_dir(dir)?;
    }
    for command in exposures.iter().filter_map(|one| one.untrack.as_ref()) {
        cx.ui.warn(
            "git tracks a database here: a commit after a pull would include production data",
        );
        cx.ui.hint(command);
    }
    let mut missing: Vec<_> = exposures.into_iter().filter_map(|one| one.missing).collect();
    if let Some((file, line)) = built(sh, settings) {
        match missing.iter_mut().find(|(other, _)| *other == file) {
            Some((_, lines)) => lines.push(line),
            None => missing.push((file, vec![line])),
        }
    }
    let change = |(file, lines): (PathBuf, Vec<String>)| {
        let old = fs::read(&file)?.unwrap_or_default();
        let new = exposure::with_lines(old.clone(), &lines);
        Ok(FileChange { file, old, new })
    };
    missing.into_iter().map(change).collect()
}

/// The line for what Cargo builds in the crate beside the settings, if that is a workspace of its
/// own, and git does not ignore it.
fn built(sh: &Shell, settings: &Settings) -> Option<(PathBuf, String)> {
    let crate_dir = settings.file.parent()?;
    let target = crate_dir.join("target");
    let below = target.strip_prefix(&settings.root).ok()?.display().to_string();
    let manifest = fs::read(&crate_dir.join("Cargo.toml")).ok()??;
    let manifest: toml::Table = String::from_utf8_lossy(&manifest).parse().ok()?;
    if !manifest.contains_key("workspace") && !target.is_dir() {
        return None;
    }
    // The slash says that it is a directory, which need not exist yet.
    let (root, path) = (&settings.root, format!("{below}/"));
    let ignored = cmd!(sh, "git -C {root} check-ignore --quiet {path}").quiet().ignore_stderr();
    let exposed = ignored.ignore_status().output().ok()?.status.code() == Some(1);
    exposed.then(|| (settings.root.join(".gitignore"), format!("/{below}")))
}
