//! A death as one page for a person: who, what, why, what to do. Pure. As a text everything that comes from a stranger is made safe for a terminal
//! by [`one_line`]; the page in the browser and the one for a ticket ([`markdown`]) make their own of the same sections.

use std::fmt::Write as _;

use crate::cli::look::Look;
use crate::cli::table::Table;
use crate::death::{Cause, Confidence, Death, KillerKind, State};
use crate::text::one_line;

mod draw;
mod markdown;
mod memory;
mod plot;
#[cfg(test)]
mod tests;
mod words;
mod workload;

pub(crate) use markdown::{markdown, safe as markdown_safe};
pub(crate) use plot::Plot;
#[cfg(feature = "top")]
pub(crate) use words::change;
pub(crate) use words::{about, bytes, signal};
use words::{command, span};

/// Characters of a command line that are shown.
const COMMAND: usize = 300;
/// Width of the names before the values.
const NAME: usize = 12;
/// The terminal's code for what stands out.
const BOLD: &str = "1";

/// The page, its last line ended by a newline.
pub(crate) fn story(death: &Death, look: Look) -> String {
    let mut text = look.painted(&look.folded(&headline(death), 0), BOLD) + "\n";
    // Writing to a String cannot fail.
    for Section { title, items } in sections(death) {
        let _ = writeln!(text, "\n{}", look.painted(title, BOLD));
        for item in items {
            let _ = match item {
                Item::Line(line) => {
                    // What stands in a list is folded behind its dash.
                    let (dash, rest) = line.strip_prefix("- ").map_or(("", &*line), |r| ("- ", r));
                    let line = look.folded(&one_line(rest), 2 + dash.len());
                    writeln!(text, "  {dash}{line}")
                }
                Item::Value(name, value) => {
                    writeln!(text, "  {name:NAME$}{}", look.folded(&one_line(&value), 2 + NAME))
                }
                Item::Plot(plot) => {
                    draw::draw(&plot, look).iter().try_for_each(|line| writeln!(text, "{line}"))
                }
                Item::Table(table) => {
                    let lines = Table::new(table.columns, None).lines(&table.rows);
                    lines.lines().try_for_each(|line| writeln!(text, "  {line}"))
                }
            };
        }
    }
    look.spelled(text)
}

/// A part of the page.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Section {
    pub(crate) title: &'static str,
    pub(crate) items: Vec<Item>,
}

/// A piece of a section. What it says may be a stranger's, byte for byte.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Item {
    /// A sentence.
    Line(String),
    /// What something is.
    Value(&'static str, String),
    /// The last minutes.
    Plot(Plot),
    /// Several things of one kind.
    Table(Rows),
}

/// Several things of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) columns: &'static [&'static str],
    /// As many cells as there are columns, each.
    pub(crate) rows: Vec<Vec<String>>,
}

/// Title of the section that says what to do.
pub(crate) const TO_DO: &str = "What to do";
/// And of the one with the memory of the victim and of each level.
pub(crate) const MEMORY: &str = "Memory";

/// What the page says below its headline.
pub(crate) fn sections(death: &Death) -> Vec<Section> {
    let mut page = Page(Vec::new());
    who(death, &mut page);
    what(death, &mut page);
    why(death, &mut page);
    memory::sections(death, &mut page);
    workload::job(death, &mut page);
    advice(death, &mut page);
    if !death.missing.is_empty() {
        page.section("Not known");
        for missing in &death.missing {
            page.line(&format!("- {}: {}", missing.field, missing.why));
        }
    }
    page.0
}

/// The whole story in a sentence.
pub(crate) fn headline(death: &Death) -> String {
    let victim = format!("{} (pid {})", death.victim.comm, death.victim.pid);
    let sentence = match death.cause {
        Cause::OomMemcg => {
            format!("{victim} was killed by the kernel's OOM killer: {}", limit_hit(death))
        }
        Cause::OomGlobal if death.oom.as_ref().is_some_and(|oom| oom.sysrq) => {
            format!(
                "{victim} was killed by the kernel's OOM killer: somebody asked for it with sysrq-f."
            )
        }
        Cause::OomGlobal => {
            format!("{victim} was killed by the kernel's OOM killer: the host was out of memory.")
        }
        Cause::OomCpuset => {
            format!(
                "{victim} was killed by the kernel's OOM killer: the memory nodes of its cpuset were full."
            )
        }
        Cause::OomMempolicy => {
            format!(
                "{victim} was killed by the kernel's OOM killer: the memory nodes that a policy allows were full."
            )
        }
        Cause::OomUserspace => {
            format!("{victim} was killed by the userspace OOM killer {}.", sender(death))
        }
        Cause::OomCollateral => format!(
            "{victim} was killed by the kernel's OOM killer along with {}, whose memory it shared.",
            related(death)
        ),
        Cause::StopTimeout => format!(
            "{victim} was killed by {}: it had not ended {} after SIGTERM.",
            sender(death),
            death.stop.as_ref().map_or_else(String::new, |stop| span(stop.grace_seconds))
        ),
        Cause::Killed if death.killer.kind == KillerKind::Process => {
            format!("{victim} was killed by {} with {}.", sender(death), signal(&death.victim))
        }
        Cause::Killed => format!("{victim} was ended by {}.", signal(&death.victim)),
        Cause::PidnsTeardown => format!(
            "{victim} was killed with its pid namespace, for the first process there, {}, {}.",
            related(death),
            death
                .related
                .as_ref()
                .map_or("ended", |init| init.cause.map_or("ended", words::had_happened))
        ),
        Cause::Rlimit => format!(
            "{victim} was ended by {}: it hit {}.",
            signal(&death.victim),
            death.rlimit.as_ref().map_or("a resource limit", |limit| limit.resource.as_str())
        ),
        Cause::Abort => format!("{victim} aborted itself ({}).", signal(&death.victim)),
        Cause::Crash => format!("{victim} crashed with {}.", signal(&death.victim)),
        Cause::Relayed => format!(
            "{victim} {} because its child {} {}.",
            words::ended(&death.victim),
            related(death),
            death
                .related
                .as_ref()
                .and_then(|child| child.cause)
                .map_or("died", words::had_happened)
        ),
        Cause::Unknown => {
            format!("{victim} {}; what made it is not proven.", words::ended(&death.victim))
        }
    };
    let stuck = match (death.state, death.stuck_seconds) {
        (State::Stuck, Some(seconds)) => {
            format!(" It is still there, {} later: it is stuck in the kernel.", span(seconds))
        }
        (State::Dead, Some(seconds)) => format!(" It took {} to go.", span(seconds)),
        _ => String::new(),
    };
    one_line(&(sentence + &stuck))
}

/// The process that the death follows from.
fn related(death: &Death) -> String {
    death.related.as_ref().map_or_else(
        || "another process".to_owned(),
        |other| format!("{} (pid {})", other.comm, other.pid),
    )
}

fn limit_hit(death: &Death) -> String {
    let cgroup = death
        .memory
        .limit_cgroup
        .as_ref()
        .map_or_else(|| "a memory cgroup".to_owned(), |c| format!("cgroup {c}"));
    let counter = death.memory.limit_counter.map_or("", |_| " of memory and swap together,");
    let limit = death
        .memory
        .limit_bytes
        .map_or_else(String::new, |limit| format!(" of {}{counter}", bytes(limit)));
    let usage = death
        .memory
        .usage_bytes
        .map_or_else(String::new, |usage| format!(" (usage {})", bytes(usage)));
    format!("{cgroup} hit its limit{limit}{usage}.")
}

fn sender(death: &Death) -> String {
    let killer = &death.killer;
    match (&killer.comm, killer.pid) {
        (Some(comm), Some(pid)) => match killer.uid {
            Some(uid) => format!("{comm} (pid {pid}, uid {uid})"),
            None => format!("{comm} (pid {pid})"),
        },
        (None, Some(pid)) => format!("the process {pid}"),
        (Some(comm), None) => comm.clone(),
        (None, None) => "another process".to_owned(),
    }
}

fn who(death: &Death, page: &mut Page) {
    let victim = &death.victim;
    page.section("Who");
    let inside = victim.ns_pid.filter(|pid| *pid != victim.pid);
    let inside =
        inside.map_or_else(String::new, |pid| format!(" ({pid} in its own pid namespace)"));
    let threads = victim
        .threads
        .map_or_else(String::new, |n| format!(", {n} thread{}", if n == 1 { "" } else { "s" }));
    let user = victim.uid.map_or_else(String::new, |uid| format!(", uid {uid}"));
    page.value("process", &format!("{}, pid {}{inside}{user}{threads}", victim.comm, victim.pid));
    let cut = if victim.cmdline_truncated { " …" } else { "" };
    page.maybe(
        "command",
        victim.cmdline.as_ref().map(|args| command(args, COMMAND) + cut).as_ref(),
    );
    let parent = victim.ppid.map(|ppid| match &victim.parent_comm {
        Some(comm) => format!("{comm}, pid {ppid}"),
        None => format!("pid {ppid}"),
    });
    page.maybe("parent", parent.as_ref());
    let lived =
        victim.lifetime_seconds.map_or_else(String::new, |s| format!(", after {}", span(s)));
    page.value("died", &format!("{}{lived}", death.time));
    page.value("node", &death.node);
    workload::workload(&death.workload, page);
}

fn what(death: &Death, page: &mut Page) {
    page.section("What");
    let sure = match death.confidence {
        Confidence::Certain => "certain",
        Confidence::Inferred => "inferred",
    };
    page.value("cause", &format!("{} ({sure})", death.cause.as_str()));
    page.value("end", &words::end(death));
    page.maybe("status", death.victim.status_meaning.as_ref());
    let killer = match death.killer.kind {
        KillerKind::Kernel => "the kernel".to_owned(),
        KillerKind::Itself => "itself".to_owned(),
        KillerKind::Process => sender(death),
        KillerKind::Unknown => "not known".to_owned(),
    };
    page.value("killer", &killer);
    page.maybe("its container", death.killer.container_id.as_ref());
    page.maybe("its unit", death.killer.unit.as_ref());
    page.maybe("its cgroup", death.killer.cgroup.as_ref());
    let chain: Vec<_> =
        death.killer.ancestors.iter().map(|a| format!("{} (pid {})", a.comm, a.pid)).collect();
    if !chain.is_empty() {
        page.value("started by", &chain.join(", by "));
    }
    let trigger = death.killer.trigger.as_ref();
    page.maybe(
        "trigger",
        trigger
            .map(|t| format!("{} (pid {}) was running as the kernel decided", t.comm, t.pid))
            .as_ref(),
    );
    if death.oom.as_ref().is_some_and(|oom| oom.group) {
        page.value("group", "its whole cgroup was killed (memory.oom.group)");
    }
}

fn why(death: &Death, page: &mut Page) {
    page.section("Why");
    for fact in &death.evidence {
        page.line(&format!("- {fact}"));
    }
    for what in &death.inferred {
        page.line(&format!("- inferred: {what}"));
    }
}

/// What the numbers show, and what to do.
fn advice(death: &Death, page: &mut Page) {
    if death.findings.is_empty() {
        page.section(TO_DO);
        page.line(&death.advice);
        return;
    }
    page.section("What the numbers show");
    for finding in &death.findings {
        page.line(&format!("- {}: {}", words::rule(finding.rule), finding.evidence));
    }
    page.section(TO_DO);
    for finding in &death.findings {
        page.line(&format!("- {}", finding.advice));
    }
}

/// The sections so far.
struct Page(Vec<Section>);

impl Page {
    fn section(&mut self, title: &'static str) {
        self.0.push(Section { title, items: Vec::new() });
    }

    fn line(&mut self, text: &str) {
        self.add(Item::Line(text.to_owned()));
    }

    fn value(&mut self, name: &'static str, value: &str) {
        self.add(Item::Value(name, value.to_owned()));
    }

    fn maybe(&mut self, name: &'static str, value: Option<&String>) {
        if let Some(value) = value {
            self.value(name, value);
        }
    }

    /// If there are rows.
    fn table(&mut self, columns: &'static [&'static str], rows: Vec<Vec<String>>) {
        if !rows.is_empty() {
            self.add(Item::Table(Rows { columns, rows }));
        }
    }

    fn add(&mut self, item: Item) {
        if let Some(section) = self.0.last_mut() {
            section.items.push(item);
        }
    }
}
