//! Finds programs that have a database open.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use xshell::Shell;

use crate::error::Failure;
use crate::ui::{Ui, escape};
use crate::{interrupt, sqlite};

/// Findings are checked again: a program that is about to end, or a child before its exec, has the
/// files open only for a moment.
const LOOKS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(70);

/// Fails if another program has one of `names` in `dir` open; with `force` it only warns.
///
/// # Errors
///
/// A file is open, or this process was asked to end.
pub fn refuse(ui: &Ui, sh: &Shell, dir: &Path, names: &[String], force: bool) -> Result<()> {
    let paths: Vec<_> =
        names.iter().map(|name| dir.join(name)).filter(|path| path.is_file()).collect();
    for (path, programs) in paths.iter().zip(persistent(sh, &paths)?) {
        if programs.is_empty() {
            continue;
        }
        let message = format!("{} is open in {}", path.display(), escape(&programs.join(", ")));
        if !force {
            return Err(Failure::new(message + "; nothing was changed")
                .hint("stop it and run the command again; --force runs it anyway, and later writes of that program are lost")
                .into());
        }
        ui.warn(format!("{message}: it keeps the old data until it restarts"));
    }
    Ok(())
}

/// For each path, the programs that keep it open.
///
/// # Errors
///
/// This process was asked to end.
pub fn persistent(sh: &Shell, paths: &[PathBuf]) -> Result<Vec<Vec<String>>> {
    let look = || -> Vec<_> {
        let found = paths.iter().zip(programs(sh, paths));
        let locked = |path: &Path| matches!(sqlite::lock_exclusive(path), Ok(None));
        found
            .map(|(path, programs)| match programs[..] {
                [] if locked(path) => vec!["another program".to_owned()],
                _ => programs,
            })
            .collect()
    };
    let mut found = look();
    for _ in 0..LOOKS {
        if found.iter().all(Vec::is_empty) {
            break;
        }
        interrupt::sleep(PAUSE)?;
        found = look();
    }
    Ok(found)
}

/// Like [`programs`], without this process, which has the files open itself.
pub fn others(sh: &Shell, paths: &[PathBuf]) -> Vec<Vec<String>> {
    let own = format!("(process {})", std::process::id());
    let mut found = programs(sh, paths);
    found.iter_mut().for_each(|programs| programs.retain(|program| !program.ends_with(&own)));
    found
}

/// For each path, the programs that have the file open, as far as this user may see them.
#[cfg(target_os = "linux")]
pub fn programs(_: &Shell, paths: &[PathBuf]) -> Vec<Vec<String>> {
    use std::os::unix::fs::MetadataExt as _;

    let identity = |path: &Path| path.metadata().ok().map(|m| (m.dev(), m.ino()));
    let targets: Vec<_> = paths.iter().map(|path| identity(path)).collect();
    // The kernel reports the target of a link.
    let real: Vec<_> = paths.iter().map(|path| path.canonicalize().unwrap_or_default()).collect();
    let mut found = vec![Vec::new(); paths.len()];
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        // Skips `self` and `thread-self`, which are links to a numbered entry.
        if process.file_name().to_string_lossy().parse::<u32>().is_err() {
            continue;
        }
        let open = std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        for fd in open {
            // The name is compared first, because a stat of every link is slow.
            let Ok(link) = std::fs::read_link(fd.path()) else { continue };
            let named: Vec<_> =
                (0..paths.len()).filter(|i| real[*i].file_name() == link.file_name()).collect();
            if named.is_empty() {
                continue;
            }
            let file = identity(&fd.path());
            // Several paths may have the same file name in different directories.
            for i in named.into_iter().filter(|i| file.is_some() && targets[*i] == file) {
                let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                let program =
                    format!("{} (process {})", name.trim(), process.file_name().to_string_lossy());
                if !found[i].contains(&program) {
                    found[i].push(program);
                }
            }
        }
    }
    found
}

/// Whether a program may have the file open that this user cannot see: one of another user, in a
/// container or as the owner of the file.
#[cfg(target_os = "linux")]
pub fn may_be_hidden(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;

    let own = rustix::process::geteuid().as_raw();
    let owner = path.metadata().map(|file| file.uid()).unwrap_or(own);
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.into_iter().any(|process| {
        let Err(error) = std::fs::read_dir(process.path().join("fd")) else { return false };
        let status = std::fs::read_to_string(process.path().join("status")).unwrap_or_default();
        let numbers = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
            line.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u32>>()
        };
        // The second of the user ids is the effective one; a process of a container has an id in
        // there, too.
        let user = numbers("Uid:").get(1).copied().unwrap_or(own);
        error.kind() == std::io::ErrorKind::PermissionDenied
            && user != own
            && (user == owner || numbers("NSpid:").len() > 1)
    })
}

/// `lsof` asks the whole system; containers are in a virtual machine, whose locks count.
#[cfg(not(target_os = "linux"))]
pub fn may_be_hidden(_: &Path) -> bool {
    false
}

/// As on Linux.
#[cfg(not(target_os = "linux"))]
pub fn programs(sh: &Shell, paths: &[PathBuf]) -> Vec<Vec<String>> {
    programs_by_lsof(sh, paths)
}

/// On macOS `lsof` prints lines `p<pid>`, `c<command>`, and `n<path>` for each file.
#[cfg(any(not(target_os = "linux"), test))]
fn programs_by_lsof(sh: &Shell, paths: &[PathBuf]) -> Vec<Vec<String>> {
    let real: Vec<_> =
        paths.iter().map(|path| path.canonicalize().unwrap_or_else(|_| path.clone())).collect();
    let files = &real;
    let listed = xshell::cmd!(sh, "lsof -F pcn -- {files...}");
    let text = listed.quiet().ignore_status().ignore_stderr().read().unwrap_or_default();
    let (mut pid, mut command) = ("", "");
    let mut found = vec![Vec::new(); paths.len()];
    for line in text.lines() {
        match line.split_at_checked(1) {
            Some(("p", id)) => pid = id,
            Some(("c", name)) => command = name,
            Some(("n", file)) => {
                let program = format!("{command} (process {pid})");
                for i in (0..real.len()).filter(|i| real[*i] == Path::new(file)) {
                    if !found[i].contains(&program) {
                        found[i].push(program.clone());
                    }
                }
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::process::{Command, Stdio};

    use super::*;

    /// As macOS finds them, also where this is Linux.
    #[test]
    fn lsof_names_each_program_that_has_a_file_open() {
        let dir = tempfile::tempdir().unwrap();
        let [open, closed] = ["it's open.db", "closed.db"].map(|name| dir.path().join(name));
        std::fs::write(&closed, "").unwrap();
        let held = File::create(&open).unwrap();
        let sh = Shell::new().unwrap();
        let start = |mut cat: Command| cat.stdin(Stdio::piped()).stdout(held).spawn().unwrap();
        let mut cat = start(xshell::cmd!(sh, "cat").into());
        let link = dir.path().join("link.db");
        std::os::unix::fs::symlink(&open, &link).unwrap();
        let found = programs_by_lsof(&sh, &[open, closed, link]);
        drop(cat.stdin.take());
        cat.wait().unwrap();
        let program = format!("cat (process {})", cat.id());
        assert_eq!(found, [vec![program.clone()], Vec::new(), vec![program]]);
    }
}
