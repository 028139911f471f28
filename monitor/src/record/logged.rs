//! A kill of the kernel log → `Death`. The log has no more than its lines; what is therefore missing, the record says.

use std::collections::BTreeMap;

use super::{Recorder, lack, new_id};
use crate::{
    death::{
        Cause, Confidence, Constraint, Death, Killer, KillerKind, LimitCounter, MemoryStory, Oom,
        SCHEMA, State, Via, Victim, Workload,
    },
    kmsg::story::{Kill, Source},
    text::{self, bytes},
    verdict::advice,
};

/// What no line of the log has.
const NEVER: [(&str, &str); 5] = [
    ("victim.status", "only the kernel log told of it: that it was killed, not how it ended"),
    ("victim.start_time", "the kernel log does not tell when it was started"),
    ("victim.ppid", "the kernel log does not tell its parent"),
    ("victim.cmdline", "only BPF can read it as the signal arrives"),
    ("victim.environ", "only BPF can read it as the signal arrives"),
];

impl Recorder {
    /// Makes the record of a kill that only the kernel log told of.
    #[must_use]
    pub fn record_logged(&self, kill: &Kill) -> Death {
        let killed = &kill.killed;
        let ktime_ns = self.clock.boot_ns_of_log(kill.time_us);
        let time = self.clock.wall(ktime_ns);
        let mut missing: Vec<_> = NEVER.iter().map(|(field, why)| lack(field, why)).collect();
        let mut inferred = Vec::new();
        if kill.pid.is_none() {
            inferred.push(
                "its process id: the log names a thread of it, nearly always the first".to_owned(),
            );
        }
        let path = kill.cgroup.as_ref().map(|cgroup| text::from_bytes(&cgroup.path));
        match kill.cgroup.as_ref().map(|cgroup| cgroup.from) {
            None => missing.push(lack(
                "workload.cgroup",
                "the kernel left out or cut the line that names it, as it does when many are killed at a time",
            )),
            Some(Source::Decision) => {}
            Some(Source::Group) => inferred.push("that it was in the cgroup that was killed as a whole, and not below it".to_owned()),
            Some(Source::Proc) => inferred.push("its cgroup: /proc had it so as the process was dying".to_owned()),
        }
        let (cause, evidence) = judge(kill, &mut inferred);
        let memory = memory(kill);
        if cause == Cause::OomMemcg && memory.limit_bytes.is_none() {
            missing.push(lack("memory.limit_bytes", "the kernel left out the lines that tell it"));
        }
        missing.push(lack("memory.levels", "the kernel log has the cgroup at its limit only"));
        missing.push(lack("killer.trigger", "the kernel log does not tell which process it was"));
        let id = kill.cgroup.as_ref().and_then(|cgroup| cgroup.id);
        let pid = kill.pid.unwrap_or(killed.tid);
        Death {
            id: new_id(time),
            schema: SCHEMA,
            boot_id: self.boot_id.clone(),
            node: self.node.clone(),
            state: State::Dead,
            time,
            ktime_ns,
            victim: Victim {
                pid,
                tgid: pid,
                tid: killed.tid,
                ns_pid: None,
                pid_ns: None,
                start_time: None,
                start_ktime_ns: None,
                lifetime_seconds: None,
                ppid: None,
                parent_comm: None,
                comm: text::from_c(&killed.comm),
                cmdline: None,
                cmdline_truncated: false,
                uid: killed.uid.or(kill.decision.as_ref().map(|decision| decision.uid)),
                oom_score_adj: killed.oom_score_adj,
                exit_code: None,
                signal: None,
                signal_name: None,
                status: None,
                status_meaning: None,
                core_dumped: None,
                threads: None,
                environ: Default::default(),
            },
            killer: Killer {
                kind: KillerKind::Kernel,
                via: Some(Via::Kernel),
                ..Killer::default()
            },
            cause,
            confidence: if inferred.is_empty() {
                Confidence::Certain
            } else {
                Confidence::Inferred
            },
            inferred,
            evidence,
            oom: Some(Oom {
                incident_ktime_ns: self.clock.boot_ns_of_log(kill.incident_us),
                group: kill.group.is_some(),
                constraint: kill.decision.as_ref().map(|decision| decision.constraint),
                sysrq: false,
            }),
            related: None,
            stop: None,
            rlimit: None,
            stuck_seconds: None,
            advice: advice::of_logged(cause, &memory),
            findings: Vec::new(),
            memory,
            workload: Workload::of_cgroup(path.as_deref(), id),
            job: None,
            tags: BTreeMap::new(),
            missing,
        }
    }
}

fn judge(kill: &Kill, inferred: &mut Vec<String>) -> (Cause, Vec<String>) {
    let mut evidence = vec!["the kernel log says that the OOM killer killed it".to_owned()];
    let cause = match kill.decision.as_ref().map(|decision| decision.constraint) {
        Some(Constraint::Memcg) => Cause::OomMemcg,
        Some(Constraint::None) => Cause::OomGlobal,
        Some(Constraint::Cpuset) => Cause::OomCpuset,
        Some(Constraint::MemoryPolicy) => Cause::OomMempolicy,
        None if kill.killed.memcg => Cause::OomMemcg,
        None => {
            inferred.push("that the host was out of memory: the kernel left out the line that would name a cpuset or memory policy".to_owned());
            Cause::OomGlobal
        }
    };
    evidence.push(match cause {
        Cause::OomMemcg => "it says that a memory cgroup was out of memory".to_owned(),
        Cause::OomCpuset => "it names the cpuset as the constraint".to_owned(),
        Cause::OomMempolicy => "it names a memory policy as the constraint".to_owned(),
        _ => "it says that the host was out of memory".to_owned(),
    });
    let limit = kill.decision.as_ref().and_then(|decision| decision.limit.as_ref());
    if let Some(path) = limit {
        let path = text::from_bytes(path);
        evidence.push(match kill.usage {
            Some(hit) => format!(
                "cgroup {path} used {} of its limit of {}{}",
                bytes(hit.usage),
                bytes(hit.limit),
                if hit.memsw { " for memory and swap together" } else { "" }
            ),
            None => format!("cgroup {path} was at its limit"),
        });
    }
    if let Some(group) = &kill.group {
        evidence.push(format!(
            "memory.oom.group is set: the kernel kills cgroup {} as a whole",
            text::from_bytes(group)
        ));
    }
    (cause, evidence)
}

fn memory(kill: &Kill) -> MemoryStory {
    let killed = &kill.killed;
    let limit = kill.decision.as_ref().and_then(|decision| decision.limit.as_ref());
    MemoryStory {
        anon_bytes: Some(killed.anon),
        file_bytes: Some(killed.file),
        shmem_bytes: Some(killed.shmem),
        page_tables_bytes: killed.page_tables,
        usage_bytes: kill.usage.map(|hit| hit.usage),
        limit_bytes: kill.usage.map(|hit| hit.limit),
        limit_cgroup: limit.map(|path| text::from_bytes(path)),
        limit_counter: kill.usage.filter(|hit| hit.memsw).map(|_| LimitCounter::Memsw),
        ..MemoryStory::default()
    }
}

#[cfg(test)]
#[path = "logged_tests.rs"]
pub(crate) mod tests;
