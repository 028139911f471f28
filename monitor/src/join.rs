//! Joins what the kernel said about one process — its mark, its last words, its end — to one [`Ended`], exactly once.
//!
//! Pure: the only clock is the records' own time and the `now` that the caller passes. Records of one process may come in any
//! order and more than once; the outcome is the same. Two delays are known and waited for, up to [`HOLD_NS`]: the end may overtake
//! the mark (from 6.16 on, and with several threads), and ends leave in the order in which they came, so that a parent never
//! goes before the child whose death it relays.

use std::{collections::VecDeque, num::NonZeroUsize};

use killwatch_ebpf::wire::{Exit, Level, Mark, Origin, Task, is_abnormal, sender};
use lru::LruCache;

use crate::probe::words::Words;

/// How long an end waits for its mark, ns. The mark follows the kill signal by microseconds, and both are read in one go.
pub const HOLD_NS: u64 = 50_000_000;
/// A victim that was marked this long ago and is still there is stuck in the kernel, ns.
pub const STUCK_NS: u64 = 10_000_000_000;
/// Victims of the OOM killer whose end has not come, and processes that spoke and whose end has not come: so many each, the oldest is forgotten first. They are
/// kept apart, for anybody can make many processes that speak and live on.
const MAX_OPEN: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);
/// Bytes of the last words that are kept.
const MAX_WORDS_BYTES: usize = 4 << 20;
/// Ends that wait. With more, the first goes without its mark.
const MAX_HELD: usize = 4096;
/// Ends that are remembered so that a second report of one is dropped.
const MAX_DONE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(8191);
/// A level counts as full this close to its limit, pages.
const SLACK_PAGES: u64 = 128;
/// Marks of one group kill follow each other at most this far apart, ns: between two of them the kernel may write a log line to a slow console.
const GROUP_GAP_NS: u64 = 1_000_000_000;

/// A process, for the time of one boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessId {
    /// Process id.
    pub tgid: u32,
    /// Start, ns since boot: tells a reused pid from the old one.
    pub start_ns: u64,
}

impl From<&Task> for ProcessId {
    fn from(task: &Task) -> Self {
        Self { tgid: task.tgid, start_ns: task.start_ns }
    }
}

/// An OOM kill and the decision that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OomKill {
    /// What the kernel side saw.
    pub mark: Box<Mark>,
    /// Time of the decision's first mark, or of the decision itself where it was seen. Victims of one decision share it.
    pub incident_ktime_ns: u64,
    /// Whether the cgroup is killed as a whole.
    pub group: bool,
}

/// A process that ended abnormally, with all that the kernel said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its end.
    pub exit: Box<Exit>,
    /// The OOM kill, if it was one.
    pub oom: Option<OomKill>,
    /// Its last words, if they could be read.
    pub words: Option<Box<Words>>,
    /// Whether it was told as [`Stuck`] before.
    pub was_stuck: bool,
}

/// A process that the OOM killer killed and that is still there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// The kill.
    pub oom: OomKill,
    /// Its last words, if a thread of it got that far.
    pub words: Option<Box<Words>>,
}

/// Counts of what was let go. Each is a gap that is reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Processes whose mark or words were forgotten before their end came.
    pub open: u64,
    /// Ends that left without the mark that they waited for.
    pub unmarked: u64,
}

/// The state between records. What is kept by process is only ever looked at, so that each cache lets go of what came first.
#[derive(Debug)]
pub struct Join {
    marks: LruCache<ProcessId, Marked>,
    words: LruCache<ProcessId, Box<Words>>,
    /// Of `words`.
    words_bytes: usize,
    held: VecDeque<Held>,
    /// Victims of the OOM killer in the order of their marks, until it is known whether they are stuck. May name processes that are gone.
    unsure: VecDeque<ProcessId>,
    /// Ends that came, and whether they left again.
    done: LruCache<ProcessId, Left>,
    last_mark: Option<LastMark>,
    forgotten: Forgotten,
}

impl Default for Join {
    fn default() -> Self {
        Self {
            marks: LruCache::new(MAX_OPEN),
            words: LruCache::new(MAX_OPEN),
            words_bytes: 0,
            held: VecDeque::new(),
            unsure: VecDeque::new(),
            done: LruCache::new(MAX_DONE),
            last_mark: None,
            forgotten: Forgotten::default(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    No,
    Yes,
}

#[derive(Debug)]
struct Marked {
    oom: OomKill,
    /// Whether it was told as stuck.
    stuck: bool,
}

#[derive(Debug)]
struct Held {
    exit: Box<Exit>,
    since_ns: u64,
}

#[derive(Debug, Clone, Copy)]
struct LastMark {
    trigger: ProcessId,
    trigger_tid: u32,
    group: Option<u64>,
    incident_ktime_ns: u64,
    ktime_ns: u64,
}

impl Join {
    /// The OOM killer killed a process.
    pub fn mark(&mut self, mark: Box<Mark>) {
        let id = ProcessId::from(&mark.victim);
        if self.is_over(id) {
            return;
        }
        let group = group_cgroup(&mark);
        let incident_ktime_ns = self.incident(&mark, group);
        if self.marks.contains(&id) {
            return;
        }
        let oom = OomKill { mark, incident_ktime_ns, group: group.is_some() };
        if self.marks.push(id, Marked { oom, stuck: false }).is_some() {
            self.forgotten.open += 1;
        }
        if self.unsure.len() >= 2 * MAX_OPEN.get() {
            self.unsure.pop_front();
        }
        self.unsure.push_back(id);
    }

    /// A victim's last words.
    pub fn words(&mut self, words: Box<Words>) {
        let id = ProcessId::from(&words.victim);
        if self.is_over(id) {
            return;
        }
        self.words_bytes += words.bytes();
        // Whoever handled a signal that would have ended it speaks again when it dies: the last words are the last.
        if let Some((other, before)) = self.words.push(id, words) {
            self.words_bytes -= before.bytes();
            self.forgotten.open += u64::from(other != id);
        }
        while self.words_bytes > MAX_WORDS_BYTES && self.words.len() > 1 {
            let Some((_, oldest)) = self.words.pop_lru() else { break };
            self.words_bytes -= oldest.bytes();
            self.forgotten.open += 1;
        }
    }

    /// A process ended. `now_ns`: when this is heard, ns since boot; a daemon that was stopped hears of it late, and of its mark right after.
    pub fn exit(&mut self, exit: Box<Exit>, now_ns: u64) {
        let id = ProcessId::from(&exit.victim);
        if self.done.contains(&id) {
            return;
        }
        self.done.push(id, Left::No);
        self.held.push_back(Held { exit, since_ns: now_ns });
    }

    /// The next victim that is stuck: told once. `now_ns`: ns since boot. `is_there` says whether a process still exists: an end may be on its way,
    /// or may have been lost.
    pub fn stuck(
        &mut self,
        now_ns: u64,
        mut is_there: impl FnMut(ProcessId) -> bool,
    ) -> Option<Stuck> {
        while let Some(id) = self.unsure.front().copied() {
            // An end that was heard and waits is as good as told.
            let marked = self.marks.peek_mut(&id).filter(|_| !self.done.contains(&id));
            let is_early =
                |marked: &Marked| now_ns.saturating_sub(marked.oom.mark.header.ktime_ns) < STUCK_NS;
            if marked.as_deref().is_some_and(is_early) {
                return None;
            }
            self.unsure.pop_front();
            if let Some(marked) = marked
                && !marked.stuck
                && is_there(id)
            {
                marked.stuck = true;
                let words = self.words.peek(&id).cloned();
                return Some(Stuck { oom: marked.oom.clone(), words });
            }
        }
        None
    }

    /// The next process whose story is complete, or which waited long enough. `now_ns`: ns since boot.
    pub fn next(&mut self, now_ns: u64) -> Option<Ended> {
        loop {
            let ended = self.release(now_ns)?;
            // A process that was marked while it ended in peace was not killed. Whoever was told as stuck is told as gone, whatever its end.
            if is_abnormal(ended.exit.status) || ended.was_stuck {
                return Some(ended);
            }
        }
    }

    fn release(&mut self, now_ns: u64) -> Option<Ended> {
        let first = self.held.front()?;
        let id = ProcessId::from(&first.exit.victim);
        if awaits_mark(&first.exit) && !self.marks.contains(&id) {
            let waited = now_ns.saturating_sub(first.since_ns);
            if waited < HOLD_NS && self.held.len() <= MAX_HELD {
                return None;
            }
            self.forgotten.unmarked += u64::from(first.exit.marked != 0);
        }
        let Held { exit, .. } = self.held.pop_front()?;
        if let Some(left) = self.done.peek_mut(&id) {
            *left = Left::Yes;
        }
        let words = self.words.pop(&id);
        self.words_bytes -= words.as_ref().map_or(0, |words| words.bytes());
        let marked = self.marks.pop(&id);
        let was_stuck = marked.as_ref().is_some_and(|marked| marked.stuck);
        Some(Ended { exit, oom: marked.map(|marked| marked.oom), words, was_stuck })
    }

    /// Whether an end waits, so that [`Self::next`] must be called again soon.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.held.is_empty()
    }

    /// Ends that wait.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// What was let go so far.
    #[must_use]
    pub const fn forgotten(&self) -> Forgotten {
        self.forgotten
    }

    /// Whether the process was passed on: what comes now is a repetition, or came too late.
    fn is_over(&self, id: ProcessId) -> bool {
        self.done.peek(&id) == Some(&Left::Yes)
    }

    /// The decision that a mark belongs to.
    fn incident(&mut self, mark: &Mark, group: Option<u64>) -> u64 {
        let ktime_ns = mark.header.ktime_ns;
        let trigger = ProcessId::from(&mark.trigger);
        let trigger_tid = mark.trigger.tid;
        let incident_ktime_ns = match self.last_mark {
            _ if mark.decision.known != 0 => mark.decision.ktime_ns,
            // The kernel holds one lock from a decision to its last mark, so marks of two decisions never alternate.
            Some(last)
                if group.is_some()
                    && last.group == group
                    && last.trigger == trigger
                    && last.trigger_tid == trigger_tid
                    && ktime_ns.saturating_sub(last.ktime_ns) < GROUP_GAP_NS =>
            {
                last.incident_ktime_ns
            }
            _ => ktime_ns,
        };
        self.last_mark =
            Some(LastMark { trigger, trigger_tid, group, incident_ktime_ns, ktime_ns });
        incident_ktime_ns
    }
}

/// The topmost cgroup that is killed as a whole, from the victim's own up to the one that is out of memory (mem_cgroup_get_oom_group, mm/memcontrol.c).
fn group_cgroup(mark: &Mark) -> Option<u64> {
    let levels = levels(mark);
    let domain = if mark.decision.known != 0 {
        levels.iter().position(|level| level.cgroup == mark.decision.cgroup)
    } else {
        levels.iter().position(is_full)
    };
    let inside = levels.get(..=domain.unwrap_or(usize::MAX - 1)).unwrap_or(levels);
    inside.iter().rev().find(|level| level.oom_group != 0).map(|level| level.cgroup)
}

/// Whether a level is at its limit, give or take what one failed allocation and other CPUs make.
fn is_full(level: &Level) -> bool {
    level.usage.saturating_add(SLACK_PAGES) >= level.max
}

/// The levels in use.
#[must_use]
pub fn levels(mark: &Mark) -> &[Level] {
    let count = (mark.level_count as usize).min(mark.levels.len());
    &mark.levels[..count]
}

/// Whether the end looks like an OOM kill: the mark may be on its way.
fn awaits_mark(exit: &Exit) -> bool {
    const SIGKILL: u32 = 9;
    let by_kernel = exit.fatal.signal == SIGKILL
        && exit.fatal.origin == Origin::Kernel as u32
        && exit.fatal.group != 0
        && exit.fatal.sender.tgid != exit.victim.tgid
        && exit.fatal.sender_state & sender::NAMESPACE_INIT == 0;
    exit.status & 0x7f == SIGKILL && (by_kernel || exit.marked != 0 && exit.fatal.signal == 0)
}

#[cfg(test)]
mod tests;
