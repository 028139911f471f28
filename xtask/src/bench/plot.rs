//! Plots as SVG, drawn by hand: a few lines or bars, axes that say what they are, and colours that work on light and on dark.

use std::fmt::Write as _;

use serde::Serialize;

use super::figure::short;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 60.0;
const COLOURS: [&str; 6] = ["#2a7de1", "#d9480f", "#2b8a3e", "#862e9c", "#c2255c", "#5c7080"];

/// A picture of figures.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Plot {
    /// Name of its file, without the ending.
    pub(super) slug: &'static str,
    /// What it shows.
    pub(super) title: String,
    /// The axes.
    pub(super) x: &'static str,
    pub(super) y: &'static str,
    /// What is drawn.
    pub(super) shape: Shape,
}

/// How.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Shape {
    /// Points joined by lines, both axes logarithmic: a power is a straight line.
    Lines(Vec<(String, Vec<(f64, f64)>)>),
    /// A bar each, with its outermost values as a whisker: name, low, middle, high.
    Bars(Vec<(String, f64, f64, f64)>),
}

impl Plot {
    /// As a file.
    pub(super) fn svg(&self) -> String {
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#5c7080\">\n\
             <text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{}</text>\n",
            escaped(&self.title)
        );
        match &self.shape {
            Shape::Lines(lines) => self.lines(lines, &mut out),
            Shape::Bars(bars) => self.bars(bars, &mut out),
        }
        out + "</svg>\n"
    }

    fn lines(&self, lines: &[(String, Vec<(f64, f64)>)], out: &mut String) {
        let points = || lines.iter().flat_map(|(_, points)| points).filter(drawn);
        let x = Axis::over(points().map(|p| p.0), LEFT, WIDTH - RIGHT);
        let y = Axis::over(points().map(|p| p.1), HEIGHT - BOTTOM, TOP);
        let (Some(x), Some(y)) = (x, y) else { return };
        for tick in x.ticks() {
            let at = x.at(tick);
            let bottom = HEIGHT - BOTTOM;
            put(
                out,
                &format!(
                    "<path d=\"M{at:.1} {TOP}V{bottom}\" stroke=\"#8884\"/><text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                    bottom + 16.0,
                    short(tick)
                ),
            );
        }
        for tick in y.ticks() {
            let at = y.at(tick);
            put(
                out,
                &format!(
                    "<path d=\"M{LEFT} {at:.1}H{}\" stroke=\"#8884\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                    WIDTH - RIGHT,
                    LEFT - 6.0,
                    at + 4.0,
                    short(tick)
                ),
            );
        }
        for (at, ((name, points), colour)) in lines.iter().zip(COLOURS.iter().cycle()).enumerate() {
            let drawn: Vec<String> = points
                .iter()
                .filter(drawn)
                .map(|(px, py)| format!("{:.1},{:.1}", x.at(*px), y.at(*py)))
                .collect();
            put(
                out,
                &format!(
                    "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                    drawn.join(" ")
                ),
            );
            for point in &drawn {
                let (px, py) = point.split_once(',').unwrap_or_default();
                put(out, &format!("<circle cx=\"{px}\" cy=\"{py}\" r=\"3\" fill=\"{colour}\"/>"));
            }
            put(
                out,
                &format!(
                    "<text x=\"{}\" y=\"{}\" fill=\"{colour}\">{}</text>",
                    WIDTH - RIGHT + 12.0,
                    TOP + 16.0 * (at as f64 + 1.0),
                    escaped(name)
                ),
            );
        }
        put(
            out,
            &format!(
                "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text><text x=\"{LEFT}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                f64::midpoint(LEFT, WIDTH - RIGHT),
                HEIGHT - 16.0,
                escaped(self.x),
                TOP - 6.0,
                escaped(self.y)
            ),
        );
    }

    fn bars(&self, bars: &[(String, f64, f64, f64)], out: &mut String) {
        let most = bars.iter().map(|bar| bar.3).fold(0.0, f64::max);
        if most <= 0.0 {
            return;
        }
        let names = 250.0;
        let room = WIDTH - names - 90.0;
        let step = ((HEIGHT - TOP - 30.0) / bars.len() as f64).min(30.0);
        for (at, (name, low, middle, high)) in bars.iter().enumerate() {
            let y = TOP + step * at as f64;
            let wide = |value: f64| room * (value.max(0.0) / most);
            let centre = y + step * 0.4;
            put(
                out,
                &format!(
                    "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text><rect x=\"{names}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"/><path d=\"M{:.1} {centre:.1}H{:.1}\" stroke=\"#111\" stroke-width=\"1.5\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                    names - 8.0,
                    centre + 4.0,
                    escaped(name),
                    wide(*middle),
                    step * 0.8,
                    COLOURS[0],
                    names + wide(*low),
                    names + wide(*high),
                    names + wide(*high) + 6.0,
                    centre + 4.0,
                    short(*middle)
                ),
            );
        }
        put(
            out,
            &format!(
                "<text x=\"{names}\" y=\"{}\">{}; the line is from the least to the most</text>",
                HEIGHT - 8.0,
                escaped(self.y)
            ),
        );
    }
}

fn drawn(point: &&(f64, f64)) -> bool {
    point.0 > 0.0 && point.1 > 0.0
}

fn put(out: &mut String, line: &str) {
    // Into a String, which takes all.
    let _ = writeln!(out, "{line}");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A logarithmic axis.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// From the power of ten below all values to the one above.
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Option<Self> {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        let (low, high) = (low.log10().floor(), high.log10().ceil());
        (low.is_finite() && high.is_finite()).then(|| Self {
            low,
            high: high.max(low + 1.0),
            from,
            to,
        })
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value.log10() - self.low) / (self.high - self.low);
        self.from + share * (self.to - self.from)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> + use<> {
        let (mut power, high) = (self.low, self.high);
        std::iter::from_fn(move || {
            let now = power;
            power += 1.0;
            (now <= high).then(|| 10_f64.powf(now))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_is_a_straight_line_and_names_are_escaped() {
        let plot = Plot {
            slug: "x",
            title: "a < b".into(),
            x: "n",
            y: "ms",
            shape: Shape::Lines(vec![("one".into(), vec![(1.0, 1.0), (10.0, 10.0), (0.0, 3.0)])]),
        };
        let svg = plot.svg();
        assert!(
            svg.contains("a &lt; b") && svg.contains("points=\"80.0,280.0 570.0,40.0\""),
            "{svg}"
        );
    }

    #[test]
    fn the_longest_bar_has_all_the_room() {
        let shape = Shape::Bars(vec![("a".into(), 1.0, 2.0, 4.0), ("b".into(), 0.0, 1.0, 1.0)]);
        let svg = Plot { slug: "x", title: "t".into(), x: "", y: "ns", shape }.svg();
        assert!(svg.contains("width=\"210.0\"") && svg.contains("width=\"105.0\""), "{svg}");
        assert!(
            !Plot { slug: "x", title: "t".into(), x: "", y: "", shape: Shape::Bars(vec![]) }
                .svg()
                .contains("rect")
        );
    }
}
