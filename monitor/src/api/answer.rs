//! Answers that several routes give.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// JSON that exists already.
pub(super) fn json_text(status: StatusCode, json: Body) -> Response {
    let mut response = Response::new(json);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A value as JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(json) => json_text(status, Body::from(json)),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// `{"error": "…"}`.
pub(super) fn error(status: StatusCode, error: &str) -> Response {
    #[derive(Serialize)]
    struct Problem<'a> {
        error: &'a str,
    }
    json(status, &Problem { error })
}

/// Deaths, where none are shown.
pub(super) async fn no_deaths() -> Response {
    error(StatusCode::FORBIDDEN, "deaths are not shown here (web.deaths is false)")
}

/// A path that nothing answers to.
pub(super) async fn no_such_path() -> Response {
    error(StatusCode::NOT_FOUND, "no such path; `/` lists those that exist")
}

/// A method other than GET and HEAD.
pub(super) async fn read_only() -> Response {
    error(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered")
}
