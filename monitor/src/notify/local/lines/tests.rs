//! A disk that gets stuck.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::death::sample;
use crate::ledger::{Entry, Item};

/// Each write waits for a word.
struct Stuck {
    go: Receiver<bool>,
    text: Arc<Mutex<Vec<u8>>>,
}

impl Write for Stuck {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if !self.go.recv().unwrap_or(true) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.text.lock().unwrap().write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn rig() -> (LineSink, SyncSender<bool>, Arc<Mutex<Vec<u8>>>) {
    let (word, go) = sync_channel(16);
    let text = Arc::new(Mutex::new(Vec::new()));
    (LineSink::to(Box::new(Stuck { go, text: Arc::clone(&text) })), word, text)
}

fn messages(n: u128) -> Vec<Message> {
    let entry = |n: u128| {
        let mut death = sample::killed();
        death.id = Uuid::from_u128(death.id.as_u128() + n);
        let json = serde_json::to_vec(&death).unwrap().into();
        Message::Entry(Arc::new(Entry { seq: 1, item: Item::from(death), json }))
    };
    (1..=n).map(entry).collect()
}

#[tokio::test]
async fn what_was_given_up_on_is_waited_for_and_not_written_twice() {
    let (mut sink, word, text) = rig();
    let messages = messages(3);
    let given_up = tokio::time::timeout(Duration::from_millis(1), sink.deliver(&messages)).await;
    assert!(given_up.is_err(), "nothing is written yet");
    for _ in 0..3 {
        word.send(true).unwrap();
    }
    assert_eq!(sink.deliver(&messages).await, Outcome::all(&messages));
    drop(word);
    assert_eq!(text.lock().unwrap().iter().filter(|b| **b == b'\n').count(), 3);
}

#[tokio::test]
async fn a_full_disk_is_a_reason_to_wait() {
    let (mut sink, word, text) = rig();
    let messages = messages(3);
    word.send(true).unwrap();
    word.send(false).unwrap();
    let outcome = sink.deliver(&messages).await;
    assert_eq!(outcome.accepted, 1);
    assert!(matches!(outcome.failure, Some(Failure::Later { after: None, .. })));
    drop(word);
    assert_eq!(sink.deliver(&messages[1..]).await, Outcome::all(&messages[1..]));
    let text = String::from_utf8(text.lock().unwrap().clone()).unwrap();
    let records = text.lines().filter(|line| !line.is_empty());
    let ids: Vec<_> = records
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].to_string())
        .collect();
    let all: Vec<_> = messages.iter().map(|message| format!("\"{}\"", message.id())).collect();
    assert_eq!(ids, all);
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_says_which() {
    let target = Target::Plain("/proc/none/deaths".parse().unwrap());
    let error = LineSink::open(target).unwrap_err();
    assert!(error.starts_with("cannot open /proc/none/deaths: "), "{error}");
}
