//! What the daemon says of its own delays: `killwatch_death_delay_seconds`, a histogram for each place on a death's way.

use anyhow::Result;

use crate::bench::figure::Spread;
use crate::daemon::Api;

const METRIC: &str = "killwatch_death_delay_seconds";

/// Where a death may be, as the label says it.
const READ: &str = "read";
const KEPT: &str = "kept";

/// The histogram of one place.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Delays {
    /// Upper bounds in seconds, and how many deaths were within each.
    buckets: Vec<(f64, u64)>,
    sum: f64,
    count: u64,
}

impl Delays {
    /// Of both places, read and kept. Empty of a daemon that does not have them.
    pub(super) fn of(api: &Api) -> Result<[Self; 2]> {
        let text = api.get("/metrics")?;
        Ok([READ, KEPT].map(|stage| Self::parse(&text, stage)))
    }

    fn parse(text: &str, stage: &str) -> Self {
        let mut delays = Self::default();
        let label = format!("stage=\"{stage}\"");
        let lines = text.lines().filter_map(|line| line.strip_prefix(METRIC));
        for line in lines.filter(|line| line.contains(&label)) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            if series.starts_with("_sum") {
                delays.sum = value.parse().unwrap_or(0.0);
            } else if series.starts_with("_count") {
                delays.count = value.parse().unwrap_or(0);
            } else if let Some((_, bound)) = series.split_once("le=\"") {
                let bound = bound.split('"').next().and_then(|bound| bound.parse().ok());
                // Rust reads "+Inf" as well.
                delays.buckets.extend(bound.zip(value.parse().ok()));
            }
        }
        delays
    }

    /// What came after `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        let of = |(bound, count): (f64, u64)| {
            let was = before.buckets.iter().find(|(other, _)| *other == bound);
            (bound, count.saturating_sub(was.map_or(0, |(_, was)| *was)))
        };
        Self {
            buckets: self.buckets.iter().copied().map(of).collect(),
            sum: self.sum - before.sum,
            count: self.count.saturating_sub(before.count),
        }
    }

    /// The delay in ms, if it is that of one death.
    pub(super) fn single(&self) -> Option<f64> {
        (self.count == 1).then_some(self.sum * 1e3)
    }

    /// The delays in ms, as exactly as the buckets tell: on a straight line within each, and at most the bound of the last. None if one was beyond all bounds.
    pub(super) fn spread(&self) -> Option<Spread> {
        let (max, _) = self.buckets.iter().find(|(_, within)| *within >= self.count)?;
        if max.is_infinite() {
            return None;
        }
        let n = usize::try_from(self.count).ok().filter(|n| *n > 0)?;
        let (p50, p99) = (self.quantile(0.5), self.quantile(0.99));
        Some(Spread::Events { p50, p99, max: max * 1e3, n })
    }

    fn quantile(&self, quantile: f64) -> f64 {
        let rank = quantile * self.count as f64;
        let (mut from, mut below) = (0.0, 0);
        for (bound, within) in &self.buckets {
            if *within as f64 >= rank {
                let part = (rank - below as f64) / (within - below).max(1) as f64;
                return (from + (bound - from) * part) * 1e3;
            }
            (from, below) = (*bound, *within);
        }
        from * 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# TYPE killwatch_death_delay_seconds histogram\n\
        killwatch_death_delay_seconds_sum{stage=\"read\"} 0.0035\n\
        killwatch_death_delay_seconds_count{stage=\"read\"} 4\n\
        killwatch_death_delay_seconds_bucket{le=\"0.001\",stage=\"read\"} 3\n\
        killwatch_death_delay_seconds_bucket{le=\"0.002\",stage=\"read\"} 4\n\
        killwatch_death_delay_seconds_bucket{le=\"+Inf\",stage=\"read\"} 4\n\
        killwatch_death_delay_seconds_count{stage=\"kept\"} 9\n";

    #[test]
    fn quantiles_are_within_their_bucket() {
        let read = Delays::parse(TEXT, READ);
        assert_eq!((read.count, read.buckets.len()), (4, 3));
        let Some(Spread::Events { p50, p99, max, n: 4 }) = read.spread() else { panic!() };
        assert!((p50 - 2.0 / 3.0).abs() < 1e-9 && (1.9..2.0).contains(&p99) && max == 2.0);
        assert_eq!(Delays::default().spread(), None);
        let beyond = Delays { count: 5, buckets: vec![(0.001, 3), (f64::INFINITY, 5)], sum: 30.0 };
        assert_eq!(beyond.spread(), None);
    }

    #[test]
    fn what_came_in_between_is_told_alone() {
        let before = Delays::parse(TEXT, READ);
        let mut after = before.clone();
        after.sum += 0.002;
        after.count += 1;
        after.buckets.iter_mut().skip(1).for_each(|(_, within)| *within += 1);
        let one = after.since(&before);
        assert!((one.single().unwrap() - 2.0).abs() < 1e-9);
        assert_eq!(one.buckets.iter().map(|(_, within)| *within).collect::<Vec<_>>(), [0, 1, 1]);
        assert_eq!(after.single(), None);
    }
}
