//! How the daemon fares on this host, and what is missing there: in short on the first page, in full on `/host`.

use maud::{Markup, html};

use super::super::Status;
use super::layout::{Here, document};
use super::shown::Shown;
use crate::cli::doctor::{Finding, Verdict};
use crate::containers::registry::SourceState;
use crate::ledger::Health;
use crate::notify::health::State as SinkState;
use crate::probe::hold::NOT_WANTED;
use crate::probe::pins::state::How;
use crate::probe::{ProbeReport, ProbeState};
use crate::source::Kind;

/// What is known of the daemon and the host.
pub(super) struct Host<'a> {
    pub(super) status: &'a Status,
    pub(super) ledger: Health,
    /// Whether deaths are shown here.
    pub(super) deaths: bool,
}

impl Host<'_> {
    pub(super) fn node(&self) -> &str {
        self.status.node()
    }

    /// A line on how it fares, and what is missing.
    pub(super) fn summary(&self) -> Markup {
        let missing = self.missing();
        html! {
            section #host aria-labelledby="state" {
                h2 #state .quiet { "This host" }
                p { (self.readiness()) " " (self.sees()) }
                @if !missing.is_empty() {
                    details {
                        summary { "What is missing on this host: " (missing.len()) }
                        (findings(&missing))
                        p { a href="/host" { "All about this host" } }
                    }
                }
            }
        }
    }

    pub(super) fn html(&self) -> String {
        let missing = self.missing();
        let main = html! {
            h1 { "This host" }
            p { (self.readiness()) " " (self.sees()) }
            section aria-labelledby="missing" {
                h2 #missing { "What is missing on this host" }
                @if missing.is_empty() { p { "Nothing that the daemon knows of." } }
                @else { (findings(&missing)) }
                p .quiet { "Before a daemon runs: " code { "killwatch doctor" } "." }
            }
            (self.probes())
            (self.sinks())
            (self.sources())
            (self.kept())
            (self.counted())
            (self.guarded())
            p { a href="/api/v1/status" { "All of it as JSON" } }
        };
        document(Here::Host, "This host", self.node(), &main)
    }

    fn readiness(&self) -> Markup {
        match self.status.ready() {
            Ok([]) => html! { span .state .good { "Ready" } },
            Ok(_) => html! { span .state .weak { "Degraded" } },
            Err(_) => html! { span .state .bad { "Not ready" } },
        }
    }

    fn sees(&self) -> &'static str {
        match self.status.sight().map(|sight| sight.source) {
            Some(Some(Kind::Bpf)) => "Deaths are told by programs in the kernel.",
            Some(Some(Kind::Kmsg)) => {
                "OOM kills are told from the kernel log, and no other deaths."
            }
            Some(None) => "Deaths are not seen.",
            None => "The daemon is starting.",
        }
    }

    /// What is missing: first what keeps deaths from being told, then what keeps something from being told of them.
    fn missing(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        match self.status.ready() {
            Ok(lacks) => found.extend(lacks.iter().map(|lack| Finding::fails(lack, DOCTOR))),
            Err(not) => found.extend(not.reasons().iter().map(|why| Finding::fails(why, DOCTOR))),
        }
        let host = self.status.findings().iter().filter(|f| f.verdict != Verdict::Ok);
        found.extend(host.cloned());
        if let Some(sight) = self.status.sight().filter(|sight| sight.source == Some(Kind::Bpf)) {
            let optional =
                sight.probes.iter().filter(|p| !p.required && p.state != ProbeState::Attached);
            found.extend(optional.map(without));
        }
        let unpinned = self.status.pins().filter(|pins| pins.how() == How::Unpinned);
        // What is not wanted is not missing.
        if let Some(why) = unpinned.and_then(|pins| pins.why()).filter(|why| *why != NOT_WANTED) {
            found.push(Finding::lacks(
                format!("what happens while no daemon runs is not told: the kernel side is not pinned: {why}"),
                "mount a BPF file system (/sys/fs/bpf), or name one with --probe.pin",
            ));
        }
        for source in self.status.sources() {
            if matches!(source.state, SourceState::Slow | SourceState::Down) {
                let why = source.why.unwrap_or_else(|| "no reason is known".to_owned());
                found.push(Finding::lacks(
                    format!("names from {} ({}): {why}", source.name, source.at),
                    "deaths are told with what their cgroup says; see whether it answers others",
                ));
            }
        }
        for sink in self.status.sinks() {
            if sink.state != SinkState::Up {
                let why = sink.why.unwrap_or_else(|| "no reason is known".to_owned());
                found.push(Finding::lacks(
                    format!("the sink {} ({}) is not told: {why}", sink.name, sink.kind),
                    "what it is to be told waits in the ledger; docs/sinks.md",
                ));
            }
        }
        if let Some(why) = self.status.guard().and_then(|guard| guard.failed) {
            found.push(Finding::lacks(
                format!("web.config_file cannot be used as it is now, and the rules from before are in force: {why}"),
                "mend the file; it is read anew when it changes",
            ));
        }
        match (&self.ledger.file, &self.ledger.degraded) {
            (_, Some(why)) => found.push(Finding::lacks(
                format!("the ledger is degraded, deaths are in memory: {why}"),
                "see to the disk of state.path; what is in memory is written as soon as that can be",
            )),
            (None, None) => found.push(Finding::lacks(
                "the ledger is in memory only: deaths do not outlive the daemon",
                "name a directory with --state.path",
            )),
            (Some(_), None) => {}
        }
        found
    }

    fn probes(&self) -> Markup {
        let probes = self.status.sight().map_or(&[][..], |sight| &sight.probes);
        section(
            "probes",
            "Probes",
            probes.is_empty(),
            &["Program", "Hook", "For", "State"],
            &html! {
                @for probe in probes {
                    tr {
                        th scope="row" { (Shown(&probe.name)) }
                        td { (Shown(&probe.hook)) }
                        td { (Shown(&probe.purpose)) @if probe.required { " (required)" } }
                        td { (probe_state(probe)) }
                    }
                }
            },
        )
    }

    fn sinks(&self) -> Markup {
        let sinks = self.status.sinks();
        section(
            "sinks",
            "Sinks",
            sinks.is_empty(),
            &["Name", "Kind", "State", "Yet to be told", "Told", "Failed", "Lost"],
            &html! {
                @for sink in &sinks {
                    tr {
                        th scope="row" { (Shown(&sink.name)) }
                        td { (sink.kind) }
                        td { (state(sink.state == SinkState::Up, sink.state.as_str(), sink.why.as_deref())) }
                        td { (sink.lag) @if sink.held > 0 { " (" (sink.held) " held)" } }
                        td { (sink.written) }
                        td { (sink.failed) }
                        td { (sink.skipped) }
                    }
                }
            },
        )
    }

    fn sources(&self) -> Markup {
        let sources = self.status.sources();
        section(
            "sources",
            "Sources of names",
            sources.is_empty(),
            &["Name", "At", "State", "Answered", "Failed"],
            &html! {
                @for source in &sources {
                    tr {
                        th scope="row" { (source.name) }
                        td { (Shown(&source.at)) }
                        td {
                            @match source.state {
                                SourceState::Absent => { "absent" }
                                SourceState::Up => (state(true, "up", source.version.as_deref())),
                                SourceState::Slow => (state(false, "slow", source.why.as_deref())),
                                SourceState::Down => (state(false, "down", source.why.as_deref())),
                            }
                        }
                        td { (source.answered) }
                        td { (source.failed) }
                    }
                }
            },
        )
    }

    fn kept(&self) -> Markup {
        let ledger = &self.ledger;
        html! {
            section aria-labelledby="ledger" {
                h2 #ledger { "Ledger" }
                dl {
                    dt { "file" } dd { @match &ledger.file { Some(file) => (Shown(file)), None => { "none: in memory only" } } }
                    dt { "state" } dd { (state(ledger.degraded.is_none(), if ledger.degraded.is_none() { "good" } else { "degraded" }, ledger.degraded.as_deref())) }
                    dt { "entries" } dd { (ledger.entries) " (" (crate::text::bytes(ledger.bytes)) ")" }
                    @if let Some(oldest) = ledger.oldest { dt { "oldest" } dd { time datetime=(oldest) { (oldest.strftime("%Y-%m-%d %H:%M:%S UTC")) } } }
                    dt { "gave way" } dd { (ledger.evicted) }
                }
            }
        }
    }

    fn guarded(&self) -> Markup {
        let yes = |yes: bool| if yes { "yes" } else { "no" };
        html! {
            section aria-labelledby="guard" {
                h2 #guard { "Who may look, and what the daemon may do" }
                dl {
                    @if let Some(guard) = self.status.guard() {
                        @if let Some(file) = &guard.config_file { dt { "web.config_file" } dd { (Shown(file)) } }
                        dt { "TLS" } dd { (yes(guard.tls)) }
                        dt { "certificates of clients" } dd { (guard.client_auth_type.as_str()) }
                        dt { "users" } dd { @if guard.users == 0 { "nobody has to log in" } @else { (guard.users) } }
                    }
                    @if let Some(rights) = self.status.rights() {
                        dt { "capabilities" }
                        dd { @if rights.capabilities.is_empty() { "none" } @else { (rights.capabilities.join(", ")) } }
                        dt { "calls filtered" } dd { (yes(rights.filtered)) }
                    }
                }
            }
        }
    }

    fn counted(&self) -> Markup {
        let numbers = self.status.numbers();
        // Where they were says whose they were.
        let places = if self.deaths { numbers.places.as_slice() } else { &[] };
        html! {
            section aria-labelledby="count" {
                h2 #count { "OOM kills, counted against the kernel" }
                dl {
                    @if let Some(kernel) = numbers.kernel { dt { "of the kernel" } dd { (kernel) " since boot" } }
                    dt { "unaccounted" } dd { (numbers.unaccounted) }
                    @if let Some(missed) = numbers.missed { dt { "missed" } dd { (missed) " while no daemon ran" } }
                }
                @if !places.is_empty() {
                    ul {
                        @for place in places {
                            li {
                                (place.kills) " in " (Shown(place.cgroup.as_deref().unwrap_or("a cgroup that is not known")))
                                @if place.gone { ", below it, in cgroups that are gone" }
                            }
                        }
                    }
                }
            }
        }
    }
}

const DOCTOR: &str = "`killwatch doctor` says what this host lacks";

fn without(probe: &ProbeReport) -> Finding {
    let why = probe.why.as_deref().unwrap_or("no reason is known");
    Finding::lacks(
        format!("{} ({}): {why}", probe.hook, probe.purpose),
        "optional: the daemon does without",
    )
}

fn findings(found: &[Finding]) -> Markup {
    html! {
        ul .findings {
            @for finding in found {
                li {
                    (state(false, if finding.verdict == Verdict::Fails { "deaths are missed" } else { "less is told" }, None)) " "
                    (Shown(&finding.what))
                    @if let Some(remedy) = &finding.remedy { p .remedy { (Shown(remedy)) } }
                }
            }
        }
    }
}

fn section(id: &str, title: &str, nothing: bool, columns: &[&str], rows: &Markup) -> Markup {
    let caption = format!("{id}-title");
    html! {
        section aria-labelledby=(caption) {
            h2 id=(caption) { (title) }
            @if nothing { p .nothing { "None." } }
            @else {
                div .scroll role="region" aria-labelledby=(caption) tabindex="0" {
                    table id=(id) {
                        thead { tr { @for column in columns { th scope="col" { (column) } } } }
                        tbody { (rows) }
                    }
                }
            }
        }
    }
}

fn probe_state(probe: &ProbeReport) -> Markup {
    let word = match probe.state {
        ProbeState::Pending => "pending",
        ProbeState::Attached => "attached",
        ProbeState::Unsupported => "unsupported",
        ProbeState::Failed => "failed",
    };
    state(probe.state == ProbeState::Attached, word, probe.why.as_deref())
}

fn state(good: bool, word: &str, more: Option<&str>) -> Markup {
    html! {
        span class={ "state " (if good { "good" } else { "weak" }) } { (word) }
        @if let Some(more) = more { ": " (Shown(more)) }
    }
}
