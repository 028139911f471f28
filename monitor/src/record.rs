//! Makes the [`Death`] of what the kernel said: units, names, the clock, then the verdict.
//!
//! Here is the record as a whole; `convert` turns the kernel's structures into the record's.

use std::{collections::BTreeMap, sync::Arc};

use killwatch_ebpf::wire::{Exit, Mark, Sent, Task};
use uuid::{NoContext, Uuid};

use crate::{
    attribute,
    cgroup::{CgroupId, index::Index, marks::Marks},
    clock::Clock,
    death::{
        Death, LimitCounter, MemoryStory, Missing, Oom, Role, SCHEMA, State, Victim, Workload,
    },
    join::{Ended, OomKill, ProcessId, Stuck},
    probe::words::Words,
    tags::Tags,
    text,
    verdict::{self, Facts, Sender, kin::Kin, names::Names, signals},
    watch::{Hit, LookAt},
};

mod convert;
mod logged;

#[cfg(test)]
pub(crate) use logged::tests::sample as logged_sample;
#[cfg(test)]
mod tests;

/// What is the same for every record of this daemon.
#[derive(Debug, Clone)]
pub struct Recorder {
    /// Name of the node.
    pub node: String,
    /// The kernel's boot id.
    pub boot_id: Option<String>,
    /// Bytes of a page.
    pub page_size: u64,
    /// Number of the hierarchy with the memory controller; 0 is v2.
    pub memory_hierarchy: u32,
    /// The clock.
    pub clock: Clock,
    /// Who is known by name.
    pub names: Names,
    /// Where userspace OOM killers leave marks.
    pub marks: Marks,
    /// What workers said of themselves.
    pub tags: Arc<Tags>,
}

/// All that the kernel said about one process.
#[derive(Clone, Copy)]
struct Told<'a> {
    task: &'a Task,
    oom: Option<&'a OomKill>,
    words: Option<&'a Words>,
    /// `None` while it is there.
    exit: Option<&'a Exit>,
    /// When it ended, or was found to be stuck, ns since boot.
    ktime_ns: u64,
    was_stuck: bool,
}

impl Recorder {
    /// Makes the record of an end. `index` names cgroups, `kin` knows the dead and learns of this death.
    #[must_use]
    pub fn record(&self, ended: &Ended, index: &Index, kin: &mut Kin) -> Death {
        let exit = &*ended.exit;
        let told = Told {
            task: &exit.victim,
            oom: ended.oom.as_ref(),
            words: ended.words.as_deref(),
            exit: Some(exit),
            ktime_ns: exit.header.ktime_ns,
            was_stuck: ended.was_stuck,
        };
        let death = self.tell(told, index, kin);
        kin.died(ProcessId::from(&exit.victim), parent_of(&exit.victim), &death);
        death
    }

    /// Makes the record of a victim that is stuck in the kernel. `now_ns`: ns since boot.
    #[must_use]
    pub fn record_stuck(&self, stuck: &Stuck, index: &Index, kin: &Kin, now_ns: u64) -> Death {
        let told = Told {
            task: &stuck.oom.mark.victim,
            oom: Some(&stuck.oom),
            words: stuck.words.as_deref(),
            exit: None,
            ktime_ns: now_ns,
            was_stuck: true,
        };
        self.tell(told, index, kin)
    }

    /// What is to be looked at because of a decision of the OOM killer.
    #[must_use]
    pub fn scene(&self, mark: &Mark, index: &Index) -> LookAt {
        let memory = MemoryStory { levels: self.levels(mark, index), ..MemoryStory::default() };
        let hit = verdict::oom::find(&memory, &self.oom(mark, false, index)).hit;
        let hit = hit.and_then(|hit| {
            let level = memory.levels.get(hit.level)?;
            let (usage, limit_bytes) = hit.usage_and_limit(level);
            let cgroup = level.cgroup.as_deref()?.into();
            Some(Hit { cgroup, usage_bytes: Some(usage), limit_bytes })
        });
        let own = CgroupId { hierarchy: self.memory_hierarchy, id: mark.victim.cgroup_memory };
        let victim = ProcessId::from(&mark.victim);
        LookAt { victim, at_ns: mark.header.ktime_ns, hit, own: index.path(own), kill: true }
    }

    fn tell(&self, told: Told<'_>, index: &Index, kin: &Kin) -> Death {
        let mut missing = Vec::new();
        let victim = self.victim(told, &mut missing);
        let mut memory = self.memory(told, index, &mut missing);
        let oom = told.oom.map(|kill| self.oom(&kill.mark, kill.group, index));
        let id = ProcessId::from(told.task);
        let fatal = told.exit.and_then(|exit| self.sender(&exit.fatal, id, index, kin));
        let term = told.exit.and_then(|exit| self.sender(&exit.term, id, index, kin));
        let child = victim
            .exit_code
            .and(victim.status)
            .and_then(|status| kin.child(id, status))
            .map(|(child, at_ns)| (child, seconds(told.ktime_ns.saturating_sub(at_ns))));
        let tightest = told.words.and_then(|words| words.tightest);
        let tightest = tightest.map(|level| self.level(&level, index));
        let cgroup = self.workload_cgroup(told.task);
        let path = index.path(cgroup);
        if path.is_none() {
            missing.push(Missing {
                field: "workload.cgroup".to_owned(),
                why: format!("cgroup {} is not in the index", cgroup.id),
            });
        }
        let verdict = verdict::judge(&Facts {
            victim: &victim,
            memory: &memory,
            tightest: tightest.as_ref(),
            oom: oom.as_ref(),
            marked: told.exit.is_some_and(|exit| exit.marked != 0),
            fatal: fatal.as_ref(),
            term: term.as_ref(),
            child,
            limits: told.exit.map(convert::limits).unwrap_or_default(),
            seccomp: told.exit.map(|exit| exit.seccomp).filter(|mode| *mode != u32::MAX),
            marks: &self.marks_of_killer(fatal.as_ref(), path.as_deref()),
            names: &self.names,
        });
        if let Some(hit) = verdict.limit
            && let Some(level) = memory.levels.get(hit.level).cloned()
        {
            let (usage, limit) = hit.usage_and_limit(&level);
            memory.usage_bytes = Some(usage);
            memory.limit_bytes = limit;
            memory.limit_cgroup = level.cgroup;
            memory.limit_counter = hit.memsw.then_some(LimitCounter::Memsw);
        }
        let time = self.clock.wall(told.ktime_ns);
        let confidence = verdict.confidence();
        Death {
            id: new_id(time),
            schema: SCHEMA,
            boot_id: self.boot_id.clone(),
            node: self.node.clone(),
            state: if told.exit.is_some() { State::Dead } else { State::Stuck },
            time,
            ktime_ns: told.ktime_ns,
            victim,
            killer: verdict.killer,
            cause: verdict.cause,
            confidence,
            inferred: verdict.inferred,
            evidence: verdict.evidence,
            oom: told.oom.zip(oom).map(|(kill, facts)| Oom {
                incident_ktime_ns: kill.incident_ktime_ns,
                group: kill.group,
                constraint: facts.constraint,
                sysrq: facts.sysrq,
            }),
            related: verdict.related,
            stop: verdict.stop,
            rlimit: verdict.rlimit,
            stuck_seconds: told
                .oom
                .filter(|_| told.was_stuck)
                .map(|kill| seconds(told.ktime_ns.saturating_sub(kill.mark.header.ktime_ns))),
            memory,
            workload: Workload::of_cgroup(path.as_deref(), Some(cgroup.id)),
            // By whoever gives the names, of the workload too.
            job: None,
            tags: self.tags.of(id, parent_of(told.task), |process| kin.parent(process)),
            advice: verdict.advice,
            findings: Vec::new(),
            missing,
        }
    }

    /// The cgroup that names the workload: on v2 its own, elsewhere the one that accounts its memory.
    fn workload_cgroup(&self, task: &Task) -> CgroupId {
        let id = if self.memory_hierarchy == 0 { task.cgroup_v2 } else { task.cgroup_memory };
        CgroupId { hierarchy: self.memory_hierarchy, id }
    }

    fn path(&self, index: &Index, id: u64) -> Option<String> {
        index.path(CgroupId { hierarchy: self.memory_hierarchy, id }).map(|path| path.to_string())
    }

    fn victim(&self, told: Told<'_>, missing: &mut Vec<Missing>) -> Victim {
        let (task, words, exit) = (told.task, told.words, told.exit);
        let signal = exit.and_then(signal_of);
        let exit_code = exit.filter(|_| signal.is_none()).map(exit_code_of);
        let status = signal.map(|signal| 128 + signal).or(exit_code);
        missing.extend(missing_words(words));
        if exit.is_none() {
            missing.push(lack("victim.status", "it is still there"));
        }
        let cmdline =
            words.map(|words| words.cmdline.clone()).filter(|cmdline| !cmdline.is_empty());
        Victim {
            pid: task.tgid,
            tgid: task.tgid,
            tid: told.oom.map_or(task.tid, |kill| kill.mark.victim.tid),
            ns_pid: exit.map(|exit| exit.ns_pid).filter(|pid| *pid != 0),
            pid_ns: exit.map(|exit| exit.pid_ns).filter(|inode| *inode != 0),
            start_time: Some(self.clock.wall(task.start_ns)),
            start_ktime_ns: Some(task.start_ns),
            lifetime_seconds: Some(seconds(told.ktime_ns.saturating_sub(task.start_ns))),
            ppid: Some(task.ppid),
            parent_comm: exit
                .map(|exit| text::from_c(&exit.parent_comm))
                .filter(|comm| !comm.is_empty()),
            comm: text::from_c(&task.comm),
            cmdline_truncated: cmdline.is_some()
                && words.is_some_and(|words| words.cmdline_truncated),
            cmdline,
            uid: Some(task.uid),
            oom_score_adj: exit.map(|exit| exit.oom_score_adj).filter(|adj| *adj != i32::MIN),
            exit_code,
            signal,
            signal_name: signal.map(signals::name),
            status,
            status_meaning: status.and_then(|status| signals::meaning(status, signal.is_none())),
            core_dumped: exit.map(|exit| exit.status & 0x80 != 0),
            threads: words.and_then(|words| words.threads),
            environ: words.map(|words| words.environ.clone()).unwrap_or_default(),
        }
    }

    /// The victim's memory: at the kernel's decision, else as its signal arrived.
    fn memory(&self, told: Told<'_>, index: &Index, missing: &mut Vec<Missing>) -> MemoryStory {
        let mark = told.oom.map(|kill| &*kill.mark);
        let known = mark.map(|mark| &mark.memory).or(told.words.map(|words| &words.memory));
        let Some(known) = known else {
            missing.push(lack("memory", "its memory was gone before it could be looked at"));
            return MemoryStory::default();
        };
        MemoryStory {
            levels: mark.map(|mark| self.levels(mark, index)).unwrap_or_default(),
            ..convert::memory(known, self.page_size)
        }
    }

    fn sender(&self, sent: &Sent, victim: ProcessId, index: &Index, kin: &Kin) -> Option<Sender> {
        let mut sender = convert::sender(sent)?;
        sender.is_victim = sender.process == victim;
        sender.cgroup = self.path(index, sent.sender.cgroup_memory);
        let home = attribute::workload(sender.cgroup.as_deref(), None);
        (sender.container_id, sender.unit) = (home.container_id, home.unit);
        if sender.end.is_some() {
            sender.end = kin.of(sender.process, Role::Parent).or(sender.end);
        }
        if sent.shared_tgid != 0 {
            let shared = ProcessId { tgid: sent.shared_tgid, start_ns: sent.shared_start_ns };
            sender.shared = kin.of(shared, Role::OomVictim).or(sender.shared);
        }
        Some(sender)
    }

    /// What a userspace OOM killer left on the victim's cgroup, if the sender may be one. A mark stays after its kill, so it counts for nobody else.
    fn marks_of_killer(
        &self,
        sender: Option<&Sender>,
        path: Option<&str>,
    ) -> BTreeMap<String, String> {
        let may_be =
            |sender: &&Sender| self.names.is_oom_killer(&sender.comm) || sender.comm == "systemd";
        match (sender.filter(may_be), path) {
            (Some(_), Some(path)) if self.memory_hierarchy == 0 => self.marks.read(path),
            _ => BTreeMap::new(),
        }
    }
}

fn parent_of(task: &Task) -> ProcessId {
    ProcessId { tgid: task.ppid, start_ns: task.parent_start_ns }
}

fn signal_of(exit: &Exit) -> Option<u8> {
    u8::try_from(exit.status & 0x7f).ok().filter(|signal| *signal != 0)
}

fn exit_code_of(exit: &Exit) -> u8 {
    u8::try_from(exit.status >> 8 & 0xff).unwrap_or(0)
}

fn seconds(ns: u64) -> f64 {
    std::time::Duration::from_nanos(ns).as_secs_f64()
}

fn lack(field: &str, why: &str) -> Missing {
    Missing { field: field.to_owned(), why: why.to_owned() }
}

fn missing_words(words: Option<&Words>) -> Vec<Missing> {
    let Some(words) = words else {
        let why = "no fatal signal was delivered to it, so there was no moment at which its memory could be read";
        return ["victim.cmdline", "victim.environ", "victim.threads"]
            .map(|field| lack(field, why))
            .to_vec();
    };
    let mut missing = Vec::new();
    if words.cmdline.is_empty() {
        missing.push(lack(
            "victim.cmdline",
            words
                .environ_missing
                .unwrap_or("it has none, or it was not in memory, or NUMA balancing held it back"),
        ));
    }
    if let Some(why) = words.environ_missing {
        missing.push(lack("victim.environ", why));
    }
    missing
}

/// An id that sorts by the time of death.
fn new_id(time: jiff::Timestamp) -> Uuid {
    let seconds = u64::try_from(time.as_second()).unwrap_or(0);
    let nanos = u32::try_from(time.subsec_nanosecond()).unwrap_or(0);
    Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds, nanos))
}
