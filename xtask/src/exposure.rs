//! Whether a commit or a Docker image would contain the data of a directory.

use std::path::{Path, PathBuf};

use xshell::Shell;

use crate::config::Settings;
use crate::ui::from_root;
use crate::{dockerignore, git};

/// What would contain the data.
pub struct Exposure {
    pub message: String,
    pub hints: Vec<String>,
    /// The ignore file and the lines to add to it, if there are any.
    pub missing: Option<(PathBuf, Vec<String>)>,
    /// The command that takes databases out of git.
    pub untrack: Option<String>,
}

/// What would contain the databases `live` of a directory. Before the first pull, example names
/// are made from the patterns.
pub fn of(sh: &Shell, settings: &Settings, dir: &Path, live: &[String]) -> Vec<Exposure> {
    of_docker(settings, dir).into_iter().chain(of_git(sh, settings, dir, live)).collect()
}

/// The content of an ignore file with more lines.
pub fn with_lines(mut content: Vec<u8>, lines: &[String]) -> Vec<u8> {
    if !content.is_empty() && !content.ends_with(b"\n") {
        content.push(b'\n');
    }
    lines.iter().for_each(|line| content.extend(format!("{line}\n").as_bytes()));
    content
}

fn of_docker(settings: &Settings, dir: &Path) -> Option<Exposure> {
    let line = dockerignore::missing_line(&settings.root, dir)?;
    Some(Exposure {
        message: "a Docker image that is built here could contain production data".to_owned(),
        hints: vec![format!("add a line to .dockerignore: {line}")],
        missing: Some((settings.root.join(".dockerignore"), vec![line])),
        untrack: None,
    })
}

fn of_git(sh: &Shell, settings: &Settings, dir: &Path, live: &[String]) -> Option<Exposure> {
    let include = settings.names.include.iter();
    // As the files are called here.
    let include: Vec<_> = include.map(|one| settings.names.renames.local(one.as_str())).collect();
    let include: Vec<_> = include.iter().map(String::as_str).collect();
    let examples = include.iter().map(|pattern| pattern.replace(['*', '?'], "a"));
    let names: Vec<_> = live.iter().cloned().chain(examples).collect();
    let git::exposure::Exposure { tracked, unignored, file, lines } =
        git::exposure::of(sh, dir, &names, &include)?;
    let shown = from_root(&settings.root, &file);
    let hint = match &lines[..] {
        [] => format!("git check-ignore -v shows which line of {shown} prevents that"),
        [line] => format!("add a line to {shown}: {line}"),
        lines => format!("add these lines to {shown}:\n{}", lines.join("\n")),
    };
    let mut hints: Vec<_> = unignored.then_some(hint).into_iter().collect();
    let untrack = (!tracked.is_empty()).then(|| {
        let paths = tracked.iter().map(|name| dir.join(name).display().to_string());
        let words =
            paths.take(3).filter_map(|path| Some(shlex::try_quote(&path).ok()?.into_owned()));
        format!("git rm --cached {}", words.collect::<Vec<_>>().join(" "))
    });
    hints.extend(untrack.clone());
    Some(Exposure {
        message: format!(
            "git does not ignore all of {}: a commit could include production data",
            dir.display()
        ),
        hints,
        missing: (unignored && !lines.is_empty()).then_some((file, lines)),
        untrack,
    })
}
