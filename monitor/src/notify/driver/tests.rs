//! A scripted receiver, under a clock that stands still while anything moves.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use uuid::Uuid;

use super::*;
use crate::death::sample;
use crate::ledger::LedgerConfig;
use crate::metrics::{Metrics, MetricsConfig};
use crate::notify::deliver::Message;
use crate::notify::filter::Filter;
use crate::notify::health::Report;

/// How a receiver answers one call.
#[derive(Debug, Clone)]
enum Answer {
    Later(usize, Option<u64>),
    Refused(usize),
    Gone,
    Hangs,
    Lies,
}

/// When upkeep is due, and how it goes.
type Upkeep = (Instant, VecDeque<Result<(), String>>);

/// A receiver that answers by its script, and takes everything when that is at its end.
#[derive(Clone, Default)]
struct Receiver {
    script: Arc<Mutex<VecDeque<Answer>>>,
    /// Each message that it took, when.
    took: Arc<Mutex<Vec<(Message, Instant)>>>,
    calls: Arc<Mutex<Vec<Instant>>>,
    batch: usize,
    upkeep: Arc<Mutex<Option<Upkeep>>>,
}

impl Deliver for Receiver {
    fn batch(&self) -> usize {
        self.batch
    }

    async fn deliver(&mut self, messages: &[Message]) -> Outcome {
        self.calls.lock().unwrap().push(Instant::now());
        let answer = self.script.lock().unwrap().pop_front();
        let (accepted, failure) = match answer {
            None => (messages.len(), None),
            Some(Answer::Later(n, after)) => {
                let after = after.map(Duration::from_secs);
                (n, Some(Failure::Later { why: "no room".into(), after }))
            }
            Some(Answer::Refused(n)) => (n, Some(Failure::Refused("bad".into()))),
            Some(Answer::Gone) => (0, Some(Failure::Gone("410".into()))),
            Some(Answer::Hangs) => std::future::pending().await,
            Some(Answer::Lies) => (0, None),
        };
        let now = Instant::now();
        let taken = messages.iter().take(accepted).map(|message| (message.clone(), now));
        self.took.lock().unwrap().extend(taken);
        Outcome { accepted, failure }
    }

    fn due(&self) -> Option<Instant> {
        self.upkeep.lock().unwrap().as_ref().map(|(due, _)| *due)
    }

    async fn upkeep(&mut self) -> Result<(), String> {
        let mut upkeep = self.upkeep.lock().unwrap();
        let result = upkeep.as_mut().and_then(|(_, results)| results.pop_front());
        if upkeep.as_ref().is_some_and(|(_, results)| results.is_empty()) {
            *upkeep = None;
        }
        result.unwrap_or(Ok(()))
    }
}

#[derive(Default)]
struct Kept(Mutex<HashMap<String, u64>>);

impl Cursors for Kept {
    fn open_cursor(&self, sink: &str) -> u64 {
        self.0.lock().unwrap().get(sink).copied().unwrap_or(0)
    }

    fn acknowledge(&self, sink: &str, seq: u64) {
        let before = self.0.lock().unwrap().insert(sink.to_owned(), seq);
        assert!(before.is_none_or(|before| before < seq), "acknowledged once each");
    }
}

struct Rig {
    receiver: Receiver,
    ledger: Arc<Ledger>,
    cursors: Arc<Kept>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    stop: CancellationToken,
    start: Instant,
    rate: usize,
    group: Option<Duration>,
    deaths: u64,
}

/// A multiple of every window that is used here.
const WALL: i64 = 1_769_860_800;

impl Rig {
    fn new(script: &[Answer]) -> Self {
        let receiver = Receiver {
            script: Arc::new(Mutex::new(script.iter().cloned().collect())),
            batch: 10,
            ..Receiver::default()
        };
        let metrics = Arc::new(Metrics::new(MetricsConfig::default()));
        let health = Health::new("it", "test", metrics.sink("it"));
        Self {
            receiver,
            ledger: Arc::new(Ledger::new(LedgerConfig::default())),
            cursors: Arc::default(),
            metrics,
            health,
            stop: CancellationToken::new(),
            start: Instant::now(),
            rate: 10_000,
            group: None,
            deaths: 0,
        }
    }

    fn wall(&self) -> Timestamp {
        wall(self.start)
    }

    fn start(&mut self, deadline: u64) -> tokio::task::JoinHandle<()> {
        self.stop = CancellationToken::new();
        let start = self.start;
        let house = House {
            ledger: Arc::clone(&self.ledger),
            cursors: Arc::clone(&self.cursors) as Arc<dyn Cursors>,
            ops: Arc::new(Ops::new(Arc::clone(&self.metrics))),
            now: Arc::new(move || wall(start)),
        };
        let terms = Terms {
            name: "it".into(),
            filter: Filter::default(),
            group: self.group,
            rate: self.rate,
        };
        let driver = Driver::new(self.receiver.clone(), terms, house, Arc::clone(&self.health));
        tokio::spawn(driver.run(self.stop.clone(), Duration::from_secs(deadline)))
    }

    /// Adds deaths of one workload, each of an incident of its own.
    fn append(&mut self, deaths: u64) {
        for _ in 0..deaths {
            self.deaths += 1;
            let mut death = sample::oom_memcg();
            death.id = Uuid::from_u128(death.id.as_u128() + u128::from(self.deaths));
            death.time = self.wall();
            death.oom.as_mut().unwrap().incident_ktime_ns = self.deaths;
            self.ledger.append(death).unwrap();
        }
    }

    fn took(&self) -> Vec<u64> {
        let took = self.receiver.took.lock().unwrap();
        let numbers = took.iter().map(|(message, _)| match message {
            Message::Entry(entry) => entry.seq,
            Message::Summary(summary) => 1000 + summary.count,
        });
        numbers.collect()
    }

    fn report(&self) -> Report {
        self.health.report()
    }

    /// Waits for the state that is looked for; the clock jumps on whenever nothing else moves.
    async fn until(&self, what: impl Fn(&Self) -> bool) {
        let found = async {
            while !what(self) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(100_000), found).await.expect("it never came");
    }

    async fn end(&self, running: tokio::task::JoinHandle<()>) {
        self.stop.cancel();
        running.await.unwrap();
    }
}

fn wall(start: Instant) -> Timestamp {
    Timestamp::from_second(WALL).unwrap() + start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn all_is_told_once_and_in_order_before_the_end() {
    let mut rig = Rig::new(&[]);
    rig.append(3);
    let running = rig.start(5);
    rig.append(600);
    rig.end(running).await;
    assert_eq!(rig.took(), (1..=603).collect::<Vec<_>>());
    assert_eq!(rig.cursors.open_cursor("it"), 603);
    let report = rig.report();
    assert_eq!((report.written, report.failed, report.skipped, report.lag), (603, 0, 0, 0));
    assert!(report.last_success.is_some());
}

#[tokio::test(start_paused = true)]
async fn what_was_accepted_never_goes_again() {
    let script = [Answer::Later(3, None), Answer::Later(0, None), Answer::Later(6, None)];
    let mut rig = Rig::new(&script);
    rig.append(25);
    let running = rig.start(5);
    rig.until(|rig| rig.took().len() == 25).await;
    rig.end(running).await;
    assert_eq!(rig.took(), (1..=25).collect::<Vec<_>>());
    assert_eq!((rig.report().failed, rig.report().state), (3, State::Up));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_costs_one_message() {
    let mut rig = Rig::new(&[Answer::Refused(2), Answer::Refused(0)]);
    rig.append(6);
    let running = rig.start(5);
    rig.until(|rig| rig.ledger.len() as u64 == rig.cursors.open_cursor("it")).await;
    rig.end(running).await;
    assert_eq!(rig.took(), [1, 2, 5, 6]);
    assert_eq!((rig.report().failed, rig.report().skipped), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_nothing_skips_nothing() {
    let mut rig = Rig::new(&[Answer::Refused(2)]);
    rig.append(2);
    let running = rig.start(5);
    rig.until(|rig| rig.report().written == 2).await;
    rig.append(1);
    rig.end(running).await;
    assert_eq!((rig.took(), rig.report().skipped), (vec![1, 2, 3], 0));
}

#[tokio::test(start_paused = true)]
async fn waits_grow_and_a_receivers_own_wish_is_kept() {
    let mut rig = Rig::new(&vec![Answer::Later(0, None); 40]);
    rig.append(1);
    let running = rig.start(5);
    rig.until(|rig| rig.report().written == 1).await;
    let calls = rig.receiver.calls.lock().unwrap().clone();
    let waits: Vec<_> = calls.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits.iter().all(|wait| *wait >= Duration::from_millis(100)));
    assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(61)), "{waits:?}");
    assert!(
        waits[12..].iter().sum::<Duration>() > waits[..8].iter().sum::<Duration>(),
        "{waits:?}"
    );

    *rig.receiver.script.lock().unwrap() = [Answer::Later(0, Some(90))].into();
    let asked = Instant::now();
    rig.append(1);
    rig.until(|rig| rig.report().written == 2).await;
    assert!(asked.elapsed() >= Duration::from_secs(90));
    *rig.receiver.script.lock().unwrap() = [Answer::Later(0, Some(1_000_000))].into();
    let asked = Instant::now();
    rig.append(1);
    rig.until(|rig| rig.report().written == 3).await;
    assert!(asked.elapsed() < Duration::from_secs(602), "no receiver may ask for a week");
    rig.end(running).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_is_gone_is_told_nothing_more() {
    let mut rig = Rig::new(&[Answer::Gone]);
    rig.append(2);
    let running = rig.start(5);
    rig.until(|rig| rig.report().state == State::Stopped).await;
    rig.append(3);
    rig.until(|rig| rig.report().lag == 5).await;
    rig.end(running).await;
    assert_eq!((rig.took().len(), rig.receiver.calls.lock().unwrap().len()), (0, 1));
    assert_eq!(rig.cursors.open_cursor("it"), 0, "the next start tells it all");
}

#[tokio::test(start_paused = true)]
async fn whoever_hangs_or_lies_is_asked_again() {
    let mut rig = Rig::new(&[Answer::Hangs, Answer::Lies]);
    rig.append(2);
    let running = rig.start(5);
    rig.until(|rig| rig.report().written == 2).await;
    rig.end(running).await;
    assert_eq!((rig.took(), rig.report().failed), (vec![1, 2], 2));
}

#[tokio::test(start_paused = true)]
async fn the_end_waits_for_nobody_longer_than_its_deadline() {
    for script in
        [vec![Answer::Hangs], vec![Answer::Later(0, None); 1000], vec![Answer::Later(0, Some(500))]]
    {
        let mut rig = Rig::new(&script);
        rig.append(5);
        let running = rig.start(2);
        rig.until(|rig| !rig.receiver.calls.lock().unwrap().is_empty()).await;
        let stopped = Instant::now();
        rig.end(running).await;
        assert!(stopped.elapsed() <= Duration::from_millis(2100), "{:?}", stopped.elapsed());
        assert_eq!((rig.report().lag, rig.report().skipped), (5, 0), "left for the next start");

        rig.receiver.script.lock().unwrap().clear();
        let running = rig.start(2);
        rig.end(running).await;
        assert_eq!(rig.took(), [1, 2, 3, 4, 5]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_cuts_a_wait_short_once() {
    let mut rig = Rig::new(&vec![Answer::Later(0, None); 9]);
    rig.append(1);
    let running = rig.start(60);
    rig.until(|rig| rig.report().failed == 9).await;
    let stopped = Instant::now();
    rig.end(running).await;
    assert!(stopped.elapsed() < Duration::from_millis(1), "{:?}", stopped.elapsed());
    assert_eq!(rig.took(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_backlog_goes_out_at_the_rate() {
    let mut rig = Rig::new(&[]);
    rig.rate = 5;
    rig.append(50);
    let running = rig.start(5);
    rig.until(|rig| rig.report().written == 50).await;
    let took = rig.receiver.took.lock().unwrap().clone();
    for second in 0..9 {
        let from = took[0].1 + Duration::from_secs(second);
        let within = |at: Instant| at >= from && at < from + Duration::from_secs(1);
        assert_eq!(took.iter().filter(|(_, at)| within(*at)).count(), 5);
    }
    rig.end(running).await;
}

#[tokio::test(start_paused = true)]
async fn what_overtakes_a_slow_sink_is_counted() {
    let mut rig = Rig::new(&[Answer::Later(0, Some(10))]);
    let config = LedgerConfig { max_deaths: 10.try_into().unwrap(), ..LedgerConfig::default() };
    rig.ledger = Arc::new(Ledger::new(config));
    rig.append(2);
    let running = rig.start(5);
    rig.until(|rig| rig.report().failed == 1).await;
    rig.append(20);
    rig.until(|rig| rig.report().lag == 0).await;
    rig.end(running).await;
    // What had been read before is told all the same.
    assert_eq!(rig.took(), [1, 2].into_iter().chain(13..=22).collect::<Vec<_>>());
    assert_eq!(rig.report().skipped, 10);
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_delays_no_other() {
    let mut dead = Rig::new(&[Answer::Hangs]);
    let mut alive = Rig::new(&[]);
    alive.ledger = Arc::clone(&dead.ledger);
    let (first, second) = (dead.start(1), alive.start(1));
    let began = Instant::now();
    dead.append(3);
    alive.until(|rig| rig.report().written == 3).await;
    assert!(began.elapsed() < Duration::from_secs(1));
    alive.end(second).await;
    dead.end(first).await;
}

#[tokio::test(start_paused = true)]
async fn a_storm_is_one_message_and_a_summary() {
    let mut rig = Rig::new(&[]);
    rig.group = Some(Duration::from_secs(300));
    let running = rig.start(5);
    rig.append(40);
    rig.until(|rig| rig.report().held == 39).await;
    assert_eq!((rig.took(), rig.cursors.open_cursor("it")), (vec![1], 1));
    let began = Instant::now();
    rig.until(|rig| rig.report().written == 2).await;
    assert!(began.elapsed() > Duration::from_secs(300));
    rig.end(running).await;
    assert_eq!((rig.took(), rig.cursors.open_cursor("it")), (vec![1, 1039], 40));
}

#[tokio::test(start_paused = true)]
async fn a_window_that_a_restart_falls_into_goes_on() {
    let mut rig = Rig::new(&[]);
    rig.group = Some(Duration::from_secs(300));
    let running = rig.start(5);
    rig.append(10);
    rig.until(|rig| rig.report().held == 9).await;
    rig.end(running).await;
    assert_eq!(rig.cursors.open_cursor("it"), 1);

    let running = rig.start(5);
    rig.append(5);
    rig.until(|rig| rig.report().written == 2).await;
    rig.end(running).await;
    assert_eq!(rig.took(), [1, 1014]);
    let took = rig.receiver.took.lock().unwrap().clone();
    let [(first, _), (Message::Summary(summary), _)] = took.as_slice() else { panic!("{took:?}") };
    assert_eq!(summary.follows, first.id());
    assert_eq!(rig.cursors.open_cursor("it"), 15);
}

#[tokio::test(start_paused = true)]
async fn a_backlog_of_many_windows_is_read_as_it_would_have_been_then() {
    let mut rig = Rig::new(&[]);
    rig.group = Some(Duration::from_secs(60));
    for _ in 0..5 {
        rig.append(100);
        tokio::time::advance(Duration::from_secs(60)).await;
    }
    let running = rig.start(5);
    rig.until(|rig| rig.cursors.open_cursor("it") == 500).await;
    rig.end(running).await;
    let mut took = rig.took();
    took.sort_unstable();
    assert_eq!(took, [1, 101, 201, 301, 401, 1099, 1099, 1099, 1099, 1099]);
}

#[tokio::test(start_paused = true)]
async fn upkeep_comes_when_it_is_due_and_a_failure_is_no_hot_loop() {
    let mut rig = Rig::new(&[]);
    let results = [Err("no".to_owned()), Err("no".to_owned()), Ok(())];
    *rig.receiver.upkeep.lock().unwrap() =
        Some((rig.start + Duration::from_secs(30), results.into()));
    let running = rig.start(5);
    rig.until(|rig| rig.receiver.upkeep.lock().unwrap().is_none()).await;
    let elapsed = rig.start.elapsed().as_secs();
    assert!((50..52).contains(&elapsed), "{elapsed}");
    assert_eq!((rig.report().failed, rig.report().state), (2, State::Failing));
    rig.append(1);
    rig.until(|rig| rig.report().state == State::Up).await;
    rig.end(running).await;
}
