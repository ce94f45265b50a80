//! Names of databases that come from another machine.

use std::collections::HashSet;

use super::is_in_snapshot;
use crate::sqlite::SIDECARS;

const MAX_DATABASES: usize = 10_000;
/// The maximum length of the name of a database, in bytes: with the path of a snapshot before it, it
/// must be a path.
const MAX_NAME: usize = 1024;

/// Checks that the names are paths of different files below a data directory, whatever the settings
/// select.
///
/// # Errors
///
/// A name is none, or two cannot be there at the same time; says why.
pub fn check_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<(), String> {
    let names: Vec<_> = names.into_iter().collect();
    if names.len() > MAX_DATABASES {
        return Err(format!("it announces more than {MAX_DATABASES} databases"));
    }
    let mut seen = HashSet::new();
    for name in &names {
        if !is_name(name) {
            return Err(format!("{name:?} is not a name for a database"));
        }
        // On macOS, names that differ only in case are one file.
        if !seen.insert(name.to_lowercase()) {
            return Err(format!("it announces {name:?} twice"));
        }
    }
    let is_directory = |name: &&&str| {
        let parents = name.match_indices('/').map(|(at, _)| name[..at].to_lowercase());
        parents.into_iter().any(|parent| seen.contains(&parent))
    };
    match names.iter().find(is_directory) {
        Some(one) => Err(format!("a directory of {one:?} is a database as well")),
        None => Ok(()),
    }
}

fn is_name(name: &str) -> bool {
    let reserved = SIDECARS.iter().chain(&[".json"]).any(|end| name.to_lowercase().ends_with(end));
    // Neither `..` nor anything hidden, such as the directory of this tool.
    let is_part = |part: &str| !part.is_empty() && part.len() <= 255 && !part.starts_with('.');
    name.split('/').all(is_part)
        && name.len() <= MAX_NAME
        && !reserved
        && !is_in_snapshot(name)
        && !name.contains('\\')
        && !name.chars().any(char::is_control)
}
