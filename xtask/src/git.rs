//! What git knows of the repository; nothing where there is no git.

use std::path::Path;

use xshell::{Shell, cmd};

/// The commit that is checked out.
pub fn head(sh: &Shell, root: &Path) -> Option<String> {
    cmd!(sh, "git -C {root} rev-parse --verify --quiet HEAD").quiet().ignore_stderr().read().ok()
}

/// Whether a commit would take the files of `dir` along: it lies in a work
/// tree, and nothing ignores it.
pub fn would_commit(sh: &Shell, dir: &Path) -> bool {
    let inside =
        cmd!(sh, "git -C {dir} rev-parse --is-inside-work-tree").quiet().ignore_stderr().read();
    // A path inside, since a directory itself is not ignored by a pattern like `data/*`.
    let probe = dir.join("a.db");
    inside.is_ok_and(|answer| answer == "true")
        && cmd!(sh, "git -C {dir} check-ignore --quiet {probe}")
            .quiet()
            .ignore_stderr()
            .run()
            .is_err()
}
