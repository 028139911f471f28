//! The page at `/`: recent deaths, what is asked for, and in short how the daemon fares.

use std::sync::Arc;

use axum::http::StatusCode;
use jiff::Timestamp;
use maud::{Markup, html};
use uuid::Uuid;

use super::super::query::Query;
use super::host::Host;
use super::layout::{Here, document, rows, table};
use super::link::query;
use super::shown::Shown;
use crate::death::Cause;
use crate::ledger::{Entry, Filter};

/// Deaths on a page unless asked for more.
const LIMIT: usize = 50;
/// At most so many.
const MAX_LIMIT: usize = 200;

/// What is asked for, as it was written, so that the form shows it again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// What the API knows too. A field that was left empty is not asked.
    pairs: Vec<(String, String)>,
    /// Deaths before this entry.
    before: Option<u64>,
    limit: Option<usize>,
}

impl Asked {
    /// What a form sends, and which deaths that means.
    ///
    /// # Errors
    /// One line on what is not allowed.
    pub(super) fn parse(
        pairs: Vec<(String, String)>,
        now: Timestamp,
    ) -> (Self, Result<Filter, String>) {
        let mut asked = Self::default();
        let mut wrong = None;
        for (key, value) in pairs {
            let value = value.trim();
            if value.is_empty() {
                continue;
            }
            let number = |max: u64| value.parse().ok().filter(|n| (1..=max).contains(n));
            match key.as_str() {
                "before" => asked.before = number(u64::MAX),
                "limit" => match number(MAX_LIMIT as u64).and_then(|n| usize::try_from(n).ok()) {
                    Some(limit) => asked.limit = Some(limit),
                    None => {
                        wrong =
                            Some(format!("limit: must be a whole number from 1 to {MAX_LIMIT}"));
                    }
                },
                // The form begins with the newest; what follows a cursor is the API's.
                "after" => wrong = Some("after: is for /api/v1/deaths".to_owned()),
                _ => asked.pairs.push((key, value.to_owned())),
            }
        }
        let filter = Query::parse(&asked.pairs, now)
            .map(|query| Filter { before: asked.before, ..query.filter });
        let filter = wrong.map_or(filter, Err);
        (asked, filter)
    }

    pub(super) fn limit(&self) -> usize {
        self.limit.unwrap_or(LIMIT)
    }

    fn value(&self, key: &str) -> &str {
        let found = self.pairs.iter().find(|(name, _)| name == key);
        found.map_or("", |(_, value)| value)
    }

    fn causes(&self) -> impl Iterator<Item = &str> {
        let of_cause = self.pairs.iter().filter(|(key, _)| key == "cause");
        of_cause.flat_map(|(_, value)| value.split(','))
    }

    /// What is asked, for an address.
    fn address(&self, path: &str, more: &[(&str, String)]) -> String {
        let asked = self.pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let limit = self.limit.map(|limit| limit.to_string());
        let limit = limit.as_deref().map(|limit| ("limit", limit));
        query(path, asked.chain(limit).chain(more.iter().map(|(key, value)| (*key, &**value))))
    }

    /// Whether new deaths would come at the top of the page.
    fn is_newest(&self) -> bool {
        self.before.is_none() && self.value("until").is_empty()
    }
}

/// What the page shows.
pub(super) struct List<'a> {
    pub(super) asked: &'a Asked,
    pub(super) found: Result<Found, String>,
    pub(super) host: &'a Host<'a>,
}

/// What the ledger has.
pub(super) struct Found {
    pub(super) entries: Vec<Arc<Entry>>,
    /// Whether there are older ones.
    pub(super) more: bool,
    /// How far it looked, in which run of the daemon.
    pub(super) last: u64,
    pub(super) run: Uuid,
}

impl List<'_> {
    pub(super) fn status(&self) -> StatusCode {
        if self.found.is_ok() { StatusCode::OK } else { StatusCode::BAD_REQUEST }
    }

    pub(super) fn html(&self) -> String {
        let main = html! {
            h1 { "Who was killed on this node, by what, and why" }
            (self.host.summary())
            (self.form())
            @match &self.found {
                Ok(found) => (self.deaths(found)),
                Err(_) => {}
            }
        };
        document(Here::Deaths, "Deaths", self.host.node(), &main)
    }

    fn form(&self) -> Markup {
        let wrong = self.found.as_ref().err();
        let described = wrong.map(|_| "wrong");
        let field = |key: &'static str, label: &'static str, hint: &'static str| {
            html! {
                div .field {
                    label for={ "f-" (key) } { (label) }
                    input id={ "f-" (key) } name=(key) value=(self.asked.value(key)) placeholder=(hint)
                        maxlength="300" autocomplete="off" spellcheck="false" aria-describedby=[described];
                }
            }
        };
        let chosen: Vec<&str> = self.asked.causes().collect();
        html! {
            section aria-labelledby="filter" {
                h2 #filter { "Filter" }
                @if let Some(wrong) = wrong { p #wrong .wrong role="alert" { (Shown(wrong)) } }
                form method="get" action="/" {
                    (field("since", "Since", "2h, or 2026-01-31T12:00:00Z"))
                    (field("until", "Until", "30m"))
                    div .field {
                        label for="f-cause" { "Cause" }
                        select id="f-cause" name="cause" aria-describedby=[described] {
                            option value="" { "any" }
                            @if let [several @ .., _] = chosen.as_slice() && !several.is_empty() {
                                option value=(chosen.join(",")) selected { (chosen.join(", ")) }
                            }
                            @for cause in Cause::ALL {
                                option value=(cause.as_str()) selected[chosen == [cause.as_str()]] { (cause.as_str()) }
                            }
                        }
                    }
                    (field("job", "Job", "its id"))
                    (field("pod", "Pod", "namespace/name"))
                    (field("container", "Container", "its id"))
                    (field("pid", "Process id", "4242"))
                    div .field .buttons {
                        button type="submit" { "Show" }
                        a href="/" { "All" }
                    }
                }
            }
        }
    }

    fn deaths(&self, found: &Found) -> Markup {
        let Found { entries, more, last, run } = found;
        let live = self.asked.is_newest();
        let feed = self.asked.address("/api/v1/deaths", &[]);
        let body = html! {
            @if live {
                tbody data-feed=(feed) data-last=(last) data-run=(run) data-limit=(self.asked.limit()) { (rows(entries)) }
            } @else {
                tbody { (rows(entries)) }
            }
        };
        let oldest = entries.last().filter(|_| *more).map(|entry| entry.seq);
        html! {
            section aria-labelledby="recent" {
                h2 #recent { @if live { "Recent deaths" } @else { "Older deaths" } }
                div .live {
                    p #live role="status" aria-live="polite" {}
                    button #pause type="button" aria-pressed="false" hidden { "Pause updates" }
                }
                (table("deaths", "Deaths, the newest first", entries, &body))
                nav .paging aria-label="More deaths" {
                    @if !live { a href=(self.asked.address("/", &[])) { "Newest" } " " }
                    @if let Some(oldest) = oldest {
                        a rel="next" href=(self.asked.address("/", &[("before", oldest.to_string())])) { "Older" } " "
                    }
                    a href=(feed) { "As JSON" }
                }
            }
        }
    }
}
