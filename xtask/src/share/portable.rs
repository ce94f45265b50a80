//! What is told of a snapshot outside of this machine.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::config::Audit;
use crate::error::Failure;
use crate::fs;
use crate::sanitize::Rule;
use crate::snapshots::{Database, Meta, Origin, Snapshot, check_names};
use crate::ui::count;

/// `snapshot.json` of a whole snapshot, without what means something only here.
///
/// # Errors
///
/// The snapshot is not whole, or a file cannot be read.
pub fn meta(snapshot: &Snapshot) -> Result<Meta> {
    let whole = match (&snapshot.meta, &snapshot.defect) {
        (Some(meta), None) => Ok(meta.clone()),
        (_, Some(why)) => Err(why.clone()),
        (None, None) => Err("it has no snapshot.json".to_owned()),
    };
    let meta = whole.map_err(|why| {
        Failure::new(format!("{} cannot be passed on: {why}", snapshot.name))
            .hint("cargo xtask snapshots shows the others")
    })?;
    let databases = meta.databases.into_iter().map(|database| {
        let sha256 = match database.sha256 {
            Some(sha256) => sha256,
            None => fs::sha256(&snapshot.path.join(&database.name))?,
        };
        Ok(Database { sha256: Some(sha256), remote: None, file: None, ..database })
    });
    let databases = databases.collect::<Result<_>>()?;
    let origin = meta.origin.map(|origin| Origin {
        data_dir: None,
        recipe: None,
        boot: None,
        share: None,
        ..origin
    });
    Ok(Meta { databases, origin, pinned: false, ..meta })
}

/// Checks what another machine says of a snapshot.
///
/// # Errors
///
/// It is no snapshot that this tool can have; says why.
pub fn check(meta: &Meta) -> Result<(), String> {
    if meta.version != 1 {
        return Err(format!("it has format {}, and this tool knows format 1", meta.version));
    }
    if meta.databases.is_empty() {
        return Err("it has no database".to_owned());
    }
    let is_hash = |text: &String| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if let Some(one) =
        meta.databases.iter().find(|one| !one.sha256.as_ref().is_some_and(is_hash) || one.damaged)
    {
        return Err(format!("{:?} has no sha256, or was damaged", one.name));
    }
    check_names(meta.databases.iter().map(|one| one.name.as_str()))
}

/// Refuses databases that a rule is meant for and that came without it.
///
/// # Errors
///
/// There is such a database.
pub fn refuse_unmasked(unmasked: &BTreeSet<String>, what: &str, flag: &str) -> Result<()> {
    if unmasked.is_empty() {
        return Ok(());
    }
    let some = match unmasked.len() {
        1..=3 => unmasked.iter().cloned().collect::<Vec<_>>().join(", "),
        n => count(n, "database"),
    };
    Err(Failure::new(format!("{what} is unmasked: {some}"))
        .hint(format!("take a masked one, or {flag} if its secrets may be passed on"))
        .into())
}

/// The databases of a set to which a rule is meant to be applied, and was not.
pub fn unmasked(meta: &Meta, rules: &[Rule]) -> BTreeSet<String> {
    crate::snapshots::unsanitized(&meta.raw(), rules)
}

/// The columns that the audit of a pull found, masked by no rule and not allowed; `None` if there was
/// no audit.
pub fn uncovered_columns(audit: &Audit, origin: &Origin) -> Option<Vec<String>> {
    let found = origin.uncovered.as_ref()?.iter();
    let found = found.filter(|(table, column)| !audit.allows(table, column));
    Some(found.map(|(table, column)| format!("{table}.{column}")).collect())
}
