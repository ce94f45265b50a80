//! How a user calls this program: from which crate, by which of Cargo's aliases, and with which
//! global flags. So hints are commands that can be typed as they are.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// As messages in the source have it.
const USUAL: &str = "cargo xtask";

/// The crate that Cargo runs; none where the program is started without it.
pub fn crate_dir() -> Option<PathBuf> {
    std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from)
}

/// `cargo xtask`, or with another alias that runs this crate.
pub fn command() -> &'static str {
    alias().as_ref().map_or(USUAL, |alias| &alias.command)
}

/// One of Cargo's aliases.
struct Alias {
    command: String,
    /// The directory that it is configured for.
    root: PathBuf,
}

/// The alias that runs this crate, which is looked for once.
fn alias() -> &'static Option<Alias> {
    static ALIAS: OnceLock<Option<Alias>> = OnceLock::new();
    ALIAS.get_or_init(|| {
        let package = std::env::var("CARGO_PKG_NAME").unwrap_or_default();
        find_alias(&crate_dir()?, &package)
    })
}

/// Those flags of this run that a command has to have as well, so that it is about the same data.
static FLAGS: OnceLock<String> = OnceLock::new();

pub fn remember(config: Option<&Path>, local_dir: Option<&Path>) {
    let flags = [("--config", config), ("--local-dir", local_dir)];
    let flags = flags.into_iter().filter_map(|(flag, path)| {
        let path = path?.to_str()?;
        Some(format!(" {flag} {}", shlex::try_quote(path).ok()?))
    });
    // Of several runs in one process the first counts, which only tests have.
    let _ = FLAGS.set(flags.collect());
}

/// A message with the commands that it names as this user types them.
pub fn adapt(message: &str) -> Cow<'_, str> {
    match command() {
        USUAL => message.into(),
        command => message.replace(USUAL, command).into(),
    }
}

/// The same of a command that is to be typed next.
pub fn adapt_hint(hint: &str) -> String {
    let flags = FLAGS.get().map_or("", String::as_str);
    hint.replace(&format!("{USUAL} "), &format!("{}{flags} ", command()))
}

/// The alias of a configuration above `dir` that runs the package in there.
fn find_alias(dir: &Path, package: &str) -> Option<Alias> {
    dir.ancestors().find_map(|above| {
        let text = std::fs::read_to_string(above.join(".cargo/config.toml")).ok()?;
        let config: toml::Table = text.parse().ok()?;
        let aliases = config.get("alias")?.as_table()?;
        let runs = |value: &toml::Value| runs(&words(value), above, dir, package);
        let (alias, _) = aliases.iter().find(|(_, value)| runs(value))?;
        Some(Alias { command: format!("cargo {alias}"), root: above.to_owned() })
    })
}

/// Cargo takes a text, which it splits at blanks, or an array.
fn words(alias: &toml::Value) -> Vec<&str> {
    match alias {
        toml::Value::String(text) => text.split_whitespace().collect(),
        toml::Value::Array(words) => words.iter().filter_map(toml::Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Whether an alias of the configuration in `root` runs the package in `dir`.
fn runs(words: &[&str], root: &Path, dir: &Path, package: &str) -> bool {
    let value = |long: &str, short: &str| {
        let at = words.iter().position(|word| [long, short].contains(word))?;
        words.get(at + 1).copied()
    };
    let is_manifest = |path: &str| {
        let manifest = root.join(path).canonicalize();
        manifest.is_ok_and(|path| dir.join("Cargo.toml").canonicalize().is_ok_and(|it| it == path))
    };
    ["run", "r"].iter().any(|run| words.first() == Some(run))
        && (value("--manifest-path", "").is_some_and(is_manifest)
            || value("--package", "-p").is_some_and(|name| name == package))
}

/// The directory that paths in settings beside this crate are relative to: where the alias is,
/// else the one above.
pub fn root_of(crate_dir: &Path) -> PathBuf {
    let above = || crate_dir.parent().unwrap_or(crate_dir);
    alias().as_ref().map_or_else(above, |alias| &alias.root).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alias_that_runs_a_crate_is_found() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("tools/dev");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("Cargo.toml"), "").unwrap();
        std::fs::create_dir(root.path().join(".cargo")).unwrap();
        for (alias, found) in [
            ("x = 'run --package tasks --'", None),
            ("b = 'build --package dev'\nx = 'run -q --package dev --'", Some("x")),
            ("it = ['run', '-p', 'dev', '--']", Some("it")),
            ("x = 'r --manifest-path tools/dev/Cargo.toml --'", Some("x")),
            ("x = 'run --manifest-path other/Cargo.toml'", None),
            ("x = 1", None),
        ] {
            let config = format!("[alias]\n{alias}\n");
            std::fs::write(root.path().join(".cargo/config.toml"), config).unwrap();
            let it = find_alias(&dir, "dev").map(|alias| alias.command);
            assert_eq!(it, found.map(|name| format!("cargo {name}")), "{alias}");
        }
    }
}
