//! `/v1/tags/…`: what a worker is on, said by itself or by who started it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Path, RawQuery, State as Shared};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Serialize;

use super::super::answer;
use super::peer::Peer;
use super::refusal::Refusal;
use super::{State, blocking, query};
use crate::metrics::Rejected;
use crate::procfs::Process;
use crate::tags::TagSet;

/// Longest body of a request.
pub(super) const MAX_BODY: usize = 8 << 10;
/// Longest wait for it.
const BODY_WITHIN: Duration = Duration::from_secs(10);

type PathOf<'a> = Result<Path<String>, axum::extract::rejection::PathRejection>;

/// Sets the tags of a process, in place of those that it has. Answers with them.
pub(super) async fn put(
    Shared(state): Shared<Arc<State>>,
    Extension(peer): Extension<Arc<Peer>>,
    path: PathOf<'_>,
    RawQuery(query): RawQuery,
    request: Request<Body>,
) -> Result<Response, Refusal> {
    let tags = TagSet::parse(&body(request).await?)?;
    let target = target(&state, &peer, path, query).await?;
    state.tags.set(target.process, tags.clone(), peer.owner())?;
    state.metrics.set_tagged(state.tags.len());
    Ok(shown(&target, &tags))
}

/// The tags that were set for a process itself, or 404.
pub(super) async fn get(
    Shared(state): Shared<Arc<State>>,
    Extension(peer): Extension<Arc<Peer>>,
    path: PathOf<'_>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let target = target(&state, &peer, path, query).await?;
    let none = || Refusal::new(Rejected::NotFound, "the process has no tags of its own");
    state.tags.get(target.process).map(|tags| shown(&target, &tags)).ok_or_else(none)
}

/// Takes the tags of a process away; well also if it has none.
pub(super) async fn delete(
    Shared(state): Shared<Arc<State>>,
    Extension(peer): Extension<Arc<Peer>>,
    path: PathOf<'_>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let Target { process, .. } = target(&state, &peer, path, query).await?;
    state.tags.clear(process);
    state.metrics.set_tagged(state.tags.len());
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The process that a request is about.
struct Target {
    process: Process,
    /// The number that the peer knows it by.
    pid: u32,
}

/// The process that is meant, if it lives and the peer may speak for it.
async fn target(
    state: &Arc<State>,
    peer: &Arc<Peer>,
    path: PathOf<'_>,
    query: Option<String>,
) -> Result<Target, Refusal> {
    let unreadable =
        |_| Refusal::new(Rejected::BadRequest, "the path cannot be read: must be UTF-8");
    let pid = query::process(&path.map_err(unreadable)?.0)?;
    let start = query::start(query.as_deref().unwrap_or_default())?;
    let (state, peer) = (Arc::clone(state), Arc::clone(peer));
    blocking(move || allowed(&state, &peer, pid, start)).await?
}

fn allowed(
    state: &State,
    peer: &Peer,
    pid: Option<u32>,
    start: Option<u64>,
) -> Result<Target, Refusal> {
    let proc = &state.host.proc;
    let ended = || Refusal::new(Rejected::Conflict, "the process has ended");
    let found = match pid {
        None => peer.process,
        Some(pid) => state.host.find(peer, pid).ok_or_else(|| {
            Refusal::new(
                Rejected::NotFound,
                format!("there is no process {pid}, as you see processes"),
            )
        })?,
    };
    if found != peer.process && !peer.privileged && !proc.descends(found, peer.process) {
        let text = "the process is neither you nor a descendant of yours, and you are not root (see docs/api.md)";
        return Err(Refusal::new(Rejected::Forbidden, text));
    }
    if let Some(start) = start.filter(|start| *start != found.start_ticks) {
        let text = format!(
            "the process is another: it was started at {}, not at {start}",
            found.start_ticks
        );
        return Err(Refusal::new(Rejected::Conflict, text));
    }
    if !proc.runs(found) {
        return Err(ended());
    }
    let pid = state.host.number(peer, found).ok_or_else(ended)?;
    Ok(Target { process: found, pid })
}

fn shown(target: &Target, tags: &TagSet) -> Response {
    #[derive(Serialize)]
    struct Shown<'a> {
        pid: u32,
        start: u64,
        tags: &'a TagSet,
    }
    let start = target.process.start_ticks;
    answer::json(StatusCode::OK, &Shown { pid: target.pid, start, tags })
}

async fn body(request: Request<Body>) -> Result<Vec<u8>, Refusal> {
    let body = Limited::new(request.into_body(), MAX_BODY).collect();
    match tokio::time::timeout(BODY_WITHIN, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes().to_vec()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::new(
            Rejected::TooLarge,
            format!(
                "the body is longer than {MAX_BODY} bytes; tags may have {} in all",
                crate::tags::set::MAX_BYTES
            ),
        )),
        Ok(Err(_)) => Err(Refusal::new(Rejected::BadRequest, "the body cannot be read")),
        Err(_) => Err(Refusal::new(Rejected::Timeout, "the body did not come within 10 s")),
    }
}
