//! The ledger against a plain model, and its bounds.

use std::sync::Arc;

use proptest::prelude::*;

use super::{Filter, Ledger, LedgerConfig};
use crate::death::Death;
use crate::death::sample;

fn ledger(max_deaths: usize) -> Ledger {
    Ledger::new(LedgerConfig {
        max_deaths: max_deaths.try_into().unwrap(),
        ..LedgerConfig::default()
    })
}

fn death(pid: u32) -> Death {
    let mut death = sample::oom_memcg();
    death.victim.pid = pid;
    death
}

#[test]
fn json_is_the_death() {
    let ledger = ledger(10);
    let entry = ledger.append(sample::oom_memcg()).unwrap();
    assert_eq!(serde_json::from_slice::<Death>(&entry.json).unwrap(), sample::oom_memcg());
    assert!(!entry.json.contains(&b'\n'));
}

#[test]
fn bytes_are_bounded_too() {
    let config = LedgerConfig { max_bytes: "1MiB".parse().unwrap(), ..LedgerConfig::default() };
    let ledger = Ledger::new(config);
    for pid in 0..40 {
        let mut death = death(pid);
        death.victim.environ.insert("JOB_ID".into(), "x".repeat(100_000));
        ledger.append(death).unwrap();
    }
    assert_eq!((ledger.len(), ledger.evicted()), (10, 30));
    let mut huge = death(1);
    huge.advice = "y".repeat(3 << 20);
    ledger.append(huge).unwrap();
    assert_eq!(ledger.len(), 1, "a record above the bound is kept alone, not lost");
}

#[test]
fn filters_and_order() {
    let ledger = ledger(10);
    for pid in [7, 8, 7] {
        ledger.append(death(pid)).unwrap();
    }
    let seqs = |filter: &Filter, limit| {
        ledger.newest(filter, limit).iter().map(|e| e.seq).collect::<Vec<_>>()
    };
    assert_eq!(seqs(&Filter::default(), 10), [3, 2, 1]);
    assert_eq!(seqs(&Filter { pid: Some(7), ..Filter::default() }, 10), [3, 1]);
    assert_eq!(seqs(&Filter { pid: Some(7), ..Filter::default() }, 1), [3]);
    assert_eq!(seqs(&Filter { job: Some("render-42".into()), ..Filter::default() }, 1), [3]);
    assert_eq!(seqs(&Filter { job: Some("render".into()), ..Filter::default() }, 10), [0; 0]);
    let time = sample::oom_memcg().time;
    let second = jiff::SignedDuration::from_secs(1);
    assert_eq!(seqs(&Filter { since: Some(time), ..Filter::default() }, 1), [3]);
    assert_eq!(seqs(&Filter { since: Some(time + second), ..Filter::default() }, 10), [0; 0]);
}

#[test]
fn a_pid_leads_to_its_deaths_however_many_others_there_are() {
    let ledger = ledger(4);
    for (pid, ns_pid) in
        [(7, Some(1)), (1, None), (8, Some(7)), (9, Some(9)), (7, None), (5, Some(1))]
    {
        let mut death = death(pid);
        (death.victim.ns_pid, death.victim.pid_ns) = (ns_pid, ns_pid.map(|_| 42));
        ledger.append(death).unwrap();
    }
    let seqs = |filter: Filter| ledger.newest(&filter, 9).iter().map(|e| e.seq).collect::<Vec<_>>();
    let of = |pid| seqs(Filter { pid: Some(pid), ..Filter::default() });
    let inside =
        |pid| seqs(Filter { ns_pid: Some(super::NsPid { ns: 42, pid }), ..Filter::default() });
    assert_eq!((of(7), of(1), of(9), of(6)), (vec![5], vec![], vec![4], vec![]));
    assert_eq!((inside(1), inside(7), inside(9)), (vec![6], vec![3], vec![4]));
    for _ in 0..4 {
        ledger.append(death(3)).unwrap();
    }
    // The sample's own number inside its namespace.
    assert_eq!(ledger.ring().by_pid.keys().copied().max(), Some(7));
    assert_eq!(ledger.ring().by_pid.len(), 2);
}

#[test]
fn whoever_waits_is_woken() {
    let ledger = Arc::new(ledger(10));
    let mut changed = ledger.changed();
    assert!(!changed.has_changed().unwrap());
    ledger.append(death(1)).unwrap();
    assert!(changed.has_changed().unwrap());
    assert_eq!(*changed.borrow_and_update(), 1);
}

proptest! {
    /// However appends and reads mix, a reader sees each death once, in order, or is told that it is gone.
    #[test]
    fn a_reader_accounts_for_every_death(cap in 1usize..8, steps in prop::collection::vec((0u8..6, 1usize..5), 1..60)) {
        let ledger = ledger(cap);
        let (mut cursor, mut seen, mut skipped, mut appended) = (0, 0, 0, 0);
        for (appends, reads) in steps {
            for _ in 0..appends {
                appended += 1;
                prop_assert_eq!(ledger.append(death(1)).unwrap().seq, appended);
            }
            let batch = ledger.read_after(cursor, reads);
            skipped += batch.skipped;
            for entry in &batch.entries {
                seen += 1;
                prop_assert_eq!(entry.seq, seen + skipped);
                cursor = entry.seq;
            }
            if batch.entries.is_empty() {
                prop_assert_eq!(cursor, appended);
            }
            prop_assert!(ledger.len() <= cap);
            prop_assert_eq!(ledger.evicted() + ledger.len() as u64, appended);
        }
    }
}
