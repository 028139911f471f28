//! Lines of the kernel log → kills, each once. Pure.
//!
//! The kernel writes all lines of one decision under one lock (`oom_lock`), so they follow each other: what led to it, the decision
//! (rate limited), the first victim; then, for a group, which one and each of its processes, the first victim once more, which the kernel
//! counts twice. Whether it is a group is told after the first victim, so that one waits for the next line, or for [`WAIT_US`].

use std::collections::HashSet;

use super::parse::{Decision, Killed, Line};

/// How long a victim waits for the line that calls it one of a group, µs: between them the kernel may write to a slow console.
pub const WAIT_US: u64 = 100_000;
/// Lines of one decision are not further apart than this, µs.
const GAP_US: u64 = 10_000_000;
/// Processes of one group that are remembered. With more, one that is named again counts as another.
const MAX_GROUP: usize = 4096;

/// One OOM kill, as the kernel log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    /// The victim.
    pub killed: Killed,
    /// Its process id; else `killed.tid` is all that is known, which may be another thread's.
    pub pid: Option<u32>,
    /// When, µs since boot by the log's clock.
    pub time_us: u64,
    /// When the first victim of the decision was killed.
    pub incident_us: u64,
    /// The decision, if it was not left out.
    pub decision: Option<Decision>,
    /// The cgroup that was killed as a whole.
    pub group: Option<Vec<u8>>,
    /// The victim's cgroup, if that is known.
    pub cgroup: Option<Cgroup>,
    /// The counter at its limit.
    pub usage: Option<Usage>,
}

/// The cgroup of a victim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    /// Its path.
    pub path: Vec<u8>,
    /// Its id, if it was still there.
    pub id: Option<u64>,
    /// Where it is known from.
    pub from: Source,
}

/// Where a cgroup is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The line of the decision.
    Decision,
    /// The line of the group: the victim is in it, or below.
    Group,
    /// `/proc`, as the victim was dying.
    Proc,
}

/// Usage of the cgroup at its limit, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Charged.
    pub usage: u64,
    /// Allowed.
    pub limit: u64,
    /// Whether it is of memory and swap together.
    pub memsw: bool,
}

/// What comes of the lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A process was killed.
    Kill(Box<Kill>),
    /// The kernel counts the first victim of a group a second time.
    CountedAgain(Box<Kill>),
}

impl Event {
    /// Bytes behind it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let (Self::Kill(kill) | Self::CountedAgain(kill)) = self;
        let len = |path: Option<&Vec<u8>>| path.map_or(0, Vec::len);
        let decision = kill.decision.as_ref();
        size_of::<Kill>()
            + kill.killed.comm.len()
            + len(decision.and_then(|decision| decision.limit.as_ref()))
            + len(decision.and_then(|decision| decision.cgroup.as_ref()))
            + len(kill.group.as_ref())
            + len(kill.cgroup.as_ref().map(|cgroup| &cgroup.path))
    }
}

/// The lines so far.
#[derive(Debug, Default)]
pub struct Story {
    last_us: u64,
    usages: Vec<Usage>,
    decision: Option<Decision>,
    waiting: Option<Kill>,
    episode: Option<Episode>,
}

/// What the victims of one decision share.
#[derive(Debug)]
struct Episode {
    incident_us: u64,
    decision: Option<Decision>,
    usage: Option<Usage>,
    group: Option<Vec<u8>>,
    /// Of the group, by id and name.
    victims: HashSet<(u32, Vec<u8>)>,
}

impl Story {
    /// The next line that matters. `time_us`: the log's own time of it.
    pub fn line(&mut self, line: Line, time_us: u64) -> Option<Event> {
        if time_us.saturating_sub(self.last_us) > GAP_US {
            self.forget();
        }
        self.last_us = time_us;
        match line {
            Line::Invoked => {
                self.forget();
                self.release()
            }
            Line::Usage { memsw, usage, limit } => {
                // One of each: more are no kernel's.
                if self.usages.len() < 2 {
                    self.usages.extend(limit.map(|limit| Usage { usage, limit, memsw }));
                }
                None
            }
            Line::Decision(decision) => {
                self.episode = None;
                self.decision = Some(decision);
                self.release()
            }
            Line::Skipped => {
                self.decision = None;
                self.release()
            }
            Line::Group { path } => {
                let first = self.waiting.take();
                if let (Some(episode), Some(first)) = (&mut self.episode, &first) {
                    episode.group = Some(path.clone());
                    episode.victims.insert(named(&first.killed));
                }
                first.map(|first| Event::Kill(Box::new(Kill { group: Some(path), ..first })))
            }
            Line::Killed(killed) => self.killed(killed, time_us),
        }
    }

    fn killed(&mut self, killed: Killed, time_us: u64) -> Option<Event> {
        if let Some(episode) = &mut self.episode
            && let Some(group) = &episode.group
            && self.waiting.is_none()
        {
            let again = episode.victims.contains(&named(&killed));
            if !again && episode.victims.len() < MAX_GROUP {
                episode.victims.insert(named(&killed));
            }
            let kill = Box::new(Kill {
                pid: None,
                time_us,
                incident_us: episode.incident_us,
                decision: episode.decision.clone(),
                group: Some(group.clone()),
                cgroup: Some(Cgroup { path: group.clone(), id: None, from: Source::Group }),
                usage: episode.usage,
                killed,
            });
            return Some(if again { Event::CountedAgain(kill) } else { Event::Kill(kill) });
        }
        let before = self.release();
        // The number of a thread other than the first differs; its name then tells that the lines belong together no more than another's.
        let decision = self.decision.take().filter(|decision| decision.pid == killed.tid);
        let usage = std::mem::take(&mut self.usages);
        let usage = decision.as_ref().and_then(|_| at_limit(&usage));
        self.episode = Some(Episode {
            incident_us: time_us,
            decision: decision.clone(),
            usage,
            group: None,
            victims: HashSet::new(),
        });
        let cgroup = decision.as_ref().and_then(|decision| decision.cgroup.clone());
        self.waiting = Some(Kill {
            pid: decision.as_ref().map(|decision| decision.pid),
            time_us,
            incident_us: time_us,
            decision,
            group: None,
            cgroup: cgroup.map(|path| Cgroup { path, id: None, from: Source::Decision }),
            usage,
            killed,
        });
        before
    }

    /// Whether a victim waits for its next line, so that [`Self::release`] must be called [`WAIT_US`] later.
    #[must_use]
    pub const fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// The victim that waits: nothing more of it comes.
    pub fn release(&mut self) -> Option<Event> {
        self.waiting.take().map(|kill| Event::Kill(Box::new(kill)))
    }

    /// Lines were lost: what comes next belongs to none of what came before.
    pub fn interrupted(&mut self) -> Option<Event> {
        self.forget();
        self.release()
    }

    fn forget(&mut self) {
        self.usages.clear();
        self.decision = None;
        self.episode = None;
    }
}

fn named(killed: &Killed) -> (u32, Vec<u8>) {
    (killed.tid, killed.comm.clone())
}

/// The counter that was hit: the one with the least room.
fn at_limit(usages: &[Usage]) -> Option<Usage> {
    usages.iter().copied().min_by_key(|usage| usage.limit.saturating_sub(usage.usage))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::parse::{entry, line};
    use super::*;

    fn killed_line(tid: u32, comm: &str) -> String {
        format!(
            "Memory cgroup out of memory: Killed process {tid} ({comm}) total-vm:1kB, anon-rss:2kB, file-rss:3kB, shmem-rss:4kB, UID:5 pgtables:6kB oom_score_adj:7"
        )
    }

    fn decided(pid: u32) -> String {
        format!(
            "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg=/a/b,task=n,pid={pid},uid=0"
        )
    }

    /// What comes of lines a millisecond apart, and at the end.
    fn tell(lines: &[&str]) -> Vec<Event> {
        let (mut story, mut events) = (Story::default(), Vec::new());
        for (time, text) in (1000..).step_by(1000).zip(lines) {
            events.extend(line(text.as_bytes()).and_then(|line| story.line(line, time)));
        }
        events.extend(story.release());
        events
    }

    fn kills(events: &[Event]) -> Vec<(u32, bool, bool, Option<Source>)> {
        let shown = |event: &Event| {
            let (kill, again) = match event {
                Event::Kill(kill) => (kill, false),
                Event::CountedAgain(kill) => (kill, true),
            };
            (kill.killed.tid, again, kill.group.is_some(), kill.cgroup.as_ref().map(|c| c.from))
        };
        events.iter().map(shown).collect()
    }

    #[test]
    fn a_kill_with_all_its_lines() {
        let events = tell(&[
            "n invoked oom-killer: gfp_mask=0",
            "memory: usage 32768kB, limit 32768kB, failcnt 20",
            "memory+swap: usage 32768kB, limit 9007199254740988kB, failcnt 0",
            "[   77] 0 77 1 1",
            &decided(77),
            &killed_line(77, "n"),
        ]);
        let [Event::Kill(kill)] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!(kill.usage, Some(Usage { usage: 32 << 20, limit: 32 << 20, memsw: false }));
        assert_eq!((kill.pid, kill.time_us, kill.incident_us), (Some(77), 6000, 6000));
        let cgroup = Cgroup { path: b"/a/b".to_vec(), id: None, from: Source::Decision };
        assert_eq!(kill.cgroup, Some(cgroup));
    }

    #[test]
    fn a_group_is_one_incident_and_its_first_victim_is_counted_twice() {
        let group = "Tasks in /a are going to be killed due to memory.oom.group set";
        let (first, second) = (killed_line(1, "x"), killed_line(2, "y"));
        let events = tell(&[&decided(1), &first, group, &second, &first, &killed_line(9, "x")]);
        assert_eq!(
            kills(&events),
            [
                (1, false, true, Some(Source::Decision)),
                (2, false, true, Some(Source::Group)),
                (1, true, true, Some(Source::Group)),
                (9, false, true, Some(Source::Group)),
            ]
        );
        let incidents: HashSet<u64> = events
            .iter()
            .map(|event| match event {
                Event::Kill(kill) | Event::CountedAgain(kill) => kill.incident_us,
            })
            .collect();
        assert_eq!(incidents.len(), 1);
        // The next decision is another incident, and the same process number another process.
        let events = tell(&[&decided(1), &first, group, &first, &decided(2), &first]);
        assert_eq!(kills(&events).last(), Some(&(1, false, false, None)));
    }

    #[test]
    fn a_decision_counts_for_its_own_victim_only() {
        let skipped = "Memory cgroup out of memory: OOM victim 1 (n) is already exiting. Skip killing the task";
        assert_eq!(
            kills(&tell(&[&decided(1), skipped, &killed_line(1, "n")])),
            [(1, false, false, None)]
        );
        assert_eq!(kills(&tell(&[&decided(1), &killed_line(2, "n")])), [(2, false, false, None)]);
        let invoked = "n invoked oom-killer: gfp_mask=0";
        assert_eq!(
            kills(&tell(&[&decided(1), invoked, &killed_line(1, "n")])),
            [(1, false, false, None)]
        );
        let twice = [decided(1), killed_line(1, "n"), killed_line(1, "n")];
        let twice = tell(&twice.each_ref().map(String::as_str));
        assert_eq!(
            kills(&twice),
            [(1, false, false, Some(Source::Decision)), (1, false, false, None)]
        );
    }

    #[test]
    fn what_was_lost_joins_nothing() {
        let mut story = Story::default();
        let of = |text: &str| line(text.as_bytes()).unwrap();
        assert_eq!(story.line(of(&decided(1)), 0), None);
        assert_eq!(story.interrupted(), None);
        assert_eq!(story.line(of(&killed_line(1, "n")), 1), None);
        assert!(story.is_waiting());
        let Some(Event::Kill(kill)) = story.interrupted() else { panic!("nothing") };
        assert_eq!((kill.decision, story.is_waiting()), (None, false));
        // Nor does what is long past.
        assert_eq!(story.line(of(&decided(1)), 2), None);
        story.line(of(&killed_line(1, "n")), 3 + GAP_US);
        let Some(Event::Kill(kill)) = story.release() else { panic!("nothing") };
        assert_eq!(kill.decision, None);
    }

    proptest! {
        /// Each line of a kill is one kill, or one more count, whatever else there is.
        #[test]
        fn every_line_of_a_kill_is_told_once(picks in proptest::collection::vec((0..6_u8, 1..4_u32), 0..60)) {
            let lines: Vec<String> = picks
                .iter()
                .map(|(pick, pid)| match pick {
                    0 => decided(*pid),
                    1 => "Tasks in /a are going to be killed due to memory.oom.group set".to_owned(),
                    2 => "n invoked oom-killer: gfp_mask=0".to_owned(),
                    3 => "memory: usage 1kB, limit 1kB, failcnt 0".to_owned(),
                    _ => killed_line(*pid, "n"),
                })
                .collect();
            let events = tell(&lines.iter().map(String::as_str).collect::<Vec<_>>());
            prop_assert_eq!(events.len(), picks.iter().filter(|(pick, _)| *pick > 3).count());
        }
    }

    #[test]
    fn the_corpus_makes_a_story() {
        let mut story = Story::default();
        let records = include_str!("corpus.txt").lines().filter(|line| !line.starts_with('#'));
        let entries = records.filter_map(|record| entry(record.as_bytes()));
        let events: Vec<Event> =
            entries.filter_map(|entry| story.line(line(&entry.text)?, entry.time_us)).collect();
        let Some(Event::Kill(kill)) = events.first() else { panic!("{events:?}") };
        assert_eq!(kill.cgroup.as_ref().map(|c| c.from), Some(Source::Decision));
    }
}
