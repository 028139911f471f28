//! `/api/v1/deaths`: the record's bytes as the ledger keeps them, never made anew.
//!
//! Beside the records an answer says how far it looked (`last`, a place in the ledger) in which `run` of the daemon. Whoever asks for
//! what is `after` that misses nothing; if the run is another one, places may be counted anew.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query as Pairs, State as Shared};
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use uuid::Uuid;

use super::chunks::page;
use super::query::{Query, refuse};
use super::{State, answer};
use crate::ledger::{Entry, Filter, Ledger, Viewer};

/// Entries that are looked at in one go.
const BATCH: usize = 256;
/// And in one answer: a filter that lets nothing through must not keep a thread busy for long.
const LOOKED_AT: usize = 64 * BATCH;

/// What a look into the ledger found.
struct Found {
    entries: Vec<Arc<Entry>>,
    /// Place up to which it looked.
    last: u64,
    /// Deaths after the cursor that are kept no more.
    missed: u64,
}

/// `{"run":…,"last":…,"deaths":[…]}`, newest first; with `after` oldest first.
pub(super) async fn list(Shared(state): Shared<Arc<State>>, query: Asked) -> Response {
    told(&state, query, None).await
}

/// The query of a request.
pub(super) type Asked =
    Result<Pairs<Vec<(String, String)>>, axum::extract::rejection::QueryRejection>;

/// The same, as far as `viewer` may see them.
pub(super) async fn told(state: &Arc<State>, query: Asked, viewer: Option<Viewer>) -> Response {
    let Ok(Pairs(pairs)) = query else {
        return answer::error(
            StatusCode::BAD_REQUEST,
            "the query cannot be read: must be key=value pairs joined by `&`",
        );
    };
    let query = match Query::parse(&pairs, Timestamp::now()) {
        Ok(query) => Query { filter: Filter { viewer, ..query.filter }, ..query },
        Err(error) => return answer::error(StatusCode::BAD_REQUEST, &error),
    };
    let run = state.status.run();
    match look(state, move |ledger| Found::by(ledger, &query)).await {
        Ok(found) => {
            answer::json_text(StatusCode::OK, Body::new(page(found.begin(run), &found.entries)))
        }
        Err(response) => response,
    }
}

/// The one record with an id, or 404.
pub(super) async fn one(Shared(state): Shared<Arc<State>>, Path(id): Path<String>) -> Response {
    told_one(&state, &id, None).await
}

/// The same, if `viewer` may see it.
pub(super) async fn told_one(state: &Arc<State>, id: &str, viewer: Option<Viewer>) -> Response {
    let Ok(id) = id.parse() else {
        return answer::error(
            StatusCode::BAD_REQUEST,
            &refuse("id", id, "must be the `id` of a record, a UUID"),
        );
    };
    let filter = Filter { id: Some(id), viewer, ..Filter::default() };
    match look(state, move |ledger| ledger.newest(&filter, 1))
        .await
        .map(|found| found.into_iter().next())
    {
        Ok(Some(entry)) => answer::json_text(StatusCode::OK, entry.json.clone().into()),
        Ok(None) => answer::error(StatusCode::NOT_FOUND, "no death with this id is kept"),
        Err(response) => response,
    }
}

/// Looks into the ledger, which may have to read the disk.
pub(super) async fn look<T: Send + 'static>(
    state: &State,
    look: impl FnOnce(&Ledger) -> T + Send + 'static,
) -> Result<T, Response> {
    let ledger = Arc::clone(&state.ledger);
    tokio::task::spawn_blocking(move || look(&ledger)).await.map_err(|_| {
        answer::error(StatusCode::INTERNAL_SERVER_ERROR, "the ledger could not be read")
    })
}

impl Found {
    fn by(ledger: &Ledger, query: &Query) -> Self {
        match query.after {
            Some(after) => Self::after(ledger, after, &query.filter, query.limit),
            None => Self::newest(ledger, &query.filter, query.limit),
        }
    }

    fn newest(ledger: &Ledger, filter: &Filter, limit: usize) -> Self {
        // Before the look: what comes meanwhile is told twice rather than never.
        let last = *ledger.changed().borrow();
        Self { entries: ledger.newest(filter, limit), last, missed: 0 }
    }

    fn after(ledger: &Ledger, after: u64, filter: &Filter, limit: usize) -> Self {
        let mut found = Self { entries: Vec::new(), last: after, missed: 0 };
        for _ in 0..LOOKED_AT / BATCH {
            let batch = ledger.read_after(found.last, BATCH);
            found.missed = found.missed.saturating_add(batch.skipped);
            found.last = found.last.saturating_add(batch.skipped);
            if batch.entries.is_empty() {
                break;
            }
            for entry in batch.entries {
                found.last = entry.seq;
                if filter.lets(&entry) {
                    found.entries.push(entry);
                }
                if found.entries.len() == limit {
                    return found;
                }
            }
        }
        found
    }

    /// The answer up to its records.
    fn begin(&self, run: Uuid) -> String {
        let mut begin = format!(r#"{{"run":"{run}","last":{},"#, self.last);
        if self.missed > 0 {
            // Writing to a String cannot fail.
            let _ = write!(begin, r#""missed":{},"#, self.missed);
        }
        begin + r#""deaths":["#
    }
}
