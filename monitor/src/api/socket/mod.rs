//! The Unix socket for workers and their supervisors: job tags, and what happened to whom. Plain HTTP/1.1, so that any language's standard
//! library speaks it. docs/api.md is the contract.
//!
//! * [`bind`] makes the socket, [`serve`] takes connections, [`peer`] is who is at the other end and what it may see and do.
//! * [`query`] reads what is asked for, [`limits`] holds it to its rate; every answer that says no is a [`refusal`].
//! * `tags`, `deaths` and `stream` answer, and `operator` for whoever runs the node.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Extension, Request, State as Shared};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, put};
use http_body_util::{BodyExt as _, Limited};
use tokio_util::sync::CancellationToken;

use crate::ledger::Ledger;
use crate::metrics::{Metrics, Rejected};
use crate::tags::Tags;

pub mod bind;
pub mod config;
mod deaths;
pub mod limits;
mod operator;
mod paced;
pub mod peer;
pub mod query;
mod refusal;
pub mod serve;
mod stream;
mod tags;
#[cfg(test)]
mod tests;

use limits::Rates;
use peer::{Host, Peer};
use refusal::Refusal;

/// Longest wait for the body of a request that is refused for its rate.
const TAKEN_WITHIN: Duration = Duration::from_secs(1);
/// What a look through all deaths counts as, in requests.
const COST_OF_LOOK: u32 = 5;

/// What the answers are made of.
#[derive(Debug)]
pub struct State {
    /// The deaths.
    pub ledger: Arc<Ledger>,
    /// What workers said.
    pub tags: Arc<Tags>,
    /// The numbers.
    pub metrics: Arc<Metrics>,
    /// This host.
    pub host: Host,
    /// Cancelled when the daemon ends.
    pub stop: CancellationToken,
    /// What the API for whoever runs the node is made of.
    api: Option<Arc<super::State>>,
    /// Names the ledger's numbers in cursors.
    run: u64,
    rates: Rates,
}

impl State {
    /// For one run of the daemon.
    #[must_use]
    pub fn new(
        ledger: Arc<Ledger>,
        tags: Arc<Tags>,
        metrics: Arc<Metrics>,
        host: Host,
        stop: CancellationToken,
    ) -> Self {
        // Its second half is random.
        let run = ledger.series();
        let rates = Rates::new(Instant::now());
        Self { ledger, tags, metrics, host, stop, api: None, run, rates }
    }

    /// The same, which answers also what the addresses of `web.listen_address` do.
    #[must_use]
    pub fn with_api(self, api: Arc<super::State>) -> Self {
        Self { api: Some(api), ..self }
    }
}

/// All routes. Each request must carry its [`Peer`].
fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/v1/tags/{process}", put(tags::put).get(tags::get).delete(tags::delete))
        .route("/v1/deaths", get(deaths::get))
        .route("/v1/deaths/stream", get(stream::get))
        .route("/api/v1/deaths", get(operator::list))
        .route("/api/v1/deaths/{id}", get(operator::one))
        .route("/api/v1/cgroups", get(operator::cgroups))
        .route("/api/v1/status", get(operator::status))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn_with_state(Arc::clone(&state), held))
        .with_state(state)
}

async fn no_such_path() -> Refusal {
    Refusal::new(
        Rejected::NotFound,
        "no such path; there are /v1/tags/self, /v1/tags/<pid>, /v1/deaths and /v1/deaths/stream, and for whoever runs the node /api/v1/deaths, /api/v1/deaths/<id> and /api/v1/status",
    )
}

async fn no_such_method() -> Refusal {
    Refusal::new(
        Rejected::Method,
        "no such method here: /v1/tags/… has GET, PUT and DELETE, all else has GET",
    )
}

/// Holds a request to its rate, and counts it if it is rejected.
async fn held(
    Shared(state): Shared<Arc<State>>,
    Extension(peer): Extension<Arc<Peer>>,
    request: Request,
    next: Next,
) -> Response {
    let by_pid = |query: &str| query.split('&').any(|part| part.starts_with("pid="));
    let path = request.uri().path();
    let is_look = (path.starts_with("/v1/deaths") || path.starts_with("/api/v1/deaths"))
        && !request.uri().query().is_some_and(by_pid);
    let cost = if is_look { COST_OF_LOOK } else { 1 };
    let response = match state.rates.take(peer.process, &peer.owner(), cost, Instant::now()) {
        Ok(()) => next.run(request).await,
        Err(wait) => {
            // Taken, or the connection would be closed on whoever is still sending it, and the answer not be read.
            let body = Limited::new(request.into_body(), tags::MAX_BODY).collect();
            let _ = tokio::time::timeout(TAKEN_WITHIN, body).await;
            let text = "too many requests: 100 a second are for each process, 1000 for each user, 5000 for all; a search by job or container and a stream count as 5";
            Refusal { retry_after: Some(wait), ..Refusal::new(Rejected::Rate, text) }
                .into_response()
        }
    };
    if let Some(reason) = response.extensions().get::<Rejected>() {
        state.metrics.rejected(*reason);
    }
    response
}

/// Does what may block, on a thread for that.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    let failed = |_| Refusal::new(Rejected::Unavailable, "the daemon is shutting down");
    tokio::task::spawn_blocking(work).await.map_err(failed)
}
