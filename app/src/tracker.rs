//! What the tracker does with its databases, without HTTP.

use axum::http::StatusCode;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Row, TransactionBehavior};
use serde::{Deserialize, Serialize};

use crate::store::{self, Store};

/// Why a request was not done.
#[derive(Debug)]
pub enum Error {
    /// The request is at fault, and the message says how.
    Refused(StatusCode, String),
    /// We are at fault.
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Error {
    fn from(error: E) -> Self {
        let error = error.into();
        match error.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code) {
            Some(ErrorCode::DatabaseBusy) => Self::Refused(
                StatusCode::SERVICE_UNAVAILABLE,
                "the database is busy: try again".to_owned(),
            ),
            _ => Self::Failed(error),
        }
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

fn refuse<T>(status: StatusCode, message: impl Into<String>) -> Result<T> {
    Err(Error::Refused(status, message.into()))
}

#[derive(Serialize)]
pub struct Organization {
    id: String,
    name: String,
    pull_request_count: i64,
}

#[derive(Deserialize)]
pub struct NewOrganization {
    id: String,
    name: String,
}

#[derive(Serialize)]
pub struct PullRequest {
    id: i64,
    repository: String,
    number: i64,
    title: String,
    body: String,
    author: String,
    state: String,
    created_at: i64,
}

#[derive(Deserialize)]
pub struct NewPullRequest {
    repository: String,
    title: String,
    body: String,
    author: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Approved,
    ChangesRequested,
    Commented,
}

#[derive(Deserialize)]
pub struct NewReview {
    reviewer: String,
    state: Verdict,
    body: String,
}

#[derive(Serialize)]
pub struct Id<T> {
    id: T,
}

#[derive(Serialize)]
pub struct Stats {
    repositories: i64,
    pull_requests: i64,
    reviews: i64,
}

#[derive(Deserialize)]
pub struct Search {
    limit: Option<u32>,
    q: Option<String>,
}

pub fn check_health(store: &Store) -> Result<()> {
    Ok(store.shared().query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?)
}

pub fn organizations(store: &Store) -> Result<Vec<Organization>> {
    let conn = store.shared();
    let mut select =
        conn.prepare_cached("SELECT id, name, pull_request_count FROM organizations ORDER BY id")?;
    let organization = |row: &Row| {
        Ok(Organization { id: row.get(0)?, name: row.get(1)?, pull_request_count: row.get(2)? })
    };
    let organizations = select.query_map([], organization)?.collect::<Result<_, _>>()?;
    Ok(organizations)
}

/// Makes the tenant's database first: what data.db lists can be opened, and a
/// request that was cut off between the two can be sent again.
pub fn create_organization(store: &Store, new: &NewOrganization) -> Result<Id<String>> {
    if !store::is_valid_id(&new.id) {
        return refuse(StatusCode::BAD_REQUEST, "id must be 1 to 32 characters of a-z, 0-9 and _");
    }
    check_present(&[("name", &new.name)])?;
    store.create_tenant(&new.id)?;
    let insert = "INSERT INTO organizations (id, name) VALUES (?, ?) ON CONFLICT DO NOTHING";
    if store.shared().execute(insert, (&new.id, &new.name))? == 0 {
        return refuse(StatusCode::CONFLICT, format!("the organization {} exists", new.id));
    }
    Ok(Id { id: new.id.clone() })
}

/// The newest pull requests, of all or of those whose title has all words of `q`.
pub fn pull_requests(
    store: &Store,
    organization: &str,
    search: &Search,
) -> Result<Vec<PullRequest>> {
    let limit = search.limit.unwrap_or(50).min(500);
    with_tenant(store, organization, |conn| {
        let expression = search.q.as_deref().and_then(match_expression);
        let filter = match expression {
            Some(_) => {
                "p.id IN (SELECT rowid FROM pull_requests_fts WHERE pull_requests_fts MATCH ?2)"
            }
            None => "?2 IS NULL",
        };
        let mut select = conn.prepare_cached(&format!(
            "SELECT p.id, r.name AS repository, p.number, p.title, p.body, p.author, p.state, p.created_at
             FROM pull_requests p JOIN repositories r ON r.id = p.repository_id
             WHERE {filter} ORDER BY p.id DESC LIMIT ?1"
        ))?;
        let rows =
            select.query_map((limit, expression), pull_request)?.collect::<Result<_, _>>()?;
        Ok(rows)
    })
}

/// Commits to the tenant's database, and after that counts in data.db. A copy of
/// both that is no moment of the service shows: it counts more than there are.
pub fn create_pull_request(
    store: &Store,
    organization: &str,
    new: &NewPullRequest,
) -> Result<Id<i64>> {
    check_present(&[
        ("repository", &new.repository),
        ("title", &new.title),
        ("author", &new.author),
    ])?;
    let id = with_tenant(store, organization, |conn| {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.prepare_cached("INSERT INTO repositories (name) VALUES (?) ON CONFLICT DO NOTHING")?
            .execute([&new.repository])?;
        let id = tx
            .prepare_cached(
                "INSERT INTO pull_requests (repository_id, number, title, body, author)
                 SELECT r.id,
                        1 + coalesce((SELECT max(number) FROM pull_requests WHERE repository_id = r.id), 0),
                        ?, ?, ?
                 FROM repositories r WHERE r.name = ? RETURNING id",
            )?
            .query_one((&new.title, &new.body, &new.author, &new.repository), |row| row.get(0))?;
        tx.commit()?;
        Ok(id)
    })?;
    store
        .shared()
        .prepare_cached(
            "UPDATE organizations SET pull_request_count = pull_request_count + 1 WHERE id = ?",
        )?
        .execute([organization])?;
    Ok(Id { id })
}

pub fn create_review(
    store: &Store,
    organization: &str,
    pull_request: i64,
    new: &NewReview,
) -> Result<Id<i64>> {
    check_present(&[("reviewer", &new.reviewer)])?;
    let state = match new.state {
        Verdict::Approved => "approved",
        Verdict::ChangesRequested => "changes_requested",
        Verdict::Commented => "commented",
    };
    let id = with_tenant(store, organization, |conn| {
        let mut insert = conn.prepare_cached(
            "INSERT INTO reviews (pull_request_id, reviewer, state, body)
             SELECT id, ?2, ?3, ?4 FROM pull_requests WHERE id = ?1 RETURNING id",
        )?;
        Ok(insert
            .query_one((pull_request, &new.reviewer, state, &new.body), |row| row.get(0))
            .optional()?)
    })?;
    match id {
        Some(id) => Ok(Id { id }),
        None => refuse(StatusCode::NOT_FOUND, format!("no pull request {pull_request}")),
    }
}

pub fn stats(store: &Store, organization: &str) -> Result<Stats> {
    with_tenant(store, organization, |conn| {
        // One statement, so that the three are of one moment.
        let mut select = conn.prepare_cached(
            "SELECT (SELECT count(*) FROM repositories),
                    (SELECT count(*) FROM pull_requests),
                    (SELECT count(*) FROM reviews)",
        )?;
        let stats = |row: &Row| {
            Ok(Stats {
                repositories: row.get(0)?,
                pull_requests: row.get(1)?,
                reviews: row.get(2)?,
            })
        };
        Ok(select.query_one([], stats)?)
    })
}

/// Asks data.db each time, although the connection is kept: an organization may
/// have gone with a restored set.
fn with_tenant<T>(
    store: &Store,
    id: &str,
    work: impl FnOnce(&mut Connection) -> Result<T>,
) -> Result<T> {
    let exists =
        store.shared().prepare_cached("SELECT 1 FROM organizations WHERE id = ?")?.exists([id])?;
    if !exists {
        return refuse(StatusCode::NOT_FOUND, format!("no organization {id}"));
    }
    let tenant = store.tenant(id)?;
    let mut conn = store::lock(&tenant);
    work(&mut conn)
}

fn check_present(fields: &[(&str, &str)]) -> Result<()> {
    match fields.iter().find(|(_, value)| value.trim().is_empty()) {
        Some((field, _)) => refuse(StatusCode::BAD_REQUEST, format!("{field} must not be empty")),
        None => Ok(()),
    }
}

/// Every word as a quoted string, because FTS5 would read a bare one as its query
/// language. A NUL would end the query in the middle of a string.
fn match_expression(q: &str) -> Option<String> {
    let words = q.split(|c: char| c.is_whitespace() || c == '\0').filter(|word| !word.is_empty());
    let quoted: Vec<String> =
        words.map(|word| format!("\"{}\"", word.replace('"', "\"\""))).collect();
    (!quoted.is_empty()).then(|| quoted.join(" "))
}

fn pull_request(row: &Row) -> rusqlite::Result<PullRequest> {
    Ok(PullRequest {
        id: row.get("id")?,
        repository: row.get("repository")?,
        number: row.get("number")?,
        title: row.get("title")?,
        body: row.get("body")?,
        author: row.get("author")?,
        state: row.get("state")?,
        created_at: row.get("created_at")?,
    })
}
