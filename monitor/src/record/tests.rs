//! From what the kernel says to the record: whatever the order, and however often it says it.

use killwatch_ebpf::wire::{LastWords, Level, Mark, Origin, sender};
use proptest::prelude::*;
use uuid::Uuid;
use zerocopy::FromZeros as _;

use super::*;
use crate::{
    cgroup::index::{Index, Limits},
    death::{Cause, KillerKind},
    join::{Join, STUCK_NS},
};

const NOW: u64 = 1_000_000_000;
const PID: u32 = 70;

fn recorder() -> Recorder {
    Recorder {
        node: "node".into(),
        boot_id: None,
        page_size: 4096,
        memory_hierarchy: 0,
        clock: Clock,
        names: Names::default(),
        marks: Marks::new("/nonexistent".into()),
        tags: Arc::default(),
    }
}

fn task(tgid: u32, comm: &[u8]) -> Task {
    let mut task = Task::new_zeroed();
    (task.tgid, task.tid, task.start_ns, task.ppid) = (tgid, tgid, 1000 + u64::from(tgid), 1);
    task.comm[..comm.len()].copy_from_slice(comm);
    task
}

/// What the kernel says of one process that ends with `status`; `fatal` is who sent what.
#[derive(Debug, Clone)]
struct Script {
    mark: Option<Box<Mark>>,
    words: Box<Words>,
    exit: Box<Exit>,
}

impl Script {
    fn new(status: u32, fatal: Sent) -> Self {
        let empty = LastWords::new_zeroed();
        let mut exit = Box::new(Exit::new_zeroed());
        exit.header.ktime_ns = 900;
        exit.victim = task(PID, b"worker");
        (exit.status, exit.fatal) = (status, fatal);
        let words = Words {
            victim: exit.victim,
            signal: 9,
            threads: Some(2),
            memory: empty.memory,
            tightest: None,
            cmdline: vec!["worker".into(), "--shard".into()],
            cmdline_truncated: false,
            environ: BTreeMap::from([("JOB_ID".into(), "7".into())]),
            environ_missing: None,
        };
        Self { mark: None, words: Box::new(words), exit }
    }

    fn oom_kill() -> Self {
        let mut script = Self::new(9, Sent { origin: Origin::Kernel as u32, ..sent(9, 60) });
        let mut mark = Box::new(Mark::new_zeroed());
        mark.header.ktime_ns = 800;
        mark.victim = script.exit.victim;
        mark.trigger = task(60, b"allocator");
        mark.level_count = 1;
        mark.levels[0] = Level { cgroup: 5, usage: 100, max: 100, ..mark.levels[0] };
        script.exit.marked = 1;
        script.mark = Some(mark);
        script
    }

    fn kinds() -> impl Strategy<Value = (Self, Cause)> {
        let init = sender::EXITING | sender::NAMESPACE_INIT;
        prop_oneof![
            Just((Self::oom_kill(), Cause::OomMemcg)),
            Just((Self::new(9, sent(9, 60)), Cause::Killed)),
            Just((Self::new(6, sent(6, PID)), Cause::Abort)),
            Just((Self::new(137 << 8, Sent::NONE), Cause::Unknown)),
            Just((
                Self::new(
                    9,
                    Sent {
                        origin: Origin::Kernel as u32,
                        shared_start_ns: 7,
                        shared_tgid: 50,
                        shared_seen: 1,
                        ..sent(9, PID)
                    }
                ),
                Cause::OomCollateral
            )),
            Just((
                Self::new(
                    9,
                    Sent { origin: Origin::Kernel as u32, sender_state: init, ..sent(9, 60) }
                ),
                Cause::PidnsTeardown
            )),
        ]
    }
}

fn sent(signal: u32, by: u32) -> Sent {
    let mut sent = Sent { signal, group: 1, ktime_ns: 700, ..Sent::NONE };
    sent.sender = task(by, b"sender");
    sent
}

/// The records of a join that was told these parts (0 mark, 1 words, 2 exit) in this order, and asked for what is complete after those in `asked`.
fn told(script: &Script, parts: &[usize], asked: &[bool]) -> Vec<Death> {
    let mut join = Join::default();
    let (recorder, index, mut kin) = (recorder(), index(), Kin::default());
    let mut records = Vec::new();
    for (place, part) in parts.iter().enumerate() {
        match (part, &script.mark) {
            (0, Some(mark)) => join.mark(mark.clone()),
            (0, None) => {}
            (1, _) => join.words(script.words.clone()),
            _ => join.exit(script.exit.clone(), NOW),
        }
        if asked.get(place).is_none_or(|asked| *asked) {
            let ends = std::iter::from_fn(|| join.next(NOW));
            records.extend(ends.map(|ended| recorder.record(&ended, &index, &mut kin)));
        }
    }
    let ends = std::iter::from_fn(|| join.next(NOW));
    records.extend(ends.map(|ended| recorder.record(&ended, &index, &mut kin)));
    records.into_iter().map(timeless).collect()
}

fn index() -> Index {
    Index::new(Limits::default())
}

/// Without what differs from one making of a record to the next.
fn timeless(mut death: Death) -> Death {
    death.id = Uuid::nil();
    death.time = jiff::Timestamp::UNIX_EPOCH;
    death.victim.start_time = Some(jiff::Timestamp::UNIX_EPOCH);
    death
}

proptest! {
    /// The reader hands on last words before the end of the same process (`probe::words`); all else may come in any order, and be asked for at any time.
    #[test]
    fn any_order_and_repetition_gives_the_same_single_record(
        (script, cause) in Script::kinds(),
        order in prop_oneof![
            Just(vec![0_usize, 1, 2]),
            Just(vec![1, 0, 2]),
            Just(vec![1, 2, 0]),
        ],
        again in proptest::collection::vec(0_usize..3, 0..6),
        asked in proptest::collection::vec(any::<bool>(), 9),
    ) {
        let parts: Vec<usize> = order.into_iter().chain(again).collect();
        let records = told(&script, &parts, &asked);
        prop_assert_eq!(&records, &told(&script, &[0, 1, 2], &[]));
        prop_assert_eq!(records.len(), 1);
        prop_assert_eq!(records[0].cause, cause);
    }
}

#[test]
fn a_stuck_victim_is_told_without_an_end_and_then_with_it() {
    let script = Script::oom_kill();
    let (recorder, index, mut kin) = (recorder(), index(), Kin::default());
    let mut join = Join::default();
    join.mark(script.mark.clone().unwrap());
    join.words(script.words.clone());
    let late = 800 + STUCK_NS;
    let stuck = recorder.record_stuck(&join.stuck(late, |_| true).unwrap(), &index, &kin, late);
    assert_eq!((stuck.state, stuck.cause), (State::Stuck, Cause::OomMemcg));
    assert_eq!(stuck.stuck_seconds, Some(10.0));
    assert_eq!((stuck.victim.status, stuck.victim.core_dumped), (None, None));
    assert_eq!(stuck.killer.kind, KillerKind::Kernel);
    assert!(stuck.missing.iter().any(|missing| missing.field == "victim.status"), "{stuck:?}");
    let mut exit = script.exit;
    exit.header.ktime_ns = late + 1_000_000_000;
    join.exit(exit, late);
    let dead = recorder.record(&join.next(late).unwrap(), &index, &mut kin);
    assert_eq!(
        (dead.state, dead.cause, dead.victim.status),
        (State::Dead, Cause::OomMemcg, Some(137))
    );
    assert_eq!(dead.stuck_seconds, Some(11.0));
}
