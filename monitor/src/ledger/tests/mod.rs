//! The ledger in memory and in a file: order, bounds, searches, cursors.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::recent::{OnDeath, Recent};
use super::store::Shelf;
use super::{Bounds, Filter, Ledger, LedgerConfig};
use crate::death::Death;
use crate::death::sample;

mod crashes;
mod disk;
mod faults;
mod files;

use disk::Disk;

const BOUNDS: Bounds = Bounds {
    max_deaths: 10_000,
    max_bytes: 64 << 20,
    max_age: Duration::from_secs(100 * 366 * 86_400),
    max_memory: 4 << 20,
};

/// A ledger on a disk, with a short tail in memory, so that reads reach the disk.
fn on(disk: &Disk, bounds: Bounds) -> Ledger {
    Ledger::on(bounds, "disk".to_owned(), Box::new(disk.clone()), 10_000)
}

impl Ledger {
    /// Whether all that was appended is in the file, or gave way.
    fn is_written(&self) -> bool {
        let recent = self.shared.recent();
        recent.saved() == recent.last() && recent.degraded.is_none()
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn settled(ledger: &Ledger) {
    wait(ledger.settled());
}

/// Waits for a state, which each change of the ledger may bring.
fn until(ledger: &Ledger, holds: impl Fn(&Ledger) -> bool) {
    let mut changed = ledger.changed();
    while !holds(ledger) {
        wait(changed.changed()).unwrap();
    }
}

fn fill(ledger: &Ledger, pids: RangeInclusive<u32>) {
    pids.for_each(|pid| drop(ledger.append(death(pid)).unwrap()));
}

/// The number that a death gets.
fn appended(ledger: &Ledger, pid: u32) -> u64 {
    ledger.append(death(pid)).unwrap().seq
}

/// The victims' pids.
fn read_all(ledger: &Ledger) -> Vec<u32> {
    let (mut cursor, mut pids) = (0, Vec::new());
    loop {
        let batch = ledger.read_after(cursor, 5);
        let Some(last) = batch.entries.last() else { return pids };
        cursor = last.seq;
        pids.extend(batch.entries.iter().map(|entry| entry.death().unwrap().victim.pid));
    }
}

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

/// The same in memory, on a disk, and on a disk after a restart.
fn everywhere(max_deaths: usize, fill: impl Fn(&Ledger), check: impl Fn(&Ledger)) {
    let in_memory = ledger(max_deaths);
    fill(&in_memory);
    check(&in_memory);
    let disk = Disk::default();
    let bounds = Bounds { max_deaths: max_deaths as u64, ..BOUNDS };
    let on_disk = on(&disk, bounds);
    fill(&on_disk);
    settled(&on_disk);
    check(&on_disk);
    assert_eq!(on_disk.close(Duration::from_secs(60)), 0);
    check(&on(&disk, bounds));
}

fn seqs(ledger: &Ledger, filter: &Filter, limit: usize) -> Vec<u64> {
    ledger.newest(filter, limit).iter().map(|e| e.seq).collect()
}

#[test]
fn filters_and_order() {
    let fill = |ledger: &Ledger| [7, 8, 7].iter().for_each(|pid| fill(ledger, *pid..=*pid));
    everywhere(10, fill, |ledger| {
        let seqs = |filter: &Filter, limit| seqs(ledger, filter, limit);
        assert_eq!(seqs(&Filter::default(), 10), [3, 2, 1]);
        assert_eq!(seqs(&Filter { pid: Some(7), ..Filter::default() }, 10), [3, 1]);
        assert_eq!(seqs(&Filter { pid: Some(7), ..Filter::default() }, 1), [3]);
        assert_eq!(seqs(&Filter { job: Some("render-42".into()), ..Filter::default() }, 1), [3]);
        assert_eq!(seqs(&Filter { job: Some("render".into()), ..Filter::default() }, 10), [0; 0]);
        let time = sample::oom_memcg().time;
        let second = jiff::SignedDuration::from_secs(1);
        assert_eq!(seqs(&Filter { since: Some(time), ..Filter::default() }, 1), [3]);
        assert_eq!(seqs(&Filter { since: Some(time + second), ..Filter::default() }, 10), [0; 0]);
        let id = Some(sample::oom_memcg().id);
        assert_eq!(seqs(&Filter { id, ..Filter::default() }, 1), [3]);
    });
}

#[test]
fn a_pid_leads_to_its_deaths_however_many_others_there_are() {
    let fill = |ledger: &Ledger| {
        for (pid, ns_pid) in
            [(7, Some(1)), (1, None), (8, Some(7)), (9, Some(9)), (7, None), (5, Some(1))]
        {
            let mut death = death(pid);
            (death.victim.ns_pid, death.victim.pid_ns) = (ns_pid, ns_pid.map(|_| 42));
            ledger.append(death).unwrap();
            settled(ledger);
        }
    };
    everywhere(4, fill, |ledger| {
        let of = |pid| seqs(ledger, &Filter { pid: Some(pid), ..Filter::default() }, 9);
        let inside = |pid| {
            let ns_pid = Some(super::NsPid { ns: 42, pid });
            seqs(ledger, &Filter { ns_pid, ..Filter::default() }, 9)
        };
        assert_eq!((of(7), of(1), of(9), of(6)), (vec![5], vec![], vec![4], vec![]));
        assert_eq!((inside(1), inside(7), inside(9)), (vec![6], vec![3], vec![4]));
    });
}

#[test]
fn what_is_too_old_goes() {
    let now = super::now();
    let aged = |hours: i64| {
        let mut death = death(1);
        death.time = now - jiff::SignedDuration::from_hours(hours);
        death
    };
    let ledger =
        Ledger::new(LedgerConfig { max_age: "10h".parse().unwrap(), ..LedgerConfig::default() });
    for hours in [12, 11, 9, 8] {
        ledger.append(aged(hours)).unwrap();
    }
    assert_eq!((ledger.len(), ledger.evicted()), (2, 2));
    let disk = Disk::default();
    let ledger = on(&disk, Bounds { max_age: Duration::from_secs(36_000), ..BOUNDS });
    for hours in [12, 11, 9, 8] {
        ledger.append(aged(hours)).unwrap();
    }
    settled(&ledger);
    assert_eq!((ledger.len(), ledger.evicted()), (2, 2));
    let oldest = ledger.health().oldest.unwrap();
    assert!(aged(9).time.duration_since(oldest).as_secs() < 1);
}

#[test]
fn alerts_are_kept_among_deaths_and_replayed_from_a_time_on() {
    let mut poison = crate::poison::Poison::new(crate::poison::PoisonConfig::default());
    let mut all = Vec::new();
    for n in 0..5 {
        let mut death = death(n);
        death.time += jiff::SignedDuration::from_secs(n.into());
        death.oom = None;
        let alert = poison.died(&death);
        all.push(super::Item::from(death));
        all.extend(alert.map(|alert| super::Item::Alert(Arc::new(alert))));
    }
    assert_eq!(all.len(), 6);
    let json: Vec<_> = all.iter().map(|item| item.json().unwrap()).collect();
    let fill = |ledger: &Ledger| all.iter().for_each(|item| drop(ledger.append(item.clone())));
    everywhere(10, fill, |ledger| {
        let mut seen = Vec::new();
        let since = sample::oom_memcg().time + jiff::SignedDuration::from_secs(2);
        ledger.replay(since, |entry| seen.push(entry.json.clone()));
        assert_eq!(seen, json[2..]);
        assert_eq!(ledger.newest(&Filter::default(), 9).len(), 5, "a search is for deaths");
    });
}

#[test]
fn cursors_and_notes_are_kept() {
    let disk = Disk::default();
    let ledger = on(&disk, BOUNDS);
    assert_eq!((ledger.cursor("a"), ledger.open_cursor("a")), (None, 0));
    fill(&ledger, 1..=5);
    ledger.acknowledge("a", 3);
    ledger.acknowledge("a", 2);
    ledger.acknowledge("b", 99);
    assert_eq!((ledger.cursor("a"), ledger.cursor("b")), (Some(3), Some(5)));
    assert_eq!(ledger.open_cursor("late"), 0, "what died since the start is told");
    ledger.note("k", "one").unwrap();
    ledger.note("k", "two").unwrap();
    assert!(ledger.note("long", vec![0; super::cursors::MAX_NOTE + 1]).is_err());
    assert!(ledger.append_noting(death(6), "long", vec![0; super::cursors::MAX_NOTE + 1]).is_err());
    assert_eq!(ledger.close(Duration::from_secs(60)), 0);
    let ledger = on(&disk, BOUNDS);
    assert_eq!((ledger.cursor("a"), ledger.open_cursor("a")), (Some(3), 3));
    assert_eq!(ledger.open_cursor("new"), 5, "not what was before");
    assert_eq!(ledger.noted("k").as_deref(), Some(&b"two"[..]));
    assert_eq!((ledger.len(), *ledger.changed().borrow()), (5, 5));
    for n in 0..100 {
        ledger.open_cursor(&n.to_string());
    }
    assert_eq!((ledger.cursor("b"), ledger.cursor("99")), (None, Some(5)));
    (0..100).for_each(|n| drop(ledger.note(&n.to_string(), "x")));
    assert_eq!((ledger.noted("30").is_some(), ledger.noted("31")), (true, None));
}

#[test]
fn each_death_is_announced_once_as_it_becomes_visible() {
    let disk = Disk::default();
    // The last one goes on with the file of the one before.
    let open: [&dyn Fn() -> Ledger; 3] =
        [&|| ledger(10), &|| on(&disk, BOUNDS), &|| on(&disk, BOUNDS)];
    for open in open {
        let ledger = open();
        let told = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&told);
        ledger.on_death(move |death| seen.lock().unwrap().push(death.victim.pid));
        fill(&ledger, 1..=20);
        ledger.append(super::Item::Alert(Arc::new(crate::alert::sample::near_limit()))).unwrap();
        settled(&ledger);
        let mut told = std::mem::take(&mut *told.lock().unwrap());
        told.sort_unstable();
        assert_eq!(told, (1..=20).collect::<Vec<_>>(), "not those of an earlier run either");
        ledger.close(Duration::from_secs(60));
    }
}

/// A burst of which the oldest leave memory while they are being written.
#[test]
fn what_left_memory_is_announced_once_it_is_in_the_file() {
    let mut recent = Recent::new(Bounds { max_deaths: 2, ..BOUNDS }, true, 0);
    let told = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&told);
    let tell = move |death: &Death| seen.lock().unwrap().push(death.victim.pid);
    recent.on_death = Some(OnDeath(Box::new(tell)));
    let add = |recent: &mut Recent, pid| {
        let item = super::Item::from(death(pid));
        let json = item.json().unwrap();
        recent.append(item, json, Instant::now());
    };
    (1..=2).for_each(|pid| add(&mut recent, pid));
    let work = recent.take();
    (3..=4).for_each(|pid| add(&mut recent, pid));
    assert_eq!((recent.first(), told.lock().unwrap().len()), (3, 0), "1 and 2 have left");
    recent.written(&work.entries, Shelf::default(), Instant::now());
    assert_eq!(*told.lock().unwrap(), [1, 2]);
    let work = recent.take();
    recent.written(&work.entries, Shelf::default(), Instant::now());
    let mut told = std::mem::take(&mut *told.lock().unwrap());
    told.sort_unstable();
    assert_eq!(told, [1, 2, 3, 4]);
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
