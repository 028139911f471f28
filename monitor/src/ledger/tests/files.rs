//! Real files: restarts, locks, what is set aside, reading without a daemon.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use super::{appended, fill, read_all, settled, until};
use crate::ledger::{Filter, Ledger, LedgerConfig, ReadError};

fn open(path: &Path) -> Ledger {
    let path = path.to_str().unwrap().parse().unwrap();
    Ledger::open(&LedgerConfig { path, ..LedgerConfig::default() }, &"none".parse().unwrap())
}

fn close(ledger: &Ledger) {
    assert_eq!(ledger.close(Duration::from_secs(60)), 0);
}

#[test]
fn numbers_go_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made/ledger.redb");
    let ledger = open(&path);
    fill(&ledger, 1..=3);
    let series = ledger.series();
    close(&ledger);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o027, 0);
    let ledger = open(&path);
    assert_eq!((appended(&ledger, 4), ledger.series()), (4, series));
    settled(&ledger);
    assert_eq!(read_all(&ledger), [1, 2, 3, 4]);
    let health = ledger.health();
    assert_eq!((health.entries, health.evicted, health.write_failures), (4, 0, 0));
    assert_eq!(health.file.as_deref(), path.to_str());
}

#[test]
fn two_daemons_do_not_share_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("l");
    let (one, other) = (open(&path), open(&path));
    fill(&one, 1..=2);
    fill(&other, 3..=4);
    assert_eq!(other.health().degraded.as_deref(), Some("another killwatch uses it"));
    assert!(matches!(Ledger::read_file(&path), Err(ReadError::Busy(_))));
    close(&one);
    until(&other, |other| other.health().degraded.is_none());
    assert_ne!(other.series(), one.series(), "its numbers stand for others");
    let series = one.series();
    close(&other);
    let again = open(&path);
    assert_eq!((read_all(&again), again.series()), (vec![1, 2, 3, 4], series));
}

#[test]
fn three_are_kept_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("l");
    let aside = |n| fs::read_to_string(dir.path().join(format!("l.set-aside-{n}"))).ok();
    for text in ["one", "two", "three", "four", "five"] {
        fs::write(&path, text).unwrap();
        let ledger = open(&path);
        assert_eq!((ledger.health().degraded, appended(&ledger, 1)), (None, 1));
        close(&ledger);
    }
    let kept = [1, 2, 3, 4].map(aside);
    assert_eq!(kept, [Some("one".into()), Some("two".into()), Some("five".into()), None]);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    close(&open(&path));
    assert!(path.is_file());
}

#[test]
fn a_file_is_read_without_a_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("l");
    assert!(matches!(Ledger::read_file(&path), Err(ReadError::Missing(_))));
    fs::write(&path, "no ledger").unwrap();
    assert!(matches!(Ledger::read_file(&path), Err(ReadError::Unusable { .. })));
    fs::remove_file(&path).unwrap();
    let ledger = open(&path);
    fill(&ledger, 1..=30);
    settled(&ledger);
    // As `kill -9` leaves it.
    let killed = dir.path().join("killed");
    fs::copy(&path, &killed).unwrap();
    close(&ledger);
    for path in [&path, &killed] {
        let before = fs::read(path).unwrap();
        let file = Ledger::read_file(path).unwrap();
        assert_eq!(file.len(), 30);
        let found = file.newest(&Filter { pid: Some(7), ..Filter::default() }, 9).unwrap();
        assert_eq!((found.entries.len(), found.entries[0].seq, found.unreadable), (1, 7, 0));
        assert_eq!(file.newest(&Filter::default(), 9).unwrap().entries.len(), 9);
        assert_eq!(file.read_after(28, 9).unwrap().entries.len(), 2);
        assert!(file.read_after(30, 9).unwrap().entries.is_empty());
        assert!(fs::read(path).unwrap() == before, "not a byte is written");
    }
}

#[test]
fn a_place_where_no_file_can_be_is_degraded() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir.path().join("a/b/c"));
    fill(&ledger, 1..=2);
    assert_eq!(read_all(&ledger), [1, 2]);
    assert!(ledger.health().degraded.unwrap().contains("No such file"));
}
