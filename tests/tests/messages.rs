//! How the product says what is wrong: read from its source, so that no message is forgotten.

use std::fs;
use std::path::{Path, PathBuf};

/// Words that are not ours, or that we had another one for.
const FORBIDDEN: [&str; 14] = [
    "mend",
    "gave up",
    "forget",
    "forgot",
    "give up",
    "live set",
    "live data",
    "sanitized",
    "unsanitized",
    "idle",
    "which app?",
    "no file of settings",
    "there are no settings",
    "let go",
];

/// With a capital: names, and keys of a user's files.
const NAMES: [&str; 6] =
    ["FLY_APP", "Fly.io", "Cargo", "SKIP_FIXTURES", "SQLite", "CARGO_MANIFEST_DIR"];

/// Refused without a hint, since they say themselves what is right, or name what to change.
const SAY_IT_ALL: [&str; 11] = [
    // What comes last is what is expected.
    "{why}",
    "{error}",
    "--only {:?} matches none of: ",
    "keep must be at least 1",
    "`leak-check` works only with `set` and `delete`",
    // The cause follows, of the operating system.
    "cannot read config file",
    "cannot read env-file",
    "cannot find config file",
    // Nobody types these by mistake.
    "{key} {dir:?} is not UTF-8",
    "has a control character",
    "{value:?} cannot be the {key}",
];

/// A call with a message.
struct Call {
    place: String,
    name: &'static str,
    /// The first text among its arguments.
    message: String,
    has_hint: bool,
}

const CALLS: [&str; 9] = [
    "Failure::new(",
    "Failure::usage(",
    "Failure::declined(",
    "bail!(",
    "anyhow!(",
    ".context(",
    ".with_context(",
    "ui.warn(",
    ".hint(",
];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("read sources") {
        let path = entry.expect("an entry").path();
        let is_test = path.file_stem().is_some_and(|name| name == "tests");
        if path.is_dir() && !is_test {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") && !is_test {
            found.push(path);
        }
    }
}

/// Where the text in quotes at the beginning ends; a quote may be escaped.
fn end_of_text(code: &str) -> usize {
    let mut escaped = false;
    let quote = |&(_, c): &(usize, char)| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    };
    code.char_indices().skip(1).find(quote).map_or(code.len(), |(at, _)| at + 1)
}

/// The length of the arguments, up to the bracket that closes them, and the first text in them.
fn arguments(code: &str) -> (usize, Option<String>) {
    let (mut depth, mut at, mut text) = (1, 0, None);
    while depth > 0 {
        let Some(c) = code[at..].chars().next() else { break };
        let length = match c {
            '"' => {
                let length = end_of_text(&code[at..]);
                let inner = &code[at + 1..at + length - 1];
                text.get_or_insert_with(|| unescaped(inner));
                length
            }
            // A character, which may be a quote or a bracket; otherwise it is a lifetime.
            '\'' if code[at..].starts_with("'\\") => code[at + 2..].find('\'').map_or(1, |n| n + 3),
            '\'' if code[at + 1..].chars().nth(1) == Some('\'') => {
                2 + code[at + 1..].chars().next().map_or(0, char::len_utf8)
            }
            '(' | '[' | '{' => {
                depth += 1;
                1
            }
            ')' | ']' | '}' => {
                depth -= 1;
                1
            }
            c => c.len_utf8(),
        };
        at += length;
    }
    (at, text)
}

/// A line that ends with a backslash goes on with the next one.
fn unescaped(text: &str) -> String {
    let mut lines = text.split("\\\n").map(str::trim_start);
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |all, line| all + line).replace("\\\"", "\"").replace("\\n", "\n")
}

fn calls() -> Vec<Call> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the root");
    let mut files = Vec::new();
    sources(&root.join("xtask/src"), &mut files);
    let mut calls = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).expect("read a source");
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let lines = code.split_inclusive('\n').filter(|line| !line.trim_start().starts_with("//"));
        let code: String = lines.collect();
        for name in CALLS {
            for (at, _) in code.match_indices(name) {
                let after = &code[at + name.len()..];
                let (length, message) = arguments(after);
                let Some(message) = message else { continue };
                // The function may keep the failure in a variable first.
                let rest = after[length..].split("\n}\n").next().unwrap_or_default();
                let is_kept = code[..at].trim_end().ends_with("let failure =");
                let chained = rest.trim_start().trim_start_matches([')', '\n', ' ']);
                let has_hint = chained.starts_with(".hint(")
                    || (is_kept || chained.starts_with(';')) && rest.contains(".hint(");
                let place = path.strip_prefix(root).expect("it is in there").display().to_string();
                calls.push(Call { place, name, message, has_hint });
            }
        }
    }
    calls
}

#[track_caller]
fn none(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn the_messages_are_found() {
    let calls = calls();
    for name in CALLS {
        let found = calls.iter().filter(|call| call.name == name).count();
        assert!(found > 0, "{name}");
    }
    assert!(
        calls
            .iter()
            .any(|call| call.message == "text is quoted twice, for TOML and for SQL: \"'text'\"")
    );
}

#[test]
fn no_message_has_a_word_that_is_not_ours() {
    let problem = |call: &Call| {
        let words =
            format!(" {} ", call.message.to_lowercase().replace(['\n', ',', ':', ';', '.'], " "));
        let word = FORBIDDEN.iter().find(|word| words.contains(&format!(" {word} ")))?;
        Some(format!("{}: {word:?} in {:?}", call.place, call.message))
    };
    none(&calls().iter().filter_map(problem).collect::<Vec<_>>());
}

#[test]
fn a_message_begins_with_a_small_letter_and_ends_without_a_period() {
    let problem = |call: &Call| {
        let text = &call.message;
        let why = if text.ends_with('.') && !text.ends_with("..") {
            "ends with a period"
        } else if text.starts_with(char::is_uppercase)
            && !NAMES.iter().any(|name| text.starts_with(name))
        {
            "begins with a capital"
        } else {
            return None;
        };
        Some(format!("{}: {why}: {text:?}", call.place))
    };
    none(&calls().iter().filter_map(problem).collect::<Vec<_>>());
}

#[test]
fn a_wrong_command_line_or_setting_has_a_hint() {
    let problem = |call: &Call| {
        let is_excused = SAY_IT_ALL.iter().any(|text| call.message.contains(text));
        (call.name == "Failure::usage(" && !call.has_hint && !is_excused)
            .then(|| format!("{}: {:?}", call.place, call.message))
    };
    none(&calls().iter().filter_map(problem).collect::<Vec<_>>());
}
