//! Reads the ring of a set to its end, after others have taken the place of its programs.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use aya::maps::{MapData, RingBuf};

use super::{
    Loss, News, Record,
    decode::decode,
    pins::{Plan, SetName, dir, state::Meanwhile},
    reader::{Drain, note_end},
    tally::lost,
    traffic::{Counter, is_end, submitted},
    words::Assembler,
};

/// How long to wait until programs that are at work as their links go are done. What they write is on the new ring too.
const DONE_WITHIN: Duration = Duration::from_secs(1);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(1);
/// Records that are read at most: more than the largest ring holds.
const MAX_RECORDS: u64 = 8 << 20;

/// A set of an earlier daemon.
pub struct Old {
    /// Which.
    pub set: SetName,
    /// Where it is pinned.
    pub path: PathBuf,
    /// Whether its records are understood.
    pub plan: Plan,
    /// Its ring.
    pub ring: RingBuf<MapData>,
    /// What went over it, if that can be read.
    pub traffic: Option<Counter>,
    /// Its ends that were dealt with, if somebody noted it.
    pub noted: Option<i64>,
}

impl Drain {
    /// Detaches a set and reads what is on its ring. Says what that was, and how many ends went into the queue.
    pub(super) fn retire(&mut self, mut old: Old) -> (Meanwhile, u64) {
        if let Err(error) = dir::remove_links(&old.path) {
            tracing::error!(set = %old.set, %error, "an earlier daemon's programs cannot be detached");
        }
        self.tell(News::Begins { set: old.set.id, base: old.noted, done_with: Vec::new() });
        let mut read = Meanwhile::default();
        let mut assembler = Assembler::new(self.allowlist.clone());
        let mut empty_since: Option<Instant> = None;
        let all = loop {
            let before = old.traffic.as_ref().and_then(Counter::read);
            self.read_old(&mut old, &mut assembler, &mut read);
            let after = old.traffic.as_ref().and_then(Counter::read);
            let (Some(before), Some(after)) = (before, after) else { break None };
            if let Some(all) = submitted(before, after) {
                break Some(all);
            }
            let since = *empty_since.get_or_insert_with(Instant::now);
            if since.elapsed() > DONE_WITHIN || read.records >= MAX_RECORDS {
                break None;
            }
            thread::park_timeout(LOOK);
        };
        assembler.finish(|record| self.records.offer(record));
        let abandoned = old.plan == Plan::Abandon;
        if abandoned {
            self.tell(News::Lost(Loss::Layout, read.deaths));
        }
        if let Some(killed) = all.and_then(|all| lost(all, read.deaths, old.noted)) {
            self.tell(News::Lost(Loss::Killed, killed));
        }
        let Meanwhile { records, deaths } = read;
        tracing::info!(set = %old.set, records, deaths, abandoned, "what an earlier daemon left is read to its end");
        (read, if abandoned { 0 } else { read.deaths })
    }

    fn read_old(&mut self, old: &mut Old, assembler: &mut Assembler, read: &mut Meanwhile) {
        while read.records < MAX_RECORDS {
            self.wait_for_room();
            let Some(item) = old.ring.next() else { return };
            read.records += 1;
            read.deaths += u64::from(is_end(&item));
            if old.plan == Plan::Abandon {
                continue;
            }
            match decode(&item) {
                Ok(raw) => {
                    self.overlap.old(&raw);
                    note_end(&*self.observer, &raw);
                    assembler.push(raw, |record| self.records.offer(record));
                }
                Err(error) => self.observer.undecodable(&error),
            }
        }
    }

    /// Says something of the ring to whoever counts.
    pub(super) fn tell(&self, news: News) {
        self.wait_for_room();
        self.records.offer(Record::Ring(news));
    }
}
