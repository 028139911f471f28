//! The last minutes of a cgroup as something that can be drawn: points, the limit, and the scale of both axes. Pure. Who draws it is elsewhere.

use crate::death::History;

use super::words::{about, bytes};

/// Points that are drawn at most: more than any page is wide. The latest are kept.
const POINTS: usize = 4096;
/// Nor what is older than this many seconds, a month: it is no history of minutes. What is no number is left out too.
const OLDEST: f64 = 2_592_000.0;
/// A limit that is so many times what was used is not drawn: it would press the usage to the ground.
const FAR: u64 = 16;
/// Steps between marks of the axis of time, in seconds.
const STEPS: [u32; 18] = [
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14_400, 28_800, 86_400, 604_800,
];

/// Usage at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Point {
    /// Seconds before the death; finite, 0 or more.
    pub(crate) ago: f64,
    /// Bytes.
    pub(crate) bytes: u64,
}

/// The last minutes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plot {
    /// Oldest first, at least two.
    pub(crate) points: Vec<Point>,
    /// The limit, if it is near enough to be drawn.
    pub(crate) limit: Option<u64>,
    /// The limit, if it is too far away for that.
    pub(crate) far_limit: Option<u64>,
    /// The upper end of the axis of sizes; more than 0.
    pub(crate) top: u64,
    /// From the first point to the death, in seconds; more than 0.
    pub(crate) span: f64,
}

/// A mark of the axis of time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tick {
    /// Seconds before the death.
    pub(crate) ago: f64,
    /// What stands there.
    pub(crate) label: String,
}

impl Plot {
    /// Of a history; `None` if that is no line.
    pub(crate) fn of(history: &History) -> Option<Self> {
        let sound = history.usage.iter().filter(|at| at.ago_seconds < OLDEST);
        let mut points: Vec<Point> =
            sound.map(|at| Point { ago: at.ago_seconds.max(0.0), bytes: at.bytes }).collect();
        points.sort_by(|one, other| other.ago.total_cmp(&one.ago));
        points.drain(..points.len().saturating_sub(POINTS));
        let span = points.first()?.ago;
        let last = points.last()?.ago;
        // Less than a tenth of a second is no line, and a division by it no number.
        if points.len() < 2 || span - last < 0.1 {
            return None;
        }
        let most = points.iter().map(|point| point.bytes).max().unwrap_or(0);
        let limit = history.limit_bytes.filter(|limit| *limit > 0);
        let (near, far): (Option<u64>, Option<u64>) = match limit {
            Some(limit) if limit / FAR > most => (None, Some(limit)),
            limit => (limit, None),
        };
        let top = round_up(most.max(near.unwrap_or(0)).max(1));
        Some(Self { points, limit: near, far_limit: far, top, span })
    }

    /// The most in each of `columns` stretches of time, oldest first; between looks what a straight line has.
    pub(crate) fn columns(&self, columns: usize) -> Vec<Option<u64>> {
        let mut most: Vec<Option<u64>> = vec![None; columns];
        for point in &self.points {
            if let Some(column) = most.get_mut(self.column(point.ago, columns)) {
                *column = (*column).max(Some(point.bytes));
            }
        }
        let known: Vec<usize> = (0..columns).filter(|n| most.get(*n) != Some(&None)).collect();
        for pair in known.windows(2) {
            let &[from, to] = pair else { continue };
            let (Some(Some(first)), Some(Some(last))) =
                (most.get(from).copied(), most.get(to).copied())
            else {
                continue;
            };
            for n in from + 1..to {
                let between = between(first, last, n - from, to - from);
                if let Some(column) = most.get_mut(n) {
                    *column = Some(between);
                }
            }
        }
        most
    }

    /// In which of `columns` stretches a moment lies.
    pub(crate) fn column(&self, ago: f64, columns: usize) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a float cast saturates, and what is beyond the last column is in it"
        )]
        let column = ((1.0 - ago / self.span) * columns as f64) as usize;
        column.min(columns.saturating_sub(1))
    }

    /// Marks of the axis of time, oldest first, the last at the death; at most `most`.
    pub(crate) fn ticks(&self, most: usize) -> Vec<Tick> {
        #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
        let most = most.clamp(2, 64) as f64;
        let step = STEPS.into_iter().map(f64::from).find(|step| self.span / step <= most - 1.0);
        let step = step.unwrap_or(self.span);
        let count = (self.span / step).floor().min(most);
        let mut ticks = Vec::new();
        let mut n = count;
        while n >= 1.0 {
            ticks.push(Tick { ago: n * step, label: label(n * step, step) });
            n -= 1.0;
        }
        ticks.push(Tick { ago: 0.0, label: "death".to_owned() });
        ticks
    }

    /// What it shows, in words.
    pub(crate) fn summary(&self) -> String {
        let (Some(first), Some(last)) = (self.points.first(), self.points.last()) else {
            return String::new();
        };
        let most = self.points.iter().map(|point| point.bytes).max().unwrap_or(0);
        let at = if last.ago < 1.0 {
            "at it".to_owned()
        } else {
            format!("{} before it", about(last.ago))
        };
        let peak = if most > first.bytes.max(last.bytes) {
            format!(", {} at most", bytes(most))
        } else {
            String::new()
        };
        let limit = match (self.limit, self.far_limit) {
            (Some(limit), _) => format!("; the limit is {}", bytes(limit)),
            (None, Some(limit)) => format!("; the limit, {}, is far above", bytes(limit)),
            (None, None) => "; there is no limit".to_owned(),
        };
        format!(
            "{} were used {} before the death, {} {at}{peak}{limit}.",
            bytes(first.bytes),
            about(first.ago),
            bytes(last.bytes)
        )
    }
}

/// The next amount that reads well: one, five fourths, one and a half, or seven fourths of a power of two.
fn round_up(amount: u64) -> u64 {
    let power = 1u64 << amount.max(1).ilog2();
    [4, 5, 6, 7, 8]
        .into_iter()
        .map(|fourths| u64::try_from(u128::from(power) * fourths / 4).unwrap_or(u64::MAX))
        .find(|candidate| *candidate >= amount)
        .unwrap_or(u64::MAX)
}

fn between(first: u64, last: u64, n: usize, of: usize) -> u64 {
    let (n, of) = (n as u128, (of as u128).max(1));
    let sum = u128::from(first) * (of - n.min(of)) + u128::from(last) * n;
    u64::try_from(sum / of).unwrap_or(u64::MAX)
}

fn label(ago: f64, step: f64) -> String {
    let (unit, size) = match step {
        step if step < 60.0 => ("s", 1.0),
        step if step < 3600.0 => ("min", 60.0),
        _ => ("h", 3600.0),
    };
    format!("-{:.0} {unit}", ago / size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::death::{UsageAt, sample};

    fn plot(usage: &[(f64, u64)], limit: Option<u64>) -> Option<Plot> {
        let usage = usage
            .iter()
            .map(|(ago_seconds, bytes)| UsageAt { ago_seconds: *ago_seconds, bytes: *bytes });
        Plot::of(&History { usage: usage.collect(), limit_bytes: limit, ..History::default() })
    }

    #[test]
    fn what_is_no_line_is_not_drawn() {
        assert_eq!(plot(&[], None), None);
        assert_eq!(plot(&[(1.0, 1)], None), None);
        assert_eq!(plot(&[(1.0, 1), (1.0, 2)], None), None);
        assert_eq!(plot(&[(f64::NAN, 1), (f64::INFINITY, 2)], None), None);
        assert!(plot(&[(0.0, 1), (1.0, 2)], None).is_some(), "in any order");
    }

    #[test]
    fn the_top_is_above_all_and_a_far_limit_is_not_drawn() {
        let near = plot(&[(2.0, 100), (0.0, 200)], Some(300)).unwrap();
        assert_eq!((near.limit, near.far_limit, near.top), (Some(300), None, 320));
        let far = plot(&[(2.0, 100), (0.0, 200)], Some(1 << 40)).unwrap();
        assert_eq!((far.limit, far.far_limit, far.top), (None, Some(1 << 40), 224));
        assert_eq!(plot(&[(2.0, 0), (0.0, 0)], None).unwrap().top, 1);
        assert_eq!(plot(&[(2.0, u64::MAX), (0.0, 0)], None).unwrap().top, u64::MAX);
    }

    #[test]
    fn a_peak_is_never_lost_and_gaps_are_straight() {
        let plot = plot(&[(10.0, 0), (9.9, 70), (9.8, 1), (0.0, 100)], None).unwrap();
        assert_eq!(plot.columns(5), [Some(70), Some(77), Some(85), Some(92), Some(100)]);
        assert_eq!(plot.columns(0), []);
    }

    #[test]
    fn in_words() {
        let story = sample::memory::leak().memory.history.unwrap();
        assert_eq!(
            Plot::of(&story).unwrap().summary(),
            "36.0 MiB were used 5 min 0 s before the death, 256.0 MiB at it; the limit is 256.0 MiB."
        );
        let labels: Vec<_> =
            Plot::of(&story).unwrap().ticks(6).into_iter().map(|tick| tick.label).collect();
        assert_eq!(labels, ["-5 min", "-4 min", "-3 min", "-2 min", "-1 min", "death"]);
    }
}
