//! What each request passes before it is answered.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::super::answer;
use super::{Guard, host};

/// That the connection came in over loopback.
#[derive(Debug, Clone, Copy)]
pub(in crate::api) struct Loopback;

/// Lets a request through, or says no. Every answer gets the headers of the file that it does not set itself.
pub(in crate::api) async fn guard(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    let rules = guard.rules().await;
    let mut response = match &rules.login {
        Some(login) if !login.lets(request.headers().get(header::AUTHORIZATION)).await => {
            unauthorized()
        }
        None if rules.tls.is_none() && host::is_strange(&request, &guard.names) => answer::error(
            StatusCode::MISDIRECTED_REQUEST,
            "deaths are shown here to whoever asks this host by its own name, by localhost or by an address: a page of somewhere else must not read them through a name of its own",
        ),
        _ => next.run(request).await,
    };
    for (name, value) in &rules.headers {
        response.headers_mut().entry(name).or_insert_with(|| value.clone());
    }
    response
}

fn unauthorized() -> Response {
    let mut response = answer::error(
        StatusCode::UNAUTHORIZED,
        "a name and a password are asked for here (basic_auth_users of web.config_file)",
    );
    let ask = HeaderValue::from_static("Basic realm=\"killwatch\", charset=\"UTF-8\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, ask);
    response
}
