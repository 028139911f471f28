//! The daemon itself: metrics, health, readiness and status.

use std::sync::Arc;

use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use super::{State, Status, answer};
use crate::clock::Clock;
use crate::ledger::Health;
use crate::metrics::{CONTENT_TYPE, Counters};

/// Whether the process answers at all.
pub(super) async fn healthy() -> &'static str {
    "killwatch is healthy.\n"
}

/// Whether deaths are seen: 200, with a line for each lack, or 503 with a reason a line.
pub(super) async fn ready(Shared(state): Shared<Arc<State>>) -> Response {
    match state.status.ready() {
        Ok([]) => (StatusCode::OK, "killwatch is ready.\n").into_response(),
        Ok(lacks) => {
            (StatusCode::OK, format!("killwatch is ready, degraded:\n{}\n", lacks.join("\n")))
                .into_response()
        }
        Err(not) => (StatusCode::SERVICE_UNAVAILABLE, format!("killwatch is not ready:\n{not}"))
            .into_response(),
    }
}

/// OpenMetrics text.
pub(super) async fn metrics(Shared(state): Shared<Arc<State>>) -> Response {
    state.metrics.set_ready(state.status.ready().is_ok());
    state.metrics.set_degraded(state.status.is_degraded());
    state.metrics.set_ledger(&state.ledger.health(), Clock.now());
    match state.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(_) => answer::error(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written"),
    }
}

/// Everything that the daemon knows of itself.
pub(super) async fn status(Shared(state): Shared<Arc<State>>) -> Response {
    all(&state, state.deaths)
}

/// The same; with `places` also where kills were missed.
pub(super) fn all(state: &State, places: bool) -> Response {
    #[derive(Serialize)]
    struct Page<'a> {
        #[serde(flatten)]
        status: &'a Status,
        ledger: Kept,
        counters: Counters,
    }
    #[derive(Serialize)]
    struct Kept {
        /// Where; absent if in memory only.
        #[serde(skip_serializing_if = "Option::is_none")]
        file: Option<String>,
        deaths: u64,
        evicted: u64,
        /// Why they are told before they are on the disk.
        #[serde(skip_serializing_if = "Option::is_none")]
        degraded: Option<String>,
    }
    let Health { file, entries: deaths, evicted, degraded, .. } = state.ledger.health();
    let ledger = Kept { file, deaths, evicted, degraded };
    let page = Page { status: &state.status, ledger, counters: state.metrics.counters() };
    if places {
        return answer::json(StatusCode::OK, &page);
    }
    // Where kills were missed says whose they were.
    let mut page = serde_json::to_value(&page).unwrap_or_default();
    if let Some(page) = page.as_object_mut() {
        page.remove("missed");
    }
    answer::json(StatusCode::OK, &page)
}
