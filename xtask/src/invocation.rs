//! How the user calls this program: its crate, the Cargo alias and the global flags. Hints repeat
//! them, so that they can be typed as they are.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The command as the messages in the source spell it.
const USUAL: &str = "cargo xtask";

/// The crate that Cargo runs; `None` if the program was started without Cargo.
pub fn crate_dir() -> Option<PathBuf> {
    std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from)
}

/// `cargo xtask`, or the alias that runs this crate.
pub fn command() -> &'static str {
    alias().as_ref().map_or(USUAL, |alias| &alias.command)
}

/// Spells commands as the source does, in a program of this repository that is not called by an
/// alias of the product.
pub fn assume_usual() {
    let _ = ALIAS.set(None);
}

/// One of Cargo's aliases.
struct Alias {
    command: String,
    /// The directory of the configuration that defines it.
    root: PathBuf,
}

static ALIAS: OnceLock<Option<Alias>> = OnceLock::new();

/// The alias that runs this crate; searched for once.
fn alias() -> &'static Option<Alias> {
    ALIAS.get_or_init(|| {
        let package = std::env::var("CARGO_PKG_NAME").unwrap_or_default();
        find_alias(&crate_dir()?, &package)
    })
}

/// The flags of this run that a suggested command needs too, to use the same data.
static FLAGS: OnceLock<[String; 2]> = OnceLock::new();
/// Set once the settings say what `--local-dir` says.
static IS_WRITTEN: OnceLock<()> = OnceLock::new();

/// The settings now have the data directory of this run: hints leave the flag out.
pub fn local_dir_is_written() {
    let _ = IS_WRITTEN.set(());
}

pub fn remember(config: Option<&Path>, local_dir: Option<&Path>) {
    let flags = [("--config", config), ("--local-dir", local_dir)];
    let written = |(flag, path): (&str, Option<&Path>)| {
        let path = path?.to_str()?;
        Some(format!(" {flag} {}", shlex::try_quote(path).ok()?))
    };
    // If one process has several runs, as in tests, the first one counts.
    let _ = FLAGS.set(flags.map(|flag| written(flag).unwrap_or_default()));
}

/// A message with its commands as this user types them.
pub fn adapt(message: &str) -> Cow<'_, str> {
    match command() {
        USUAL => message.into(),
        command => message.replace(USUAL, command).into(),
    }
}

/// A hint with its commands as this user types them, global flags included.
pub fn adapt_hint(hint: &str) -> String {
    let [config, local_dir] =
        FLAGS.get().map_or(["", ""], |flags| flags.each_ref().map(String::as_str));
    let local_dir = if IS_WRITTEN.get().is_some() { "" } else { local_dir };
    hint.replace(&format!("{USUAL} "), &format!("{}{config}{local_dir} ", command()))
}

/// The alias that runs `package` in `dir`, from a configuration in `dir` or above it.
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

/// Cargo accepts a string, which it splits at blanks, or an array.
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

/// The directory to which paths in the settings beside this crate are relative: that of the alias,
/// else the parent.
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
