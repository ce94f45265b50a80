//! Programs on the search path.

use std::path::PathBuf;

use xshell::Shell;

/// The path of a program. Directories of root are searched too, also for other users.
pub fn find(sh: &Shell, program: &str) -> Option<PathBuf> {
    let path = sh.var_os("PATH").unwrap_or_default();
    let of_root = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(of_root.into_iter().filter(|_| !rustix::process::geteuid().is_root()))
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}
