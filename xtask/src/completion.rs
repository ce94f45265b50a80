//! Answers to the shell's TAB, for the script that `cargo xtask completions` prints. Nothing is
//! connected, written or said on standard error; an error is no answer.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use clap_complete::engine::{CompletionCandidate, PathCompleter, ValueCompleter as _, complete};

use crate::config::Settings;
use crate::moment;
use crate::snapshots::{Snapshot, Store, short_name};
use crate::ui::{Ui, escape};
use crate::{diff, live};

/// The first argument at TAB. No command has this name: a program of an earlier version fails.
const ASKED: &str = "__complete";

/// The words of the command line after the alias, the last one up to the cursor.
static WORDS: OnceLock<Vec<OsString>> = OnceLock::new();

/// Answers the shell's TAB, if that is what this program was started for, and returns whether it
/// was. `command` is the command line that is completed.
#[must_use]
pub fn answer(command: impl FnOnce() -> clap::Command) -> bool {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_none_or(|word| word != ASKED) {
        return false;
    }
    let is_line = args.next().is_some_and(|how| how == "line");
    let (words, quote) = match is_line {
        true => args.next().and_then(|line| split(line.to_str()?)).unwrap_or_default(),
        false => (args.collect(), None),
    };
    let words = WORDS.get_or_init(|| after_alias(words));
    let Some(typed) = words.last().and_then(|word| word.to_str()) else { return true };
    let args = [OsString::from("xtask")].into_iter().chain(words.iter().cloned()).collect();
    let here = std::env::current_dir().ok();
    let mut found =
        complete(&mut command(), args, words.len(), here.as_deref()).unwrap_or_default();
    // Without a dash, flags are completed only where nothing else is.
    let is_flag = |it: &CompletionCandidate| it.get_value().as_encoded_bytes().starts_with(b"-");
    found.retain(|it| !it.is_hide_set());
    let has_others = found.iter().any(|it| !is_flag(it));
    let lines = found.iter().filter(|it| !(has_others && is_flag(it))).filter_map(|candidate| {
        let value = candidate.get_value().to_str().filter(|value| is_harmless(value))?;
        let value = if is_line { for_readline(value, typed, quote)? } else { value.to_owned() };
        let help = candidate.get_help().map(ToString::to_string).unwrap_or_default();
        Some(format!("{value}\t{}\n", escape(help.lines().next().unwrap_or_default())))
    });
    let ui = Ui::new(true, false, false, false);
    // The shell may not wait for the answer.
    let _ = ui.stream().write_all(lines.collect::<String>().as_bytes());
    true
}

/// The words of a line of bash, and the quote in which it ends.
fn split(line: &str) -> Option<(Vec<OsString>, Option<char>)> {
    let ends = [None, Some('\''), Some('"')];
    let (mut words, quote) = ends.into_iter().find_map(|quote| {
        // The letter makes a word also of nothing after a blank.
        let whole = format!("{line}x{}", quote.map(String::from).unwrap_or_default());
        Some((shlex::split(&whole)?, quote))
    })?;
    words.last_mut()?.pop();
    Some((words.into_iter().map(OsString::from).collect(), quote))
}

/// What follows `cargo`, its own flags and the alias.
fn after_alias(words: Vec<OsString>) -> Vec<OsString> {
    let is_flag = |word: &OsString| {
        word.as_encoded_bytes().first().is_some_and(|first| b"-+".contains(first))
    };
    words.into_iter().skip(1).skip_while(is_flag).skip(1).collect()
}

/// Whether it is text of one line, so that it cannot end a line of the answer.
fn is_harmless(text: &str) -> bool {
    !text.is_empty() && !text.contains(['\n', '\t']) && escape(text) == text
}

/// What bash inserts for the last part of what was typed, quoted; `None` if the open quote cannot
/// contain it.
fn for_readline(value: &str, typed: &str, quote: Option<char>) -> Option<String> {
    // Bash completes the part after the last of these.
    let breaks = if quote.is_none() || typed.starts_with('-') { "=:@" } else { "" };
    let start = typed.rfind(|c| breaks.contains(c)).map_or(0, |at| at + 1);
    let value = value.strip_prefix(&typed[..start])?;
    let plain = |c: char| c.is_alphanumeric() || !c.is_ascii() || "_-+,./:=@%".contains(c);
    match quote {
        Some('\'') => (!value.contains('\'')).then(|| value.to_owned()),
        Some(_) => (!value.contains(['"', '$', '`', '\\', '!'])).then(|| value.to_owned()),
        None => {
            let escaped = |c| if plain(c) { String::from(c) } else { format!("\\{c}") };
            Some(value.chars().map(escaped).collect())
        }
    }
}

/// The value of a flag on the command line that is completed.
fn flag(name: &str) -> Option<PathBuf> {
    let words = WORDS.get()?;
    let after = |word: &OsString| {
        Some(PathBuf::from(word.to_str()?.strip_prefix(name)?.strip_prefix('=')?))
    };
    let at = words.iter().position(|word| word == name);
    let next = at.and_then(|at| words.get(at + 1)).map(PathBuf::from);
    next.or_else(|| words.iter().find_map(after))
}

fn settings() -> Option<Settings> {
    Settings::load(flag("--config").as_deref(), flag("--local-dir").as_deref()).ok()
}

/// The names that begin as typed, but none that would be a flag.
fn candidates(
    typed: &OsStr,
    names: impl IntoIterator<Item = impl Into<String>>,
) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str() else { return Vec::new() };
    let names = names.into_iter().map(Into::into);
    let names = names.filter(|name| name.starts_with(typed) && !name.starts_with('-'));
    names.map(CompletionCandidate::new).collect()
}

/// The names of `[source.NAME]`.
pub fn sources(typed: &OsStr) -> Vec<CompletionCandidate> {
    settings().map(|it| candidates(typed, it.source_names())).unwrap_or_default()
}

/// The names of the current databases.
pub fn databases(typed: &OsStr) -> Vec<CompletionCandidate> {
    let names = settings().and_then(|it| live::databases(&it.data_dir, &it.names).ok());
    candidates(typed, names.unwrap_or_default())
}

/// The snapshots, newest first.
pub fn snapshots(typed: &OsStr) -> Vec<CompletionCandidate> {
    let Some(snapshots) = settings().and_then(|it| Store::of(&it).list().ok()) else {
        return Vec::new();
    };
    let now = moment::now();
    let described = snapshots.iter().enumerate().filter_map(|(order, snapshot)| {
        let name = candidates(typed, names(snapshot, &snapshots)).into_iter().next();
        let label = snapshot.label().map(|label| format!(", \"{label}\"")).unwrap_or_default();
        let words = moment::words(snapshot.time, &now);
        let help = format!("{words}, {}{label}", snapshot.kind());
        name.map(|name| name.help(Some(help.into())).display_order(Some(order)))
    });
    described.collect()
}

/// What a snapshot is found by, the shortest first; its label last.
fn names<'a>(snapshot: &'a Snapshot, among: &'a [Snapshot]) -> Vec<&'a str> {
    let name = snapshot.name.as_str();
    let date = name.split_once('_').map_or(name, |(_, date)| date);
    [short_name(name, among), name, date].into_iter().chain(snapshot.label()).collect()
}

/// What `snapshots diff` compares.
pub fn sides(typed: &OsStr) -> Vec<CompletionCandidate> {
    let mut found = snapshots(typed);
    found.extend(candidates(typed, [diff::sides::CURRENT]));
    if Path::new(typed).components().count() > 0 {
        found.extend(PathCompleter::file().complete(typed));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_bash_is_split_at_the_cursor() {
        for (line, last, quote) in [
            ("cargo xtask ", "", None),
            ("cargo xtask res", "res", None),
            (r"cargo xtask it\'s\ a", "it's a", None),
            ("cargo xtask 'it is", "it is", Some('\'')),
            ("cargo xtask \"it's", "it's", Some('"')),
            (r"cargo xtask a\", "a", None),
        ] {
            let (words, found) = split(line).unwrap();
            assert_eq!((words.len(), words[2].to_str(), found), (3, Some(last), quote), "{line}");
        }
        let words = |text: &str| after_alias(text.split(' ').map(OsString::from).collect());
        assert_eq!(words("cargo +nightly -q xtask pull-db --on"), ["pull-db", "--on"]);
    }

    /// What bash reads back is the value, or stays within the quote.
    #[test]
    fn a_value_is_quoted_for_bash() {
        let evil = "it's $(id) `id` \"&;!*~#é\\";
        let inserted = for_readline(evil, "it", None).unwrap();
        assert_eq!(shlex::split(&inserted).unwrap(), [evil]);
        assert_eq!(for_readline(evil, "it", Some('\'')), None);
        assert_eq!(for_readline("$(id) ", "", Some('\'')).as_deref(), Some("$(id) "));
        assert_eq!(for_readline("a$(id)", "a", Some('"')), None);
        assert_eq!(for_readline("--only=a.db", "--only=a", None).as_deref(), Some("a.db"));
    }
}
