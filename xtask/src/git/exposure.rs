//! What a commit would take along of a data directory, and what to do about it.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use xshell::{Shell, cmd};

/// A data directory in a work tree that a commit would take data from.
pub struct Exposure {
    /// The databases that are tracked.
    pub tracked: Vec<String>,
    /// Whether something is neither tracked nor ignored.
    pub unignored: bool,
    /// The `.gitignore` at the top of the work tree.
    pub file: PathBuf,
    /// Lines for it that ignore everything; empty where none do.
    pub lines: Vec<String>,
}

/// What a commit would take of `dir`: of the databases called `names`, what SQLite keeps
/// beside them and a snapshot of them. None where it lies in no work tree, or all is
/// ignored. `include` are the patterns of such names.
pub fn of(sh: &Shell, dir: &Path, names: &[String], include: &[&str]) -> Option<Exposure> {
    let read = |command: xshell::Cmd<'_>| command.quiet().ignore_stderr().read().ok();
    // A prefix is empty at the top, and else ends with a slash.
    let asked = read(cmd!(sh, "git -C {dir} rev-parse --show-prefix --show-toplevel"))?;
    let (prefix, top) = asked.split_once('\n')?;
    let listed = read(cmd!(sh, "git -C {dir} ls-files -z"))?;
    let is_live = |file: &&str| names.iter().any(|name| name == file);
    let (tracked, code): (Vec<_>, Vec<_>) = listed.split_terminator('\0').partition(is_live);
    let tracked: Vec<_> = tracked.into_iter().map(str::to_owned).collect();
    let unignored = !ignores(sh, dir, names, None);
    if tracked.is_empty() && !unignored {
        return None;
    }
    // A directory with code may not be ignored as a whole.
    let is_data = !prefix.is_empty() && code.iter().all(|file| file.starts_with(".git"));
    let whole = is_data.then(|| vec![format!("/{}", literal(prefix.trim_end_matches('/')))]);
    let candidates = whole.into_iter().chain([each(prefix, include)]);
    let confirmed = |lines: &Vec<String>| ignores(sh, dir, names, Some(lines));
    let lines = candidates.into_iter().find(confirmed).unwrap_or_default();
    Some(Exposure { tracked, unignored, file: Path::new(top).join(".gitignore"), lines })
}

/// A line for each kind of thing that is ours.
fn each(prefix: &str, include: &[&str]) -> Vec<String> {
    let prefix = literal(prefix);
    let ours = ["backup_*/", ".xtask/"].map(str::to_owned);
    let databases = include.iter().map(|pattern| format!("{pattern}*"));
    databases.chain(ours).map(|line| format!("/{prefix}{line}")).collect()
}

/// A path as a pattern that matches nothing else.
fn literal(path: &str) -> String {
    let special = |c: char| if "*?[\\ ".contains(c) { format!("\\{c}") } else { c.to_string() };
    path.chars().map(special).collect()
}

/// A file that git takes for one of ignored names.
fn excluding(lines: &[String]) -> Result<tempfile::NamedTempFile> {
    let mut excludes = tempfile::NamedTempFile::new()?;
    excludes.write_all(lines.join("\n").as_bytes())?;
    Ok(excludes)
}

/// Whether git ignores all of it, or would with these `lines`; nothing is written for that.
fn ignores(sh: &Shell, dir: &Path, names: &[String], lines: Option<&Vec<String>>) -> bool {
    let places = ["", "backup_2026-01-01T00-00-00-000Z/", ".xtask/staged/"];
    let files = |name: &String| {
        let beside = ["-wal", "-shm"].map(|end| format!("{name}{end}"));
        places.map(|place| format!("{place}{name}")).into_iter().chain(beside).collect::<Vec<_>>()
    };
    let probes: Vec<_> = names.iter().flat_map(files).collect();
    let ignored = || -> Result<usize> {
        let excludes = lines.map(|lines| excluding(lines)).transpose()?;
        let path = excludes.iter().filter_map(|file| file.path().to_str());
        let options = path.flat_map(|path| ["-c".to_owned(), format!("core.excludesFile={path}")]);
        // What is tracked may be ignored by the time that it is no longer. As input: a large
        // set would not fit into a command line.
        let ignored = cmd!(sh, "git -C {dir} {options...} check-ignore --no-index --stdin -z")
            .stdin(probes.join("\0"))
            .quiet()
            .ignore_status()
            .ignore_stderr()
            .read()?;
        Ok(ignored.split_terminator('\0').count())
    };
    // Where git does not say, nothing is said of it.
    ignored().is_ok_and(|ignored| ignored >= probes.len())
}
