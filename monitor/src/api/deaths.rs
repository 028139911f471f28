//! `/api/v1/deaths`: the record's bytes as the ledger keeps them, never made anew.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State as Shared};
use axum::http::StatusCode;
use axum::response::Response;
use jiff::{SignedDuration, Timestamp};

use super::chunks::page;
use super::{State, answer};
use crate::ledger::Filter;

/// Largest `limit`.
pub const MAX_LIMIT: usize = 1000;
/// `limit` unless given.
const LIMIT: usize = 100;

/// `{"deaths":[…]}`, newest first.
pub(super) async fn list(
    Shared(state): Shared<Arc<State>>,
    query: Result<Query<Vec<(String, String)>>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Ok(Query(pairs)) = query else {
        return answer::error(
            StatusCode::BAD_REQUEST,
            "the query cannot be read: must be key=value pairs joined by `&`",
        );
    };
    match parse(&pairs, Timestamp::now()) {
        Ok((filter, limit)) => answer::json_text(
            StatusCode::OK,
            Body::new(page(br#"{"deaths":["#, &state.ledger.find(filter, limit).await)),
        ),
        Err(error) => answer::error(StatusCode::BAD_REQUEST, &error),
    }
}

/// The one record with an id, or 404.
pub(super) async fn one(Shared(state): Shared<Arc<State>>, Path(id): Path<String>) -> Response {
    let Ok(id) = id.parse() else {
        return answer::error(
            StatusCode::BAD_REQUEST,
            &refuse("id", &id, "must be the `id` of a record, a UUID"),
        );
    };
    let filter = Filter { id: Some(id), ..Filter::default() };
    match state.ledger.find(filter, 1).await.first() {
        Some(entry) => answer::json_text(StatusCode::OK, entry.json.clone().into()),
        None => answer::error(StatusCode::NOT_FOUND, "no death with this id is kept"),
    }
}

/// The query's meaning, or what is wrong with it: key, value, and what is allowed.
fn parse(pairs: &[(String, String)], now: Timestamp) -> Result<(Filter, usize), String> {
    let (mut filter, mut limit) = (Filter::default(), None);
    for (key, value) in pairs {
        let twice = match key.as_str() {
            "since" => filter.since.replace(since(value, now)?).is_some(),
            "limit" => limit.replace(number(key, value, 1, MAX_LIMIT as u64)?).is_some(),
            "pid" => filter.pid.replace(number(key, value, 1, u64::from(u32::MAX))?).is_some(),
            "job" if value.is_empty() => return Err(refuse(key, value, "must be the id of a job")),
            "job" => filter.job.replace(value.clone()).is_some(),
            _ => {
                return Err(format!(
                    "{}: no such parameter; allowed are since, limit, pid, job",
                    short(key)
                ));
            }
        };
        if twice {
            return Err(format!("{key}: given twice"));
        }
    }
    Ok((filter, limit.unwrap_or(LIMIT)))
}

fn since(value: &str, now: Timestamp) -> Result<Timestamp, String> {
    let ago = || {
        let span = value.parse::<SignedDuration>().ok().filter(|span| !span.is_negative())?;
        now.checked_sub(span).ok()
    };
    value.parse().ok().or_else(ago).ok_or_else(|| {
        refuse("since", value, "must be a time such as 2026-01-31T12:00:00Z (in a URL, write + as %2B), or a time span such as 15m")
    })
}

fn number<N: TryFrom<u64>>(key: &str, value: &str, min: u64, max: u64) -> Result<N, String> {
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    let number = value.parse().ok().filter(|n| digits && (min..=max).contains(n));
    number
        .and_then(|n| N::try_from(n).ok())
        .ok_or_else(|| refuse(key, value, &format!("must be a whole number from {min} to {max}")))
}

fn refuse(key: &str, value: &str, allowed: &str) -> String {
    format!("{key}: {} is not allowed: {allowed}", short(value))
}

/// What a stranger sent, quoted and cut.
fn short(text: &str) -> String {
    format!("{:?}", text.chars().take(100).collect::<String>())
}
