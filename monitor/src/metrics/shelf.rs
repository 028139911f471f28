//! Series by their values: at most so many, each as long as somebody holds it and for a while after.
//!
//! * What is held stays. What nobody holds ages, from when it was let go or last counted, and expires.
//! * When there is no room, the oldest of those gives way that nobody holds and that count nothing; else there is no series, and whoever counts does so
//!   in the overflow. A series that has counted goes by age alone, or a `sum()` would fall.
//! * Nobody else may have the values of the overflow: a container may be called so.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::scheme::Values;

/// Series and their counts.
#[derive(Debug)]
pub(super) struct Shelf<C> {
    max: usize,
    overflow: Option<Values>,
    series: BTreeMap<Values, Series<C>>,
    /// How many hold each, those included that found no room.
    held: BTreeMap<Values, usize>,
    /// Not held and not counted, the oldest first.
    untouched: BTreeSet<(Instant, Values)>,
    /// Not held, but counted, the oldest first.
    counted: BTreeSet<(Instant, Values)>,
}

#[derive(Debug)]
struct Series<C> {
    counts: C,
    counted: bool,
    /// Since when it ages; `None` while it is held.
    idle: Option<Instant>,
}

impl<C: Default> Shelf<C> {
    pub(super) fn new(max: usize, overflow: Option<Values>) -> Self {
        Self {
            max,
            overflow,
            series: BTreeMap::new(),
            held: BTreeMap::new(),
            untouched: BTreeSet::new(),
            counted: BTreeSet::new(),
        }
    }

    /// Makes a series at 0, if it is not there and there is room.
    pub(super) fn offer(&mut self, values: &Values, now: Instant) {
        self.get(values, now);
    }

    /// One more holds a series, which is made if there is room: now, or when it counts.
    pub(super) fn hold(&mut self, values: &Values, now: Instant) {
        *self.held.entry(Arc::clone(values)).or_default() += 1;
        if let Some(series) = self.get(values, now)
            && let Some(since) = series.idle.take()
        {
            let key = (since, Arc::clone(values));
            if series.counted {
                self.counted.remove(&key)
            } else {
                self.untouched.remove(&key)
            };
        }
    }

    /// One of those that hold a series lets go of it.
    pub(super) fn release(&mut self, values: &Values, now: Instant) {
        let Some(holders) = self.held.get_mut(values) else { return };
        *holders -= 1;
        if *holders > 0 {
            return;
        }
        self.held.remove(values);
        if let Some(series) = self.series.get_mut(values) {
            series.idle = Some(now);
            let key = (now, Arc::clone(values));
            if series.counted {
                self.counted.insert(key)
            } else {
                self.untouched.insert(key)
            };
        }
    }

    /// Takes away a series that nobody holds and that has counted nothing.
    pub(super) fn withdraw(&mut self, values: &Values) {
        if let Some(Series { idle: Some(since), counted: false, .. }) = self.series.get(values) {
            self.untouched.remove(&(*since, Arc::clone(values)));
            self.series.remove(values);
        }
    }

    /// The counts of a series that is about to count; `None` if there is no room for it.
    pub(super) fn count(&mut self, values: &Values, now: Instant) -> Option<&mut C> {
        self.get(values, now)?;
        let series = self.series.get_mut(values)?;
        if let Some(since) = series.idle {
            series.idle = Some(now);
            let key = (since, Arc::clone(values));
            if series.counted {
                self.counted.remove(&key)
            } else {
                self.untouched.remove(&key)
            };
            self.counted.insert((now, Arc::clone(values)));
        }
        series.counted = true;
        Some(&mut series.counts)
    }

    /// Drops what has aged for as long as `keep`.
    pub(super) fn expire(&mut self, now: Instant, keep: Duration) {
        for order in [&mut self.untouched, &mut self.counted] {
            while let Some((_, values)) = pop_expired(order, now, keep) {
                self.series.remove(&values);
            }
        }
    }

    /// Every series.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Values, &C)> {
        self.series.iter().map(|(values, series)| (values, &series.counts))
    }

    fn get(&mut self, values: &Values, now: Instant) -> Option<&mut Series<C>> {
        if self.overflow.as_ref() == Some(values) {
            return None;
        }
        if !self.series.contains_key(values) {
            if self.series.len() >= self.max {
                let (_, oldest) = self.untouched.pop_first()?;
                self.series.remove(&oldest);
            }
            let idle = (!self.held.contains_key(values)).then_some(now);
            if let Some(since) = idle {
                self.untouched.insert((since, Arc::clone(values)));
            }
            let series = Series { counts: C::default(), counted: false, idle };
            self.series.insert(Arc::clone(values), series);
        }
        self.series.get_mut(values)
    }
}

/// Takes out the oldest, if it is as old as `keep`.
pub(super) fn pop_expired<K: Ord>(
    order: &mut BTreeSet<(Instant, K)>,
    now: Instant,
    keep: Duration,
) -> Option<(Instant, K)> {
    let (since, _) = order.first()?;
    if now.saturating_duration_since(*since) < keep { None } else { order.pop_first() }
}

/// The last [`Recent::MAX`] pairs of a decision of the OOM killer and whom it hit: the deaths of one decision arrive within milliseconds, and may interleave
/// with those of others.
#[derive(Debug)]
pub(super) struct Recent<K> {
    pairs: HashSet<(u64, K)>,
    order: VecDeque<(u64, K)>,
}

impl<K> Default for Recent<K> {
    fn default() -> Self {
        Self { pairs: HashSet::new(), order: VecDeque::new() }
    }
}

impl<K: Clone + Eq + Hash> Recent<K> {
    /// Pairs that are remembered.
    pub(super) const MAX: usize = 4096;

    /// Whether the decision had not hit it before.
    pub(super) fn first(&mut self, incident: u64, hit: &K) -> bool {
        let pair = (incident, hit.clone());
        if !self.pairs.insert(pair.clone()) {
            return false;
        }
        self.order.push_back(pair);
        if self.order.len() > Self::MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.pairs.remove(&oldest);
        }
        true
    }
}
