//! Lets `git diff` show fixtures as text: a diff driver in the repository's configuration, and
//! attributes of the files that use it.

use std::collections::BTreeSet;

use anyhow::Result;
use xshell::cmd;

use super::{Done, Tool, block, follow, place, quoted};
use crate::config::Fixture;
use crate::fs;
use crate::git::Repository;

const SECTION: &str = "diff.xtask-sqlite";
/// Matches the line with the table's name, which git shows above a hunk: see `dump.rs`.
const HEADINGS: &str = "^(-- .*)$";

/// The command that git runs with the path of a file, from the top of the work tree. The checkout
/// may lack xtask, or have an old one: a failure would end the whole diff, so the command then
/// prints one line.
const TEXTCONV: &str = r#"f() { case $1 in /*) ;; *) set -- "$PWD/$1" ;; esac; PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin; { cd ./ && [ -f SETTINGS ] && COMMAND textconv -- "$1"; } 2>/dev/null || echo "COMMAND textconv cannot show blob $(git hash-object --no-filters -- "$1")"; }; f"#;

/// Configures the driver for these fixtures, and for later ones beside them.
///
/// # Errors
///
/// git's configuration or `info/attributes` cannot be read or written.
pub fn install(tree: &Repository<'_>, tool: &Tool, fixtures: &[Fixture]) -> Result<Done> {
    let patterns: BTreeSet<_> = fixtures.iter().map(|one| siblings(&one.path)).collect();
    let dir = quoted(format!("./{}", tree.prefix).as_ref())?;
    let textconv = TEXTCONV
        .replace("cd ./", &format!("cd {dir}"))
        .replace("SETTINGS", &quoted(tool.settings.as_ref())?)
        .replace("COMMAND", tool.command);
    let mut configured = [Done::Kept; 2];
    for (done, (key, value)) in
        configured.iter_mut().zip([("textconv", &*textconv), ("xfuncname", HEADINGS)])
    {
        *done = configure(tree, key, value)?;
    }
    let lines: String = patterns.iter().map(|pattern| line(&tree.prefix, pattern)).collect();
    let (start, end) = (block::START, block::END);
    let lines = format!("{start}\n{lines}{end}\n");

    let file = follow(&tree.git_path("info/attributes")?)?;
    let content = fs::read(&file)?.unwrap_or_default();
    // Before the user's lines, which then take precedence.
    let new = block::put(&content, place(&content, &file)?, 0, &lines);
    let written = match () {
        () if new == content => Done::Kept,
        () if place(&content, &file)?.is_some() => Done::Updated,
        () => Done::Installed,
    };
    if written != Done::Kept {
        fs::write_shared(&file, &new, false)?;
    }
    let all = [configured[0], configured[1], written];
    Ok(match () {
        () if all.iter().all(|done| *done == Done::Kept) => Done::Kept,
        () if all.iter().all(|done| *done == Done::Installed) => Done::Installed,
        () => Done::Updated,
    })
}

/// Removes the driver and its attributes.
pub fn uninstall(tree: &Repository<'_>) -> Result<Done> {
    let mut done = Done::Nothing;
    if value(tree, "textconv").is_some() || value(tree, "xfuncname").is_some() {
        let Repository { sh, top, .. } = tree;
        cmd!(sh, "git -C {top} config --local --remove-section {SECTION}").quiet().run()?;
        done = Done::Removed;
    }
    let file = follow(&tree.git_path("info/attributes")?)?;
    let content = fs::read(&file)?.unwrap_or_default();
    if let Some(place) = place(&content, &file)? {
        let rest = block::remove(&content, place);
        if rest.is_empty() {
            fs::remove(&file)?;
        } else {
            fs::write_shared(&file, &rest, false)?;
        }
        done = Done::Removed;
    }
    Ok(done)
}

fn value(tree: &Repository<'_>, key: &str) -> Option<String> {
    let Repository { sh, top, .. } = tree;
    cmd!(sh, "git -C {top} config --local --get {SECTION}.{key}")
        .quiet()
        .ignore_stderr()
        .read()
        .ok()
}

fn configure(tree: &Repository<'_>, key: &str, wanted: &str) -> Result<Done> {
    let old = value(tree, key);
    if old.as_deref() == Some(wanted) {
        return Ok(Done::Kept);
    }
    let Repository { sh, top, .. } = tree;
    cmd!(sh, "git -C {top} config --local --replace-all {SECTION}.{key} {wanted}").quiet().run()?;
    Ok(if old.is_some() { Done::Updated } else { Done::Installed })
}

/// A line of gitattributes for a pattern relative to the directory `prefix`. The leading slash
/// anchors it, and keeps its first character from having a special meaning.
fn line(prefix: &str, pattern: &str) -> String {
    let path = format!("/{}{pattern}", literal(prefix));
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '"';
    let path = if path.chars().all(plain) { path } else { c_quoted(&path) };
    format!("{path} diff={}\n", &SECTION["diff.".len()..])
}

/// A pattern for a fixture and for later ones in the same directory, relative to the root.
fn siblings(path: &str) -> String {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let slash = if dir.is_empty() { "" } else { "/" };
    match name.rsplit_once('.') {
        Some((_, end)) => format!("{}{slash}*.{}", literal(dir), literal(end)),
        None => literal(path),
    }
}

/// A pattern that matches only this path.
fn literal(path: &str) -> String {
    let mut out = String::new();
    for c in path.chars() {
        if matches!(c, '*' | '?' | '[' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// The text as git quotes it, if it contains special characters.
fn c_quoted(text: &str) -> String {
    let mut out = "\"".to_owned();
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_ascii_control() => out += &format!("\\{:03o}", u32::from(c)),
            c => out.push(c),
        }
    }
    out + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_written_as_git_reads_them() {
        for (prefix, pattern, wanted) in [
            ("", "tests/*.db", "/tests/*.db"),
            ("", "!a.db", "/!a.db"),
            ("[x]*/", "*.db", "/\\[x]\\*/*.db"),
            ("a b/", "#c.db", "\"/a b/#c.db\""),
            ("a\\b \"c\"/", "\t.db", "\"/a\\\\\\\\b \\\"c\\\"/\\011.db\""),
        ] {
            assert_eq!(line(prefix, pattern), format!("{wanted} diff=xtask-sqlite\n"));
        }
    }
}
