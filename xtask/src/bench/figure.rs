//! What is measured, in one form for tables, JSON and the report: a figure with its spread, and what was promised of it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::plot::Plot;

/// One part of the bench.
#[derive(Debug, Serialize)]
pub(super) struct Part {
    /// What `--only` calls it.
    pub(super) key: &'static str,
    /// A heading.
    pub(super) title: &'static str,
    /// How it was measured, for who wants to judge it.
    pub(super) how: String,
    /// What was measured.
    pub(super) figures: Vec<Figure>,
    /// What was left out and why, and what bounds a target that was missed.
    pub(super) notes: Vec<String>,
    /// The same for the eye.
    pub(super) plots: Vec<Plot>,
}

impl Part {
    /// An empty one.
    pub(super) fn new(key: &'static str, title: &'static str, how: impl Into<String>) -> Self {
        let (figures, notes, plots) = (Vec::new(), Vec::new(), Vec::new());
        Self { key, title, how: how.into(), figures, notes, plots }
    }

    /// Takes a figure, if there is one.
    pub(super) fn push(&mut self, figure: impl Into<Option<Figure>>) {
        self.figures.extend(figure.into());
    }

    /// Says something beside the figures.
    pub(super) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// A figure of this part by its name.
    pub(super) fn get(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.name == name).map(|figure| figure.spread.middle())
    }
}

/// One number, as far as one number can say it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Figure {
    /// What it is.
    pub(super) name: String,
    /// How it spreads.
    pub(super) spread: Spread,
    /// What it counts.
    pub(super) unit: Cow<'static, str>,
    /// What was promised, if anything was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) target: Option<Target>,
    /// Whether it was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) met: Option<bool>,
}

impl Figure {
    /// Of several runs; none of no runs.
    pub(super) fn runs(
        name: impl Into<String>,
        unit: &'static str,
        values: Vec<f64>,
    ) -> Option<Self> {
        Some(Self::new(name, unit, Spread::runs(values)?))
    }

    /// Of many events; none of no events.
    pub(super) fn events(
        name: impl Into<String>,
        unit: &'static str,
        values: Vec<f64>,
    ) -> Option<Self> {
        Some(Self::new(name, unit, Spread::events(values)?))
    }

    /// That spreads so; none of nothing.
    pub(super) fn spread(
        name: impl Into<String>,
        unit: &'static str,
        spread: Option<Spread>,
    ) -> Option<Self> {
        spread.map(|spread| Self::new(name, unit, spread))
    }

    /// What has no spread: a count, or arithmetic.
    pub(super) fn exact(name: impl Into<String>, unit: &'static str, value: f64) -> Self {
        Self::new(name, unit, Spread::Exact { value })
    }

    fn new(name: impl Into<String>, unit: &'static str, spread: Spread) -> Self {
        Self { name: name.into(), spread, unit: unit.into(), target: None, met: None }
    }

    /// With what was promised of it.
    pub(super) fn promised(mut self, target: impl Into<Option<Target>>) -> Self {
        self.target = target.into();
        self.met = self.target.map(|target| target.is_met(&self.spread));
        self
    }
}

/// How a figure spreads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub(super) enum Spread {
    /// The median of runs, and the outermost.
    Runs { median: f64, min: f64, max: f64, n: usize },
    /// Many events of one run.
    Events { p50: f64, p99: f64, max: f64, n: usize },
    /// One number.
    Exact { value: f64 },
}

impl Spread {
    fn runs(mut values: Vec<f64>) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let mut median = *values.get(middle)?;
        if values.len().is_multiple_of(2) {
            median = f64::midpoint(median, *values.get(middle - 1)?);
        }
        Some(Self::Runs { median, min, max, n: values.len() })
    }

    fn events(mut values: Vec<f64>) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        let at = |percent: usize| {
            values.get((values.len() * percent).div_ceil(100).saturating_sub(1)).copied()
        };
        Some(Self::Events { p50: at(50)?, p99: at(99)?, max: at(100)?, n: values.len() })
    }

    /// The number to go on with.
    pub(super) fn middle(&self) -> f64 {
        match *self {
            Self::Runs { median, .. } => median,
            Self::Events { p50, .. } => p50,
            Self::Exact { value } => value,
        }
    }

    /// In words.
    pub(super) fn words(&self) -> String {
        match *self {
            Self::Runs { median, n: 1, .. } => format!("{} (one run)", short(median)),
            Self::Runs { median, min, max, n } => {
                format!("{} ({}–{}, {n} runs)", short(median), short(min), short(max))
            }
            Self::Events { p50, p99, max, n } => {
                format!("p50 {}, p99 {}, max {} ({n} events)", short(p50), short(p99), short(max))
            }
            Self::Exact { value } => short(value),
        }
    }
}

/// What was promised.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Target {
    /// Of the median, or of all there is.
    AtMost(f64),
    /// The same.
    AtLeast(f64),
    /// Of the 99th percentile.
    P99AtMost(f64),
}

impl Target {
    fn is_met(self, spread: &Spread) -> bool {
        match (self, spread) {
            (Self::AtLeast(bound), spread) => spread.middle() >= bound,
            (Self::P99AtMost(bound), Spread::Events { p99, .. }) => *p99 <= bound,
            (Self::AtMost(bound) | Self::P99AtMost(bound), spread) => spread.middle() <= bound,
        }
    }

    /// In words.
    pub(super) fn words(self) -> String {
        match self {
            Self::AtMost(bound) => format!("≤ {}", short(bound)),
            Self::AtLeast(bound) => format!("≥ {}", short(bound)),
            Self::P99AtMost(bound) => format!("p99 ≤ {}", short(bound)),
        }
    }
}

/// A number with three digits that count; whole from a hundred on.
pub(super) fn short(value: f64) -> String {
    let size = value.abs();
    let digits = match size {
        _ if size >= 100.0 || size == 0.0 => 0,
        _ if size >= 10.0 => 1,
        _ if size >= 1.0 => 2,
        _ if size >= 0.1 => 3,
        _ => 4,
    };
    let text = format!("{value:.digits$}");
    if size < 1_000.0 { text } else { thousands(&text) }
}

fn thousands(digits: &str) -> String {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    let mut grouped = String::from(sign);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// The exponent b of y = a · x^b through these points, by least squares of the logarithms; none of fewer than three points above zero.
pub(super) fn exponent(points: &[(f64, f64)]) -> Option<f64> {
    let logs: Vec<(f64, f64)> = points
        .iter()
        .filter(|(x, y)| *x > 0.0 && *y > 0.0)
        .map(|(x, y)| (x.ln(), y.ln()))
        .collect();
    if logs.len() < 3 {
        return None;
    }
    let n = logs.len() as f64;
    let (sx, sy): (f64, f64) = (logs.iter().map(|p| p.0).sum(), logs.iter().map(|p| p.1).sum());
    let (mx, my) = (sx / n, sy / n);
    let across: f64 = logs.iter().map(|(x, y)| (x - mx) * (y - my)).sum();
    let along: f64 = logs.iter().map(|(x, _)| (x - mx).powi(2)).sum();
    (along > 0.0).then_some(across / along)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_are_of_the_sorted_values() {
        assert_eq!(
            Spread::runs(vec![3.0, 1.0, 2.0]),
            Some(Spread::Runs { median: 2.0, min: 1.0, max: 3.0, n: 3 })
        );
        assert_eq!(Spread::runs(vec![3.0, 1.0]).unwrap().middle(), 2.0);
        let events = Spread::events((1..=200).rev().map(f64::from).collect());
        assert_eq!(events, Some(Spread::Events { p50: 100.0, p99: 198.0, max: 200.0, n: 200 }));
        assert_eq!((Spread::runs(Vec::new()), Spread::events(Vec::new())), (None, None));
    }

    #[test]
    fn a_promise_is_held_to_what_it_is_of() {
        let events = || Figure::events("x", "ms", vec![1.0, 2.0, 30.0]).unwrap();
        assert_eq!(events().met, None);
        assert_eq!(events().promised(Target::AtMost(2.0)).met, Some(true));
        assert_eq!(events().promised(Target::P99AtMost(2.0)).met, Some(false));
        assert_eq!(events().promised(Target::AtLeast(3.0)).met, Some(false));
    }

    #[test]
    fn numbers_are_short_and_grouped() {
        for (value, text) in [
            (0.0, "0"),
            (0.012_34, "0.0123"),
            (1.256, "1.26"),
            (99.96, "100.0"),
            (1_234.5, "1,234"),
            (-1_234_567.0, "-1,234,567"),
        ] {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn exponents_are_those_of_powers() {
        let square: Vec<_> = [1.0, 10.0, 100.0].map(|x: f64| (x, 3.0 * x * x)).into();
        assert!((exponent(&square).unwrap() - 2.0).abs() < 1e-9);
        assert_eq!(exponent(&[(1.0, 1.0), (2.0, 2.0), (0.0, 4.0)]), None);
    }
}
