//! The HTTP face of the tracker.

use std::future::Future;
use std::io::{Write as _, stderr, stdout};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use axum::extract::{Path as UrlPath, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, body, middleware};
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;

use crate::store::Store;
use crate::tracker::{self, NewOrganization, NewPullRequest, NewReview, Search};

pub fn run(dir: &Path, listen: SocketAddr) -> Result<()> {
    let store = Store::open(dir)?;
    Runtime::new()?.block_on(async {
        // They are caught before anyone is told that we are ready.
        let (stop, give_up) = (signals(1)?, signals(2)?);
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("cannot listen on {listen}"))?;
        let mut out = stdout();
        writeln!(out, "listening on http://{}", listener.local_addr()?)?;
        out.flush()?;
        tokio::select! {
            result = until(stop, listener, store) => result,
            () = give_up => bail!("stopped by a second signal, with requests under way"),
        }
    })
}

/// Ends when we have been asked to stop `count` times.
fn signals(count: u32) -> Result<impl Future<Output = ()> + Send + 'static> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        for _ in 0..count {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
    })
}

/// Serves until `stop` is done and the requests under way are answered. The
/// databases are closed then, which moves the WAL into them.
pub async fn until(
    stop: impl Future<Output = ()> + Send + 'static,
    listener: TcpListener,
    store: Store,
) -> Result<()> {
    axum::serve(listener, router(Arc::new(store))).with_graceful_shutdown(stop).await?;
    Ok(())
}

fn router(store: Arc<Store>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/orgs", get(organizations).post(create_organization))
        .route("/orgs/{id}/pull-requests", get(pull_requests).post(create_pull_request))
        .route("/orgs/{id}/pull-requests/{pr}/reviews", post(create_review))
        .route("/orgs/{id}/stats", get(stats))
        .fallback(async || (StatusCode::NOT_FOUND, "no such route"))
        .method_not_allowed_fallback(async || {
            (StatusCode::METHOD_NOT_ALLOWED, "no such method on this route")
        })
        .layer(middleware::map_response(error_as_json))
        .with_state(store)
}

type Shared = State<Arc<Store>>;
type Answer = Result<Response, tracker::Error>;

async fn health(State(store): Shared) -> Answer {
    blocking(StatusCode::OK, move || {
        tracker::check_health(&store).map(|()| json!({ "status": "ok" }))
    })
    .await
}

async fn organizations(State(store): Shared) -> Answer {
    blocking(StatusCode::OK, move || tracker::organizations(&store)).await
}

async fn create_organization(State(store): Shared, Json(new): Json<NewOrganization>) -> Answer {
    blocking(StatusCode::CREATED, move || tracker::create_organization(&store, &new)).await
}

async fn pull_requests(
    State(store): Shared,
    UrlPath(id): UrlPath<String>,
    Query(search): Query<Search>,
) -> Answer {
    blocking(StatusCode::OK, move || tracker::pull_requests(&store, &id, &search)).await
}

async fn create_pull_request(
    State(store): Shared,
    UrlPath(id): UrlPath<String>,
    Json(new): Json<NewPullRequest>,
) -> Answer {
    blocking(StatusCode::CREATED, move || tracker::create_pull_request(&store, &id, &new)).await
}

async fn create_review(
    State(store): Shared,
    UrlPath((id, pr)): UrlPath<(String, i64)>,
    Json(new): Json<NewReview>,
) -> Answer {
    blocking(StatusCode::CREATED, move || tracker::create_review(&store, &id, pr, &new)).await
}

async fn stats(State(store): Shared, UrlPath(id): UrlPath<String>) -> Answer {
    blocking(StatusCode::OK, move || tracker::stats(&store, &id)).await
}

/// SQLite waits for disks and locks, so it runs beside the threads that serve.
async fn blocking<T: Serialize + Send + 'static>(
    status: StatusCode,
    work: impl FnOnce() -> tracker::Result<T> + Send + 'static,
) -> Answer {
    let answer = spawn_blocking(work).await??;
    Ok((status, Json(answer)).into_response())
}

impl IntoResponse for tracker::Error {
    fn into_response(self) -> Response {
        match self {
            Self::Refused(status, message) => (status, message).into_response(),
            Self::Failed(error) => {
                // The chain names files and SQL: it is for the log alone. A log
                // that cannot be written is no reason to refuse service.
                let _ = writeln!(stderr(), "error: {error:#}");
                (StatusCode::INTERNAL_SERVER_ERROR, "internal error").into_response()
            }
        }
    }
}

/// Our own errors and axum's rejections both come as plain text: here is the one
/// place that makes `{"error": …}` of it.
async fn error_as_json(response: Response) -> Response {
    if !response.status().is_client_error() && !response.status().is_server_error() {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let message = body::to_bytes(body, 64 * 1024).await.unwrap_or_default();
    let error = json!({ "error": String::from_utf8_lossy(&message) });
    let (json_parts, body) = Json(error).into_response().into_parts();
    parts.headers.extend(json_parts.headers);
    parts.headers.remove(CONTENT_LENGTH);
    Response::from_parts(parts, body)
}
