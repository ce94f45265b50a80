//! The rules of the benchmark, and the check that they were applied to all bytes.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use rusqlite::types::ValueRef;
use xshell::{Shell, cmd};
use xtask_db::internals::{durable, interrupt, sqlite};

/// Settings with one rule, of six columns.
pub const SETTINGS: &str = r#"[[sanitize]]
table = "accounts"
set.email = "'user' || id || '@example.com'"
set.name = "'User ' || id"
set.phone = "printf('+1 555 %07d', id)"
set.api_token = "NULL"
set.password_hash = "''"
set.address = "id || ' Example Street'"
"#;

/// Checks that the databases of `dir` have no secret of those in `production`.
///
/// # Errors
///
/// One is in the bytes of a file, or the files cannot be searched.
pub fn check_secrets(sh: &Shell, production: &Path, dir: &Path) -> Result<()> {
    let (originals, copies) = (databases(production)?, databases(dir)?);
    if originals.len() != copies.len() {
        bail!("{} has {} databases of {}", dir.display(), copies.len(), originals.len());
    }
    let mut secrets = Vec::new();
    for path in &originals {
        let db = sqlite::open_closed(path)?;
        let mut values =
            db.prepare("SELECT email FROM accounts UNION ALL SELECT api_token FROM accounts")?;
        let values = values.query_map([], |row| row.get::<_, String>(0))?;
        secrets.extend(values.collect::<rusqlite::Result<Vec<_>>>()?);
    }
    let patterns = tempfile::NamedTempFile::new()?;
    durable::write(patterns.path(), secrets.join("\n").as_bytes())?;
    // A search that finds none where they are would prove nothing.
    if search(sh, patterns.path(), &originals[..1])?.is_empty() {
        bail!("the secrets are not found in {}", production.display());
    }
    match &search(sh, patterns.path(), &copies)?[..] {
        [] => Ok(()),
        found => bail!("secrets of production are in {}", found.join(", ")),
    }
}

/// The files that have a line of the file `patterns` in their bytes.
fn search(sh: &Shell, patterns: &Path, files: &[PathBuf]) -> Result<Vec<String>> {
    let grep =
        cmd!(sh, "grep --files-with-matches --text --fixed-strings --file {patterns} {files...}");
    let output = interrupt::output(grep.env("LC_ALL", "C").quiet())?;
    if !matches!(output.status.code(), Some(0 | 1)) {
        bail!("grep failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

/// The databases directly in a directory, by name.
///
/// # Errors
///
/// It cannot be read.
pub fn databases(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "db"));
    paths.sort();
    Ok(paths)
}

/// Checks that a table that no rule names has the same rows in both directories.
///
/// # Errors
///
/// It has not.
pub fn check_documents(production: &Path, dir: &Path) -> Result<()> {
    for path in databases(production)? {
        let copy = dir.join(path.file_name().unwrap_or_default());
        if documents(&path)? != documents(&copy)? {
            bail!("documents of {} are not those of production", copy.display());
        }
    }
    Ok(())
}

/// The number of documents, and a hash of all their values.
fn documents(path: &Path) -> Result<(u64, u64)> {
    let db = sqlite::open_closed(path)?;
    let mut all = db.prepare("SELECT * FROM documents ORDER BY id")?;
    let columns = all.column_count();
    let (mut rows, mut count, mut hasher) = (all.query([])?, 0, DefaultHasher::new());
    while let Some(row) = rows.next()? {
        count += 1;
        for i in 0..columns {
            match row.get_ref(i)? {
                ValueRef::Integer(number) => number.hash(&mut hasher),
                value => value.as_bytes()?.hash(&mut hasher),
            }
        }
    }
    Ok((count, hasher.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::pulls::source::{Extent, create, vary};

    #[test]
    fn a_secret_that_is_left_and_a_document_that_differs_are_found() {
        let sh = Shell::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let [production, copy] = ["production", "copy"].map(|name| dir.path().join(name));
        for dir in [&production, &copy] {
            std::fs::create_dir(dir).unwrap();
        }
        let [original, copied] = [&production, &copy].map(|dir| dir.join("a.db"));
        create(&original, 1, Extent { bytes: 50_000, accounts: 3, at_once: 10 }).unwrap();
        std::fs::copy(&original, &copied).unwrap();
        check_documents(&production, &copy).unwrap();
        let error = check_secrets(&sh, &production, &copy).unwrap_err().to_string();
        assert_eq!(error, format!("secrets of production are in {}", copied.display()));

        // Another tenant's secrets are none of this one.
        std::fs::remove_file(&copied).unwrap();
        create(&copied, 2, Extent { bytes: 50_000, accounts: 3, at_once: 10 }).unwrap();
        check_secrets(&sh, &production, &copy).unwrap();
        vary(&copied, 3).unwrap();
        check_documents(&production, &copy).unwrap_err();
        std::fs::remove_file(&copied).unwrap();
        check_secrets(&sh, &production, &copy).unwrap_err();
    }
}
