//! A straight line through points, by least squares. Pure.

/// A line, and how well it fits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Line {
    /// Growth, units of y for one of x.
    pub(super) slope: f64,
    /// The coefficient of determination: 1 is a straight line, 0 none.
    pub(super) fit: f64,
    /// Points that it goes through.
    pub(super) points: usize,
    /// From the first x to the last.
    pub(super) span: f64,
}

/// The line through points whose x does not fall; `None` with fewer than two places on the x axis.
pub(super) fn line(points: impl Iterator<Item = (f64, f64)> + Clone) -> Option<Line> {
    let count = points.clone().count();
    #[expect(clippy::cast_precision_loss, reason = "a few hundred points")]
    let n = count as f64;
    let (first, last) = (points.clone().next()?.0, points.clone().last()?.0);
    let sums = points.clone().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (mean_x, mean_y) = (sums.0 / n, sums.1 / n);
    let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
    for (x, y) in points {
        xx += (x - mean_x) * (x - mean_x);
        xy += (x - mean_x) * (y - mean_y);
        yy += (y - mean_y) * (y - mean_y);
    }
    if xx <= 0.0 || !xx.is_finite() {
        return None;
    }
    // What does not move at all is no trend.
    let fit = if yy > 0.0 { (xy * xy / (xx * yy)).min(1.0) } else { 0.0 };
    Some(Line { slope: xy / xx, fit, points: count, span: last - first })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(points: &[(f64, f64)]) -> Option<Line> {
        line(points.iter().copied())
    }

    #[test]
    fn a_straight_line_fits() {
        let points = [(0.0, 10.0), (1.0, 12.0), (3.0, 16.0)];
        assert_eq!(of(&points), Some(Line { slope: 2.0, fit: 1.0, points: 3, span: 3.0 }));
    }

    #[test]
    fn what_jumps_about_does_not() {
        let points = [(0.0, 0.0), (1.0, 100.0), (2.0, 0.0), (3.0, 100.0), (4.0, 0.0)];
        assert!(of(&points).unwrap().fit < 0.1);
        let flat = of(&[(0.0, 5.0), (1.0, 5.0)]).unwrap();
        assert_eq!((flat.slope, flat.fit), (0.0, 0.0));
    }

    #[test]
    fn too_few_points_are_no_line() {
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[(1.0, 1.0)]), None);
        assert_eq!(of(&[(1.0, 1.0), (1.0, 2.0)]), None);
    }

    proptest! {
        #[test]
        fn the_fit_is_a_share(points in proptest::collection::vec((0.0..1e6, 0.0..1e15), 0..50)) {
            if let Some(line) = of(&points) {
                prop_assert!((0.0..=1.0).contains(&line.fit), "{line:?}");
                prop_assert!(line.slope.is_finite());
            }
        }
    }
}
