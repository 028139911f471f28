//! One cgroup that is followed: what was read of it last, its history, and when it is to be looked at next. No I/O.

use std::collections::VecDeque;
use std::sync::Arc;

use rustix::fd::OwnedFd;

use super::files::Beside;
use super::fit;
use super::near::{Bounds, Near, Place};
use super::ring::Ring;
use crate::death::Workload;

/// ns of a millisecond.
const MS: u64 = 1_000_000;
/// Looks are due at multiples of this, ns: together with others, for to wake for each costs ten times as much as to look.
const TICK: u64 = 100 * MS;
/// Those that are whole seconds apart are due at whole seconds, ns.
pub(super) const SECOND: u64 = 1_000 * MS;
/// Others that are a second apart or more, ns.
const QUIET_TICK: u64 = 500 * MS;
/// One that was just made, or that grows fast, is looked at this often.
const FAST: u64 = 200 * MS;
/// One that is close to its limit is looked at this often at least.
const CLOSE: u64 = 1_000 * MS;
/// For how long one that was just made is looked at often.
const FRESH: u64 = 10_000 * MS;
/// Without a limit there is nothing to be near to: so many times the interval.
const UNLIMITED: u64 = 5;
/// For each so much room below its limit a quiet one is left alone for an interval: a leak of 25 MiB/s is then unseen for a tenth of its way at most. Bytes.
const ROOM: u64 = 256 << 20;
/// But no longer than this, ns.
const ALONE: u64 = 5_000 * MS;
/// One that nothing names and that has no limit is only asked for its limit: this often, and after these times from when it was made.
const IDLE: u64 = 30_000 * MS;
const SOON: [u64; 4] = [100 * MS, 500 * MS, 2_000 * MS, 10_000 * MS];
/// A limit is read anew this often, and more often while it is new.
const LIMIT: u64 = 10_000 * MS;
const FRESH_LIMIT: u64 = 500 * MS;
/// How far below the share that counts as near the kinds are read with each look.
const MARGIN: f64 = 0.15;
/// The kinds are read this often while nothing is going on, and this often if the usage moved.
const STILL: u64 = 60_000 * MS;
const MOVED: u64 = 10_000 * MS;
/// A usage that moved less is still.
const STIR: u64 = 1 << 20;
/// From this share of its limit on it is full.
const BRIM: f64 = 0.9;
/// A cgroup full of page cache shows nothing by its usage: the kinds are read this often, by whether half of it cannot be taken back.
const FULL: [u64; 2] = [1_000 * MS, 2_500 * MS];
/// Steady growth is that of so many seconds, less what a look may be early.
const STEADY: f64 = 0.95;
/// Looks that a trend is drawn through, and how it must be for a forecast.
const TREND: usize = 16;
const MIN_POINTS: usize = 8;
const MIN_SPAN: f64 = 1.7;
const MIN_FIT: f64 = 0.95;

/// A limit and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) bytes: u64,
    pub(super) cgroup: Arc<str>,
}

/// The files of a cgroup that are read often.
#[derive(Debug)]
pub(super) struct Hot {
    pub(super) stat: OwnedFd,
    /// Only where it tells that it changed.
    pub(super) events: Option<OwnedFd>,
}

/// What was read last. Bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Last {
    pub(super) at_ns: u64,
    pub(super) usage: u64,
    /// What cannot be taken back, as the kinds had it.
    pub(super) firm: Option<u64>,
    /// The usage at that look.
    pub(super) firm_usage: u64,
    pub(super) firm_ns: u64,
    pub(super) working_set: Option<u64>,
    /// What stands beside the kinds, and since when it is known.
    pub(super) beside: Beside,
    pub(super) beside_ns: u64,
}

/// A cgroup that is followed.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) id: u64,
    pub(super) path: Arc<str>,
    /// Whether a container, a pod or a unit goes by it.
    pub(super) named: bool,
    /// When it was first heard of, ns since boot.
    pub(super) since_ns: u64,
    /// Whether that was as it was made.
    pub(super) made: bool,
    pub(super) usage: Option<OwnedFd>,
    pub(super) hot: Option<Hot>,
    pub(super) limit: Option<Limit>,
    pub(super) own_limit: bool,
    pub(super) limit_ns: Option<u64>,
    pub(super) last: Last,
    pub(super) ring: Ring,
    /// Looks at what cannot be taken back: ns since boot, bytes.
    firms: VecDeque<(u64, u64)>,
    /// Growth of the usage between the last two looks, bytes a second.
    rate: f64,
    /// The same over a second at least: what grows in steps stands still in between.
    steady: f64,
    /// Where that began: ns since boot, bytes.
    steady_from: (u64, u64),
    pub(super) near: Near,
    pub(super) bounds: Bounds,
    /// Who it was shown as when it came near.
    pub(super) shown: Option<Box<Workload>>,
    pub(super) due_ns: u64,
    pub(super) gone_ns: Option<u64>,
}

/// A forecast.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Trend {
    /// Bytes a second.
    pub(super) slope: f64,
    /// Until the limit is met; `None` if it shrinks or has none.
    pub(super) seconds_left: Option<f64>,
}

impl Followed {
    pub(super) fn new(
        id: u64,
        path: Arc<str>,
        named: bool,
        now_ns: u64,
        made: bool,
        bounds: Bounds,
    ) -> Self {
        Self {
            id,
            path,
            named,
            since_ns: now_ns,
            made,
            usage: None,
            hot: None,
            limit: None,
            own_limit: false,
            limit_ns: None,
            last: Last::default(),
            ring: Ring::default(),
            firms: VecDeque::new(),
            rate: 0.0,
            steady: 0.0,
            steady_from: (0, 0),
            near: Near::default(),
            bounds,
            shown: None,
            due_ns: now_ns,
            gone_ns: None,
        }
    }

    /// Whether there is reason to look at its memory.
    pub(super) const fn counts(&self) -> bool {
        self.named || self.own_limit
    }

    pub(super) fn limit_is_old(&self, now_ns: u64) -> bool {
        let fresh = self.made && now_ns.saturating_sub(self.since_ns) < FRESH;
        let every = if fresh { FRESH_LIMIT } else { LIMIT };
        self.limit_ns.is_none_or(|at| !self.counts() || is_due(now_ns.saturating_sub(at), every))
    }

    /// Takes in the usage.
    pub(super) fn used(&mut self, now_ns: u64, usage: u64) {
        let before = self.last;
        let seconds = super::seconds(now_ns.saturating_sub(before.at_ns));
        self.rate = match before.at_ns {
            0 => 0.0,
            // What is charged at once says nothing about a moment.
            _ if seconds >= 0.05 => (as_f64(usage) - as_f64(before.usage)) / seconds,
            _ => self.rate,
        };
        let (from_ns, from) = self.steady_from;
        let span = super::seconds(now_ns.saturating_sub(from_ns));
        if span >= STEADY {
            let grown = as_f64(usage) - as_f64(from);
            self.steady = if from_ns == 0 { 0.0 } else { grown / span };
            self.steady_from = (now_ns, usage);
        }
        (self.last.at_ns, self.last.usage) = (now_ns, usage);
        self.ring.usage(now_ns, usage);
    }

    /// Takes in what cannot be taken back.
    pub(super) fn firm(&mut self, now_ns: u64, firm: u64) {
        self.last.firm = Some(firm);
        (self.last.firm_usage, self.last.firm_ns) = (self.last.usage, now_ns);
        if self.firms.len() >= TREND {
            self.firms.pop_front();
        }
        self.firms.push_back((now_ns, firm));
    }

    /// What cannot be taken back, as it was last read, and all growth since.
    fn estimate(&self) -> u64 {
        let grown = self.last.usage.saturating_sub(self.last.firm_usage);
        let firm = self.last.firm.unwrap_or(self.last.usage);
        firm.saturating_add(grown).min(self.last.usage.max(firm))
    }

    fn share_of(&self, bytes: u64) -> Option<f64> {
        self.limit.as_ref().map(|limit| as_f64(bytes) / as_f64(limit.bytes).max(1.0))
    }

    /// Whether it would meet its limit soon if it went on as between the last two looks, or for the last second.
    fn is_fast(&self) -> bool {
        let rate = self.rate.max(self.steady);
        let Some(limit) = self.limit.as_ref().filter(|_| rate > 0.0) else { return false };
        let room = as_f64(limit.bytes) - as_f64(self.estimate());
        room / rate < self.bounds.horizon * 2.0
    }

    fn is_full(&self) -> bool {
        self.share_of(self.last.usage).is_some_and(|share| share >= BRIM)
    }

    /// Whether the kinds are to be read at this look.
    pub(super) fn wants_kinds(&self, now_ns: u64) -> bool {
        let Some(firm) = self.last.firm else { return true };
        let age = now_ns.saturating_sub(self.last.firm_ns);
        let moved = self.last.usage.abs_diff(self.last.firm_usage) >= STIR;
        let quiet = if moved { MOVED } else { STILL };
        let Some(share) = self.share_of(self.estimate()) else {
            return is_due(age, quiet);
        };
        if self.near.is_near() || self.is_fast() || share >= self.bounds.enter - MARGIN {
            return true;
        }
        if self.is_full() {
            let [close, far] = FULL;
            let half = self.share_of(firm).is_some_and(|share| share >= 0.5);
            return is_due(age, if half { close } else { far });
        }
        is_due(age, quiet)
    }

    /// Whether the files of the kinds are worth keeping open.
    pub(super) fn is_hot(&self) -> bool {
        self.near.is_near()
            || self.is_fast()
            || self.share_of(self.last.usage).is_some_and(|share| share >= 0.5)
    }

    /// The straight line through what cannot be taken back, if there is one.
    pub(super) fn trend(&self) -> Option<Trend> {
        let (now_ns, firm) = *self.firms.back()?;
        let at = |(ns, bytes): &(u64, u64)| {
            (-super::seconds(now_ns.saturating_sub(*ns)), as_f64(*bytes))
        };
        let line = fit::line(self.firms.iter().map(at))?;
        let good = line.points >= MIN_POINTS && line.span >= MIN_SPAN && line.fit >= MIN_FIT;
        good.then(|| {
            let room = self.limit.as_ref().map(|limit| as_f64(limit.bytes) - as_f64(firm));
            let left = room.filter(|_| line.slope > 0.0).map(|room| (room / line.slope).max(0.0));
            Trend { slope: line.slope, seconds_left: left }
        })
    }

    /// Where it stands, if it has a limit and was looked at.
    pub(super) fn place(&self) -> Option<Place> {
        let share = self.share_of(self.last.firm?)?;
        Some(Place { share, seconds_left: self.trend().and_then(|trend| trend.seconds_left) })
    }

    /// When it is to be looked at next, ns since boot.
    pub(super) fn next_ns(&self, now_ns: u64, interval_ns: u64) -> u64 {
        let age = now_ns.saturating_sub(self.since_ns);
        if !self.counts() {
            let soon = SOON.iter().find(|after| self.made && **after > age);
            return soon
                .map_or(now_ns.saturating_add(IDLE), |after| self.since_ns.saturating_add(*after));
        }
        let fresh = self.made && age < FRESH;
        let close = self.near.is_near()
            || self.share_of(self.estimate()).is_some_and(|s| s >= self.bounds.enter - MARGIN);
        // From when it was due, or the rhythm would slow down by what each look is late.
        (now_ns - now_ns % TICK).saturating_add(match &self.limit {
            _ if fresh || self.is_fast() => FAST.min(interval_ns),
            Some(_) if close => CLOSE.min(interval_ns),
            Some(_) if self.is_full() => interval_ns,
            Some(limit) => {
                let rooms = limit.bytes.saturating_sub(self.estimate()) / ROOM;
                interval_ns.max(interval_ns.saturating_mul(rooms).min(ALONE))
            }
            None => interval_ns.saturating_mul(UNLIMITED),
        })
    }
}

/// Whether what is done `every` so often is due by its age, ns: looks come a little before or after their time.
pub(super) const fn is_due(age: u64, every: u64) -> bool {
    age.saturating_add(TICK / 2) >= every
}

/// When a look that is due at `at_ns` takes place, so that many are gathered. What is a whole number of seconds away is moved to the nearest second: so all that are
/// looked at each second come to be looked at together. What else there is waits a little.
pub(super) fn on_the_tick(now_ns: u64, at_ns: u64) -> u64 {
    let away = at_ns.saturating_sub(now_ns).saturating_add(TICK / 2);
    let at_ns = at_ns.max(now_ns.saturating_add(1));
    if away < SECOND {
        at_ns.next_multiple_of(TICK)
    } else if away % SECOND < TICK {
        at_ns.saturating_sub(SECOND / 2).next_multiple_of(SECOND)
    } else {
        at_ns.next_multiple_of(QUIET_TICK)
    }
}

#[expect(clippy::cast_precision_loss, reason = "bytes: beyond 8 PiB the last digits do not matter")]
pub(super) fn as_f64(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const BOUNDS: Bounds = Bounds { enter: 0.85, horizon: 30.0 };

    fn limited(mib: u64) -> Followed {
        let mut followed = Followed::new(1, "/a".into(), true, 0, false, BOUNDS);
        followed.limit = Some(Limit { bytes: mib * MIB, cgroup: "/a".into() });
        followed.limit_ns = Some(0);
        followed
    }

    /// Looks at a cgroup as the watch does. `usage` and `firm` in MiB at a time in ns.
    fn run(followed: &mut Followed, until_s: u64, at: impl Fn(u64) -> (u64, u64)) -> Vec<u64> {
        let (mut looks, mut now) = (Vec::new(), SECOND);
        while now < until_s * SECOND {
            let (usage, firm) = at(now);
            followed.used(now, usage);
            if followed.wants_kinds(now) {
                followed.firm(now, firm);
                if let Some(place) = followed.place()
                    && followed.near.step(place, BOUNDS, now).is_some()
                {
                    looks.push(now);
                }
            }
            // As late as a machine with other things to do is.
            now = on_the_tick(now, followed.next_ns(now, SECOND)) + now % 7 * MS / 2;
        }
        looks
    }

    #[test]
    fn leaks_are_warned_of_ten_seconds_before_where_physics_allows() {
        for rate in [1, 2, 5, 10, 15] {
            // Quiet for a minute, then a leak.
            let at = |now: u64| {
                let leaked = now.saturating_sub(60 * SECOND) / MS * rate * MIB / 1000;
                (8 * MIB + leaked, 8 * MIB + leaked)
            };
            let full = 60.0 + 248.0 / as_f64(rate);
            let mut followed = limited(256);
            let came = run(&mut followed, 60 + 248 / rate, at);
            let first = super::super::seconds(*came.first().unwrap());
            assert!(full - first >= 10.0, "{rate} MiB/s: {:.1} s before", full - first);
            assert!(full - first <= 60.0, "{rate} MiB/s: {:.1} s before", full - first);
        }
    }

    #[test]
    fn a_leak_under_a_large_limit_is_seen_in_time() {
        for (mib, rate) in [(1_024, 25), (4_096, 50), (16_384, 50)] {
            let at = |now: u64| {
                let leaked = now.saturating_sub(60 * SECOND) / MS * rate * MIB / 1000;
                (8 * MIB + leaked, 8 * MIB + leaked)
            };
            let full = 60.0 + as_f64(mib - 8) / as_f64(rate);
            let mut followed = limited(mib);
            let came = run(&mut followed, 60 + (mib - 8) / rate, at);
            let first = super::super::seconds(*came.first().unwrap());
            assert!((10.0..=60.0).contains(&(full - first)), "{mib} MiB, {rate} MiB/s: {first}");
        }
    }

    #[test]
    fn page_cache_that_churns_at_the_limit_is_no_danger() {
        let mut followed = limited(256);
        let at = |now: u64| {
            let wave = now / SECOND % 7 * MIB;
            (256 * MIB - wave, 153 * MIB + wave / 8)
        };
        assert_eq!(run(&mut followed, 600, at), [0; 0]);
    }

    #[test]
    fn a_leak_below_full_page_cache_is_seen() {
        let mut followed = limited(256);
        let at = |now: u64| (256 * MIB, 50 * MIB + now / MS * 2 * MIB / 1000);
        let first = *run(&mut followed, 103, at).first().unwrap();
        assert!(super::super::seconds(first) < 93.0, "{first}");
    }

    #[test]
    fn growth_in_steps_is_not_left_alone_between_them() {
        let mut followed = limited(48);
        let (mut now, mut widest) = (SECOND, 0);
        while now < 14 * SECOND {
            // 3 MiB a second, one at a time.
            let usage = now / (333 * MS) * MIB;
            followed.used(now, usage);
            if followed.wants_kinds(now) {
                followed.firm(now, usage);
            }
            let next = on_the_tick(now, followed.next_ns(now, SECOND)) + 3 * MS;
            widest = if now > 4 * SECOND { widest.max(next - now) } else { 0 };
            now = next;
        }
        assert!(widest <= 300 * MS, "{widest}");
    }

    #[test]
    fn a_leak_below_a_lot_of_page_cache_is_seen() {
        let mut followed = limited(4_096);
        let at = |now: u64| (4_096 * MIB, 50 * MIB + now / MS * 100 * MIB / 1000);
        let first = super::super::seconds(*run(&mut followed, 40, at).first().unwrap());
        assert!(40.5 - first >= 10.0, "{first}");
    }

    #[test]
    fn the_quiet_are_looked_at_less_often() {
        let mut followed = limited(256);
        followed.used(SECOND, 10 * MIB);
        followed.firm(SECOND, 10 * MIB);
        assert_eq!(followed.next_ns(2 * SECOND, SECOND), 3 * SECOND);
        assert!(!followed.wants_kinds(3 * SECOND));
        assert!(followed.wants_kinds(61 * SECOND));
        followed.limit = limited(1034).limit;
        assert_eq!(followed.next_ns(2 * SECOND, SECOND), 6 * SECOND, "1 GiB of room");
        followed.limit = limited(1 << 20).limit;
        assert_eq!(followed.next_ns(2 * SECOND, SECOND), 7 * SECOND);
        followed.limit = None;
        assert_eq!(followed.next_ns(2 * SECOND, SECOND), 7 * SECOND);
        followed.named = false;
        assert_eq!(followed.next_ns(2 * SECOND, SECOND), 32 * SECOND);
        followed.made = true;
        assert_eq!(followed.next_ns(300 * MS, SECOND), 500 * MS, "a runtime sets limits late");
    }

    #[test]
    fn looks_are_gathered() {
        for (now, at, due) in [
            // Every second, looked at a little after it was due.
            (1_003, 2_000, 2_000),
            (1_003, 6_000, 6_000),
            (1_003, 1_200, 1_200),
            // Whoever is not with the others comes to be.
            (1_303, 2_300, 2_000),
            (1_503, 2_500, 2_000),
            (1_603, 2_600, 3_000),
            (1_903, 2_900, 3_000),
            // Of another rhythm.
            (1_003, 2_200, 2_500),
            (1_003, 2_500, 2_500),
            (287, 5_287, 5_000),
            // What is left of a deadline that was looked at too early.
            (5_003, 5_287, 5_300),
            (1_003, 1_050, 1_100),
            (1_000, 1_000, 1_100),
        ] {
            assert_eq!(on_the_tick(now * MS, at * MS), due * MS, "{now} {at}");
        }
    }
}
