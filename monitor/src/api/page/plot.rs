//! The last minutes as a picture in the page: SVG that the server draws, whose colours are the style sheet's. What it shows is there in words and as a table too.

use maud::{Markup, html};

use crate::cli::story::{Plot, about, bytes};

/// Size of the drawing, in its own units.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 220.0;
/// Room left of the plot, for sizes, and below it, for times.
const LEFT: f64 = 84.0;
const BELOW: f64 = 24.0;
/// Above the plot, so that a line at its top is seen.
const ABOVE: f64 = 8.0;
/// Marks of time.
const TICKS: usize = 7;
/// Rows of the table.
const ROWS: usize = 24;

/// The picture, and the table beside it.
pub(super) fn figure(plot: &Plot) -> Markup {
    let line: Vec<(f64, f64)> =
        plot.points.iter().map(|point| (x(plot, point.ago), y(plot, point.bytes))).collect();
    let (first, last) =
        (line.first().map_or(LEFT, |at| at.0), line.last().map_or(WIDTH, |at| at.0));
    let path = line.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect::<Vec<_>>().join(" ");
    let ground = y(plot, 0);
    let area = format!("{first:.1},{ground:.1} {path} {last:.1},{ground:.1}");
    let sizes = [0, plot.top / 2, plot.top];
    html! {
        figure .plot {
            svg role="img" aria-labelledby="plot-title plot-desc" viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } {
                title #plot-title { "Memory of the cgroup in the minutes before the death" }
                desc #plot-desc { (plot.summary()) }
                @for size in sizes {
                    line .grid x1=(LEFT) x2=(WIDTH) y1=(at(y(plot, size))) y2=(at(y(plot, size))) {}
                    text .scale text-anchor="end" x=(LEFT - 6.0) y=(at(y(plot, size) + 4.0)) { (bytes(size)) }
                }
                @for tick in plot.ticks(TICKS) {
                    line .grid x1=(at(x(plot, tick.ago))) x2=(at(x(plot, tick.ago))) y1=(at(ground)) y2=(at(ground + 5.0)) {}
                    text .scale text-anchor=(if tick.ago > 0.0 { "middle" } else { "end" }) x=(at(x(plot, tick.ago))) y=(HEIGHT - 4.0) { (tick.label) }
                }
                polygon .area points=(area) {}
                polyline .usage points=(path) {}
                @if let Some(limit) = plot.limit {
                    line .limit x1=(LEFT) x2=(WIDTH) y1=(at(y(plot, limit))) y2=(at(y(plot, limit))) {}
                }
            }
            figcaption {
                (plot.summary())
                @if plot.limit.is_some() { " The broken line is the limit." }
            }
            details {
                summary { "The same as a table" }
                table {
                    thead { tr { th scope="col" { "Before the death" } th scope="col" { "Used" } } }
                    tbody {
                        @for point in sampled(plot) {
                            tr { th scope="row" { (about(point.0)) } td { (bytes(point.1)) } }
                        }
                    }
                }
            }
        }
    }
}

/// A few of the points, the last among them.
fn sampled(plot: &Plot) -> impl Iterator<Item = (f64, u64)> {
    let points = &plot.points;
    let step = points.len().div_ceil(ROWS).max(1);
    let last = points.len() - points.len().min(1);
    let shown = points.iter().enumerate().filter(move |(n, _)| (last - n).is_multiple_of(step));
    shown.map(|(_, point)| (point.ago, point.bytes))
}

fn x(plot: &Plot, ago: f64) -> f64 {
    LEFT + (WIDTH - LEFT) * (1.0 - ago / plot.span).clamp(0.0, 1.0)
}

#[expect(clippy::cast_precision_loss, reason = "a tenth of a unit is drawn")]
fn y(plot: &Plot, amount: u64) -> f64 {
    let room = HEIGHT - BELOW - ABOVE;
    ABOVE + room * (1.0 - (amount as f64 / plot.top.max(1) as f64).clamp(0.0, 1.0))
}

/// A tenth of a unit is enough.
fn at(place: f64) -> String {
    format!("{place:.1}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::death::{History, UsageAt};

    proptest! {
        #[test]
        fn any_history_stays_within_the_picture(
            usage in prop::collection::vec((any::<f64>(), any::<u64>()), 0..60),
            limit in any::<Option<u64>>(),
        ) {
            let usage = usage.into_iter().map(|(ago_seconds, bytes)| UsageAt { ago_seconds, bytes });
            let history = History { usage: usage.collect(), limit_bytes: limit, ..History::default() };
            let Some(plot) = Plot::of(&history) else { return Ok(()) };
            let svg = figure(&plot).into_string();
            prop_assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            let rows = sampled(&plot).count();
            prop_assert!((1..=ROWS).contains(&rows), "{rows}");
            for point in &plot.points {
                prop_assert!((LEFT..=WIDTH).contains(&x(&plot, point.ago)));
                prop_assert!((0.0..=HEIGHT - BELOW).contains(&y(&plot, point.bytes)));
            }
        }
    }
}
