//! The kernel's structures → the record's: pages to bytes, ids to paths, numbers to what they stand for.

use killwatch_ebpf::wire::{Exit, Level, Mark, Memory, Origin, Sent, ignored, sender};

use super::Recorder;
use crate::{
    cgroup::index::Index,
    death::{Ancestor, Constraint, LevelUse, MemoryStory, Related, Role, Trigger},
    join::{self, ProcessId},
    text,
    verdict::{Limits, OomFacts, Sender},
};

impl Recorder {
    /// The levels of a mark, the victim's own first.
    pub(super) fn levels(&self, mark: &Mark, index: &Index) -> Vec<LevelUse> {
        join::levels(mark).iter().map(|level| self.level(level, index)).collect()
    }

    /// One level. What counts swap differs: alone on v2, together with memory on v1.
    pub(super) fn level(&self, level: &Level, index: &Index) -> LevelUse {
        let bytes = |pages: u64| pages.saturating_mul(self.page_size);
        // PAGE_COUNTER_MAX in pages (include/linux/page_counter.h); v1 rounds it down to whole pages of bytes.
        let unlimited = i64::MAX.unsigned_abs() / self.page_size;
        let limit = |pages: u64| (pages < unlimited).then(|| bytes(pages));
        let (used, allowed) = (Some(bytes(level.swap_usage)), limit(level.swap_max));
        let is_v2 = self.memory_hierarchy == 0;
        LevelUse {
            cgroup: self.path(index, level.cgroup),
            usage_bytes: bytes(level.usage),
            limit_bytes: limit(level.max),
            swap_bytes: used.filter(|_| is_v2),
            swap_limit_bytes: allowed.filter(|_| is_v2),
            memsw_bytes: used.filter(|_| !is_v2),
            memsw_limit_bytes: allowed.filter(|_| !is_v2),
        }
    }

    /// A decision of the OOM killer.
    pub(super) fn oom(&self, mark: &Mark, group: bool, index: &Index) -> OomFacts {
        let decision = &mark.decision;
        let known = decision.known != 0;
        let trigger = &mark.trigger;
        OomFacts {
            constraint: known.then_some(match decision.constraint {
                1 => Constraint::Cpuset,
                2 => Constraint::MemoryPolicy,
                3 => Constraint::Memcg,
                _ => Constraint::None,
            }),
            level: known
                .then(|| {
                    join::levels(mark).iter().position(|level| level.cgroup == decision.cgroup)
                })
                .flatten(),
            allowed_bytes: known.then(|| decision.total_pages.saturating_mul(self.page_size)),
            sysrq: known && decision.order == -1,
            group,
            trigger: Trigger {
                pid: trigger.tgid,
                tid: trigger.tid,
                comm: text::from_c(&trigger.comm),
                cgroup: self.path(index, trigger.cgroup_memory),
            },
        }
    }
}

/// The memory of a process, without the cgroups around it.
pub(super) fn memory(known: &Memory, page_size: u64) -> MemoryStory {
    let pages = |count: i64| u64::try_from(count).ok().map(|pages| pages.saturating_mul(page_size));
    MemoryStory {
        anon_bytes: pages(known.anon),
        file_bytes: pages(known.file),
        shmem_bytes: pages(known.shmem),
        swap_bytes: pages(known.swap),
        page_tables_bytes: u64::try_from(known.pgtables_bytes).ok(),
        peak_rss_bytes: peak(known).and_then(pages),
        ..MemoryStory::default()
    }
}

/// The highest resident set: what the kernel noted, or the present one if it is higher.
fn peak(memory: &Memory) -> Option<i64> {
    let present = [memory.anon, memory.file, memory.shmem].into_iter().filter(|pages| *pages >= 0);
    let noted = Some(memory.hiwater_rss).filter(|pages| *pages >= 0);
    noted.max(present.reduce(i64::saturating_add))
}

/// Resource limits and what was used of them.
pub(super) fn limits(exit: &Exit) -> Limits {
    let limited = |limits: [u64; 2]| limits.map(|limit| Some(limit).filter(|l| *l != u64::MAX));
    Limits {
        cpu_seconds: (exit.cpu_ns != u64::MAX).then(|| super::seconds(exit.cpu_ns)),
        cpu: limited(exit.cpu_limit),
        file_size: limited(exit.file_size_limit),
        realtime: limited(exit.realtime_limit),
    }
}

/// Who sent a signal, so far as the kernel side knows; `None` if it saw nobody.
pub(super) fn sender(sent: &Sent) -> Option<Sender> {
    let signal = u8::try_from(sent.signal).ok().filter(|signal| *signal != 0)?;
    let exiting = sent.sender_state & sender::EXITING != 0;
    let comm = text::from_c(&sent.sender.comm);
    let related = |role, pid, comm: String, status| Related {
        role,
        pid,
        comm,
        status,
        id: None,
        cause: None,
    };
    Some(Sender {
        signal,
        origin: origin(sent.origin),
        code: sent.code,
        group: sent.group != 0,
        ignored: sent.ignored != ignored::NO,
        init_without_handler: sent.ignored == ignored::NO_HANDLER,
        ktime_ns: sent.ktime_ns,
        process: ProcessId::from(&sent.sender),
        parent: ProcessId { tgid: sent.sender.ppid, start_ns: sent.sender.parent_start_ns },
        uid: sent.sender.uid,
        cgroup: None,
        container_id: None,
        unit: None,
        ancestors: sent
            .ancestors
            .iter()
            .take_while(|ancestor| ancestor.tgid != 0)
            .map(|ancestor| Ancestor { pid: ancestor.tgid, comm: text::from_c(&ancestor.comm) })
            .collect(),
        exiting,
        thread_only: sent.sender_state & sender::THREAD_ONLY != 0,
        namespace_init: sent.sender_state & sender::NAMESPACE_INIT != 0,
        tracer: sent.sender_state & sender::TRACER != 0,
        shared: (sent.shared_tgid != 0).then(|| {
            related(Role::OomVictim, sent.shared_tgid, text::from_c(&sent.shared_comm), None)
        }),
        shared_seen: sent.shared_seen != 0,
        end: (exiting && sent.sender_state & sender::THREAD_ONLY == 0).then(|| {
            let status = Some(shown(sent.sender_status));
            related(Role::Parent, sent.sender.tgid, comm.clone(), status)
        }),
        comm,
        is_victim: false,
    })
}

const fn origin(origin: u32) -> Origin {
    match origin {
        o if o == Origin::NoInfo as u32 => Origin::NoInfo,
        o if o == Origin::Kernel as u32 => Origin::Kernel,
        _ => Origin::Info,
    }
}

/// What a shell shows of a wait status.
fn shown(status: u32) -> u8 {
    let signal = (status & 0x7f) as u8;
    if signal == 0 { (status >> 8 & 0xff) as u8 } else { 128 + signal }
}
