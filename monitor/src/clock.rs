//! The clocks that records are made with. Elsewhere time is only measured (`Instant`), or asked for by a request.

use std::time::Duration;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Relates the kernel's time since boot to the wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock;

impl Clock {
    /// ns since boot, suspend included: the clock of the kernel side's records.
    #[must_use]
    pub fn boot_ns(self) -> u64 {
        let now = clock_gettime(ClockId::Boottime);
        let secs = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
        secs.saturating_mul(1_000_000_000).saturating_add(nanos)
    }

    /// Time since then, ns since boot; none if it is yet to come.
    #[must_use]
    pub fn since(self, ktime_ns: u64) -> Duration {
        Duration::from_nanos(self.boot_ns().saturating_sub(ktime_ns))
    }

    /// Time until the next multiple of `period` since boot, at least 1 ns. Who does something every now and then does it then: to wake a processor that
    /// sleeps costs more than most of what is done, and one wake-up serves all.
    #[must_use]
    pub fn until_next(self, period: Duration) -> Duration {
        let period = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX).max(1);
        Duration::from_nanos(period - self.boot_ns() % period)
    }

    /// ns since boot of a time in the kernel log, µs. The log's clock stands still during suspend and is not kept in step with the others: on
    /// a host that has been up for weeks it may be seconds off. Never later than now.
    #[must_use]
    pub fn boot_ns_of_log(self, time_us: u64) -> u64 {
        let ns = |clock| {
            let now = clock_gettime(clock);
            let secs = u64::try_from(now.tv_sec).unwrap_or(0);
            secs.saturating_mul(1_000_000_000)
                .saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
        };
        let (monotonic, boot) = (ns(ClockId::Monotonic), self.boot_ns());
        let suspended = boot.saturating_sub(monotonic);
        time_us.saturating_mul(1000).saturating_add(suspended).min(boot)
    }

    /// Wall clock now.
    #[must_use]
    pub fn now(self) -> Timestamp {
        Timestamp::now()
    }

    /// Wall clock at `ktime_ns` since boot, as the wall clock stands now: a step of the wall clock moves it, drift does not add up.
    #[must_use]
    pub fn wall(self, ktime_ns: u64) -> Timestamp {
        let (now, boot_ns) = (self.now(), self.boot_ns());
        let past = |ns| now.checked_sub(Duration::from_nanos(ns));
        let future = |ns| now.checked_add(Duration::from_nanos(ns));
        match boot_ns.checked_sub(ktime_ns) {
            Some(ago) => past(ago),
            None => future(ktime_ns - boot_ns),
        }
        .unwrap_or(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_present_is_now() {
        let clock = Clock;
        let apart = clock.wall(clock.boot_ns()).duration_since(clock.now());
        assert!(apart.abs().as_millis() < 1000, "{apart:?}");
        assert!(clock.wall(0) < clock.now());
    }

    #[test]
    fn the_next_one_is_within_the_period() {
        for period in [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(1)] {
            let wait = Clock.until_next(period);
            assert!(!wait.is_zero() && wait <= period.max(Duration::from_nanos(1)), "{wait:?}");
        }
    }
}
