//! Pages for a browser: recent deaths, one death, this host. Made here and whole; what runs in the browser only keeps the list up to date.
//!
//! * Nothing is loaded from elsewhere, and the policy that goes with each page lets nothing be: no inline script or style, no markup by script.
//! * Every text is escaped by the templates (maud), and each that may be a stranger's goes through [`shown::Shown`].
//! * It is read only, and bounded: 200 deaths on a page, 100 that hang together with one.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query as Pairs, State as Shared};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;
use jiff::{SignedDuration, Timestamp};
use maud::html;
use uuid::Uuid;

use super::{State, deaths::look};
use crate::death::Death;
use crate::ledger::{Entry, Filter, Ledger};

mod death;
mod host;
mod layout;
mod link;
mod list;
mod plot;
mod shown;
#[cfg(test)]
mod tests;

use host::Host;
use layout::{Here, document};
use list::{Asked, Found, List};

/// What the browser may do. Scripts and styles come from here alone, and no script may turn a text into markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; \
     base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";
/// Deaths that hang together with one, of each kind, at most.
const TOGETHER: usize = 100;
/// How far from a death others are looked for that hang together with it. The OOM killer's victims go within moments, or are stuck.
const AROUND: SignedDuration = SignedDuration::from_mins(10);

const CSS: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const ICON: &str = include_str!("icon.svg");

/// The pages that show deaths.
pub(super) fn of_deaths() -> Router<Arc<State>> {
    Router::new().route("/", get(list)).route("/deaths/{id}", get(one))
}

/// The others, and what all of them are made of.
pub(super) fn of_host() -> Router<Arc<State>> {
    Router::new()
        .route("/host", get(this_host))
        .route("/assets/page.css", get(|| asset("text/css; charset=utf-8", CSS)))
        .route("/assets/page.js", get(|| asset("text/javascript; charset=utf-8", SCRIPT)))
        .route("/assets/icon.svg", get(|| asset("image/svg+xml", ICON)))
}

/// The first page where no deaths are shown.
pub(super) async fn without_deaths(Shared(state): Shared<Arc<State>>) -> Response {
    this_host(Shared(state)).await
}

async fn list(
    Shared(state): Shared<Arc<State>>,
    pairs: Result<Pairs<Vec<(String, String)>>, QueryRejection>,
) -> Response {
    let (asked, filter) = match pairs {
        Ok(Pairs(pairs)) => Asked::parse(pairs, Timestamp::now()),
        Err(_) => (
            Asked::default(),
            Err("the address cannot be read: its query must be key=value pairs joined by `&`"
                .to_owned()),
        ),
    };
    let found = match filter {
        Err(wrong) => Err(wrong),
        Ok(filter) => {
            let (limit, run) = (asked.limit(), state.status.run());
            let found = look(&state, move |ledger| {
                // Before the look: what comes meanwhile is shown twice rather than never.
                let last = *ledger.changed().borrow();
                let mut entries = ledger.newest(&filter, limit + 1);
                let more = entries.len() > limit;
                entries.truncate(limit);
                Found { entries, more, last, run }
            });
            match found.await {
                Ok(found) => Ok(found),
                Err(_) => return unreadable(&state),
            }
        }
    };
    let list = List { asked: &asked, found, host: &host(&state) };
    answer(list.status(), list.html())
}

async fn one(Shared(state): Shared<Arc<State>>, Path(id): Path<String>) -> Response {
    let Ok(id) = id.parse::<Uuid>() else {
        return problem(
            &state,
            StatusCode::NOT_FOUND,
            "There is no such page: a death is known by the id of its record, a UUID.",
        );
    };
    let found = look(&state, move |ledger| {
        let filter = Filter { id: Some(id), ..Filter::default() };
        let entry = ledger.newest(&filter, 1).pop()?;
        let death = Arc::clone(entry.death()?);
        let (group, following) = together(ledger, &death);
        Some((death, group, following))
    });
    match found.await {
        Err(_) => unreadable(&state),
        Ok(None) => problem(
            &state,
            StatusCode::NOT_FOUND,
            "No death with this id is kept. It may have given way to newer ones (ledger.max_deaths, ledger.max_bytes, ledger.max_age).",
        ),
        Ok(Some((death, group, following))) => {
            let page = death::Page {
                death: &death,
                group: &group,
                following: &following,
                links: &state.links,
                node: state.status.node(),
            };
            answer(StatusCode::OK, page.html())
        }
    }
}

/// The other victims of the same decision, and the deaths that follow from this one.
fn together(ledger: &Ledger, death: &Death) -> (Vec<Arc<Entry>>, Vec<Arc<Entry>>) {
    let around = Filter {
        since: death.time.checked_sub(AROUND).ok(),
        until: death.time.checked_add(AROUND).ok(),
        ..Filter::default()
    };
    let group = match &death.oom {
        None => Vec::new(),
        Some(oom) => {
            let filter = Filter { incident: Some(oom.incident_ktime_ns), ..around.clone() };
            ledger.newest(&filter, TOGETHER)
        }
    };
    // Of another boot the same moment is another decision.
    let same_boot = |entry: &Arc<Entry>| entry.death().is_some_and(|d| d.boot_id == death.boot_id);
    let group = group.into_iter().filter(same_boot).collect();
    let filter = Filter { follows: Some(death.id), ..around };
    (group, ledger.newest(&filter, TOGETHER))
}

async fn this_host(Shared(state): Shared<Arc<State>>) -> Response {
    answer(StatusCode::OK, host(&state).html())
}

fn host(state: &State) -> Host<'_> {
    Host { status: &state.status, ledger: state.ledger.health(), deaths: state.deaths }
}

fn unreadable(state: &State) -> Response {
    problem(state, StatusCode::INTERNAL_SERVER_ERROR, "The ledger could not be read.")
}

fn problem(state: &State, status: StatusCode, words: &str) -> Response {
    let main = html! {
        h1 { (status.canonical_reason().unwrap_or("That did not work")) }
        p { (words) }
        p { a href="/" { "All deaths" } }
    };
    answer(status, document(Here::Elsewhere, "Not found", state.status.node(), &main))
}

fn answer(status: StatusCode, html: String) -> Response {
    (status, HEADERS, Html(html)).into_response()
}

const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

async fn asset(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'"),
        // Another version of the daemon may answer next.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}
