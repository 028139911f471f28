//! Random lives against a model: nothing is lost whenever a run ends, and nothing is told twice within one.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bytes::Bytes;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::death::{Death, sample};

const WINDOW: Duration = Duration::from_secs(60);
/// A multiple of the window.
const START: i64 = 1_769_860_800;

fn wall(seconds: i64) -> Timestamp {
    Timestamp::from_second(START + seconds).unwrap()
}

fn death(n: u64, workload: u8, seconds: i64) -> Death {
    let mut death = sample::in_a_pod();
    death.id = id(n);
    death.workload.owners[1].name = format!("w{workload}");
    death.time = wall(seconds);
    death.oom = None;
    death
}

/// As random as real ones: the ids of summaries rest on it. The same in every run.
fn id(n: u64) -> Uuid {
    let random = |n: u64| {
        let mut hasher = DefaultHasher::new();
        n.hash(&mut hasher);
        u128::from(hasher.finish())
    };
    Uuid::from_u128(random(n) << 64 | random(!n))
}

fn entry(seq: u64, item: impl Into<Item>) -> Arc<Entry> {
    Arc::new(Entry { seq, item: item.into(), json: Bytes::new() })
}

/// What happens: a death of a workload, time that passes, messages that are taken, or a run that ends.
#[derive(Debug, Clone)]
enum Step {
    Death {
        workload: u8,
        ago: i64,
    },
    Pass(i64),
    Take(usize),
    /// With the cursor where it stands now, or where it stood at some step before.
    Restart {
        stale: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..4u8, 0..3i64).prop_map(|(workload, ago)| Step::Death { workload, ago }),
        2 => (1..40i64).prop_map(Step::Pass),
        3 => (1..5usize).prop_map(Step::Take),
        1 => (0..3usize).prop_map(|stale| Step::Restart { stale }),
    ]
}

/// One sink's life over several runs.
struct Life {
    ledger: Vec<Arc<Entry>>,
    outbox: Outbox,
    now: i64,
    cursors: Vec<u64>,
    /// Of each run: how often each death was told alone, and in a summary.
    told: BTreeMap<u64, (usize, usize)>,
    ever: BTreeMap<u64, usize>,
    /// Summaries by id, over all runs.
    summaries: BTreeMap<Uuid, (u64, Uuid)>,
}

impl Life {
    fn new() -> Self {
        Self {
            ledger: Vec::new(),
            outbox: Outbox::new(Filter::default(), Some(WINDOW), 0),
            now: 0,
            cursors: vec![0],
            told: BTreeMap::new(),
            ever: BTreeMap::new(),
            summaries: BTreeMap::new(),
        }
    }

    fn read(&mut self) {
        let at = usize::try_from(self.outbox.read()).unwrap();
        for entry in &self.ledger[at..] {
            self.outbox.take(entry, Instant::now());
        }
        self.outbox.close(Some(wall(self.now)), Instant::now());
    }

    fn take(&mut self, max: usize) {
        let head = self.outbox.head(max);
        for message in &head {
            match message {
                Message::Entry(entry) => {
                    self.told.entry(entry.seq).or_default().0 += 1;
                    *self.ever.entry(entry.seq).or_default() += 1;
                }
                Message::Summary(summary) => {
                    assert_eq!(summary.count, summary.deaths.len() as u64);
                    for id in &summary.deaths {
                        let of = |entry: &&Arc<Entry>| entry.death().unwrap().id == *id;
                        let seq = self.ledger.iter().find(of).unwrap().seq;
                        self.told.entry(seq).or_default().1 += 1;
                        *self.ever.entry(seq).or_default() += 1;
                    }
                    let told = (summary.count, summary.follows);
                    let before = self.summaries.insert(summary.id, told);
                    assert!(before.is_none_or(|before| before == told), "one id, two summaries");
                }
            }
        }
        self.outbox.done(head.len());
        let cursor = self.outbox.cursor();
        assert!(cursor >= *self.cursors.last().unwrap(), "the cursor never goes back");
        assert!(cursor <= self.outbox.read());
        for seq in 1..=cursor {
            assert!(self.ever.contains_key(&seq), "{seq} is before the cursor and was not told");
        }
        self.cursors.push(cursor);
    }

    fn restart(&mut self, stale: usize) {
        let at = self.cursors.len().saturating_sub(1 + stale);
        let cursor = self.cursors[at];
        self.cursors.truncate(at + 1);
        self.outbox = Outbox::new(Filter::default(), Some(WINDOW), cursor);
        for entry in self.ledger.iter().take_while(|entry| entry.seq <= cursor) {
            self.outbox.recall(entry, Instant::now());
        }
        self.told.clear();
    }
}

proptest! {
    #[test]
    fn every_death_is_told_alone_or_in_one_summary(steps in prop::collection::vec(step(), 0..120)) {
        let mut life = Life::new();
        for step in steps {
            match step {
                Step::Death { workload, ago } => {
                    let seq = life.ledger.len() as u64 + 1;
                    let death = death(seq, workload, life.now - ago);
                    life.ledger.push(entry(seq, death));
                }
                Step::Pass(seconds) => life.now += seconds,
                Step::Take(max) => {
                    life.read();
                    life.take(max);
                }
                Step::Restart { stale } => life.restart(stale),
            }
            for (seq, (alone, summed)) in &life.told {
                prop_assert!(alone + summed <= 1, "{seq} was told twice in one run: {alone}, {summed}");
            }
        }
        life.now += 1000;
        for _ in 0..=life.ledger.len() {
            life.read();
            life.take(usize::MAX);
        }
        prop_assert_eq!(life.outbox.cursor(), life.ledger.len() as u64);
        prop_assert_eq!(life.outbox.held(), 0);
        for seq in 1..=life.ledger.len() as u64 {
            prop_assert!(life.ever.contains_key(&seq), "{} was never told", seq);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_goes_on_makes_the_same_summary() {
    let deaths: Vec<_> = (1..=6).map(|n| entry(n, death(n, 0, 1))).collect();
    let summary = |outbox: &mut Outbox| {
        outbox.close(Some(wall(100)), Instant::now());
        match outbox.head(9).as_slice() {
            [.., Message::Summary(summary)] => (**summary).clone(),
            other => panic!("{other:?}"),
        }
    };
    let mut whole = Outbox::new(Filter::default(), Some(WINDOW), 0);
    deaths.iter().for_each(|entry| whole.take(entry, Instant::now()));
    assert_eq!(whole.cursor(), 0, "the first is not told yet");
    whole.done(1);
    assert_eq!(whole.cursor(), 1, "the second is held");

    let mut next = Outbox::new(Filter::default(), Some(WINDOW), 1);
    next.recall(&deaths[0], Instant::now());
    deaths[1..].iter().for_each(|entry| next.take(entry, Instant::now()));
    assert_eq!(next.waiting(), 0);
    let same = summary(&mut whole);
    assert_eq!(summary(&mut next), same);
    assert_eq!(same.count, 5);
    next.done(1);
    assert_eq!(next.cursor(), 6);
}

#[test]
fn what_the_filter_keeps_back_moves_the_cursor() {
    let filter =
        serde_json::from_str::<super::super::filter::FilterConfig>(r#"{"causes":["crash"]}"#);
    let mut outbox = Outbox::new((&filter.unwrap()).into(), None, 0);
    outbox.take(&entry(1, death(1, 0, 1)), Instant::now());
    assert_eq!((outbox.waiting(), outbox.cursor()), (0, 1));
    outbox.skip(3);
    assert_eq!((outbox.read(), outbox.cursor()), (4, 4));
}
