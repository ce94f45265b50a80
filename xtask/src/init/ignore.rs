//! The lines that keep the data out of commits and of images.

use std::path::PathBuf;

use anyhow::Result;
use xshell::Shell;

use crate::config::Settings;
use crate::init::FileChange;
use crate::{exposure, fs};

/// The changes of files that lack lines.
///
/// # Errors
///
/// A file cannot be read, or the data directory cannot be made.
pub fn lines(sh: &Shell, settings: &Settings, names: &[String]) -> Result<Vec<FileChange>> {
    let dir = &settings.data_dir;
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
    let missing = exposures.into_iter().filter_map(|one| one.missing);
    missing.map(|(file, lines)| with(file, &lines)).collect()
}

fn with(file: PathBuf, lines: &[String]) -> Result<FileChange> {
    let mut text = String::from_utf8_lossy(&fs::read(&file)?.unwrap_or_default()).into_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let added: String = lines.iter().map(|line| format!("{line}\n")).collect();
    Ok(FileChange { file, text: text + &added, added })
}
