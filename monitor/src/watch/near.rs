//! Whether a cgroup is near its limit. Pure: time and numbers come from outside.
//!
//! What counts is what the kernel cannot take back: page cache fills any cgroup to its limit and is no danger. It is near from `enter` on, or if a
//! straight line meets the limit within the horizon; and is so until it has been clearly away for a while, so that what hovers is told once.

use crate::alert::NearReason;

/// How far below `enter` it must be to be away.
const BAND: f64 = 0.05;
/// A trend is over when the limit is this many horizons away.
const AWAY: f64 = 2.0;
/// How long it must be away, ns.
const CALM_NS: u64 = 10_000_000_000;
/// The same cgroup is told again only after this long, ns.
const QUIET_NS: u64 = 300_000_000_000;

/// When a cgroup is near.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bounds {
    /// Share of the limit, 0 to 1.
    pub(super) enter: f64,
    /// Seconds to the limit.
    pub(super) horizon: f64,
}

/// Where a cgroup stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Place {
    /// What cannot be taken back, over the limit.
    pub(super) share: f64,
    /// Seconds to the limit, if a straight line fits well.
    pub(super) seconds_left: Option<f64>,
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It has come near. `tell`: nobody was told lately.
    Came { why: NearReason, tell: bool },
    /// It is away.
    Left,
}

/// The state of one cgroup.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Near {
    since_ns: Option<u64>,
    told_ns: Option<u64>,
    /// Since when it has been away, while it still counts as near.
    calm_ns: Option<u64>,
}

impl Near {
    /// Whether it is near.
    pub(super) const fn is_near(&self) -> bool {
        self.since_ns.is_some()
    }

    /// Since when it is near, ns since boot.
    pub(super) fn warned_ns(&self) -> Option<u64> {
        self.since_ns
    }

    /// Whether [`Self::step`] would say that it has come.
    pub(super) fn comes(&self, place: Place, bounds: Bounds) -> bool {
        !self.is_near() && reason(place, bounds).is_some()
    }

    /// Takes in where it stands.
    pub(super) fn step(&mut self, place: Place, bounds: Bounds, now_ns: u64) -> Option<Change> {
        let why = reason(place, bounds);
        match (self.since_ns, why) {
            (None, Some(why)) => {
                let tell = self.told_ns.is_none_or(|told| now_ns.saturating_sub(told) >= QUIET_NS);
                self.since_ns = Some(now_ns);
                self.calm_ns = None;
                if tell {
                    self.told_ns = Some(now_ns);
                }
                Some(Change::Came { why, tell })
            }
            (Some(_), None) if is_away(place, bounds) => {
                let since = *self.calm_ns.get_or_insert(now_ns);
                if now_ns.saturating_sub(since) < CALM_NS {
                    return None;
                }
                self.since_ns = None;
                Some(Change::Left)
            }
            _ => {
                self.calm_ns = None;
                None
            }
        }
    }

    /// Nobody was told after all, for another says more: the next time counts as the first.
    pub(super) fn not_told(&mut self) {
        self.told_ns = None;
    }

    /// There is no limit any more to be near to.
    pub(super) fn unlimited(&mut self) -> Option<Change> {
        self.calm_ns = None;
        self.since_ns.take().map(|_| Change::Left)
    }
}

fn reason(place: Place, bounds: Bounds) -> Option<NearReason> {
    if place.share >= bounds.enter {
        return Some(NearReason::Share);
    }
    place.seconds_left.filter(|left| *left <= bounds.horizon).map(|_| NearReason::Trend)
}

fn is_away(place: Place, bounds: Bounds) -> bool {
    place.share < bounds.enter - BAND
        && place.seconds_left.is_none_or(|left| left > bounds.horizon * AWAY)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const BOUNDS: Bounds = Bounds { enter: 0.85, horizon: 30.0 };

    fn at(share: f64) -> Place {
        Place { share, seconds_left: None }
    }

    fn after(near: &mut Near, seconds: u64, place: Place) -> Option<Change> {
        near.step(place, BOUNDS, seconds * SECOND)
    }

    #[test]
    fn a_share_is_told_once_until_it_was_away_for_a_while() {
        let mut near = Near::default();
        assert_eq!(after(&mut near, 0, at(0.849)), None);
        let came = Change::Came { why: NearReason::Share, tell: true };
        assert_eq!(after(&mut near, 1, at(0.85)), Some(came));
        assert_eq!(after(&mut near, 2, at(0.84)), None, "within the band");
        assert_eq!(after(&mut near, 60, at(0.84)), None);
        assert_eq!(after(&mut near, 61, at(0.7)), None, "not for long yet");
        assert_eq!(after(&mut near, 65, at(0.86)), None);
        assert_eq!(after(&mut near, 66, at(0.7)), None);
        assert_eq!(after(&mut near, 76, at(0.7)), Some(Change::Left));
        assert_eq!(near.warned_ns(), None);
        let again = Change::Came { why: NearReason::Share, tell: false };
        assert_eq!(after(&mut near, 100, at(0.9)), Some(again), "it was told lately");
        assert_eq!(near.warned_ns(), Some(100 * SECOND));
        assert_eq!(near.unlimited(), Some(Change::Left));
        let mut other = near;
        other.not_told();
        assert_eq!(after(&mut other, 120, at(0.9)), Some(came), "as the first time");
        assert_eq!(after(&mut near, 301, at(0.9)), Some(came));
    }

    #[test]
    fn a_trend_is_told_before_the_share_is() {
        let mut near = Near::default();
        let trend = |seconds| Place { share: 0.3, seconds_left: Some(seconds) };
        assert_eq!(after(&mut near, 0, trend(31.0)), None);
        assert!(near.comes(trend(30.0), BOUNDS));
        let came = Change::Came { why: NearReason::Trend, tell: true };
        assert_eq!(after(&mut near, 1, trend(30.0)), Some(came));
        assert_eq!(after(&mut near, 20, trend(50.0)), None, "not far enough");
        assert_eq!(after(&mut near, 40, trend(61.0)), None);
        assert_eq!(after(&mut near, 50, trend(61.0)), Some(Change::Left));
    }

    proptest! {
        /// Whatever comes: told at most once in [`QUIET_NS`], and what came leaves before it comes again.
        #[test]
        fn it_is_never_told_twice_in_a_while(steps in proptest::collection::vec((0u64..30, 0.0f64..1.2, proptest::option::of(0.0f64..100.0)), 0..300)) {
            let (mut near, mut now, mut told, mut inside) = (Near::default(), 0, None, false);
            for (step, share, seconds_left) in steps {
                now += step * SECOND;
                match near.step(Place { share, seconds_left }, BOUNDS, now) {
                    Some(Change::Came { tell, .. }) => {
                        prop_assert!(!inside);
                        inside = true;
                        if tell {
                            prop_assert!(told.is_none_or(|last| now - last >= QUIET_NS));
                            told = Some(now);
                        }
                    }
                    Some(Change::Left) => {
                        prop_assert!(inside);
                        inside = false;
                    }
                    None => {}
                }
                prop_assert_eq!(near.is_near(), inside);
            }
        }
    }
}
