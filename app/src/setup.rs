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
    let mut shared = Database::open_or_create(&path, Kind::Shared)?;
    // The organizations come last: what data.db lists is complete, also when this
    // run is killed.
    let mut tenants = Vec::new();
    for organization in ORGANIZATIONS {
        let path = store::tenant_path(dir, organization.id);
        let mut tenant = Database::open_or_create(&path, Kind::Tenant)?;
        let seeded = seed::tenant(&mut tenant.conn, organization, rows)
            .with_context(|| format!("cannot seed {}", path.display()))?;
        let verb = if seeded.is_new { "added" } else { "kept" };
        report(out, &path, &tenant, &format!("{verb} {} pull requests", seeded.count))?;
        tenants.push(seeded);
    }
    let added = seed::shared(&mut shared.conn, &tenants)
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
            let tenant = Database::open_or_create(&path, Kind::Tenant)?;
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
