//! Tells one sink what the ledger holds, from the sink's own cursor on: one task a sink, so that a slow or dead one delays nobody.
//!
//! A message goes out again until it is accepted or refused for good; what was accepted never goes again in this run. What a run could not deliver
//! stays behind the cursor for the next. A crash between a receiver's word and the cursor's move sends a message twice: receivers deduplicate by id.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::deliver::{Deliver, Failure, Outcome};
use super::group::GRACE;
use super::health::{Health, State};
use super::outbox::Outbox;
use super::retry::{Pace, Retry};
use crate::ledger::{Batch, Ledger};
use crate::ops::Ops;

/// Entries that are read at a time, and messages that go out at a time.
const BATCH: usize = 256;
/// Batches before the cursor that are looked through for windows that were open.
const RECALLED: usize = 64;
/// Longest that a sink may take for an answer. Each has a shorter deadline of its own; this one is for a defect.
const PATIENCE: Duration = Duration::from_secs(120);
/// Shortest wait between two rounds of a sink's upkeep, if it went well and if it did not.
const UPKEEP: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// Shortest time between two lines of log about failures of a sink that has not recovered in between.
const LINE: Duration = Duration::from_secs(60);

/// Where the cursors of sinks are kept.
pub trait Cursors: Send + Sync {
    /// The number of the last entry that a sink has dealt with: for a new one, where it is to begin.
    fn open_cursor(&self, sink: &str) -> u64;

    /// A sink has dealt with the entry numbered `seq` and all before it. Must not block for long.
    fn acknowledge(&self, sink: &str, seq: u64);
}

impl Cursors for Ledger {
    fn open_cursor(&self, sink: &str) -> u64 {
        Self::open_cursor(self, sink)
    }

    fn acknowledge(&self, sink: &str, seq: u64) {
        Self::acknowledge(self, sink, seq);
    }
}

/// What a driver reads and where it tells how it fares.
#[derive(Clone)]
pub struct House {
    /// What there is to tell.
    pub ledger: Arc<Ledger>,
    /// How far each sink is with it.
    pub cursors: Arc<dyn Cursors>,
    /// The log.
    pub ops: Arc<Ops>,
    /// The wall clock.
    pub now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

/// What of a sink's settings the driver needs.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Name of the sink.
    pub name: String,
    /// What it is told.
    pub filter: super::filter::Filter,
    /// How long deaths of one workload and cause are gathered; not zero.
    pub group: Option<Duration>,
    /// Messages a second at most.
    pub rate: usize,
}

/// Drives one sink.
pub struct Driver<D> {
    sink: D,
    house: House,
    health: Arc<Health>,
    name: String,
    group: Option<Duration>,
    outbox: Outbox,
    acknowledged: u64,
    pace: Pace,
    retry: Retry,
    /// No upkeep before then.
    upkeep: Instant,
    /// The last failure that was logged, and when.
    logged: Option<(String, Instant)>,
}

/// What follows from an attempt.
enum Next {
    /// Go on.
    Go,
    /// Wait this long at least; `asked` if the receiver wants it so.
    Wait { wait: Duration, asked: bool },
    /// Tell it nothing any more.
    Stop,
}

impl<D: Deliver> Driver<D> {
    /// Begins where the sink's cursor stands.
    pub fn new(sink: D, terms: Terms, house: House, health: Arc<Health>) -> Self {
        let cursor = house.cursors.open_cursor(&terms.name);
        Self {
            sink,
            house,
            health,
            name: terms.name,
            group: terms.group,
            outbox: Outbox::new(terms.filter, terms.group, cursor),
            acknowledged: cursor,
            pace: Pace::new(terms.rate),
            retry: Retry::default(),
            upkeep: Instant::now(),
            logged: None,
        }
    }

    /// Where it tells how it fares.
    pub fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }

    /// Delivers until `stop` is cancelled, then what there still is, for at most `deadline`. Cancel when nothing will be appended any more.
    pub async fn run(mut self, stop: CancellationToken, deadline: Duration) {
        let mut changed = self.house.ledger.changed();
        let end = async {
            stop.cancelled().await;
            tokio::time::sleep(deadline).await;
        };
        tokio::select! {
            biased;
            () = self.work(&mut changed, &stop) => {}
            () = end => {}
        }
        self.acknowledge();
        let left = self.lag(*changed.borrow());
        self.health.set_lag(left, self.outbox.held());
        if left > 0 {
            self.house.ops.sink_unfinished(&self.name, left);
        }
    }

    async fn work(&mut self, changed: &mut watch::Receiver<u64>, stop: &CancellationToken) {
        self.recall().await;
        loop {
            let last = *changed.borrow_and_update();
            let Some(caught_up) = self.read(last).await else { return };
            let wall = caught_up.then(|| (self.house.now)());
            self.outbox.close(wall, Instant::now());
            self.acknowledge();
            self.health.set_lag(self.lag(last), self.outbox.held());
            self.keep_up().await;
            if self.outbox.waiting() > 0 {
                match self.deliver().await {
                    Next::Go => {}
                    Next::Wait { wait, asked } => self.pause(wait, asked, stop).await,
                    Next::Stop => return self.stopped(changed, stop).await,
                }
                continue;
            }
            if !caught_up {
                continue;
            }
            if stop.is_cancelled() {
                return;
            }
            let next = self.outbox.next_close((self.house.now)());
            let closes = next.map(|wait| Instant::now() + wait);
            let due = self.sink.due().map(|due| due.max(self.upkeep));
            tokio::select! {
                _ = changed.changed() => {}
                () = stop.cancelled() => {}
                () = at(closes) => {}
                () = at(due) => {}
            }
        }
    }

    /// Reads on, unless there is enough to tell. Whether all that there is has been read; `None` if the ledger cannot be read any more.
    async fn read(&mut self, last: u64) -> Option<bool> {
        if self.outbox.waiting() > 0 || self.outbox.read() >= last {
            return Some(self.outbox.read() >= last);
        }
        let Batch { entries, skipped } = self.batch(self.outbox.read()).await?;
        if skipped > 0 {
            self.health.skipped(skipped);
            self.house.ops.sink_overtaken(&self.name, skipped);
            self.outbox.skip(skipped);
        }
        let now = Instant::now();
        entries.iter().for_each(|entry| self.outbox.take(entry, now));
        Some(entries.is_empty())
    }

    /// Looks through what lies before the cursor for windows that were open, so that they go on as they were.
    async fn recall(&mut self) {
        let (Some(window), cursor) = (self.group, self.outbox.read()) else { return };
        let mut from = cursor;
        let mut newest = None;
        for _ in 0..RECALLED {
            if from == 0 {
                break;
            }
            from = from.saturating_sub(BATCH as u64);
            let Some(batch) = self.batch(from).await else { return };
            let before = batch.entries.iter().filter(|entry| entry.seq <= cursor);
            let times = before.filter_map(|entry| Some(entry.death()?.time));
            let (oldest, latest) = times.fold((None, None), |(oldest, latest), time| {
                (Some(oldest.map_or(time, |o: Timestamp| o.min(time))), latest.max(Some(time)))
            });
            newest = newest.or(latest);
            let enough = window + GRACE;
            let old = |oldest: Timestamp| {
                newest.is_some_and(|newest| newest.duration_since(oldest).unsigned_abs() > enough)
            };
            if batch.skipped > 0 || oldest.is_some_and(old) {
                break;
            }
        }
        let now = Instant::now();
        while let Some(Batch { entries, .. }) = self.batch(from).await {
            let Some(last) = entries.last().map(|entry| entry.seq) else { return };
            for entry in entries.iter().take_while(|entry| entry.seq <= cursor) {
                self.outbox.recall(entry, now);
            }
            if last >= cursor {
                return;
            }
            from = last;
        }
    }

    /// Reads the ledger where it may block. `None` if that thread panicked, or the runtime is at its end.
    async fn batch(&mut self, after: u64) -> Option<Batch> {
        let ledger = Arc::clone(&self.house.ledger);
        match tokio::task::spawn_blocking(move || ledger.read_after(after, BATCH)).await {
            Ok(batch) => Some(batch),
            Err(error) => {
                let why = format!("the ledger cannot be read: {error}");
                self.health.failed(&why, State::Stopped);
                self.house.ops.sink_stopped(&self.name, &why);
                None
            }
        }
    }

    async fn deliver(&mut self) -> Next {
        sleep_until(self.pace.next()).await;
        let most = self.sink.batch().clamp(1, BATCH).min(self.pace.burst());
        let messages = self.outbox.head(most);
        let began = Instant::now();
        let outcome = match timeout(PATIENCE, self.sink.deliver(&messages)).await {
            Ok(outcome) => outcome,
            Err(_) => later(format!("no answer within {PATIENCE:?}")),
        };
        let accepted = outcome.accepted.min(messages.len());
        self.outbox.done(accepted);
        self.pace.sent(accepted.max(1), began);
        self.health.written(accepted as u64, (self.house.now)());
        if accepted > 0 {
            self.retry.reset();
        }
        match outcome.failure {
            None if accepted > 0 => {
                self.recovered();
                Next::Go
            }
            None => self.failed("it took nothing and did not say why", None),
            Some(Failure::Later { why, after }) => self.failed(&why, after),
            Some(Failure::Refused(why)) => {
                self.health.failed(&why, State::Failing);
                // If all were accepted, there is none that it could mean.
                if accepted < messages.len() {
                    self.outbox.done(1);
                    self.health.skipped(1);
                }
                if self.is_news(&why) {
                    self.house.ops.sink_refused(&self.name, &why);
                }
                Next::Go
            }
            Some(Failure::Gone(why)) => {
                self.health.failed(&why, State::Stopped);
                self.house.ops.sink_stopped(&self.name, &why);
                Next::Stop
            }
        }
    }

    fn failed(&mut self, why: &str, asked: Option<Duration>) -> Next {
        self.health.failed(why, State::Failing);
        if self.is_news(why) {
            self.house.ops.sink_failed(&self.name, why);
        }
        Next::Wait { wait: self.retry.failed(asked), asked: asked.is_some() }
    }

    fn recovered(&mut self) {
        self.logged = None;
        if self.health.recovered() {
            self.house.ops.sink_recovered(&self.name);
        }
    }

    /// Whether a failure is worth a line: the first since the sink worked, and another one later.
    fn is_news(&mut self, why: &str) -> bool {
        let now = Instant::now();
        let told = |(line, at): &(String, Instant)| line == why || now.duration_since(*at) < LINE;
        if self.logged.as_ref().is_some_and(told) {
            return false;
        }
        self.logged = Some((why.to_owned(), now));
        true
    }

    /// Waits for the next attempt. The end of the daemon cuts it short once, unless the receiver asked for it.
    async fn pause(&mut self, wait: Duration, asked: bool, stop: &CancellationToken) {
        let until = Instant::now() + wait;
        let stopping = stop.is_cancelled();
        loop {
            let due = self.sink.due().map(|due| due.max(self.upkeep)).filter(|due| *due < until);
            tokio::select! {
                () = sleep_until(until) => return,
                () = stop.cancelled(), if !stopping && !asked => return self.retry.reset(),
                () = at(due) => self.keep_up().await,
            }
        }
    }

    /// Lets the sink do what it wants to do by now.
    async fn keep_up(&mut self) {
        let now = Instant::now();
        if now < self.upkeep || self.sink.due().is_none_or(|due| due > now) {
            return;
        }
        let done = timeout(PATIENCE, self.sink.upkeep()).await;
        let (well, badly) = UPKEEP;
        let wait = match done.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}"))) {
            Ok(()) => well,
            Err(why) => {
                self.health.failed(&why, State::Failing);
                if self.is_news(&why) {
                    self.house.ops.sink_failed(&self.name, &why);
                }
                badly
            }
        };
        self.upkeep = Instant::now() + wait;
    }

    /// Goes on counting what the sink is not told.
    async fn stopped(&mut self, changed: &mut watch::Receiver<u64>, stop: &CancellationToken) {
        self.acknowledge();
        while !stop.is_cancelled() {
            let last = *changed.borrow_and_update();
            self.health.set_lag(self.lag(last), self.outbox.held());
            tokio::select! {
                _ = changed.changed() => {}
                () = stop.cancelled() => {}
            }
        }
    }

    fn acknowledge(&mut self) {
        let cursor = self.outbox.cursor();
        if cursor > self.acknowledged {
            self.acknowledged = cursor;
            self.house.cursors.acknowledge(&self.name, cursor);
        }
    }

    /// Entries and summaries that the sink has yet to be told, of `last` entries.
    fn lag(&self, last: u64) -> u64 {
        last.saturating_sub(self.outbox.read()) + self.outbox.waiting() as u64
    }
}

fn later(why: String) -> Outcome {
    Outcome { accepted: 0, failure: Some(Failure::Later { why, after: None }) }
}

/// Waits until then; for ever, if there is no such time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
