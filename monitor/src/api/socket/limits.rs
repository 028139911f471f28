//! How often who may ask, and how many connections who may hold.
//!
//! Rates are token buckets: of each process, of each owner (a user, or a user in a container) and of all. The buckets are kept for those who
//! asked last; whoever is forgotten begins with a full one, and is held by the bucket above.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

use crate::procfs::Process;
use crate::tags::Owner;

/// Requests a second, and at once.
const OF_PROCESS: Rate = Rate { per_second: 100.0, burst: 200.0 };
const OF_OWNER: Rate = Rate { per_second: 1000.0, burst: 2000.0 };
const OF_ALL: Rate = Rate { per_second: 5000.0, burst: 5000.0 };
/// Buckets that are kept, of processes and of owners.
const MAX_BUCKETS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);

/// Connections in all.
pub const CONNECTIONS: usize = 64;
/// Connections of one owner.
pub const CONNECTIONS_OF_OWNER: usize = 16;
/// Connections in all that only the privileged may hold.
const RESERVED: usize = 8;

/// How fast a bucket fills and what it holds.
#[derive(Debug, Clone, Copy)]
struct Rate {
    per_second: f64,
    burst: f64,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn full(rate: Rate, now: Instant) -> Self {
        Self { tokens: rate.burst, at: now }
    }

    /// Fills it for the time that passed. How long until it holds `cost`, if it does not.
    fn fill(&mut self, rate: Rate, cost: f64, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * rate.per_second).min(rate.burst);
        self.at = now;
        let lack = cost - self.tokens;
        (lack > 0.0).then(|| Duration::from_secs_f64(lack / rate.per_second))
    }
}

/// The rates of all who ask.
#[derive(Debug)]
pub struct Rates(Mutex<Buckets>);

#[derive(Debug)]
struct Buckets {
    all: Bucket,
    owners: LruCache<Owner, Bucket>,
    processes: LruCache<Process, Bucket>,
}

impl Rates {
    /// All full.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self(Mutex::new(Buckets {
            all: Bucket::full(OF_ALL, now),
            owners: LruCache::new(MAX_BUCKETS),
            processes: LruCache::new(MAX_BUCKETS),
        }))
    }

    /// Takes `cost` requests' worth, if all three buckets hold it.
    ///
    /// # Errors
    /// How long until they will. Then nothing is taken.
    pub fn take(
        &self,
        process: Process,
        owner: &Owner,
        cost: u32,
        now: Instant,
    ) -> Result<(), Duration> {
        let cost = f64::from(cost);
        let mut buckets = lock(&self.0);
        let Buckets { all, owners, processes } = &mut *buckets;
        let of_owner = owners.get_or_insert_mut(owner.clone(), || Bucket::full(OF_OWNER, now));
        let of_process = processes.get_or_insert_mut(process, || Bucket::full(OF_PROCESS, now));
        let waits = [
            of_process.fill(OF_PROCESS, cost, now),
            of_owner.fill(OF_OWNER, cost, now),
            all.fill(OF_ALL, cost, now),
        ];
        if let Some(longest) = waits.into_iter().flatten().max() {
            return Err(longest);
        }
        for bucket in [of_process, of_owner, all] {
            bucket.tokens -= cost;
        }
        Ok(())
    }
}

/// The places for connections of peers that are known.
#[derive(Debug, Clone, Default)]
pub struct Places(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    by_owner: HashMap<Owner, usize>,
    unprivileged: usize,
}

/// A place; free again when dropped.
#[derive(Debug)]
pub struct Place {
    places: Places,
    owner: Owner,
    privileged: bool,
}

impl Places {
    /// A place for one connection more; `None` if the owner has as many as it may, or the rest is for the privileged.
    #[must_use]
    pub fn take(&self, owner: Owner, privileged: bool) -> Option<Place> {
        let mut taken = lock(&self.0);
        let of_owner = taken.by_owner.get(&owner).copied().unwrap_or(0);
        let full = !privileged && taken.unprivileged >= CONNECTIONS - RESERVED;
        if full || of_owner >= CONNECTIONS_OF_OWNER {
            return None;
        }
        taken.unprivileged += usize::from(!privileged);
        *taken.by_owner.entry(owner.clone()).or_default() += 1;
        Some(Place { places: self.clone(), owner, privileged })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.places.0);
        taken.unprivileged -= usize::from(!self.privileged);
        if let Some(count) = taken.by_owner.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                taken.by_owner.remove(&self.owner);
            }
        }
    }
}

/// Nothing between lock and unlock can panic, so a panic elsewhere leaves no half-made state.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32) -> Process {
        Process { pid, start_ticks: 1 }
    }

    fn owner(uid: u32) -> Owner {
        Owner { uid, container: None }
    }

    /// How many of these go through at once.
    fn burst(rates: &Rates, asks: impl Iterator<Item = (u32, u32)>, now: Instant) -> usize {
        asks.take_while(|(pid, uid)| rates.take(process(*pid), &owner(*uid), 1, now).is_ok())
            .count()
    }

    #[test]
    fn a_process_that_asks_too_often_waits_and_others_do_not() {
        let now = Instant::now();
        let rates = Rates::new(now);
        assert_eq!(burst(&rates, std::iter::repeat((1, 1)), now), 200);
        let wait = rates.take(process(1), &owner(1), 1, now).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(10), "{wait:?}");
        rates.take(process(2), &owner(1), 1, now).unwrap();
        rates.take(process(1), &owner(1), 1, now + wait).unwrap();
        assert_eq!(burst(&rates, std::iter::repeat((1, 1)), now + Duration::from_secs(1)), 99);
        let wait = rates.take(process(1), &owner(1), 10, now + Duration::from_secs(1)).unwrap_err();
        assert!(wait >= Duration::from_millis(99), "{wait:?}");
    }

    #[test]
    fn many_processes_are_one_owner_and_many_owners_are_all() {
        let now = Instant::now();
        let rates = Rates::new(now);
        assert_eq!(burst(&rates, (0..).map(|pid| (pid, 1)), now), 2000);
        assert_eq!(burst(&rates, (10_000..).map(|n| (n, n)), now), 3000);
    }

    #[test]
    fn places_come_back_and_some_are_for_the_privileged() {
        let places = Places::default();
        let mut held: Vec<_> =
            (0..CONNECTIONS_OF_OWNER).map(|_| places.take(owner(1), false).unwrap()).collect();
        assert!(places.take(owner(1), false).is_none());
        let container = Owner { uid: 1, container: Some("c".into()) };
        held.push(places.take(container, false).expect("another container is another owner"));
        held.extend((2..).map_while(|uid| places.take(owner(uid), false)));
        assert_eq!(held.len(), CONNECTIONS - RESERVED);
        held.push(places.take(owner(0), true).unwrap());
        drop(held);
        let taken = lock(&places.0);
        assert_eq!((taken.unprivileged, taken.by_owner.len()), (0, 0));
    }
}
