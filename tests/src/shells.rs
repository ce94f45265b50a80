//! Directories for a server's PATH, with only the programs that images of production machines have.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::process::command;

/// Writes the script of a pull to a file, in the order of `SCRIPT` in
/// `xtask/src/server/request.rs`.
pub fn pull_script(directory: &Path) -> PathBuf {
    let parts = [
        "request.sh",
        "unchanged.sh",
        "facts.sh",
        "cores.sh",
        "audit.sh",
        "compare.sh",
        "pack.sh",
        "survey.sh",
        "plan.sh",
        "scrub.sh",
        "leak-check.sh",
        "sanitize.sh",
        "find.sh",
        "copy.sh",
        "prepare-pull.sh",
    ]
    .map(|part| {
        let path = format!("{}/../ops-remote/{part}", env!("CARGO_MANIFEST_DIR"));
        fs::read_to_string(path).expect("read the script")
    });
    let script = directory.join("pull.sh");
    fs::write(&script, parts.concat()).expect("write the script");
    script
}

/// Like a Debian image: dash, coreutils and all programs of this machine except `without`.
pub fn debian(directory: &Path, without: &[&str]) -> PathBuf {
    let bin = directory.join("debian-bin");
    fs::create_dir(&bin).expect("make a bin directory");
    link(&find("dash"), &bin.join("sh"));
    for entry in path().iter().flat_map(fs::read_dir).flatten() {
        let entry = entry.expect("read a bin directory");
        let hidden = without.iter().any(|name| entry.file_name() == OsStr::new(name));
        if !hidden && !bin.join(entry.file_name()).exists() {
            link(&entry.path(), &bin.join(entry.file_name()));
        }
    }
    bin
}

/// Like an Alpine image: busybox for everything, and the programs `with`, such as `sqlite3` and
/// `zstd`.
pub fn busybox(directory: &Path, with: &[&str]) -> PathBuf {
    let bin = directory.join("busybox-bin");
    fs::create_dir(&bin).expect("make a bin directory");
    let busybox = find("busybox");
    let applets = command(&busybox).arg("--list").output().expect("busybox runs");
    for applet in String::from_utf8_lossy(&applets.stdout).lines() {
        link(&busybox, &bin.join(applet));
    }
    for program in with {
        link(&find(program), &bin.join(program));
    }
    bin
}

/// Writes a script, such as one that always fails. Put its directory before others in a PATH.
pub fn script(directory: &Path, name: &str, body: &str) {
    use std::os::unix::fs::PermissionsExt as _;

    fs::create_dir_all(directory).expect("make a bin directory");
    let path = directory.join(name);
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("write a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod a script");
}

/// The directories of this machine's programs. A shorter PATH would hide programs from all servers
/// and developers of the tests.
pub fn path() -> Vec<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect()
}

/// The path of a program on this machine.
pub fn find(program: &str) -> PathBuf {
    path()
        .into_iter()
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("{program} is not installed"))
}

/// Links to the program itself, not to a link: busybox depends on its own name. Two directories may
/// be the same, as /bin and /usr/bin often are.
pub(crate) fn link(target: &Path, link: &Path) {
    if link.symlink_metadata().is_err() {
        symlink(target, link).unwrap_or_else(|error| panic!("link {}: {error}", link.display()));
    }
}
