//! What a disk may do to the ledger.

use std::time::Duration;

use super::disk::{Disk, Fault};
use super::{appended, death, fill, on, read_all, settled, until};
use crate::death::Death;
use crate::ledger::{Bounds, Filter, Ledger};

const MIB: u64 = 1 << 20;

fn large(pid: u32) -> Death {
    let mut death = death(pid);
    death.victim.environ.insert("JOB_ID".into(), "x".repeat(100_000));
    death
}

/// How many entries a reader is given after a cursor, and how many it is told to be gone. Each number is one or the other.
fn told(ledger: &Ledger, mut cursor: u64) -> (u64, u64) {
    let (mut given, mut skipped) = (0, 0);
    loop {
        let batch = ledger.read_after(cursor, 256);
        skipped += batch.skipped;
        cursor += batch.skipped;
        for entry in &batch.entries {
            cursor += 1;
            given += 1;
            assert_eq!((entry.seq, u64::from(entry.death().unwrap().victim.pid)), (cursor, cursor));
        }
        if batch.entries.is_empty() {
            assert_eq!(cursor, *ledger.changed().borrow());
            return (given, skipped);
        }
    }
}

#[test]
fn whatever_is_wrong_with_the_disk_deaths_are_told_and_written_later() {
    for fault in [Fault::Full, Fault::ReadOnly, Fault::Dead, Fault::Hangs] {
        let disk = Disk::default();
        let ledger = on(&disk, super::BOUNDS);
        fill(&ledger, 1..=3);
        settled(&ledger);
        assert_eq!(ledger.health().degraded, None);
        disk.set(fault);
        // More than the free pages of a small file take.
        (4..=23).for_each(|pid| drop(ledger.append(large(pid)).unwrap()));
        settled(&ledger);
        let health = ledger.health();
        assert!(health.degraded.is_some(), "{fault:?}");
        assert!((health.write_failures > 0) != (fault == Fault::Hangs), "{fault:?}: {health:?}");
        assert_eq!(told(&ledger, 3), (20, 0), "{fault:?}");
        fill(&ledger, 24..=24);
        assert_eq!(
            *ledger.changed().borrow(),
            24,
            "{fault:?}: nobody waits while it is known to be broken"
        );
        disk.set(Fault::None);
        until(&ledger, |ledger| ledger.health().degraded.is_none());
        assert_eq!(ledger.close(Duration::from_secs(60)), 0, "{fault:?}");
        let again = on(&disk, super::BOUNDS);
        assert_eq!(read_all(&again), (1..=24).collect::<Vec<_>>(), "{fault:?}");
        assert_eq!((again.evicted(), disk.aside().len()), (0, 0));
    }
}

#[test]
fn what_a_broken_disk_does_not_take_is_bounded_and_counted() {
    let disk = Disk::default();
    let ledger = on(&disk, Bounds { max_memory: MIB, ..super::BOUNDS });
    disk.set(Fault::ReadOnly);
    (1..=40).for_each(|pid| drop(ledger.append(large(pid)).unwrap()));
    settled(&ledger);
    until(&ledger, |ledger| ledger.health().unsaved == 30);
    let health = ledger.health();
    assert_eq!((health.entries, health.evicted, health.unsaved), (10, 30, 30));
    assert!(health.bytes <= MIB);
    disk.set(Fault::None);
    until(&ledger, |ledger| ledger.health().degraded.is_none());
    assert_eq!((told(&ledger, 0), ledger.len()), ((10, 30), 10));
}

#[test]
fn a_file_that_could_not_be_opened_at_the_start_is_gone_on_with() {
    let disk = Disk::default();
    let ledger = on(&disk, super::BOUNDS);
    fill(&ledger, 1..=5);
    ledger.acknowledge("a", 5);
    assert_eq!(ledger.close(Duration::from_secs(60)), 0);
    disk.set(Fault::Busy);
    let ledger = on(&disk, super::BOUNDS);
    assert_eq!(ledger.health().degraded.as_deref(), Some("another killwatch uses it"));
    fill(&ledger, 6..=7);
    assert_eq!((read_all(&ledger), ledger.open_cursor("a"), ledger.len()), (vec![6, 7], 0, 2));
    ledger.acknowledge("a", 1);
    disk.set(Fault::None);
    until(&ledger, |ledger| ledger.health().degraded.is_none());
    assert_eq!((read_all(&ledger), ledger.len()), (vec![6, 7], 7));
    assert_eq!(appended(&ledger, 8), 3, "the numbers of this run go on");
    settled(&ledger);
    let all = ledger.newest(&Filter::default(), 9);
    let pids: Vec<_> = all.iter().map(|entry| entry.death().unwrap().victim.pid).collect();
    assert_eq!(pids, [8, 7, 6, 5, 4, 3, 2, 1], "history is there");
    assert_eq!(ledger.close(Duration::from_secs(60)), 0);
    let ledger = on(&disk, super::BOUNDS);
    assert_eq!(read_all(&ledger), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(ledger.cursor("a"), Some(6));
    assert_eq!(appended(&ledger, 9), 9);
}

#[test]
fn the_end_waits_no_longer_than_it_may() {
    let disk = Disk::default();
    let ledger = on(&disk, super::BOUNDS);
    disk.set(Fault::Hangs);
    fill(&ledger, 1..=2);
    assert_eq!(ledger.close(Duration::from_millis(50)), 2);
    disk.set(Fault::None);
    let disk = Disk::default();
    disk.set(Fault::ReadOnly);
    let ledger = on(&disk, super::BOUNDS);
    fill(&ledger, 1..=2);
    assert_eq!(ledger.close(Duration::from_secs(60)), 2);
}

#[test]
fn a_storm_costs_few_syncs_and_loses_nothing_uncounted() {
    let disk = Disk::default();
    let ledger = on(&disk, super::BOUNDS);
    let before = disk.syncs();
    fill(&ledger, 1..=20_000);
    until(&ledger, Ledger::is_written);
    let health = ledger.health();
    assert_eq!(health.entries + health.evicted, 20_000);
    let (seen, skipped) = told(&ledger, 0);
    assert_eq!((seen, skipped), (health.entries, health.evicted));
    assert!(seen >= 10_000_u64.saturating_sub(health.unsaved));
    assert!(disk.syncs() - before < 20_000 / 2, "{} syncs", disk.syncs() - before);
}

/// A file with forty deaths in four transactions, closed.
fn whole() -> Vec<u8> {
    let disk = Disk::default();
    let ledger = on(&disk, super::BOUNDS);
    for begin in [1, 11, 21, 31] {
        fill(&ledger, begin..=begin + 9);
        settled(&ledger);
    }
    assert_eq!(ledger.close(Duration::from_secs(60)), 0);
    disk.bytes()
}

/// Each of the forty is read as it was, or known to be missing.
fn accounted(disk: &Disk, what: &str) {
    let check = |ledger: &Ledger| {
        let (mut cursor, mut read) = (0, 0);
        loop {
            let batch = ledger.read_after(cursor, 7);
            cursor += batch.skipped;
            for entry in &batch.entries {
                cursor += 1;
                read += 1;
                let mut as_it_was = death(u32::try_from(cursor).unwrap());
                as_it_was.victim.pid = u32::try_from(cursor).unwrap();
                assert_eq!((entry.seq, &**entry.death().unwrap()), (cursor, &as_it_was), "{what}");
            }
            if batch.entries.is_empty() {
                return (cursor, read);
            }
        }
    };
    let ledger = on(disk, super::BOUNDS);
    let (cursor, read) = check(&ledger);
    let known = read == 40 || cursor == 40 || !disk.aside().is_empty();
    assert!(known, "{what}: {read} of {cursor}, silently");
    let _ = ledger.newest(&Filter::default(), 100);
    let _ = ledger.newest(&Filter { pid: Some(7), ..Filter::default() }, 100);
    // And it works.
    let seq = appended(&ledger, 41);
    settled(&ledger);
    until(&ledger, |ledger| ledger.health().degraded.is_none());
    let last = ledger.newest(&Filter::default(), 1);
    assert_eq!(last[0].seq, seq, "{what}");
}

#[test]
fn damage_anywhere_is_survived_and_told() {
    let whole = whole();
    let mut random = 7u64;
    for _ in 0..150 {
        let mut bytes = whole.clone();
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // The header is small, and worth a third of the attempts.
        let span = if random >> 40 & 3 == 0 { 1024 } else { bytes.len() };
        let at = usize::try_from(random >> 20).unwrap() % span;
        let len = 1 << (random >> 8 & 7);
        let end = bytes.len().min(at + len);
        bytes[at..end].iter_mut().for_each(|byte| *byte ^= u8::try_from(random >> 56).unwrap() | 1);
        accounted(&Disk::of(bytes), &format!("{len} bytes at {at}"));
    }
    for len in (0..whole.len()).step_by(whole.len() / 20).skip(1) {
        accounted(&Disk::of(whole[..len].to_vec()), &format!("cut at {len}"));
    }
}

#[test]
fn what_is_not_ours_is_set_aside_as_it_was() {
    let newer = |format: u64| {
        let disk = Disk::default();
        let ledger = on(&disk, super::BOUNDS);
        fill(&ledger, 1..=2);
        assert_eq!(ledger.close(Duration::from_secs(60)), 0);
        crate::ledger::store::set_format(
            crate::ledger::medium::Medium::open(&mut disk.clone()).unwrap(),
            format,
        );
        disk.bytes()
    };
    assert!(on(&Disk::of(newer(1)), super::BOUNDS).len() == 2);
    for bytes in [newer(2), newer(0), b"mine".to_vec(), vec![0; 100_000], b"redb".repeat(5000)] {
        let disk = Disk::of(bytes.clone());
        let ledger = on(&disk, super::BOUNDS);
        assert_eq!((ledger.len(), ledger.health().degraded), (0, None));
        assert_eq!(disk.aside().len(), 1);
        assert_eq!(appended(&ledger, 1), 1);
    }
}
