//! Brings a database to the newest schema, one SQL file and one transaction at
//! a time. `PRAGMA user_version` counts the files that have been applied.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use clap::ValueEnum;
use rusqlite::fallible_iterator::FallibleIterator as _;
use rusqlite::{Batch, Connection, OptionalExtension as _, TransactionBehavior};

/// Which of the two schemas a database has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// `data.db`: what all organizations share.
    Shared,
    /// `tenant_<id>.db`: the pull requests of one organization.
    Tenant,
}

pub struct Migration {
    pub file: &'static str,
    pub sql: &'static str,
}

macro_rules! migrations {
    ($($file:literal),+ $(,)?) => {
        &[$(Migration {
            file: concat!("app/migrations/", $file),
            sql: include_str!(concat!("../migrations/", $file)),
        }),+]
    };
}

/// A file that has been released is never edited or removed: databases exist
/// that counted it. A change of the schema is a new file at the end.
const SHARED: &[Migration] = migrations![
    "shared/0001_organizations.sql",
    "shared/0002_integrations.sql",
    "shared/0003_pull_request_count.sql",
];

const TENANT: &[Migration] = migrations![
    "tenant/0001_pull_requests.sql",
    "tenant/0002_reviews.sql",
    "tenant/0003_search.sql",
];

impl Kind {
    pub fn migrations(self) -> &'static [Migration] {
        match self {
            Self::Shared => SHARED,
            Self::Tenant => TENANT,
        }
    }

    /// The kind of a database by its file name, else by the tables in it.
    pub fn of(path: &Path, conn: &Connection) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name == "data.db" {
            return Ok(Self::Shared);
        }
        if name.starts_with("tenant_") {
            return Ok(Self::Tenant);
        }
        for (table, kind) in [("organizations", Self::Shared), ("pull_requests", Self::Tenant)] {
            if conn.table_exists(None, table)? {
                return Ok(kind);
            }
        }
        bail!(
            "neither the name nor the tables of {path} tell its schema: pass --kind shared or --kind tenant",
            path = path.display()
        )
    }
}

/// The versions a database had before and has after a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    pub from: usize,
    pub to: usize,
}

/// Applies what `conn` lacks of `migrations`; a database that lacks nothing is
/// only read. Foreign keys are enforced afterwards.
pub fn migrate(conn: &mut Connection, migrations: &[Migration]) -> Result<Versions> {
    let from = user_version(conn)?;
    ensure!(
        from <= migrations.len(),
        "its user_version is {from}, this build knows {}: update the app",
        migrations.len()
    );
    // SQLite's recipe for rebuilding a table drops one that others refer to, and
    // the setting cannot be changed inside of a transaction.
    conn.pragma_update(None, "foreign_keys", false)?;
    let mut version = from;
    while let Some(migration) = migrations.get(version) {
        apply(conn, migration, version).with_context(|| {
            format!(
                "the migration stopped at user_version {version}; what {} did is undone",
                migration.file
            )
        })?;
        version = user_version(conn)?;
    }
    conn.pragma_update(None, "foreign_keys", true)?;
    Ok(Versions { from, to: version })
}

fn apply(conn: &mut Connection, migration: &Migration, version: usize) -> Result<()> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if user_version(&tx)? != version {
        // Another process applied this file while we waited for its lock.
        return Ok(());
    }
    execute(&tx, migration)?;
    let broken: Option<String> = tx
        .query_row("SELECT \"table\" FROM pragma_foreign_key_check", [], |row| row.get(0))
        .optional()?;
    if let Some(table) = broken {
        bail!("{}: leaves rows of {table} that refer to nothing", migration.file);
    }
    tx.pragma_update(None, "user_version", i64::try_from(version + 1)?)?;
    tx.commit()?;
    Ok(())
}

/// Runs the statements of one file; an error names the line of its statement.
fn execute(conn: &Connection, migration: &Migration) -> Result<()> {
    let mut batch = Batch::new(conn, migration.sql);
    let mut start = 0;
    loop {
        let result = batch.next().and_then(|statement| {
            let Some(mut statement) = statement else { return Ok(None) };
            statement.execute([])?;
            Ok(statement.expanded_sql())
        });
        match result {
            Ok(Some(sql)) => start += sql.len(),
            Ok(None) => return Ok(()),
            Err(error) => return Err(located(migration, start, error)),
        }
    }
}

fn located(migration: &Migration, start: usize, error: rusqlite::Error) -> anyhow::Error {
    let (offset, error) = match error {
        // This variant's own message repeats the whole rest of the file.
        rusqlite::Error::SqlInputError { msg, offset, .. } => {
            (usize::try_from(offset).ok(), anyhow!(msg))
        }
        error => (None, error.into()),
    };
    let position = start + offset.unwrap_or_else(|| blank_prefix(&migration.sql[start..]));
    let line = 1 + migration.sql[..position].matches('\n').count();
    error.context(format!("{}:{line}", migration.file))
}

/// The length of the blank lines and comments before a statement.
fn blank_prefix(sql: &str) -> usize {
    let is_blank = |line: &&str| line.trim().is_empty() || line.trim_start().starts_with("--");
    sql.split_inclusive('\n').take_while(is_blank).map(str::len).sum()
}

pub fn user_version(conn: &Connection) -> Result<usize> {
    let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    usize::try_from(version).with_context(|| format!("user_version {version} is none of ours"))
}
