//! Makes the [`Death`] of what the kernel said: units, names, the clock, then the verdict.

use killwatch_ebpf::wire::{Exit, Memory, Sent};
use uuid::{NoContext, Uuid};

use crate::{
    attribute,
    cgroup::{CgroupId, index::Index},
    clock::Clock,
    death::{
        Child, Constraint, Death, LevelUse, MemoryStory, Missing, Oom, SCHEMA, Trigger, Victim,
    },
    join::{self, Ended, OomKill, ProcessId},
    probe::words::Words,
    text,
    verdict::{self, Facts, OomFacts, Sender, kin::Kin, signals},
};

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
}

impl Recorder {
    /// Makes one record. `index` names cgroups, `kin` knows the dead children and learns of this death.
    #[must_use]
    pub fn record(&self, ended: &Ended, index: &Index, kin: &mut Kin) -> Death {
        let exit = &*ended.exit;
        let words = ended.words.as_deref();
        let mut missing = Vec::new();
        let victim = self.victim(ended, &mut missing);
        let mut memory = self.memory(ended, index, &mut missing);
        let oom = ended.oom.as_ref().map(|kill| self.oom(kill, index));
        let id = ProcessId::from(&exit.victim);
        let fatal = self.sender(&exit.fatal, id, index);
        let term = self.sender(&exit.term, id, index);
        let child = victim.exit_code.and_then(|_| kin.child(id, victim.status).cloned());
        let verdict = verdict::judge(&Facts {
            victim: &victim,
            memory: &memory,
            oom: oom.as_ref(),
            marked: exit.marked != 0,
            fatal: fatal.as_ref(),
            term: term.as_ref(),
            child: child.as_ref(),
        });
        if let Some(level) = verdict.limit.and_then(|place| memory.levels.get(place)).cloned() {
            memory.usage_bytes = Some(level.usage_bytes);
            memory.limit_bytes = level.limit_bytes;
            memory.limit_cgroup = level.cgroup;
        }
        let cgroup = self.workload_cgroup(exit);
        let path = index.path(cgroup);
        if path.is_none() {
            missing.push(Missing {
                field: "workload.cgroup".to_owned(),
                why: format!("cgroup {} is not in the index", cgroup.id),
            });
        }
        let workload = attribute::workload(path.as_deref(), Some(cgroup.id));
        let job = attribute::job(
            path.as_deref(),
            words.map_or(&Default::default(), |words| &words.environ),
        );
        let time = self.clock.wall(exit.header.ktime_ns);
        let death = Death {
            id: new_id(time),
            schema: SCHEMA,
            boot_id: self.boot_id.clone(),
            node: self.node.clone(),
            time,
            ktime_ns: exit.header.ktime_ns,
            victim,
            killer: verdict.killer,
            cause: verdict.cause,
            evidence: verdict.evidence,
            oom: ended.oom.as_ref().zip(oom).map(|(kill, facts)| Oom {
                incident_ktime_ns: kill.incident_ktime_ns,
                group: kill.group,
                constraint: facts.constraint,
                sysrq: facts.sysrq,
            }),
            child: child.filter(|_| verdict.cause == crate::death::Cause::Relayed),
            memory,
            workload,
            job,
            advice: verdict.advice,
            missing,
        };
        let parent = ProcessId { tgid: exit.victim.ppid, start_ns: exit.victim.parent_start_ns };
        let as_child = Child {
            id: death.id,
            pid: death.victim.pid,
            comm: death.victim.comm.clone(),
            cause: death.cause,
        };
        kin.died(parent, death.victim.status, as_child);
        death
    }

    /// The cgroup that names the workload: on v2 its own, elsewhere the one that accounts its memory.
    fn workload_cgroup(&self, exit: &Exit) -> CgroupId {
        let id = if self.memory_hierarchy == 0 {
            exit.victim.cgroup_v2
        } else {
            exit.victim.cgroup_memory
        };
        CgroupId { hierarchy: self.memory_hierarchy, id }
    }

    fn path(&self, index: &Index, id: u64) -> Option<String> {
        index.path(CgroupId { hierarchy: self.memory_hierarchy, id }).map(|path| path.to_string())
    }

    fn victim(&self, ended: &Ended, missing: &mut Vec<Missing>) -> Victim {
        let exit = &*ended.exit;
        let words = ended.words.as_deref();
        let signal = u8::try_from(exit.status & 0x7f).ok().filter(|signal| *signal != 0);
        let exit_code = u8::try_from(exit.status >> 8 & 0xff).unwrap_or(0);
        missing.extend(missing_words(words));
        let cmdline =
            words.map(|words| words.cmdline.clone()).filter(|cmdline| !cmdline.is_empty());
        let lifetime_ns = exit.header.ktime_ns.saturating_sub(exit.victim.start_ns);
        Victim {
            pid: exit.victim.tgid,
            tgid: exit.victim.tgid,
            tid: ended.oom.as_ref().map_or(exit.victim.tid, |kill| kill.mark.victim.tid),
            ns_pid: (exit.ns_pid != 0).then_some(exit.ns_pid),
            start_time: self.clock.wall(exit.victim.start_ns),
            start_ktime_ns: exit.victim.start_ns,
            lifetime_seconds: std::time::Duration::from_nanos(lifetime_ns).as_secs_f64(),
            ppid: exit.victim.ppid,
            parent_comm: Some(text::from_c(&exit.parent_comm)).filter(|comm| !comm.is_empty()),
            comm: text::from_c(&exit.victim.comm),
            cmdline_truncated: cmdline.is_some()
                && words.is_some_and(|words| words.cmdline_truncated),
            cmdline,
            uid: exit.victim.uid,
            oom_score_adj: (exit.oom_score_adj != i32::MIN).then_some(exit.oom_score_adj),
            exit_code: signal.is_none().then_some(exit_code),
            signal,
            signal_name: signal.map(signals::name),
            status: signal.map_or(exit_code, |signal| 128 + signal),
            core_dumped: exit.status & 0x80 != 0,
            threads: words.and_then(|words| words.threads),
            environ: words.map(|words| words.environ.clone()).unwrap_or_default(),
        }
    }

    /// The victim's memory: at the kernel's decision, else as its signal arrived.
    fn memory(&self, ended: &Ended, index: &Index, missing: &mut Vec<Missing>) -> MemoryStory {
        let mark = ended.oom.as_ref().map(|kill| &kill.mark);
        let known =
            mark.map(|mark| &mark.memory).or(ended.words.as_deref().map(|words| &words.memory));
        let Some(known) = known else {
            missing.push(Missing {
                field: "memory".to_owned(),
                why: "its memory was gone before it could be looked at".to_owned(),
            });
            return MemoryStory::default();
        };
        let pages = |count: i64| {
            u64::try_from(count).ok().map(|pages| pages.saturating_mul(self.page_size))
        };
        MemoryStory {
            anon_bytes: pages(known.anon),
            file_bytes: pages(known.file),
            shmem_bytes: pages(known.shmem),
            swap_bytes: pages(known.swap),
            page_tables_bytes: u64::try_from(known.pgtables_bytes).ok(),
            peak_rss_bytes: peak(known).and_then(pages),
            levels: mark.map(|mark| self.levels(mark, index)).unwrap_or_default(),
            ..MemoryStory::default()
        }
    }

    fn levels(&self, mark: &killwatch_ebpf::wire::Mark, index: &Index) -> Vec<LevelUse> {
        // PAGE_COUNTER_MAX in pages (include/linux/page_counter.h); v1 rounds it down to whole pages of bytes.
        let unlimited = i64::MAX.unsigned_abs() / self.page_size;
        join::levels(mark)
            .iter()
            .map(|level| LevelUse {
                cgroup: self.path(index, level.cgroup),
                usage_bytes: level.usage.saturating_mul(self.page_size),
                limit_bytes: (level.max < unlimited)
                    .then(|| level.max.saturating_mul(self.page_size)),
            })
            .collect()
    }

    fn oom(&self, kill: &OomKill, index: &Index) -> OomFacts {
        let decision = &kill.mark.decision;
        let known = decision.known != 0;
        let trigger = &kill.mark.trigger;
        OomFacts {
            constraint: known.then_some(match decision.constraint {
                1 => Constraint::Cpuset,
                2 => Constraint::MemoryPolicy,
                3 => Constraint::Memcg,
                _ => Constraint::None,
            }),
            level: known
                .then(|| {
                    join::levels(&kill.mark)
                        .iter()
                        .position(|level| level.cgroup == decision.cgroup)
                })
                .flatten(),
            allowed_bytes: known.then(|| decision.total_pages.saturating_mul(self.page_size)),
            sysrq: known && decision.order == -1,
            group: kill.group,
            trigger: Trigger {
                pid: trigger.tgid,
                tid: trigger.tid,
                comm: text::from_c(&trigger.comm),
                cgroup: self.path(index, trigger.cgroup_memory),
            },
        }
    }

    fn sender(&self, sent: &Sent, victim: ProcessId, index: &Index) -> Option<Sender> {
        let signal = u8::try_from(sent.signal).ok().filter(|signal| *signal != 0)?;
        Some(Sender {
            signal,
            code: sent.code,
            pid: sent.sender.tgid,
            comm: text::from_c(&sent.sender.comm),
            uid: sent.sender.uid,
            ppid: sent.sender.ppid,
            cgroup: self.path(index, sent.sender.cgroup_memory),
            is_victim: ProcessId::from(&sent.sender) == victim,
        })
    }
}

/// The highest resident set: what the kernel noted, or the present one if it is higher.
fn peak(memory: &Memory) -> Option<i64> {
    let present = [memory.anon, memory.file, memory.shmem].into_iter().filter(|pages| *pages >= 0);
    let noted = Some(memory.hiwater_rss).filter(|pages| *pages >= 0);
    noted.max(present.reduce(i64::saturating_add))
}

fn missing_words(words: Option<&Words>) -> Vec<Missing> {
    let lacks = |field: &str, why: &str| Missing { field: field.to_owned(), why: why.to_owned() };
    let Some(words) = words else {
        let why = "no fatal signal was delivered to it, so there was no moment at which its memory could be read";
        return ["victim.cmdline", "victim.environ", "victim.threads"]
            .map(|field| lacks(field, why))
            .to_vec();
    };
    let mut missing = Vec::new();
    if words.cmdline.is_empty() {
        missing.push(lacks(
            "victim.cmdline",
            words.environ_missing.unwrap_or("it has none, or it was not in memory"),
        ));
    }
    if let Some(why) = words.environ_missing {
        missing.push(lacks("victim.environ", why));
    }
    missing
}

/// An id that sorts by the time of death.
fn new_id(time: jiff::Timestamp) -> Uuid {
    let seconds = u64::try_from(time.as_second()).unwrap_or(0);
    let nanos = u32::try_from(time.subsec_nanosecond()).unwrap_or(0);
    Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds, nanos))
}
