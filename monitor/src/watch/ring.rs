//! The last minutes of one cgroup in a fixed number of bytes: dense for the last seconds, thin before, thinner for what it was made of. Pure.
//!
//! Times are tenths of a second since boot, amounts are units of 4 KiB: 16 TiB fit.

use std::collections::VecDeque;

use super::fit::{self, Line};
use crate::death::{KindsAt, UsageAt};

/// Samples of the last seconds.
const RECENT: usize = 32;
/// Samples before that, at least [`THIN`] apart.
const PAST: usize = 72;
/// Looks at what it was made of, at least [`THIN_KINDS`] apart, besides the last one.
const KINDS: usize = 30;
/// Tenths of a second: 72 of these are 5 minutes.
const THIN: u32 = 42;
/// 30 of these are 5 minutes.
const THIN_KINDS: u32 = 100;
/// What is older is not told.
const KEPT: u32 = 3000;

/// Bytes of one history; docs/SPECIFICATION.md says it.
pub const BYTES: usize = (RECENT + PAST) * size_of::<Point>() + (KINDS + 1) * size_of::<Made>();

/// A time, tenths of a second since boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tenths(pub(super) u32);

impl Tenths {
    pub(super) fn of_ns(ns: u64) -> Self {
        Self(u32::try_from(ns / 100_000_000).unwrap_or(u32::MAX))
    }

    fn seconds_before(self, now_ns: u64) -> f64 {
        let ns = now_ns.saturating_sub(u64::from(self.0) * 100_000_000);
        // A tenth is what it is known to.
        (std::time::Duration::from_nanos(ns).as_secs_f64() * 10.0).round() / 10.0
    }
}

/// Bytes in units of 4 KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Units(u32);

impl Units {
    fn of(bytes: u64) -> Self {
        Self(u32::try_from(bytes >> 12).unwrap_or(u32::MAX))
    }

    fn bytes(self) -> u64 {
        u64::from(self.0) << 12
    }
}

#[derive(Debug, Clone, Copy)]
struct Point {
    at: Tenths,
    usage: Units,
}

#[derive(Debug, Clone, Copy)]
struct Made {
    at: Tenths,
    anon: Units,
    file: Units,
    shmem: Units,
    kernel: Units,
    swap: Units,
}

/// What a cgroup is made of, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct MadeOf {
    pub(super) anon: u64,
    pub(super) file: u64,
    pub(super) shmem: u64,
    pub(super) kernel: u64,
    pub(super) swap: u64,
}

/// The samples of one cgroup. Grows to [`BYTES`] and then no more.
#[derive(Debug, Default)]
pub(super) struct Ring {
    recent: VecDeque<Point>,
    past: VecDeque<Point>,
    kinds: VecDeque<Made>,
}

impl Ring {
    /// Takes in the usage at `now_ns`, ns since boot.
    pub(super) fn usage(&mut self, now_ns: u64, bytes: u64) {
        let point = Point { at: Tenths::of_ns(now_ns), usage: Units::of(bytes) };
        if self.past.back().is_none_or(|last| point.at.0.saturating_sub(last.at.0) >= THIN) {
            push(&mut self.past, point, PAST);
        }
        push(&mut self.recent, point, RECENT);
    }

    /// Takes in what it was made of.
    pub(super) fn kinds(&mut self, now_ns: u64, of: MadeOf) {
        let made = Made {
            at: Tenths::of_ns(now_ns),
            anon: Units::of(of.anon),
            file: Units::of(of.file),
            shmem: Units::of(of.shmem),
            kernel: Units::of(of.kernel),
            swap: Units::of(of.swap),
        };
        // The last one may be replaced until it is far enough from the one before.
        let before = self.kinds.len().checked_sub(2).and_then(|at| self.kinds.get(at)).copied();
        let close =
            |earlier: Made, later: Made| later.at.0.saturating_sub(earlier.at.0) < THIN_KINDS;
        match (before, self.kinds.back_mut()) {
            (Some(before), Some(last)) if close(before, *last) => *last = made,
            _ => push(&mut self.kinds, made, KINDS + 1),
        }
    }

    /// The usage, oldest first, seconds before `now_ns`.
    pub(super) fn history(&self, now_ns: u64) -> Vec<UsageAt> {
        let at = |point: &Point| UsageAt {
            ago_seconds: point.at.seconds_before(now_ns),
            bytes: point.usage.bytes(),
        };
        self.points(now_ns).map(at).collect()
    }

    /// What it was made of, oldest first, seconds before `now_ns`.
    pub(super) fn composition(&self, now_ns: u64) -> Vec<KindsAt> {
        let since = Tenths(Tenths::of_ns(now_ns).0.saturating_sub(KEPT));
        let at = |made: &Made| KindsAt {
            ago_seconds: made.at.seconds_before(now_ns),
            anon_bytes: made.anon.bytes(),
            file_bytes: made.file.bytes(),
            shmem_bytes: made.shmem.bytes(),
            kernel_bytes: made.kernel.bytes(),
            swap_bytes: made.swap.bytes(),
        };
        self.kinds.iter().filter(|made| made.at >= since).map(at).collect()
    }

    /// The line through the usage, bytes a second.
    pub(super) fn trend(&self, now_ns: u64) -> Option<Line> {
        let place = |point: &Point| (f64::from(point.at.0) / 10.0, f64::from(point.usage.0));
        let line = fit::line(self.points(now_ns).map(place))?;
        Some(Line { slope: line.slope * 4096.0, ..line })
    }

    fn points(&self, now_ns: u64) -> impl Iterator<Item = &Point> + Clone {
        let since = Tenths(Tenths::of_ns(now_ns).0.saturating_sub(KEPT));
        let dense = self.recent.front().map_or(Tenths(u32::MAX), |point| point.at);
        let thin = self.past.iter().filter(move |point| point.at < dense);
        thin.chain(&self.recent).filter(move |point| point.at >= since)
    }
}

fn push<T>(ring: &mut VecDeque<T>, item: T, max: usize) {
    if ring.len() >= max {
        ring.pop_front();
    } else if ring.len() == ring.capacity() {
        // In steps, so that it never holds more than twice what it needs, nor more than its bound.
        ring.reserve_exact(ring.len().clamp(4, max - ring.len()));
    }
    ring.push_back(item);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const MIB: u64 = 1 << 20;

    #[test]
    fn five_minutes_are_kept_dense_at_the_end() {
        let mut ring = Ring::default();
        (0..1000).for_each(|second| ring.usage(second * SECOND, second * MIB));
        let history = ring.history(1000 * SECOND);
        let oldest = history.first().unwrap();
        assert!((290.0..=300.0).contains(&oldest.ago_seconds), "{oldest:?}");
        let grown = (1000.0 - oldest.ago_seconds) * MIB as f64;
        assert!((oldest.bytes as f64 - grown).abs() < 1.0, "{oldest:?}");
        assert_eq!(history.last().unwrap(), &UsageAt { ago_seconds: 1.0, bytes: 999 * MIB });
        let last: Vec<f64> = history.iter().rev().take(32).map(|at| at.ago_seconds).collect();
        assert_eq!(last, (1..=32).map(f64::from).collect::<Vec<_>>(), "each of the last seconds");
        assert!(history.len() <= RECENT + PAST, "{}", history.len());
        let trend = ring.trend(1000 * SECOND).unwrap();
        assert!((trend.slope - MIB as f64).abs() < 1.0 && trend.fit > 0.999, "{trend:?}");
    }

    #[test]
    fn what_is_older_is_not_told() {
        let mut ring = Ring::default();
        ring.usage(SECOND, MIB);
        ring.kinds(SECOND, MadeOf::default());
        assert_eq!(ring.history(301 * SECOND).len(), 1);
        assert_eq!(ring.history(302 * SECOND), []);
        assert_eq!(ring.composition(302 * SECOND), []);
    }

    #[test]
    fn the_last_look_at_the_kinds_is_there_and_five_minutes_of_them() {
        let mut ring = Ring::default();
        for second in 0..1000 {
            ring.kinds(second * SECOND, MadeOf { anon: second * MIB, ..MadeOf::default() });
        }
        let kinds = ring.composition(1000 * SECOND);
        assert_eq!(kinds.last().map(|at| (at.ago_seconds, at.anon_bytes)), Some((1.0, 999 * MIB)));
        assert!(kinds.first().unwrap().ago_seconds > 280.0, "{:?}", kinds.first());
        assert!(kinds.len() <= KINDS + 1);
    }

    proptest! {
        #[test]
        fn bounds_and_order_hold(steps in proptest::collection::vec((0u64..20_000_000_000, any::<u64>()), 0..400)) {
            let (mut ring, mut now) = (Ring::default(), 0);
            for (step, bytes) in steps {
                now += step;
                ring.usage(now, bytes);
                ring.kinds(now, MadeOf { anon: bytes, ..MadeOf::default() });
            }
            let history = ring.history(now);
            prop_assert!(history.is_sorted_by(|a, b| a.ago_seconds >= b.ago_seconds));
            prop_assert!(ring.composition(now).is_sorted_by(|a, b| a.ago_seconds >= b.ago_seconds));
            let held = (ring.recent.capacity() + ring.past.capacity()) * size_of::<Point>()
                + ring.kinds.capacity() * size_of::<Made>();
            prop_assert!(held <= BYTES, "{held}");
        }
    }
}
