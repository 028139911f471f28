//! What arrives at the journal's socket, read back by the protocol's own rules.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::death::sample;
use crate::ledger::Entry as LedgerEntry;

fn message(death: Death) -> Message {
    let json = serde_json::to_vec(&death).unwrap().into();
    Message::Entry(Arc::new(LedgerEntry { seq: 1, item: Item::from(death), json }))
}

/// The fields of a datagram; panics if it is malformed.
fn fields(mut bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut fields = BTreeMap::new();
    while !bytes.is_empty() {
        let end = bytes.iter().position(|b| matches!(b, b'=' | b'\n')).unwrap();
        let key = std::str::from_utf8(&bytes[..end]).unwrap().to_owned();
        let value;
        if bytes[end] == b'=' {
            let length = bytes.iter().position(|b| *b == b'\n').unwrap();
            (value, bytes) = (bytes[end + 1..length].to_vec(), &bytes[length + 1..]);
        } else {
            let length = u64::from_le_bytes(bytes[end + 1..end + 9].try_into().unwrap());
            let length = usize::try_from(length).unwrap();
            value = bytes[end + 9..end + 9 + length].to_vec();
            assert_eq!(bytes[end + 9 + length], b'\n');
            bytes = &bytes[end + 10 + length..];
        }
        assert!(fields.insert(key, value).is_none());
    }
    fields
}

#[tokio::test]
async fn a_death_is_an_entry() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let journal = UnixDatagram::bind(&path).unwrap();
    let mut sink = Journald::at(&path).unwrap();
    let messages = [message(sample::in_a_pod()), message(sample::hostile())];
    assert_eq!(sink.deliver(&messages).await, Outcome::all(&messages));

    let mut bytes = vec![0; MAX_BYTES];
    let n = journal.recv(&mut bytes).await.unwrap();
    let death = fields(&bytes[..n]);
    let text = |key: &str| String::from_utf8(death[key].clone()).unwrap();
    assert_eq!(text("KILLWATCH_CAUSE"), "oom_memcg");
    assert_eq!(text("KILLWATCH_POD"), "render-x7k2p");
    assert_eq!((text("PRIORITY"), text("MESSAGE_ID")), ("3".into(), DEATH_ID.into()));
    assert!(
        text("MESSAGE").starts_with("worker (4242) died: oom_memcg. Raise"),
        "{}",
        text("MESSAGE")
    );
    assert_eq!(death["KILLWATCH_JSON"], messages[0].json());

    let n = journal.recv(&mut bytes).await.unwrap();
    let hostile = fields(&bytes[..n]);
    assert_eq!(hostile["KILLWATCH_COMM"], sample::hostile().victim.comm.as_bytes());
    assert!(!hostile["MESSAGE"].contains(&b'\n'));
    let known = |key: &String| {
        key.starts_with("KILLWATCH_")
            || ["MESSAGE", "MESSAGE_ID", "PRIORITY", "SYSLOG_IDENTIFIER"].contains(&key.as_str())
    };
    assert!(hostile.keys().all(known), "no name makes a field: {:?}", hostile.keys());
}

#[tokio::test]
async fn a_journal_that_is_away_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let missing = Journald::at(&path).unwrap_err();
    assert!(missing.contains("is systemd-journald there"), "{missing}");
    drop(UnixDatagram::bind(&path).unwrap());
    let mut sink = Journald::at(&path).unwrap();
    let messages = [message(sample::killed())];
    let outcome = sink.deliver(&messages).await;
    assert!(matches!(outcome, Outcome { accepted: 0, failure: Some(Failure::Later { .. }) }));
    std::fs::remove_file(&path).unwrap();
    let _journal = UnixDatagram::bind(&path).unwrap();
    assert_eq!(sink.deliver(&messages).await, Outcome::all(&messages));
}

#[test]
fn a_near_limit_is_a_warning_with_the_names_of_its_workload() {
    let alert = crate::alert::sample::near_limit();
    let json: bytes::Bytes = serde_json::to_vec(&alert).unwrap().into();
    let item = Item::Alert(Arc::new(alert));
    let message = Message::Entry(Arc::new(LedgerEntry { seq: 1, item, json: json.clone() }));
    let fields = fields(&encode(&message, true));
    let text = |key: &str| std::str::from_utf8(&fields[key]).unwrap();
    assert!(
        text("MESSAGE").starts_with("Memory of container worker of pod shop/render-x7k2p is at")
    );
    assert_eq!((text("PRIORITY"), text("MESSAGE_ID")), ("4", ALERT_ID));
    assert_eq!(
        (text("KILLWATCH_ALERT"), text("KILLWATCH_NAMESPACE"), text("KILLWATCH_JOB_ID")),
        ("near_limit", "shop", "render-42")
    );
    assert_eq!(fields["KILLWATCH_JSON"], json);
}

#[test]
fn what_is_too_long_goes_without_its_json() {
    let mut death = sample::killed();
    death.evidence = vec!["x".repeat(MAX_BYTES)];
    death.advice = "é".repeat(5000);
    let message = message(death);
    let fields = fields(&encode(&message, true));
    assert!(!fields.contains_key("KILLWATCH_JSON"));
    let omitted = String::from_utf8(fields["KILLWATCH_JSON_OMITTED_BYTES"].clone()).unwrap();
    assert_eq!(omitted, message.json().len().to_string());
    assert!(fields["MESSAGE"].len() <= 4096);
    assert!(std::str::from_utf8(&fields["MESSAGE"]).is_ok(), "cut between characters");
}
