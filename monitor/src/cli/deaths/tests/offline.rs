//! The ledger's file without a daemon.

use std::time::Duration;

use super::super::file::newest;
use super::super::question::Question;
use crate::audit::state::StatePath;
use crate::death::{Cause, sample};
use crate::ledger::{Filter, Ledger, LedgerConfig, LedgerPath, ReadError};

#[test]
fn what_a_daemon_has_kept_is_told_oldest_first_byte_by_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    let question = |filter, limit| Question { filter, limit };
    let missing = newest(&path, &question(Filter::default(), 1));
    assert!(matches!(missing, Err(ReadError::Missing(_))));

    let config = LedgerConfig {
        path: path.to_str().unwrap().parse::<LedgerPath>().unwrap(),
        ..LedgerConfig::default()
    };
    let ledger = Ledger::open(&config, &StatePath::None);
    let mut kept = Vec::new();
    for death in [sample::oom_memcg(), sample::hostile(), sample::in_a_pod(), sample::relayed()] {
        kept.push(ledger.append(death).unwrap().json.clone());
    }
    ledger.close(Duration::from_secs(10));
    drop(ledger);

    let told = |filter, limit| {
        let records = newest(&path, &question(filter, limit)).unwrap();
        records.iter().map(|record| record.json().as_bytes().to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(told(Filter::default(), 10), kept);
    assert_eq!(told(Filter::default(), 2), kept[2..]);
    assert_eq!(told(Filter { causes: vec![Cause::Relayed], ..Filter::default() }, 10), kept[3..]);
    let pod = Some("shop/render-x7k2p".to_owned());
    assert_eq!(told(Filter { pod, ..Filter::default() }, 10), kept[2..3]);
}
