//! The ledger against a plain model, through crashes and restarts.

use std::time::Duration;

use proptest::prelude::*;

use super::disk::Disk;
use super::{BOUNDS, death, on, settled};
use crate::ledger::{Bounds, Ledger};

#[derive(Debug, Clone)]
enum Op {
    /// Deaths, with a note of the last number each.
    Append(u32),
    /// A cursor goes so far on.
    Acknowledge(u64),
    Settle,
    Restart,
    Crash(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1u32..6).prop_map(Op::Append),
        2 => (0u64..6).prop_map(Op::Acknowledge),
        2 => Just(Op::Settle),
        1 => Just(Op::Restart),
        2 => any::<u64>().prop_map(Op::Crash),
    ]
}

/// What is known to have happened.
#[derive(Default)]
struct Model {
    /// What each number stands for: the victim's pid, never twice the same.
    pids: Vec<u32>,
    next_pid: u32,
    settled: u64,
    acknowledged: u64,
}

impl Model {
    /// After a start: what was settled is there, of the rest a first part may be.
    fn restarted(&mut self, ledger: &Ledger, cap: u64, clean: bool) {
        let last = *ledger.changed().borrow();
        assert!(last >= self.settled, "{last} of {} settled", self.settled);
        assert!(last <= self.pids.len() as u64 && (!clean || last == self.pids.len() as u64));
        self.pids.truncate(usize::try_from(last).unwrap());
        self.settled = last;
        let noted = ledger.noted("last").map(|note| String::from_utf8(note.to_vec()).unwrap());
        assert_eq!(noted, (last > 0).then(|| last.to_string()), "a note is there if its entry is");
        assert_eq!(ledger.len() as u64, last.min(cap));
        let cursor = ledger.cursor("reader").unwrap_or(0);
        assert!(cursor <= self.acknowledged.min(last) && (!clean || cursor == self.acknowledged));
        self.acknowledged = cursor;
    }

    fn check(&self, ledger: &Ledger, cap: u64) {
        let settled = *ledger.changed().borrow();
        let (mut cursor, mut skipped) = (0, 0);
        loop {
            let batch = ledger.read_after(cursor, 3);
            assert!(cursor == 0 || batch.skipped == 0);
            skipped += batch.skipped;
            cursor += batch.skipped;
            for entry in &batch.entries {
                cursor += 1;
                assert_eq!(entry.seq, cursor);
                let pid = self.pids[usize::try_from(cursor - 1).unwrap()];
                assert_eq!(entry.death().unwrap().victim.pid, pid);
            }
            if batch.entries.is_empty() {
                break;
            }
        }
        assert!(cursor >= settled);
        assert!(skipped <= self.pids.len() as u64 - (self.pids.len() as u64).min(cap));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn what_was_settled_outlives_everything(cap in 2u64..12, ops in prop::collection::vec(op(), 1..25)) {
        let disk = Disk::default();
        let bounds = Bounds { max_deaths: cap, ..BOUNDS };
        let (mut ledger, mut model) = (on(&disk, bounds), Model::default());
        for op in ops {
            match op {
                Op::Append(deaths) => {
                    for _ in 0..deaths {
                        model.next_pid += 1;
                        model.pids.push(model.next_pid);
                        let seq = model.pids.len() as u64;
                        let entry = ledger.append_noting(death(model.next_pid), "last", seq.to_string());
                        prop_assert_eq!(entry.unwrap().seq, seq);
                        // No more than memory has room for, or the oldest would rightly go unsaved.
                        if seq - *ledger.changed().borrow() + 1 >= cap {
                            settled(&ledger);
                        }
                    }
                }
                Op::Acknowledge(on) => {
                    let seq = (model.acknowledged + on).min(model.pids.len() as u64);
                    ledger.acknowledge("reader", seq);
                    model.acknowledged = seq;
                }
                Op::Settle => {
                    settled(&ledger);
                    model.settled = model.pids.len() as u64;
                }
                Op::Restart => {
                    prop_assert_eq!(ledger.close(Duration::from_secs(60)), 0);
                    ledger = on(&disk, bounds);
                    model.restarted(&ledger, cap, true);
                }
                Op::Crash(seed) => {
                    model.settled = model.settled.max(*ledger.changed().borrow());
                    // First, so that what it was writing fails for good.
                    drop(ledger);
                    disk.crash(seed);
                    ledger = on(&disk, bounds);
                    model.restarted(&ledger, cap, false);
                }
            }
            model.check(&ledger, cap);
            prop_assert!(disk.aside().is_empty(), "no crash damages a file");
        }
    }
}
