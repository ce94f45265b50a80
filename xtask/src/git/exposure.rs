//! The files of a data directory that a commit would contain, and how to prevent that.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use xshell::{Shell, cmd};

/// A data directory in a work tree whose data a commit would contain.
pub struct Exposure {
    /// The databases that are tracked.
    pub tracked: Vec<String>,
    /// Whether a file is neither tracked nor ignored.
    pub unignored: bool,
    /// The `.gitignore` at the top of the work tree.
    pub file: PathBuf,
    /// Lines for it that ignore the whole data directory; empty if no lines can.
    pub lines: Vec<String>,
}

/// The exposure of `dir` with the databases `names`, their sidecars and a snapshot of them. `None`
/// if it is in no work tree, or all files are ignored. `include` are the patterns of the names.
pub fn of(sh: &Shell, dir: &Path, names: &[String], include: &[&str]) -> Option<Exposure> {
    let read = |command: xshell::Cmd<'_>| command.quiet().ignore_stderr().read().ok();
    // The directory need not exist: git runs in the nearest one that does.
    let base = dir.ancestors().find(|dir| dir.is_dir())?;
    let mut below = dir.strip_prefix(base).ok()?.to_str()?.to_owned();
    if !below.is_empty() {
        below.push('/');
    }
    // The prefix is empty at the top of the work tree; else it ends with a slash.
    let asked = read(cmd!(sh, "git -C {base} rev-parse --show-prefix --show-toplevel"))?;
    let (prefix, top) = asked.split_once('\n')?;
    let prefix = &format!("{prefix}{below}");
    let listed = match below.is_empty() {
        true => read(cmd!(sh, "git -C {base} ls-files -z"))?,
        false => String::new(),
    };
    let ignores = |lines: Option<&Vec<String>>| ignores(sh, base, &below, names, lines);
    let is_live = |file: &&str| names.iter().any(|name| name == file);
    let (tracked, code): (Vec<_>, Vec<_>) = listed.split_terminator('\0').partition(is_live);
    let tracked: Vec<_> = tracked.into_iter().map(str::to_owned).collect();
    let unignored = !ignores(None);
    if tracked.is_empty() && !unignored {
        return None;
    }
    // A directory that contains code must not be ignored as a whole.
    let is_data = !prefix.is_empty() && code.iter().all(|file| file.starts_with(".git"));
    let whole = is_data.then(|| vec![format!("/{}", literal(prefix.trim_end_matches('/')))]);
    let candidates = whole.into_iter().chain([each(prefix, include)]);
    let confirmed = |lines: &Vec<String>| ignores(Some(lines));
    let lines = candidates.into_iter().find(confirmed).unwrap_or_default();
    Some(Exposure { tracked, unignored, file: Path::new(top).join(".gitignore"), lines })
}

/// A line for each kind of file in a data directory.
fn each(prefix: &str, include: &[&str]) -> Vec<String> {
    let prefix = literal(prefix);
    let ours = ["backup_*/", ".xtask/"].map(str::to_owned);
    let databases = include.iter().map(|pattern| format!("{pattern}*"));
    databases.chain(ours).map(|line| format!("/{prefix}{line}")).collect()
}

/// A pattern that matches only this path.
fn literal(path: &str) -> String {
    let special = |c: char| if "*?[\\ ".contains(c) { format!("\\{c}") } else { c.to_string() };
    path.chars().map(special).collect()
}

/// A temporary file for git's `core.excludesFile`.
fn excluding(lines: &[String]) -> Result<tempfile::NamedTempFile> {
    let mut excludes = tempfile::NamedTempFile::new()?;
    excludes.write_all(lines.join("\n").as_bytes())?;
    Ok(excludes)
}

/// Whether git ignores all files of the set in `below`, a directory in `dir`, or would with these
/// `lines`; writes no `.gitignore`.
fn ignores(
    sh: &Shell,
    dir: &Path,
    below: &str,
    names: &[String],
    lines: Option<&Vec<String>>,
) -> bool {
    let places = ["", "backup_2026-01-01T00-00-00-000Z/", ".xtask/staged/"];
    let files = |name: &String| {
        let beside = ["-wal", "-shm"].map(|end| format!("{below}{name}{end}"));
        places
            .map(|place| format!("{below}{place}{name}"))
            .into_iter()
            .chain(beside)
            .collect::<Vec<_>>()
    };
    let probes: Vec<_> = names.iter().flat_map(files).collect();
    let ignored = || -> Result<usize> {
        let excludes = lines.map(|lines| excluding(lines)).transpose()?;
        let path = excludes.iter().filter_map(|file| file.path().to_str());
        let options = path.flat_map(|path| ["-c".to_owned(), format!("core.excludesFile={path}")]);
        // A tracked file counts as ignored if it would be once it is untracked. The names go to
        // standard input: those of a large set do not fit into a command line.
        let ignored = cmd!(sh, "git -C {dir} {options...} check-ignore --no-index --stdin -z")
            .stdin(probes.join("\0"))
            .quiet()
            .ignore_status()
            .ignore_stderr()
            .read()?;
        Ok(ignored.split_terminator('\0').count())
    };
    // If git fails, nothing counts as ignored.
    ignored().is_ok_and(|ignored| ignored >= probes.len())
}
