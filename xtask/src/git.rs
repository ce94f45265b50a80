//! What git knows of the repository; nothing where there is no git.

pub mod checkout;
pub mod index;

use std::path::Path;

use xshell::{Shell, cmd};

/// What git sets for a hook, and what would lead another git astray.
pub const VARIABLES: [&str; 4] = ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"];

/// The commit that is checked out.
pub fn head(sh: &Shell, root: &Path) -> Option<String> {
    cmd!(sh, "git -C {root} rev-parse --verify --quiet HEAD").quiet().ignore_stderr().read().ok()
}

/// Whether a commit would take data along: `dir` lies in a work tree, and of
/// the databases called `names`, what SQLite keeps beside them and a snapshot
/// of them, something is tracked already or is not ignored.
pub fn would_commit(sh: &Shell, dir: &Path, names: &[String]) -> bool {
    let inside =
        cmd!(sh, "git -C {dir} rev-parse --is-inside-work-tree").quiet().ignore_stderr().read();
    if inside.is_err() || inside.is_ok_and(|answer| answer != "true") {
        return false;
    }
    let places = ["", "backup_2026-01-01T00-00-00-000Z/", ".xtask/staged/"];
    let files = |name: &String| {
        let beside = ["-wal", "-shm"].map(|end| format!("{name}{end}"));
        places.map(|place| format!("{place}{name}")).into_iter().chain(beside).collect::<Vec<_>>()
    };
    let probes: Vec<_> = names.iter().flat_map(files).collect();
    let probed = probes.len();
    let ignored = cmd!(sh, "git -C {dir} check-ignore -- {probes...}")
        .quiet()
        .ignore_status()
        .ignore_stderr()
        .read();
    let tracked = cmd!(sh, "git -C {dir} ls-files -- {names...}").quiet().ignore_stderr().read();
    ignored.is_ok_and(|ignored| ignored.lines().count() < probed)
        || tracked.is_ok_and(|tracked| !tracked.is_empty())
}
