//! Deaths to come: asks again and again for what is after the last place, and survives the daemon's restart.
//!
//! A place belongs to one series of numbers. They go on when the daemon is started anew, unless its ledger is in memory or was set
//! aside: then everything since shortly before the last answer is asked for by time, and what was shown already is known by its id.
//! [`Follower`] decides and does no I/O.

use std::collections::{HashSet, VecDeque};
use std::io::Write;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

use super::page::{self, PAGE, Page, Place};
use super::printer::Printer;
use super::question::Question;
use super::record::Record;
use crate::cli::client::{Api, Unanswered};
use crate::cli::complain;

/// Ids of records that are remembered as shown.
const SHOWN: usize = 10_000;
/// A death may be told so long after it happened: it waits for names, and for its mark.
const TOLD_WITHIN: SignedDuration = SignedDuration::from_secs(60);
/// First and longest wait before the next question if nothing was new.
const IDLE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));
/// And if there was no answer.
const SILENT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// What is known of what was shown.
pub(super) struct Follower {
    question: Question,
    place: Place,
    /// When the daemon answered last.
    heard: Timestamp,
    /// While what a daemon knows that counts anew is caught up with: from when on.
    from: Option<Timestamp>,
    shown: HashSet<Uuid>,
    /// The same, oldest first.
    order: VecDeque<Uuid>,
}

/// What to make of an answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// Records that were not shown yet, oldest first.
    pub(super) records: Vec<Record>,
    /// Deaths that nobody can show any more.
    pub(super) missed: u64,
    /// The daemon counts anew.
    pub(super) anew: bool,
    /// There may be more at once.
    pub(super) more: bool,
}

impl Follower {
    /// Goes on from `place`, where the daemon was at `now`; those records have been shown.
    pub(super) fn new(
        question: Question,
        place: Place,
        shown: impl Iterator<Item = Uuid>,
        now: Timestamp,
    ) -> Self {
        let (set, order) = (HashSet::new(), VecDeque::new());
        let mut follower = Self { question, place, heard: now, from: None, shown: set, order };
        for id in shown {
            follower.is_new(id);
        }
        follower
    }

    /// What to ask, and after which place.
    pub(super) fn next(&self) -> (Question, u64) {
        let mut question = self.question.clone();
        question.filter.since = question.filter.since.max(self.from);
        (question, self.place.last)
    }

    /// Takes an answer to [`Follower::next`] that came `now`.
    pub(super) fn take(&mut self, page: Page, now: Timestamp) -> News {
        if page.place.series != self.place.series {
            // Asked by a number of another series: worth nothing.
            let before = self.heard.checked_sub(TOLD_WITHIN).unwrap_or(Timestamp::MIN);
            // It may count anew once more while it is caught up with.
            self.from = Some(self.from.map_or(before, |from| from.min(before)));
            self.place = Place { series: page.place.series, last: 0 };
            return News { anew: true, more: true, ..News::default() };
        }
        let more = page.place.last != self.place.last;
        // What the new numbers let go of may be what was shown before.
        let missed = if self.from.is_some() { 0 } else { page.missed };
        self.place.last = page.place.last;
        self.heard = now;
        if !more {
            self.from = None;
        }
        let mut records = page.records;
        records.retain(|record| record.id().is_none_or(|id| self.is_new(id)));
        News { records, missed, anew: false, more }
    }

    /// Whether it was not shown; from now on it was.
    fn is_new(&mut self, id: Uuid) -> bool {
        if !self.shown.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > SHOWN
            && let Some(oldest) = self.order.pop_front()
        {
            self.shown.remove(&oldest);
        }
        true
    }
}

/// Follows until a signal ends it or the reader of the output is gone.
///
/// # Errors
/// If the output fails otherwise, or what answers is no daemon of this version.
pub(super) async fn run<W: Write>(
    api: &Api,
    follower: Follower,
    printer: &mut Printer<W>,
) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        ended = go_on(api, follower, printer, complain) => ended,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}

/// The same without an end by signals. `say` is told what the reader should know beside the records.
pub(super) async fn go_on<W: Write>(
    api: &Api,
    mut follower: Follower,
    printer: &mut Printer<W>,
    mut say: impl FnMut(&str),
) -> anyhow::Result<()> {
    let (mut idle, mut silent) = (Pace::new(IDLE), Pace::new(SILENT));
    while printer.has_reader() {
        let (question, after) = follower.next();
        let page = match page::get(api, &question, PAGE, Some(after)).await {
            Ok(page) => page,
            Err(Unanswered::Foreign(error)) => return Err(error),
            Err(no) => {
                if silent.is_fresh() {
                    say(&format!("{api} does not answer: {no}; it is asked again until it does"));
                }
                silent.wait().await;
                continue;
            }
        };
        if !silent.is_fresh() {
            say(&format!("{api} answers again"));
            silent = Pace::new(SILENT);
        }
        let news = follower.take(page, Timestamp::now());
        if news.anew {
            say("the daemon has another ledger than before; what is in it since then comes first");
        }
        if news.missed > 0 {
            say(&format!("{} deaths came and went between two questions", news.missed));
        }
        if !printer.print(&news.records)? {
            return Ok(());
        }
        if news.more {
            idle = Pace::new(IDLE);
        } else {
            idle.wait().await;
        }
    }
    Ok(())
}

/// Waits that grow to a bound.
struct Pace {
    first: Duration,
    next: Duration,
    longest: Duration,
}

impl Pace {
    const fn new((first, longest): (Duration, Duration)) -> Self {
        Self { first, next: first, longest }
    }

    /// Whether nothing was waited for yet.
    fn is_fresh(&self) -> bool {
        self.next == self.first
    }

    async fn wait(&mut self) {
        tokio::time::sleep(self.next).await;
        self.next = self.next.saturating_mul(2).min(self.longest);
    }
}
