//! The rows of `app setup`: the same on every machine, because they depend on
//! nothing but the organization and the number of rows.
//!
//! All that looks like a secret is made up, and says FAKE.

use anyhow::Result;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::prng::{BASE62, Prng};

pub struct Organization {
    pub id: &'static str,
    name: &'static str,
}

pub const ORGANIZATIONS: &[Organization] = &[
    Organization { id: "iris", name: "Iris Optics" },
    Organization { id: "juno", name: "Juno Freight" },
];

const MEMBERS_PER_ORGANIZATION: usize = 25;
const REPOSITORIES: &[&str] = &[
    "accounts", "android", "api", "billing", "checkout", "cli", "console", "docs", "exports",
    "gateway", "infra", "ios", "mailer", "metrics", "notifier", "reports", "runner", "search",
    "web", "webhooks",
];
const FIRST_NAMES: &[&str] = &[
    "ada", "bela", "chiyo", "dina", "emil", "femi", "goran", "hana", "ivo", "jun", "kofi", "lena",
    "mira", "nils", "oona", "paulo", "qadir", "rosa", "sana", "tomas", "uma", "vera", "wim",
    "yuki", "zoe",
];
const LAST_NAMES: &[&str] = &[
    "abe", "brandt", "cruz", "diaz", "eriksen", "fofana", "garcia", "hoang", "ito", "jansen",
    "kowalski",
];

/// The first pull request of a seed was made in November 2023, and one followed
/// each minute or so.
const FIRST_SECOND: i64 = 1_700_000_000;

/// The pull requests of a tenant after `tenant`.
pub struct Seeded {
    pub organization: &'static Organization,
    pub count: i64,
    /// They were added now.
    pub is_new: bool,
}

/// Fills an empty tenant with `rows` pull requests and about two reviews of each.
/// With the indexes that is 705 bytes for each pull request.
pub fn tenant(
    conn: &mut Connection,
    organization: &'static Organization,
    rows: u32,
) -> Result<Seeded> {
    // A transaction with this many pages is slow if it spills them before its end.
    conn.pragma_update(None, "cache_size", -131_072)?;
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let is_new = !tx.prepare("SELECT 1 FROM repositories")?.exists([])?;
    if is_new {
        for (id, name) in (1..).zip(REPOSITORIES) {
            tx.execute("INSERT INTO repositories (id, name) VALUES (?, ?)", (id, name))?;
        }
        pull_requests(&tx, &mut Prng::new(organization.id), rows)?;
    }
    let count = tx.query_row("SELECT count(*) FROM pull_requests", [], |row| row.get(0))?;
    tx.commit()?;
    Ok(Seeded { organization, count, is_new })
}

fn pull_requests(tx: &Transaction, prng: &mut Prng, rows: u32) -> Result<()> {
    let mut pull_request = tx.prepare(
        "INSERT INTO pull_requests (id, repository_id, number, title, body, author, state, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    let mut review = tx.prepare(
        "INSERT INTO reviews (pull_request_id, reviewer, state, body, created_at)
         VALUES (?, ?, ?, ?, ?)",
    )?;
    let logins: Vec<String> = (0..MEMBERS_PER_ORGANIZATION).map(login).collect();
    let logins: Vec<&str> = logins.iter().map(String::as_str).collect();
    let mut numbers = [0_u32; REPOSITORIES.len()];
    let mut second = FIRST_SECOND;
    for id in 1..=rows {
        let repository = prng.below(REPOSITORIES.len() as u32);
        let number = &mut numbers[repository as usize];
        *number += 1;
        second += i64::from(1 + prng.below(120));
        let state = prng.pick(&["open", "merged", "merged", "merged", "merged", "closed"]);
        let (title, body) = (prng.title(), prng.description());
        pull_request.execute((
            id,
            repository + 1,
            *number,
            title,
            body,
            prng.pick(&logins),
            state,
            second,
        ))?;
        for _ in 0..prng.below(5) {
            let state =
                prng.pick(&["approved", "approved", "changes_requested", "commented", "commented"]);
            review.execute((
                id,
                prng.pick(&logins),
                state,
                prng.prose(20),
                second + i64::from(prng.below(86_400)),
            ))?;
        }
    }
    Ok(())
}

/// Adds the organizations that are missing and what belongs to them; returns how
/// many. A count is written with the rows it is of: later the service keeps it.
pub fn shared(conn: &mut Connection, tenants: &[Seeded]) -> Result<usize> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut added = 0;
    for Seeded { organization, count, is_new } in tenants {
        let insert = "INSERT INTO organizations (id, name, created_at) VALUES (?, ?, ?)
                      ON CONFLICT DO NOTHING";
        let is_missing =
            tx.execute(insert, (organization.id, organization.name, FIRST_SECOND))? > 0;
        if is_missing {
            belongings(&tx, organization)?;
            added += 1;
        }
        if is_missing || *is_new {
            let update = "UPDATE organizations SET pull_request_count = ? WHERE id = ?";
            tx.execute(update, (count, organization.id))?;
        }
    }
    tx.commit()?;
    Ok(added)
}

fn belongings(tx: &Transaction, organization: &Organization) -> Result<()> {
    let id = organization.id;
    let prng = &mut Prng::new(&format!("{id} shared"));
    let insert = "INSERT INTO members (organization_id, email, password_hash, created_at) VALUES (?, ?, ?, ?)";
    for member in 0..MEMBERS_PER_ORGANIZATION {
        let email = format!("{}@{id}.example", login(member));
        tx.execute(insert, (id, email, password_hash(prng), FIRST_SECOND))?;
    }
    let insert =
        "INSERT INTO integrations (organization_id, provider, access_token) VALUES (?, ?, ?)";
    for (provider, prefix) in [("github", "ghp_FAKE"), ("slack", "xoxb-FAKE-")] {
        let token = format!("{prefix}{}", prng.characters(BASE62, 32));
        tx.execute(insert, (id, provider, token))?;
    }
    tx.execute(
        "INSERT INTO export_settings (organization_id, sheet_id, client_email, private_key) VALUES (?, ?, ?, ?)",
        (
            id,
            format!("1FAKE{}", prng.characters(BASE62, 39)),
            format!("exports@{id}-fake.iam.gserviceaccount.example"),
            private_key(prng),
        ),
    )?;
    Ok(())
}

/// Different for each member, and the same in both organizations.
fn login(member: usize) -> String {
    format!(
        "{}.{}",
        FIRST_NAMES[member % FIRST_NAMES.len()],
        LAST_NAMES[member * 7 % LAST_NAMES.len()]
    )
}

fn password_hash(prng: &mut Prng) -> String {
    format!(
        "$argon2id$v=19$m=19456,t=2,p=1$FAKE{}${}",
        prng.characters(BASE62, 18),
        prng.characters(BASE62, 43)
    )
}

/// Of the form and the length of a PEM file with a 2048-bit key in it. The words
/// are put together here, so that no scanner takes this source for a leak.
fn private_key(prng: &mut Prng) -> String {
    let label = "PRIVATE KEY";
    let mut pem = format!("-----BEGIN {label}-----\nFAKE{}\n", prng.characters(BASE62, 60));
    for _ in 0..25 {
        pem += &prng.characters(BASE62, 64);
        pem.push('\n');
    }
    pem + &format!("-----END {label}-----\n")
}
