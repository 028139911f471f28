//! The page of one death: its story, what hangs together with it, and where to look further.

use std::sync::Arc;

use maud::{Markup, html};

use super::layout::{Here, cause, document, rows, sure, table};
use super::link::query;
use super::plot::figure;
use super::shown::Shown;
use crate::cli::story::{self, Item, MEMORY, Rows, Section, TO_DO, bytes};
use crate::death::{Death, LevelUse, Role};
use crate::ledger::Entry;
use crate::notify::Links;

/// What the page shows.
pub(super) struct Page<'a> {
    pub(super) death: &'a Death,
    /// The others of the same decision of the OOM killer.
    pub(super) group: &'a [Arc<Entry>],
    /// Those that follow from this one.
    pub(super) following: &'a [Arc<Entry>],
    pub(super) links: &'a Links,
    pub(super) node: &'a str,
}

impl Page<'_> {
    pub(super) fn html(&self) -> String {
        let death = self.death;
        let headline = story::headline(death);
        let sections = story::sections(death);
        let (first, rest): (Vec<_>, Vec<_>) =
            sections.into_iter().partition(|section| section.title == TO_DO);
        let main = html! {
            p .back { a href="/" { "All deaths" } }
            article aria-labelledby="headline" {
                h1 #headline .headline { (Shown(&headline)) }
                p .facts {
                    (cause(death.cause, death.cause.as_str())) " "
                    span .sure { (sure(death.confidence)) } " "
                    time datetime=(death.time) { (death.time.strftime("%Y-%m-%d %H:%M:%S.%3f UTC")) }
                }
                @for section in &first { (told(section, "todo")) }
                div .columns {
                    @for section in &rest {
                        @if section.title == MEMORY { (self.memory(section)) } @else { (told(section, width(section))) }
                    }
                }
                (self.related())
                (self.elsewhere())
            }
        };
        document(Here::Death, &headline, self.node, &main)
    }

    /// What stood at the death. How it came to that is the next section.
    fn memory(&self, section: &Section) -> Markup {
        let levels = &self.death.memory.levels;
        html! {
            section #memory {
                h2 { (section.title) }
                (items(&section.items))
                @if levels.iter().any(|level| level.limit_bytes.is_some()) {
                    figure {
                        figcaption { "Use of each limit at the death, the victim's own cgroup first" }
                        @for level in levels { (bar(level)) }
                    }
                }
            }
        }
    }

    fn related(&self) -> Markup {
        let other = self.death.related.as_ref();
        let group: Vec<_> = others(self.group, self.death);
        let following: Vec<_> = others(self.following, self.death);
        let bodies = [&group, &following].map(|found| html! { tbody { (rows(found)) } });
        html! {
            @if other.is_some() || !group.is_empty() || !following.is_empty() {
                section aria-labelledby="related" {
                    h2 #related { "Related deaths" }
                    @if let Some(other) = other {
                        p {
                            "This death follows from that of " (role(other.role)) ", "
                            @if let Some(id) = other.id {
                                a href={ "/deaths/" (id) } { (Shown(&other.comm)) " (pid " (other.pid) ")" }
                            } @else {
                                (Shown(&other.comm)) " (pid " (other.pid) "), of which no record is kept"
                            }
                            "."
                        }
                    }
                    @if !group.is_empty() {
                        (table("group", "Killed by the same decision of the OOM killer", &group, &bodies[0]))
                    }
                    @if !following.is_empty() {
                        (table("following", "Deaths that follow from this one", &following, &bodies[1]))
                    }
                }
            }
        }
    }

    fn elsewhere(&self) -> Markup {
        let death = self.death;
        let workload = &death.workload;
        let job = death.job.as_ref().and_then(|job| job.id.as_ref());
        let job = job.or_else(|| death.tags.get("job_id")).cloned();
        let pod = workload.namespace.as_ref().zip(workload.pod.as_ref());
        let pod = pod.map(|(namespace, pod)| format!("{namespace}/{pod}"));
        // What the filter would refuse is no link.
        let pod = pod.filter(|pod| pod.matches('/').count() == 1).or(workload.pod_uid.clone());
        let asks = [
            ("job", "Deaths of this job", job),
            ("pod", "Deaths in this pod", pod),
            ("container", "Deaths in this container", workload.container_id.clone()),
        ];
        let outside =
            [("Runbook", self.links.runbook(death)), ("Dashboard", self.links.dashboard(death))];
        html! {
            section aria-labelledby="more" {
                h2 #more { "More" }
                ul .links {
                    @for (key, words, value) in &asks {
                        @if let Some(value) = value {
                            li { a href=(query("/", [(*key, value.as_str())].into_iter())) { (words) } ": " (Shown(value)) }
                        }
                    }
                    @for (words, address) in &outside {
                        @if let Some(address) = address {
                            li { a href=(address) rel="noopener noreferrer" { (words) } }
                        }
                    }
                    li { a href={ "/api/v1/deaths/" (death.id) } { "The whole record as JSON" } }
                    li { "In a terminal: " code { "killwatch why " (death.id) } }
                }
            }
        }
    }
}

fn others(entries: &[Arc<Entry>], death: &Death) -> Vec<Arc<Entry>> {
    let other = |entry: &&Arc<Entry>| entry.death().is_some_and(|found| found.id != death.id);
    entries.iter().filter(other).cloned().collect()
}

fn told(section: &Section, class: &str) -> Markup {
    html! {
        section class=[Some(class).filter(|class| !class.is_empty())] {
            h2 { (section.title) }
            (items(&section.items))
        }
    }
}

/// What is drawn, and tables, take the whole width.
fn width(section: &Section) -> &'static str {
    let wide = |item: &Item| matches!(item, Item::Plot(_) | Item::Table(_));
    if section.items.iter().any(wide) { "wide" } else { "" }
}

/// Pictures first, then values, tables and sentences.
fn items(items: &[Item]) -> Markup {
    let values: Vec<_> = items
        .iter()
        .filter_map(|item| match item {
            Item::Value(name, value) => Some((name, value)),
            _ => None,
        })
        .collect();
    // The picture has its summary below it.
    let summaries: Vec<String> = items
        .iter()
        .filter_map(|item| match item {
            Item::Plot(plot) => Some(plot.summary()),
            _ => None,
        })
        .collect();
    let lines: Vec<&str> = items
        .iter()
        .filter_map(|item| match item {
            Item::Line(line) if summaries.contains(line) => None,
            // The dash is the text's; here a list has marks of its own.
            Item::Line(line) => Some(line.strip_prefix("- ").unwrap_or(line)),
            _ => None,
        })
        .collect();
    html! {
        @for item in items { @if let Item::Plot(plot) = item { (figure(plot)) } }
        @if !values.is_empty() {
            dl { @for (name, value) in &values { dt { (name) } dd { (Shown(value)) } } }
        }
        @for item in items { @if let Item::Table(rows) = item { (grid(rows)) } }
        @match lines.as_slice() {
            [] => {}
            [line] => p { (Shown(line)) },
            lines => ul { @for line in lines { li { (Shown(line)) } } },
        }
    }
}

fn grid(rows: &Rows) -> Markup {
    html! {
        div .scroll tabindex="0" role="region" aria-label=(rows.columns.join(" ").trim()) {
            table {
                thead {
                    tr {
                        @for name in rows.columns {
                            @if name.is_empty() { td {} } @else { th scope="col" { (name) } }
                        }
                    }
                }
                tbody {
                    @for row in &rows.rows {
                        @let head = row.iter().position(|cell| !cell.is_empty());
                        tr {
                            @for (place, cell) in row.iter().enumerate() {
                                @if Some(place) == head {
                                    th scope="row" { (Shown(cell)) }
                                } @else {
                                    td { @if !cell.is_empty() { (Shown(cell)) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// How much of a limit was used, as a length.
fn bar(level: &LevelUse) -> Markup {
    let cgroup = level.cgroup.as_deref().unwrap_or("a cgroup whose path is not known");
    let Some(limit) = level.limit_bytes.filter(|limit| *limit > 0) else { return html! {} };
    let percent = (u128::from(level.usage_bytes) * 100 / u128::from(limit)).min(100);
    let words = format!("{} of {}", bytes(level.usage_bytes), bytes(limit));
    html! {
        div .bar {
            svg role="img" aria-label={ (words) ", " (percent) " %" } viewBox="0 0 100 6" preserveAspectRatio="none" {
                rect .room width="100" height="6" {}
                rect .used width=(percent) height="6" {}
            }
            p { (words) ": " (Shown(cgroup)) }
        }
    }
}

const fn role(role: Role) -> &'static str {
    match role {
        Role::Child => "its child",
        Role::NamespaceInit => "the first process of its pid namespace",
        Role::OomVictim => "the OOM killer's victim whose memory it shared",
        Role::Parent => "its parent",
    }
}
