//! An answer that says no: in words, as JSON, and counted.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::super::answer;
use super::peer::Unknown;
use super::query::BadQuery;
use crate::metrics::Rejected;
use crate::tags::{BadTags, Full};

/// Why a request was rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) reason: Rejected,
    pub(super) text: String,
    /// When to ask again.
    pub(super) retry_after: Option<Duration>,
}

impl Refusal {
    pub(super) fn new(reason: Rejected, text: impl Into<String>) -> Self {
        Self { reason, text: text.into(), retry_after: None }
    }

    pub(super) const fn status(&self) -> StatusCode {
        match self.reason {
            Rejected::BadRequest => StatusCode::BAD_REQUEST,
            Rejected::Forbidden => StatusCode::FORBIDDEN,
            Rejected::NotFound => StatusCode::NOT_FOUND,
            Rejected::Method => StatusCode::METHOD_NOT_ALLOWED,
            Rejected::Conflict => StatusCode::CONFLICT,
            Rejected::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Rejected::Timeout => StatusCode::REQUEST_TIMEOUT,
            Rejected::Rate => StatusCode::TOO_MANY_REQUESTS,
            Rejected::Full => StatusCode::INSUFFICIENT_STORAGE,
            Rejected::Connections | Rejected::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = answer::error(self.status(), &self.text);
        if let Some(wait) = self.retry_after {
            // In whole seconds (RFC 9110, 10.2.3), so at least one.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response.extensions_mut().insert(self.reason);
        response
    }
}

impl From<BadQuery> for Refusal {
    fn from(bad: BadQuery) -> Self {
        Self::new(Rejected::BadRequest, bad.to_string())
    }
}

impl From<BadTags> for Refusal {
    fn from(bad: BadTags) -> Self {
        Self::new(Rejected::BadRequest, bad.to_string())
    }
}

impl From<Full> for Refusal {
    fn from(full: Full) -> Self {
        Self::new(Rejected::Full, full.to_string())
    }
}

impl From<Unknown> for Refusal {
    fn from(unknown: Unknown) -> Self {
        let reason = match unknown {
            Unknown::NotSeen => Rejected::Unavailable,
            Unknown::Gone => Rejected::Conflict,
        };
        Self::new(reason, unknown.to_string())
    }
}
