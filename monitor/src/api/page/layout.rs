//! What all pages share: the document around them, and how a death stands in a table.

use std::sync::Arc;

use jiff::tz::TimeZone;
use maud::{DOCTYPE, Markup, html};

use super::shown::Shown;
use crate::cli::deaths::row;
use crate::death::{Cause, Confidence, Death};
use crate::ledger::Entry;
use crate::text::plain;

/// Which page this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Here {
    Deaths,
    Death,
    Host,
    Elsewhere,
}

/// The whole document. `title` may be a stranger's.
pub(super) fn document(here: Here, title: &str, node: &str, main: &Markup) -> String {
    let current = |page| (here == page).then_some("page");
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (plain(title)) " · killwatch on " (plain(node)) }
                link rel="icon" href="/assets/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/assets/page.css";
                @if here == Here::Deaths { script src="/assets/page.js" defer {} }
            }
            body {
                a .skip href="#main" { "Skip to the content" }
                header {
                    p .brand { a href="/" { "killwatch" } " " span .node { "on " (Shown(node)) } }
                    nav aria-label="Pages" {
                        ul {
                            li { a href="/" aria-current=[current(Here::Deaths)] { "Deaths" } }
                            li { a href="/host" aria-current=[current(Here::Host)] { "This host" } }
                        }
                    }
                }
                main #main tabindex="-1" { (main) }
                footer {
                    p { "killwatch " (env!("CARGO_PKG_VERSION")) ". It reads; it kills nothing and changes no limit." }
                }
            }
        }
    }
    .into_string()
}

/// Deaths as a table, each a row that leads to its page. `name` is the table's id.
pub(super) fn table(name: &str, caption: &str, entries: &[Arc<Entry>], body: &Markup) -> Markup {
    let title = format!("{name}-caption");
    html! {
        div .scroll role="region" aria-labelledby=(title) tabindex="0" {
            table id=(name) {
                caption id=(title) { (caption) }
                thead {
                    tr {
                        th scope="col" { "Time (UTC)" }
                        th scope="col" { "Cause" }
                        th scope="col" { "Process" }
                        th scope="col" { "Where" }
                        th scope="col" { "Job" }
                        th scope="col" .extra { abbr title="of the limit that was hit, and what was used" { "Limit/used" } }
                        th scope="col" .extra { "Killed by" }
                        th scope="col" .extra { "End" }
                    }
                }
                (body)
            }
        }
        @if entries.is_empty() { p .nothing { "None." } }
    }
}

/// The rows of a table.
pub(super) fn rows(entries: &[Arc<Entry>]) -> Markup {
    html! { @for death in entries.iter().filter_map(|entry| entry.death()) { (row(death)) } }
}

fn row(death: &Death) -> Markup {
    let cells = row::cells(death, true, &TimeZone::UTC);
    let cell = |n: usize| cells.get(n).map_or("-", String::as_str);
    html! {
        tr id={ "death-" (death.id) } {
            td { time datetime=(death.time) { (cell(0)) } }
            td { (cause(death.cause, cell(1))) }
            th scope="row" { a href={ "/deaths/" (death.id) } { (Shown(cell(2))) } }
            td .long { (Shown(cell(3))) }
            td .long { (Shown(cell(4))) }
            td .extra { (cell(5)) }
            td .extra { (Shown(cell(7))) }
            td .extra { (Shown(cell(8))) }
        }
    }
}

/// The cause, in words and, for who sees it, in colour.
pub(super) fn cause(cause: Cause, words: &str) -> Markup {
    let kind = match cause {
        Cause::OomMemcg
        | Cause::OomGlobal
        | Cause::OomCpuset
        | Cause::OomMempolicy
        | Cause::OomUserspace
        | Cause::OomCollateral => "memory",
        Cause::Abort | Cause::Crash | Cause::Rlimit => "own",
        Cause::Killed | Cause::StopTimeout | Cause::PidnsTeardown => "killed",
        Cause::Relayed | Cause::Unknown => "other",
    };
    html! { span class={ "cause " (kind) } { (words) } }
}

/// How sure it is.
pub(super) const fn sure(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Certain => "certain",
        Confidence::Inferred => "inferred",
    }
}
