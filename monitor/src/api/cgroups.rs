//! `/api/v1/cgroups`: the cgroups whose memory is followed, those nearest to their limit first.

use std::sync::Arc;

use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::response::Response;

use super::deaths::Asked;
use super::query::refuse;
use super::{State, answer};
pub use crate::watch::{CgroupUse, Cgroups};

/// Cgroups of an answer, unless asked otherwise, and at most.
const LIMIT: usize = 100;
const MAX_LIMIT: usize = 10_000;

/// The list. `limit` is all that may be asked for.
pub(super) async fn list(Shared(state): Shared<Arc<State>>, query: Asked) -> Response {
    told(&state, query).await
}

/// The same, for whoever may see it.
pub(super) async fn told(state: &State, query: Asked) -> Response {
    let limit = match &query {
        Ok(pairs) => limit(&pairs.0),
        Err(_) => Err("the query cannot be read: must be key=value pairs joined by `&`".to_owned()),
    };
    let limit = match limit {
        Ok(limit) => limit,
        Err(why) => return answer::error(StatusCode::BAD_REQUEST, &why),
    };
    let Some(watch) = &state.watch else {
        let why = "cgroups are not followed (watch.enabled)";
        return answer::error(StatusCode::NOT_FOUND, why);
    };
    let Some(mut cgroups) = watch.list().await else {
        let why = "the watch over memory does not answer";
        return answer::error(StatusCode::SERVICE_UNAVAILABLE, why);
    };
    let nearness = |row: &CgroupUse| row.share.unwrap_or(-1.0);
    cgroups.cgroups.sort_by(|a, b| {
        nearness(b).total_cmp(&nearness(a)).then_with(|| b.usage_bytes.cmp(&a.usage_bytes))
    });
    cgroups.cgroups.truncate(limit);
    answer::json(StatusCode::OK, &cgroups)
}

fn limit(pairs: &[(String, String)]) -> Result<usize, String> {
    let mut limit = LIMIT;
    for (key, value) in pairs {
        if key != "limit" {
            return Err(refuse("key", key, "must be limit"));
        }
        let number = value.parse().ok().filter(|n| (1..=MAX_LIMIT).contains(n));
        limit = number.ok_or_else(|| {
            refuse("limit", value, &format!("must be a whole number from 1 to {MAX_LIMIT}"))
        })?;
    }
    Ok(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_all_that_may_be_asked_for() {
        let of = |key: &str, value: &str| limit(&[(key.to_owned(), value.to_owned())]);
        assert_eq!(limit(&[]), Ok(100));
        assert_eq!(of("limit", "10000"), Ok(10_000));
        assert!(of("limit", "10001").unwrap_err().contains("from 1 to 10000"));
        assert!(of("limit", "-1").is_err());
        assert!(of("pod", "x").unwrap_err().contains("must be limit"));
    }
}
