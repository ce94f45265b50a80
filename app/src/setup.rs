//! `app setup`: migrates every database of the data directory, and seeds what is
//! empty. To run it again changes nothing.

use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::migrate::{Kind, Versions};
use crate::seed::{self, ORGANIZATIONS};
use crate::store::{self, Database};

pub fn run(dir: &Path, rows: u32, out: &mut impl Write) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let path = store::shared_path(dir);
    let mut shared = Database::open(&path, Kind::Shared)?;
    // The organizations come last: what data.db lists is complete, also when this
    // run is killed.
    let mut seeded = Vec::new();
    for organization in ORGANIZATIONS {
        let path = store::tenant_path(dir, organization.id);
        let mut tenant = Database::open(&path, Kind::Tenant)?;
        let (count, is_new) = seed::tenant(&mut tenant.conn, organization, rows)
            .with_context(|| format!("cannot seed {}", path.display()))?;
        if is_new {
            seeded.push((organization, count));
        }
        let verb = if is_new { "added" } else { "kept" };
        report(out, &path, &tenant, &format!("{verb} {count} pull requests"))?;
    }
    let added = seed::shared(&mut shared.conn, &seeded)
        .with_context(|| format!("cannot seed {}", path.display()))?;
    report(out, &path, &shared, &format!("added {added} organizations"))?;
    migrate_others(dir, &shared, out)
}

/// The tenants that were not seeded but made by the running service.
fn migrate_others(dir: &Path, shared: &Database, out: &mut impl Write) -> Result<()> {
    let mut select = shared.conn.prepare("SELECT id FROM organizations ORDER BY id")?;
    for id in select.query_map([], |row| row.get::<_, String>(0))? {
        let id = id?;
        if !ORGANIZATIONS.iter().any(|seeded| seeded.id == id) {
            let path = store::tenant_path(dir, &id);
            let tenant = Database::open(&path, Kind::Tenant)?;
            report(out, &path, &tenant, "not a tenant of the seed")?;
        }
    }
    Ok(())
}

fn report(out: &mut impl Write, path: &Path, database: &Database, rows: &str) -> Result<()> {
    let Versions { from, to } = database.versions;
    let file = if database.created { "created" } else { "exists" };
    let schema = if from == to {
        format!("at version {to}")
    } else {
        format!("migrated from version {from} to {to}")
    };
    writeln!(out, "{}: {file}, {schema}, {rows}", path.display())?;
    Ok(())
}
