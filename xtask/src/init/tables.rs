//! What the names of tables say: which framework made them, and which have only what an app makes
//! again.

use glob::{MatchOptions, Pattern};

/// Tables of caches, queues and sessions.
const SCRATCH: [&str; 26] = [
    // Rails
    "solid_cache_*",
    "solid_cable_*",
    "solid_queue_*",
    "good_job*",
    "delayed_jobs",
    // Django
    "django_cache*",
    "*cache_table",
    "django_session",
    "django_q_*",
    "django_celery_results_*",
    "background_task*",
    // Laravel
    "cache",
    "cache_locks",
    "jobs_cache",
    "job_batches",
    "failed_jobs",
    "telescope_*",
    "pulse_*",
    // Elixir, Node, Go
    "oban_jobs",
    "oban_peers",
    "bullmq_*",
    "plainjob_*",
    "goqite",
    "river_job",
    // Python
    "celery_taskmeta",
    "huey_*",
];

/// A table that only one framework makes, and the framework's name.
const FRAMEWORKS: [(&str, &str); 14] = [
    ("ar_internal_metadata", "Rails"),
    ("django_migrations", "Django"),
    ("alembic_version", "Alembic"),
    ("_prisma_migrations", "Prisma"),
    ("__drizzle_migrations", "Drizzle"),
    ("knex_migrations", "Knex"),
    ("SequelizeMeta", "Sequelize"),
    ("kysely_migration", "Kysely"),
    ("_sqlx_migrations", "sqlx"),
    ("__diesel_schema_migrations", "Diesel"),
    ("refinery_schema_history", "refinery"),
    ("goose_db_version", "goose"),
    ("_collections", "PocketBase"),
    ("schema_migrations", "schema_migrations"),
];

/// The framework that made these tables.
pub fn framework(tables: &[String]) -> Option<&'static str> {
    let has = |name: &str| tables.iter().any(|table| table.eq_ignore_ascii_case(name));
    FRAMEWORKS.iter().find(|(table, _)| has(table)).map(|(_, framework)| *framework)
}

fn is_scratch(table: &str) -> bool {
    let options = MatchOptions { case_sensitive: false, ..MatchOptions::default() };
    SCRATCH
        .iter()
        .any(|one| Pattern::new(one).is_ok_and(|pattern| pattern.matches_with(table, options)))
}

/// Those of `tables` that are caches, queues or sessions; each once, sorted.
pub fn scratch<'a>(tables: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut found: Vec<_> = tables.filter(|table| is_scratch(table)).cloned().collect();
    found.sort();
    found.dedup();
    found
}

/// Whether there is nothing else but what a framework records of itself.
pub fn are_all_scratch(tables: &[String]) -> bool {
    let is_record = |table: &str| ["schema_migrations", "ar_internal_metadata"].contains(&table);
    tables.iter().any(|table| is_scratch(table))
        && tables.iter().all(|table| is_scratch(table) || is_record(table))
}
