//! When to try again, and how fast to go.

use std::time::Duration;

use tokio::time::Instant;

/// Shortest wait after a failure.
const FIRST: Duration = Duration::from_millis(100);
/// Longest.
const SLOWEST: Duration = Duration::from_secs(60);
/// Longest that a receiver may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(600);

/// Waits between attempts: random up to a bound that doubles, so that the sinks of many nodes do not come back as one.
#[derive(Debug, Default)]
pub(super) struct Retry {
    failures: u32,
}

impl Retry {
    /// How long to wait after one more failure; `asked` is what the receiver wants at least.
    pub(super) fn failed(&mut self, asked: Option<Duration>) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let bound = FIRST.saturating_mul(2u32.saturating_pow(self.failures)).min(SLOWEST);
        let wait = FIRST + (bound - FIRST).mul_f64(fastrand::f64());
        wait.max(asked.unwrap_or_default().min(LONGEST_ASKED))
    }

    /// It works.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Holds a sink to a number of messages a second.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: usize,
    next: Instant,
}

impl Pace {
    pub(super) fn new(per_second: usize) -> Self {
        Self { per_second: per_second.max(1), next: Instant::now() }
    }

    /// Messages that may go at once.
    pub(super) fn burst(&self) -> usize {
        self.per_second
    }

    /// When the next may go.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// So many went, the first of them at `began`.
    pub(super) fn sent(&mut self, messages: usize, began: Instant) {
        let per_second = u32::try_from(self.per_second).unwrap_or(u32::MAX);
        let messages = u32::try_from(messages).unwrap_or(u32::MAX);
        let took = Duration::from_secs(1).saturating_mul(messages) / per_second;
        self.next = self.next.max(began) + took;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_minute_and_no_further() {
        let mut retry = Retry::default();
        for failures in 1..100 {
            let wait = retry.failed(None);
            let bound = FIRST * 2u32.pow(failures.min(20));
            assert!((FIRST..=bound.min(SLOWEST)).contains(&wait), "{failures}: {wait:?}");
        }
        retry.reset();
        assert!(retry.failed(None) <= 2 * FIRST);
    }

    #[test]
    fn what_a_receiver_asks_for_has_a_ceiling() {
        let mut retry = Retry::default();
        assert_eq!(retry.failed(Some(Duration::from_secs(90))), Duration::from_secs(90));
        assert_eq!(retry.failed(Some(Duration::from_secs(86_400))), LONGEST_ASKED);
    }

    #[tokio::test(start_paused = true)]
    async fn the_pace_is_kept_and_rest_gives_no_credit() {
        let mut pace = Pace::new(10);
        let start = Instant::now();
        pace.sent(5, start);
        assert_eq!(pace.next(), start + Duration::from_millis(500));
        let later = start + Duration::from_secs(60);
        pace.sent(1, later);
        assert_eq!(pace.next(), later + Duration::from_millis(100));
    }
}
