//! The API for whoever runs the node, over the socket too: so it can be asked where the TCP addresses want TLS or a login, or show no deaths. Each peer is
//! shown what it may see.

use std::sync::Arc;

use axum::extract::{Extension, Path, State as Shared};
use axum::response::{IntoResponse as _, Response};

use super::super::deaths::{Asked, told, told_one};
use super::super::{cgroups, health};
use super::State;
use super::peer::Peer;
use super::refusal::Refusal;
use crate::metrics::Rejected;

/// `/api/v1/deaths`.
pub(super) async fn list(
    Shared(state): Shared<Arc<State>>,
    Extension(peer): Extension<Arc<Peer>>,
    query: Asked,
) -> Result<Response, Refusal> {
    Ok(told(api(&state)?, query, peer.viewer()).await)
}

/// `/api/v1/deaths/{id}`.
pub(super) async fn one(
    Shared(state): Shared<Arc<State>>,
    Extension(peer): Extension<Arc<Peer>>,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    Ok(told_one(api(&state)?, &id, peer.viewer()).await)
}

/// `/api/v1/cgroups`.
pub(super) async fn cgroups(
    Shared(state): Shared<Arc<State>>,
    Extension(peer): Extension<Arc<Peer>>,
    query: Asked,
) -> Response {
    let answer = match api(&state) {
        Ok(api) if peer.privileged => Ok(cgroups::told(api, query).await),
        Ok(_) => Err(Refusal::new(
            Rejected::Forbidden,
            "the memory of all cgroups is shown to the privileged only: root of this host, with CAP_SYS_PTRACE",
        )),
        Err(refusal) => Err(refusal),
    };
    answer.into_response()
}

/// `/api/v1/status`.
pub(super) async fn status(
    Shared(state): Shared<Arc<State>>,
    Extension(peer): Extension<Arc<Peer>>,
) -> Response {
    let answer = match api(&state) {
        Ok(api) if peer.privileged => Ok(health::all(api, true)),
        Ok(_) => Err(Refusal::new(
            Rejected::Forbidden,
            "how the daemon fares is told to the privileged only: root of this host, with CAP_SYS_PTRACE",
        )),
        Err(refusal) => Err(refusal),
    };
    answer.into_response()
}

fn api(state: &State) -> Result<&Arc<super::super::State>, Refusal> {
    let absent = || Refusal::new(Rejected::Unavailable, "the daemon is starting");
    state.api.as_ref().ok_or_else(absent)
}
