//! The files of a repository that somebody has written: those that others wrote are left out.

use std::fs;
use std::path::Path;

/// Directories of packages and of what is built.
const NOT_WRITTEN_HERE: [&str; 8] =
    ["build", "dist", "node_modules", "site-packages", "target", "tmp", "vendor", "venv"];
/// A settings file is not larger, in bytes.
const LARGEST: u64 = 1 << 18;

/// The names of all files in `root` and in `depth` levels of directories below it, sorted, those of
/// the root first.
pub fn below(root: &Path, depth: usize) -> Vec<String> {
    let mut names = Vec::new();
    collect(root, "", depth, &mut names);
    names.sort_by_key(|name| (name.matches('/').count(), name.clone()));
    names
}

fn collect(root: &Path, prefix: &str, depth: usize, names: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(root.join(prefix)) else { return };
    for entry in entries.flatten() {
        let (Ok(name), Ok(kind)) = (entry.file_name().into_string(), entry.file_type()) else {
            continue;
        };
        let path = format!("{prefix}{name}");
        if kind.is_file() {
            names.push(path);
        } else if kind.is_dir()
            && depth > 0
            && !name.starts_with('.')
            && !NOT_WRITTEN_HERE.contains(&&*name)
        {
            collect(root, &format!("{path}/"), depth - 1, names);
        }
    }
}

/// The text of a file, if it is one.
pub fn read(root: &Path, name: &str) -> Option<String> {
    let path = root.join(name);
    let small = fs::metadata(&path).is_ok_and(|found| found.len() <= LARGEST);
    small.then(|| fs::read_to_string(path).ok()).flatten()
}
