//! Programs from PyPI, which `cargo dev test` has installed into the target directory.

use std::fs;
use std::path::PathBuf;

/// The directory of the programs of `tests/<name>/requirements.txt`, whose content is `versions`.
#[track_caller]
pub fn programs(name: &str, versions: &str) -> PathBuf {
    let executable = std::env::current_exe().expect("this process has a program");
    let mut profile = executable.parent().expect("it is in a directory");
    if profile.ends_with("deps") {
        profile = profile.parent().expect("tests are in target/<profile>/deps");
    }
    let target = profile.parent().expect("programs are in target/<profile>");
    let directory = target.join(name);
    // Written by `cargo dev test` after it has installed these versions.
    let installed = fs::read_to_string(directory.join("versions")).unwrap_or_default();
    assert!(
        installed == versions,
        "{} does not have the programs of tests/{name}/: `cargo dev test` installs them",
        directory.display()
    );
    directory.join("python/bin")
}
