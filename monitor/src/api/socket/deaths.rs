//! `GET /v1/deaths`: what happened to a process, a job or a container. Dead, stuck, alive, or not known, and never one for another.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, RawQuery, State as Shared};
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use super::super::{answer, chunks::page};
use super::peer::{Named, Peer};
use super::query::{DeathsQuery, Subject};
use super::refusal::Refusal;
use super::{State, blocking};
use crate::clock::Clock;
use crate::death;
use crate::ledger::{Entry, Filter};
use crate::metrics::Rejected;
use crate::procfs::{Process, tick_ns};

/// New deaths that are looked at in one go.
const BATCH: usize = 256;

/// Answers, after `wait` at the latest.
pub(super) async fn get(
    Shared(state): Shared<Arc<State>>,
    Extension(peer): Extension<Arc<Peer>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let query = DeathsQuery::parse(query.as_deref().unwrap_or_default(), Timestamp::now())?;
    let filter = filter(&query, &peer)?;
    let deadline = Instant::now() + query.wait;
    // Subscribed before the look: what comes after it is not missed.
    let mut changed = state.ledger.changed();
    let mut seen = *changed.borrow_and_update();
    let mut found = state.ledger.find(filter.clone(), query.limit).await;
    while !is_over(&found) {
        let news = tokio::select! {
            news = timeout_at(deadline, changed.changed()) => news,
            () = state.stop.cancelled() => break,
        };
        if !matches!(news, Ok(Ok(()))) {
            break;
        }
        changed.borrow_and_update();
        if any_after(&state, &mut seen, &filter).await {
            found = state.ledger.find(filter.clone(), query.limit).await;
        }
    }
    if !found.is_empty() {
        return Ok(told(if is_over(&found) { "dead" } else { "stuck" }, &found));
    }
    let (state, peer) = (Arc::clone(&state), Arc::clone(&peer));
    blocking(move || alive(&state, &peer, &query.subject)).await
}

/// Whether one of them is dead. Who is stuck is still to die.
fn is_over(found: &[Arc<Entry>]) -> bool {
    found.iter().any(|entry| entry.death().is_some_and(|death| death.state == death::State::Dead))
}

/// Whether a death after the cursor is meant; moves the cursor.
async fn any_after(state: &State, seen: &mut u64, filter: &Filter) -> bool {
    let mut any = false;
    loop {
        let batch = state.ledger.next(*seen, BATCH).await;
        let Some(last) = batch.entries.last() else { return any };
        *seen = last.seq;
        any |= batch.entries.iter().any(|entry| filter.lets(entry));
    }
}

fn filter(query: &DeathsQuery, peer: &Peer) -> Result<Filter, Refusal> {
    let mut filter = Filter { since: query.since, viewer: peer.viewer(), ..Filter::default() };
    match &query.subject {
        Subject::Process { pid, start_ticks } => {
            filter.start_ticks = *start_ticks;
            match peer.names(*pid) {
                Named::Here(pid) => filter.pid = Some(pid),
                Named::There(number) => filter.ns_pid = Some(number),
                Named::Hidden => {
                    return Err(Refusal::new(
                        Rejected::Unavailable,
                        "the daemon may not look at your pid namespace, so it does not know whom you mean by a pid: it lacks CAP_SYS_PTRACE",
                    ));
                }
            }
        }
        Subject::Job(job) => filter.job = Some(job.clone()),
        Subject::Container(container) => filter.container = Some(container.clone()),
    }
    Ok(filter)
}

fn told(state: &'static str, found: &[Arc<Entry>]) -> Response {
    let begin = match state {
        "dead" => br#"{"state":"dead","deaths":["#.as_slice(),
        _ => br#"{"state":"stuck","deaths":["#,
    };
    answer::json_text(StatusCode::OK, Body::new(page(begin, found)))
}

/// No record is there: whether it lives, so far as the peer may know.
fn alive(state: &State, peer: &Peer, subject: &Subject) -> Response {
    #[derive(Serialize)]
    struct Alive {
        state: &'static str,
        pid: u32,
        start: u64,
        #[serde(serialize_with = "serialize_display")]
        since: Timestamp,
    }
    #[derive(Serialize)]
    struct Unknown {
        state: &'static str,
        why: &'static str,
    }
    let host = &state.host;
    let lives = |process: &Process| host.proc.runs(*process) && host.sees(peer, *process);
    let (found, why) = match subject {
        Subject::Process { pid, start_ticks } => {
            let process = host.find(peer, *pid);
            let process =
                process.filter(|found| start_ticks.is_none_or(|start| found.start_ticks == start));
            (
                process.filter(lives),
                "no such process lives, as you may see processes, and no record of its death is kept: it ended in peace, or its record is still to come (wait=2s), or it died before the daemon was started or too long ago (without `start` only the last minute is looked at)",
            )
        }
        Subject::Job(job) => {
            let tagged = state.tags.find(|tags| tags.get("job_id") == Some(job.as_str()));
            (
                tagged.into_iter().find(lives),
                "no death of this job is known, and no process that lives has it as its tag `job_id`, as you may see them",
            )
        }
        Subject::Container(_) => (
            None,
            "no death in this container is known, as you may see them; whether it runs, its runtime knows",
        ),
    };
    match found.and_then(|process| Some((host.number(peer, process)?, process))) {
        Some((pid, process)) => {
            let since = Clock.wall(process.start_ticks.saturating_mul(tick_ns()));
            answer::json(
                StatusCode::OK,
                &Alive { state: "alive", pid, start: process.start_ticks, since },
            )
        }
        None => answer::json(StatusCode::OK, &Unknown { state: "unknown", why }),
    }
}

fn serialize_display<S: serde::Serializer>(
    time: &Timestamp,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}
