//! A wave: ten thousand nodes whose processes are killed in the same second, and one receiver. Simulated in virtual time, event by event, with the code that sinks run:
//! grouping ([`super::group`]) decides what is told at once, waiting ([`super::retry`]) when it is tried again. What the messages weigh is what the sink for OTLP makes of them.
//!
//! `cargo xtask bench --only fleet` reads the lines that begin with `WAVE `.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use super::deliver::Message;
use super::group::Groups;
use super::otlp::Otlp;
use super::retry::Retry;
use crate::death::{Death, sample};
use crate::ledger::Entry;

const SENDERS: u32 = 10_000;
/// Processes of one workload that die on each node.
const VICTIMS: u32 = 20;
/// Records of one request for OTLP, as the sink has it by default.
const OTLP_BATCH: usize = 64;
/// Requests a second that the receiver takes; to the rest it says 503.
const CAPACITY: u32 = 2_000;
/// Requests that it can have waiting within a second before it refuses: what a tenth of one brings.
const SLOT: u64 = 100_000;
const SECOND: u64 = 1_000_000;

/// One wave, in µs of virtual time.
struct Wave {
    outage: Duration,
    node: Node,
    /// When which sender tries: the earliest first.
    due: BinaryHeap<Reverse<(u64, u32)>>,
    retries: Vec<Retry>,
    /// Messages that each has yet to deliver.
    waiting: Vec<u32>,
    messages: u64,
    attempts: u64,
    by_second: Vec<u32>,
    told_us: u64,
}

impl Wave {
    /// All struck within one second; the receiver takes nothing for `outage`.
    fn new(outage: Duration) -> Self {
        fastrand::seed(7);
        let node = Node::struck();
        let first = u32::try_from(node.told.len()).unwrap();
        let mut wave = Self {
            outage,
            node,
            due: BinaryHeap::new(),
            retries: (0..SENDERS).map(|_| Retry::default()).collect(),
            waiting: vec![first; SENDERS as usize],
            messages: u64::from(first) * u64::from(SENDERS),
            attempts: 0,
            by_second: Vec::new(),
            told_us: 0,
        };
        for sender in 0..SENDERS {
            wave.due.push(Reverse((fastrand::u64(..SECOND), sender)));
        }
        wave
    }

    fn run(&mut self) {
        let (mut slot, mut taken) = (0, 0);
        let per_slot = u64::from(CAPACITY) * SLOT / SECOND;
        let outage = u64::try_from(self.outage.as_micros()).unwrap();
        while let Some(Reverse((now, sender))) = self.due.pop() {
            self.attempts += 1;
            let second = usize::try_from(now / SECOND).unwrap();
            if self.by_second.len() <= second {
                self.by_second.resize(second + 1, 0);
            }
            self.by_second[second] += 1;
            if now / SLOT != slot {
                (slot, taken) = (now / SLOT, 0);
            }
            let (retry, waiting) =
                (&mut self.retries[sender as usize], &mut self.waiting[sender as usize]);
            if now < outage || taken >= per_slot {
                let wait = retry.failed(None);
                let wait = u64::try_from(wait.as_micros()).unwrap();
                self.due.push(Reverse((now + wait, sender)));
                continue;
            }
            taken += 1;
            retry.reset();
            *waiting -= 1;
            self.told_us = now;
            if *waiting > 0 {
                self.due.push(Reverse((now + 1_000, sender)));
            }
        }
    }

    fn peak(&self) -> u32 {
        self.by_second.iter().copied().max().unwrap_or(0)
    }

    fn say(&self) {
        let by_second: Vec<_> = self.by_second.iter().enumerate().collect();
        let said = json!({
            "senders": SENDERS,
            "victims_of_each": VICTIMS,
            "messages": self.messages,
            "deaths": u64::from(SENDERS) * u64::from(VICTIMS),
            "capacity_per_second": CAPACITY,
            "outage_seconds": self.outage.as_secs(),
            "attempts": self.attempts,
            "peak_attempts_per_second": self.peak(),
            "seconds_until_all_are_told": self.told_us as f64 / SECOND as f64,
            "attempts_by_second": by_second,
            "otlp_bytes_of_a_death": Node::otlp_bytes(1, &self.node.all[..1]),
            "otlp_bytes_of_a_node": Node::otlp_bytes(1, &self.node.told),
            "otlp_bytes_of_a_node_ungrouped": Node::otlp_bytes(OTLP_BATCH, &self.node.all),
        });
        println!("WAVE {said}");
    }
}

/// The deaths of one node in one second.
struct Node {
    /// Each of them.
    all: Vec<Message>,
    /// What is told of them: the first at once, the rest in one summary.
    told: Vec<Message>,
}

impl Node {
    fn struck() -> Self {
        let window = Duration::from_secs(300);
        let (mut groups, now) = (Groups::new(window), Instant::now());
        let start = Timestamp::from_second(1_769_860_800).unwrap();
        let (mut all, mut told) = (Vec::new(), Vec::new());
        for number in 0..VICTIMS {
            let (seq, death) = (u64::from(number), death(number, start));
            let held = groups.take(seq, &death, now);
            let json = serde_json::to_vec(&death).unwrap().into();
            let entry = Message::Entry(Arc::new(Entry { seq, item: death.into(), json }));
            told.extend((!held).then(|| entry.clone()));
            all.push(entry);
        }
        let over = start + jiff::SignedDuration::from_secs(400);
        let closed = groups.close(over, now).into_iter();
        told.extend(closed.map(|closed| Message::Summary(Arc::new(closed.summary))));
        Self { all, told }
    }

    /// Bytes of the requests for these, so many messages in each.
    fn otlp_bytes(batch: usize, messages: &[Message]) -> usize {
        let config = serde_json::from_value(json!({"endpoint": "http://localhost:4318"}));
        let otlp = Otlp::new(&config.unwrap(), "node-1", Counter::default()).unwrap();
        messages.chunks(batch).map(|some| otlp.body(some).unwrap().len()).sum()
    }
}

/// Each by a decision of its own: the hardest case.
fn death(number: u32, start: Timestamp) -> Death {
    let mut death = sample::in_a_pod();
    death.id = Uuid::from_u128(death.id.as_u128() + u128::from(number));
    death.time = start + jiff::SignedDuration::from_millis(i64::from(number) * 50);
    if let Some(oom) = &mut death.oom {
        oom.incident_ktime_ns = u64::from(number);
    }
    death
}

#[tokio::test(start_paused = true)]
async fn a_wave_is_two_messages_a_node_and_does_not_come_back_as_one() {
    let mut up = Wave::new(Duration::ZERO);
    up.run();
    up.say();
    assert_eq!(up.messages, 2 * u64::from(SENDERS), "the first death, and one summary");
    let (told, all) = (&up.node.told, &up.node.all);
    let (grouped, each) = (Node::otlp_bytes(1, told), Node::otlp_bytes(OTLP_BATCH, all));
    assert!(grouped * 5 < each, "{grouped} bytes of OTLP, {each} without grouping");
    let mut down = Wave::new(Duration::from_secs(60));
    down.run();
    down.say();
    for wave in [&up, &down] {
        assert!(wave.waiting.iter().all(|left| *left == 0));
        // Nobody asks so often that the receiver is kept from coming back, and nobody waits for much longer than the longest wait.
        assert!(wave.attempts < 20 * wave.messages, "{}", wave.attempts);
        let longest = wave.outage + Duration::from_secs(120);
        assert!(wave.told_us < u64::try_from(longest.as_micros()).unwrap(), "{}", wave.told_us);
    }
    // After the outage no second holds more than a part of them.
    let after: Vec<_> = down.by_second[60..].to_vec();
    assert!(after.iter().all(|n| *n < SENDERS), "{after:?}");
}
