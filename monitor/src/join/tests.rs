//! What the kernel may say of a process, in which orders, and what must come of it.

use killwatch_ebpf::wire::{LastWords, Memory};
use proptest::prelude::*;
use zerocopy::FromZeros as _;

use super::*;

fn task(tgid: u32) -> Task {
    let mut task = Task::new_zeroed();
    (task.tgid, task.start_ns) = (tgid, 1000 + u64::from(tgid));
    task
}

fn mark(tgid: u32, ktime_ns: u64) -> Box<Mark> {
    let mut mark = Box::new(Mark::new_zeroed());
    mark.header.ktime_ns = ktime_ns;
    mark.victim = task(tgid);
    mark.trigger = task(1);
    mark
}

fn words(tgid: u32) -> Box<Words> {
    let empty = LastWords::new_zeroed();
    Box::new(Words {
        victim: task(tgid),
        signal: 9,
        threads: None,
        memory: Memory { ..empty.memory },
        tightest: None,
        cmdline: Vec::new(),
        cmdline_truncated: false,
        environ: std::collections::BTreeMap::default(),
        environ_missing: None,
    })
}

fn exit(tgid: u32, ktime_ns: u64) -> Box<Exit> {
    let mut exit = Box::new(Exit::new_zeroed());
    exit.header.ktime_ns = ktime_ns;
    exit.victim = task(tgid);
    exit.status = 9;
    exit
}

/// An end by a SIGKILL from the kernel.
fn oom_exit(tgid: u32, ktime_ns: u64) -> Box<Exit> {
    let mut exit = exit(tgid, ktime_ns);
    (exit.fatal.signal, exit.fatal.group) = (9, 1);
    exit.fatal.origin = Origin::Kernel as u32;
    exit.fatal.sender = task(1);
    exit
}

#[test]
fn an_end_waits_for_its_mark_and_no_longer() {
    let mut join = Join::default();
    join.exit(oom_exit(7, 100), 100);
    assert_eq!(join.next(100), None);
    assert!(join.is_waiting());
    join.mark(mark(7, 99));
    assert_eq!(join.next(100).unwrap().oom.unwrap().incident_ktime_ns, 99);

    join.exit(oom_exit(8, 100), 100);
    assert_eq!(join.next(100 + HOLD_NS - 1), None);
    assert_eq!(join.next(100 + HOLD_NS).unwrap().oom, None);
}

#[test]
fn a_parent_never_goes_before_its_child() {
    let mut join = Join::default();
    join.exit(oom_exit(7, 100), 100);
    join.exit(exit(6, 101), 100);
    assert_eq!(join.next(102), None);
    join.mark(mark(7, 99));
    assert_eq!(join.next(102).unwrap().exit.victim.tgid, 7);
    assert_eq!(join.next(102).unwrap().exit.victim.tgid, 6);
}

#[test]
fn a_group_kill_is_one_incident_and_two_kills_are_two() {
    let grouped = |tgid, ktime_ns, group| {
        let mut mark = mark(tgid, ktime_ns);
        mark.level_count = 2;
        mark.levels[0].max = u64::MAX;
        mark.levels[1].cgroup = 55;
        mark.levels[1].oom_group = group;
        mark
    };
    let mut join = Join::default();
    for (tgid, ktime_ns) in [(7, 100), (8, 200)] {
        join.mark(grouped(tgid, ktime_ns, 1));
        join.exit(exit(tgid, 300), 100);
    }
    for (tgid, ktime_ns) in [(9, 400), (10, 500)] {
        join.mark(grouped(tgid, ktime_ns, 0));
        join.exit(exit(tgid, 600), 100);
    }
    let incidents: Vec<u64> = std::iter::from_fn(|| join.next(1000))
        .map(|ended| ended.oom.unwrap().incident_ktime_ns)
        .collect();
    assert_eq!(incidents, [100, 100, 400, 500]);
}

/// The whole of a container is killed only when it, or something above it, is out of memory.
#[test]
fn a_group_above_the_limit_that_was_hit_is_not_killed() {
    let mut mark = mark(7, 100);
    mark.level_count = 3;
    for (place, (cgroup, usage, max, oom_group)) in
        [(1, 500, 500, 0), (2, 600, 9000, 1), (3, 700, u64::MAX, 0)].into_iter().enumerate()
    {
        mark.levels[place].cgroup = cgroup;
        (mark.levels[place].usage, mark.levels[place].max) = (usage, max);
        mark.levels[place].oom_group = oom_group;
    }
    assert_eq!(group_cgroup(&mark), None, "by the usage of the levels");
    mark.levels[1].max = 600;
    mark.levels[0].max = 9000;
    assert_eq!(group_cgroup(&mark), Some(2));
    (mark.decision.known, mark.decision.cgroup) = (1, 1);
    assert_eq!(group_cgroup(&mark), None, "by the kernel's word");
    mark.decision.cgroup = 0;
    assert_eq!(group_cgroup(&mark), Some(2), "the host is out of memory");
}

#[test]
fn only_who_is_there_is_stuck_and_whoever_was_told_so_is_told_as_gone() {
    let mut join = Join::default();
    join.mark(mark(7, 100));
    assert_eq!(join.stuck(100 + STUCK_NS, |_| false), None, "its end is on its way, or was lost");
    join.mark(mark(8, 200));
    // Others that speak and live on push out no victim.
    for tgid in 100..100 + 2 * u32::try_from(MAX_OPEN.get()).unwrap() {
        join.words(words(tgid));
    }
    assert!(join.stuck(200 + STUCK_NS, |_| true).is_some());
    let mut peaceful = exit(8, 300);
    (peaceful.status, peaceful.marked) = (0, 1);
    join.exit(peaceful, 300);
    assert!(join.next(300).is_some_and(|ended| ended.was_stuck));
}

#[test]
fn what_never_ends_is_bounded_and_counted() {
    let mut join = Join::default();
    for tgid in 0..u32::try_from(3 * MAX_OPEN.get()).unwrap() {
        join.words(words(tgid));
    }
    assert_eq!(join.words.len(), MAX_OPEN.get());
    assert_eq!(join.forgotten().open, 2 * MAX_OPEN.get() as u64);
}

#[test]
fn long_words_are_bounded_in_bytes() {
    let mut join = Join::default();
    for tgid in 0..u32::try_from(MAX_OPEN.get()).unwrap() {
        let mut words = words(tgid);
        words.cmdline = vec!["x".repeat(8000)];
        join.words(words);
    }
    assert!(join.words_bytes <= MAX_WORDS_BYTES);
    let held: usize = join.words.iter().map(|(_, words)| words.bytes()).sum();
    assert_eq!(join.words_bytes, held);
    assert_eq!(join.forgotten().open + join.words.len() as u64, MAX_OPEN.get() as u64);
    // The newest is among those that are kept.
    join.exit(exit(u32::try_from(MAX_OPEN.get()).unwrap() - 1, 100), 100);
    assert!(join.next(100).unwrap().words.is_some());
}

#[test]
fn the_last_words_are_the_last() {
    let mut join = Join::default();
    let mut handled = words(7);
    handled.signal = 15;
    join.words(handled);
    join.words(words(7));
    join.exit(exit(7, 100), 100);
    assert_eq!(join.next(100).unwrap().words.unwrap().signal, 9);
    assert_eq!(join.words_bytes, 0);
}

#[test]
fn a_victim_that_does_not_go_is_told_once_and_once_more_as_it_goes() {
    let mut join = Join::default();
    join.mark(mark(7, 100));
    join.words(words(7));
    join.mark(mark(8, 200));
    assert_eq!(join.stuck(100 + STUCK_NS - 1, |_| true), None);
    let stuck = join.stuck(100 + STUCK_NS, |_| true).unwrap();
    assert_eq!((stuck.oom.mark.victim.tgid, stuck.words), (7, Some(words(7))));
    assert_eq!(join.stuck(100 + STUCK_NS, |_| true), None, "the other is not late yet");
    join.exit(oom_exit(8, 300), 300);
    assert_eq!(
        join.stuck(300 + STUCK_NS, |_| true),
        None,
        "neither twice, nor one whose end is known"
    );
    assert!(!join.next(300).unwrap().was_stuck);
    join.exit(oom_exit(7, 400), 400);
    let ended = join.next(400).unwrap();
    assert!(ended.was_stuck && ended.words.is_some() && ended.oom.is_some());
    assert!(join.unsure.is_empty() && join.marks.is_empty() && join.words.is_empty());
}

/// A daemon that was stopped for a while finds all that happened on the ring, old as it is.
#[test]
fn a_late_end_still_waits_for_the_mark_behind_it() {
    let mut join = Join::default();
    let resumed = 5_000_000_000;
    join.exit(oom_exit(7, 100), resumed);
    assert_eq!(join.next(resumed), None);
    join.mark(mark(7, 99));
    assert!(join.next(resumed).unwrap().oom.is_some());
}

#[test]
fn a_reused_pid_is_another_process() {
    let mut join = Join::default();
    join.exit(exit(7, 100), 100);
    let mut second = exit(7, 200);
    second.victim.start_ns += 50;
    join.exit(second, 100);
    assert!(join.next(300).is_some());
    assert!(join.next(300).is_some());
}

#[derive(Debug, Clone, Copy)]
enum Said {
    Mark,
    Words,
    Exit,
}

proptest! {
    /// Any order and repetition of what the kernel says about three processes gives each of them once, whole.
    #[test]
    fn order_and_repetition_do_not_matter(
        order in Just(
            (1_u32..4)
                .flat_map(|tgid| [Said::Mark, Said::Words, Said::Exit].map(|said| (tgid, said)))
                .collect::<Vec<_>>(),
        )
        .prop_shuffle(),
        again in proptest::collection::vec(0_usize..9, 0..9),
    ) {
        let mut join = Join::default();
        let repeated = again.iter().map(|place| order[*place]);
        let said: Vec<_> = order.iter().copied().chain(repeated).collect();
        for (tgid, said) in said {
            match said {
                Said::Mark => join.mark(mark(tgid, 90)),
                Said::Words => join.words(words(tgid)),
                Said::Exit => join.exit(oom_exit(tgid, 100), 100),
            }
        }
        let mut ended: Vec<_> = std::iter::from_fn(|| join.next(100)).collect();
        ended.sort_by_key(|ended| ended.exit.victim.tgid);
        prop_assert_eq!(ended.len(), 3);
        for (ended, tgid) in ended.iter().zip(1..) {
            prop_assert_eq!(&ended.exit, &oom_exit(tgid, 100));
            prop_assert_eq!(&ended.oom.as_ref().unwrap().mark, &mark(tgid, 90));
            prop_assert_eq!(ended.words.as_ref().unwrap(), &words(tgid));
        }
        prop_assert!(!join.is_waiting());
        prop_assert!(join.marks.is_empty() && join.words.is_empty());
    }
}

#[test]
fn a_mark_on_a_peaceful_end_is_no_death() {
    let mut join = Join::default();
    for status in [0, 0x100, 128 << 8] {
        let mut peaceful = exit(7 + status, 100);
        (peaceful.status, peaceful.marked) = (status, 1);
        join.mark(mark(7 + status, 99));
        join.exit(peaceful, 100);
    }
    join.exit(exit(1, 101), 100);
    assert_eq!(join.next(u64::MAX).unwrap().exit.victim.tgid, 1);
    assert_eq!(join.next(u64::MAX), None);
    assert!(join.marks.is_empty());
}
